-- Changes that may have come to the target past the outbox, straight from the log: where the transaction of a change that was
-- read from the log committed. NULL for what triggers captured. A position that names a place in the log has all before it.
alter table replicator.outbox add column lsn pg_lsn;
