-- migrate:up
set search_path to lookalike, public;

alter table chunks add waiting_since timestamptz, add postponed integer not null default 0 check (postponed >= 0);
comment on column chunks.waiting_since is 'Since when its images were sent away because their host refuses all requests. Null: it does not.';
comment on column chunks.postponed is 'How many of its images were not asked for when it was finished, and went on to later chunks.';

-- migrate:down
set search_path to lookalike, public;
alter table chunks drop column waiting_since, drop column postponed;
