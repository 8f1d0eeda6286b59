-- What a site without before images knows better than the ledger: rows as this database last wrote them there. It goes
-- into the ledger of the link's feed before the batch is compared with it. Called by: engines/postgres/stage.py.

-- name: create_bases
-- ``key`` only for a row that is parked before it is staged.
create temp table if not exists replicator_bases (
    ord bigint, existed boolean, checksum bigint, image text, key text
) on commit delete rows;

-- name: copy_bases
copy pg_temp.replicator_bases (ord, existed, checksum, image, key) from stdin;

-- name: fold_bases
-- $1: feed; $2: relation.
insert into replicator.ledger as l (feed, key, changed_at, checksum, deleted, image)
select distinct on (f.key) $1, f.key, 0, coalesce(f.checksum, 0), not f.existed, f.image
  from (select b.ord, b.existed, b.checksum, b.image, row(/*: key */ s.v0 /*:*/)::text as key
          from pg_temp.replicator_bases as b join pg_temp."__rows__" as s on s.ord = b.ord
         union all
        select s.ord, s.existed, s.checksum, s.image, row(/*: staged_key */ (s.a).v0 /*:*/)::text
          from (select b.*, t.after::pg_temp."__text__" as a
                  from pg_temp.replicator_bases as b join pg_temp.replicator_stage as t on t.ord = b.ord and t.relation = $2
                offset 0) as s
         union all
        select ord, existed, checksum, image, key from pg_temp.replicator_bases where key is not null) as f
 order by f.key, f.ord
    on conflict (feed, key) do update
   set checksum = excluded.checksum, deleted = excluded.deleted, image = excluded.image;

-- name: forget_bases
delete from pg_temp.replicator_bases;
