-- name: begin
-- A new analysis; those that follow it are of its kind.
insert into analyses (kind, encoder, scope, settings, standing)
values (%(kind)s, %(encoder)s, %(scope)s, %(settings)s, %(standing)s) returning id, created_at

-- name: begin_alone
-- Of one encoder one analysis is begun at a time.
select pg_advisory_xact_lock(hashtextextended('lookalike begin ' || %(encoder)s, 0))

-- name: supersede
-- An analysis that a new one takes the place of follows new images no longer, and ends where it is. Waits while it is
-- being summed up.
update analyses set standing = false, settled_at = now()
where kind = %(kind)s and encoder = %(encoder)s and scope = %(scope)s and (standing or settled_at is null)

-- name: end_chunks
-- Chunks of analyses that were superseded are over.
update chunks set state = 'done', done_at = now(), lease = null, lease_until = null
where state in ('pending', 'queued', 'running') and analysis in (
    select id from analyses
    where kind = %(kind)s and encoder = %(encoder)s and scope = %(scope)s and not standing and settled_at is not null)

-- name: cover_all_images
-- Covers every registered image with chunks of the analysis, by counting because ids have gaps.
insert into chunks (encoder, lane, lo, hi, analysis)
select %(encoder)s, 'analysis', min(id), max(id), %(analysis)s
from (select id, (row_number() over (order by id) - 1) / %(size)s as piece from images) as numbered
group by piece order by piece

-- name: wait_for_finishes
-- Waits for the chunks that are being finished, and has others wait: none may miss the analysis.
select pg_advisory_xact_lock(hashtextextended('lookalike analyses ' || %(encoder)s, 0))

-- name: select
-- An analysis as its kind needs it.
select id, kind, encoder, settings, standing, created_at from analyses where id = %(analysis)s

-- name: find_standing
-- The analysis of these settings that new images go through.
select id, kind, encoder, settings, standing, created_at from analyses
where kind = %(kind)s and encoder = %(encoder)s and standing and settings = %(settings)s

-- name: unsettled
-- Analyses of which no chunk is left to do, but whose summary is missing or older than their last chunk.
select a.id, a.kind, a.encoder, a.settings, a.standing, a.created_at from analyses a
where (a.settled_at is null or a.standing and exists (
        select from chunks c where c.analysis = a.id and c.state = 'done' and c.done_at > a.settled_at))
  and not exists (select from chunks c where c.analysis = a.id and c.state in ('pending', 'queued', 'running'))
order by a.id

-- name: claim
-- Whoever settles an analysis does it alone; no row means that somebody else is at it. Chunks that refer to it can be
-- added meanwhile.
select from analyses where id = %(analysis)s for no key update skip locked

-- name: settled
-- Its summary is made, from the chunks up to here.
update analyses set settled_at = now() where id = %(analysis)s

-- name: progress
-- The images in its chunks, by the sizes of the chunks: all, and those that are left.
select coalesce(sum(size), 0)::bigint as images,
       coalesce(sum(size) filter (where state in ('pending', 'queued', 'running')), 0)::bigint as left
from (select coalesce(cardinality(ids), hi - lo + 1) as size, state from chunks
      where analysis = %(analysis)s and state <> 'split') as sized

-- name: is_settled
-- Whether it was summed up, and no chunk is left to do. What was done since is summed up in its time.
select a.settled_at is not null and not exists (
    select from chunks c where c.analysis = a.id and c.state in ('pending', 'queued', 'running'))
from analyses a where a.id = %(analysis)s

-- name: missed
-- Images that could not be looked at.
select coalesce(sum(missed), 0)::bigint from chunks where analysis = %(analysis)s

-- name: list_standing
-- The analyses that images go through, or that are not settled yet, with the images that are left.
select a.id, a.kind, a.scope, a.settled_at, coalesce((
        select sum(coalesce(cardinality(c.ids), c.hi - c.lo + 1)) from chunks c
        where c.analysis = a.id and c.state in ('pending', 'queued', 'running')), 0)::bigint as left
from analyses a where a.encoder = %(encoder)s and (a.standing or a.settled_at is null) order by a.id
