-- name: table
-- Where the vectors are, and how distances are measured.
select vectors, dimension, distance as form from encoders where name = %(encoder)s

-- name: highest_image
-- The end of the ids.
select coalesce(max(id), 0) from images

-- name: first_images
-- Some images that have a vector: all of them when they are fewer.
select image_id from {vectors} limit %(count)s

-- name: drawn_images
-- Those of some random ids that are images with a vector.
select image_id from {vectors} where image_id = any(%(ids)s)

-- name: image_vectors
-- The vectors of some images.
select image_id as item, v, stored_at from {vectors} where image_id = any(%(items)s) order by image_id

-- name: first_works
-- Some works: all of them when they are fewer.
select distinct work from images where work is not null limit %(count)s

-- name: drawn_works
-- The works whose first image is among some random ids: every work has the same chance, however many images it has.
select i.id, i.work from images i
where i.id = any(%(ids)s) and i.work is not null
  and not exists (select from images j where j.work = i.work and j.id < i.id)

-- name: work_vectors
-- The unit mean vectors of some works, over their images that have a vector.
select i.work as item, l2_normalize(avg(v.v::vector)) as v, count(*)::integer as images, max(v.stored_at) as latest
from images i join {vectors} v on v.image_id = i.id
where i.work = any(%(items)s) group by i.work order by i.work

-- name: changed_works
-- The works of some images that are not assigned yet, or were before one of their images got the vector that it has now.
with asked as materialized (
    select distinct work from images where id = any(%(ids)s) and work is not null
), counted as materialized (
    select i.work, count(*) as images, max(v.stored_at) as latest
    from asked a join images i on i.work = a.work join {vectors} v on v.image_id = i.id group by i.work
)
select c.work from counted c left join clustered_works m on m.analysis = %(analysis)s and m.work = c.work
where m.work is null or (m.images, m.latest) is distinct from (c.images, c.latest) order by c.work

-- name: insert_clustering
-- A clustering that is under way; it is not shown yet.
insert into clusterings (analysis, encoder, of, method, seed, sampled, silhouette)
values (%(analysis)s, %(encoder)s, %(of)s, %(method)s, %(seed)s, %(sampled)s, %(silhouette)s)

-- name: copy_centres
-- Stores the centres of a clustering.
copy cluster_centres (analysis, number, centre) from stdin (format binary)

-- name: make_partition
-- Where the members of one clustering will be.
select make_members(%(of)s, %(analysis)s)

-- name: drop_partition
-- The members of an old clustering, all at once.
select drop_members(%(of)s, %(analysis)s)

-- name: select_clustering
-- A clustering, for those who assign.
select g.analysis, g.of, g.method, g.made_at, e.vectors, e.dimension, e.distance as form
from clusterings g join encoders e on e.name = g.encoder where g.analysis = %(analysis)s

-- name: select_centres
-- The centres of a clustering, in the order of their numbers, which start at 0.
select centre from cluster_centres where analysis = %(analysis)s order by number

-- name: assign_images
-- Assigns images, but for those whose vector has changed meanwhile: they will be looked at again.
insert into clustered_images (analysis, image_id, number, distance)
select %(analysis)s, t.image_id, t.number, t.distance
from unnest(%(items)s::bigint[], %(numbers)s::integer[], %(distances)s::real[], %(latest)s::timestamptz[])
    as t (image_id, number, distance, stored_at)
join {vectors} v on v.image_id = t.image_id and v.stored_at = t.stored_at
order by t.image_id
on conflict (analysis, image_id) do update set number = excluded.number, distance = excluded.distance

-- name: assign_works
-- Assigns works; the mean of more recent vectors is never replaced by that of earlier ones.
insert into clustered_works as m (analysis, work, number, distance, images, latest)
select %(analysis)s, work, number, distance, images, latest
from unnest(%(items)s::text[], %(numbers)s::integer[], %(distances)s::real[], %(images)s::integer[],
            %(latest)s::timestamptz[]) as t (work, number, distance, images, latest)
order by work
on conflict (analysis, work) do update
set number = excluded.number, distance = excluded.distance, images = excluded.images, latest = excluded.latest
where (excluded.latest, excluded.images) >= (m.latest, m.images)

-- name: is_shown
-- Whether a clustering is what people see.
select shown from clusterings where analysis = %(analysis)s

