-- name: lock
-- Waits for registrations and chunks that are being committed, and has others wait: none may bring back what goes now.
select pg_advisory_xact_lock(hashtextextended('lookalike deletions', 0))

-- name: select_key
-- The image of a key, unless it was seen later than it is said to be gone, or is fetched from elsewhere by now.
select id from images
where key = %(key)s and (%(url)s::text is null or url = %(url)s)
  and (%(by_hand)s or not coalesce(as_of > coalesce(%(as_of)s::timestamptz, now()), false))
for update

-- name: select_work
-- The images of a work, but those that stay, or were seen later, or, with own_only, are not the source's own.
select id from images
where work = %(work)s and key <> all(%(kept)s) and not coalesce(as_of > coalesce(%(as_of)s::timestamptz, now()), false)
  and (not %(own_only)s or is_own(source, work, %(source)s))
order by key for update

-- name: count_foreign
-- The images of a work that stay because they are not the source's own.
select count(*) from images
where work = %(work)s and key <> all(%(kept)s) and not coalesce(as_of > coalesce(%(as_of)s::timestamptz, now()), false)
  and not is_own(source, work, %(source)s)

-- name: remember_images
-- Keeps what is needed to know a late announcement, and to bring the images back.
insert into deleted_images as d (key, url, content, as_of, by_hand, image)
select i.key, case when %(url)s::text is not null then i.url end, i.content, coalesce(%(as_of)s::timestamptz, now()),
    %(by_hand)s, to_jsonb(t) from images i, lateral (select i.key, i.url, i.protocol, i.work, i.title, i.licence,
    i.access, i.content, i.source, i.digitised, i.outside, i.credit) t
where i.id = any(%(ids)s) order by i.key
on conflict (key) do update set url = excluded.url, content = excluded.content, as_of = excluded.as_of,
    by_hand = d.by_hand or excluded.by_hand, image = excluded.image, deleted_at = now()

-- name: remember_key
-- An image that is gone before it was registered: its announcement may still come.
insert into deleted_images as d (key, url, as_of, by_hand)
select %(key)s, %(url)s, coalesce(%(as_of)s::timestamptz, now()), %(by_hand)s
where not exists (select from images where key = %(key)s)
on conflict (key) do update set url = excluded.url, as_of = excluded.as_of, by_hand = d.by_hand or excluded.by_hand
where excluded.as_of > d.as_of or excluded.by_hand and not d.by_hand

-- name: delete_vectors
-- Out of the searches of one encoder.
delete from {vectors} where image_id = any(%(ids)s)

-- name: delete_labels
-- What networks called them.
delete from labels where image_id = any(%(ids)s)

-- name: delete_failures
-- Why some of them have no vector.
delete from failures where image_id = any(%(ids)s)

-- name: delete_thumbnails
-- Their thumbnails; files of these are left over for who has access to them.
delete from thumbnails where image_id = any(%(ids)s)

-- name: delete_map_points
-- Their places on maps.
delete from map_points where image_id = any(%(ids)s)

-- name: delete_unwanted
-- What was said of them as unwanted images.
delete from unwanted_images where image_id = any(%(ids)s)

-- name: leave_examples
-- Candidates whose nearest example is gone.
update unwanted_images set nearest_id = null where nearest_id = any(%(ids)s)

-- name: delete_pairs
-- Near-duplicates with them.
delete from duplicate_pairs where encoder = %(encoder)s and (a = any(%(ids)s) or b = any(%(ids)s))

-- name: delete_marks
-- What people said of pairs with them.
delete from marked_pairs where a = any(%(ids)s) or b = any(%(ids)s)

-- name: delete_members
-- Their places in groups of near-duplicates.
delete from duplicate_members where encoder = %(encoder)s and image_id = any(%(ids)s)

-- name: delete_clustered
-- Their places in clusters.
delete from clustered_images where image_id = any(%(ids)s)

-- name: delete_clustered_works
-- Works of which no image is left.
delete from clustered_works c using unnest(%(works)s::text[]) as w (work)
where c.work = w.work and not exists (select from images i where i.work = w.work)

-- name: leave_exemplars
-- No cluster shows them.
update cluster_centres set exemplars = array(
    select key from unnest(exemplars) with ordinality as e (key, n) where key <> all(%(keys)s) order by n)
where exemplars && %(keys)s::text[]

-- name: delete_images
-- The images themselves.
delete from images where id = any(%(ids)s) returning key, work

-- name: restore
-- Forgets deletions, and says what was deleted.
delete from deleted_images where key = any(%(keys)s) returning image
