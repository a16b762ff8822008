-- name: claim
-- One audit of an encoder at a time: the lock goes with its connection.
select pg_try_advisory_lock(hashtextextended('lookalike audit ' || %(encoder)s, 0))

-- name: release
-- The audit is over.
select pg_advisory_unlock(hashtextextended('lookalike audit ' || %(encoder)s, 0))

-- name: forget_unfinished
-- Stopped audits that nobody goes on with.
delete from audits where encoder = %(encoder)s and ended_at is null

-- name: find_unfinished
-- An audit of the same kind that was stopped so lately that its beginning still says something.
select id from audits
where encoder = %(encoder)s and ended_at is null and whole = %(whole)s and repairs = %(repairs)s
  and begun_at > now() - make_interval(hours => %(hours)s)
order by id desc limit 1

-- name: begin
-- A new audit, from the first image to the last that there is now. What is compared of the vectors is a share of as many
-- as the statistics know.
insert into audits (encoder, whole, repairs, position, last, share)
select %(encoder)s, %(whole)s, %(repairs)s, least(0, e.first - 1), e.last,
    case when %(whole)s then 1048576
         else least(1048576, ceil(1048576 * %(sample)s::double precision / greatest(1, e.vectors)))::integer end
from (
    select least((select min(id) from images), (select min(image_id) from {vectors}), 1) as first,
        greatest((select max(id) from images), (select max(image_id) from {vectors}),
            (select max(image_id) from failures where encoder = %(encoder)s),
            (select max(image_id) from labels where encoder = %(encoder)s),
            (select max((select max(m.image_id) from clustered_images m where m.analysis = g.analysis))
             from clusterings g where g.encoder = %(encoder)s), 0) as last,
        (select sum(greatest(c.reltuples, 0)) from pg_inherits h join pg_class c on c.oid = h.inhrelid
         where h.inhparent = to_regclass(%(table)s)) as vectors
) e
returning id

-- name: show
-- An audit as it stands.
select id, encoder, whole, repairs, share, position, last, registered, done, failed, open, lost, vectors, compared,
    begun_at, looked_at, ended_at from audits where id = %(audit)s

-- name: end_of_piece
-- Up to which id the next images go: so many registered ones, or all that are left.
select coalesce(
    (select id from images where id > %(position)s and id <= %(last)s order by id offset %(images)s - 1 limit 1),
    %(last)s)

-- name: look
-- One piece, in one statement and thereby at one moment: each of its images counted once, and whatever is wrong with
-- them. An image that moves on is seen before or after, never between.
with unfinished as materialized (
    select lo, hi, ids from unfinished_chunks where encoder = %(encoder)s
), open as materialized (
    select coalesce(range_agg(piece), '{{}}') as ids from (
        select int8range(lo, hi, '[]') as piece from unfinished
        where ids is null and lo <= %(last)s and hi > %(position)s
        union all
        select int8range(id, id, '[]') from unfinished, unnest(ids) as id where id > %(position)s and id <= %(last)s
    ) as pieces
), seen as materialized (
    select i.id, i.id <@ (select ids from open) as open, i.revision, v.revision as vector, f.revision as failure
    from images i
    left join {vectors} v on v.image_id = i.id
    left join failures f on f.encoder = %(encoder)s and f.image_id = i.id
    where i.id > %(position)s and i.id <= %(last)s
), judged as materialized (
    select id, open, revision, vector, failure, coalesce(vector = revision, false) as done,
        coalesce(failure = revision, false) as failed from seen
), vectors as materialized (
    select v.image_id, i.id is null as stray from {vectors} v left join images i on i.id = v.image_id
    where v.image_id > %(position)s and v.image_id <= %(last)s
)
select count(*) as registered,
    count(*) filter (where not open and done) as done,
    count(*) filter (where not open and not done and failed) as failed,
    count(*) filter (where open) as open,
    count(*) filter (where not open and not done and not failed) as lost,
    (select count(*) from vectors) as vectors,
    jsonb_build_object(
        'lost', jsonb_agg(id) filter (where not open and not done and not failed and vector is null),
        'outdated', jsonb_agg(id) filter (where not open and not done and not failed and vector < revision),
        'twice', jsonb_agg(id) filter (where done and failed),
        'future_vector', jsonb_agg(id) filter (where vector > revision),
        'future_failure', jsonb_agg(id) filter (where failure > revision),
        'stray_vector', (select jsonb_agg(image_id) from vectors where stray),
        'stray_failure', (select jsonb_agg(f.image_id) from failures f
            where f.encoder = %(encoder)s and f.image_id > %(position)s and f.image_id <= %(last)s
              and not exists (select from images i where i.id = f.image_id)),
        'stray_label', (select jsonb_agg(distinct l.image_id) from labels l
            where l.encoder = %(encoder)s and l.image_id > %(position)s and l.image_id <= %(last)s
              and not exists (select from images i where i.id = l.image_id)),
        'stray_member', (select jsonb_agg(distinct m.image_id)
            from clusterings g join clustered_images m on m.analysis = g.analysis
            where g.encoder = %(encoder)s and m.image_id > %(position)s and m.image_id <= %(last)s
              and not exists (select from images i where i.id = m.image_id))
    ) as faults
