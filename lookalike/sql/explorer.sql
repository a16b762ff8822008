-- name: image
-- One image with what is known of it, and whether somebody called it unwanted.
select i.id, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.access, i.source, i.digitised,
    i.registered_at, i.changed_at, i.revision, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept, i.palette, i.palette_shares,
    exists (select from unwanted_images u where u.image_id = i.id and u.state = 'accepted') as unwanted
from images i where i.key = %(key)s

-- name: similar
-- The neighbours of an image, with what a page shows of each.
select n.rank, n.distance, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from similar(
    %(key)s, %(k)s, %(max_distance)s, %(encoder)s, exclude_same_work => %(exclude_same_work)s, work => %(work)s,
    licence => %(licence)s, access => %(access)s, source => %(source)s, since => %(since)s, before => %(before)s,
    colour => %(colour)s, include_unwanted => %(include_unwanted)s) n
join images i on i.key = n.image order by n.rank

-- name: nearest
-- The neighbours of a vector from outside, with what a page shows of each.
select n.rank, n.distance, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from nearest(
    %(vector)s, %(k)s, %(max_distance)s, %(encoder)s, work => %(work)s, licence => %(licence)s, access => %(access)s,
    source => %(source)s, since => %(since)s, before => %(before)s, colour => %(colour)s,
    include_unwanted => %(include_unwanted)s) n
join images i on i.key = n.image order by n.rank

-- name: by_colour
-- The images that hold most of a colour, with what a page shows of each.
select n.rank, n.distance, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from by_colour(%(colour)s, %(k)s, %(max_distance)s, include_unwanted => %(include_unwanted)s) n
join images i on i.key = n.image order by n.rank

-- name: bounds
-- The first and the last image; null in an empty archive.
select min(id), max(id) from images

-- name: wall
-- The images that follow some ids, each once: those that can be searched from first. An id costs one look at an index.
with drawn as (
    select distinct i.id from unnest(%(ids)s::bigint[]) as d (id)
    cross join lateral (select id from images where id >= d.id order by id limit 1) i
)
select i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from drawn join images i using (id)
where not exists (select from unwanted_images u where u.image_id = i.id and u.state = 'accepted')
order by i.aspect_ratio is null, random() limit %(count)s

-- name: find_by_key
-- Images whose key begins with a text, in the order of the index on keys, from where the last page ended.
select 0 as class, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from images i
where i.key collate "C" ^@ %(text)s and i.key collate "C" > %(after)s and not exists (
    select from unwanted_images u where not %(include_unwanted)s and u.image_id = i.id and u.state = 'accepted')
order by i.key collate "C" limit %(limit)s

-- name: fitting_titles
-- The images with all these words in their titles: asked for the planner's estimate, never run.
select from images where title is not null and to_tsvector('simple', title) @@ to_tsquery('simple', %(words)s)

-- name: about_images
-- How many images there are, as the statistics know it.
select greatest(reltuples, 1)::bigint from pg_class where oid = 'images'::regclass

-- name: find_by_title
-- Images whose title has all these words, where not many do: those that the index on words names, in the order of their
-- keys. Of more than `most` these are some. The words come out of a subquery, so that the planner asks this index.
select 1 as class, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from (
    select * from images i
    where i.title is not null and to_tsvector('simple', i.title) @@ (select to_tsquery('simple', %(words)s))
      and not i.key collate "C" ^@ %(text)s limit %(most)s) i
where i.key collate "C" > %(after)s and not exists (
    select from unwanted_images u where not %(include_unwanted)s and u.image_id = i.id and u.state = 'accepted')
order by i.key collate "C" limit %(limit)s

-- name: walk_titles
-- Images whose title has all these words, where many do: in the order of keys title after title is read until there are
-- enough, and never more than `most` of them. The index on words would list all that fit first.
select 1 as class, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from (select * from images where key collate "C" > %(after)s order by key collate "C" limit %(most)s) i
where i.title is not null and to_tsvector('simple', i.title) @@ to_tsquery('simple', %(words)s)
  and not i.key collate "C" ^@ %(text)s and not exists (
    select from unwanted_images u where not %(include_unwanted)s and u.image_id = i.id and u.state = 'accepted')
order by i.key collate "C" limit %(limit)s

-- name: walked_to
-- Where such a walk ends; nothing where that is the end of the archive.
select key from images where key collate "C" > %(after)s order by key collate "C" offset %(most)s - 1 limit 1

