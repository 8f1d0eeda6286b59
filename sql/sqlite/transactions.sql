-- How transactions begin. They end with the driver's commit and rollback.

-- name: begin_read
-- Takes its snapshot at the first read.
begin

-- name: begin_write
begin immediate

-- name: savepoint
savepoint "__savepoint__"

-- name: release
release "__savepoint__"

-- name: rollback_to
rollback to "__savepoint__"

-- name: no_sync_at_commit
-- In WAL mode: a commit of ours waits for no disk, so the write lock is held for less than a millisecond. Commits reach
-- the disk in order: what the application syncs after ours syncs ours.
pragma synchronous = normal

-- name: busy_briefly
-- How long a statement that can be put off waits for another writer, in milliseconds.
pragma busy_timeout = 250

-- name: busy_as_ever
pragma busy_timeout = 5000

-- name: busy_never
pragma busy_timeout = 0

-- name: no_foreign_key_actions
pragma foreign_keys = off
