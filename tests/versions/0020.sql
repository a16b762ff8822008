-- An encoder that is being taken out.
select add_encoder('former', 4, 'halved');
update encoders set leaving_at = now() where name = 'former';
