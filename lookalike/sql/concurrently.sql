-- name: state
-- Whether an index is there: valid, null without one; and whether somebody is building it.
select i.indisvalid as valid, exists (
    select from pg_stat_progress_create_index p where p.index_relid = i.indexrelid) as building
from pg_index i where i.indexrelid = to_regclass(format('lookalike.%%I', %(index)s::text))

-- name: holding_up
-- Whose transaction a build waits for: it began before, and may have written what the index has to hold.
select a.pid, a.usename as login, a.application_name as program, a.xact_start as since
from pg_stat_progress_create_index p join pg_stat_activity a on a.pid = p.current_locker_pid
where p.datname = current_database() and p.command like '%%INDEX CONCURRENTLY'

-- name: drop_broken
-- What a build left that was interrupted: it costs every insert, and no search uses it.
drop index concurrently if exists {index}

-- name: unknown_statistics
-- Tables whose extended statistics nobody has gathered yet.
select distinct s.stxrelid::regclass::text from pg_statistic_ext s
where s.stxnamespace = 'lookalike'::regnamespace and not exists (
    select from pg_stats_ext_exprs x where x.statistics_schemaname = 'lookalike' and x.statistics_name = s.stxname)

-- name: analyze
-- Gathers them; it reads a sample.
analyze {table}
