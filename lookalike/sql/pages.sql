-- name: decisions
-- Decisions by their numbers, those that were taken back as well.
select id, kind, subject, verdict, decided_by, decided_at, undone_by, undone_at from decisions
where id = any(%(ids)s::bigint[]) order by id

-- name: last_decision
-- What was decided last of an image and was not taken back.
select id, kind, subject, verdict, decided_by, decided_at, undone_by, undone_at from decisions
where kind = 'unwanted' and subject = array[%(key)s::text] and undone_at is null order by id desc limit 1

-- name: pictures
-- Some images by their keys, unwanted ones too, with what a page shows of each.
select key, url, protocol, work, title, licence, credit, aspect_ratio, average_colour, thumbnail_of(id) as kept from images
where key = any(%(keys)s::text[])

-- name: distance
-- How far apart two images are, 0..1.
select distance(%(first)s, %(second)s, %(encoder)s) as distance

-- name: waiting_pairs
-- How many pairs of near-duplicates nobody has decided about; no more than `most` are counted.
select count(*) as waiting from (
    select from duplicate_pairs where encoder = %(encoder)s and not decided limit %(most)s) counted
