-- name: lock
-- A source is read by one process at a time; the lock goes with its connection.
select pg_try_advisory_lock(hashtextextended('lookalike source ' || %(name)s, 0))

-- name: unlock
-- Somebody else may read it now.
select pg_advisory_unlock(hashtextextended('lookalike source ' || %(name)s, 0))

-- name: select
-- How far a source has been read, and what it has announced.
select position, new, changed, unchanged, gone, deleted, refused, ended_at, followed_at from sources where name = %(name)s

-- name: begin
-- Begins a source, from its position: with anew from its beginning, and the counts from nothing.
insert into sources as s (name) values (%(name)s)
on conflict (name) do update set
    position = case when %(anew)s then null else s.position end, new = 0, changed = 0, unchanged = 0, gone = 0,
    deleted = 0, refused = '{}', started_at = now(), read_at = now(), ended_at = null, error = null,
    followed_at = case when not %(anew)s then s.followed_at end

-- name: record
-- What a source has announced so far, and where it is read on.
update sources set position = %(position)s, new = %(new)s, changed = %(changed)s, unchanged = %(unchanged)s,
    gone = %(gone)s, deleted = %(deleted)s, refused = %(refused)s, read_at = now(), error = null
where name = %(name)s

-- name: end
-- The source was read to its end; only the position of a stream lasts.
update sources set ended_at = now(), position = case when %(lasting)s then position end,
    followed_at = case when %(lasting)s then coalesce(followed_at, now()) end where name = %(name)s

-- name: fail
-- Why a source broke off.
update sources set error = %(error)s where name = %(name)s

-- name: add
-- Adds to the counts of a source; several may read one queue.
insert into sources as s (name, new, changed, unchanged, gone, deleted, refused, irrelevant)
values (%(name)s, %(new)s, %(changed)s, %(unchanged)s, %(gone)s, %(deleted)s, %(refused)s, %(irrelevant)s)
on conflict (name) do update set
    new = s.new + excluded.new, changed = s.changed + excluded.changed, unchanged = s.unchanged + excluded.unchanged,
    gone = s.gone + excluded.gone, deleted = s.deleted + excluded.deleted,
    irrelevant = s.irrelevant + excluded.irrelevant, read_at = now(), error = null,
    refused = (
        select coalesce(jsonb_object_agg(reason, count), '{}') from (
            select reason, sum(count::bigint) as count from (
                select * from jsonb_each_text(s.refused) union all select * from jsonb_each_text(excluded.refused)
            ) as both_sides (reason, count) group by reason) as added)

-- name: list
-- All sources, those that are being read first.
select name, new, changed, unchanged, gone, deleted, refused, irrelevant, position, started_at, read_at, ended_at, error
from sources order by ended_at desc nulls first, started_at
