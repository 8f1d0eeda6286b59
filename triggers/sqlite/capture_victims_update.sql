-- BEFORE UPDATE: the rows an UPDATE OR REPLACE would remove by a unique index other than the key. No OF list where an
-- index is partial or has a generated column: any column may move a row into it.
create trigger "__trigger__" before update /*: of_columns */ of "__column__" /*:*/ on "__table__"
when /*: any_victim */ exists (select 1 from "__table__" as x where x."__column__" = new."__column__") /*:*/ begin
    /*: notes */ select 1 /*:*/;
end;
