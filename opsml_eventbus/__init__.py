"""opsml-eventbus: a bounded broadcast bus for asyncio in which loss is never silent."""

import logging

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

# Whoever wants to hear the library configures a handler; nobody hears it by accident.
logging.getLogger(__name__).addHandler(logging.NullHandler())
