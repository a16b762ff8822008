-- A deleted image, and a source that was read to its end.
insert into deleted_images (key, url) values ('image/0', 'https://images.example/0.jpg');
insert into sources (name, position, new, ended_at) values ('a folder', '{"after": "image/6"}', 6, now());
