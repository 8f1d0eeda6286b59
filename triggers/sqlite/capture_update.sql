-- AFTER UPDATE: the key of the row. The key it had before, if that was another, is capture_key_update.sql's.
create trigger "__trigger__" after update on "__table__" begin
    insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/)
    values (/*: relation */ 0 /*:*/, 'u', /*: hybrid_time */ 0 /*:*/, /*: new_key */ new."__key__" /*:*/);
end;
