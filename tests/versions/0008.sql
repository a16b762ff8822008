-- One clustering, with its partition.
insert into analyses (id, kind, encoder, scope, settings, standing, settled_at) overriding system value
values (1000, 'clusters', 'tiny', 'images kmeans', '{}', true, now());
insert into clusterings (analysis, encoder, of, method, seed, sampled, shown) values (1000, 'tiny', 'images', 'kmeans', 0, 3, true);
insert into cluster_identities (encoder, of, method, name) values ('tiny', 'images', 'kmeans', 'Portraits');
insert into cluster_centres (analysis, number, centre, cluster, size) select 1000, 0, '[1,0,0,0]', id, 3 from cluster_identities;
create table clustered_images_1000 partition of clustered_images for values in (1000);
insert into clustered_images select 1000, image_id, 0, 0.1 from vectors_tiny;
