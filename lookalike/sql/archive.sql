-- name: cover_all_images
-- Covers every registered image with range chunks, for an encoder that has just been added. By counting the images,
-- because ids have gaps.
insert into chunks (encoder, lane, lo, hi)
select %(encoder)s, 'backfill', min(id), max(id)
from (select id, (row_number() over (order by id) - 1) / %(size)s as piece from images) as numbered
group by piece order by piece

-- name: add_encoder
-- Adds the encoder with its table of vectors.
select add_encoder(%(name)s, %(dimension)s, %(distance)s)

-- name: removal
-- When an encoder was taken out; no row for one that was not.
select removed_at from removed_encoders where name = %(name)s

-- name: forget_removal
-- An encoder that is added on purpose is no removed one.
delete from removed_encoders where name = %(name)s

-- name: copy_calibration
-- Stores the calibration of an encoder.
copy calibrations (encoder, bit, direction, threshold) from stdin (format binary)

-- name: select_calibration
-- The frozen calibration, in the order of its bits.
select direction, threshold from calibrations where encoder = %(encoder)s order by bit

-- name: set_fingerprint
-- The first worker of an encoder records what it is; later ones compare.
update encoders set fingerprint = %(fingerprint)s where name = %(encoder)s and fingerprint is null

-- name: lock
-- Nobody begins to take an encoder out while it becomes the active one.
select from encoders where name = %(encoder)s for no key update

-- name: activate
-- Makes one encoder the one that searches use.
update encoders set active = (name = %(encoder)s) where active or name = %(encoder)s

-- name: fingerprint
-- What the encoder was when its first worker started.
select fingerprint from encoders where name = %(encoder)s
