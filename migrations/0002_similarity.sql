-- migrate:up
set search_path to lookalike, public;

create type neighbour as (
    rank integer, image text, distance real, work text, title text, licence text, url text
);

create function active_encoder() returns text
language sql stable as $$ select name from lookalike.encoders where active $$;
comment on function active_encoder is 'The encoder that searches use unless they name another.';

create function as_distance(cosine double precision, form text) returns real
language sql immutable parallel safe as $$
    select case form when 'clamped' then least(1, greatest(0, cosine)) else cosine / 2 end::real
$$;
comment on function as_distance is 'A distance in 0..1 from pgvector''s cosine distance, in the form that the encoder states.';

-- The best candidates by Hamming distance on the codes, then exact cosine distance on their vectors.
create function neighbours_of(q halfvec, code varbit, self bigint, k integer, max_distance real, encoder text)
returns setof neighbour
language plpgsql stable as $$
declare
    e lookalike.encoders;
    candidates integer := greatest(400, 20 * k);
begin
    if k is null or k not between 1 and 1000 then
        raise exception 'k must be between 1 and 1000, not %', k using errcode = 'invalid_parameter_value';
    end if;
    select * into strict e from lookalike.encoders where name = encoder;
    return query execute format($f$
        with candidates as materialized (
            select image_id, v from lookalike.%1$I
            where image_id <> $3
            order by code <~> $2::bit(%2$s) limit $4
        ), measured as (
            select image_id, lookalike.as_distance(v <=> $1, %3$L) as distance from candidates
        ), nearest as (
            select row_number() over (order by m.distance, i.key) as rank, i.*, m.distance
            from measured m join lookalike.images i on i.id = m.image_id
            where $5 is null or m.distance <= $5
        )
        select rank::integer, key, distance, work, title, licence, url from nearest where rank <= $6 order by rank
    $f$, e.vectors, e.dimension, e.distance) using q, code, self, candidates, max_distance, k;
end $$;

create function known_encoder(encoder text) returns text
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

create function vector_of(image text, encoder text default null) returns halfvec
language plpgsql stable as $$
declare
    found halfvec;
    chosen text := lookalike.known_encoder(encoder);
begin
    execute format('select v from lookalike.images i join lookalike.%I t on t.image_id = i.id where i.key = $1',
        (select vectors from lookalike.encoders where name = chosen)) into found using image;
    if found is null then
        raise exception 'no vector of % for image %', chosen, quote_literal(image) using errcode = 'no_data_found',
            hint = case when exists (select from lookalike.images where key = image)
                then 'It is registered: it waits to be embedded, or see lookalike.failures.'
                else 'No image has this key: see lookalike.images.' end;
    end if;
    return found;
end $$;
comment on function vector_of is 'The vector of an image, of unit length.';

create function similar(
    image text, k integer default 10, max_distance double precision default null, encoder text default null
) returns setof neighbour
language plpgsql stable as $$
declare
    chosen text := lookalike.known_encoder(encoder);
    q halfvec := lookalike.vector_of(image, chosen);
    self bigint;
    code varbit;
begin
    execute format('select i.id, t.code from lookalike.images i join lookalike.%I t on t.image_id = i.id where i.key = $1',
        (select vectors from lookalike.encoders where name = chosen)) into self, code using image;
    return query select * from lookalike.neighbours_of(q, code, self, k, max_distance::real, chosen);
end $$;
comment on function similar is 'The k images most like this one: select * from similar(''KEY'', 20). Distance 0 is the same picture, 1 nothing in common.';

create function nearest(
    query double precision[], k integer default 10, max_distance double precision default null, encoder text default null
) returns setof neighbour
language plpgsql stable as $$
declare
    chosen text := lookalike.known_encoder(encoder);
    size integer := (select dimension from lookalike.encoders where name = chosen);
    q halfvec;
begin
    if coalesce(cardinality(query), 0) <> size then
        raise exception 'the query has % numbers, % needs %', coalesce(cardinality(query), 0), chosen, size
            using errcode = 'invalid_parameter_value';
    end if;
    if 'NaN' = any(query) or 'Infinity' = any(query) or '-Infinity' = any(query) or 0 = all(query) then
        raise exception 'the query has no direction: it holds NaN or infinity, or is all zero'
            using errcode = 'invalid_parameter_value';
    end if;
    q := l2_normalize(query::vector)::halfvec;
    return query select * from lookalike.neighbours_of(q, lookalike.code_of(q, chosen), 0, k, max_distance::real, chosen);
end $$;
comment on function nearest is 'The k images nearest to a vector from outside, of any length; the encoder must be the one that made it.';

create function distance(a text, b text, encoder text default null) returns real
language sql stable as $$
    select lookalike.as_distance(
        lookalike.vector_of(a, encoder) <=> lookalike.vector_of(b, encoder),
        (select e.distance from lookalike.encoders e where e.name = lookalike.known_encoder(encoder)))
$$;
comment on function distance is 'The distance of two images: 0 the same picture, 1 nothing in common.';

-- For whoever logs in as `analyst` itself. Postgres does not hand settings down to the logins that are in the role:
-- these get their own, as README shows.
do $$ begin
    alter role analyst set search_path to lookalike, public;
    alter role analyst set statement_timeout to '60s';
exception when insufficient_privilege then
    raise notice 'role analyst exists and belongs to someone else: set its search_path and statement_timeout there';
end $$;

-- migrate:down
set search_path to lookalike, public;
drop function distance, nearest, similar, vector_of, known_encoder, neighbours_of, as_distance, active_encoder;
drop type neighbour;
