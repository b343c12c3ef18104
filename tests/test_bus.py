"""What a bus promises, one sentence at a time."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys
import time
from pathlib import Path

import pytest

from opsml_eventbus import AuditEvent, EventBus, SpaceNameEvent, event_type
from opsml_eventbus.errors import BusClosed, TypeRefused
from opsml_eventbus.event import Event, Gap, Payload, Priority
from opsml_eventbus.testing import assert_all_accounted_for, assert_gap, assert_nothing, assert_received, bus_watched


def numbers(*values: int, priority: Priority = Priority.NORMAL) -> list[Event]:
    return [Event.new("n", value, priority=priority) for value in values]


def data(items) -> list:
    return [f"gap {item.missed}" if isinstance(item, Gap) else item.data for item in items]


# ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_payload_is_stamped():
    bus = EventBus(source="here")
    before = time.time_ns()
    event = bus.publish(AuditEvent(username="ada"), priority=Priority.HIGH)
    assert before <= event.time <= time.time_ns()
    assert (event.source, event.type, event.data, event.priority) == (
        "here",
        "audit",
        AuditEvent(username="ada"),
        Priority.HIGH,
    )
    assert event.id != bus.publish(AuditEvent()).id


def test_a_ready_event_is_kept_as_it_is():
    bus = EventBus()
    ready = Event.new("x", {"a": 1}, id="mine", source="elsewhere", time=5, priority=Priority.LOW, replay="again")
    with bus_watched(bus) as seen:
        assert bus.publish(ready) is ready
        assert seen.drain() == [ready]


def test_publishing_to_nobody_is_no_error():
    bus = EventBus(2)
    for number in range(10):
        bus.publish(Event.new("n", number))
    assert bus.statistics().published == 10


def test_types_of_the_bus_s_own_are_refused():
    bus = EventBus()
    own = Event("id", "source", "eventbus.journal.seal", 0, None)
    for publish in (bus.publish, lambda event: bus.publish_many([event]), lambda event: asyncio.run(bus.send(event))):
        with pytest.raises(TypeRefused):
            publish(own)
    assert bus.statistics().published == 0


def test_a_payload_without_a_type_is_refused_by_its_class_s_name():
    class Nameless(Payload):
        a: int

    with pytest.raises(TypeRefused, match="Nameless"):
        EventBus().publish(Nameless(1))


@pytest.mark.parametrize("what", [{"a": 1}, "text", None, AuditEvent, Gap.new(1, None, "lag")])
def test_what_is_no_event_is_a_type_error(what):
    bus = EventBus()
    with pytest.raises(TypeError, match="a Payload or an Event"):
        bus.publish(what)
    assert bus.statistics().published == 0


def test_a_payload_may_have_fields_called_as_an_event_s_are():
    @event_type("test.mimic")
    class Mimic(Payload):
        type: str
        priority: Priority = Priority.NORMAL

    bus = EventBus()
    bus.publish(Event.new("audit", {}))
    with bus_watched(bus) as seen:
        assert bus.publish(Mimic("audit")).type == "test.mimic"
        assert_received(seen, Mimic("audit"))


def test_a_priority_may_be_given_as_a_number():
    bus = EventBus()
    assert bus.publish(AuditEvent(), priority=3).priority is Priority.CRITICAL
    with pytest.raises(ValueError):
        bus.publish(AuditEvent(), priority=4)


def test_many_are_published_as_one():
    bus = EventBus()
    with bus_watched(bus) as seen:
        events = bus.publish_many([AuditEvent(), *numbers(1, 2), *numbers(3, priority=Priority.HIGH), *numbers(4)])
        assert seen.drain() == events
    with pytest.raises(TypeError):
        bus.publish_many([AuditEvent(), "no event"])
    assert bus.statistics().published == 5


def test_a_clone_is_the_same_bus():
    bus = EventBus(7, "here")
    clone = bus.clone()
    assert (clone.id, clone.capacity, clone.source) == (bus.id, 7, "here")
    assert EventBus().id != bus.id
    with bus_watched(bus) as seen:
        clone.publish(AuditEvent())
        assert_received(seen, AuditEvent())
    clone.close()
    assert bus.closed


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_bus_without_a_place_is_no_bus(capacity):
    with pytest.raises(ValueError, match="at least 1"):
        EventBus(capacity)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_subscription_begins_at_subscribe_not_at_the_first_await():
    async def main():
        bus = EventBus()
        bus.publish(Event.new("n", 0))
        subscription = bus.subscribe()
        bus.publish_many(numbers(1, 2))
        bus.close()
        assert data([event async for event in subscription]) == [1, 2]

    asyncio.run(main())


def test_events_gaps_and_batches_are_three_views_of_one_place():
    async def main():
        bus = EventBus(8)
        subscription = bus.subscribe()
        bus.publish_many(numbers(*range(10)))
        items = subscription.items()
        assert data([await anext(items), await anext(items)]) == ["gap 2", 2]
        assert (await anext(subscription)).data == 3
        async for event in subscription:
            assert event.data == 4
            break
        assert data(await anext(subscription.batches(2))) == [5, 6]
        assert (await anext(subscription)).data == 7
        assert data(await anext(subscription.item_batches())) == [8, 9]
        assert_nothing(subscription)
        assert_all_accounted_for(subscription, 10)

    asyncio.run(main())


def test_a_reader_that_waits_is_woken():
    async def main():
        bus = EventBus()
        async with bus.subscribe() as subscription:
            reading = asyncio.create_task(anext(subscription))
            await asyncio.sleep(0)
            bus.publish(Event.new("n", 1))
            assert (await reading).data == 1
            batch = asyncio.ensure_future(anext(subscription.batches()))
            await asyncio.sleep(0)
            bus.publish_many(numbers(2, 3))
            assert data(await batch) == [2, 3]

    asyncio.run(main())


def test_every_reader_gets_every_event():
    async def main():
        bus = EventBus()

        async def read(subscription):
            return [event.data async for event in subscription]

        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read(bus.subscribe())) for _ in range(20)]
            for number in range(300):
                bus.publish(Event.new("n", number))
                if number % 50 == 0:
                    await asyncio.sleep(0)
            bus.close()
        assert all(reader.result() == list(range(300)) for reader in readers)

    asyncio.run(main())


def test_what_is_too_late_is_one_gap_that_says_how_many_and_after_what():
    bus = EventBus(3)
    with bus_watched(bus) as seen:
        first = bus.publish(Event.new("n", 0))
        assert_received(seen, first)
        bus.publish_many(numbers(1, 2, 3, 4, 5))
        gap = assert_gap(seen, missed=2, reason="lag", after=first.id)
        assert gap.source == bus.source
        assert data(seen.drain()) == [3, 4, 5]
        assert seen.missed == 2


def test_events_alone_are_counted_when_they_are_missed():
    async def main():
        bus = EventBus(2)
        async with bus.subscribe() as subscription:
            bus.publish_many(numbers(*range(5)))
            bus.close()
            assert data([event async for event in subscription]) == [3, 4]
            assert (subscription.received, subscription.missed) == (2, 3)

    asyncio.run(main())


def test_a_batch_waits_only_when_there_is_nothing():
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        bus.publish_many(numbers(1, 2))
        batches = subscription.batches(max_size=5)
        assert data(await anext(batches)) == [1, 2]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(batches), 0.01)
        bus.publish_many(numbers(*range(7)))
        assert data(await anext(batches)) == [0, 1, 2, 3, 4]
        assert data(await anext(batches)) == [5, 6]
        with pytest.raises(ValueError, match="at least 1"):
            subscription.batches(0)

    asyncio.run(main())


def test_a_batch_lingers_until_it_is_full():
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        batch = asyncio.ensure_future(anext(subscription.batches(max_size=3, max_wait=30)))
        for number in range(3):
            await asyncio.sleep(0)
            assert not batch.done()
            bus.publish(Event.new("n", number, priority=Priority(number + 1)))
        assert data(await batch) == [2, 1, 0]

    asyncio.run(main())


def test_a_batch_never_lingers_longer_than_it_may():
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        bus.publish(Event.new("n", 1))
        began = time.monotonic()
        assert data(await anext(subscription.batches(max_size=3, max_wait=0.05))) == [1]
        assert 0.04 < time.monotonic() - began < 5

    asyncio.run(main())


def test_lingering_ends_before_the_ring_overflows():
    async def main():
        bus = EventBus(4)
        subscription = bus.subscribe()
        batch = asyncio.ensure_future(anext(subscription.batches(max_size=100, max_wait=30)))
        for number in range(4):
            await asyncio.sleep(0)
            bus.publish(Event.new("n", number))
        assert data(await batch) == [0, 1, 2, 3]

    asyncio.run(main())


# ── selecting ────────────────────────────────────────────────────────────────────────────────────────────────────────


@event_type("test.animal")
class Animal(Payload):
    name: str


@event_type("test.cat")
class Cat(Animal):
    lives: int = 9


class OnlyOdd:
    def matches(self, event: Event) -> bool:
        return event.data % 2 == 1


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, 5),
        (AuditEvent, 1),
        (Animal, 2),
        (Cat, 1),
        ((AuditEvent, Cat), 2),
        ((AuditEvent, lambda event: event.type == "space_name"), 2),
        (lambda event: event.data == Animal("a"), 1),
    ],
)
def test_where_selects(where, expected):
    bus = EventBus()
    subscription = bus.subscribe(where)
    for payload in (AuditEvent(), SpaceNameEvent("a", "b", "c"), Animal("a"), Cat("b")):
        bus.publish(payload)
    bus.publish(Event.new("unregistered", 1))
    assert len(subscription.drain()) == expected
    assert (subscription.received, subscription.filtered) == (expected, 5 - expected)


def test_anything_that_matches_is_a_filter():
    bus = EventBus()
    subscription = bus.subscribe(OnlyOdd())
    bus.publish_many(numbers(*range(6)))
    assert data(subscription.drain()) == [1, 3, 5]


def test_a_type_that_is_registered_later_is_selected_from_then_on():
    bus = EventBus()
    subscription = bus.subscribe(Animal)
    bus.publish(Event.new("test.dog", {"name": "rex"}))
    assert_nothing(subscription)

    @event_type("test.dog")
    class Dog(Animal):
        pass

    bus.publish(Dog("rex"))
    assert_received(subscription, Dog("rex"))
    assert_nothing(subscription)


@pytest.mark.parametrize("where", [3, (), int, (int,), "audit"])
def test_a_where_that_means_nothing_is_refused(where):
    with pytest.raises(TypeError, match="where"):
        EventBus().subscribe(where)


@pytest.mark.parametrize("wrong", [{"overflow": "drop"}, {"order": "random"}, {"last": -1}])
def test_an_option_that_does_not_exist_is_refused_with_those_that_do(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EventBus().subscribe(**wrong)


def test_a_payload_is_matched_as_a_pattern():
    bus = EventBus()
    subscription = bus.subscribe()
    bus.publish(AuditEvent(status="Denied", username="eve"))
    match subscription.drain()[0].data:
        case AuditEvent(status="Denied", username=name):
            assert name == "eve"
        case other:
            pytest.fail(f"{other!r} did not match")


def test_a_filter_is_asked_without_waking_its_reader():
    async def main():
        bus = EventBus()
        subscription = bus.subscribe(lambda event: event.data == 99)
        reading = asyncio.create_task(anext(subscription))
        await asyncio.sleep(0)
        steps = []
        original = type(subscription)._park
        subscription_class = type(subscription)
        subscription_class._park = lambda self, need=1: steps.append(1) or original(self, need)
        try:
            for number in range(20):
                bus.publish(Event.new("n", number))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert steps == []
        finally:
            subscription_class._park = original
        assert subscription.filtered == 20
        bus.publish(Event.new("n", 99))
        assert (await reading).data == 99

    asyncio.run(main())


# ── priorities ───────────────────────────────────────────────────────────────────────────────────────────────────────


def publish_mixed(bus: EventBus) -> None:
    for number, priority in enumerate([1, 0, 3, 1, 2, 3, 0, 1]):
        bus.publish(Event.new("n", f"{Priority(priority).name[0]}{number}", priority=Priority(priority)))


def test_the_most_urgent_comes_first():
    bus = EventBus()
    subscription = bus.subscribe()
    publish_mixed(bus)
    assert data(subscription.drain()) == ["C2", "C5", "H4", "N0", "N3", "N7", "L1", "L6"]


def test_published_order_is_the_order_of_publication():
    bus = EventBus()
    subscription = bus.subscribe(order="published")
    publish_mixed(bus)
    assert data(subscription.drain()) == ["N0", "L1", "C2", "N3", "H4", "C5", "L6", "N7"]


@pytest.mark.parametrize("used_before", [False, True])
def test_what_is_urgent_overtakes_what_was_read_ahead(used_before: bool):
    async def main():
        bus = EventBus()
        if used_before:
            bus.publish(Event.new("n", "H", priority=Priority.HIGH))
        subscription = bus.subscribe()
        bus.publish_many(numbers(*range(10)))
        assert (await anext(subscription)).data == 0
        bus.publish(Event.new("n", "L", priority=Priority.LOW))
        bus.publish(Event.new("n", "C", priority=Priority.CRITICAL))
        assert data([await anext(subscription), await anext(subscription)]) == ["C", 1]
        bus.publish(Event.new("n", "H", priority=Priority.HIGH))
        items = subscription.items()
        assert data([await anext(items), await anext(items)]) == ["H", 2]
        bus.publish(Event.new("n", "C2", priority=Priority.CRITICAL))
        assert data(await anext(subscription.batches())) == ["C2", *range(3, 10), "L"]
        assert_all_accounted_for(subscription, 14)

    asyncio.run(main())


def test_a_flood_of_low_evicts_nothing_critical():
    bus = EventBus(4)
    subscriptions = [bus.subscribe(), bus.subscribe(order="published")]
    bus.publish(Event.new("n", "alarm", priority=Priority.CRITICAL))
    for number in range(1000):
        bus.publish(Event.new("n", number, priority=Priority.LOW))
    for subscription in subscriptions:
        assert "alarm" in data(subscription.drain())
        assert subscription.missed == 996


# ── from the ring's past ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("last", "expected"), [(0, []), (2, [3, 4]), (99, [1, 2, 3, 4]), ("all", [1, 2, 3, 4])])
def test_a_subscription_may_begin_with_the_last_that_are_there(last, expected):
    bus = EventBus(4)
    bus.publish_many(numbers(*range(5)))
    subscription = bus.subscribe(last=last)
    bus.publish(Event.new("n", "live"))
    items = data(subscription.drain())
    assert items in ([*expected, "live"], ["gap 1", *expected[1:], "live"])
    assert_all_accounted_for(subscription, len(expected) + 1)


def test_the_last_n_are_the_last_that_match():
    bus = EventBus()
    bus.publish_many(numbers(*range(100)))
    assert data(bus.subscribe(lambda event: event.data % 10 == 0, last=3).drain()) == [70, 80, 90]


def test_a_reader_goes_on_behind_the_event_it_had_last():
    bus = EventBus()
    events = bus.publish_many(numbers(*range(6)))
    assert data(bus.subscribe(after=events[3].id).drain()) == [4, 5]
    assert data(bus.subscribe(after=events[5].id).drain()) == []
    assert data(bus.subscribe(after=events[1].id, last=2).drain()) == [4, 5]


def test_a_place_that_is_gone_is_a_gap_of_unknown_size_and_then_all_there_is():
    bus = EventBus(4)
    events = bus.publish_many(numbers(*range(9)))
    for lost in (events[0].id, "never heard of"):
        subscription = bus.subscribe(after=lost)
        assert_gap(subscription, missed=None, reason="disconnect", after=lost)
        assert data(subscription.drain()) == [5, 6, 7, 8]
        assert subscription.missed == 0


@pytest.mark.parametrize("order", ["priority", "published"])
def test_a_gap_from_upstream_comes_in_its_place(order):
    bus = EventBus()
    subscription = bus.subscribe(lambda event: event.data != 1, order=order)
    bus.publish_many(numbers(0, 1))
    gap = Gap.new(12, "x", "disconnect")
    bus.pass_gap(gap)
    bus.publish_many(numbers(2))
    items = subscription.drain()
    assert data(items) == [0, "gap 12", 2]
    assert items[1] is gap
    assert subscription.missed == 0
    assert_all_accounted_for(subscription, 3)


@pytest.mark.parametrize("order", ["priority", "published"])
def test_one_drain_takes_everything_there_is_across_lanes_and_gaps(order):
    bus = EventBus()
    before = bus.subscribe(order=order)
    bus.publish_many(numbers(0))
    bus.pass_gap(Gap.new(1, None, "source"))
    bus.publish_many(numbers(1))
    after = bus.subscribe(order=order, last="all")
    for subscription in (before, after):
        assert data(subscription.drain()) == [0, "gap 1", 1]


def test_a_gap_wakes_who_waits():
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        reading = asyncio.ensure_future(anext(subscription.items()))
        await asyncio.sleep(0)
        bus.pass_gap(Gap.new(None, None, "source"))
        assert (await reading).reason == "source"

    asyncio.run(main())


# ── the books ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_statistics_tell_of_every_reader():
    async def main():
        bus = EventBus(4, source="here")
        lazy = bus.subscribe(AuditEvent, order="published")
        bus.publish(AuditEvent(), priority=Priority.HIGH)
        lazy.drain()
        reading = asyncio.ensure_future(anext(lazy))
        await asyncio.sleep(0)
        behind = bus.subscribe()
        bus.publish_many([Event.new("n", n, time=time.time_ns() - 10**9) for n in range(6)])
        books = bus.statistics()
        assert (books.id, books.source, books.capacity, books.closed) == (bus.id, "here", 4, False)
        assert (books.published, books.delivered, books.missed, books.waiting_readers) == (7, 1, 0, 1)
        first, second = books.subscriptions
        assert (first.received, first.unread, first.order, first.waiting) == (1, 6, "published", True)
        assert (second.unread, second.high_water, second.missed) == (6, 0, 0)
        assert 1 <= second.oldest_unread < 60
        behind.drain()
        second = bus.statistics().subscriptions[1]
        assert (second.received, second.missed, second.unread, second.high_water) == (4, 2, 0, 4)
        assert second.oldest_unread is None
        reading.cancel()

    asyncio.run(main())


def test_the_statistics_are_prometheus_text():
    bus = EventBus(4, source='a"b\\c\nd')
    subscription = bus.subscribe()
    bus.publish_many(numbers(*range(6)))
    subscription.drain()
    text = bus.statistics().prometheus()
    assert 'eventbus_published_total{source="a\\"b\\\\c\\nd",priority="normal"} 6\n' in text
    assert 'eventbus_missed_total{source="a\\"b\\\\c\\nd",subscription="0",overflow="drop_oldest"} 2\n' in text
    for line in text.splitlines():
        assert line.startswith(("# HELP eventbus_", "# TYPE eventbus_")) or line.rsplit(" ", 1)[1].isdigit()


def test_large_counts_are_not_rounded_in_prometheus_text():
    bus = EventBus(4)
    bus._hub.ring.main.base = 123_456_789
    assert 'priority="normal"} 123456789\n' in bus.statistics().prometheus()


def test_the_bus_logs_when_asked_to(caplog):
    bus = EventBus(2)
    with caplog.at_level(logging.DEBUG, logger="opsml_eventbus"), bus_watched(bus) as seen:
        bus.publish_many(numbers(*range(5)))
        seen.drain()
        bus.close()
    text = caplog.text
    assert all(word in text for word in ("began", "missed 3", "closed", "ended"))


def test_a_closed_bus_takes_nothing_more():
    bus = EventBus()
    bus.close()
    bus.close()
    for use in (
        lambda: bus.publish(AuditEvent()),
        lambda: bus.publish(Event.new("n", 1)),
        lambda: bus.publish(AuditEvent(), priority=Priority.HIGH),
        lambda: bus.publish_many([AuditEvent()]),
        lambda: bus.pass_gap(Gap.new(1, None, "lag")),
        lambda: asyncio.run(bus.send(AuditEvent())),
        bus.subscribe,
    ):
        with pytest.raises(BusClosed):
            use()
    assert bus.statistics().published == 0
    assert "closed" in repr(bus)


def test_the_wrong_way_loses_in_silence_and_the_right_way_tells():
    path = Path(__file__).parent.parent / "examples" / "the_wrong_way.py"
    spec = importlib.util.spec_from_file_location("the_wrong_way", path)
    assert spec is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules["the_wrong_way"] = example  # its dataclass looks for its module
    spec.loader.exec_module(example)
    got, longest = asyncio.run(example.wrong(bound=0))
    assert got == [example.EVENTS] * 3
    assert longest > example.EVENTS / 2, "a queue without a bound grows with its reader's lag"
    got, longest = asyncio.run(example.wrong(bound=example.BOUND))
    assert longest <= example.BOUND
    assert got[2] < example.EVENTS / 2, "a bounded queue drops, and nobody is told"
    accounts, held = asyncio.run(example.right())
    assert held == example.BOUND
    assert all(received + missed == example.EVENTS for received, missed in accounts)
    assert accounts[0] == accounts[1] == (example.EVENTS, 0)
    assert accounts[2][1] > 0
