"""What a publication costs, and what a reader costs that does nothing. Each figure is a ratio to something plain."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from statistics import median, quantiles
from time import perf_counter, perf_counter_ns
from typing import Any

from opsml_eventbus import AuditEvent, Event, EventBus

Timing = Callable[[], float]


def least(timings: dict[str, Timing], rounds: int) -> dict[str, float]:
    """The least time of each, all in turn, round after round: noise only ever adds, and adds to all alike."""
    best = dict.fromkeys(timings, float("inf"))
    for _ in range(rounds):
        for name, timing in timings.items():
            best[name] = min(best[name], timing())
    return best


def _each(function: Callable[[Any], object], values: Sequence[Any]) -> float:
    """Seconds for a for-loop that calls `function` with each value."""
    began = perf_counter()
    for value in values:
        function(value)
    return perf_counter() - began


def audit() -> AuditEvent:
    return AuditEvent(
        username="guest",
        client_ip="127.0.0.1",
        user_agent="opsml-client/",
        operation="Create",
        resource_type="Database",
        resource_id="01a20d2f-2a6e-768c-800a-1806e004a000",
        access_location=None,
        status="Success",
        error_message=None,
        metadata="{}",
        registry_type="prompt",
        route="/opsml/api/card/create",
    )


def publishing(count: int, rounds: int) -> list[tuple[str, float, str]]:
    """(what, ratio, bound) of publications by one thread with nobody waiting."""
    events = [Event.new("audit", audit()) for _ in range(count)]
    payloads = [audit() for _ in range(count)]

    def publish(values: Sequence[Any] = events, **options: Any) -> float:
        bus = EventBus(2 * count)
        subscription = bus.subscribe(**options) if options else None
        bus.publish(values[0])  # the first of its type is looked at more closely
        seconds = _each(bus.publish, values)
        del subscription
        return seconds

    def in_a_thread(timing: Timing) -> Timing:
        def run() -> float:
            seconds: list[float] = []
            thread = threading.Thread(target=lambda: seconds.append(timing()))
            thread.start()
            thread.join()
            return seconds[0]

        return run

    def build() -> float:
        began = perf_counter()
        for _ in events:
            AuditEvent(
                username="guest",
                client_ip="127.0.0.1",
                user_agent="opsml-client/",
                operation="Create",
                resource_type="Database",
                resource_id="01a20d2f-2a6e-768c-800a-1806e004a000",
                access_location=None,
                status="Success",
                error_message=None,
                metadata="{}",
                registry_type="prompt",
                route="/opsml/api/card/create",
            )
        return perf_counter() - began

    def small() -> float:
        return _each(EventBus(1024).publish, events)

    best = least(
        {
            "append": lambda: _each(deque[Event]().append, events),
            "ready": publish,
            "small": small,
            "thread": in_a_thread(publish),
            "block": lambda: publish(overflow="block"),
            "published": lambda: publish(order="published"),
            "payload": lambda: publish(payloads),
            "build": build,
        },
        rounds,
    )
    append = best["append"]
    return [
        ("publish a ready event ÷ `deque.append`", best["ready"] / append, "≤ 6"),
        ("the same, in a ring of 1,024 that is cut on the way", best["small"] / append, ""),
        ("the same from another thread", best["thread"] / append, "≤ 9"),
        ("with a lossless reader ÷ without", best["block"] / best["ready"], "≤ 2"),
        ("with a published-order reader ÷ without", best["published"] / best["ready"], "≤ 2"),
        ("publish a payload ÷ building it", best["payload"] / best["build"], "≤ 5"),
    ]


def parked(rounds: int) -> list[tuple[str, float, str]]:
    """(what, ratio, bound) of a publication that wakes readers."""

    async def cost(readers: int) -> float:
        bus = EventBus(1024)

        async def read() -> None:
            async for _ in bus.subscribe():
                pass

        tasks = [asyncio.create_task(read()) for _ in range(readers)]
        event = Event.new("audit", audit())
        least_of = float("inf")
        for _ in range(rounds):
            for _ in range(4):
                await asyncio.sleep(0)
            began = perf_counter()
            bus.publish(event)
            least_of = min(least_of, perf_counter() - began)
        bus.close()
        await asyncio.gather(*tasks)
        return least_of

    hundred, one = asyncio.run(cost(100)), asyncio.run(cost(1))
    return [("publish with 100 readers parked ÷ with one", hundred / one, "≤ 2")]


def four_threads(count: int, rounds: int) -> list[tuple[str, float, str]]:
    """(what, ratio, bound) of four threads that publish to one reader, who misses nothing."""
    event = Event.new("audit", audit())

    async def run(start: Callable[[asyncio.AbstractEventLoop, int], None], done: asyncio.Event) -> float:
        loop = asyncio.get_running_loop()
        threads = [threading.Thread(target=start, args=(loop, count)) for _ in range(4)]
        began = perf_counter()
        for thread in threads:
            thread.start()
        await done.wait()
        seconds = perf_counter() - began
        for thread in threads:
            thread.join()
        return seconds

    async def ours() -> float:
        bus, done = EventBus(4 * count), asyncio.Event()
        subscription = bus.subscribe()

        async def read() -> None:
            seen = 0
            async for batch in subscription.batches():
                for _ in batch:
                    seen += 1
                if seen == 4 * count:
                    break
            assert not subscription.missed
            done.set()

        def publish(_loop: asyncio.AbstractEventLoop, number: int) -> None:
            for _ in range(number):
                bus.publish(event)

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        seconds = await run(publish, done)
        await task
        return seconds

    async def by_hand() -> float:
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        done = asyncio.Event()

        async def read() -> None:
            for _ in range(4 * count):
                await inbox.get()
            done.set()

        def publish(loop: asyncio.AbstractEventLoop, number: int) -> None:
            for _ in range(number):
                loop.call_soon_threadsafe(inbox.put_nowait, event)

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        seconds = await run(publish, done)
        await task
        return seconds

    best = least({"ours": lambda: asyncio.run(ours()), "hand": lambda: asyncio.run(by_hand())}, rounds)
    return [("four publishing threads ÷ `call_soon_threadsafe` per event", best["hand"] / best["ours"], "≥ 12")]


def waking(count: int, rounds: int) -> list[tuple[str, float, str]]:
    """(what, figure, bound) of the time from a publication to the reader that was waiting for it."""

    async def measure(put: Callable[[int], object], read: Callable[[list[int]], Any]) -> list[int]:
        waits: list[int] = []
        task = asyncio.create_task(read(waits))
        for _ in range(count):
            for _ in range(3):
                await asyncio.sleep(0)
            put(perf_counter_ns())
        await task
        return waits

    async def ours() -> list[int]:
        bus = EventBus(1024)
        subscription = bus.subscribe()

        async def read(waits: list[int]) -> None:
            async for event in subscription:
                waits.append(perf_counter_ns() - event.time)
                if len(waits) == count:
                    return

        return await measure(lambda now: bus.publish(Event("id", "bench", "audit", now, None)), read)

    async def by_hand() -> list[int]:
        inbox: asyncio.Queue[Event] = asyncio.Queue()

        async def read(waits: list[int]) -> None:
            while len(waits) < count:
                event = await inbox.get()
                waits.append(perf_counter_ns() - event.time)

        return await measure(lambda now: inbox.put_nowait(Event("id", "bench", "audit", now, None)), read)

    ours_all, hand_all = [], []
    for _ in range(rounds):
        ours_all.append(asyncio.run(ours()))
        hand_all.append(asyncio.run(by_hand()))
    p50 = min(median(one) for one in ours_all) / min(median(one) for one in hand_all)
    p99 = min(quantiles(one, n=100)[98] for one in ours_all) / min(quantiles(one, n=100)[98] for one in hand_all)
    return [
        ("from publish to reader, p50 ÷ `asyncio.Queue`'s", p50, "≤ 1.8"),
        ("the same, p99", p99, ""),
        ("p50 in µs", min(median(one) for one in ours_all) / 1000, ""),
    ]


def memory(count: int, readers: int) -> list[tuple[str, float, str]]:
    """(what, figure, bound) of what does not grow."""
    bus = EventBus(1024)
    stalled = bus.subscribe()
    event = Event.new("audit", audit())
    for _ in islice(iter(int, 1), 4096):
        bus.publish(event)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(count):
        bus.publish(event)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    stalled.drain(5000)
    assert stalled.received + stalled.missed == bus.statistics().published

    async def idle() -> float:
        async def read() -> None:
            async with quiet.subscribe() as subscription:
                async for _ in subscription:
                    pass

        quiet = EventBus(1024)
        gc.collect()
        tracemalloc.start()
        empty = tracemalloc.get_traced_memory()[0]
        tasks = [asyncio.create_task(read()) for _ in range(readers)]
        for _ in range(4):
            await asyncio.sleep(0)
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - empty) / readers
        tracemalloc.stop()
        quiet.close()
        await asyncio.gather(*tasks)
        return each

    return [
        (f"growth in kB over {count:,} events with a stalled reader", grown / 1000, "none"),
        ("kB per idle reader, its task included", asyncio.run(idle()) / 1000, "≤ 2"),
    ]
