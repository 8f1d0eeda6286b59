"""A private PostgreSQL server, run from binaries already on this machine: for the demo and the tests.

Nothing is installed and nothing of the user's is changed: no account is made, no mode of an existing folder is touched.
``binaries`` finds the programs, ``processes`` runs them under the right account, ``server`` is the whole.
"""

from replicator.embedded.binaries import Binaries, find_binaries
from replicator.embedded.server import EmbeddedServer

__all__ = ["Binaries", "EmbeddedServer", "find_binaries"]
