-- migrate:up
set search_path to lookalike, public;

-- What a picture looks like to the eye, beside what it shows --------------------------------------------------------

alter table images
    add column aspect_ratio real,
    add column average_colour text,
    add column palette text[],
    add column palette_shares real[],
    add column miniature bytea,
    add column appearance_revision integer;
comment on column images.aspect_ratio is 'Width / height of the picture, upright: above 1 it lies, below 1 it stands. Null: not embedded yet.';
comment on column images.average_colour is 'The mean of all pixels in sRGB, as ''#rrggbb''. Null: not embedded yet.';
comment on column images.palette is 'Up to five colours that stand for the picture, as ''#rrggbb'', the one of the largest area first. Search them with by_colour().';
comment on column images.palette_shares is 'The share of the area, 0..1, that each colour of palette stands for; they add up to 1.';
comment on column images.miniature is 'The picture in 12 x 12 greys of one byte, row by row, upright: near-duplicates are told apart by it.';
comment on column images.appearance_revision is 'The revision of the image that its aspect ratio and colours were computed from; an earlier one than revision is out of date.';
-- Not valid: rows from before have nothing to check, and forty million need not be read for that under a lock.
alter table images add constraint images_palette check (
    (palette is null) = (palette_shares is null) and cardinality(palette) = cardinality(palette_shares)
    and cardinality(palette) between 1 and 5) not valid;

alter table images add constraint images_miniature check (length(miniature) = 144) not valid;

-- Colours -----------------------------------------------------------------------------------------------------------

create function as_colour(colour text) returns text
language plpgsql immutable parallel safe as $$
begin
    if colour is null or colour !~ '^#?[0-9A-Fa-f]{6}$' then
        raise exception '% is no colour', coalesce(quote_literal(colour), 'null') using errcode = 'invalid_parameter_value',
            hint = 'Write two hexadecimal digits each of red, green and blue: ''#c83c32'' or ''c83c32''.';
    end if;
    return '#' || lower(right(colour, 6));
end $$;
comment on function as_colour is 'A colour of sRGB in its one form, ''#rrggbb''; says what to write when it is none.';

-- IEC 61966-2-1 from sRGB to linear light and on to XYZ, CIE 15:2004 from there to L*a*b* with the white of D65.
create function lab(colour text) returns real[]
language plpgsql immutable strict parallel safe as $$
declare
    bytes bytea := decode(substr(case when colour ~ '^#[0-9a-f]{6}$' then colour else lookalike.as_colour(colour) end, 2), 'hex');
    r double precision := get_byte(bytes, 0);
    g double precision := get_byte(bytes, 1);
    b double precision := get_byte(bytes, 2);
    x double precision;
    y double precision;
    z double precision;
