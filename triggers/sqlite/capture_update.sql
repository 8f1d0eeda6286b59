-- AFTER UPDATE: the key of the row, and the old key when it moved. Not a second trigger UPDATE OF the key: an
-- UPDATE that sets the rowid slips past that. COLLATE BINARY: a NOCASE key may move from 'a' to 'A'.
create trigger "__trigger__" after update on "__table__" begin
    insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/)
    select /*: relation */ 0 /*:*/, 'd', /*: hybrid_time */ 0 /*:*/, /*: old_key */ old."__key__" /*:*/
    where /*: key_moved */ (old."__key__" collate binary) is not new."__key__" /*:*/;
    insert into replicator_outbox (relation, op, changed_at, /*: places */ k0 /*:*/)
    values (/*: relation */ 0 /*:*/, 'u', /*: hybrid_time */ 0 /*:*/, /*: new_key */ new."__key__" /*:*/);
end;
