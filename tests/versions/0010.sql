-- A chunk whose images came back because their host refuses everything.
insert into chunks (encoder, lane, ids, not_before, waiting_since) select 'tiny', 'backfill', array[max(id)], now(), now() from images;