begin
    -- 10.31475 = 255 * 0.04045
    r := case when r > 10.31475 then power((r / 255 + 0.055) / 1.055, 2.4) else r / 3294.6 end;
    g := case when g > 10.31475 then power((g / 255 + 0.055) / 1.055, 2.4) else g / 3294.6 end;
    b := case when b > 10.31475 then power((b / 255 + 0.055) / 1.055, 2.4) else b / 3294.6 end;
    x := (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047;
    y := 0.2126729 * r + 0.7151522 * g + 0.0721750 * b;
    z := (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883;
    -- (6 / 29)^3, and (29 / 3)^3 / 116
    x := case when x > 0.008856451679 then cbrt(x) else x * 7.787037037037 + 0.137931034483 end;
    y := case when y > 0.008856451679 then cbrt(y) else y * 7.787037037037 + 0.137931034483 end;
    z := case when z > 0.008856451679 then cbrt(z) else z * 7.787037037037 + 0.137931034483 end;
    return array[116 * y - 16, 500 * (x - y), 200 * (y - z)]::real[];
end $$;
comment on function lab is 'L*, a* and b* (CIELAB, D65) of a colour ''#rrggbb'' of sRGB. Distances in it are about as the eye sees them: 2 is just visible, 100 black from white.';

create function colour_weight(colour text, q real[]) returns double precision
language plpgsql immutable strict parallel safe as $$
declare
    p real[] := lookalike.lab(colour);
begin
    -- 288 = 2 * 12^2; a power of e below -80 is no number of single precision.
    return exp(-least(80, ((p[1] - q[1]) ^ 2 + (p[2] - q[2]) ^ 2 + (p[3] - q[3]) ^ 2) / 288));
end $$;
comment on function colour_weight is 'How much a colour counts as the one at q in L*a*b*: exp(-(d / 12)^2 / 2) by their distance d (CIE 1976). 1 the same, 0.61 at d = 12, 0.11 at 25.';

create function colour_share(palette text[], shares real[], colour text) returns real
language plpgsql immutable strict parallel safe as $$
declare
    q real[] := lookalike.lab(colour);
    share double precision := 0;
begin
    for n in 1..cardinality(palette) loop
        share := share + shares[n] * lookalike.colour_weight(palette[n], q);
    end loop;
    return least(1, greatest(0, share));
end $$;
comment on function colour_share is 'How much of a picture has a colour, 0..1: the sum of its palette''s shares, each times colour_weight(): all of what is the very colour, less of what is only near it.';

-- Finding colours among forty million palettes --------------------------------------------------------------------------

-- Its body is an expression, so that Postgres writes it into indexes and queries in place of a call.
create function colour_cell(colour text) returns smallint
language sql immutable parallel safe
return ('x' || substr(colour, 2, 1) || substr(colour, 4, 1) || substr(colour, 6, 1))::bit(12)::integer::smallint;
comment on function colour_cell is 'The cell, 0..4095, that a colour ''#rrggbb'' lies in: the upper four bits of red, green and blue.';

create table colour_cells (
    cell   smallint primary key,
    l      real not null,
    a      real not null,
    b      real not null,
    radius real not null
);
comment on table colour_cells is 'Where the 4,096 cells of colour_cell() lie in L*a*b*: each a centre, and the radius of the ball around it that holds the cell.';
comment on column colour_cells.l is 'L* of the centre; a and b likewise.';
comment on column colour_cells.radius is 'No colour of the cell is farther from the centre than this in L*a*b*.';
insert into colour_cells
select r * 256 + g * 16 + b, c.lab[1], c.lab[2], c.lab[3], (
    -- The corners lie farthest out (checked with all 16.8 million colours); a thousandth more for rounding.
    select 1.001 * max(sqrt((e.lab[1] - c.lab[1]) ^ 2 + (e.lab[2] - c.lab[2]) ^ 2 + (e.lab[3] - c.lab[3]) ^ 2))
    from (values (0), (15)) x (r), (values (0), (15)) y (g), (values (0), (15)) z (b),
        lateral (select lab(format('#%s%s%s', lpad(to_hex(c.r * 16 + x.r), 2, '0'), lpad(to_hex(c.g * 16 + y.g), 2, '0'),
            lpad(to_hex(c.b * 16 + z.b), 2, '0'))) as lab) e)
from (
    select r, g, b, lab('#' || to_hex(r) || '8' || to_hex(g) || '8' || to_hex(b) || '8') as lab
    from generate_series(0, 15) r, generate_series(0, 15) g, generate_series(0, 15) b) c;
analyze colour_cells;
grant select on colour_cells to analyst;

-- The most that a colour of a cell can count for in a query for the colour q, given in L*a*b*; see colour_share().
create function cell_weight(q real[], c colour_cells) returns double precision
language sql immutable parallel safe
return exp(-least(80, greatest(0, sqrt((c.l - q[1]) ^ 2 + (c.a - q[2]) ^ 2 + (c.b - q[3]) ^ 2) - c.radius) ^ 2 / 288));
comment on function cell_weight is 'The most that colour_weight() can be for a colour of a cell.';

-- The most that a palette can have of a colour, told by its cells alone: `weights` (4096) is the most of each cell.
create function colour_bound(palette text[], shares real[], weights real[]) returns real
language sql immutable parallel safe
return shares[1] * weights[1 + lookalike.colour_cell(palette[1])]
    + coalesce(shares[2] * weights[1 + lookalike.colour_cell(palette[2])], 0)
    + coalesce(shares[3] * weights[1 + lookalike.colour_cell(palette[3])], 0)
    + coalesce(shares[4] * weights[1 + lookalike.colour_cell(palette[4])], 0)
    + coalesce(shares[5] * weights[1 + lookalike.colour_cell(palette[5])], 0);
comment on function colour_bound is 'The most that colour_share() can be, told by the cells of a palette alone, given the weight of each cell.';

create index images_colour_1 on images (colour_cell(palette[1]), (palette_shares[1])) where palette_shares[1] is not null;
create index images_colour_2 on images (colour_cell(palette[2]), (palette_shares[2])) where palette_shares[2] is not null;
create index images_colour_3 on images (colour_cell(palette[3]), (palette_shares[3])) where palette_shares[3] is not null;

-- Unwanted images (0006_catalogue.sql) are left out while their parts are gathered, or they would fill the limits.
-- The images that hold most of a colour, through the indexes: first those that are all of this very colour, then by
-- steps less of it and farther from it, until there are enough. A step asks every cell that is near enough for the
-- largest shares. It finds whatever holds so much of the colour in one of its first three parts; those that hold it in
-- several smaller ones are why it goes on until there are enough with half as much again.
create function colour_candidates(q real[], colour text, k integer, include_unwanted boolean) returns bigint[]
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    step double precision;
    found bigint[];
    enough boolean;
begin
    foreach step in array array[0.98, 0.94, 0.88, 0.77, 0.6, 0.45, 0.33, 0.24, 0.17, 0.12, 0.07, 0.04, 0.02] loop
        with near as materialized (
            select cell, weight from (
                select c.cell, lookalike.cell_weight(q, c) as weight
                from lookalike.colour_cells c) cells
            where weight >= step
        ), parts as (
            (select t.id, t.share, t.part from near n cross join lateral (
                select i.id, i.palette_shares[1] as share, i.palette[1] as part from lookalike.images i
                where lookalike.colour_cell(i.palette[1]) = n.cell and i.palette_shares[1] >= (step / n.weight)::real and not exists (
                    select from lookalike.unwanted_images u where not include_unwanted and u.image_id = i.id and u.state = 'accepted')
                order by i.palette_shares[1] desc limit 200 + 2 * k) t)
            union all
            (select t.id, t.share, t.part from near n cross join lateral (
                select i.id, i.palette_shares[2] as share, i.palette[2] as part from lookalike.images i
                where lookalike.colour_cell(i.palette[2]) = n.cell and i.palette_shares[2] >= (step / n.weight)::real and not exists (
                    select from lookalike.unwanted_images u where not include_unwanted and u.image_id = i.id and u.state = 'accepted')
                order by i.palette_shares[2] desc limit 200 + 2 * k) t where step <= 0.5)
            union all
            (select t.id, t.share, t.part from near n cross join lateral (
                select i.id, i.palette_shares[3] as share, i.palette[3] as part from lookalike.images i
                where lookalike.colour_cell(i.palette[3]) = n.cell and i.palette_shares[3] >= (step / n.weight)::real and not exists (
                    select from lookalike.unwanted_images u where not include_unwanted and u.image_id = i.id and u.state = 'accepted')
                order by i.palette_shares[3] desc limit 200 + 2 * k) t where step <= 0.34)
        ), best as (
            select id from parts group by id order by max(share * lookalike.colour_weight(part, q)) desc limit 200 + 3 * k
        )
        select array_agg(i.id), count(*) filter (where lookalike.colour_share(i.palette, i.palette_shares, colour)
                >= least(1.5 * step, (1 + step) / 2)) >= k
            into found, enough
        from best join lookalike.images i using (id);
        exit when enough;
    end loop;
    return coalesce(found, '{}');
end $$;
comment on function colour_candidates is 'The images among which by_colour() chooses in a large archive.';

-- In the order of an index, so that an archive whose images have no palettes yet is not read to its end.
create function more_palettes_than(few integer) returns boolean
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
begin
    return exists (
        select from lookalike.images where palette_shares[1] is not null
        order by lookalike.colour_cell(palette[1]), palette_shares[1] offset few limit 1);
end $$;
comment on function more_palettes_than is 'Whether more images than so many have a palette.';

create function by_colour(
    colour text, k integer default 10, max_distance double precision default null, within bigint[] default null,
    include_unwanted boolean default false
) returns setof neighbour
language plpgsql stable as $$
declare
    -- Up to so many images all are compared; beyond, the indexes choose which.
    few integer := coalesce(nullif(current_setting('lookalike.exact_colours', true), '')::integer, 10000);
    wanted text := lookalike.as_colour(colour);
    q real[] := lookalike.lab(wanted);
    weights real[];
    chosen bigint[] := within;
begin
    if k is null or k not between 1 and 1000 then
        raise exception 'k must be between 1 and 1000, not %', k using errcode = 'invalid_parameter_value';
    end if;
    if within is null and lookalike.more_palettes_than(few) then
        chosen := lookalike.colour_candidates(q, wanted, k, include_unwanted);
    end if;
    weights := array(
        select lookalike.cell_weight(q, c)
        from lookalike.colour_cells c order by c.cell);
    -- The exact share takes time: it is computed for the k best by the bound first, then for whatever may still be
    -- better than the last of these.
    return query execute format($q$
        with bounded as materialized (
            select i.id, lookalike.colour_bound(i.palette, i.palette_shares, $1) as most
            from lookalike.images i where i.palette is not null %s and not exists (
                select from lookalike.unwanted_images u where not $6 and u.image_id = i.id and u.state = 'accepted')
        ), first as materialized (
            select lookalike.colour_share(i.palette, i.palette_shares, $2) as share
            from (select id from bounded order by most desc limit $3) b join lookalike.images i using (id)
        ), measured as (
            select i.id, 1 - lookalike.colour_share(i.palette, i.palette_shares, $2) as distance
            from bounded b join lookalike.images i using (id)
            where b.most >= greatest(0.02, (select min(share) - 0.00001 from first))
        ), nearest as (
            select i.*, m.distance from measured m join lookalike.images i using (id)
            where m.distance <= least(0.98, $4) order by m.distance, i.key limit $3
        )
        select row_number() over (order by n.distance, n.key)::integer, n.key, n.distance::real, n.work, n.title,
            n.licence, n.url
        from nearest n order by 1
    $q$, case when chosen is not null then 'and i.id = any($5)' end) using weights, wanted, k, max_distance, chosen,
        include_unwanted;
end $$;
comment on function by_colour is 'The k images that hold most of a colour: select * from by_colour(''#c83c32'', 20). Distance 0: all of the picture has this colour; 1 - colour_share(). Images with less than 2 % of it are left out. Filters: within, an array of image ids from any query; include_unwanted.';

-- migrate:down
set search_path to lookalike, public;
drop function by_colour, more_palettes_than, colour_candidates, cell_weight;
drop index images_colour_1, images_colour_2, images_colour_3;
drop function colour_bound, colour_cell;
drop table colour_cells;
drop function colour_share, colour_weight, lab, as_colour;
alter table images drop constraint images_palette, drop constraint images_miniature, drop column aspect_ratio, drop column average_colour,
    drop column palette, drop column palette_shares, drop column miniature, drop column appearance_revision;
