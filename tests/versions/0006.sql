-- Sources and days, an analysis that stands, and a set of unwanted images.
update images set source = 'a folder', digitised = '2024-05-01';
insert into analyses (kind, encoder, scope, settings, standing) values ('duplicates', 'tiny', 'all', '{}', true);
insert into chunks (encoder, lane, lo, hi, analysis) select 'tiny', 'analysis', 1, 6, id from analyses;
insert into unwanted_sets (name, encoder, threshold, report) values ('charts', 'tiny', 0.1, '{}');
insert into unwanted_images (set_id, image_id, example, nearest_id, distance, state, decided_by, decided_at, revision)
select id, 3, true, 3, 0, 'accepted', 'ann', now(), 1 from unwanted_sets;
