-- name: await
-- A manifest that is to come. An earlier event changes nothing, a later one begins anew; two of one moment (a bag is
-- announced in two ways) are one, of the version that one of them names. Who reads a source in between, and cannot tell of
-- when it is, has it asked for at once, adds what a catalogue says, and takes nothing away: what an event has called all
-- of a work stays so, under its name; nor does it begin anew, or a source that is read each day would wait for ever. Images
-- are filed under whatever named it first, and only that says whence it moved.
insert into awaited_manifests as a (
    address, identifier, version, as_of, outside, whole, moved_from, described, source, reason, detail)
values (%(address)s, %(identifier)s, %(version)s, %(as_of)s, %(outside)s, %(whole)s, %(moved_from)s, %(described)s,
    %(source)s, %(reason)s, %(detail)s)
on conflict (address) do update set
    identifier = case when excluded.whole or not a.whole then excluded.identifier else a.identifier end,
    outside = a.outside and excluded.outside, version = coalesce(excluded.version, a.version),
    as_of = coalesce(excluded.as_of, a.as_of), whole = a.whole or excluded.whole,
    moved_from = case when a.source = excluded.source then coalesce(excluded.moved_from, a.moved_from) else a.moved_from end,
    described = a.described || excluded.described,
    -- One of both changes: whoever reads it now ends nothing, for it has not seen what is said here.
    promised_at = case when excluded.as_of is null then a.promised_at else now() end,
    tries = case when excluded.as_of is null then a.tries + 1 else 0 end,
    not_before = now(), failed_at = null, reason = excluded.reason, detail = excluded.detail
where excluded.as_of is null or a.as_of is null or excluded.as_of >= a.as_of

-- name: claim
-- The manifest that is due for longest. It is due again when whoever takes it says nothing for a while.
update awaited_manifests set
    tries = tries + 1, asked_at = now(), not_before = now() + make_interval(secs => %(seconds)s)
where address = (
    select address from awaited_manifests where failed_at is null and not_before <= now()
    order by not_before limit 1 for update skip locked)
returning address, identifier, version, as_of, outside, whole, moved_from, described, source, promised_at, tries,
    promised_at < now() - make_interval(secs => 3600 * %(hours)s) as expired

-- name: hold
-- It takes longer than whoever reads it had thought.
update awaited_manifests set not_before = now() + make_interval(secs => %(seconds)s)
where address = %(address)s and promised_at = %(promised_at)s and tries = %(tries)s

-- name: settle
-- It was read; unless another event came meanwhile, or somebody else has taken it, it is no longer waited for.
delete from awaited_manifests where address = %(address)s and promised_at = %(promised_at)s and tries = %(tries)s

-- name: postpone
-- It is not there yet.
update awaited_manifests set
    not_before = now() + make_interval(secs => %(seconds)s), reason = %(reason)s, detail = %(detail)s
where address = %(address)s and promised_at = %(promised_at)s and tries = %(tries)s

-- name: give_up
-- It did not appear in time.
update awaited_manifests set failed_at = now(), reason = %(reason)s, detail = %(detail)s
where address = %(address)s and promised_at = %(promised_at)s and tries = %(tries)s

-- name: forget
-- The stream that has promised it says later that it is gone, or it was read since: nobody waits for it. Unless an event
-- names its version, or something is left where it was before.
delete from awaited_manifests
where address = %(address)s and source = %(source)s and version is null and moved_from is null
  and coalesce(as_of <= %(as_of)s::timestamptz, true)

-- name: list_missing
-- Those that were given up, the latest first.
select address, identifier, version, reason, detail, tries, failed_at from awaited_manifests
where failed_at is not null and (%(reasons)s::text[] is null or reason = any(%(reasons)s))
order by failed_at desc, address limit %(limit)s

-- name: list_waiting
-- Those that are awaited, with how they failed last, the longest first: they keep everything from being complete.
select address, identifier, version, coalesce(reason, '') as reason, detail, tries, failed_at from awaited_manifests
where failed_at is null and (%(reasons)s::text[] is null or reason = any(%(reasons)s))
order by promised_at, address limit %(limit)s

-- name: count
-- How many are waited for, and how many were given up.
select count(*) filter (where failed_at is null) as awaited, count(*) filter (where failed_at is not null) as failed
from awaited_manifests

-- name: retry
-- Gives those that were given up another time.
update awaited_manifests set
    tries = 0, promised_at = now(), not_before = now(), failed_at = null, reason = null, detail = ''
where failed_at is not null

-- name: works
-- The works of registered images.
select key, work from images where key = any(%(keys)s) and work is not null

-- name: siblings
-- The images of works whose keys begin in one way.
select key from images where work = any(%(works)s) and starts_with(key, %(beginning)s) order by key
