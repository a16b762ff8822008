-- migrate:up
set search_path to lookalike, public;
-- Loads the library: only then may somebody who is no superuser name its settings, as the functions below do.
select '[1]'::vector;

-- What more the catalogue may say of an image --------------------------------------------------------------------------

alter table images add source text, add digitised date not null default current_date;
update images set digitised = registered_at::date where digitised <> registered_at::date;
create index images_source on images (source) where source is not null;
create index images_digitised on images (digitised);

alter table encoders add index_dropped_at timestamptz;
-- 20 for each of ten neighbours find what 40 do, at half the cost; see bench/README.md, search.
alter table encoders alter candidates set default 20;
update encoders set candidates = 20 where candidates = 40 and not exists (select from index_checks where encoder = name);

-- Unwanted images: needed here because searches leave the accepted ones out ---------------------------------------------

create table unwanted_sets (
    id         bigint generated always as identity primary key,
    name       text not null unique check (name <> ''),
    encoder    text not null references encoders,
    threshold  real not null check (threshold between 0 and 1),
    report     jsonb not null default '{}',
    learned_at timestamptz not null default now(),
    searched_at timestamptz not null default now()
);
create table unwanted_images (
    set_id     bigint not null references unwanted_sets on delete cascade,
    image_id   bigint not null references images,
    example    boolean not null default false,
    nearest_id bigint references images,
    distance   real not null check (distance between 0 and 1),
    state      text not null default 'candidate' check (state in ('candidate', 'accepted', 'fine')),
    decided_by text,
    decided_at timestamptz,
    revision   integer not null default 1,
    primary key (set_id, image_id)
);
create index unwanted_images_accepted on unwanted_images (image_id) where state = 'accepted';
create index unwanted_images_candidates on unwanted_images (set_id, distance) where state = 'candidate';
create index unwanted_images_decided on unwanted_images (set_id) where state <> 'candidate';

-- Analyses: work on vectors that are there already, in chunks and through the same queue --------------------------------

create table analyses (
    id         bigint generated always as identity primary key,
    kind       text not null check (kind in ('duplicates', 'clusters')),
    encoder    text not null references encoders,
    scope      text not null default '',
    settings   jsonb not null,
    standing   boolean not null,
    created_at timestamptz not null default now(),
    settled_at timestamptz
);
create index analyses_standing on analyses (encoder) where standing;
create index analyses_unsettled on analyses (id) where settled_at is null;

alter table chunks add analysis bigint references analyses, add missed integer not null default 0;
alter table chunks drop constraint chunks_lane_check;
alter table chunks add constraint chunks_lane_check check (lane in ('events', 'backfill', 'suspect', 'analysis'));
alter table chunks add constraint chunks_analysis check ((lane = 'analysis') = (analysis is not null));
create index chunks_analysis on chunks (analysis, state, done_at) where analysis is not null;

-- Only what makes vectors counts in the books.
create or replace view unfinished_chunks as
    select * from chunks where state = 'pending' and analysis is null
    union all
    select * from chunks where state in ('queued', 'running') and analysis is null;

-- Searches with more filters ---------------------------------------------------------------------------------------------

drop function similar, nearest, like_these, neighbours_of;

create type image_filter as (
    within bigint[], work text, licence text, access text, source text, since date, before date, colour text,
    include_unwanted boolean
);

-- A colour of less weight than a fifth cannot make up a fifth of a picture.
create function cells_near(colour text) returns smallint[]
language sql stable parallel safe as $$
    select array(
        select c.cell from lookalike.colour_cells c, lookalike.lab(lookalike.as_colour(colour)) as q
        where lookalike.cell_weight(q, c) >= 0.2)
$$;
comment on function cells_near is 'The cells of colour_cell() with colours that count as this one.';

