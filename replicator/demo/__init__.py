"""The demo: three factories of blood analysers and their centre on this machine, in under a minute.

Two factories are SQLite files, one is a PostgreSQL database, the centre is PostgreSQL. The replicator is used as its users
use it, by its commands, each a process of its own; the factories' applications are processes that know nothing of it.

``run_demo`` plays; ``scene`` builds everything, ``acts`` is what happens, ``story`` tells it; ``application`` is what a
factory runs, ``line`` a network line that can be cut, ``lookout`` measures from outside how far the centre is behind.
"""

from replicator.demo.play import run_demo

__all__ = ["run_demo"]
