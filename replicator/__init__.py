"""replicator: database-native change data capture from many small databases to one central one.

Triggers write row changes into an outbox inside the user's own transaction; the replicator tails the outboxes, compares
each change with the row it meets, applies the changes set-based and exactly once, and proves by checksum that both
sides are equal. The floors of the package are listed in README ("Source tour") and enforced by import-linter.
"""

__version__ = "0.1.0"