-- The conditions of a filter on `images i`, for a statement whose parameter of this name is the filter.
create function conditions(wanted image_filter, parameter text) returns text
language sql immutable as $$
    select replace(concat(
        case when wanted.within is not null then ' and i.id = any((@).within)' end,
        case when wanted.work is not null then ' and i.work = (@).work' end,
        case when wanted.licence is not null then ' and i.licence = (@).licence' end,
        case when wanted.access is not null then ' and i.access = (@).access' end,
        case when wanted.source is not null then ' and i.source = (@).source' end,
        case when wanted.since is not null then ' and i.digitised >= (@).since' end,
        case when wanted.before is not null then ' and i.digitised < (@).before' end,
        case when wanted.colour is not null then ' and (
            lookalike.colour_cell(i.palette[1]) = any(lookalike.cells_near((@).colour)) and i.palette_shares[1] is not null
            or lookalike.colour_cell(i.palette[2]) = any(lookalike.cells_near((@).colour)) and i.palette_shares[2] is not null
            or lookalike.colour_cell(i.palette[3]) = any(lookalike.cells_near((@).colour)) and i.palette_shares[3] is not null)
            and lookalike.colour_share(i.palette, i.palette_shares, (@).colour) >= 0.2' end
    ), '@', parameter)
$$;

-- The heart of every search: one function for each encoder, whose statement names the table, so that Postgres keeps its
-- plan (planning anew for 8 partitions took a tenth of a search). It takes the best candidates by Hamming distance on the
-- codes, through the index where there is one, and ranks these exactly; the index scan goes on until there are enough.
-- The query is the vector of an image, where none is given. subvector makes a plain value of it: what lies beside its
-- row would be fetched again for every candidate. include_unwanted stands inside the subquery: outside, with an `or`,
-- every partition would read all accepted images first.
create function make_nearest(encoder text) returns void
language plpgsql as $make$
declare
    e lookalike.encoders;
begin
    select * into strict e from lookalike.encoders where name = encoder;
    execute format($create$
        create function lookalike.%1$I(
            image bigint, inout q halfvec, inout code varbit, k integer, candidates integer, without bigint[],
            include_unwanted boolean, out ids bigint[], out cosines double precision[])
        language plpgsql stable
        set enable_seqscan = off
        set enable_sort = off
        set enable_hashjoin = off
        set enable_mergejoin = off
        set jit = off
        set plan_cache_mode = force_generic_plan
        set hnsw.iterative_scan = relaxed_order
        set hnsw.max_scan_tuples = 200000
        set hnsw.ef_search = 40
        as $body$
        begin
            if q is null then
                select subvector(t.v, 1, %3$s), t.code into q, code from lookalike.%2$I t where t.image_id = image;
            end if;
            perform set_config('hnsw.ef_search', least(1000, greatest(40, candidates / 4))::text, true);
            if candidates > 20000 then
                perform set_config('hnsw.max_scan_tuples', (10 * candidates)::text, true);
            end if;
            select array_agg(m.image_id), array_agg(m.cosine) into ids, cosines from (
                select c.image_id, c.v <=> q as cosine from (
                    select t.image_id, t.v from lookalike.%2$I t
                    where t.image_id <> all(without) and not exists (
                        select from lookalike.unwanted_images u
                        where not include_unwanted and u.image_id = t.image_id and u.state = 'accepted')
                    order by t.code <~> %1$I.code::bit(%3$s) limit candidates) c
                order by cosine limit k) m;
        end $body$
        $create$, e.vectors || '_nearest', e.vectors, e.dimension);
    execute format('comment on function lookalike.%I is %L', e.vectors || '_nearest',
        'What similar() and nearest() call for ' || encoder || ': ids of the nearest images and their cosine distances.');
end $make$;

-- Very few images that a filter leaves are all compared exactly, few by their codes first, which are read six times as
-- quickly; among many the index scan goes on until enough candidates pass the filter. The settings keep the planner from sorting everything.
create function filtered_nearest(
    e encoders, inout q halfvec, inout code varbit, image bigint, k integer, without bigint[], wanted image_filter,
    include_unwanted boolean, out ids bigint[], out cosines double precision[]
)
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
    candidates integer := lookalike.candidates_for(k, e.candidates);
    filter text := lookalike.conditions(wanted, '$5');
    wholesome text := '';
    chosen bigint[];
    found text;
