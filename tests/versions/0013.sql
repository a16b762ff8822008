-- An audit that came to its end.
insert into audits (encoder, whole, repairs, share, position, last, registered, done, failed, open, ended_at)
values ('tiny', false, false, 1048576, 6, 6, 6, 3, 1, 2, now());
