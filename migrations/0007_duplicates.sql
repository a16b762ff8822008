-- migrate:up
set search_path to lookalike, public;

-- Near-duplicates: pairs of images within a threshold, and the groups that they link --------------------------------------

create table duplicate_pairs (
    encoder  text not null references encoders,
    a        bigint not null references images,
    b        bigint not null references images,
    distance real not null check (distance between 0 and 1),
    likeness real check (likeness between -1 and 1),
    turn     text not null default 'upright',
    found_at timestamptz not null default now(),
    primary key (encoder, a, b),
    check (a < b),
    check (turn in ('upright', 'rotated 90', 'rotated 180', 'rotated 270', 'mirrored', 'mirrored, rotated 90',
                    'mirrored, rotated 180', 'mirrored, rotated 270'))
);
create index duplicate_pairs_b on duplicate_pairs (encoder, b);
comment on table duplicate_pairs is 'Pairs of images within the threshold of the search for near-duplicates; `copies` shows them by their keys.';
comment on column duplicate_pairs.encoder is 'The encoder whose vectors were compared.';
comment on column duplicate_pairs.a is 'The image that was registered earlier, by its id.';
comment on column duplicate_pairs.b is 'The image that was registered later, by its id.';
comment on column duplicate_pairs.distance is 'Their distance, 0..1, once a is turned.';
comment on column duplicate_pairs.likeness is 'How well their miniatures match, up to 1, the one a crop of the other or not. Null: one has no miniature.';
comment on column duplicate_pairs.turn is 'How a has to be turned to look like b: upright is not at all; degrees are clockwise, after mirroring.';
comment on column duplicate_pairs.found_at is 'When the pair was found; it is looked for again when one of the images changes.';

create table duplicate_groups (
    id                bigint generated always as identity primary key,
    encoder           text not null references encoders,
    size              integer not null default 0,
    representative_id bigint references images
);
create index duplicate_groups_size on duplicate_groups (encoder, size desc, id);
comment on table duplicate_groups is 'Groups of near-duplicates: images that pairs link, directly or through others.';
comment on column duplicate_groups.id is 'Number of the group; it stays while images join, and goes when two groups become one.';
comment on column duplicate_groups.encoder is 'The encoder whose vectors were compared.';
comment on column duplicate_groups.size is 'How many images it has.';
comment on column duplicate_groups.representative_id is 'The image that most others are near-duplicates of; the nearest to them, then the earliest, of several.';

create table duplicate_members (
    encoder  text not null references encoders,
    image_id bigint not null references images,
    group_id bigint not null references duplicate_groups,
    nearest  real,
    primary key (encoder, image_id)
);
create index duplicate_members_group on duplicate_members (group_id);
comment on table duplicate_members is 'Which group of near-duplicates an image is in; `duplicates` shows it by keys.';
comment on column duplicate_members.encoder is 'The encoder whose vectors were compared.';
comment on column duplicate_members.image_id is 'The image.';
comment on column duplicate_members.group_id is 'Its group.';
comment on column duplicate_members.nearest is 'Distance to the nearest other image of the group, 0..1. Null: only people say that it belongs there.';

create table marked_pairs (
    a         bigint not null references images,
    b         bigint not null references images,
    same      boolean not null,
    marked_by text not null,
    marked_at timestamptz not null default now(),
    primary key (a, b),
    check (a < b)
);
create index marked_pairs_b on marked_pairs (b);
comment on table marked_pairs is 'What people say of pairs of images: the same picture or not. Thresholds are learned from them.';
comment on column marked_pairs.a is 'The image that was registered earlier, by its id.';
comment on column marked_pairs.b is 'The image that was registered later, by its id.';
comment on column marked_pairs.same is 'True: two images of the same picture. False: different pictures, which are never paired again.';
comment on column marked_pairs.marked_by is 'Who said so.';
comment on column marked_pairs.marked_at is 'When.';

create table duplicate_thresholds (
    encoder    text primary key references encoders,
    threshold  real not null check (threshold between 0 and 1),
    likeness   real not null check (likeness between -1 and 1),
    precision  real not null check (precision between 0 and 1),
    recall     real not null check (recall between 0 and 1),
    pairs      integer not null,
    learned_at timestamptz not null default now()
);
comment on table duplicate_thresholds is 'The distance and likeness from which on images count as near-duplicates, learned from marked pairs.';
comment on column duplicate_thresholds.encoder is 'The encoder; every one has a threshold of its own.';
comment on column duplicate_thresholds.threshold is 'Largest distance, 0..1.';
comment on column duplicate_thresholds.likeness is 'Least likeness of the miniatures, up to 1.';
comment on column duplicate_thresholds.precision is 'Of the marked pairs that pass both, the share that is the same picture.';
comment on column duplicate_thresholds.recall is 'Of the marked pairs that are the same picture, the share that passes both.';
comment on column duplicate_thresholds.pairs is 'How many marked pairs it was learned from.';
comment on column duplicate_thresholds.learned_at is 'When.';

create view copies as
    select i.key as image, c.key as copy, p.distance, p.likeness, p.turn, p.encoder
    from duplicate_pairs p join images i on i.id = p.a join images c on c.id = p.b;
comment on view copies is 'Pairs of near-duplicates: select * from copies where ''KEY'' in (image, copy) order by distance.';
comment on column copies.image is 'The image that was registered earlier.';
comment on column copies.copy is 'The image that was registered later.';
comment on column copies.distance is 'Their distance, 0..1, once the image is turned.';
comment on column copies.likeness is 'How well their miniatures match, up to 1.';
comment on column copies.turn is 'How the image has to be turned to look like the copy: upright is not at all.';
comment on column copies.encoder is 'The encoder whose vectors were compared.';

create view duplicates as
    select g.encoder, g.id as "group", g.size, i.key as image, i.id = g.representative_id as representative,
        m.nearest as distance, i.work, i.title, i.licence, i.url
    from duplicate_members m join duplicate_groups g on g.id = m.group_id join images i on i.id = m.image_id;
comment on view duplicates is 'Groups of near-duplicates, an image in each row: select * from duplicates order by "group", distance.';
comment on column duplicates.encoder is 'The encoder whose vectors were compared.';
comment on column duplicates."group" is 'Number of the group.';
comment on column duplicates.size is 'How many images the group has.';
comment on column duplicates.image is 'The key of the image.';
comment on column duplicates.representative is 'Whether it stands for the group.';
comment on column duplicates.distance is 'Distance to the nearest other image of the group, 0..1.';
comment on column duplicates.work is 'The work that the image belongs to.';
comment on column duplicates.title is 'Its title.';
comment on column duplicates.licence is 'Its licence.';
comment on column duplicates.url is 'Where it is fetched from.';

grant select on duplicate_pairs, duplicate_groups, duplicate_members, marked_pairs, duplicate_thresholds, copies, duplicates
    to analyst;

-- migrate:down
set search_path to lookalike, public;
drop view duplicates, copies;
drop table duplicate_thresholds, marked_pairs, duplicate_members, duplicate_groups, duplicate_pairs;
