-- migrate:up
set search_path to lookalike, public;

-- Roles: lookalike_owner owns the schema and migrates it, lookalike_app is what the programs are, analyst reads. They have
-- no logins; who works for lookalike gets a login of their own `in role …`. What each may do is settled after every
-- migration, by lookalike/rights.py.
do $$
declare
    name text;
begin
    foreach name in array array['lookalike_owner', 'lookalike_app', 'analyst'] loop
        if to_regrole(name) is null then
            begin
                execute format('create role %I nologin', name);
            exception
                -- Another database of this server is being migrated at the same time.
                when duplicate_object or unique_violation then null;
                when insufficient_privilege then
                    raise notice 'role %: ask somebody who may for `create role % nologin`, then run `lookalike migrate` again', name, name;
            end;
        end if;
    end loop;
    -- Whoever made a role may hand it out; to hand objects over to it one must be in it.
    if to_regrole('lookalike_owner') is not null and not pg_has_role(current_user, 'lookalike_owner', 'set') then
        execute format('grant lookalike_owner to %I', current_user);
    end if;
exception when insufficient_privilege then
    raise notice 'role lookalike_owner: % cannot be made a member of it', current_user;
end $$;

-- What programs make at run time they make through functions that act as the owner of the schema. Their search_path is
-- fixed, with temporary objects last, and names are quoted.

create or replace function add_encoder(name text, dimension integer, distance text) returns void
language sql security definer
set search_path = lookalike, public, pg_temp
as $$
    select lookalike.make_encoder(name, dimension, distance);
    select lookalike.make_nearest(name);
    select lookalike.describe_vectors(name);
$$;

create function members_table(of text, analysis bigint) returns text
language plpgsql immutable as $$
begin
    if of is null or analysis is null or of not in ('images', 'works') then
        raise exception 'clusters are of images or works, not of %', coalesce(of, 'null') using errcode = 'invalid_parameter_value';
    end if;
    return format('clustered_%s_%s', of, analysis);
end $$;
comment on function members_table is 'The name of the table that holds the members of a clustering.';

create function make_members(of text, analysis bigint) returns void
language plpgsql security definer
set search_path = lookalike, public, pg_temp
as $$
declare
    part text := lookalike.members_table(of, analysis);
begin
    -- In two steps, because the second one does not wait for those who read.
    execute format('create table lookalike.%I (like lookalike.%I including all)', part, 'clustered_' || of);
    execute format('alter table lookalike.%I attach partition lookalike.%I for values in (%s)', 'clustered_' || of, part, analysis);
end $$;
comment on function make_members is 'Makes the table that holds the members of a clustering.';

create function drop_members(of text, analysis bigint) returns void
language plpgsql security definer
set search_path = lookalike, public, pg_temp
as $$
begin
    execute format('drop table lookalike.%I', lookalike.members_table(of, analysis));
end $$;
comment on function drop_members is 'Drops the members of an old clustering, all at once.';

revoke execute on function add_encoder, make_encoder, make_nearest, describe_vectors, make_members, drop_members from public;

-- Settings of a role are not handed down to the logins in it: this gives them to analysts when they log in. A login with
-- settings of its own keeps them. Owned by the superuser who migrates, and never handed over: it runs as whoever logs in.
create function greet_analyst() returns event_trigger
language plpgsql as $$
begin
    if pg_catalog.pg_has_role(session_user, pg_catalog.to_regrole('analyst'), 'member')
       and not (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = session_user) then
        perform pg_catalog.set_config(s.name, t.value, false)
        from (values ('search_path', 'lookalike, public'), ('statement_timeout', '60s')) as t (name, value)
        join pg_catalog.pg_settings s on s.name = t.name
        where s.source not in ('user', 'database user', 'client');
    end if;
end $$;
comment on function greet_analyst is 'Gives a login in the role analyst its search_path and statement_timeout, unless it has its own.';
do $$ begin
    create event trigger lookalike_analysts on login execute function lookalike.greet_analyst();
exception when insufficient_privilege then
    raise notice 'only a superuser may have this done for analysts: give each login its search_path and statement_timeout';
end $$;

-- migrate:down
do $$ begin
    raise exception 'objects belong to lookalike_owner: restore a backup from before instead';
end $$;