begin
    if q is null then
        execute format('select subvector(v, 1, %s), code from lookalike.%I where image_id = $1', e.dimension, e.vectors)
            into q, code using image;
    end if;
    if not include_unwanted then
        wholesome := ' and not exists (select from lookalike.unwanted_images u where u.image_id = t.image_id and u.state = ''accepted'')';
    end if;
    execute format('select array(select i.id from lookalike.images i where true %s limit %s)',
        replace(filter, '$5', '$1'), few + 1) into chosen using wanted;
    if cardinality(chosen) > few then
        perform set_config('hnsw.ef_search', least(1000, greatest(40, candidates / 4))::text, true);
        found := format('select c.image_id, c.v <=> $1 as cosine from (
                select t.image_id, t.v from lookalike.%I t
                where t.image_id <> all($3) %s and exists (select from lookalike.images i where i.id = t.image_id %s)
                order by t.code <~> $2::bit(%s) limit %s) c order by cosine limit $4',
            e.vectors, wholesome, filter, e.dimension, candidates);
    elsif cardinality(chosen) > 5 * candidates then
        -- "+ 0" keeps the planner from the index: it compares the codes of all that were chosen.
        found := format('select c.image_id, c.v <=> $1 as cosine from (
                select t.image_id, t.v from unnest($6) as w (id) join lookalike.%I t on t.image_id = w.id
                where t.image_id <> all($3) %s
                order by (t.code <~> $2::bit(%s)) + 0 limit %s) c order by cosine limit $4',
            e.vectors, wholesome, e.dimension, candidates);
    else
        found := format('select t.image_id, t.v <=> $1 as cosine from unnest($6) as w (id) join lookalike.%I t on t.image_id = w.id'
            ' where t.image_id <> all($3) %s order by (t.v <=> $1) + 0 limit $4', e.vectors, wholesome);
    end if;
    execute format('select array_agg(m.image_id), array_agg(m.cosine) from (%s) m', found)
        into ids, cosines using q, code, without, k, wanted, chosen;
end $$;

-- Neighbours of a vector with its code, or, where it is null, of an image by its id.
create function neighbours_of(
    q halfvec, code varbit, encoder text, k integer, max_distance double precision, without bigint[],
    wanted image_filter, image bigint default null
) returns setof neighbour
language plpgsql stable as $$
declare
    e lookalike.encoders;
    ids bigint[];
    cosines double precision[];
    include_unwanted boolean;
begin
    select * into strict e from lookalike.encoders n where n.name = encoder;
    include_unwanted := coalesce(wanted.include_unwanted, false)
        or not exists (select from lookalike.unwanted_images u where u.state = 'accepted');
    if lookalike.conditions(wanted, '') = '' then
        execute format('select * from lookalike.%I($1, $2, $3, $4, $5, $6, $7)', e.vectors || '_nearest')
            into q, code, ids, cosines
            using image, q, code, k, lookalike.candidates_for(k, e.candidates), without, include_unwanted;
    else
        select f.q, f.code, f.ids, f.cosines into q, code, ids, cosines
        from lookalike.filtered_nearest(e, q, code, image, k, without, wanted, include_unwanted) f;
    end if;
    if q is null then
        perform lookalike.vector_of((select i.key from lookalike.images i where i.id = image), encoder);
    end if;
    return query
        select row_number() over (order by n.distance, i.key)::integer, i.key, n.distance, i.work, i.title, i.licence, i.url
        from (
            select u.id, lookalike.as_distance(u.cosine, e.distance) as distance from unnest(ids, cosines) as u (id, cosine)
        ) n
        join lookalike.images i on i.id = n.id
        where max_distance is null or n.distance <= max_distance::real
        order by 1;
end $$;

create function checked_k(k integer) returns integer
language plpgsql immutable as $$
begin
    if k is null or k not between 1 and 1000 then
        raise exception 'k must be between 1 and 1000, not %', k using errcode = 'invalid_parameter_value';
    end if;
    return k;
end $$;

create function similar(
    image text, k integer default 10, max_distance double precision default null, encoder text default null,
    exclude_same_work boolean default false, within bigint[] default null, work text default null,
    licence text default null, access text default null, source text default null, since date default null,
    before date default null, colour text default null, include_unwanted boolean default false
) returns setof neighbour
language plpgsql stable as $$
declare
    chosen text := lookalike.known_encoder(encoder);
    image_id bigint := (select i.id from lookalike.images i where i.key = image);
begin
    if image_id is null then
        perform lookalike.vector_of(image, chosen);
    end if;
    return query select * from lookalike.neighbours_of(null, null, chosen, lookalike.checked_k(k), max_distance,
        case when exclude_same_work then lookalike.images_without(array[image], true) else array[image_id] end,
        (within, work, licence, access, source, since, before, colour, include_unwanted)::lookalike.image_filter,
        image_id);
end $$;

