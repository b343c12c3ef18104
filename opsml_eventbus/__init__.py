"""opsml-eventbus: a bounded broadcast bus for asyncio in which loss is never silent."""

from .audit import AuditEvent, SpaceNameEvent
from .errors import BusClosed, EventError, Lagged, WouldBlock
from .event import Event, Gap, Payload, Priority, event_type

__all__ = [
    "AuditEvent",
    "BusClosed",
    "Event",
    "EventError",
    "Gap",
    "Lagged",
    "Payload",
    "Priority",
    "SpaceNameEvent",
    "WouldBlock",
    "event_type",
]
