"""The contract between the pipeline and the databases: what an engine must offer, and its promises.

Engines meet these protocols by shape, without importing them; ``tests/contract`` runs one suite over every engine and
pair. Every docstring says when the method is called, in which transaction, whether it is safe to repeat, and what it
raises. All methods may raise RetryableError (database away) and SetupError (rights, schema) besides what they name.
"""

from replicator.ports.auditable import Auditable, AuditRow, AuditTable, Digest
from replicator.ports.batch import Base, Batch, OutboxBlock, PlainRows, Readable, RowBlock, ValueBlock
from replicator.ports.epochs import Begun, Epochs, Reached
from replicator.ports.installable import Installable
from replicator.ports.orders import Orders
from replicator.ports.outbox import Outbox
from replicator.ports.source import InFlight, Source
from replicator.ports.target import Target

__all__ = [
    "AuditRow",
    "AuditTable",
    "Auditable",
    "Base",
    "Batch",
    "Begun",
    "Digest",
    "Epochs",
    "InFlight",
    "Installable",
    "Orders",
    "Outbox",
    "OutboxBlock",
    "PlainRows",
    "Reached",
    "Readable",
    "RowBlock",
    "Source",
    "Target",
    "ValueBlock",
]
