"""Where a reader stands, said so that it can be found again: what reconnecting readers are built on."""

from __future__ import annotations

import asyncio

import pytest

from opsml_eventbus.bus import EventBus
from opsml_eventbus.event import Event, Gap, Priority


def publish(bus: EventBus, *ids: str, priority: Priority = Priority.NORMAL) -> None:
    for id_ in ids:
        bus.publish(Event.new("n", None, id=id_, priority=priority))


def ids(items: list[Event | Gap]) -> list[str]:
    return [item.id for item in items if isinstance(item, Event)]


def missed(items: list[Event | Gap]) -> int:
    return sum(item.missed or 0 for item in items if isinstance(item, Gap))


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.HIGH])
def test_from_the_beginning_on_nothing_is_missed_without_being_counted(priority: Priority):
    bus = EventBus(4)
    fresh = bus.subscribe(after="", order="published")
    publish(bus, *"abcdef", priority=priority)
    late = bus.subscribe(after="", order="published")
    assert (ids(late.drain()), late.missed) == (list("cdef"), 2)
    items = fresh.drain()
    assert (ids(items), missed(items), fresh.missed) == (list("cdef"), 2, 2)
    assert late.received + late.missed == bus.statistics().published


def test_from_the_beginning_on_all_there_was_when_nothing_is_gone():
    bus = EventBus(4)
    publish(bus, *"ab")
    publish(bus, "c", priority=Priority.LOW)
    publish(bus, "d")
    reader = bus.subscribe(after="", order="published")
    assert [item.id for item in reader.drain()] == list("abcd")
    assert reader.missed == 0


def test_draining_never_waits_and_takes_no_more_than_asked():
    bus = EventBus(8)
    reader = bus.subscribe()
    assert reader.drain() == []
    publish(bus, *"abc")
    assert ids(reader.drain(2)) == ["a", "b"]
    assert ids(reader.drain()) == ["c"]
    bus.close()
    assert reader.drain() == []


def test_a_position_is_a_place_to_go_on_from():
    async def main() -> None:
        bus = EventBus(1024)
        reader = bus.subscribe(lambda event: event.id in "dg", order="published")
        assert reader.position is None
        waiting = asyncio.ensure_future(anext(reader.item_batches()))
        await asyncio.sleep(0)
        publish(bus, *"abc")
        await asyncio.sleep(0)
        publish(bus, "d")
        assert ids(await waiting) == ["d"]
        assert reader.position == "d"
        publish(bus, *"ef")
        assert reader.drain() == []
        assert reader.position == "f"
        assert ids(bus.subscribe(after=reader.position).drain()) == []
        publish(bus, *"gh")
        assert ids(bus.subscribe(after=reader.position).drain()) == ["g", "h"]

    asyncio.run(main())


def test_there_is_no_position_inside_a_slice():
    async def main() -> None:
        bus = EventBus(8)
        reader = bus.subscribe()
        publish(bus, *"abc")
        await anext(reader)
        assert reader.position is None
        await anext(reader)
        await anext(reader)
        assert reader.position == "c"

    asyncio.run(main())
