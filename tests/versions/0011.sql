-- A manifest that is waited for, and one that was given up.
insert into awaited_manifests (address, identifier, version, as_of) values ('https://images.example/b1', 'b1', 'v1', now());
insert into awaited_manifests (address, identifier, as_of, failed_at, reason) values ('https://images.example/b2', 'b2', now(), now(), 'missing_manifest');
