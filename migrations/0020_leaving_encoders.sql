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

-- How frequent words of titles are, for the planner: of a partial index, which there is, it takes no statistics.
create statistics images_title_words on (to_tsvector('simple', title)) from images;
comment on statistics images_title_words is 'How frequent words of titles are: a search for words chooses its road by it.';

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
drop statistics images_title_words;
