-- name: missing_roles
-- The roles that somebody with more rights has to make.
select name from unnest(array['lookalike_owner', 'lookalike_app', 'analyst']) as name where to_regrole(name) is null

-- name: may_hand_over
-- Whether we can give the schema, and what we made in it, to its owner.
select pg_has_role(current_user, 'lookalike_owner', 'set')
    and pg_has_role(current_user, (select nspowner from pg_namespace where nspname = 'lookalike'), 'usage')

-- name: hand_over
-- Everything in the schema belongs to lookalike_owner, but what runs when somebody logs in. Indexes and sequences go
-- with their tables.
do $$
declare
    object record;
begin
    if (select nspowner <> 'lookalike_owner'::regrole from pg_namespace where nspname = 'lookalike') then
        alter schema lookalike owner to lookalike_owner;
    end if;
    for object in
        select case relkind when 'v' then 'view' when 'c' then 'type' else 'table' end as kind, oid::regclass::text as name
        from pg_class
        where relnamespace = 'lookalike'::regnamespace and relkind in ('r', 'p', 'v', 'c')
          and relowner <> 'lookalike_owner'::regrole
        union all
        select 'statistics', format('%I.%I', 'lookalike', stxname) from pg_statistic_ext
        where stxnamespace = 'lookalike'::regnamespace and stxowner <> 'lookalike_owner'::regrole
        union all
        select 'function', oid::regprocedure::text from pg_proc
        where pronamespace = 'lookalike'::regnamespace and proowner <> 'lookalike_owner'::regrole
          and prorettype <> 'event_trigger'::regtype
    loop
        execute format('alter %s %s owner to lookalike_owner', object.kind, object.name);
    end loop;
end $$

-- name: hand_over_books
-- So does the list of migrations. Only the owner of the database can allow that, because it is in the schema public.
do $$ begin
    grant create on schema public to lookalike_owner;
    alter table public.schema_migrations owner to lookalike_owner;
exception when insufficient_privilege then
    null;
end $$

-- name: grant_rights
-- What the programs may: read everything and write rows, but for what only migrations write. They make no objects, but
-- through the functions that do. And what analysts may: read results, not how the work is organised.
do $$
declare
    shown record;
begin
    grant usage on schema lookalike to lookalike_app, analyst;
    grant select, insert, update, delete, maintain on all tables in schema lookalike to lookalike_app;
    revoke insert, update, delete on reasons, colour_cells, contract from lookalike_app;
    grant execute on function add_encoder, make_members, drop_members to lookalike_app;
    grant select on public.schema_migrations to lookalike_app;
    alter default privileges for role lookalike_owner in schema lookalike
        grant select, insert, update, delete, maintain on tables to lookalike_app;
    revoke select on workers, unfinished_chunks, sources from analyst;
    for shown in
        select attrelid::regclass as name, string_agg(quote_ident(attname), ', ') as columns from pg_attribute
        where attrelid in ('unfinished_chunks'::regclass, 'sources'::regclass) and attnum > 0 and not attisdropped
          and attname not in ('lease', 'lease_until', 'worker', 'position') group by attrelid
    loop
        execute format('grant select (%s) on %s to analyst', shown.columns, shown.name);
    end loop;
end $$
