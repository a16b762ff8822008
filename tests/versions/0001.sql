-- Six images: three done, one failed, two open; chunks in every state.
select add_encoder('tiny', 4, 'halved');
insert into calibrations
select 'tiny', n, array(select case when m = n then 2048 else 0 end from generate_series(0, 3) m)::real[]::vector::halfvec, 0
from generate_series(0, 3) n;
insert into images (key, url, work, title, licence, access)
select 'image/' || n, 'https://images.example/' || n || '.jpg', 'work-' || n / 2, 'Title ' || n, 'cc-by', 'open'
from generate_series(1, 6) n;
insert into vectors_tiny (image_id, revision, checksum, code, v)
select id, 1, sha256(key::bytea), code_of(v, 'tiny')::bit(4), v from images,
    lateral (select l2_normalize(array[1, id * 0.5 - 1, 0.1, -0.2]::real[]::vector)::halfvec as v) u where id <= 3;
insert into failures (encoder, image_id, revision, reason, detail, attempts) values ('tiny', 4, 1, 'not_found', '404', 1);
insert into chunks (encoder, lane, state, lo, hi, done_at) values
    ('tiny', 'backfill', 'done', 1, 4, now()), ('tiny', 'suspect', 'split', 1, 2, now()), ('tiny', 'suspect', 'dead', 1, 1, now());
insert into chunks (encoder, lane, ids) values ('tiny', 'events', '{5}');
insert into chunks (encoder, lane, state, lease, lease_until, worker, ids)
values ('tiny', 'backfill', 'running', gen_random_uuid(), now() + interval '1 day', 'host.1', '{6}');
