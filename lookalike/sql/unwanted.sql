-- name: lock_set
-- One at a time learns a set or searches for its candidates.
select pg_advisory_xact_lock(hashtextextended('lookalike unwanted ' || %(name)s, 0))

-- name: find_set
-- A set, where its vectors are, and how distances are measured.
select s.id, s.name, s.threshold, s.encoder, e.vectors, e.dimension, e.distance as form
from unwanted_sets s join encoders e on e.name = s.encoder where s.name = %(name)s

-- name: find_encoder
-- Where the vectors of an encoder are, and how distances are measured; nothing for one that is being taken out.
select vectors, dimension, distance as form from encoders where name = %(encoder)s and leaving_at is null

-- name: sets
-- All sets, with how many images each has in each state.
select s.name, s.encoder, s.threshold, s.report, s.learned_at,
    count(*) filter (where u.example) as examples, count(*) filter (where u.state = 'candidate') as candidates,
    count(*) filter (where u.state = 'accepted') as accepted, count(*) filter (where u.state = 'fine') as fine
from unwanted_sets s left join unwanted_images u on u.set_id = s.id group by s.id order by s.name

-- name: drop_set
-- Forgets a set with everything that people said of its images.
delete from unwanted_sets where id = %(set)s

-- name: find_keys
-- Which images have these keys, and which of them a vector.
select k.key, i.id, t.image_id is not null as has_vector
from unnest(%(keys)s::text[]) as k (key) left join images i on i.key = k.key left join {vectors} t on t.image_id = i.id

-- name: vectors
-- The vectors of some images.
select image_id, v from {vectors} where image_id = any(%(ids)s) order by image_id

-- name: with_vector
-- Which of some images have a vector.
select image_id from {vectors} where image_id = any(%(ids)s) order by image_id

-- name: examples
-- What a set is learned from.
select image_id from unwanted_images where set_id = %(set)s and example order by image_id

-- name: decided
-- What people said of the images of a set that are no examples.
select image_id, state from unwanted_images where set_id = %(set)s and not example and state <> 'candidate'

-- name: bounds
-- The first and the last image.
select coalesce(min(id), 1) as lo, coalesce(max(id), 0) as hi from images

-- name: accepted_among
-- Which of some images are out of searches already.
select distinct image_id from unwanted_images where image_id = any(%(ids)s) and state = 'accepted'

-- name: keys_of
-- The keys of some images, in their order.
select key from unnest(%(ids)s::bigint[]) with ordinality as u (id, n) join images using (id) order by n

-- name: merge_set
-- Keeps what was learned.
insert into unwanted_sets as s (name, encoder, threshold, report)
values (%(name)s, %(encoder)s, %(threshold)s, %(report)s)
on conflict (name) do update set encoder = excluded.encoder, threshold = excluded.threshold, report = excluded.report,
    learned_at = now()

-- name: merge_examples
-- Examples are accepted, because somebody has said so; whoever said so before stays on record.
insert into unwanted_images as u (set_id, image_id, example, nearest_id, distance, state, decided_by, decided_at, revision)
select %(set)s, id, true, id, 0, 'accepted', %(by)s, now(), revision from images where id = any(%(ids)s) order by id
on conflict (set_id, image_id) do update set
    example = true, nearest_id = excluded.nearest_id, distance = 0, state = 'accepted', revision = excluded.revision,
    decided_by = case when u.state = 'accepted' then u.decided_by else excluded.decided_by end,
    decided_at = case when u.state = 'accepted' then u.decided_at else excluded.decided_at end

-- name: drop_examples
-- Of what is not unwanted nothing can be learned.
update unwanted_images set example = false where set_id = %(set)s and image_id = any(%(ids)s) and example

-- name: decide
-- What somebody says of some images; without anybody, they are candidates again.
insert into unwanted_images as u (set_id, image_id, nearest_id, distance, state, decided_by, decided_at, revision)
select %(set)s, t.id, t.nearest, t.distance, %(state)s, %(by)s, case when %(by)s::text is not null then now() end, i.revision
from unnest(%(ids)s::bigint[], %(nearest)s::bigint[], %(distances)s::real[]) as t (id, nearest, distance)
join images i on i.id = t.id order by t.id
on conflict (set_id, image_id) do update set
    state = excluded.state, nearest_id = excluded.nearest_id, distance = excluded.distance,
    decided_by = excluded.decided_by, decided_at = excluded.decided_at, revision = excluded.revision