-- name: work
-- The images of a work, in the order of their registration, which is mostly that of its pages; unwanted ones where they
-- are asked for.
select i.id, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from images i where i.work = %(work)s and i.id > %(after)s and not exists (
    select from unwanted_images u where not %(include_unwanted)s and u.image_id = i.id and u.state = 'accepted')
order by i.id limit %(limit)s

-- name: vector
-- The vector of an image, for pictures of it.
select v from {vectors} where image_id = %(image)s

-- name: has_vector
-- Whether an image can be searched from.
select true from {vectors} where image_id = %(image)s

-- name: labels
-- What a network says that an image shows.
select rank, label, probability from labels where encoder = %(encoder)s and image_id = %(image)s order by rank

-- name: image_clusters
-- The clusters that an image is in: one for each way to cluster that is shown.
select c.cluster, g.of, g.method, n.name,
    nullif(concat_ws(': ', c.classes[1], nullif(array_to_string(c.words, ', '), '')), '') as label,
    c.size, c.spread, m.distance
from clusterings g
cross join lateral (
    select number, distance from clustered_images x where g.of = 'images' and x.analysis = g.analysis and x.image_id = %(image)s
    union all
    select number, distance from clustered_works x where g.of = 'works' and x.analysis = g.analysis and x.work = %(work)s
) m
join cluster_centres c on c.analysis = g.analysis and c.number = m.number
join cluster_identities n on n.id = c.cluster
where g.encoder = %(encoder)s and g.shown order by g.of, g.method

-- name: clusters
-- Clusters by their size, behind one of them, with the images that stand for each.
select c.cluster, c.of, c.method, c.name, c.label, c.size, c.spread, c.exemplars, c.classes, c.words from clusters c
where c.encoder = %(encoder)s and c.of = %(of)s and c.method = %(method)s
  and (-c.size, c.cluster) > (-%(after_size)s::bigint, %(after)s::bigint)
order by -c.size, c.cluster limit %(limit)s

-- name: images
-- Some images by their keys, in that order; those that are gone or unwanted are left out.
select i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from unnest(%(keys)s::text[]) with ordinality as k (key, n) join images i on i.key = k.key
where not exists (select from unwanted_images u where u.image_id = i.id and u.state = 'accepted') order by k.n

-- name: first_images
-- The first image of each of some works that is not unwanted, in their order.
select i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from unnest(%(works)s::text[]) with ordinality as w (work, n)
cross join lateral (
    select * from images f where f.work = w.work
      and not exists (select from unwanted_images u where u.image_id = f.id and u.state = 'accepted')
    order by f.id limit 1) i
order by w.n

-- name: image_members
-- The images of a cluster, nearest to its centre first, behind one of them. Where the cluster is comes first and by
-- itself, so that its members are read in the order of their index and not all of them for every page.
with place as materialized (
    select c.analysis, c.number from cluster_centres c join clusterings g on g.analysis = c.analysis and g.shown
    where c.cluster = %(cluster)s
)
select i.id, m.distance, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from clustered_images m join images i on i.id = m.image_id
where m.analysis = (select analysis from place) and m.number = (select number from place)
  and (m.distance, m.image_id) > (%(after_distance)s::real, %(after)s::bigint)
  and not exists (select from unwanted_images u where u.image_id = m.image_id and u.state = 'accepted')
order by m.distance, m.image_id limit %(limit)s

-- name: work_members
-- The works of a cluster, nearest to its centre first, behind one of them, each with its first image that is not unwanted.
with place as materialized (
    select c.analysis, c.number from cluster_centres c join clusterings g on g.analysis = c.analysis and g.shown
    where c.cluster = %(cluster)s
)
select m.distance, i.key, i.url, i.protocol, m.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from clustered_works m
cross join lateral (
    select * from images f where f.work = m.work
      and not exists (select from unwanted_images u where u.image_id = f.id and u.state = 'accepted')
    order by f.id limit 1) i
where m.analysis = (select analysis from place) and m.number = (select number from place)
  and (m.distance, m.work) > (%(after_distance)s::real, %(after)s::text)
order by m.distance, m.work limit %(limit)s