-- name: summary_due
-- Whether a clustering has to be summed up: it never was, or so long ago that summaries take a hundredth of the time at most.
select summed_at is null or clock_timestamp() > summed_at + make_interval(secs => 100 * seconds) as due, of, method
from clusterings where analysis = %(analysis)s

-- name: analyze
-- Fresh statistics of the members: after a first assignment the planner knows nothing of them.
analyze {partition}

-- name: count_members
-- How many members each cluster has, and how far from the centre they are on average.
with counted as (
    select number, count(*) as size, avg(distance) as spread from {members} where analysis = %(analysis)s group by number
)
update cluster_centres c set size = coalesce(n.size, 0), spread = n.spread
from cluster_centres d left join counted n on n.number = d.number
where c.analysis = %(analysis)s and d.analysis = c.analysis and d.number = c.number

-- name: choose_exemplars
-- The members nearest to each centre: the keys of images, or works.
update cluster_centres c set exemplars = array(
    select {key} from (
        select m.{item}, m.distance from {members} m where m.analysis = c.analysis and m.number = c.number
        order by m.distance, m.{item} limit %(exemplars)s
    ) m {with_keys} order by m.distance, m.{item})
where c.analysis = %(analysis)s

-- name: make_cores
-- The images that tell what a cluster is about, and terms that they carry; one of each for a connection.
create temporary table if not exists cluster_cores (number integer, image_id bigint, weight real) on commit delete rows

-- name: make_terms
-- The classes, and then the words, of the cores.
create temporary table if not exists cluster_terms (number integer, term text, weight real) on commit delete rows

-- name: fill_image_cores
-- The images nearest to each centre.
insert into cluster_cores
select c.number, m.image_id, 1 from cluster_centres c
cross join lateral (
    select image_id from clustered_images where analysis = c.analysis and number = c.number
    order by distance, image_id limit %(core)s) m
where c.analysis = %(analysis)s

-- name: fill_work_cores
-- The first images of the works nearest to each centre; each work counts once.
insert into cluster_cores
select c.number, i.id, 1.0 / count(*) over (partition by c.number, m.work) from cluster_centres c
cross join lateral (
    select work from clustered_works where analysis = c.analysis and number = c.number
    order by distance, work limit %(core)s) m
cross join lateral (select id from images where work = m.work order by id limit 3) i
where c.analysis = %(analysis)s

-- name: clear_cores
-- Room for the cores of another clustering in the same transaction.
delete from cluster_cores

-- name: clear_terms
-- Room for terms of another sort.
delete from cluster_terms

-- name: fill_classes
-- The classes of the cores: each image counts as the probability that it shows the class.
insert into cluster_terms
select m.number, l.label, sum(m.weight * l.probability)
from cluster_cores m join labels l on l.encoder = %(encoder)s and l.image_id = m.image_id group by 1, 2

-- name: fill_words
-- The words of the titles of the cores, each once a title; numbers and short words are none.
insert into cluster_terms
select m.number, w.word, sum(m.weight)
from cluster_cores m join images i on i.id = m.image_id
cross join lateral (
    select distinct word from regexp_split_to_table(lower(i.title), '[\s\d[:punct:]“”‘’«»–—…]+') as word
    where length(word) >= 3 and word <> all(%(stop_words)s)) w
group by 1, 2

-- name: score_terms
-- The terms of each cluster whose log-odds exceed those in the whole archive most, in standard errors: with y of n in
-- the core, and the share p in the archive (cores weighted by the sizes of their clusters),
-- z = (logit((y + 10 p) / (n + 10)) - logit(p)) sqrt(y + 10 p). After Monroe, Colaresi and Quinn 2008, Fightin' Words,
-- equations 15 to 22: log-odds with the archive as prior, whose weight is 10, here against an archive that is known.
with cores as (
    select t.number, sum(t.weight) as n, c.size / sum(c.size) over () as share
    from cluster_terms t join cluster_centres c on c.analysis = %(analysis)s and c.number = t.number
    group by t.number, c.size
), archive as (
    select term, sum(t.weight / n.n * n.share)::double precision as p
    from cluster_terms t join cores n using (number) group by term
), odds as (
    select t.number, t.term, a.p, t.weight + 10 * a.p as y, (t.weight + 10 * a.p) / (n.n + 10) as q
    from cluster_terms t join cores n using (number) join archive a using (term) where t.weight >= %(least)s
), scored as (
    select number, term, (ln(q / (1 - q)) - ln(p / (1 - p))) * sqrt(y) as z from odds where greatest(p, q) < 0.999999
), ranked as (
    select number, term, row_number() over (partition by number order by z desc, term) as rank from scored
    where z > %(surprise)s
), best as (
    select number, array_agg(term order by rank) as terms from ranked where rank <= 3 group by number
)
update cluster_centres c set {terms} = coalesce(b.terms, '{{}}')
from cluster_centres d left join best b on b.number = d.number
where c.analysis = %(analysis)s and d.analysis = c.analysis and d.number = c.number

