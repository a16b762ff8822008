-- name: cover_all_images
-- Covers every registered image with range chunks, for an encoder that has just been added.
insert into chunks (encoder, lane, lo, hi)
select %(encoder)s, 'backfill', lo, least(lo + %(size)s - 1, last)
from (select min(id) as first, max(id) as last from images) as bounds,
     generate_series(bounds.first, bounds.last, %(size)s) as lo

-- name: add_encoder
-- Adds the encoder with its table of vectors.
select add_encoder(%(name)s, %(dimension)s, %(distance)s)

-- name: copy_calibration
-- Stores the calibration of an encoder.
copy calibrations (encoder, bit, direction, threshold) from stdin (format binary)

-- name: select_calibration
-- The frozen calibration, in the order of its bits.
select direction, threshold from calibrations where encoder = %(encoder)s order by bit

-- name: set_fingerprint
-- The first worker of an encoder records what it is; later ones compare.
update encoders set fingerprint = %(fingerprint)s where name = %(encoder)s and fingerprint is null

-- name: activate
-- Makes one encoder the one that searches use.
update encoders set active = (name = %(encoder)s) where active or name = %(encoder)s

-- name: fingerprint
-- What the encoder was when its first worker started.
select fingerprint from encoders where name = %(encoder)s
