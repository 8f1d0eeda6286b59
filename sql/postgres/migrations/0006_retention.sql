-- How large an outbox gets: where its numbers were, what was done when it was full, and when it is vacuumed.

-- Which number the newest change had at a time, about one row an hour for some days: the rate at which the outbox fills.
create table replicator.outbox_sample (
    at timestamptz primary key default now(),
    seq bigint not null
);

-- Capture that was stopped because the outbox was full. `resumed_at`: install made it anew. What was written in between is
-- not in the outbox; the row goes when a resync has looked at it.
create table replicator.capture_stop (
    topology text primary key,
    reason text not null,
    stopped_at timestamptz not null default now(),
    resumed_at timestamptz
);

-- What is deleted behind the links is made usable again by the row, not by the share of a table that may once have been large.
alter table replicator.outbox set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0
);
