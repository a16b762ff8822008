-- name: keep_the_index
-- For one transaction: the settings of neighbours_of, so that candidates come through the index where there is one.
select set_config(name, value, true) from (values
    ('enable_seqscan', 'off'), ('enable_sort', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'),
    ('jit', 'off'), ('hnsw.iterative_scan', 'relaxed_order'), ('hnsw.ef_search', '40')) as setting (name, value)

-- name: find_pairs
-- The near-duplicates of some images: the best candidates by code, ranked exactly. Unwanted images have none.
with t as materialized (
    -- subvector makes a plain value: what lies beside its row would be fetched again for every candidate.
    select image_id, code, subvector(v, 1, {bits}) as v, work from {vectors} join images on id = image_id
    where image_id = any(%(ids)s)
)
select least(t.image_id, c.image_id) as a, greatest(t.image_id, c.image_id) as b,
    min(as_distance(c.v <=> t.v, %(form)s)) as distance
from t
cross join lateral (
    select x.image_id, x.v from {vectors} x
    where x.image_id <> t.image_id
      and not exists (select from unwanted_images u where u.image_id = x.image_id and u.state = 'accepted')
      and not exists (select from images i where %(other_works)s and i.id = x.image_id and i.work = t.work)
    order by x.code <~> t.code limit %(candidates)s
) c
where as_distance(c.v <=> t.v, %(form)s) <= %(threshold)s
  and not exists (select from unwanted_images u where u.image_id = t.image_id and u.state = 'accepted')
group by 1, 2

-- name: find_turned
-- The near-duplicates of one turned image, given by its vector and code.
select c.image_id as other, as_distance(c.v <=> %(vector)s::halfvec, %(form)s) as distance from (
    select x.image_id, x.v from {vectors} x
    where x.image_id <> %(image)s
      and not exists (select from unwanted_images u where u.image_id in (x.image_id, %(image)s) and u.state = 'accepted')
      and not exists (
          select from images i, images j where %(other_works)s and i.id = x.image_id and j.id = %(image)s and i.work = j.work)
    order by x.code <~> %(code)s::bit({bits}) limit %(candidates)s
) c
where as_distance(c.v <=> %(vector)s::halfvec, %(form)s) <= %(threshold)s

-- name: miniatures
-- What the pictures look like in 12 x 12 greys, where that is known of their present content.
select id, miniature from images where id = any(%(ids)s) and appearance_revision = revision

-- name: lock_groups
-- Groups of an encoder are changed by one at a time.
select pg_advisory_xact_lock(hashtextextended('lookalike duplicates ' || %(encoder)s, 0))

-- name: delete_stale_pairs
-- Pairs found before an image got the vector that it has now.
delete from duplicate_pairs p using {vectors} v
where p.encoder = %(encoder)s and v.image_id = any(%(ids)s) and v.image_id in (p.a, p.b)
  and p.found_at < v.stored_at
returning p.a, p.b

-- name: merge_pairs
-- Keeps the pairs; of several turns the nearest one. What people call different is none, nor what has been deleted; and a
-- pair with an image whose vector was stored meanwhile will be found again.
insert into duplicate_pairs as p (encoder, a, b, distance, likeness, turn, found_at)
select %(encoder)s, a, b, distance, likeness, turn, %(since)s
from unnest(%(a)s::bigint[], %(b)s::bigint[], %(distance)s::real[], %(likeness)s::real[], %(turn)s::text[])
    as t (a, b, distance, likeness, turn)
where not exists (select from marked_pairs m where m.a = t.a and m.b = t.b and not m.same)
  and not exists (select from {vectors} v where v.image_id in (t.a, t.b) and v.stored_at > %(since)s)
  and exists (select from images i where i.id = t.a) and exists (select from images i where i.id = t.b)
order by a, b
on conflict (encoder, a, b) do update
set distance = excluded.distance, likeness = excluded.likeness, turn = excluded.turn
where excluded.distance < p.distance or p.likeness is null
returning a, b

-- name: groups_of
-- The groups that images are in already, with their sizes.
select m.image_id, m.group_id, g.size from duplicate_members m join duplicate_groups g on g.id = m.group_id
where m.encoder = %(encoder)s and m.image_id = any(%(ids)s)

-- name: new_group
-- An empty group.
insert into duplicate_groups (encoder) values (%(encoder)s) returning id

-- name: join_groups
-- The members of other groups become those of one.
update duplicate_members set group_id = %(group)s where group_id = any(%(others)s)

-- name: delete_groups
-- Groups that have no members left.
delete from duplicate_groups where id = any(%(groups)s)

-- name: add_members
-- Images that were in no group.
insert into duplicate_members (encoder, image_id, group_id)
select %(encoder)s, id, %(group)s from unnest(%(ids)s::bigint[]) as id
on conflict (encoder, image_id) do update set group_id = excluded.group_id

-- name: leave_groups
-- Images that have changed leave a giant group; it is not taken apart for them.
delete from duplicate_members where encoder = %(encoder)s and image_id = any(%(ids)s) and group_id = any(%(groups)s)

-- name: dissolve_groups
-- Takes the members out of groups that have to be linked anew.
delete from duplicate_members where group_id = any(%(groups)s) returning image_id

-- name: links
-- What links images: their pairs, and what people call the same picture.
select a, b from duplicate_pairs where encoder = %(encoder)s and (a = any(%(ids)s) or b = any(%(ids)s))
union
select a, b from marked_pairs where same and (a = any(%(ids)s) or b = any(%(ids)s))

-- name: count_members
-- How many images a group has; one that has left does not stand for it any more.
update duplicate_groups g set size = (select count(*) from duplicate_members m where m.group_id = g.id),
    representative_id = (
        select m.image_id from duplicate_members m where m.group_id = g.id and m.image_id = g.representative_id)
where id = any(%(groups)s) returning id, size, representative_id

-- name: choose_representatives
-- The image that is paired with most others stands for the group; of several the nearest to them, then the earliest.
with paired as materialized (
    select m.group_id, m.image_id, count(p.distance) as pairs, avg(p.distance) as mean, min(p.distance) as nearest
    from duplicate_members m
    left join lateral (
        select distance from duplicate_pairs where encoder = %(encoder)s and a = m.image_id
        union all
        select distance from duplicate_pairs where encoder = %(encoder)s and b = m.image_id
    ) p on true
    where m.group_id = any(%(groups)s) group by 1, 2
), measured as (
    update duplicate_members m set nearest = p.nearest from paired p
    where m.encoder = %(encoder)s and m.image_id = p.image_id and m.nearest is distinct from p.nearest
)
update duplicate_groups g set representative_id = best.image_id
from (select distinct on (group_id) group_id, image_id from paired
      order by group_id, pairs desc, mean nulls last, image_id) best
where g.id = best.group_id

-- name: now
-- The database's clock.
select clock_timestamp()

-- name: mark
-- What somebody says of a pair; the latest word counts.
insert into marked_pairs (a, b, same, marked_by) values (%(a)s, %(b)s, %(same)s, %(by)s)
on conflict (a, b) do update set same = excluded.same, marked_by = excluded.marked_by, marked_at = now()

-- name: delete_pair
-- A pair of different pictures is none.
delete from duplicate_pairs where a = %(a)s and b = %(b)s

-- name: unmark
-- Nobody has said anything of this pair.
delete from marked_pairs where a = %(a)s and b = %(b)s

-- name: restore_pairs
-- Pairs that a decision had deleted, unless they were found again.
insert into duplicate_pairs (encoder, a, b, distance, likeness, turn, found_at)
select encoder, a, b, distance, likeness, turn, found_at from jsonb_populate_recordset(null::duplicate_pairs, %(pairs)s)
on conflict do nothing

-- name: marked_distances
-- The marked pairs that have vectors of the encoder: how far apart they are, what they look like, what people say.
select as_distance(x.v <=> y.v, %(form)s) as distance, i.miniature as first, j.miniature as second, m.same
from marked_pairs m join {vectors} x on x.image_id = m.a join {vectors} y on y.image_id = m.b
join images i on i.id = m.a join images j on j.id = m.b order by 1

-- name: set_threshold
-- The threshold that was learned.
insert into duplicate_thresholds (encoder, threshold, likeness, precision, recall, pairs)
values (%(encoder)s, %(threshold)s, %(likeness)s, %(precision)s, %(recall)s, %(pairs)s)
on conflict (encoder) do update set threshold = excluded.threshold, likeness = excluded.likeness,
    precision = excluded.precision, recall = excluded.recall, pairs = excluded.pairs, learned_at = now()

-- name: threshold
-- The threshold that was learned for an encoder.
select threshold, likeness from duplicate_thresholds where encoder = %(encoder)s

-- name: list
-- The largest groups, with their members.
select "group", size, image, representative, distance, work, title, url from duplicates
where encoder = %(encoder)s and "group" in (
    select id from duplicate_groups where encoder = %(encoder)s and size >= %(least)s order by size desc, id limit %(limit)s)
order by size desc, "group", representative desc, distance, image

-- name: summary
-- How many groups there are, and images in them.
select count(*) as groups, coalesce(sum(size), 0)::bigint as images from duplicate_groups where encoder = %(encoder)s

-- name: table
-- Where the vectors are, and how distances are measured.
select vectors, dimension, distance as form from encoders where name = %(encoder)s

-- name: clear_members
-- Another search takes the place of the last one: of its groups,
delete from duplicate_members where encoder = %(encoder)s

-- name: clear_groups
-- which are empty now,
delete from duplicate_groups where encoder = %(encoder)s

-- name: clear_pairs
-- and of its pairs.
delete from duplicate_pairs where encoder = %(encoder)s

-- name: marked_same
-- What people call the same picture.
select a, b from marked_pairs where same
