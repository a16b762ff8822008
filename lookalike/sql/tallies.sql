-- name: count
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