from judged

-- name: choose_vectors
-- The vectors of a piece that are verified: a share of them, drawn anew for each audit. By the ids alone, which the index
-- has, so that the others are not read.
select image_id from {vectors}
where image_id > %(position)s and image_id <= %(last)s
  and (hashint8extended(image_id, %(audit)s) & 1048575) < %(share)s
order by image_id

-- name: read_vectors
-- Vectors and codes as Postgres sends them, and whether the checksum is one.
select image_id, coalesce(length(checksum) = 32, false), halfvec_send(v), varbit_send(code) from {vectors}
where image_id = any(%(ids)s)

-- name: wrong_tables
-- Whether the table of vectors is as its encoder says: dimensions of its columns and calibration, and every partition
-- checks that vectors have unit length.
select count(*) from encoders e
where e.name = %(encoder)s and not (
    (select count(*) from calibrations c where c.encoder = e.name and vector_dims(c.direction) = e.dimension) = e.dimension
    and not exists (
        select from pg_partition_tree(to_regclass(%(table)s)) t
        where (select count(*) from pg_attribute a where a.attrelid = t.relid and a.atttypmod = e.dimension
                 and (a.attname, a.atttypid) in (('v', 'halfvec'::regtype), ('code', 'bit'::regtype))) <> 2
           or not exists (select from pg_constraint k where k.conrelid = t.relid and k.contype = 'c' and k.convalidated
                and k.conenforced and pg_get_constraintdef(k.oid) like '%%l2_norm(v)%%')))

-- name: expired_leases
-- Chunks whose lease ran out long ago: the sweep is not running.
select id from chunks where encoder = %(encoder)s and state in ('queued', 'running')
  and lease_until < now() - interval '5 minutes' order by id

-- name: not_deleted
-- Images that are registered although they were deleted, and not seen since.
select i.id, d.key, d.as_of::text, d.by_hand from deleted_images d join images i on i.key = d.key
where d.by_hand or not coalesce(i.as_of > d.as_of, false) order by d.key

-- name: record_piece
-- How far the audit has got, and what it counted.
update audits set position = %(position)s, registered = registered + %(registered)s, done = done + %(done)s,
    failed = failed + %(failed)s, open = open + %(open)s, lost = lost + %(lost)s, vectors = vectors + %(vectors)s,
    compared = compared + %(compared)s, looked_at = now()
where id = %(audit)s

-- name: record_finding
-- What was found in a piece is added to what was found before.
insert into audit_findings as f (audit, fault, found, repaired, examples)
values (%(audit)s, %(fault)s, %(found)s, %(repaired)s, %(examples)s)
on conflict (audit, fault) do update set found = f.found + excluded.found, repaired = f.repaired + excluded.repaired,
    examples = (f.examples || excluded.examples)[1:20]

-- name: end
-- The audit has come to its end.
update audits set ended_at = now(), looked_at = now() where id = %(audit)s

-- name: findings
-- What an audit found.
select fault, found, repaired, examples from audit_findings where audit = %(audit)s

-- name: delete_doubled_failures
-- What has a vector has not failed.
delete from failures f using {vectors} v
where f.encoder = %(encoder)s and f.image_id = any(%(ids)s) and v.image_id = f.image_id and v.revision = f.revision

-- name: delete_vectors
-- Vectors that are wrong; the caller queues their images.
delete from {vectors} where image_id = any(%(ids)s)

-- name: delete_failures
-- Failures that are wrong; the caller queues their images.
delete from failures where encoder = %(encoder)s and image_id = any(%(ids)s)

-- name: delete_stray_vectors
-- Vectors of images that are not registered.
delete from {vectors} v where v.image_id = any(%(ids)s) and not exists (select from images i where i.id = v.image_id)

-- name: delete_stray_failures
-- Failures of images that are not registered.
delete from failures f
where f.encoder = %(encoder)s and f.image_id = any(%(ids)s) and not exists (select from images i where i.id = f.image_id)

-- name: delete_stray_labels
-- Labels of images that are not registered.
delete from labels l
where l.encoder = %(encoder)s and l.image_id = any(%(ids)s) and not exists (select from images i where i.id = l.image_id)

-- name: delete_stray_members
-- Places in clusters of images that are not registered.
delete from clustered_images m using clusterings g
where g.analysis = m.analysis and g.encoder = %(encoder)s and m.image_id = any(%(ids)s)
  and not exists (select from images i where i.id = m.image_id)
