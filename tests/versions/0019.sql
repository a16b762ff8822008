-- A manifest of a collection whose host failed for the moment, as a catalogue describes it; nobody knows of when it is.
insert into awaited_manifests (address, identifier, whole, described, source)
values ('https://images.example/b3', 'https://images.example/b3', false, '{"work": "w1"}', 'https://images.example/top');
-- One that a stream has moved.
insert into awaited_manifests (address, identifier, as_of, moved_from, source)
values ('https://images.example/b4', 'https://images.example/b4', now(), 'https://images.example/b0', 'https://images.example/changes');
