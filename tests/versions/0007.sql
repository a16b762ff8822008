-- Two near-duplicates.
insert into duplicate_pairs (encoder, a, b, distance, likeness) values ('tiny', 1, 2, 0.01, 0.99);
insert into duplicate_groups (encoder, size, representative_id) values ('tiny', 2, 1);
insert into duplicate_members select 'tiny', n, g.id, 0.01 from duplicate_groups g, generate_series(1, 2) n;
insert into marked_pairs (a, b, same, marked_by) values (1, 3, false, 'ann');
insert into duplicate_thresholds values ('tiny', 0.05, 0.9, 1, 1, 1, now());
