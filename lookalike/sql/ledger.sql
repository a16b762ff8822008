-- name: make_incoming
-- Where a batch of announcements waits to be merged; one for each connection.
create temporary table if not exists incoming (
    key text, url text, protocol text, work text, title text, licence text, access text, content text, digitised text,
    as_of text, outside boolean, credit text, source text
) on commit delete rows

-- name: copy_incoming
-- Fills the batch.
copy incoming from stdin (format binary)

-- name: no_deletions
-- Until this transaction ends nothing is deleted: whoever deletes waits, and has others wait.
select pg_advisory_xact_lock_shared(hashtextextended('lookalike deletions', 0))

-- name: forget_deletions
-- Announcements of images that were deleted. What was seen later than the deletion, or, where the source cannot tell
-- when, has other content than what was deleted, is an image again, and so is what lies at another address than the one
-- that is gone; the others leave the batch and are counted. In the order of keys, so that two registrations cannot
-- deadlock.
with said as materialized (
    select n.key, not d.by_hand and (
        coalesce(n.url <> d.url, false) or coalesce(n.as_of::timestamptz > d.as_of, n.content <> d.content, false)) as back
    from incoming n cross join lateral (select * from deleted_images d where d.key = n.key offset 0) d
), locked as materialized (
    select d.key from deleted_images d where d.key = any(array(select s.key from said s where s.back))
    order by d.key for update
), forgotten as (
    delete from deleted_images d using locked l where d.key = l.key
), dropped as (
    delete from incoming n using said s where not s.back and n.key = s.key
)
select count(*) from said where not back

-- name: merge_images
-- Registers the batch, in the order of keys so that two registrations cannot deadlock. What an announcement leaves out
-- is kept, and so is the source that came first. Announcements that say nothing new are passed over first: an upsert
-- would lock their rows, which writes them, and use up an id for each. So are those of an earlier time than what is
-- known. An image whose content changed gets the next revision; where it cannot be compared (content is null here or
-- there), a new address counts as new content, and so does an event that knows the content. An address that the operator
-- has given stays his own, whoever repeats it from outside. `offset 0` keeps the planner from reading all of a middling
-- archive for every batch: each key is looked up in the index.
insert into images as i (
    key, url, protocol, work, title, licence, access, content, source, digitised, as_of, outside, credit)
select n.key, n.url, n.protocol, n.work, n.title, n.licence, n.access, n.content, n.source,
    coalesce(n.digitised::date, i.digitised, current_date), coalesce(n.as_of::timestamptz, i.as_of), n.outside, n.credit
from incoming n left join lateral (select * from images i where i.key = n.key offset 0) i on true
where i.id is null
   or not coalesce(n.as_of::timestamptz < i.as_of, false)
   and (i.url, i.protocol, i.work, i.title, i.licence, i.access, i.content, i.source, i.digitised, i.as_of, i.outside, i.credit)
   is distinct from (
       n.url, n.protocol, coalesce(n.work, i.work), coalesce(n.title, i.title), coalesce(n.licence, i.licence),
       coalesce(n.access, i.access), coalesce(n.content, i.content), coalesce(i.source, n.source),
       coalesce(n.digitised::date, i.digitised), coalesce(n.as_of::timestamptz, i.as_of),
       n.outside and (i.outside or i.url <> n.url), coalesce(n.credit, i.credit))
order by n.key
on conflict (key) do update set
    url = excluded.url,
    protocol = excluded.protocol,
    work = coalesce(excluded.work, i.work),
    title = coalesce(excluded.title, i.title),
    licence = coalesce(excluded.licence, i.licence),
    access = coalesce(excluded.access, i.access),
    content = coalesce(excluded.content, i.content),
    source = coalesce(i.source, excluded.source),
    digitised = excluded.digitised,
    as_of = coalesce(excluded.as_of, i.as_of),
    outside = excluded.outside and (i.outside or i.url <> excluded.url),
    credit = coalesce(excluded.credit, i.credit),
    revision = i.revision + coalesce(
        excluded.content <> i.content,
        excluded.url <> i.url or %(event)s and excluded.content is not null)::integer,
    changed_at = now()
