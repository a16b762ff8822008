-- migrate:up
set search_path to lookalike, public;

-- The contract between the programs and the database ----------------------------------------------------------------------

create table contract (
    version    integer not null check (version > 0),
    since      timestamptz not null default now(),
    only_one   boolean primary key default true check (only_one)
);
comment on table contract is 'Which version of lookalike''s contract this database keeps: programs that keep another one refuse to work. One row.';
comment on column contract.version is 'As CONTRACT in lookalike/contract.py. A migration raises it when older programs must not go on with the new schema.';
comment on column contract.since is 'When a migration raised it last.';
comment on column contract.only_one is 'Always true: there is one row.';
insert into contract (version) values (1);

-- Audits --------------------------------------------------------------------------------------------------------------------

create table audits (
    id         bigint generated always as identity primary key,
    encoder    text not null references encoders,
    whole      boolean not null,
    repairs    boolean not null,
    share      integer not null check (share between 0 and 1048576),
    position   bigint not null,
    last       bigint not null,
    registered bigint not null default 0,
    done       bigint not null default 0,
    failed     bigint not null default 0,
    open       bigint not null default 0,
    lost       bigint not null default 0,
    vectors    bigint not null default 0,
    compared   bigint not null default 0,
    begun_at   timestamptz not null default now(),
    looked_at  timestamptz not null default now(),
    ended_at   timestamptz,
    check (registered = done + failed + open + lost)
);
create index audits_latest on audits (encoder, id desc);
comment on table audits is 'Each `lookalike audit`: how far it has got, and what it counted. It goes through the images in pieces.';
comment on column audits.id is 'Number of the audit.';
comment on column audits.encoder is 'The encoder whose books it proves.';
comment on column audits.whole is 'Whether it compares every vector with its code, or a sample.';
comment on column audits.repairs is 'Whether it repairs what it finds.';
comment on column audits.share is 'How many of 1,048,576 vectors it compares with their codes.';
comment on column audits.position is 'Images up to this id have been looked at: a stopped audit goes on behind it.';
comment on column audits.last is 'The highest id when it was begun; later images are not looked at.';
comment on column audits.registered is 'Images that it has looked at.';
comment on column audits.done is 'Those of them that were done.';
comment on column audits.failed is 'Those that had failed.';
comment on column audits.open is 'Those that were open.';
comment on column audits.lost is 'Those that were none of these.';
comment on column audits.vectors is 'Vectors in the ranges that it has looked at.';
comment on column audits.compared is 'Vectors whose length, numbers, checksum and code it has verified.';
comment on column audits.begun_at is 'When it was begun.';
comment on column audits.looked_at is 'When it looked at its latest piece.';
comment on column audits.ended_at is 'When it came to its end. Null: it is under way, or was stopped.';

create table audit_findings (
    audit    bigint not null references audits on delete cascade,
    fault    text not null,
    found    bigint not null check (found > 0),
    repaired bigint not null default 0 check (repaired between 0 and found),
    examples bigint[] not null default '{}',
    primary key (audit, fault)
);
comment on table audit_findings is 'What an audit found that must not be; an audit without a row here found the books sound.';
comment on column audit_findings.audit is 'The audit.';
comment on column audit_findings.fault is 'What is wrong: the names are those of lookalike/faults.py.';
comment on column audit_findings.found is 'How often it was found.';
comment on column audit_findings.repaired is 'How many of these the audit repaired.';
comment on column audit_findings.examples is 'Ids of the first twenty: of images, or of chunks whose lease ran out.';

grant select on contract, audits, audit_findings to analyst;

-- migrate:down
set search_path to lookalike, public;
drop table audit_findings, audits, contract;
