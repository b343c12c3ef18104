"""A bounded broadcast bus for asyncio: every subscriber sees every event, or a Gap that says how many it missed.

    bus = EventBus(capacity=1024, source="opsml")
    bus.publish(AuditEvent(username="ada", operation="Delete"))

    async with bus.subscribe(AuditEvent) as subscription:
        async for event in subscription: ...

- **Full.** Each priority has a ring of `capacity` events. A reader that falls further behind misses the oldest, and its
  stream says so (`drop_oldest`), or it ends (`disconnect`), or nobody may publish before it has read (`block`): `send`
  waits then, and `publish` raises WouldBlock and delivers to nobody, because a broadcast is one act.
  Memory is bounded by the capacity (and half of it), never by how slow a reader is.
- **Closed.** Readers get what is still in the ring, then their iteration ends. Publishing raises BusClosed.
- **Cancelled.** A cancelled reader has lost nothing. A cancelled `send` has published its event once or not at all.
- **Threads.** Publish, subscribe and close from any thread, read in any number of event loops; hub.py says why no
  wake-up is lost. Not from a signal handler: `loop.add_signal_handler` is the place for that. It needs the GIL: where a
  free-threaded build runs without it, `EventBus` raises RuntimeError.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from time import time_ns
from typing import Any, Literal, TypeVar, get_args, overload

from .event import DEFAULT_SOURCE, DataT, Event, Gap, Payload, Priority
from .hub import Hub
from .ring import Order
from .selection import Where, predicate
from .statistics import BusStatistics
from .subscription import Subscription
from .taking import Overflow

PayloadT = TypeVar("PayloadT", bound=Payload)
OtherT = TypeVar("OtherT", bound=Payload)

OVERFLOWS: tuple[str, ...] = get_args(Overflow)
ORDERS: tuple[str, ...] = get_args(Order)


class EventBus:
    """A bus. Its clones are the same bus, and closing any of them closes it.

    capacity: events kept per priority, at least 1. source: CloudEvents `source` of the events it stamps.
    Raises ValueError: a capacity below 1. RuntimeError: a free-threaded build running without the GIL.
    """

    def __init__(self, capacity: int = 1024, source: str = DEFAULT_SOURCE) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: at least 1 event, not {capacity}")
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            raise RuntimeError("the bus relies on the GIL: run this interpreter with PYTHON_GIL=1")
        self._use(Hub(capacity, source))

    def _use(self, hub: Hub) -> None:
        self._hub = hub
        # The function itself, in place of the method below: what a method adds would be felt only here.
        self.publish = hub.publish  # type: ignore[method-assign]

    # ── what it is ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def id(self) -> str:
        """The instance: new for every bus, the same for its clones. Who reconnects asks whether it changed."""
        return self._hub.id

    @property
    def source(self) -> str:
        """CloudEvents `source` of the events it stamps."""
        return self._hub.source

    @property
    def capacity(self) -> int:
        """Events kept per priority."""
        return self._hub.ring.capacity

    @property
    def closed(self) -> bool:
        """Has `close` been called on it or on a clone?"""
        return self._hub.closed

    def __repr__(self) -> str:
        state = " closed" if self.closed else ""
        return f"<EventBus {self.source!r} capacity={self.capacity} subscriptions={len(self._hub.readers)}{state}>"

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def publish(self, what: PayloadT, priority: Priority | None = None) -> Event[PayloadT]: ...
    @overload
    def publish(self, what: Event[DataT], priority: Priority | None = None) -> Event[DataT]: ...
    def publish(self, what: Event | Payload, priority: Priority | None = None) -> Event:
        """Give every subscriber this event; never waits for one. From any thread. Nobody listening is no error.

        what: a payload, which is stamped with an id, the time and this bus's source; or a ready Event, kept as it is.
        priority: of a payload, NORMAL by default; a ready Event has its own. Returns the event.

        Raises BusClosed. Raises WouldBlock: a lossless subscriber is full; nobody got the event.
        Raises TypeRefused: a type of ours (`eventbus.…`), or a payload class that is not registered.
        """
        return self._hub.publish(what, priority)

    def publish_many(self, whats: Iterable[Event | Payload], priority: Priority | None = None) -> list[Event]:
        """`publish` for several at once, at a fraction of the price; nothing comes between them.

        Raises as `publish`; then none of them was published.
        """
        return self._hub.publish_many(whats, priority)

    async def send(
        self, what: Event | Payload, priority: Priority | None = None, *, timeout: float | None = None
    ) -> Event:
        """`publish`, but wait while a lossless subscriber is full. Senders are served in their order.

        timeout: seconds. Raises TimeoutError: then it was not published. Raises BusClosed, TypeRefused.
        """
        hub = self._hub
        event = hub.stamp(what, priority)
        loop = asyncio.get_running_loop()
        ticket = hub.offer(event, loop)
        if ticket is None:
            return event
        timer = None if timeout is None else loop.call_later(timeout, hub.expire, ticket)
        try:
            await ticket.future
        finally:
            if timer is not None:
                timer.cancel()
            hub.withdraw(ticket)
        return event

    def pass_gap(self, gap: Gap) -> None:
        """Put a Gap from upstream into every stream, in its place. It counts as nobody's `missed`.

        Raises BusClosed.
        """
        self._hub.pass_gap(gap)

    # ── subscribing ──────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def subscribe(
        self,
        where: type[PayloadT],
        *,
        overflow: Overflow = "drop_oldest",
        order: Order = "priority",
        last: int | Literal["all"] | None = None,
        after: str | None = None,
    ) -> Subscription[PayloadT]: ...
    @overload
    def subscribe(
        self,
        where: tuple[type[PayloadT], type[OtherT]],
        *,
        overflow: Overflow = "drop_oldest",
        order: Order = "priority",
        last: int | Literal["all"] | None = None,
        after: str | None = None,
    ) -> Subscription[PayloadT | OtherT]: ...
    @overload
    def subscribe(
        self,
        where: tuple[type[PayloadT], ...],
        *,
        overflow: Overflow = "drop_oldest",
        order: Order = "priority",
        last: int | Literal["all"] | None = None,
        after: str | None = None,
    ) -> Subscription[PayloadT]: ...
    @overload
    def subscribe(
        self,
        where: Where = None,
        *,
        overflow: Overflow = "drop_oldest",
        order: Order = "priority",
        last: int | Literal["all"] | None = None,
        after: str | None = None,
    ) -> Subscription[Any]: ...
    def subscribe(
        self,
        where: Where = None,
        *,
        overflow: Overflow = "drop_oldest",
        order: Order = "priority",
        last: int | Literal["all"] | None = None,
        after: str | None = None,
    ) -> Subscription[Any]:
        """A stream of everything published from now on.

        where: a Filter, a payload type (its subclasses too), a function of the event, or a tuple of these (any).
        overflow: what happens when the reader is `capacity` events behind: `drop_oldest` (a Gap), `block` (nobody can
            publish), `disconnect` (the iteration raises Lagged).
        order: `priority`: the most urgent first; `published`: as they came.
        last: begin with the last so many matching events of those still in the ring.
        after: begin behind the event with this id. If it is not in the ring, the stream begins with a Gap
            (`disconnect`, missed None), then what is there. With `last`: the last so many of those behind it. `""` is
            the place before the first event ever published: what is no longer in the ring is a counted Gap (`lag`).

        The beginning and what follows are one: nothing is twice, nothing falls between. Counting starts there too.
        Raises BusClosed. Raises TypeError: a `where` that means nothing.
        """
        for name, value, known in (("overflow", overflow, OVERFLOWS), ("order", order, ORDERS)):
            if value not in known:
                raise ValueError(f"{name}: {' or '.join(known)}, not {value!r}")
        if isinstance(last, int) and last < 0:
            raise ValueError(f"last: at least 0 events, not {last}")
        return Subscription(self._hub, predicate(where), overflow, order, last, after)

    # ── the rest of its life ─────────────────────────────────────────────────────────────────────────────────────

    def clone(self) -> EventBus:
        """Another handle on the same bus."""
        clone = object.__new__(type(self))
        clone._use(self._hub)
        return clone

    def close(self) -> None:
        """End the bus, from any thread. Readers get what is in the ring, then end; waiting senders get BusClosed.

        A second call does nothing.
        """
        self._hub.close()

    def statistics(self) -> BusStatistics:
        """The books, at this moment."""
        hub = self._hub
        now = time_ns()
        with hub.lock:
            subscriptions = [reader for weak in list(hub.readers.values()) if (reader := weak()) is not None]
            return BusStatistics(
                id=hub.id,
                source=hub.source,
                capacity=hub.ring.capacity,
                closed=hub.closed,
                published_by_priority=hub.ring.heads(),
                subscriptions=tuple(reader.statistics(now) for reader in subscriptions),
                departed_missed=hub.departed_missed,
                waiting_senders=sum(len(queue) for queue in hub.senders.values()),
            )
