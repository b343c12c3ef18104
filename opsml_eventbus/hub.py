"""What the publishing and the reading halves of one bus share: the ring, its lock, who waits, and who may not miss.

**Why no wake-up is lost.** A publisher appends, then takes a step of the bell. A reader arms the bell, then looks at
the lane once more, and only then sleeps. Either the append came first: then the reader finds the event. Or arming came
first: then the publisher's step finds the bell armed. There is no third. The same holds for a reader that lingers (its
bell rings later) and for an append that comes too late for `close` (it is rung, and takes itself back). This needs
`list.append`, a step of an iterator and reading an attribute to be atomic, and seen in order by every thread: the GIL.
On a free-threaded build that runs without it, `EventBus` refuses to be made.

**Why the last place is given once.** The bell before a full lossless reader has as many steps as there are places.
When two threads race for the last place, one of them finds no step left; if its own event is beyond the limit it takes
it back, and if the other's is, that one stays, unread, until the reader moves: one too many, nobody's loss.

**Why the lock is re-entrant.** A finaliser may run inside any allocation, and may publish or drop a subscription. What
is done under the lock is in order before anything is let go.
"""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop, Future
from asyncio.events import _get_running_loop
from collections import Counter, deque
from collections.abc import Callable, Iterable
from threading import RLock
from time import time_ns
from typing import Any, Protocol
from uuid import uuid4
from weakref import ref

from .errors import BusClosed, TypeRefused, WouldBlock
from .event import Event, Gap, Payload, Priority, check_type, new_id
from .ring import GAPS, NEVER, SIDE, Cursor, Ring
from .statistics import SubscriptionStatistics

logger = logging.getLogger("opsml_eventbus")

_MAX_ADMITTED = 1024  # type names remembered as good; a stranger's names must not fill the memory
_NORMAL = Priority.NORMAL


class Reader(Protocol):
    """What the hub knows of a subscription."""

    def statistics(self, now: int) -> SubscriptionStatistics:
        """Lock held. now: ns since the epoch."""

    prompt: bool  # rousing it runs nothing of the user's, so that a publisher may do it

    def rouse(self) -> None:
        """There may be something new. Called in the reader's loop."""

    def alert(self) -> None:
        """The bus has more than one lane from now on. Called with the lock held."""


class Ticket:
    """A sender that waits for a place, and what it brings."""

    __slots__ = ("event", "future", "loop", "served")

    def __init__(self, event: Event, loop: AbstractEventLoop) -> None:
        self.event = event
        self.loop = loop
        self.future: Future[None] = loop.create_future()
        self.served = False  # it is in the ring: too late to take back


