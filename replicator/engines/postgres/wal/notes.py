"""Before PostgreSQL 14 a slot does not tell messages. There a note in a table of ours, which is published, stands for each.

``replicator.tell`` writes the one or the other. A note is read as the message it stands for, so nobody else sees a difference.
"""

from __future__ import annotations

import struct

from replicator.engines.postgres.wal import protocol

OLDEST_WITH_MESSAGES = 140000


class Notes:
    """Turns inserts into ``replicator.note`` into messages; ``numbers``: those read so far, to be removed there."""

    def __init__(self) -> None:
        self._oid = -1
        self.numbers: list[int] = []

    def translated(self, data: bytes) -> bytes:
        """A message of the stream as a server that tells messages would have sent it."""
        if data[0] == protocol.RELATION:
            table = protocol.read_table(data)
            if (table.schema, table.name) == ("replicator", "note"):
                self._oid = table.oid
        elif data[0] == protocol.INSERT and protocol.read_oid(data) == self._oid:
            (number, prefix, content), _ = protocol.read_values(data, 6)
            self.numbers.append(int(number or 0))
            body = content or b""
            return struct.pack(">cbQ", b"M", 1, 0) + (prefix or b"") + b"\0" + struct.pack(">I", len(body)) + body
        return data

    def take(self) -> list[int]:
        """The numbers, which are forgotten here."""
        taken, self.numbers = self.numbers, []
        return taken
