-- Indexes on tables that grow with the archive. `lookalike migrate` builds those that are missing after all migrations,
-- one after another and while everybody writes: no transaction, no lock that stops anybody. Not a migration that is
-- applied once, but what has to be there: a build that was interrupted is made again by the next call. An index that
-- is no longer wanted is dropped here, behind the one that takes its place.

-- By bytes: an order of words does not keep together what begins alike.
create index concurrently if not exists images_key_beginning on lookalike.images (key collate "C");

create index concurrently if not exists images_title_words on lookalike.images
using gin (to_tsvector('simple', title)) where title is not null;

-- Reviewing pairs, nearest first.
create index concurrently if not exists duplicate_pairs_nearest on lookalike.duplicate_pairs (encoder, distance, a, b);

-- Those of them that nobody has decided about.
create index concurrently if not exists duplicate_pairs_open on lookalike.duplicate_pairs (encoder, distance, a, b)
where not decided;

-- The images of a work in their order: with an order of its own the planner may walk the whole archive by id for them.
create index concurrently if not exists images_work_order on lookalike.images (work, id) where work is not null;
drop index concurrently if exists lookalike.images_work;

-- Reviewing unwanted images of all sets, and of one, nearest first.
create index concurrently if not exists unwanted_images_nearest_first on lookalike.unwanted_images
(state, distance, image_id, set_id);
create index concurrently if not exists unwanted_images_of_set on lookalike.unwanted_images
(set_id, state, distance, image_id);

-- Failures of one reason, the latest first.
create index concurrently if not exists failures_reason_latest on lookalike.failures (encoder, reason, failed_at);
drop index concurrently if exists lookalike.failures_reason;