-- name: pairs
-- Pairs of near-duplicates, nearest first, behind one of them, with what people said of them: all, or those that wait for
-- it. They are read by an index, that of pairs which wait where those are asked for, before anything is joined: what it
-- costs does not grow with those that were decided.
select p.a as first_id, p.b as second_id, p.distance, p.likeness, p.turn, m.same, m.marked_by, m.marked_at,
    to_jsonb(x) as first, to_jsonb(y) as second
from (
    select a, b, distance, likeness, turn from duplicate_pairs
    where encoder = %(encoder)s and {which}
      and (distance, a, b) > (%(after_distance)s::real, %(after_a)s::bigint, %(after_b)s::bigint)
    order by distance, a, b limit %(limit)s) p
left join marked_pairs m on m.a = p.a and m.b = p.b
cross join lateral (
    select key, url, protocol, work, title, licence, credit, aspect_ratio, average_colour,
        thumbnail_of(id) as kept from images where id = p.a) x
cross join lateral (
    select key, url, protocol, work, title, licence, credit, aspect_ratio, average_colour,
        thumbnail_of(id) as kept from images where id = p.b) y
order by p.distance, p.a, p.b

-- name: copies_of
-- The near-duplicates of an image, nearest first.
select p.distance, p.likeness, p.turn, m.same, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio,
    i.average_colour,
    thumbnail_of(i.id) as kept
from (
    select a, b, b as other, distance, likeness, turn from duplicate_pairs where encoder = %(encoder)s and a = %(image)s
    union all
    select a, b, a, distance, likeness, turn from duplicate_pairs where encoder = %(encoder)s and b = %(image)s) p
left join marked_pairs m on m.a = p.a and m.b = p.b
join images i on i.id = p.other order by p.distance, i.key limit %(limit)s

-- name: groups
-- Groups of near-duplicates, largest first, behind one of them, with the first members of each. Those of one size, which
-- are very many, and the smaller ones are each read in the order of the index.
with shown as (
    (select id, size, representative_id from duplicate_groups
     where encoder = %(encoder)s and size = %(after_size)s and size >= 2 and id > %(after)s order by id limit %(limit)s)
    union all
    (select id, size, representative_id from duplicate_groups
     where encoder = %(encoder)s and size < %(after_size)s and size >= 2 order by size desc, id limit %(limit)s)
)
select g.id as "group", g.size, members.images from shown g
cross join lateral (
    select jsonb_agg(to_jsonb(t) order by t.representative desc, t.distance, t.key) as images from (
        select i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
            thumbnail_of(i.id) as kept,
            i.id = g.representative_id as representative, m.nearest as distance
        from duplicate_members m join images i on i.id = m.image_id
        where m.group_id = g.id order by i.id = g.representative_id desc, m.nearest, i.key limit %(members)s) t) members
order by g.size desc, g.id limit %(limit)s

-- name: unwanted
-- The images of a set, or of all, in one state, nearest to an example first, behind one of them.
select s.name as set, u.set_id, u.image_id, u.state, u.distance, n.key as nearest_example, u.example, u.decided_by,
    u.decided_at, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from unwanted_images u join unwanted_sets s on s.id = u.set_id join images i on i.id = u.image_id
left join images n on n.id = u.nearest_id
where u.state = %(state)s and (%(set)s::bigint is null or u.set_id = %(set)s::bigint)
  and (u.distance, u.image_id, u.set_id) > (%(after_distance)s::real, %(after)s::bigint, %(after_set)s::bigint)
order by u.distance, u.image_id, u.set_id limit %(limit)s

-- name: image_unwanted
-- What is said of an image as an unwanted one, in each set.
select s.name as set, u.state, u.distance, n.key as nearest_example, u.example, u.decided_by, u.decided_at
from unwanted_images u join unwanted_sets s on s.id = u.set_id left join images n on n.id = u.nearest_id
where u.image_id = %(image)s order by s.name

-- name: licences
-- The licences there are: a look at the index for each, however many images have it.
with recursive one as (
    (select licence from images where licence is not null order by licence limit 1)
    union all
    select (select i.licence from images i where i.licence > one.licence order by i.licence limit 1) from one
    where one.licence is not null
)
select licence from one where licence is not null limit 100

-- name: decisions
-- What was decided, the latest first, behind one of them.
select id, kind, subject, verdict, decided_by, decided_at, undone_by, undone_at from decisions
where id < %(before)s order by id desc limit %(limit)s

