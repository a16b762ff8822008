-- migrate:up
set local lock_timeout = '5s';
set search_path to lookalike, public;

create table removed_encoders (
    name       text primary key,
    removed_at timestamptz not null default now()
);
comment on table removed_encoders is 'Encoders that were taken out: a program that was forgotten, and starts with one, does not have all images embedded by it again. `lookalike encoders add` forgets the removal.';
comment on column removed_encoders.name is 'The encoder.';
comment on column removed_encoders.removed_at is 'When the last of it went.';
grant select on removed_encoders to analyst;

-- migrate:down
set search_path to lookalike, public;
drop table removed_encoders;
