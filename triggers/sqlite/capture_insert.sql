-- AFTER INSERT: the key of the new row. Also all there is to a REPLACE that meets the same key.
-- Rendered per table; runs inside the application's statement, in any connection, on SQLite 3.8 and later.
create trigger "__trigger__" after insert on "__table__" begin
    insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/)
    values (/*: relation */ 0 /*:*/, 'i', /*: hybrid_time */ 0 /*:*/, /*: new_key */ new."__key__" /*:*/);
end;
