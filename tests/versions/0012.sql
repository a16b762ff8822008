-- An image whose address came from outside.
update images set outside = true where id = (select max(id) from images);
