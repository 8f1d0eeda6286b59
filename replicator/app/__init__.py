"""Wiring: settings → engines, plans, links. The only place that knows all of them."""

from replicator.app.engines import CapturedSource
from replicator.app.topology import App
from replicator.settings import CENTRE

__all__ = ["CENTRE", "App", "CapturedSource"]
