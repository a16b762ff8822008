#!/bin/sh
# Gives the programs of docker-compose.yml their logins; Postgres runs it when it sets its data up. Safe to repeat, as on
# data that were set up before: docker compose exec postgres sh /docker-entrypoint-initdb.d/logins.sh
#
# Their password is PROGRAMS_PASSWORD, or what the file PROGRAMS_PASSWORD_FILE holds.
set -eu
password=${PROGRAMS_PASSWORD:-$(cat "${PROGRAMS_PASSWORD_FILE:-/run/secrets/programs_password}")}
psql --set=ON_ERROR_STOP=1 --quiet --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --set=password="$password" <<'SQL'
select format('create role %I nologin', name)
from unnest(array['lookalike_owner', 'lookalike_app', 'analyst']) as name where to_regrole(name) is null
\gexec
select format('create role %I', name)
from unnest(array['orchestrator', 'worker', 'explorer']) as name where to_regrole(name) is null
\gexec
alter role orchestrator login password :'password';
alter role worker login password :'password';
alter role explorer login password :'password';
grant lookalike_app to orchestrator, worker, explorer;
-- The orchestrator builds indexes, and for that becomes the owner; at everything else it is a program like the others.
grant lookalike_owner to orchestrator with inherit false, set true;
SQL
