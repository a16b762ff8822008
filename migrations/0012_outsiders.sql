-- migrate:up
set search_path to lookalike, public;

alter table images add outside boolean not null default false;
comment on column images.outside is 'Whether its address came from outside: from a document on the web or an event. Workers connect to it only where the guard allows.';
-- Those that are there already: what a document on the web, a manifest in a file, or an awaited one has announced.
update images set outside = true
where source ~* '^https?://' or url ~* '^https?://' and (source ~* '\.json(\.gz)?$' or source = 'awaited manifests');
update deleted_images set image = image || '{"outside": true}'
where image ->> 'source' ~* '^https?://'
   or image ->> 'url' ~* '^https?://' and (image ->> 'source' ~* '\.json(\.gz)?$' or image ->> 'source' = 'awaited manifests');

alter table workers add refused bigint not null default 0;
comment on column workers.refused is 'Messages that it dropped since it was started, because no orchestrator of ours writes such.';

insert into reasons (code, transient, meaning) values
    ('forbidden_address', false, 'an address from outside that leads into a private network; LOOKALIKE_ALLOW_NETWORKS can allow it');
update reasons set meaning = 'more pixels than LOOKALIKE_MAX_PIXELS, or a small file that would take very long'
where code = 'bomb';

-- migrate:down
set search_path to lookalike, public;
update reasons set meaning = 'more pixels than LOOKALIKE_MAX_PIXELS' where code = 'bomb';
delete from failures where reason = 'forbidden_address';
delete from reasons where code = 'forbidden_address';
alter table workers drop column refused;
alter table images drop column outside;
