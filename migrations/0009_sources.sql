-- migrate:up
set search_path to lookalike, public;

-- When an image was seen so, and what was deleted ------------------------------------------------------------------------

alter table images add as_of timestamptz;
comment on column images.as_of is 'When its source saw it so, where the source can tell: an older announcement changes nothing.';

create table deleted_images (
    key        text primary key check (key <> ''),
    url        text,
    content    text,
    as_of      timestamptz not null default now(),
    by_hand    boolean not null default false,
    deleted_at timestamptz not null default now(),
    image      jsonb
);
comment on table deleted_images is 'Images that were deleted. An announcement from before does not bring them back; `lookalike restore` forgets the deletion.';
comment on column deleted_images.key is 'The key that the image had.';
comment on column deleted_images.url is 'The address that is gone; announced with another one, it is an image. Null: gone whatever its address.';
comment on column deleted_images.content is 'What was known of its content: announced with another one, it is a new image.';
comment on column deleted_images.as_of is 'When it was gone, as its source says: what was seen later brings it back.';
comment on column deleted_images.by_hand is 'Whether somebody deleted it with `lookalike delete`: then no source brings it back.';
comment on column deleted_images.deleted_at is 'When lookalike deleted it.';
comment on column deleted_images.image is 'What was known of it, to bring it back. Null: it was deleted before it was registered.';

-- What a deletion looks up; without them it would read these tables as a whole.
create index unwanted_images_nearest on unwanted_images (nearest_id);
create index duplicate_groups_representative on duplicate_groups (representative_id);

-- How far each source has been read --------------------------------------------------------------------------------------

create table sources (
    name       text primary key check (name <> ''),
    position   jsonb,
    new        bigint not null default 0,
    changed    bigint not null default 0,
    unchanged  bigint not null default 0,
    gone       bigint not null default 0,
    deleted    bigint not null default 0,
    refused    jsonb not null default '{}',
    started_at timestamptz not null default now(),
    read_at    timestamptz not null default now(),
    ended_at   timestamptz,
    followed_at timestamptz,
    error      text
);
comment on table sources is 'What each source has announced since it was begun last, and how far it has been read.';
comment on column sources.name is 'The source, as it was given, without passwords.';
comment on column sources.position is 'Where it is read on, in words of its kind; committed with the images before it. Null: from the beginning.';
comment on column sources.new is 'Images that were registered.';
comment on column sources.changed is 'Images of which it said something new.';
comment on column sources.unchanged is 'Images of which it said nothing new.';
comment on column sources.gone is 'Images that were not brought back, because they were deleted later than it saw them.';
comment on column sources.deleted is 'Images that it said are gone.';
comment on column sources.refused is 'Records that were refused, by reason.';
comment on column sources.started_at is 'When it was begun.';
comment on column sources.read_at is 'When something was read from it last.';
comment on column sources.ended_at is 'When it was read to its end. Null: not yet, `lookalike add` goes on from its position.';
comment on column sources.followed_at is 'When a stream was read to its end first: what it brings since then goes ahead of backfills.';
comment on column sources.error is 'Why it broke off. Null: it did not.';
grant select on deleted_images, sources to analyst;

-- Reasons -----------------------------------------------------------------------------------------------------------------

insert into reasons (code, transient, meaning) values
    ('not_open', false, 'access to the image is not open (closed, restricted, by appointment and the like)'),
    ('unknown_event', false, 'the message is of no known kind, or cannot be read'),
    ('missing_manifest', false, 'the manifest that an event named did not appear in time');

-- migrate:down
set search_path to lookalike, public;
delete from reasons where code in ('not_open', 'unknown_event', 'missing_manifest');
drop table sources, deleted_images;
drop index unwanted_images_nearest, duplicate_groups_representative;
alter table images drop column as_of;