create function nearest(
    query double precision[], k integer default 10, max_distance double precision default null,
    encoder text default null, within bigint[] default null, work text default null, licence text default null,
    access text default null, source text default null, since date default null, before date default null,
    colour text default null, include_unwanted boolean default false
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
    return query select * from lookalike.neighbours_of(q, lookalike.code_of(q, chosen), chosen, lookalike.checked_k(k),
        max_distance, '{}',
        (within, work, licence, access, source, since, before, colour, include_unwanted)::lookalike.image_filter);
end $$;

create function like_these(
    images text[], weights double precision[] default null, k integer default 10,
    max_distance double precision default null, encoder text default null, exclude_same_work boolean default false,
    within bigint[] default null, work text default null, licence text default null, access text default null,
    source text default null, since date default null, before date default null, colour text default null,
    include_unwanted boolean default false
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
    if not l2_norm(q) between 0.99 and 1.01 then
        raise exception 'these images and weights cancel out: nothing is like that'
            using errcode = 'invalid_parameter_value';
    end if;
    return query select * from lookalike.neighbours_of(q, lookalike.code_of(q, chosen), chosen, lookalike.checked_k(k),
        max_distance, lookalike.images_without(images, exclude_same_work),
        (within, work, licence, access, source, since, before, colour, include_unwanted)::lookalike.image_filter);
end $$;

create function is_embedded(image text, encoder text default null) returns boolean
language plpgsql stable as $$
declare
    found boolean;
begin
    execute format('select exists (select from lookalike.images i join lookalike.%I t on t.image_id = i.id where i.key = $1)',
        (select vectors from lookalike.encoders where name = lookalike.known_encoder(encoder))) into found using image;
    return found;
end $$;
comment on function is_embedded is 'Whether an image has a vector, so that similar() can answer: from images i, similar(i.key) s where is_embedded(i.key).';

create function work_vector(work text, encoder text default null) returns double precision[]
language plpgsql stable as $$
declare
    chosen text := lookalike.known_encoder(encoder);
    found double precision[];
begin
    execute format('select l2_normalize(avg(t.v::vector))::real[]::double precision[] from lookalike.images i'
        ' join lookalike.%I t on t.image_id = i.id where i.work = $1',
        (select vectors from lookalike.encoders where name = chosen)) into found using work;
    if found is null then
        raise exception 'no image of work % has a vector of %', quote_literal(work), chosen using errcode = 'no_data_found';
    end if;
    return found;
end $$;

-- Views for analysts, by the keys of images --------------------------------------------------------------------------------

create view failed_images as
    select i.key as image, f.encoder, f.reason, r.meaning, f.detail, f.attempts, f.failed_at, i.url
    from failures f join images i on i.id = f.image_id join reasons r on r.code = f.reason;

create view image_labels as
    select i.key as image, l.encoder, l.rank, l.label, l.probability from labels l join images i on i.id = l.image_id;

create view unwanted as
    select s.name as set, i.key as image, u.state, u.distance, n.key as nearest_example, u.example, s.threshold,
        s.encoder, u.decided_by, u.decided_at, i.work, i.title, i.url
    from unwanted_images u join unwanted_sets s on s.id = u.set_id join images i on i.id = u.image_id
    left join images n on n.id = u.nearest_id;

grant select on failed_images, image_labels, unwanted, unwanted_sets, unwanted_images, analyses, unfinished_chunks
    to analyst;

-- Encoders that are added from now on, and those that are there -----------------------------------------------------------

create function describe_vectors(encoder text) returns void
language plpgsql as $$
declare
    e lookalike.encoders;
    said text[];
begin
    select * into strict e from lookalike.encoders where name = encoder;
    foreach said slice 1 in array array[
        ['image_id', 'The image; join it with images.id.'],
        ['revision', 'The revision of the image that the vector was made from.'],
        ['checksum', 'SHA-256 of the bytes that were fetched.'],
        ['stored_at', 'When the vector was stored.'],
        ['code', 'Signs of the rotated, centred vector; near vectors have codes of a small Hamming distance.'],
        ['v', 'The vector, of unit length: v <=> w is the cosine distance of two.']]
    loop
        execute format('comment on column lookalike.%I.%I is %L', e.vectors, said[1], said[2]);
    end loop;
end $$;
comment on function describe_vectors is 'Comments the columns of an encoder''s table of vectors.';

alter function add_encoder rename to make_encoder;
comment on function make_encoder is 'Makes an encoder''s table of vectors, without the function that searches it: see add_encoder.';
create function add_encoder(name text, dimension integer, distance text) returns void
language sql as $$
    select lookalike.make_encoder(name, dimension, distance);
    select lookalike.make_nearest(name);
    select lookalike.describe_vectors(name);
$$;
comment on function add_encoder is 'Adds an encoder, makes its table of vectors and the function that searches it. The first one becomes active.';
select make_nearest(name), describe_vectors(name) from encoders;

-- Everything says what it is (a test looks for what does not) --------------------------------------------------------------

comment on column images.title is 'What the catalogue calls the image, or its work.';
comment on column images.licence is 'What the catalogue says of its licence, as it says it.';
comment on column images.access is 'What the catalogue says of access to it, as it says it.';
comment on column images.registered_at is 'When the image was announced first.';
comment on column images.changed_at is 'When an announcement changed the row last.';
comment on column images.source is 'The source that announced the image first: a folder, table, bucket, manifest or stream.';
comment on column images.digitised is 'The day of its digitisation, as the source says; else that of its registration.';
comment on column reasons.code is 'What failures.reason holds.';
comment on column reasons.transient is 'Whether images that failed so are tried again by themselves.';
comment on column reasons.meaning is 'What it means.';
comment on column encoders.name is 'The name that searches take: a network with its weights and preprocessing.';
comment on column encoders.dimension is 'Length of its vectors, and bits of their codes.';
comment on column encoders.active is 'Whether searches use it unless they name another.';
comment on column encoders.added_at is 'When it was added.';
comment on column encoders.index_dropped_at is 'When somebody dropped its index; `orchestrate` builds it again after the next backfill.';
comment on column calibrations.encoder is 'The encoder.';
comment on column calibrations.bit is 'Which bit of the code, from 0.';
comment on column calibrations.direction is 'The direction whose side the bit tells, in whole numbers.';
comment on column calibrations.threshold is 'Where along that direction the mean of many pictures lies.';
comment on column chunks.id is 'Number of the chunk.';
comment on column chunks.encoder is 'The encoder that its images are embedded with.';
comment on column chunks.lane is 'events overtake the rest; backfill; suspect: crashed workers; analysis: has vectors, see analyses.';
comment on column chunks.state is 'pending, queued, running, then done, split in two, or dead; see docs/ledger.md.';
comment on column chunks.crashes is 'How many workers fell silent with it.';
comment on column chunks.lease_until is 'Until when the claim holds, unless it is renewed.';
comment on column chunks.worker is 'Who works on it, or did last.';
comment on column chunks.not_before is 'Not to be tried earlier.';
comment on column chunks.lo is 'First image id of a range.';
comment on column chunks.hi is 'Last image id of a range.';
comment on column chunks.ids is 'Its image ids, where they are no range.';
comment on column chunks.parent is 'The chunk that it was made from.';
comment on column chunks.created_at is 'When it was made.';
comment on column chunks.done_at is 'When it was finished.';
comment on column chunks.missed is 'Images that its analysis could not look at, and has given up.';
comment on column chunks.analysis is 'The analysis that it is part of; null for chunks that make vectors.';
comment on column failures.encoder is 'The encoder that has no vector of the image.';
comment on column failures.image_id is 'The image; join it with images.id, or see failed_images.';
comment on column failures.revision is 'The revision of the image that failed.';
comment on column failures.reason is 'One of the fixed list in reasons.';
comment on column failures.detail is 'What was found, for people.';
comment on column failures.attempts is 'How often it was tried.';
comment on column failures.failed_at is 'When it failed last.';
comment on column labels.encoder is 'The encoder whose network classified the image.';
comment on column labels.image_id is 'The image; join it with images.id, or see image_labels.';
comment on column labels.rank is '1 is the most probable class.';
comment on column labels.probability is 'Probability of the class, 0..1, by the network itself.';
comment on column workers.name is 'Host and number of the worker.';
comment on column workers.encoder is 'The encoder that it runs.';
comment on column workers.device is 'cpu, cuda:0 and the like.';
comment on column workers.batch_size is 'Images in a full batch.';
comment on column workers.started_at is 'When it started.';
comment on column workers.seen_at is 'Its last heartbeat.';
comment on column workers.decode_busy is 'Share of the time, 0..1, that its decoding threads were busy.';
comment on column workers.encode_busy is 'Share of the time, 0..1, that its network was busy.';
comment on column workers.store_busy is 'Share of the time, 0..1, that it was storing.';
comment on column index_checks.id is 'Number of the check.';
comment on column index_checks.encoder is 'The encoder.';
comment on column index_checks.checked_at is 'When.';
comment on column index_checks.vectors is 'How many vectors there were.';
comment on column index_checks.indexed is 'Whether all partitions had their index.';
comment on column index_checks.candidates is 'encoders.candidates at the time.';
comment on column index_checks.queries is 'How many random images were searched for.';
comment on column index_checks.recall_1 is 'Share of queries that find their true nearest neighbour first.';
comment on column index_checks.recall_100 is 'Share of the true hundred nearest that a search of a hundred finds.';
comment on column index_checks.p50_ms is 'Median time of a search of ten, in milliseconds.';
comment on column index_checks.p95_ms is 'Time within which 95 % of the searches of ten ended, in milliseconds.';

comment on column colour_cells.cell is 'Number of the cell.';
comment on column colour_cells.l is 'L* of its centre.';
comment on column colour_cells.a is 'a* of its centre.';
comment on column colour_cells.b is 'b* of its centre.';
comment on column colour_cells.radius is 'Distance from the centre within which all of the cell lies.';

comment on table analyses is 'What is asked of all vectors: near-duplicates, clusters. Done in chunks; see chunks.analysis.';
comment on column analyses.id is 'Number of the analysis.';
comment on column analyses.kind is 'duplicates or clusters.';
comment on column analyses.encoder is 'The encoder whose vectors are looked at.';
comment on column analyses.scope is 'What of its kind it does, as clusters of images and of works: a new analysis takes the place of those of the same kind, encoder and scope.';
comment on column analyses.settings is 'What was asked for, in the words of its kind.';
comment on column analyses.standing is 'Whether images that get a vector later go through it as well.';
comment on column analyses.created_at is 'When it was begun.';
comment on column analyses.settled_at is 'When its results were summed up last; null: it is under way.';

comment on column unwanted_sets.id is 'Number of the set.';
comment on table unwanted_sets is 'Kinds of images that a cataloguer does not want to find: colour charts, blank pages, covers. Each is learned from examples.';
comment on column unwanted_sets.name is 'What people call it.';
comment on column unwanted_sets.encoder is 'The encoder whose vectors are compared.';
comment on column unwanted_sets.threshold is 'Images within this distance of an example are candidates, 0..1.';
comment on column unwanted_sets.report is 'What the threshold does to examples that were held out: `lookalike unwanted learn` prints it.';
comment on column unwanted_sets.learned_at is 'When the threshold was learned.';

comment on column unwanted_sets.searched_at is 'When its candidates were searched for last; `orchestrate` does it as images arrive.';
comment on table unwanted_images is 'The images of each set and what people say of them; `unwanted` shows them by their keys.';
comment on column unwanted_images.set_id is 'The set.';
comment on column unwanted_images.image_id is 'The image.';
comment on column unwanted_images.example is 'Whether the set is learned from this image; an example is accepted.';
comment on column unwanted_images.nearest_id is 'The example that is nearest to it; an example itself is its own.';
comment on column unwanted_images.distance is 'Distance to that example, 0..1.';
comment on column unwanted_images.state is 'candidate: nobody has looked yet. accepted: it is unwanted, searches leave it out. fine: it is not, and never comes back as a candidate.';
comment on column unwanted_images.decided_by is 'Who said so.';
comment on column unwanted_images.decided_at is 'When.';
comment on column unwanted_images.revision is 'The revision of the image that the decision is about; of a later one it is a candidate again.';

comment on type neighbour is 'A row that searches return; never the query image itself.';
comment on column neighbour.rank is '1 is the nearest.';
comment on column neighbour.image is 'Key of the image.';
comment on column neighbour.distance is '0 is the same picture, 1 nothing in common.';
comment on column neighbour.work is 'The work that the image belongs to.';
comment on column neighbour.title is 'Its title.';
comment on column neighbour.licence is 'Its licence.';
comment on column neighbour.url is 'Where it is fetched from.';
comment on type image_filter is 'The filters of a search, as similar() and its like hand them on; null is no filter.';
comment on column image_filter.within is 'Only these image ids.';
comment on column image_filter.work is 'Only images of this work.';
comment on column image_filter.licence is 'Only images of this licence.';
comment on column image_filter.access is 'Only images of this access.';
comment on column image_filter.source is 'Only images of this source.';
comment on column image_filter.since is 'Only images digitised on this day or later.';
comment on column image_filter.before is 'Only images digitised before this day.';
comment on column image_filter.colour is 'Only images a fifth of which or more has this colour, ''#rrggbb'', as one of their three main ones.';
comment on column image_filter.include_unwanted is 'Also images that were accepted as unwanted.';

comment on function known_encoder is 'The encoder of this name, or the active one; an error names those there are.';
comment on function neighbours_of is 'What all searches call: neighbours of a vector with its code, or of an image by its id.';
comment on function filtered_nearest is 'Ids of the nearest images that pass a filter, and their cosine distances.';
comment on function make_nearest is 'Makes the function VECTORS_nearest that searches the vectors of an encoder.';
comment on function conditions is 'A filter as SQL conditions on images i.';
comment on function checked_k is 'k, or an error when it is not between 1 and 1000.';
comment on function images_without is 'Ids that a search leaves out: the query images, and with whole_works all of their works.';
comment on function similar is 'The k images most like this one: select * from similar(''KEY'', 20). Distance 0 is the same picture, 1 nothing in common. Filters, all optional: work, licence, access, source, since and before (days of digitisation), colour (''#c83c32''), within (an array of image ids from any query), exclude_same_work, include_unwanted.';
comment on function nearest is 'The k images nearest to a vector from outside, of any length; the encoder must be the one that made it. Filters as in similar().';
comment on function like_these is 'The k images most like all of these; a negative weight means unlike: like_these(array[''a'', ''b'', ''c''], array[1, 1, -0.5]). Filters as in similar().';
comment on function work_vector is 'The mean of the vectors of a work''s images, of unit length: select * from nearest(work_vector(''WORK'')).';

comment on view failed_images is 'Images without a vector, and why: select reason, count(*) from failed_images group by reason.';
comment on column failed_images.image is 'Key of the image.';
comment on column failed_images.encoder is 'The encoder that has no vector of it.';
comment on column failed_images.reason is 'The reason code.';
comment on column failed_images.meaning is 'What the code means.';
comment on column failed_images.detail is 'What was found.';
comment on column failed_images.attempts is 'How often it was tried.';
comment on column failed_images.failed_at is 'When it failed last.';
comment on column failed_images.url is 'Where it was to be fetched from.';
comment on view image_labels is 'What images show, by a network''s classes: select image from image_labels where label = ''tabby''.';
comment on column image_labels.image is 'Key of the image.';
comment on column image_labels.encoder is 'The encoder whose network classified it.';
comment on column image_labels.rank is '1 is the most probable class.';
comment on column image_labels.label is 'Name of the class.';
comment on column image_labels.probability is 'Its probability, 0..1.';
comment on view unwanted is 'Unwanted images: select * from unwanted where state = ''candidate'' order by distance.';
comment on column unwanted.set is 'The set.';
comment on column unwanted.image is 'The key of the image.';
comment on column unwanted.state is 'candidate: nobody has looked yet. accepted: searches leave it out unless include_unwanted => true. fine: not unwanted.';
comment on column unwanted.distance is 'Distance to the nearest example, 0..1.';
comment on column unwanted.nearest_example is 'The key of that example.';
comment on column unwanted.example is 'Whether the set is learned from this image.';
comment on column unwanted.threshold is 'The threshold of the set.';
comment on column unwanted.encoder is 'The encoder whose vectors are compared.';
comment on column unwanted.decided_by is 'Who said so.';
comment on column unwanted.decided_at is 'When.';
comment on column unwanted.work is 'The work that the image belongs to.';
comment on column unwanted.title is 'Its title.';
comment on column unwanted.url is 'Where it is fetched from.';
do $$
declare
    name text;
begin
    for name in select attname from pg_attribute where attrelid = 'lookalike.unfinished_chunks'::regclass and attnum > 0 loop
        execute format('comment on column lookalike.unfinished_chunks.%I is %L', name, 'As in chunks.');
    end loop;
end $$;

-- migrate:down
do $$ begin
    raise exception 'what cataloguers decided would be lost: restore a backup from before instead';
end $$;
