-- Labels, and a worker that has said something of itself.
insert into labels select 'tiny', image_id, rank, 'class ' || rank, 1.0 / rank / 4 from vectors_tiny, generate_series(1, 5) rank;
insert into workers values ('host.1', 'tiny', 'cpu', 8, now(), now(), 20, 5, 20, 0.1, 0.2, 0.3, 0.4, 0.5);