-- name: add_decision
-- Somebody decides; `before` is what held until then.
insert into decisions (kind, subject, verdict, decided_by, before)
values (%(kind)s, %(subject)s, %(verdict)s, %(by)s, %(before)s)
returning id, kind, subject, verdict, decided_by, decided_at, undone_by, undone_at

-- name: subject
-- What a decision is about.
select kind, subject from decisions where id = %(id)s

-- name: take_decision
-- A decision that is to be taken back, and whether it is the latest of its subject that holds. Nobody else takes it back.
select d.id, d.kind, d.subject, d.verdict, d.decided_by, d.decided_at, d.undone_by, d.undone_at, d.before, exists (
    select from decisions l where l.kind = d.kind and l.subject = d.subject and l.undone_at is null and l.id > d.id) as outdated
from decisions d where d.id = %(id)s for update

-- name: undo_decision
-- It is taken back.
update decisions set undone_by = %(by)s, undone_at = now() where id = %(id)s
returning id, kind, subject, verdict, decided_by, decided_at, undone_by, undone_at

-- name: lock_subject
-- One at a time decides about a subject.
select pg_advisory_xact_lock(hashtextextended('lookalike decision ' || %(subject)s, 0))

-- name: pair_before
-- What is said of a pair, and the pairs that a decision may delete.
select jsonb_build_object(
    'mark', (select to_jsonb(m) from marked_pairs m where m.a = %(a)s and m.b = %(b)s),
    'pairs', coalesce((select jsonb_agg(to_jsonb(p)) from duplicate_pairs p where p.a = %(a)s and p.b = %(b)s), '[]'))

-- name: restore_mark
-- What somebody said of a pair before, with when.
update marked_pairs set marked_at = %(at)s::timestamptz where a = %(a)s and b = %(b)s

-- name: unwanted_before
-- What all sets say of an image.
select coalesce(jsonb_agg(to_jsonb(u)), '[]') from unwanted_images u where u.image_id = %(image)s

-- name: hand_set
-- The set of what somebody called unwanted on sight, without examples to find more by.
insert into unwanted_sets (name, encoder, threshold) values (%(name)s, %(encoder)s, 0) on conflict (name) do nothing

-- name: decide_by_hand
-- What somebody says of an image on sight.
insert into unwanted_images (set_id, image_id, distance, state, decided_by, decided_at, revision)
select s.id, i.id, 0, %(state)s, %(by)s, now(), i.revision from unwanted_sets s, images i
where s.name = %(name)s and i.id = %(image)s
on conflict (set_id, image_id) do update set state = excluded.state, decided_by = excluded.decided_by,
    decided_at = excluded.decided_at, revision = excluded.revision

-- name: sets_against
-- The other sets that call an image unwanted, or may.
select s.name from unwanted_images u join unwanted_sets s on s.id = u.set_id
where u.image_id = %(image)s and u.state <> 'fine' and s.name <> %(name)s order by s.name

-- name: forget_unwanted
-- No set says anything of an image.
delete from unwanted_images where image_id = %(image)s

-- name: restore_unwanted
-- What sets said of an image, as far as they and its nearest examples are still there.
insert into unwanted_images (
    set_id, image_id, example, nearest_id, distance, state, decided_by, decided_at, revision)
select u.set_id, u.image_id, u.example, n.id, u.distance, u.state, u.decided_by, u.decided_at, u.revision
from jsonb_populate_recordset(null::unwanted_images, %(rows)s) u join unwanted_sets s on s.id = u.set_id
left join images n on n.id = u.nearest_id

-- name: name_before
-- What a cluster was called.
select name from cluster_identities where id = %(cluster)s

-- name: failed
-- Images without a vector of an encoder, the latest failure first, behind one of them; of one reason, or of all.
select f.image_id, f.reason, r.meaning, f.detail, f.attempts, f.failed_at, i.key, i.url, i.protocol, i.work, i.title, i.licence,
    i.credit, i.aspect_ratio, i.average_colour, thumbnail_of(i.id) as kept
from failures f join images i on i.id = f.image_id join reasons r on r.code = f.reason
where f.encoder = %(encoder)s and (%(reason)s::text is null or f.reason = %(reason)s)
  and f.failed_at <= %(failed_at)s::timestamptz and (f.failed_at, -f.image_id) < (%(failed_at)s::timestamptz, -%(after)s::bigint)
order by f.failed_at desc, f.image_id limit %(limit)s
