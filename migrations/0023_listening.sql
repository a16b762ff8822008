-- migrate:up
set local lock_timeout = '5s';
set search_path to lookalike, public;

alter table workers add listening boolean not null default true;
comment on column workers.listening is 'Whether it had its connection to the broker, by which chunks come; without it the worker is not ready.';

-- migrate:down
set search_path to lookalike, public;
alter table workers drop column listening;
