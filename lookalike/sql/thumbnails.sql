-- name: wanted
-- Which of some images should get a thumbnail: files, open, without one of this content; of this machine's disks only,
-- where that is asked for.
select i.id from images i left join thumbnails t on t.image_id = i.id
where i.id = any(%(ids)s) and i.protocol = 'file' and is_open(i.access) and i.revision is distinct from t.revision
  and (not %(local)s or starts_with(i.url, '/') or starts_with(lower(i.url), 'file:'))

-- name: announce
-- Files that are about to be written: what becomes of them is known when they are stored, or they are left over.
insert into thumbnail_leftovers (place, name, due_at)
select %(place)s, name, now() + interval '1 hour' from unnest(%(names)s::text[]) as m (name)

-- name: store
-- Keeps thumbnails of images that are there, of this content and open. Rows are locked, in the order of keys as
-- merge_images does it, so that an image which is being closed or changed is waited for, and then seen as it is.
with made as materialized (
    select i.id, i.revision, m.name, m.jpeg
    from images i
    join unnest(%(ids)s::bigint[], %(revisions)s::integer[], %(names)s::text[], %(jpegs)s::bytea[])
        as m (id, revision, name, jpeg) on m.id = i.id
    where i.revision = m.revision and i.protocol = 'file' and is_open(i.access)
    order by i.key for share of i
)
insert into thumbnails as t (image_id, revision, place, name, jpeg)
select id, revision, %(place)s, name, jpeg from made
on conflict (image_id) do update
set revision = excluded.revision, place = excluded.place, name = excluded.name, jpeg = excluded.jpeg, stored_at = now()
where excluded.revision >= t.revision
returning image_id

-- name: keep
-- Files that are thumbnails now are not left over.
delete from thumbnail_leftovers l using thumbnails t
where t.image_id = any(%(ids)s) and l.place = t.place and l.name = t.name

-- name: find
-- The thumbnail of an image with this key, and what can be shown in its place.
select i.id, i.url, i.protocol, i.outside, i.average_colour, i.palette, i.palette_shares, i.aspect_ratio,
    is_open(i.access) as open, t.revision, t.place, t.name, t.jpeg, t.stored_at
from images i left join thumbnails t on t.image_id = i.id where i.key = %(key)s

-- name: lacking
-- The next images, by their ids, that have been embedded, should have a thumbnail and have none of their content.
select i.id, i.key, i.url, i.protocol, i.revision, i.outside
from images i left join thumbnails t on t.image_id = i.id
where i.id > %(after)s and i.protocol = 'file' and is_open(i.access) and i.revision is distinct from t.revision
  and i.appearance_revision = i.revision
  and (not %(local)s or starts_with(i.url, '/') or starts_with(lower(i.url), 'file:'))
order by i.id limit %(limit)s

-- name: count
-- How many thumbnails there are, by where they lie.
select place, count(*) from thumbnails group by place order by place nulls first

-- name: count_lacking
-- How many images should have a thumbnail and have none of their content.
select count(*) from images i left join thumbnails t on t.image_id = i.id
where i.protocol = 'file' and is_open(i.access) and i.revision is distinct from t.revision
  and i.appearance_revision = i.revision
  and (not %(local)s or starts_with(i.url, '/') or starts_with(lower(i.url), 'file:'))

-- name: leftovers
-- Some files that are to be deleted now; nobody else deletes them meanwhile.
delete from thumbnail_leftovers where (place, name) in (
    select place, name from thumbnail_leftovers where place = %(place)s and due_at <= now()
    limit %(limit)s for update skip locked
) returning name

-- name: remove
-- All thumbnails of a place (null: those in the database), some at a time.
delete from thumbnails where image_id in (
    select image_id from thumbnails where place is not distinct from %(place)s limit %(limit)s)
