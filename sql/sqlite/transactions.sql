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

-- name: busy_briefly
-- How long a statement that can be put off waits for another writer, in milliseconds.
pragma busy_timeout = 250

-- name: busy_as_ever
pragma busy_timeout = 5000

-- name: busy_never
pragma busy_timeout = 0

-- name: no_foreign_key_actions
pragma foreign_keys = off