where not coalesce(excluded.as_of < i.as_of, false)
  and (i.url, i.protocol, i.work, i.title, i.licence, i.access, i.content, i.source, i.digitised, i.as_of, i.outside, i.credit)
  is distinct from (
    excluded.url, excluded.protocol, coalesce(excluded.work, i.work), coalesce(excluded.title, i.title),
    coalesce(excluded.licence, i.licence), coalesce(excluded.access, i.access), coalesce(excluded.content, i.content),
    coalesce(i.source, excluded.source), excluded.digitised, coalesce(excluded.as_of, i.as_of),
    excluded.outside and (i.outside or i.url <> excluded.url), coalesce(excluded.credit, i.credit))
returning new.id, old.id is null as is_new, old.revision is distinct from new.revision as embed,
    (old.url, old.protocol, old.outside) is distinct from (new.url, new.protocol, new.outside) as moved

-- name: reopen_failures
-- Images that can be fetched from elsewhere now have not failed yet; the caller covers them with chunks.
delete from failures where encoder = %(encoder)s and image_id = any(%(ids)s) returning image_id

-- name: lock_encoders
-- The encoders that images are registered for, held until the end of the transaction.
select name from encoders where leaving_at is null for key share

-- name: insert_chunks
-- Adds pending chunks: ranges (lo, hi) where ids run on, lists where they do not.
insert into chunks (encoder, lane, lo, hi, ids)
select %(encoder)s, %(lane)s, lo, hi, case when lo is null then string_to_array(ids, ',')::bigint[] end
from unnest(%(lo)s::bigint[], %(hi)s::bigint[], %(ids)s::text[]) as t (lo, hi, ids)

-- name: lease
-- Claims the next chunks of a lane: never more in flight than its window, or three times what is being worked on.
with in_flight as (
    select count(*) as all, count(*) filter (where state = 'running') as running from chunks
    where state in ('queued', 'running') and encoder = %(encoder)s and lane = %(lane)s
), picked as materialized (
    select id from chunks
    where state = 'pending' and encoder = %(encoder)s and lane = %(lane)s and not_before <= now()
    order by not_before, id
    limit (select least(%(batch)s, greatest(0, greatest(%(window)s, 3 * running) - "all")) from in_flight)
    for update skip locked
)
update chunks c
set state = 'queued', lease = gen_random_uuid(), lease_until = now() + make_interval(secs => %(seconds)s), worker = null
from picked where c.id = picked.id
returning c.id as chunk, c.lease

-- name: start
-- The worker claims its chunk; no row means that the message is stale.
update chunks
set state = 'running', worker = %(worker)s, lease_until = now() + make_interval(secs => %(seconds)s)
where id = %(chunk)s and lease = %(lease)s and state = 'queued'
returning encoder, lane, attempts, lo, hi, ids, analysis,
    extract(epoch from now() - waiting_since)::double precision as waited

-- name: select_images_in_range
-- The images of a range chunk that still lack a vector of their present content.
select i.id, i.key, i.url, i.protocol, i.revision, i.outside from images i
where i.id between %(lo)s and %(hi)s
  and not exists (select from {vectors} v where v.image_id = i.id and v.revision = i.revision)
order by i.id

-- name: select_images_in_list
-- The images of a list chunk that still lack a vector of their present content.
select i.id, i.key, i.url, i.protocol, i.revision, i.outside from images i
where i.id = any(%(ids)s)
  and not exists (select from {vectors} v where v.image_id = i.id and v.revision = i.revision)
order by i.id

-- name: select_embedded_in_range
-- The images of a range chunk that have a vector: what an analysis works on.
select i.id, i.key, i.url, i.protocol, i.revision, i.outside from images i join {vectors} v on v.image_id = i.id
where i.id between %(lo)s and %(hi)s order by i.id

-- name: select_embedded_in_list
-- The images of a list chunk that have a vector: what an analysis works on.
select i.id, i.key, i.url, i.protocol, i.revision, i.outside from images i join {vectors} v on v.image_id = i.id
where i.id = any(%(ids)s) order by i.id

-- name: renew
-- The heartbeat: prolongs the leases that are still ours and says which these are.
update chunks set lease_until = now() + make_interval(secs => %(seconds)s)
where (id, lease) in (select * from unnest(%(chunks)s::bigint[], %(leases)s::uuid[])) and state = 'running'
returning id

-- name: finish
-- The fence: only the holder of the lease finishes a chunk.
update chunks set state = 'done', done_at = now(), lease = null, lease_until = null, postponed = %(postponed)s
where id = %(chunk)s and lease = %(lease)s and state = 'running'

