-- name: find
-- An encoder, whether searches use it, and whether it is leaving already.
select name, vectors, active, leaving_at from encoders where name = %(encoder)s

-- name: claim
-- Nobody else removes it, and nobody builds its index: the locks go with the connection.
select pg_try_advisory_lock(hashtextextended('lookalike removal ' || %(encoder)s, 0))

-- name: open_chunks
-- The chunks that are still to be done, those of analyses with them.
select count(*) from chunks where state in ('pending', 'queued', 'running') and encoder = %(encoder)s

-- name: living_workers
-- The workers of an encoder whose heartbeats come.
select name from workers where encoder = %(encoder)s and seen_at > now() - make_interval(secs => 3 * period) order by name

-- name: mark
-- From here on nothing uses it: no search, no registration, no dispatch. Not where it has become active meanwhile.
update encoders set leaving_at = coalesce(leaving_at, now()) where name = %(encoder)s and not active

-- name: vectors
-- The table of vectors with all that hangs on it: rows as the statistics know them, and bytes.
select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint as rows, coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint as bytes
from pg_partition_tree(to_regclass(format('lookalike.%%I', %(vectors)s::text))) t join pg_class c on c.oid = t.relid
where t.isleaf

-- name: members
-- The members of its clusterings: tables of their own.
select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint as rows, coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint as bytes
from clusterings g join pg_class c on c.oid = to_regclass(format('lookalike.%%I', members_table(g.of, g.analysis)))
where g.encoder = %(encoder)s

-- name: count_few
-- The rows of an encoder in a table that it shares with others, up to so many.
select count(*) from (select from {table} where encoder = %(encoder)s limit %(most)s) few

-- name: all_rows
-- The rows of an encoder in a table that it shares with others: asked for the planner's estimate, never run.
select from {table} where encoder = %(encoder)s

-- name: bytes_of_rows
-- What so many rows of a table take with their part of the indexes, by the statistics.
select (pg_total_relation_size(c.oid) * %(rows)s / greatest(c.reltuples, %(rows)s, 1))::bigint from pg_class c
where c.oid = to_regclass(format('lookalike.%%I', %(table)s::text))

-- name: drop_table
-- At once, however large it is: a partition of vectors, or the members of a clustering.
drop table if exists {table}

-- name: partitions
-- What is left of the partitions of the vectors.
select c.relname from pg_inherits h join pg_class c on c.oid = h.inhrelid
where h.inhparent = to_regclass(format('lookalike.%%I', %(vectors)s::text)) order by c.relname

-- name: clusterings
-- What is left of its clusterings, and where their members are.
select analysis, members_table(of, analysis) as members from clusterings where encoder = %(encoder)s order by analysis

-- name: drop_clustering
-- A clustering whose members are gone, with its centres.
delete from clusterings where analysis = %(analysis)s

-- name: piece_end
-- Where a piece of a shared table ends; nothing when this is the last one.
select {key} from {table} where encoder = %(encoder)s and {key} > %(after)s order by {key} offset %(rows)s limit 1

-- name: delete_piece
-- The rows of a piece; to the end of the table without an end.
delete from {table} where encoder = %(encoder)s and {key} > %(after)s
  and (%(upto)s::bigint is null or {key} <= %(upto)s::bigint)

-- name: keep_decisions
-- Sets of unwanted images outlive the network that they were learned with, for people have decided about their images,
-- and these must not come back. With the active encoder they find nothing new until they are learned anew.
update unwanted_sets set encoder = (select active_encoder()), threshold = 0, report = jsonb_build_object()
where encoder = %(encoder)s returning id, name

-- name: drop_candidates
-- What the former network took for unwanted and nobody has looked at.
delete from unwanted_images where set_id = %(set)s and state = 'candidate' and not example

-- name: delete_small
-- What there is little of.
delete from {table} where encoder = %(encoder)s

-- name: lock_last
-- No registration is under way that saw it before it was leaving; no other one waits, for it is passed over.
select name from encoders where name = %(encoder)s for update

-- name: drop_function
-- The function that searched it. Its arguments are in its name's signature: there is one of the name.
drop function if exists {function}

-- name: delete_encoder
-- The end, with its calibration.
delete from encoders where name = %(encoder)s

-- name: remember
-- Programs that still start with it are told, instead of adding it again.
insert into removed_encoders (name) values (%(encoder)s) on conflict (name) do update set removed_at = now()

-- name: leaving
-- The encoders that are being taken out, since when, and what of their vectors is still there.
select e.name as encoder, e.leaving_at as since, coalesce((
        select sum(pg_total_relation_size(t.relid)) from pg_partition_tree(to_regclass(format('lookalike.%I', e.vectors))) t
        where t.isleaf), 0)::bigint as vectors_bytes
from encoders e where e.leaving_at is not null order by e.name
