-- migrate:up
set search_path to lookalike, public;
-- Loads the library: only then may somebody who is no superuser name its settings, as the functions below do.
select '[1]'::vector;

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

-- Fewer candidates for each neighbour at larger k, where the last ones matter less.
create function candidates_for(k integer, per_neighbour real) returns integer
language sql immutable parallel safe as $$
    select ceil(greatest(10 * per_neighbour, least(k * per_neighbour / 2, 2000 + 3 * k)))::integer
$$;
comment on function candidates_for is 'How many candidates by code a search of k neighbours ranks exactly.';

-- The heart of every search. Among few images that a filter leaves, it compares all exactly. Among many it takes the
-- best candidates by Hamming distance on the codes, through the index where there is one, and ranks these exactly; an
-- index scan goes on until enough candidates pass the filter. The settings keep the planner from sorting everything.
create function neighbours_of(
    q halfvec, code varbit, encoder text, k integer, max_distance double precision, without bigint[],
    within bigint[] default null, work text default null, licence text default null, access text default null
) returns setof neighbour
language plpgsql stable
set enable_seqscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set hnsw.iterative_scan = relaxed_order
set hnsw.max_scan_tuples = 200000
set hnsw.ef_search = 40
as $$
declare
    -- Up to so many images an exact comparison is quicker than an index scan that drops most of what it finds.
    few integer := coalesce(nullif(current_setting('lookalike.exact_rows', true), '')::integer, 200000);
    e lookalike.encoders;
    wanted integer;
    filter text := concat(
        case when within is not null then ' and i.id = any($6)' end,
        case when work is not null then ' and i.work = $7' end,
        case when licence is not null then ' and i.licence = $8' end,
        case when access is not null then ' and i.access = $9' end);
    chosen bigint[];
    found text;
begin
    if k is null or k not between 1 and 1000 then
        raise exception 'k must be between 1 and 1000, not %', k using errcode = 'invalid_parameter_value';
    end if;
    select * into strict e from lookalike.encoders where name = encoder;
    wanted := lookalike.candidates_for(k, e.candidates);
    if filter <> '' then
        execute 'select array(select i.id from lookalike.images i where $1 is null' || replace(filter, '$6', '$2')
            || format(' limit %s)', few + 1) into chosen using null::integer, within, null, null, null, within, work, licence, access;
    end if;
    if cardinality(chosen) <= few then
        found := format(
            'select image_id, v <=> $1 as cosine from lookalike.%I'
            ' where image_id = any($10) and image_id <> all($4) order by (v <=> $1) + 0 limit $3', e.vectors);
    else
        perform set_config('hnsw.ef_search', least(1000, greatest(40, wanted / 4))::text, true);
        found := format(
            'select c.image_id, c.v <=> $1 as cosine from (
                select t.image_id, t.v from lookalike.%I t
                where t.image_id <> all($4) %s
                order by t.code <~> $2::bit(%s) limit $5) c', e.vectors,
            case when filter <> '' then
                'and exists (select from lookalike.images i where i.id = t.image_id' || filter || ')' end,
            e.dimension);
    end if;
    return query execute format($f$
        with measured as materialized (%s),
        nearest as materialized (
            select image_id, lookalike.as_distance(cosine, %L) as distance from measured
            where $11 is null or lookalike.as_distance(cosine, %L) <= $11 order by cosine limit $3
        )
        select row_number() over (order by n.distance, i.key)::integer, i.key, n.distance, i.work, i.title, i.licence,
            i.url
        from nearest n join lookalike.images i on i.id = n.image_id order by 1
    $f$, found, e.distance, e.distance)
    using q, code, k, without, wanted, within, work, licence, access, chosen, max_distance::real;
end $$;

-- The ids to leave out: the query images, and with `whole_works` all images of their works.
create function images_without(keys text[], whole_works boolean) returns bigint[]
language sql stable as $$
    select array(
        select id from lookalike.images where key = any(keys)
        union
        select i.id from lookalike.images q join lookalike.images i on i.work = q.work
        where whole_works and q.key = any(keys))
$$;

create function similar(
    image text, k integer default 10, max_distance double precision default null, encoder text default null,
    exclude_same_work boolean default false, within bigint[] default null,
    work text default null, licence text default null, access text default null
) returns setof neighbour
language plpgsql stable as $$
declare
    chosen text := lookalike.known_encoder(encoder);
    q halfvec := lookalike.vector_of(image, chosen);
    code varbit;
begin
    execute format('select t.code from lookalike.images i join lookalike.%I t on t.image_id = i.id where i.key = $1',
        (select vectors from lookalike.encoders where name = chosen)) into code using image;
    return query select * from lookalike.neighbours_of(q, code, chosen, k, max_distance,
        lookalike.images_without(array[image], exclude_same_work), within, work, licence, access);
end $$;
comment on function similar is 'The k images most like this one: select * from similar(''KEY'', 20). Distance 0 is the same picture, 1 nothing in common. Filters: exclude_same_work, work, licence, access, and within: an array of image ids from any query.';

create function nearest(
    query double precision[], k integer default 10, max_distance double precision default null,
    encoder text default null, within bigint[] default null,
    work text default null, licence text default null, access text default null
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
    return query select * from lookalike.neighbours_of(q, lookalike.code_of(q, chosen), chosen, k, max_distance,
        '{}', within, work, licence, access);
end $$;
comment on function nearest is 'The k images nearest to a vector from outside, of any length; the encoder must be the one that made it.';

create function like_these(
    images text[], weights double precision[] default null, k integer default 10,
    max_distance double precision default null, encoder text default null,
    exclude_same_work boolean default false, within bigint[] default null,
    work text default null, licence text default null, access text default null
) returns setof neighbour
language plpgsql stable as $$
declare
    chosen text := lookalike.known_encoder(encoder);
    size integer := (select dimension from lookalike.encoders where name = chosen);
    q halfvec;
begin
    if coalesce(cardinality(images), 0) = 0 or cardinality(weights) <> cardinality(images) then
        raise exception 'name at least one image, and one weight for each' using errcode = 'invalid_parameter_value';
    end if;
    select l2_normalize(sum(lookalike.vector_of(key, chosen)::vector * array_fill(weight::real, array[size])::vector))::halfvec
        into q from unnest(images, coalesce(weights, array_fill(1.0::double precision, array[cardinality(images)])))
        as t (key, weight);
    return query select * from lookalike.neighbours_of(q, lookalike.code_of(q, chosen), chosen, k, max_distance,
        lookalike.images_without(images, exclude_same_work), within, work, licence, access);
end $$;
comment on function like_these is 'The k images most like all of these; a negative weight means unlike: like_these(array[''a'', ''b'', ''c''], array[1, 1, -0.5]).';

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
drop function distance, like_these, nearest, similar, images_without, candidates_for, vector_of, known_encoder, neighbours_of, as_distance, active_encoder;
drop type neighbour;
