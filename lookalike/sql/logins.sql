-- name: is_known
-- Whether there is such a role.
select to_regrole(quote_ident(%(name)s)) is not null

-- name: create
-- A role that has no rights yet.
create role {login}

-- name: set_password
-- It may log in with the password that this is the verifier of.
alter role {login} login password {verifier}

-- name: join_programs
-- It is a program: it reads everything and writes rows.
grant lookalike_app to {login}

-- name: become_owner
-- The orchestrator builds indexes, and for that becomes the owner; at everything else it is a program like the others.
grant lookalike_owner to {login} with inherit false, set true

-- name: join_analysts
-- It reads results.
grant analyst to {login}

-- name: find_schema
-- Settings of a role are not handed down to the logins in it, and no other than a superuser can have it done at login.
alter role {login} set search_path = lookalike, public

-- name: limit_time
-- No query of an analyst runs for ever.
alter role {login} set statement_timeout = '60s'
