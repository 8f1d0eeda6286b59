-- What tells a position from the same one in another history of its source: one that was put back from a backup, or copied.
-- At a target: what the source is to find in its history, if `position` is of it (ports.Batch.stamp).
alter table replicator_link add column stamp text not null default '';
