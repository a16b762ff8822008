-- name: limit_wait
-- Whoever changes tables just now is not waited for, since everybody else would wait behind us.
set local lock_timeout = '5s'

-- name: make_schema
-- Where the copies live; nobody else ever sees it, as it is rolled back.
create schema {schema}

-- name: copy_table
-- An empty table like one of the archive's, with its own numbers, indexes and checks.
create table {schema}.{table} (like {table} including all)

-- name: copy_vectors
-- An empty table of vectors like the encoder's, before its partitions.
create table {schema}.{table} (like {table} including all) partition by hash (image_id)

-- name: copy_partition
-- One of its partitions.
create table {schema}.{partition} partition of {schema}.{table} for values with (modulus {modulus}, remainder {remainder})

-- name: prefer_schema
-- From here on the copies are what all statements find under the names of the tables.
select set_config('search_path', %(schema)s::text || ', lookalike, public', true)

-- name: copy_encoder
-- The one encoder of the trial.
insert into {schema}.encoders select * from encoders where name = %(encoder)s

-- name: foreign_keys
-- The references among these tables, as statements for their copies; unqualified, because the path leads to the tables.
select format('alter table %%I.%%I add %%s', %(schema)s::text, t.relname, pg_get_constraintdef(c.oid))
from pg_constraint c join pg_class t on t.oid = c.conrelid
where c.contype = 'f' and c.conrelid = any(%(tables)s::text[]::regclass[])
  and c.confrelid = any(%(tables)s::text[]::regclass[])

-- name: schemas_of
-- The schemas that these names lead to now.
select distinct n.nspname from unnest(%(tables)s::text[]) as name
join pg_class c on c.oid = to_regclass(name) join pg_namespace n on n.oid = c.relnamespace

-- name: empty
-- What a commit does with the batch and the vectors that wait to be merged.
truncate {table}

-- name: table_bytes
-- What tables take on disk, with their indexes.
select sum(pg_total_relation_size(to_regclass(name)))::bigint from unnest(%(tables)s::text[]) as name

-- name: commit_alone
-- A transaction that writes to the log and waits for the disk, and changes nothing.
select pg_logical_emit_message(true, 'lookalike plan', '')

-- name: log_bytes
-- What this connection has written to the write-ahead log.
select wal_bytes::bigint from pg_stat_get_backend_wal(pg_backend_pid())

-- name: flush_statistics
-- Has the statistics of this connection written at the end of the transaction.
select pg_stat_force_next_flush()
