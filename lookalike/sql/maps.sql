-- name: make_alone
-- One at a time makes the map of an encoder.
select pg_advisory_xact_lock(hashtextextended('lookalike map ' || %(encoder)s, 0))

-- name: drop
-- The map of before.
delete from maps where encoder = %(encoder)s

-- name: insert_map
-- A new map.
insert into maps (encoder, method, seed, images) values (%(encoder)s, %(method)s, %(seed)s, %(images)s) returning id

-- name: insert_points
-- Its images, but those that are gone by now.
insert into map_points (map, image_id, x, y)
select %(map)s, i.id, t.x, t.y from unnest(%(ids)s::bigint[], %(xs)s::real[], %(ys)s::real[]) as t (id, x, y)
join images i on i.id = t.id order by i.id

-- name: find
-- The map of an encoder.
select id, encoder, method, seed, images, made_at from maps where encoder = %(encoder)s

-- name: points
-- The images of a map that may be shown, by their ids, with their places in steps of 1/65535 and their colours.
select p.image_id, (p.x * 65535)::integer, (p.y * 65535)::integer, coalesce(i.average_colour, '#9a968c')
from map_points p join images i on i.id = p.image_id
where p.map = %(map)s
  and not exists (select from unwanted_images u where u.image_id = p.image_id and u.state = 'accepted')
order by p.image_id

-- name: some_points
-- Some images of a map, with what is shown of them.
select i.id, p.x, p.y, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from map_points p join images i on i.id = p.image_id
where p.map = %(map)s and p.image_id = any(%(ids)s)
  and not exists (select from unwanted_images u where u.image_id = p.image_id and u.state = 'accepted')
order by p.image_id

-- name: region
-- The images of a rectangle of a map, those nearest to its middle first.
select i.id, p.x, p.y, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio, i.average_colour,
    thumbnail_of(i.id) as kept
from map_points p join images i on i.id = p.image_id
where p.map = %(map)s and p.x between %(x0)s and %(x1)s and p.y between %(y0)s and %(y1)s
  and not exists (select from unwanted_images u where u.image_id = p.image_id and u.state = 'accepted')
order by (2 * p.x - %(x0)s - %(x1)s) ^ 2 + (2 * p.y - %(y0)s - %(y1)s) ^ 2, p.image_id limit %(limit)s

-- name: regions
-- A map in squares, `side` in a row: how many images each has, and the one nearest to its middle.
select s.n, s.images, i.id, i.key, i.url, i.protocol, i.work, i.title, i.licence, i.credit, i.aspect_ratio,
    i.average_colour, thumbnail_of(i.id) as kept
from (
    select distinct on (n) n, count(*) over (partition by n) as images, image_id from (
        select least(%(side)s - 1, floor(p.y * %(side)s))::integer * %(side)s
            + least(%(side)s - 1, floor(p.x * %(side)s))::integer as n, p.image_id,
            (p.x * %(side)s - floor(p.x * %(side)s) - 0.5) ^ 2 + (p.y * %(side)s - floor(p.y * %(side)s) - 0.5) ^ 2 as away
        from map_points p where p.map = %(map)s
          and not exists (select from unwanted_images u where u.image_id = p.image_id and u.state = 'accepted')) t
    order by n, away, image_id
) s join images i on i.id = s.image_id order by s.n
