-- name: encoders
-- The encoders of the archive, the active one first; without those that are being taken out.
select name, dimension, active, fingerprint from encoders where leaving_at is null order by active desc, name

-- name: books
-- Every registered image counted once, and what else is wrong: images with a vector and a failure of one content, and
-- what the latest audit found but did not repair. What the audit counts anew each time is left to these figures. Manifests
-- that are awaited belong to no encoder, and keep all from being complete.
select b.registered, b.done, b.failed, b.open, b.lost, (
        select count(*) from failures f join {vectors} v on v.image_id = f.image_id and v.revision = f.revision
        where f.encoder = %(encoder)s) + coalesce((
        select sum(f.found - f.repaired) from audit_findings f
        where f.audit = (select id from audits where encoder = %(encoder)s and ended_at is not null order by id desc limit 1)
          and f.fault not in ('lost', 'outdated', 'twice', 'expired_lease')), 0)::bigint as faults,
    (select count(*) from awaited_manifests where failed_at is null) as awaited
from books(%(encoder)s) b

-- name: reasons
-- Failures by reason, most frequent first.
select reason, count(*) from failures where encoder = %(encoder)s group by reason order by count(*) desc, reason

-- name: chunks
-- Unfinished chunks by lane and state.
select lane, state, count(*) from unfinished_chunks where encoder = %(encoder)s
group by lane, state order by lane, state

-- name: unfinished
-- Whether anything is still to be done.
select count(*) from (select from unfinished_chunks where encoder = %(encoder)s limit 1) as any_chunk

-- name: left
-- Images in unfinished chunks, by the sizes of the chunks; cheap, and exact unless an image is in two of them.
select coalesce(sum(coalesce(cardinality(ids), hi - lo + 1)), 0)::bigint from unfinished_chunks
where encoder = %(encoder)s

-- name: rate
-- Images in chunks that were finished in the last minute, without those that were sent away.
select coalesce(sum(coalesce(cardinality(ids), hi - lo + 1) - postponed), 0)::bigint from chunks
where encoder = %(encoder)s and state = 'done' and done_at > now() - interval '1 minute'

-- name: failures
-- Failed images, the latest first. Images are joined to the few that are shown.
with latest as materialized (
    select * from failures
    where encoder = %(encoder)s and (%(reasons)s::text[] is null or reason = any(%(reasons)s))
    order by failed_at desc limit %(limit)s
)
select i.key as image, f.reason, f.detail, f.attempts, f.failed_at, i.url
from latest f join images i on i.id = f.image_id order by f.failed_at desc, i.key

-- name: retry
-- Takes the failures away; the caller covers their images with chunks in the same transaction.
delete from failures f using images i
where i.id = f.image_id and f.encoder = %(encoder)s
  and (%(reasons)s::text[] is null or f.reason = any(%(reasons)s))
  and (%(keys)s::text[] is null or i.key = any(%(keys)s))
returning f.image_id