-- name: give_back
-- A stopping worker returns what it has not finished; this is not a crash.
update chunks set state = 'pending', lease = null, lease_until = null, worker = null
where id = %(chunk)s and lease = %(lease)s and state = 'running'

-- name: make_staging
-- Where the vectors of a chunk wait to be merged; one for each connection and encoder.
create temporary table if not exists {staging} (
    image_id bigint, revision integer, checksum bytea, code bit({dimension}), v halfvec({dimension})
) on commit delete rows

-- name: copy_staging
-- Fills the staging table.
copy {staging} (image_id, revision, checksum, code, v) from stdin (format binary)

-- name: merge_vectors
-- Stores the vectors of images that have not been deleted meanwhile; one made from later content is never replaced by
-- an earlier one.
insert into {vectors} as t (image_id, revision, checksum, code, v)
select image_id, revision, checksum, code, v from {staging} s where exists (select from images i where i.id = s.image_id)
on conflict (image_id) do update
set revision = excluded.revision, checksum = excluded.checksum, stored_at = now(), code = excluded.code, v = excluded.v
where excluded.revision >= t.revision
returning image_id

-- name: merge_labels
-- The classes of images whose vectors were stored just now; there are always as many of each.
insert into labels (encoder, image_id, rank, label, probability)
select %(encoder)s, image_id, rank, label, probability
from unnest(%(ids)s::bigint[], %(ranks)s::smallint[], %(labels)s::text[], %(probabilities)s::real[])
    as t (image_id, rank, label, probability)
on conflict (encoder, image_id, rank) do update set label = excluded.label, probability = excluded.probability

-- name: merge_appearances
-- Shape and colours of images, where they are of the present content and new. Rows are locked in the order of keys, as
-- merge_images does it, so that neither a registration nor another chunk can be waited for in a circle; whoever waited
-- for a registration that changed the content finds its revision gone by and writes nothing.
with fresh as materialized (
    select i.id, t.ratio, t.average, t.palette, t.shares, t.miniature, t.revision
    from images i
    join unnest(%(ids)s::bigint[], %(revisions)s::integer[], %(ratios)s::real[], %(averages)s::text[],
        %(palettes)s::text[], %(shares)s::text[], %(miniatures)s::bytea[])
        as t (id, revision, ratio, average, palette, shares, miniature) on t.id = i.id
    where i.revision = t.revision and i.appearance_revision is distinct from t.revision
    order by i.key
    for no key update of i
)
update images i
set aspect_ratio = f.ratio, average_colour = f.average, palette = string_to_array(f.palette, ','),
    palette_shares = string_to_array(f.shares, ',')::real[], miniature = f.miniature,
    appearance_revision = f.revision
from fresh f where i.id = f.id

-- name: delete_failures
-- What has a vector now has not failed; but the failure of a later content stands.
delete from failures f using unnest(%(ids)s::bigint[], %(revisions)s::integer[]) as t (image_id, revision)
where f.encoder = %(encoder)s and f.image_id = t.image_id and f.revision <= t.revision

-- name: insert_failures
-- One row for each image that failed for good; but not where it has been deleted or another chunk has stored its vector
-- meanwhile, and never in place of the failure of a later content.
insert into failures (encoder, image_id, revision, reason, detail, attempts)
select %(encoder)s, image_id, revision, reason, detail, %(attempts)s
from unnest(%(ids)s::bigint[], %(revisions)s::integer[], %(reasons)s::text[], %(details)s::text[])
    as t (image_id, revision, reason, detail)
where not exists (select from {vectors} v where v.image_id = t.image_id and v.revision >= t.revision)
  and exists (select from images i where i.id = t.image_id)
order by image_id
on conflict (encoder, image_id) do update
set revision = excluded.revision, reason = excluded.reason, detail = excluded.detail, attempts = excluded.attempts,
    failed_at = now()
where excluded.revision >= failures.revision

-- name: begin_follow_up
-- Before what follows: an analysis that is being begun is waited for, and seen.
select pg_advisory_xact_lock_shared(hashtextextended('lookalike analyses ' || %(encoder)s, 0))

-- name: insert_follow_up
-- What has a vector now is passed on to the standing analyses of its encoder.
insert into chunks (encoder, lane, ids, analysis)
select encoder, 'analysis', %(ids)s, id from analyses where encoder = %(encoder)s and standing

