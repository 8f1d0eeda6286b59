"""A network line that can be cut: a relay on 127.0.0.1 in front of a server's port."""

from __future__ import annotations

import contextlib
import socket
import threading

_CHUNK = 65536


class Line:
    """Relays connections to ``goal`` (host, port) until it is cut. Those who connect to the goal itself notice nothing.

    Attributes:
        port: where to connect; the same after every ``mend``.
    """

    def __init__(self, goal: tuple[str, int]) -> None:
        self._goal = goal
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._door: socket.socket | None = None
        self.port = 0
        self.mend()

    def mend(self) -> None:
        """Let connections through (again)."""
        door = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = int(door.getsockname()[1])
        self._door = door
        threading.Thread(target=self._answer, args=(door,), name="line", daemon=True).start()

    def cut(self) -> None:
        """Break every connection and refuse new ones. Repeatable."""
        door, self._door = self._door, None
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in (*ends, *((door,) if door else ())):
            _shut(end)

    def _answer(self, door: socket.socket) -> None:
        while True:
            try:
                near, _ = door.accept()
            except OSError:
                return  # cut
            try:
                far = socket.create_connection(self._goal, timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._ends |= {near, far}
            if self._door is not door:
                # Connected while the line was being cut.
                _shut(near)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), name="line", daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(_CHUNK):
                other.sendall(data)
        for end in (one, other):
            with self._lock:
                self._ends.discard(end)
            _shut(end)


def _shut(end: socket.socket) -> None:
    """Close, and wake a thread that waits on it. Repeatable."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
