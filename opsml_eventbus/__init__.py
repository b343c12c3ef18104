"""opsml-eventbus: a bounded broadcast bus for asyncio in which loss is never silent."""

from .audit import AuditEvent, SpaceNameEvent
from .bus import EventBus
from .errors import BusClosed, EventError, Lagged, WouldBlock
from .event import Event, Gap, Payload, Priority, event_type
from .subscription import Subscription

__all__ = [
    "AuditEvent",
    "BusClosed",
    "Event",
    "EventBus",
    "EventError",
    "Gap",
    "Lagged",
    "Payload",
    "Priority",
    "SpaceNameEvent",
    "Subscription",
    "WouldBlock",
    "event_type",
]
