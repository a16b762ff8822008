-- name: contract
-- Which contract the database keeps.
select version from contract
