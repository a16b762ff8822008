-- Indexes on tables that grow with the archive. `lookalike migrate` builds those that are missing after all migrations,
-- one after another and while everybody writes: no transaction, no lock that stops anybody. Not a migration that is
-- applied once, but what has to be there: a build that was interrupted is made again by the next call. An index that
-- is no longer wanted leaves this file, and a migration drops it.

-- By bytes: an order of words does not keep together what begins alike.
create index concurrently if not exists images_key_beginning on lookalike.images (key collate "C");

create index concurrently if not exists images_title_words on lookalike.images
using gin (to_tsvector('simple', title)) where title is not null;

-- Reviewing pairs, nearest first.
create index concurrently if not exists duplicate_pairs_nearest on lookalike.duplicate_pairs (encoder, distance, a, b);
