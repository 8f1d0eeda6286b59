"""Capture from the write-ahead log: a logical replication slot read into the outbox, instead of triggers."""
