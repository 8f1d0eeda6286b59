-- What tells a position from the same one in another history of its source: one that was put back from a backup, or copied.

-- At a target: what the source is to find in its history, if `position` is of it (ports.Batch.stamp).
alter table replicator.link add column stamp text not null default '';

-- At a source: a nonce for each batch without a change of its own, written behind the batch's snapshot and before it is
-- handed out: whoever knows the nonce has all that is visible in `position`.
create table replicator.history (
    nonce text primary key,
    link text not null,
    position text not null
);
create index history_link on replicator.history (link);
