-- AFTER DELETE: the key of the row that went. Its presence also switches off SQLite's truncate shortcut.
create trigger "__trigger__" after delete on "__table__" begin
    insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/)
    values (/*: relation */ 0 /*:*/, 'd', /*: hybrid_time */ 0 /*:*/, /*: old_key */ old."__key__" /*:*/);
end;
