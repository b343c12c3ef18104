"""Many threads, several loops: the law holds, nobody is forgotten."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from opsml_eventbus import EventBus
from opsml_eventbus.errors import BusClosed, Lagged, WouldBlock
from opsml_eventbus.event import Event, Gap, Priority


@pytest.fixture(autouse=True)
def _switching_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def start(*functions: Any) -> list[threading.Thread]:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"


@pytest.mark.parametrize("seed", range(4))
def test_received_plus_filtered_plus_missed_equals_published_from_many_threads(seed: int):
    bus = EventBus(64)
    readers: list[tuple[Any, list[Event], list[int]]] = []
    errors: list[BaseException] = []

    def publish(name: int) -> None:
        dice = random.Random(seed * 100 + name)
        for value in range(1500):
            priority = Priority(dice.choice([1, 1, 1, 1, 0, 2, 3]))
            bus.publish(Event.new("n", (name, value), priority=priority))

    def read(number: int) -> None:
        async def main() -> None:
            dice = random.Random(seed * 10 + number)
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    options: dict[str, Any] = {"order": dice.choice(["priority", "published"])}
                    if dice.random() < 0.3:
                        options["where"] = lambda event: event.data[1] % 3 == 0
                    if dice.random() < 0.2:
                        options["overflow"] = "disconnect"
                    group.create_task(follow(bus.subscribe(**options), dice))

        async def follow(subscription: Any, dice: random.Random) -> None:
            seen: list[Event] = []
            gaps: list[int] = []
            readers.append((subscription, seen, gaps))
            ready.release()
            try:
                while True:
                    stream = subscription.item_batches(dice.choice([1, 7, 100]))
                    try:
                        batch = await asyncio.wait_for(anext(stream), dice.choice([0.0005, 30]))
                    except TimeoutError:
                        continue
                    for item in batch:
                        if isinstance(item, Gap):
                            gaps.append(item.missed or 0)
                        else:
                            seen.append(item)
            except (StopAsyncIteration, Lagged):
                return

        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    ready = threading.Semaphore(0)
    reading = start(*[lambda number=number: read(number) for number in range(2)])
    for _ in range(6):
        assert ready.acquire(timeout=30)
    join(start(*[lambda name=name: publish(name) for name in range(3)]))
    bus.close()
    join(reading)
    assert not errors
    assert bus.statistics().published == 4500
    for subscription, seen, gaps in readers:
        total = subscription.received + subscription.filtered + subscription.missed
        if subscription._overflow == "disconnect":
            assert total <= 4500
        else:
            assert total == 4500
            assert subscription.missed == sum(gaps)
        assert subscription.received == len(seen) == len({event.id for event in seen})
        for name in range(3):
            for priority in Priority:
                mine = [event.data[1] for event in seen if event.data[0] == name and event.priority is priority]
                assert mine == sorted(mine)
            if subscription._cursor.order == "published":
                mine = [event.data[1] for event in seen if event.data[0] == name]
                assert mine == sorted(mine), "published order is the order in which each thread published"


def test_lossless_under_threads_loses_nothing_and_refuses_the_rest():
    bus = EventBus(8)
    accepted: list[list[int]] = [[], [], []]
    seen: list[tuple[int, int]] = []

    def publish(name: int) -> None:
        for value in range(2000):
            try:
                bus.publish(Event.new("n", (name, value), priority=Priority(value % 2)))
            except WouldBlock:
                continue
            accepted[name].append(value)

    async def read() -> None:
        async with bus.subscribe(overflow="block", order="published") as subscription:
            ready.set()
            async for batch in subscription.batches(5):
                seen.extend(event.data for event in batch)
            assert subscription.missed == 0

    ready = threading.Event()
    reading = start(lambda: asyncio.run(read()))
    assert ready.wait(30)
    join(start(*[lambda name=name: publish(name) for name in range(3)]))
    bus.close()
    join(reading)
    for name in range(3):
        assert [value for one, value in seen if one == name] == accepted[name]
    assert len(seen) == bus.statistics().published


def test_senders_on_several_loops_are_all_served():
    bus = EventBus(2)

    def send(name: int) -> None:
        async def main() -> None:
            for value in range(200):
                await bus.send(Event.new("n", (name, value)))

        asyncio.run(main())

    async def read() -> list[Any]:
        subscription = bus.subscribe(overflow="block")
        ready.set()
        seen = []
        async for event in subscription:
            seen.append(event.data)
            if len(seen) == 600:
                break
        return seen

    ready = threading.Event()
    results: list[Any] = []
    reading = start(lambda: results.append(asyncio.run(asyncio.wait_for(read(), 60))))
    assert ready.wait(30)
    join(start(*[lambda name=name: send(name) for name in range(3)]))
    join(reading)
    for name in range(3):
        assert [value for one, value in results[0] if one == name] == list(range(200))
    assert not bus._hub.senders


def test_close_from_anywhere_while_everyone_is_busy():
    for _ in range(20):
        bus = EventBus(16)
        published = [0, 0]

        def publish(name: int, bus: EventBus = bus, published: list[int] = published) -> None:
            try:
                while True:
                    bus.publish(Event.new("n", name))
                    published[name] += 1
            except BusClosed:
                return

        subscription = bus.subscribe()

        async def read(bus: EventBus = bus, subscription: Any = subscription) -> None:
            async for _ in subscription.batches():
                pass
            assert subscription.received + subscription.missed == bus.statistics().published

        threads = start(lambda: publish(0), lambda: publish(1), lambda: asyncio.run(read()))
        while sum(published) < 500:
            pass
        bus.close()
        join(threads)
        # What `publish` did not refuse is in the stream, and nothing else is.
        assert bus.statistics().published == sum(published)
