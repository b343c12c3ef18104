"""What a program needs to test itself against a bus: without a sleep, and with words for what it expects.

    bus = EventBus()
    with bus_watched(bus) as seen:
        my_program(bus)
        assert_received(seen, AuditEvent(operation="Delete"), InvoicePaid("7", 100))
        assert_nothing(seen)

The assertions take what is there and never wait. They raise AssertionError, and say what came instead.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .bus import EventBus
from .event import Event, Gap, GapReason, Payload
from .filter import Filter
from .flow import Ack, Batch, Record, Sink, Source, Start
from .subscription import Subscription

_ANY: Any = object()


class ManualClock:
    """A clock that stands still until it is moved. Call it for the time in ns since the epoch."""

    def __init__(self, now: int = 1_700_000_000_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it; backwards too, as real clocks do."""
        self.now += round(seconds * 1_000_000_000)


@contextmanager
def bus_watched(bus: EventBus) -> Iterator[Subscription[Any]]:
    """A subscription to everything on the bus, in the order of publication, for the length of a `with` block."""
    subscription = bus.subscribe(order="published")
    try:
        yield subscription
    finally:
        subscription.close()


def assert_received(subscription: Subscription[Any], *expected: Event | Payload) -> list[Event]:
    """These are the next events of the subscription, in this order; payloads are compared by value.

    Returns the events.
    """
    events: list[Event] = []
    for number, wanted in enumerate(expected, 1):
        item = _next(subscription)
        if not isinstance(item, Event):
            raise AssertionError(f"event {number}: expected {wanted!r}, {_tell(item)}")  # noqa: TRY004 - it is a test
        if (item if isinstance(wanted, Event) else item.data) != wanted:
            raise AssertionError(f"event {number}: expected {wanted!r}, received {item!r}")
        events.append(item)
    return events


def assert_gap(
    subscription: Subscription[Any], missed: int | None = _ANY, reason: GapReason = _ANY, after: str | None = _ANY
) -> Gap:
    """The next item of the subscription is a Gap, with these members where they are given. Returns it."""
    item = _next(subscription)
    if not isinstance(item, Gap):
        raise AssertionError(f"expected a gap, {_tell(item)}")  # noqa: TRY004 - it is a test
    for name, wanted in (("missed", missed), ("reason", reason), ("after", after)):
        if wanted is not _ANY and getattr(item, name) != wanted:
            raise AssertionError(f"expected a gap with {name} {wanted!r}, it has {getattr(item, name)!r}: {item!r}")
    return item


def assert_nothing(subscription: Subscription[Any]) -> None:
    """There is nothing to read."""
    item = _next(subscription)
    if item is not None:
        raise AssertionError(f"expected nothing, {_tell(item)}")


def assert_all_accounted_for(subscription: Subscription[Any], published: int) -> None:
    """The bus's law: received + filtered + missed + unread == published since the subscription began."""
    parts = {name: getattr(subscription, name) for name in ("received", "filtered", "missed", "unread")}
    if sum(parts.values()) != published:
        raise AssertionError(f"{published} published, but {' + '.join(f'{v} {k}' for k, v in parts.items())}")


def _next(subscription: Subscription[Any]) -> Event | Gap | None:
    while not (items := subscription.drain(1)) and subscription.unread:
        pass  # a filter had a lot to look at
    return items[0] if items else None


def _tell(item: Event | Gap | None) -> str:
    return "there is nothing" if item is None else f"there is {item!r}"


class ScriptedSource(Source):
    """A source that plays a script: Events and Gaps in batches of one, exceptions where they stand.

    Payloads become events of source `script`. committed: the positions that were committed; a position is the number
    of steps played so far.
    """

    name = "script"

    def __init__(self, *script: Event | Gap | Payload | Exception) -> None:
        self.script = script
        self.committed: list[int] = []

    @property
    def finite(self) -> bool:
        """It ends."""
        return True

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source. `start` is a matter of real sources and not looked at, but for the times."""
        for position, step in enumerate(self.script, 1):
            if isinstance(step, Exception):
                raise step
            item = Event.new(step.__event_type__, step, source=self.name) if isinstance(step, Payload) else step
            wanted = isinstance(item, Gap) or (start.admits(item) and (where is None or where.matches(item)))
            yield Batch([Record(item)] if wanted else [], position, isinstance(item, Event))

    async def commit(self, position: object) -> None:
        """See Source."""
        assert isinstance(position, int)
        self.committed.append(position)


class ListSink(Sink):
    """A sink that keeps what it is given in `items`, and refuses the writes it was told to refuse.

    failures: what the next writes raise, one each; None lets one through.
    """

    name = "list"

    def __init__(self, failures: Iterable[Exception | None] = ()) -> None:
        self.items: list[Event | Gap] = []
        self._failures = iter(failures)

    @property
    def events(self) -> list[Event]:
        """The items without the Gaps."""
        return [item for item in self.items if isinstance(item, Event)]

    async def write(self, batch: Batch) -> Ack:
        """See Sink."""
        failure = next(self._failures, None)
        if failure is not None:
            raise failure
        self.items += [record.item for record in batch.records]
        return Ack(len(batch.records), durable=True)
