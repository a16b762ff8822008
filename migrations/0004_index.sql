-- migrate:up
set search_path to lookalike, public;

create table index_checks (
    id         bigint generated always as identity primary key,
    encoder    text not null references encoders,
    checked_at timestamptz not null default now(),
    vectors    bigint not null,
    indexed    boolean not null,
    candidates real not null,
    queries    integer not null,
    recall_1   real not null,
    recall_10  real not null,
    recall_100 real not null,
    poor       real not null,
    p50_ms     real not null,
    p95_ms     real not null
);
comment on table index_checks is 'What searches find of what an exact comparison finds: one row for each `lookalike index check`.';
comment on column index_checks.recall_10 is 'Share of the true ten nearest neighbours that a search of ten finds, mean over the queries.';
comment on column index_checks.poor is 'Share of queries that find less than half of their true ten nearest neighbours.';
create index index_checks_latest on index_checks (encoder, checked_at desc);
grant select on index_checks to analyst;

create index images_licence on images (licence) where licence is not null;

-- migrate:down
set search_path to lookalike, public;
drop index images_licence;
drop table index_checks;