-- name: predecessor
-- The clustering that is shown where this one will be.
select p.analysis from clusterings n join clusterings p
    on (p.encoder, p.of, p.method) = (n.encoder, n.of, n.method) and p.shown and p.analysis <> n.analysis
where n.analysis = %(analysis)s

-- name: inherit_identities
-- A cluster is an earlier one still when they share more than half of the union of their members (Jaccard index
-- |A n B| / |A u B| > 1/2, Jaccard 1912), among what both clusterings assigned. More than half of either is then in
-- both, so that no cluster has two matches.
with shares as materialized (
    select o.number as old, n.number as new, count(*) as shared
    from {members} o join {members} n on n.{item} = o.{item}
    where o.analysis = %(predecessor)s and n.analysis = %(analysis)s group by 1, 2
), compared as (
    select old, new, shared,
        sum(shared) over (partition by old) + sum(shared) over (partition by new) - shared as united
    from shares
)
update cluster_centres c set cluster = o.cluster
from compared m join cluster_centres o on o.analysis = %(predecessor)s and o.number = m.old
where c.analysis = %(analysis)s and c.number = m.new and 2 * m.shared > m.united

-- name: unidentified
-- Clusters that are none of the earlier ones.
select number from cluster_centres where analysis = %(analysis)s and cluster is null and size > 0 order by number

-- name: new_identity
-- A cluster that was not there before.
insert into cluster_identities (encoder, of, method)
select encoder, of, method from clusterings where analysis = %(analysis)s returning id

-- name: identify
-- Gives clusters their identities.
update cluster_centres c set cluster = t.cluster
from unnest(%(numbers)s::integer[], %(clusters)s::bigint[]) as t (number, cluster)
where c.analysis = %(analysis)s and c.number = t.number

-- name: hide
-- The predecessor is shown no longer.
update clusterings set shown = false where analysis = %(predecessor)s

-- name: show
-- A clustering is complete, and summed up as from the start of this transaction.
update clusterings set shown = true, summed_at = clock_timestamp(),
    seconds = extract(epoch from clock_timestamp() - transaction_timestamp())
where analysis = %(analysis)s

-- name: outdated
-- The clusterings in the place of this one that it follows: complete ones, and those that were given up.
select o.analysis from clusterings n join clusterings o
    on (o.encoder, o.of, o.method) = (n.encoder, n.of, n.method) and o.analysis < n.analysis and not o.shown
where n.analysis = %(analysis)s order by o.analysis

-- name: wait_briefly
-- For one transaction: rather fail than have readers wait in line behind us.
select set_config('lock_timeout', '2s', true)

-- name: delete_clustering
-- An old clustering with its centres; identities stay.
delete from clusterings where analysis = %(analysis)s

-- name: list
-- The largest clusters.
select cluster, of, method, name, label, size, spread, exemplars, classes, words from clusters
where encoder = %(encoder)s and of = %(of)s and method = %(method)s order by size desc, cluster limit %(limit)s

-- name: show_cluster
-- One cluster by its stable number.
select cluster, of, method, name, label, size, spread, exemplars, classes, words from clusters where cluster = %(cluster)s

-- name: members
-- The members of a cluster, nearest to the centre first.
select image, work, title, distance, url from cluster_members where cluster = %(cluster)s
order by distance, image, work limit %(limit)s

-- name: name
-- The name that somebody gives a cluster; null takes it away.
update cluster_identities set name = %(name)s, named_at = case when %(name)s::text is not null then now() end
where id = %(cluster)s
