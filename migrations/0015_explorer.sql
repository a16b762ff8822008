-- migrate:up
set local lock_timeout = '5s';
set search_path to lookalike, public;

-- Whom a picture is to be credited to ------------------------------------------------------------------------------------

alter table images add credit text;
comment on column images.credit is 'Whom to name where the picture is shown, as the source says it. Null: it does not say.';

-- What images and pairs are found by is in concurrently/indexes.sql: forty million rows are not indexed under a lock.

-- Decisions ---------------------------------------------------------------------------------------------------------------

create table decisions (
    id         bigint generated always as identity primary key,
    kind       text not null check (kind in ('pair', 'unwanted', 'name', 'retry')),
    subject    text[] not null check (cardinality(subject) > 0),
    verdict    text not null,
    decided_by text not null check (decided_by <> ''),
    decided_at timestamptz not null default now(),
    before     jsonb not null default '{}',
    undone_by  text,
    undone_at  timestamptz,
    check ((undone_by is null) = (undone_at is null))
);
create index decisions_subject on decisions (kind, subject, id desc) where undone_at is null;
comment on table decisions is 'What people decided in the explorer, in its order, with what is needed to take it back. What holds is in marked_pairs, unwanted_images and cluster_identities.';
comment on column decisions.id is 'Number of the decision.';
comment on column decisions.kind is 'pair: whether two images are the same picture. unwanted: whether an image is. name: of a cluster. retry: of failures.';
comment on column decisions.subject is 'What it is about: keys of images, the number of a cluster, or an encoder.';
comment on column decisions.verdict is 'same, different; unwanted, fine; the name; or what was to be tried again.';
comment on column decisions.decided_by is 'Who decided.';
comment on column decisions.decided_at is 'When.';
comment on column decisions.before is 'What held before, to be restored.';
comment on column decisions.undone_by is 'Who took it back. Null: it holds.';
comment on column decisions.undone_at is 'When it was taken back.';
grant select on decisions to analyst;

-- migrate:down
set search_path to lookalike, public;
drop table decisions;
drop index if exists duplicate_pairs_nearest, images_title_words, images_key_beginning;
alter table images drop column credit;
