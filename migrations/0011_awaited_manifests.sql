-- migrate:up
set search_path to lookalike, public;

create table awaited_manifests (
    address     text primary key check (address <> ''),
    identifier  text not null,
    version     text,
    as_of       timestamptz not null,
    outside     boolean not null default false,
    promised_at timestamptz not null default now(),
    tries       integer not null default 0 check (tries >= 0),
    not_before  timestamptz not null default now(),
    asked_at    timestamptz,
    failed_at   timestamptz,
    reason      text references reasons,
    detail      text not null default '',
    constraint awaited_manifests_failed check (failed_at is null or reason is not null)
);
comment on table awaited_manifests is 'IIIF manifests that an event has promised and that could not be read yet; `lookalike retry --manifests` tries failed ones again.';
comment on column awaited_manifests.address is 'Where it will be.';
comment on column awaited_manifests.identifier is 'What it shows, as the archive names it (a bag, a book).';
comment on column awaited_manifests.version is 'The version of the bag: its images are embedded again when it changes. Null: the event did not say.';
comment on column awaited_manifests.as_of is 'When the event was sent. Of several events the latest counts.';
comment on column awaited_manifests.outside is 'Whether the address came from outside, as from a stream of changes: it leads only where the guard allows.';
comment on column awaited_manifests.promised_at is 'When the waiting began.';
comment on column awaited_manifests.tries is 'How often it has been asked for since then.';
comment on column awaited_manifests.not_before is 'When it is asked for next.';
comment on column awaited_manifests.asked_at is 'When it was asked for last.';
comment on column awaited_manifests.failed_at is 'When it was given up. Null: it is waited for.';
comment on column awaited_manifests.reason is 'Why it could not be read the last time.';
comment on column awaited_manifests.detail is 'The same in words.';
create index awaited_manifests_due on awaited_manifests (not_before) where failed_at is null;
grant select on awaited_manifests to analyst;

alter table sources add irrelevant bigint not null default 0;
comment on column sources.irrelevant is 'Messages of a queue that say nothing of images.';

-- migrate:down
set search_path to lookalike, public;
drop table awaited_manifests;
alter table sources drop column irrelevant;
