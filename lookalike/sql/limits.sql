-- name: workers
-- The workers of an encoder that were heard of within the last hour; alive while their heartbeats come.
select name, encoder, device, batch_size, started_at, seen_at, images, seconds,
       fetch_busy, decode_busy, encode_busy, store_busy, batch_fill, refused,
       thumbnails_missed, listening, seen_at > now() - make_interval(secs => 3 * period) as alive
from workers where encoder = %(encoder)s and seen_at > now() - interval '1 hour' order by name

-- name: beat
-- What a worker says of itself with a heartbeat.
insert into workers (name, encoder, device, batch_size, started_at, period, images, seconds,
                     fetch_busy, decode_busy, encode_busy, store_busy, batch_fill, refused, thumbnails_missed,
                     listening)
values (%(name)s, %(encoder)s, %(device)s, %(batch_size)s, %(started_at)s, %(period)s, %(images)s, %(seconds)s,
        %(fetch_busy)s, %(decode_busy)s, %(encode_busy)s, %(store_busy)s, %(batch_fill)s, %(refused)s,
        %(thumbnails_missed)s, %(listening)s)
on conflict (name) do update set
    encoder = excluded.encoder, device = excluded.device, batch_size = excluded.batch_size,
    started_at = excluded.started_at, seen_at = now(), period = excluded.period, images = excluded.images,
    seconds = excluded.seconds, fetch_busy = excluded.fetch_busy, decode_busy = excluded.decode_busy,
    encode_busy = excluded.encode_busy, store_busy = excluded.store_busy, batch_fill = excluded.batch_fill,
    refused = excluded.refused, thumbnails_missed = excluded.thumbnails_missed,
    listening = excluded.listening

-- name: forget
-- A worker has left in order: nobody waits for its heartbeats.
delete from workers where name = %(name)s
