-- A credit, and decisions: one holds, one was taken back.
update images set credit = 'A museum' where key = 'image/1';
insert into decisions (kind, subject, verdict, decided_by, before) values ('name', '{1}', 'Portraits', 'ann', '{"name": null}');
insert into decisions (kind, subject, verdict, decided_by, undone_by, undone_at)
values ('unwanted', '{image/3}', 'fine', 'ann', 'bob', now());
