-- name: chunks
-- Unfinished chunks, analyses included, with their images and the seconds since the first of them could be worked on. Those
-- that wait for their time (a repetition, a host that is spared) are `put_off`. It reads what is unfinished and no more.
select encoder, lane, state, count(*) as chunks, sum(images)::bigint as images,
    greatest(0, extract(epoch from now() - min(ready_at)))::double precision as age
from (
    select encoder, lane, case when not_before > now() then 'put_off' else 'pending' end as state,
        coalesce(cardinality(ids), hi - lo + 1) as images, greatest(created_at, not_before) as ready_at
    from chunks where state = 'pending'
    union all
    select encoder, lane, state, coalesce(cardinality(ids), hi - lo + 1), greatest(created_at, not_before)
    from chunks where state in ('queued', 'running')
) unfinished
group by encoder, lane, state

-- name: workers
-- Workers that were heard of within the last hour, by encoder: how many are alive, and how many have fallen silent.
select encoder, count(*) filter (where alive) as alive, count(*) filter (where not alive) as silent
from (
    select encoder, seen_at > now() - make_interval(secs => 3 * period) as alive
    from workers where seen_at > now() - interval '1 hour'
) heard
group by encoder

-- name: audits
-- When the latest audit of each encoder that came to its end did so, and what it found and nobody has repaired.
select distinct on (a.encoder) a.encoder, extract(epoch from a.ended_at)::double precision as ended_at, (
    select coalesce(sum(f.found - f.repaired), 0)::bigint from audit_findings f where f.audit = a.id) as faults
from audits a where a.ended_at is not null order by a.encoder, a.id desc

-- name: builds
-- Indexes that are being built now, by anybody: the encoder, and the share 0..1 of the rows of that partition.
select e.name as encoder, coalesce(max(p.tuples_done::double precision / nullif(p.tuples_total, 0)), 0) as share
from pg_stat_progress_create_index p
join pg_inherits h on h.inhrelid = p.relid
join encoders e on to_regclass(format('lookalike.%%I', e.vectors)) = h.inhparent
where p.datname = current_database()
group by e.name
