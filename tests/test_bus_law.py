"""The law, whatever is done to a bus: received + filtered + missed + unread == published since the subscription began.

A Hypothesis state machine does everything a program can do, with every policy, order and mix of lanes, cancelled waits
included, and holds each reader to a model that knows what was published.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from opsml_eventbus import EventBus
from opsml_eventbus.errors import BusClosed, Lagged, WouldBlock
from opsml_eventbus.event import Event, Gap, Priority
from opsml_eventbus.subscription import Subscription

PRIORITIES = st.sampled_from([*Priority, Priority.NORMAL, Priority.NORMAL, Priority.NORMAL])


@dataclass
class Reader:
    """A subscription, and what the model knows of it."""

    subscription: Subscription[Any]
    overflow: str
    order: str
    keep: int  # events whose number is a multiple of it pass the filter; 0: no filter
    began: int  # events published before
    seen: list[Event] = field(default_factory=list)
    gaps: int = 0
    upstream: int = 0
    lagged: Lagged | None = None
    over: bool = False

    def matches(self, event: Event) -> bool:
        return not self.keep or event.data % self.keep == 0


class Everything(RuleBasedStateMachine):
    readers = Bundle("readers")

    @initialize(capacity=st.integers(1, 6))
    def begin(self, capacity: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.bus = EventBus(capacity)
        self.published: list[Event] = []
        self.alive: list[Reader] = []
        self.closed = False
        self.gaps = 0

    def _new(self, priority: Priority) -> Event:
        return Event.new("n", len(self.published), priority=priority)

    def _full(self, counts: dict[Priority, int]) -> bool:
        """Would a lossless reader have no place for so many more?"""
        for reader in self.alive:
            if reader.overflow != "block" or reader.over:
                continue
            for priority, count in counts.items():
                published = [event for event in self.published[reader.began :] if event.priority is priority]
                # It reads nothing ahead: what it has not gone past is what it has not been handed.
                gone = len([event for event in reader.seen if event.priority is priority])
                if not reader.keep and len(published) - gone + count > self.bus.capacity:
                    return True
        return False

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────

    @rule(priority=PRIORITIES)
    def publish(self, priority: Priority) -> None:
        self._publish(priority, self._full({priority: 1}))

    def _publish(self, priority: Priority, full: bool) -> None:
        event = self._new(priority)
        try:
            assert self.bus.publish(event) is event
        except WouldBlock:
            assert any(reader.overflow == "block" for reader in self.alive)
            return
        except BusClosed:
            assert self.closed
            return
        assert not full
        assert not self.closed
        self.published.append(event)

    @rule(priorities=st.lists(PRIORITIES, max_size=9))
    def publish_many(self, priorities: list[Priority]) -> None:
        events = [Event.new("n", len(self.published) + i, priority=p) for i, p in enumerate(priorities)]
        try:
            self.bus.publish_many(events)
        except (WouldBlock, BusClosed):
            return
        assert not self._full({p: priorities.count(p) for p in priorities})
        self.published += events

    @rule(priority=PRIORITIES, steps=st.integers(0, 4))
    def send_and_give_up(self, priority: Priority, steps: int) -> None:
        event = self._new(priority)

        async def main() -> None:
            sending = asyncio.create_task(self.bus.send(event))
            for _ in range(steps):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled() and isinstance(sending.exception(), BusClosed):
                assert self.closed

        before = self.bus.statistics().published
        self.loop.run_until_complete(main())
        if self.bus.statistics().published > before:
            self.published.append(event)

    @rule()
    def pass_gap(self) -> None:
        if not self.closed:
            self.bus.pass_gap(Gap.new(1000, None, "source"))
            self.gaps += 1

    # ── subscribing ──────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: not self.closed and len(self.alive) < 8)
    @rule(
        target=readers,
        overflow=st.sampled_from(["drop_oldest", "drop_oldest", "block", "disconnect"]),
        order=st.sampled_from(["priority", "published"]),
        keep=st.sampled_from([0, 0, 1, 2, 3]),
    )
    def subscribe(self, overflow: Any, order: Any, keep: int) -> Reader:
        where = (lambda event: event.data % keep == 0) if keep else None
        subscription = self.bus.subscribe(where, overflow=overflow, order=order)
        reader = Reader(subscription, overflow, order, keep, len(self.published))
        self.alive.append(reader)
        return reader

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, reader: Reader, items: list[Event | Gap]) -> None:
        for item in items:
            if isinstance(item, Event):
                assert not reader.over
                assert reader.matches(item)
                reader.seen.append(item)
            elif item.reason == "lag":
                assert reader.overflow == "drop_oldest"
                reader.gaps += item.missed or 0
            else:
                reader.upstream += 1

    @rule(reader=readers, size=st.integers(1, 70))
    def drain(self, reader: Reader, size: int) -> None:
        self._take(reader, reader.subscription.drain(size))

    @rule(
        reader=readers,
        view=st.sampled_from(["items", "batches", "lingering"]),
        steps=st.integers(0, 6),
        more=st.booleans(),
    )
    def wait_and_give_up(self, reader: Reader, view: str, steps: int, more: bool) -> None:
        subscription = reader.subscription
        stream: Any = {
            "items": subscription.items,
            "batches": lambda: subscription.item_batches(3),
            "lingering": lambda: subscription.item_batches(3, max_wait=0.0001),
        }[view]()

        async def main() -> None:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            if more:
                self._publish(Priority.NORMAL, full=False)  # what the reader was handed just now, we do not know yet
            for _ in range(steps):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            if waiting.cancelled():
                return
            error = waiting.exception()
            if error is None:
                result = waiting.result()
                self._take(reader, result if isinstance(result, list) else [result])
            elif isinstance(error, Lagged):
                reader.lagged = error
            else:
                assert isinstance(error, StopAsyncIteration)

        self.loop.run_until_complete(main())

    @rule(reader=readers)
    def read_one(self, reader: Reader) -> None:
        """By `anext`, where there is something: a reader that is the subscription's own iterator."""
        subscription = reader.subscription
        if reader.keep or not subscription.unread or reader.overflow == "disconnect":
            return
        missed = subscription.missed
        event = self.loop.run_until_complete(asyncio.wait_for(anext(subscription), 5))
        reader.gaps += subscription.missed - missed  # its Gaps are passed over
        self._take(reader, [event])
        if reader.order == "priority" and subscription._hub.ring.sides:
            known = {id(event) for event in reader.seen}
            waiting = [one for one in self.published[reader.began :] if id(one) not in known]
            higher = [one for one in waiting if one.priority > event.priority]
            # Whatever is more urgent and was not handed out has been lost.
            assert len(higher) <= subscription.missed

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(reader=consumes(readers))
    def leave(self, reader: Reader) -> None:
        unread, missed = reader.subscription.unread, reader.subscription.missed
        reader.subscription.close()
        assert reader.subscription.missed == missed + unread
        assert reader.subscription.unread == 0
        assert reader.subscription.drain() == []
        self._holds(reader)
        self.alive.remove(reader)

    @precondition(lambda self: len(self.published) > 20)
    @rule()
    def close(self) -> None:
        self.bus.close()
        self.closed = True

    # ── what must hold ───────────────────────────────────────────────────────────────────────────────────────────

    def _holds(self, reader: Reader) -> None:
        one = reader.subscription
        if one._live or not one._left:
            since = len(self.published) - reader.began
            if reader.overflow == "disconnect" and not one._live:
                since = one.received + one.filtered + one.missed  # it ended at some time before
                assert since <= len(self.published) - reader.began
            assert one.received + one.filtered + one.missed + one.unread == since
        assert one.received == len(reader.seen)

    @invariant()
    def the_law_holds(self) -> None:
        if not hasattr(self, "bus"):
            return
        assert self.bus.statistics().published == len(self.published)
        for reader in self.alive:
            self._holds(reader)
            one = reader.subscription
            if reader.overflow == "block":
                assert one.missed == 0
            numbers = [event.data for event in reader.seen]
            assert len(set(numbers)) == len(numbers)
            for priority in Priority:
                lane = [event.data for event in reader.seen if event.priority is priority]
                assert lane == sorted(lane)
            if reader.order == "published":
                assert numbers == sorted(numbers)

    def teardown(self) -> None:
        if not hasattr(self, "bus"):
            return
        try:
            self._settle_accounts()
        finally:
            self.loop.close()

    def _settle_accounts(self) -> None:
        self.bus.close()
        for reader in self.alive:
            one = reader.subscription
            while items := one.drain():
                self._take(reader, items)
            assert one.unread == 0
            self._holds(reader)
            if reader.overflow == "drop_oldest":
                assert reader.gaps == one.missed
            if reader.overflow == "block":
                wanted = [event for event in self.published[reader.began :] if reader.matches(event)]
                assert sorted(event.data for event in reader.seen) == [event.data for event in wanted]
        assert not self.bus._hub.senders
        assert not self.bus._hub.parked


TestEverything = Everything.TestCase
TestEverything.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
