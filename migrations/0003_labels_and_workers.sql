-- migrate:up
set search_path to lookalike, public;

create table labels (
    encoder     text not null references encoders,
    image_id    bigint not null references images,
    rank        smallint not null check (rank between 1 and 5),
    label       text not null,
    probability real not null check (probability between 0 and 1),
    primary key (encoder, image_id, rank)
);
comment on table labels is 'The five most probable classes of each image, from encoders that have a classifier.';
comment on column labels.label is 'Name of an ImageNet class, as torchvision writes it.';
create index labels_label on labels (label, probability desc);
grant select on labels to analyst;

-- Rewritten by every heartbeat: rows stay in their page.
create table workers (
    name         text primary key,
    encoder      text not null references encoders,
    device       text not null,
    batch_size   integer not null,
    started_at   timestamptz not null,
    seen_at      timestamptz not null default now(),
    period       real not null,
    images       bigint not null,
    seconds      real not null,
    fetch_busy        real not null,
    decode_busy       real not null,
    encode_busy       real not null,
    store_busy        real not null,
    batch_fill   real not null
) with (fillfactor = 50);
comment on table workers is 'What each worker said of itself with its last heartbeats.';
comment on column workers.period is 'Seconds from one heartbeat to the next.';
comment on column workers.images is 'Images that it encoded between its last two heartbeats.';
comment on column workers.seconds is 'Time between its last two heartbeats, in seconds; the shares are about it.';
comment on column workers.fetch_busy is 'Share of that time, 0..1, that its fetching threads were busy; the others likewise.';
comment on column workers.batch_fill is 'Mean size of its batches, as a share of the full batch.';
grant select on workers to analyst;

-- migrate:down
drop table lookalike.workers, lookalike.labels;
