-- A thumbnail in the database and one in a folder, a file that is left over, and a map of two images.
insert into thumbnails (image_id, revision, jpeg) values (1, 1, '\xffd8');
insert into thumbnails (image_id, revision, place, name) values (2, 1, 'file:///small', '0/2-1-0123456789abcdef0123456789abcdef.jpg');
insert into thumbnail_leftovers (place, name) values ('file:///small', '0/3-1-0123456789abcdef0123456789abcdef.jpg');
insert into maps (encoder, method, seed, images) values ('tiny', 'tsne', 0, 2);
insert into map_points select m.id, n, 0.25 * n, 0.5 from maps m, generate_series(1, 2) n;
