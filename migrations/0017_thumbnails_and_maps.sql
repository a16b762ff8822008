-- migrate:up
set local lock_timeout = '5s';
set search_path to lookalike, public;

-- Thumbnails ----------------------------------------------------------------------------------------------------------------

create function is_open(access text) returns boolean
language sql immutable parallel safe
return access is null or access ~* '^\s*(open|public|free|unrestricted)';
comment on function is_open is 'Whether what the catalogue says of access lets pictures be kept and shown: open, public, free, unrestricted, also with more words behind it, or nothing at all. Everything else is taken to be closed.';

create table thumbnails (
    image_id  bigint primary key references images,
    revision  integer not null,
    place     text,
    name      text,
    jpeg      bytea,
    stored_at timestamptz not null default now(),
    check ((place is null) = (name is null) and (place is null) = (jpeg is not null))
);
-- JPEG does not become smaller.
alter table thumbnails alter jpeg set storage external;
comment on table thumbnails is 'A small cache of pictures for the explorer, made while embedding; see LOOKALIKE_THUMBNAILS. It can be emptied at any time: `lookalike thumbnails make` fills it again.';
comment on column thumbnails.image_id is 'The image.';
comment on column thumbnails.revision is 'The revision of the image that it was made from.';
comment on column thumbnails.place is 'The folder or bucket that holds the file. Null: the file is in jpeg.';
comment on column thumbnails.name is 'The name of the file in its place; no other thumbnail ever has the same.';
comment on column thumbnails.jpeg is 'The file.';
comment on column thumbnails.stored_at is 'When it was stored.';

create function thumbnail_of(image bigint) returns integer
language sql stable parallel safe
return (select t.revision from lookalike.thumbnails t where t.image_id = image);
comment on function thumbnail_of is 'The revision that the thumbnail of an image was made from; null where it has none.';

create table thumbnail_leftovers (
    place  text not null,
    name   text not null,
    due_at timestamptz not null default now(),
    primary key (place, name)
);
create index thumbnail_leftovers_due on thumbnail_leftovers (place, due_at);
comment on table thumbnail_leftovers is 'Files of thumbnails that nothing refers to, or not yet: whoever has access to their place deletes those that are due.';
comment on column thumbnail_leftovers.place is 'The folder or bucket.';
comment on column thumbnail_leftovers.name is 'The name of the file there.';
comment on column thumbnail_leftovers.due_at is 'From when on it is to be deleted. A file that is being written is due an hour later, unless it is a thumbnail by then.';

create function leave_thumbnail() returns trigger
language plpgsql as $$
begin
    insert into lookalike.thumbnail_leftovers (place, name) values (old.place, old.name) on conflict do nothing;
    return null;
end $$;
comment on function leave_thumbnail is 'Remembers the file of a thumbnail that goes or is replaced, so that it gets deleted as well.';
create trigger thumbnail_goes after delete on thumbnails
for each row when (old.place is not null) execute function leave_thumbnail();
create trigger thumbnail_is_replaced after update on thumbnails
for each row when (old.place is not null and (old.place, old.name) is distinct from (new.place, new.name))
execute function leave_thumbnail();

create function drop_thumbnail() returns trigger
language plpgsql as $$
begin
    delete from lookalike.thumbnails where image_id = new.id;
    return null;
end $$;
comment on function drop_thumbnail is 'Takes away the thumbnail of an image that is closed by now, or that an image service shows.';
create trigger image_is_closed after update of access, protocol on images
for each row when (
    (old.access, old.protocol) is distinct from (new.access, new.protocol)
    and not (is_open(new.access) and new.protocol = 'file'))
execute function drop_thumbnail();

alter table workers add thumbnails_missed bigint not null default 0;
comment on column workers.thumbnails_missed is 'Thumbnails that it could not make or store since it started; the images themselves are not affected.';

-- Maps ----------------------------------------------------------------------------------------------------------------------

create table maps (
    id       bigint generated always as identity primary key,
    encoder  text not null unique references encoders,
    method   text not null,
    seed     integer not null,
    images   integer not null check (images > 0),
    made_at  timestamptz not null default now()
);
comment on table maps is 'The map of each encoder: a sample of its images laid out in the plane so that look-alikes are near each other.';
comment on column maps.id is 'Number of the map; one that is made anew gets another.';
comment on column maps.encoder is 'The encoder whose vectors were projected.';
comment on column maps.method is 'How: tsne, or pca where there are too few images for it.';
comment on column maps.seed is 'Seed of the sample and of the projection.';
comment on column maps.images is 'How many images were laid out.';
comment on column maps.made_at is 'When. Images that were embedded later are not on it.';

create table map_points (
    map      bigint not null references maps on delete cascade,
    image_id bigint not null references images,
    x        real not null check (x between 0 and 1),
    y        real not null check (y between 0 and 1),
    primary key (map, image_id)
);
create index map_points_image on map_points (image_id);
comment on table map_points is 'Where each image of a map is.';
comment on column map_points.map is 'The map.';
comment on column map_points.image_id is 'The image.';
comment on column map_points.x is 'From left to right, 0..1.';
comment on column map_points.y is 'From top to bottom, 0..1.';

grant select on maps, map_points to analyst;

-- migrate:down
set search_path to lookalike, public;
drop table map_points, maps;
alter table workers drop column thumbnails_missed;
drop trigger image_is_closed on images;
drop function thumbnail_of;
drop table thumbnails, thumbnail_leftovers;
drop function drop_thumbnail, leave_thumbnail, is_open;
