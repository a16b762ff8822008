-- migrate:up
set local lock_timeout = '5s';
set search_path to lookalike, public;

-- Pairs that nobody has decided about ---------------------------------------------------------------------------------------

-- Known beside the pair: a list of what is left would otherwise step over all that was decided, each time.
alter table duplicate_pairs add decided boolean not null default false;
comment on column duplicate_pairs.decided is 'Whether somebody has said something of the pair: marked_pairs has it. Kept by triggers.';
-- By the encoders' names as well: so each mark is looked up by the primary key.
update duplicate_pairs p set decided = true from marked_pairs m, encoders e
where p.encoder = e.name and m.a = p.a and m.b = p.b;

create function pair_is_found() returns trigger
language plpgsql as $$
begin
    new.decided := exists (select from lookalike.marked_pairs m where m.a = new.a and m.b = new.b);
    return new;
end $$;
comment on function pair_is_found is 'A pair that is found, perhaps again, may have been decided about before.';
create trigger pair_is_found before insert on duplicate_pairs for each row execute function pair_is_found();

create function pair_is_marked() returns trigger
language plpgsql as $$
declare
    mark lookalike.marked_pairs := case when tg_op = 'INSERT' then new else old end;
begin
    update lookalike.duplicate_pairs p set decided = tg_op = 'INSERT' from lookalike.encoders e
    where p.encoder = e.name and p.a = mark.a and p.b = mark.b;
    return null;
end $$;
comment on function pair_is_marked is 'Somebody says something of a pair, or has never said it.';
create trigger pair_is_marked after insert or delete on marked_pairs for each row execute function pair_is_marked();

-- migrate:down
set search_path to lookalike, public;
drop trigger pair_is_marked on marked_pairs;
drop trigger pair_is_found on duplicate_pairs;
drop function pair_is_marked, pair_is_found;
alter table duplicate_pairs drop column decided;
