-- migrate:up
set local lock_timeout = '5s';
set search_path to lookalike, public;

alter table encoders
    add leaving_at timestamptz,
    add constraint encoders_leaving check (not active or leaving_at is null);
comment on column encoders.leaving_at is 'Since when it is being taken out of the archive, by `lookalike encoders remove`; nothing uses it any more. Null: it stays.';

create or replace function known_encoder(encoder text) returns text
language plpgsql stable as $$
declare
    found text;
begin
    select name into found from lookalike.encoders
    where name = coalesce(encoder, lookalike.active_encoder()) and leaving_at is null;
    if found is null then
        raise exception 'no encoder %', coalesce(quote_literal(encoder), 'yet') using errcode = 'no_data_found',
            hint = 'There are: ' || coalesce((
                select string_agg(name, ', ' order by name) from lookalike.encoders where leaving_at is null), 'none');
    end if;
    return found;
end $$;

-- migrate:down
set search_path to lookalike, public;
create or replace function known_encoder(encoder text) returns text
language plpgsql stable as $$
declare
    found text;
begin
    select name into found from lookalike.encoders where name = coalesce(encoder, lookalike.active_encoder());
    if found is null then
        raise exception 'no encoder %', coalesce(quote_literal(encoder), 'yet') using errcode = 'no_data_found',
            hint = 'There are: ' || coalesce((select string_agg(name, ', ' order by name) from lookalike.encoders), 'none');
    end if;
    return found;
end $$;
alter table encoders drop constraint encoders_leaving, drop column leaving_at;
