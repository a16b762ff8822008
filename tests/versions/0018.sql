-- A pair that somebody has decided about, and one that waits.
insert into duplicate_pairs (encoder, a, b, distance) values ('tiny', 2, 3, 0.02);
insert into marked_pairs (a, b, same, marked_by) values (2, 3, true, 'ann') on conflict do nothing;
