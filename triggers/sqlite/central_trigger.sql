-- Capture of a table of the centre: one trigger per event, its statements from central_fragments.sql. BEFORE triggers note
-- the rows a REPLACE would remove. Runs inside the application's statement, in any connection, on SQLite 3.8 and later.
create trigger "__trigger__" /*: event */ after insert /*:*/ on "__table__" when /*: condition */ 1 /*:*/ begin
    /*: statements */ select 1 /*:*/;
end;