class Hub:
    """The shared state of a bus and its clones. Methods take the lock unless they say that it is held."""

    __slots__ = (
        "admitted",
        "closed",
        "departed_missed",
        "id",
        "lock",
        "lossless",
        "parked",
        "publish",
        "readers",
        "ring",
        "senders",
        "source",
    )

    def __init__(self, capacity: int, source: str) -> None:
        self.id = uuid4().hex
        self.source = source
        self.ring = Ring(capacity, source)
        self.lock = RLock()
        self.closed = False
        self.admitted: set[str] = set()
        self.readers: dict[int, ref[Reader]] = {}
        self.lossless: dict[int, Cursor] = {}
        self.parked: dict[AbstractEventLoop, dict[Reader, None]] = {}
        self.senders: dict[Priority, deque[Ticket]] = {}
        self.departed_missed = 0
        self.publish = self._publisher()

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────

    def _publisher(self) -> Callable[..., Event]:
        # A plain function over few names, because this is the one place where it is felt: a bound method with a default
        # costs a third more, and so does asking for an object's class.
        ring, items, admitted, rung, otherwise = (
            self.ring,
            self.ring.main.items,
            self.admitted,
            self._rung,
            self._stamped,
        )

        usual = ""  # the type of most events: one comparison instead of a look-up

        def publish(what: Any, priority: Priority | None = None) -> Event:
            nonlocal usual
            try:
                ready = what.__eventbus_lane__ is _NORMAL and (what.type is usual or what.type in admitted)
            except AttributeError:
                ready = False
            if not ready:
                event = otherwise(what, priority)
                usual = usual or event.type
                return event
            items.append(what)
            for _ in ring.bell:
                return what  # type: ignore[no-any-return]  # only an Event has that lane
            return rung(what)

        return publish

    def _stamped(self, what: Any, priority: Priority | None) -> Event:
        """Publish what is not a ready event of the main lane and of a known type."""
        if priority is None and (name := getattr(what.__class__, "__event_type__", "")):
            now = time_ns()  # as `stamp`, which takes longer over it
            event = Event(new_id(now), self.source, name, now, what)
        else:
            event = self.stamp(what, priority)
        if event.priority is not _NORMAL:
            return self._publish_aside(event)
        self.ring.main.items.append(event)
        for _ in self.ring.bell:
            return event
        return self._rung(event)

    def stamp(self, what: object, priority: Priority | None = None) -> Event:
        """An event that may be published, from a payload or as it is.

        Raises TypeRefused: a type of ours, or a payload whose class is not registered.
        Raises TypeError: neither a Payload nor an Event.
        """
        if isinstance(what, Payload):
            name = type(what).__event_type__
            if not name:
                raise TypeRefused(type(what).__qualname__, "its class is not registered: @event_type does that")
            now = time_ns()
            if priority is None:
                return Event(new_id(now), self.source, name, now, what)
            return Event(new_id(now), self.source, name, now, what, Priority(priority))
        if not isinstance(what, Event):
            hint = "; a Gap is passed on by pass_gap" if isinstance(what, Gap) else ""
            raise TypeError(f"a bus takes a Payload or an Event, not {type(what).__qualname__}{hint}")
        if what.priority.__class__ is not Priority:
            what = what.replace(priority=Priority(what.priority))
        if what.type not in self.admitted:
            check_type(what.type, what.content)
            if len(self.admitted) >= _MAX_ADMITTED:
                self.admitted.clear()
            self.admitted.add(what.type)
        return what

    def publish_many(self, whats: Iterable[Event | Payload], priority: Priority | None) -> list[Event]:
        """All or, where a lossless reader has no place for all, none."""
        stamp, admitted = self.stamp, self.admitted
        events = [
            what if what.__class__ is Event and what.type in admitted else stamp(what, priority) for what in whats
        ]
        ring, main = self.ring, self.ring.main
        with self.lock:
            if self.closed:
                raise BusClosed
            ring.arm()
            if self.lossless:
                self._measure()
                self._admit()
                counts = Counter(event.priority for event in events)
                if any(count > self._room(priority) for priority, count in counts.items()):
                    self._set_bell()
                    raise WouldBlock
            old: list[Event | Gap] = []
            if not [1 for event in events if event.priority is not _NORMAL]:
                main.items.extend(events)
            else:
                self._split()
                for event in events:
                    if event.priority is _NORMAL:
                        main.items.append(event)
                    else:
                        old += ring.put_aside(event, SIDE[event.priority])
            if ring.overfull and ring.take_all_back(events):
                self._set_bell()
                raise WouldBlock  # publishers on other threads took some of the places meanwhile
            old += ring.cut()
            self._wake()
        del old
        return events

    def _publish_aside(self, event: Event) -> Event:
        with self.lock:
            if self.closed:
                raise BusClosed
            if self.lossless and self._room(event.priority) <= 0:
                raise WouldBlock
            self._split()
            old = self.ring.put_aside(event, SIDE[event.priority])
            self._wake()
        del old
        return event

    def pass_gap(self, gap: Gap) -> None:
        """Put a Gap from upstream into every stream, in its place. It takes no event's place."""
        with self.lock:
            if self.closed:
                raise BusClosed
            self._split()
            old = self.ring.put_aside(gap, GAPS)
            self._wake()
        del old

    def _rung(self, event: Event) -> Event:
        """The bell rang for an append to the main lane. Returns the event, or raises because it has no place."""
        ring = self.ring
        self.lock.acquire()  # `with` costs twice as much, and this is where a reader is woken
        try:
            if ring.limit is not NEVER and ring.overfull and not self._fits(event):
                raise BusClosed if self.closed else WouldBlock
            old = ring.cut() if len(ring.main.items) > ring.most else None
            self._wake()
        finally:
            self.lock.release()
        del old
        return event

    def _fits(self, event: Event) -> bool:
        """Lock held, the ring overfull: is there a place for this event after all? If not, it has not happened."""
        if not self.closed:
            self._measure()
            self._admit()
        if not (self.ring.overfull and self.ring.take_back(event)):
            return True
        self._set_bell()
        return False

    # ── lossless readers and the senders that wait for them ──────────────────────────────────────────────────────

    def offer(self, event: Event, loop: AbstractEventLoop) -> Ticket | None:
        """Publish, or queue behind the senders that wait already."""
        with self.lock:
            if self.closed:
                raise BusClosed
            queue = self.senders.get(event.priority)
            if not queue:
                try:
                    self.publish(event)
                except WouldBlock:
                    pass
                else:
                    return None
            ticket = Ticket(event, loop)
            if queue is None:
                queue = self.senders[event.priority] = deque()
            queue.append(ticket)
            self.make_room()
            return ticket

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a ticket out of the queue. False: it was served, the event is published."""
        with self.lock:
            if ticket.served:
                return False
            queue = self.senders.get(ticket.event.priority)
            if queue is not None and ticket in queue:
                queue.remove(ticket)
                if not queue:
                    del self.senders[ticket.event.priority]
            return True

    def expire(self, ticket: Ticket) -> None:
        """Its time is over."""
        if self.withdraw(ticket):
            resolve(ticket.future, TimeoutError("no place in time: a lossless subscriber is full"))

    def make_room(self) -> None:
        """Lock held: a lossless reader has moved on or left; let in who waits."""
        if not self.closed:
            hidden = self.ring.overfull
            self._measure()
            self._admit()
            if hidden:
                self._wake()  # what stood beyond the limit is published now
            else:
                self._set_bell()

    def _measure(self) -> None:
        """Lock held: find the limit that the slowest lossless reader sets."""
        readers = list(self.lossless.values())  # a copy: a finaliser may take one out meanwhile
        self.ring.limit = min(cursor.at for cursor in readers) + self.ring.capacity if readers else NEVER

    def _room(self, priority: Priority) -> int:
        ring = self.ring
        if priority is _NORMAL:
            return ring.limit - ring.main.head
        if not ring.sides:
            return ring.capacity
        index = SIDE[priority]
        places = [cursor.side[index] if cursor.side else 0 for cursor in list(self.lossless.values())]
        return min(places) + ring.capacity - ring.sides[index].head if places else NEVER

    def _admit(self) -> None:
        """Lock held: put the events of waiting senders into the places there are, in the order they came."""
        served = False
        for priority, queue in list(self.senders.items()):
            while queue and self._room(priority) > 0:
                ticket = queue.popleft()
                if not self._serve(ticket):
                    queue.appendleft(ticket)  # a publisher on another thread took the place
                    break
                served = True
            if not queue:
                self.senders.pop(priority, None)
        if served:
            self._wake()

    def _serve(self, ticket: Ticket) -> bool:
        event, ring = ticket.event, self.ring
        if event.priority is _NORMAL:
            ring.main.items.append(event)
            if ring.overfull and ring.take_back(event):
                return False
            ring.cut()
        else:
            self._split()
            ring.put_aside(event, SIDE[event.priority])
        ticket.served = True
        _settle(ticket, None)
        return True

    # ── readers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self, key: int, reader: ref[Reader], cursor: Cursor, *, lossless: bool) -> None:
        """Lock held: a subscription begins."""
        self.readers[key] = reader
        if lossless:
            self.lossless[key] = cursor
            self.ring.arm()
            self._measure()
            self._set_bell()

    def leave(self, key: int, missed: int) -> None:
        """A subscription has ended. What waited for it waits no longer."""
        with self.lock:
            if self.readers.pop(key, None) is not None:
                self.departed_missed += missed
            if self.lossless.pop(key, None) is not None:
                self.make_room()

    def park(self, loop: AbstractEventLoop, reader: Reader, target: int | None = None) -> None:
        """Lock held: rouse this reader at the next event, or once the main lane has reached `target`."""
        self.parked.setdefault(loop, {})[reader] = None
        if target is None or len(self.parked) > 1 or len(self.parked[loop]) > 1:
            self.ring.arm()
        else:
            self.ring.set_bell(target)

    def unpark(self, loop: AbstractEventLoop, reader: Reader) -> None:
        """Lock held: it waits no longer."""
        readers = self.parked.get(loop)
        if readers is not None:
            readers.pop(reader, None)
            if not readers:
                del self.parked[loop]

    def _wake(self) -> None:
        """Lock held: rouse whoever is parked, each loop with one call, however many they are."""
        parked = self.parked
        if not parked:
            self._set_bell()
            return
        # The bell stays armed: these readers will mostly be parked again before the next event. If they are not, that
        # one is rung, finds nobody parked, and sets the bell.
        self.parked = {}
        here = _get_running_loop()
        for loop, readers in parked.items():
            if loop is not here:
                call_in(loop, _rouse, readers)
                continue
            if len(readers) == 1:
                (reader,) = readers
                if reader.prompt:
                    reader.rouse()
                    continue
            loop.call_soon(_rouse, readers)

    def _set_bell(self) -> None:
        if self.closed or self.parked:
            self.ring.arm()
        else:
            self.ring.set_bell()

    def _split(self) -> None:
        """Lock held: from now on there is more than one lane, if there was not."""
        if self.ring.sides:
            return
        self.ring.split()
        for weak in list(self.readers.values()):
            reader = weak()
            if reader is not None:
                reader.alert()

    def close(self) -> None:
        """End the bus: what is in the ring can still be read, nothing comes after it."""
        with self.lock:
            if self.closed:
                return
            # In this order: an append that is too late for the limit must find the bell armed.
            self.closed = True
            self.ring.arm()
            self.ring.limit = self.ring.main.head
            senders, self.senders = self.senders, {}
            for queue in senders.values():
                for ticket in queue:
                    _settle(ticket, BusClosed())
            self._wake()
        logger.debug("bus %s closed", self.id)


def _settle(ticket: Ticket, error: Exception | None) -> None:
    if ticket.loop is _get_running_loop():
        resolve(ticket.future, error)
    else:
        call_in(ticket.loop, resolve, ticket.future, error)


def resolve(future: Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _rouse(readers: dict[Reader, None]) -> None:
    for reader in list(readers):
        reader.rouse()


def call_in(loop: AbstractEventLoop, callback: Callable[..., None], *args: object) -> None:
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
        # Its loop was closed while it waited: nobody is left to be told.
