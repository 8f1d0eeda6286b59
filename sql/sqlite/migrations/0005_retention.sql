-- How large an outbox gets: where its numbers were, and what was done when it was full.

-- Which number the newest change had at a time, about one row an hour for some days: the rate at which the outbox fills.
create table replicator_outbox_sample (at integer primary key, seq integer not null);

-- Capture that was stopped because the outbox was full. ``resumed_at``: install made it anew. What was written in between is
-- not in the outbox; the row goes when a resync has looked at it.
create table replicator_capture_stop (
    topology text primary key,
    reason text not null,
    stopped_at integer not null,
    resumed_at integer
);
