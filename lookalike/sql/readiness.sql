-- name: worker
-- Whether a worker of this host has had a heartbeat lately, and takes what the broker brings. Its name is that of the host with a number.
select exists (
    select from workers
    where regexp_replace(name, '\.\d+$', '') = %(host)s and listening and seen_at > now() - make_interval(secs => 3 * period))

-- name: orchestrator
-- Whether the orchestrator of this host has asked anything lately; it asks ten times a second when it has nothing to do.
select exists (
    select from pg_stat_activity
    where datname = current_database() and application_name = left(%(name)s, 63)
      and state_change > now() - make_interval(secs => %(seconds)s))
