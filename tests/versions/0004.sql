-- A check of the index.
insert into index_checks (encoder, vectors, indexed, candidates, queries, recall_1, recall_10, recall_100, poor, p50_ms, p95_ms)
values ('tiny', 3, false, 40, 3, 1, 1, 1, 0, 1, 2);