-- name: accept_within
-- Accepts the candidates up to a distance.
update unwanted_images u
set state = 'accepted', decided_by = %(by)s, decided_at = now(), revision = i.revision
from images i
where i.id = u.image_id and u.set_id = %(set)s and u.state = 'candidate' and u.distance <= %(within)s

-- name: measure
-- New distances of images that people have decided about, from other examples than before.
update unwanted_images u set nearest_id = t.nearest, distance = t.distance
from unnest(%(ids)s::bigint[], %(nearest)s::bigint[], %(distances)s::real[]) as t (id, nearest, distance)
where u.set_id = %(set)s and u.image_id = t.id and not u.example

-- name: reconsider
-- A decision about an earlier picture is none about the one that has replaced it.
update unwanted_images u set state = 'candidate', example = false, decided_by = null, decided_at = null
from images i join {vectors} t on t.image_id = i.id and t.revision = i.revision
where u.set_id = %(set)s and u.state <> 'candidate' and i.id = u.image_id and i.revision > u.revision

-- name: make_found
-- Where what the searches find is kept until all are done.
create temporary table if not exists found_unwanted (
    image_id bigint primary key, nearest_id bigint not null, distance real not null
) on commit delete rows

-- name: clear_found
-- Nothing is found yet, also not by a search before in the same transaction.
delete from found_unwanted

-- name: search
-- Keeps the k images nearest to an example, as far as they lie within the threshold, and says how many these were.
with near as materialized (
    select image, distance
    from neighbours_of(null, null, %(encoder)s, %(k)s, %(threshold)s, array[]::bigint[], null, %(example)s)
), kept as (
    insert into found_unwanted as f (image_id, nearest_id, distance)
    select i.id, %(example)s, near.distance from near join images i on i.key = near.image
    on conflict (image_id) do update set nearest_id = excluded.nearest_id, distance = excluded.distance
    where excluded.distance < f.distance
)
select count(*) from near

-- name: drop_candidates
-- What lies beyond the threshold now and nobody has decided about.
delete from unwanted_images u
where set_id = %(set)s and state = 'candidate' and not exists (select from found_unwanted f where f.image_id = u.image_id)

-- name: merge_candidates
-- Adds what was found; what people have decided stays decided.
insert into unwanted_images as u (set_id, image_id, nearest_id, distance, revision)
select %(set)s, f.image_id, f.nearest_id, f.distance, i.revision
from found_unwanted f join images i on i.id = f.image_id order by f.image_id
on conflict (set_id, image_id) do update set
    nearest_id = excluded.nearest_id, distance = excluded.distance,
    revision = case when u.state = 'candidate' then excluded.revision else u.revision end
where not u.example
  and (u.nearest_id, u.distance, u.revision) is distinct from (excluded.nearest_id, excluded.distance, excluded.revision)

-- name: count_candidates
-- How many images of a set wait for a decision.
select count(*) from unwanted_images where set_id = %(set)s and state = 'candidate'

-- name: set_unfinished
-- Keeps of how many examples not all candidates could be found.
update unwanted_sets set report = report || jsonb_build_object('unfinished', %(unfinished)s::integer) where id = %(set)s

-- name: list
-- The images of a set, or of all, nearest to an example first.
select set, image, state, distance, nearest_example, example, threshold, encoder, decided_by, decided_at, work, title, url
from unwanted
where (%(name)s::text is null or set = %(name)s) and (%(state)s::text is null or state = %(state)s)
order by distance, image limit %(limit)s

-- name: set_names
-- The names of all sets.
select name from unwanted_sets order by name

-- name: outdated
-- Sets whose encoder has stored vectors since their last search. Five minutes back, because what was being stored then
-- was not seen yet.
select s.name, s.encoder from unwanted_sets s
where exists (
    select from chunks c where c.encoder = s.encoder and c.state = 'done' and c.analysis is null
      and c.done_at > s.searched_at - interval '5 minutes')
order by s.name

-- name: searched
-- The candidates of a set are those of this moment.
update unwanted_sets set searched_at = now() where id = %(set)s
