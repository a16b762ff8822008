-- migrate:up
set local lock_timeout = '5s';
set search_path to lookalike, public;

-- Manifests of collections, catalogues and snapshots are awaited as well, where their hosts fail for the moment.
alter table awaited_manifests
    alter as_of drop not null,
    add whole boolean not null default true,
    add moved_from text,
    add described jsonb not null default '{}' check (jsonb_typeof(described) = 'object'),
    add source text;
comment on table awaited_manifests is 'IIIF manifests that an event has promised, or that a source names and whose host failed for the moment; `lookalike retry --manifests` tries failed ones again.';
comment on column awaited_manifests.as_of is 'When the event was sent; of several the latest counts. Null: the source cannot tell when it saw the manifest.';
comment on column awaited_manifests.whole is 'Whether images that it no longer shows are gone: it is all that there is of its work.';
comment on column awaited_manifests.moved_from is 'Where it was before: what is left under that address is gone, too. Null: it has not moved.';
comment on column awaited_manifests.described is 'What a catalogue says of all its images: work, title, licence, access, credit.';
comment on column awaited_manifests.source is 'Under which its images are filed. Null: it was an event.';

insert into reasons (code, transient, meaning) values
    ('foreign_deletion', false, 'a stream of changes says that images are gone which neither it nor its host has announced');

create function host_of(address text) returns text language sql immutable parallel safe
return lower(substring(address from '(?i)^https?://(?:[^/?#@]*@)?([^/?#]+)'));
comment on function host_of is 'Host and port of an http(s) address, as it writes them; null where it is none.';

create function is_own(announced_by text, work text, source text) returns boolean language sql immutable parallel safe
return coalesce(announced_by = source, false)
    or coalesce(host_of(source) in (host_of(announced_by), host_of(work)), false);
comment on function is_own is 'Whether a source has announced an image first, or its host has: it may say that the image is gone.';

-- Programs of before would take a manifest of a collection for all of its work, and delete the rest of it.
update contract set version = 2, since = now();

-- migrate:down
set search_path to lookalike, public;
update contract set version = 1, since = now();
drop function is_own;
drop function host_of;
delete from failures where reason = 'foreign_deletion';
delete from reasons where code = 'foreign_deletion';
update awaited_manifests set as_of = promised_at where as_of is null;
alter table awaited_manifests
    alter as_of set not null, drop whole, drop moved_from, drop described, drop source;
