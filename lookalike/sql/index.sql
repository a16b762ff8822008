-- name: partitions
-- The partitions of an encoder's table of vectors, with their rows as the statistics know them, and their code index.
select c.relname as partition, greatest(c.reltuples, 0)::bigint as rows,
       c.relname || '_code' as index, i.indisvalid as valid
from encoders e
join pg_inherits h on h.inhparent = to_regclass(format('lookalike.%%I', e.vectors))
join pg_class c on c.oid = h.inhrelid
left join pg_class x on x.relname = c.relname || '_code' and x.relnamespace = c.relnamespace
left join pg_index i on i.indexrelid = x.oid
where e.name = %(encoder)s order by c.relname

-- name: analyze
-- Brings the statistics up to date: the estimate and the planner rest on them.
analyze {vectors}

-- name: claim
-- One build for an encoder at a time: the lock goes with its connection.
select pg_try_advisory_lock(hashtextextended('lookalike index ' || %(encoder)s, 0))

-- name: owner
-- Who owns the table of vectors, whether we are that role or in it, and whether we can become it.
select pg_get_userbyid(c.relowner) as owner, pg_has_role(c.relowner, 'usage') as is_ours,
    pg_has_role(c.relowner, 'set') as may_be
from encoders e join pg_class c on c.oid = to_regclass(format('lookalike.%%I', e.vectors)) where e.name = %(encoder)s

-- name: become
-- For the rest of the connection, or until be_oneself.
set role {owner}

-- name: be_oneself
-- The role that one logged in with.
reset role

-- name: drop_index
-- Takes an index away without blocking writes.
drop index concurrently if exists {index}

-- name: build_index
-- Builds the index of one partition without blocking writes.
create index concurrently {index} on {partition} using hnsw (code bit_hamming_ops) with (m = 16, ef_construction = 64)

-- name: is_valid
-- Whether an index of this name is complete; nothing when there is none.
select indisvalid from pg_index where indexrelid = to_regclass(format('lookalike.%%I', %(index)s::text))

-- name: rename_index
-- A new index takes the name of the one that it replaces.
alter index {index} rename to {name}

-- name: progress
-- How far the build is that another connection runs.
select phase, tuples_done, greatest(tuples_total, 1) as tuples_total from pg_stat_progress_create_index
where pid = %(pid)s

-- name: sample_queries
-- Random images that have a vector.
select v.image_id, i.key from {vectors} v join images i on i.id = v.image_id
order by hashint8extended(v.image_id, %(seed)s) limit %(queries)s

-- name: exact
-- The distances of the true neighbours of one image, by comparing it with every vector but those that searches leave out.
select as_distance(cosine, (select distance from encoders where name = %(encoder)s)) from (
    select (t.v <=> (select v from {vectors} where image_id = %(image)s)) + 0 as cosine from {vectors} t
    where t.image_id <> %(image)s
      and not exists (select from unwanted_images u where u.image_id = t.image_id and u.state = 'accepted')
    order by 1 limit %(k)s) nearest
order by cosine

-- name: record_check
-- Keeps what a check found.
insert into index_checks (encoder, vectors, indexed, candidates, queries, recall_1, recall_10, recall_100, poor,
                          p50_ms, p95_ms)
select %(encoder)s, %(vectors)s, %(indexed)s, e.candidates, %(queries)s, %(recall_1)s, %(recall_10)s, %(recall_100)s,
       %(poor)s, %(p50_ms)s, %(p95_ms)s
from encoders e where e.name = %(encoder)s
returning candidates, checked_at

-- name: last_check
-- The latest check of an encoder.
select vectors, indexed, candidates, queries, recall_1, recall_10, recall_100, poor, p50_ms, p95_ms, checked_at
from index_checks where encoder = %(encoder)s order by checked_at desc limit 1

-- name: set_candidates
-- How wide searches of the encoder look from now on.
update encoders set candidates = %(candidates)s where name = %(encoder)s

-- name: memory
-- What a server was told to use.
select greatest(pg_size_bytes(current_setting('maintenance_work_mem')), pg_size_bytes(current_setting('shared_buffers')))

-- name: note_drop
-- An index that somebody has dropped is not built again before a backfill goes on.
update encoders set index_dropped_at = now() where name = %(encoder)s

-- name: backfill_ended
-- Whether no backfill is open, and one has gone on since the index was dropped, if it was.
select not exists (
        select from unfinished_chunks c where c.encoder = e.name and c.lane in ('backfill', 'suspect'))
    and (e.index_dropped_at is null or exists (
        select from chunks c where c.encoder = e.name and c.state = 'done' and c.done_at > e.index_dropped_at
          and c.lane = 'backfill'))
from encoders e where e.name = %(encoder)s
