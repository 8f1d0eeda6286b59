-- BEFORE INSERT: the rows a REPLACE would remove by a unique index other than the key. Their removal fires no delete
-- trigger, so their keys are noted beforehand; a key too many costs the reader one look-up.
create trigger "__trigger__" before insert on "__table__"
when /*: any_victim */ exists (select 1 from "__table__" as x where x."__column__" = new."__column__") /*:*/ begin
    /*: notes */ select 1 /*:*/;
end;
