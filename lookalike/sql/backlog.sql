-- name: measure
-- What waits for workers now or within five minutes, and how the last minute and hour have gone. Images that are to be
-- tried again later need no worker until then. By indexes of what is unfinished and of what is recent: the cost does not
-- grow with the archive.
with due as (
    select lane, created_at, coalesce(cardinality(ids), hi - lo + 1) as images from unfinished_chunks
    where encoder = %(encoder)s and not_before < now() + interval '5 minutes'
), recent as (
    select done_at, coalesce(cardinality(ids), hi - lo + 1) - postponed as images from chunks
    where encoder = %(encoder)s and state = 'done' and analysis is null and done_at > now() - interval '1 hour'
)
select
    (select coalesce(sum(images), 0) from due)::bigint as images,
    (select coalesce(sum(coalesce(cardinality(ids), hi - lo + 1)), 0) from chunks
     where encoder = %(encoder)s and lane = 'analysis' and state in ('pending', 'queued', 'running'))::bigint as analysed,
    (select coalesce(extract(epoch from now() - min(created_at)), 0) from due where lane = 'events')::double precision
        as oldest_event,
    (select coalesce(sum(images), 0) from recent where done_at > now() - interval '1 minute')::bigint as last_minute,
    (select coalesce(sum(images), 0) from recent)::bigint as last_hour,
    (select count(*) from failures
     where encoder = %(encoder)s and failed_at > now() - interval '1 hour') as failed_last_hour,
    (select count(*) from workers
     where encoder = %(encoder)s and seen_at > now() - make_interval(secs => 3 * period)) as workers
