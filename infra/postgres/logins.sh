#!/bin/sh
# Gives the programs of docker-compose.yml their logins; Postgres runs it when it sets its data up. Safe to repeat, as on
# data that were set up before: docker compose exec postgres sh /docker-entrypoint-initdb.d/logins.sh
set -eu
psql --set=ON_ERROR_STOP=1 --quiet --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --set=password="$PROGRAMS_PASSWORD" <<'SQL'
select format('create role %I nologin', name)
from unnest(array['lookalike_owner', 'lookalike_app', 'analyst']) as name where to_regrole(name) is null
\gexec
select format('create role %I', name)
from unnest(array['orchestrator', 'worker']) as name where to_regrole(name) is null
\gexec
alter role orchestrator login password :'password';
alter role worker login password :'password';
grant lookalike_app to orchestrator, worker;
-- The orchestrator builds indexes, and for that becomes the owner; at everything else it is a program like the others.
grant lookalike_owner to orchestrator with inherit false, set true;
SQL