-- name: insert_retry
-- What is to be tried again, and when.
insert into chunks (encoder, lane, attempts, ids, not_before, parent, analysis)
values (%(encoder)s, %(lane)s, %(attempts)s, %(ids)s, now() + make_interval(secs => %(seconds)s), %(parent)s,
    %(analysis)s)

-- name: insert_postponed
-- Images that were not asked for, and when they are to come back: no attempt was spent. How long a host has refused all
-- requests is passed on; where images only wait for their turn, it does not.
insert into chunks (encoder, lane, attempts, ids, not_before, parent, analysis, waiting_since)
select c.encoder, c.lane, c.attempts, string_to_array(t.ids, ',')::bigint[], now() + make_interval(secs => t.seconds),
    c.id, c.analysis, case when t.paused then coalesce(c.waiting_since, now()) end
from chunks c, unnest(%(ids)s::text[], %(seconds)s::double precision[], %(paused)s::boolean[]) as t (ids, seconds, paused)
where c.id = %(chunk)s

-- name: count_missed
-- Images that an analysis could not look at, and does not try again.
update chunks set missed = %(images)s where id = %(chunk)s

-- name: expire_queued
-- Messages that nobody took in time; no worker is to blame.
update chunks set state = 'pending', lease = null, lease_until = null
where state = 'queued' and lease_until < now()

-- name: prolong_queued
-- Chunks whose messages all wait in the broker still, because nobody has had time: they need no second message.
with queued as materialized (
    select count(*) as chunks from chunks where state = 'queued' and encoder = %(encoder)s and lane = %(lane)s
)
update chunks set lease_until = now() + make_interval(secs => %(seconds)s)
where state = 'queued' and encoder = %(encoder)s and lane = %(lane)s
  and lease_until < now() + make_interval(secs => %(seconds)s / 2)
  and (select chunks from queued) <= %(waiting)s

-- name: give_back_queued
-- The broker lost these messages: they were queued for a while, and its queue is empty. Null for encoder: all of them.
update chunks set state = 'pending', lease = null, lease_until = null
where state = 'queued'
  and (%(encoder)s::text is null or encoder = %(encoder)s and lane = %(lane)s)
  and lease_until <= now() + make_interval(secs => %(remaining)s)

-- name: lock_crashed
-- Chunks whose worker fell silent; or only those of a worker that came back under its name without them.
select id, encoder, lane, analysis, crashes + 1 as crashes, lo, hi, ids, worker from chunks
where state = 'running' and case when %(worker)s::text is null then lease_until < now() else worker = %(worker)s end
for update skip locked

-- name: seconds_up
-- For how long the server has been up, if anybody holds a chunk.
select extract(epoch from clock_timestamp() - pg_postmaster_start_time())
where exists (select from chunks where state = 'running')

-- name: crash
-- One more crash; the chunk is tried again as it is, from the second crash on alone.
update chunks set state = 'pending', lease = null, lease_until = null, crashes = crashes + 1,
    lane = case when crashes + 1 >= %(alone)s and analysis is null then 'suspect' else lane end
where id = %(chunk)s

-- name: retire
-- The chunk is over: split into halves, or dead.
update chunks set state = %(state)s, done_at = now(), lease = null, lease_until = null, crashes = crashes + 1
where id = %(chunk)s

-- name: chunk_image_ids
-- The images of a range that are registered.
select id from images where id between %(lo)s and %(hi)s order by id

-- name: insert_suspects
-- One half of a chunk that crashed two workers; the crash of the whole counts for it.
insert into chunks (encoder, lane, crashes, ids, parent, analysis)
values (%(encoder)s, %(lane)s, 1, %(ids)s, %(parent)s, %(analysis)s)

-- name: insert_dead
-- The image that crashed every worker that took it.
insert into failures (encoder, image_id, revision, reason, detail, attempts)
select %(encoder)s, id, revision, 'crashed_worker', %(detail)s, %(crashes)s from images where id = %(image)s
on conflict (encoder, image_id) do update
set revision = excluded.revision, reason = excluded.reason, detail = excluded.detail, attempts = excluded.attempts,
    failed_at = now()

-- name: claim_name
-- A worker's name belongs to one living process: the lock goes with its connection.
select pg_try_advisory_lock(hashtextextended('lookalike worker ' || %(name)s, 0))
