"""Ways of giving every event to every reader, each as its documentation recommends it, all in the same frame.

A contestant is an async function `(events, readers, keep) -> seconds`: it starts the readers, publishes the events in
bursts, and returns the time from the first publication until the last reader has touched every event. `keep`, when
given, collects what each reader saw; the timed runs are without it.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from opsml_eventbus import Event, EventBus

BURST = 1000  # events published before the readers have their turn: about what the ring holds
CAPACITY = 1024

Kept = list[list[Event]] | None
Contestant = Callable[[Sequence[Event], int, Kept], Awaitable[float]]


@dataclass(frozen=True)
class Entry:
    """name. module: what must be installed, None for the standard library. hides: what it loses, blocks or hides."""

    name: str
    run: Contestant
    hides: str
    module: str | None = None

    @property
    def installed(self) -> bool:
        if self.module is not None:
            try:
                importlib.import_module(self.module)
            except ImportError:
                return False
        return True


def _keeping(keep: Kept, readers: int) -> list[Callable[[Event], None] | None]:
    if keep is None:
        return [None] * readers
    keep += [[] for _ in range(readers)]
    return [one.append for one in keep]


async def _timed(readers: list[asyncio.Task[None]], publish: Awaitable[None]) -> float:
    await asyncio.sleep(0)
    began = perf_counter()
    await publish
    await asyncio.gather(*readers)
    return perf_counter() - began


async def _in_bursts(events: Sequence[Event], put: Callable[[Event], object]) -> None:
    for start in range(0, len(events), BURST):
        for event in events[start : start + BURST]:
            put(event)
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # one turn to be woken, one to read


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def eventbus(events: Sequence[Event], readers: int, keep: Kept) -> float:
    bus = EventBus(CAPACITY)
    subscriptions = [bus.subscribe() for _ in range(readers)]

    async def read(subscription: Any, note: Callable[[Event], None] | None) -> None:
        touched = 0
        if note is None:
            async for _ in subscription:
                touched += 1
        else:
            async for event in subscription:
                touched += 1
                note(event)
        assert touched + subscription.missed == len(events)

    async def publish() -> None:
        await _in_bursts(events, bus.publish)
        bus.close()

    notes = _keeping(keep, readers)
    tasks = [asyncio.create_task(read(*pair)) for pair in zip(subscriptions, notes, strict=True)]
    seconds = await _timed(tasks, publish())
    assert all(one.received + one.missed == len(events) and not one.missed for one in subscriptions)
    return seconds


async def eventbus_batches(events: Sequence[Event], readers: int, keep: Kept) -> float:
    bus = EventBus(CAPACITY)
    subscriptions = [bus.subscribe() for _ in range(readers)]

    async def read(subscription: Any, note: Callable[[Event], None] | None) -> None:
        touched = 0
        async for batch in subscription.batches():
            for event in batch:
                touched += 1
                if note is not None:
                    note(event)

    async def read_untouched(subscription: Any, note: None) -> None:
        touched = 0
        async for batch in subscription.batches():
            for _ in batch:
                touched += 1

    async def publish() -> None:
        await _in_bursts(events, bus.publish)
        bus.close()

    notes = _keeping(keep, readers)
    reader: Any = read_untouched if keep is None else read
    tasks = [asyncio.create_task(reader(*pair)) for pair in zip(subscriptions, notes, strict=True)]
    seconds = await _timed(tasks, publish())
    assert all(one.received + one.missed == len(events) and not one.missed for one in subscriptions)
    return seconds


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def queues(events: Sequence[Event], readers: int, keep: Kept) -> float:
    """One `asyncio.Queue` per subscriber: what people write by hand."""
    inboxes: list[asyncio.Queue[Event]] = [asyncio.Queue() for _ in range(readers)]
    total = len(events)

    async def read(inbox: asyncio.Queue[Event], note: Callable[[Event], None] | None) -> None:
        touched = 0
        if note is None:
            while touched < total:
                await inbox.get()
                touched += 1
        else:
            while touched < total:
                note(await inbox.get())
                touched += 1

    def put(event: Event) -> None:
        for inbox in inboxes:
            inbox.put_nowait(event)

    notes = _keeping(keep, readers)
    tasks = [asyncio.create_task(read(*pair)) for pair in zip(inboxes, notes, strict=True)]
    return await _timed(tasks, _in_bursts(events, put))


def _bare(batches: bool) -> Contestant:
    """A list and no bus at all: the ceiling. Nothing can be published while it is read."""

    async def run(events: Sequence[Event], readers: int, keep: Kept) -> float:
        log: list[Event] = []

        async def slices(size: int) -> AsyncGenerator[list[Event], None]:
            at = 0
            while at < len(log):
                yield log[at : at + size]
                at += size

        async def single() -> AsyncGenerator[Event, None]:
            at = 0
            while at < len(log):
                for event in log[at : at + 64]:
                    yield event
                at += 64

        async def read(note: Callable[[Event], None] | None) -> None:
            touched = 0
            if batches:
                async for batch in slices(CAPACITY):
                    for event in batch:
                        touched += 1
                        if note is not None:
                            note(event)
            else:
                async for event in single():
                    touched += 1
                    if note is not None:
                        note(event)

        async def read_untouched() -> None:
            touched = 0
            if batches:
                async for batch in slices(CAPACITY):
                    for _ in batch:
                        touched += 1
            else:
                async for _ in single():
                    touched += 1

        notes = _keeping(keep, readers)
        began = perf_counter()
        append = log.append
        for event in events:
            append(event)
        for note in notes:
            await (read_untouched() if note is None else read(note))
        return perf_counter() - began

    return run


# ── peers ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def broadcaster(events: Sequence[Event], readers: int, keep: Kept) -> float:
    from broadcaster import Broadcast

    total = len(events)
    async with Broadcast("memory://") as broadcast:
        ready = asyncio.Semaphore(0)

        async def read(note: Callable[[Event], None] | None) -> None:
            seen = 0
            async with broadcast.subscribe("all") as subscriber:
                ready.release()
                async for message in subscriber:
                    seen += 1
                    if note is not None:
                        note(message.message)
                    if seen == total:
                        return

        async def publish() -> None:
            for event in events:
                await broadcast.publish("all", event)

        tasks = [asyncio.create_task(read(note)) for note in _keeping(keep, readers)]
        for _ in tasks:
            await ready.acquire()
        return await _timed(tasks, publish())


async def anyio_streams(events: Sequence[Event], readers: int, keep: Kept) -> float:
    import anyio

    pairs = [anyio.create_memory_object_stream[Event](CAPACITY) for _ in range(readers)]

    async def read(stream: Any, note: Callable[[Event], None] | None) -> None:
        async with stream:
            async for event in stream:
                if note is not None:
                    note(event)

    async def publish() -> None:
        for event in events:
            for sender, _ in pairs:
                await sender.send(event)
        for sender, _ in pairs:
            sender.close()

    notes = _keeping(keep, readers)
    tasks = [asyncio.create_task(read(pair[1], note)) for pair, note in zip(pairs, notes, strict=True)]
    return await _timed(tasks, publish())


def _thread_queue(module: str) -> Contestant:
    async def run(events: Sequence[Event], readers: int, keep: Kept) -> float:
        make: Any = importlib.import_module(module).Queue
        inboxes = [make() for _ in range(readers)]
        total = len(events)

        async def read(inbox: Any, note: Callable[[Event], None] | None) -> None:
            for _ in range(total):
                event = await inbox.async_q.get()
                if note is not None:
                    note(event)

        def put(event: Event) -> None:
            for inbox in inboxes:
                inbox.sync_q.put_nowait(event)

        notes = _keeping(keep, readers)
        tasks = [asyncio.create_task(read(*pair)) for pair in zip(inboxes, notes, strict=True)]
        seconds = await _timed(tasks, _in_bursts(events, put))
        for inbox in inboxes:
            inbox.close()
            await inbox.wait_closed()
        return seconds

    return run


async def pyee(events: Sequence[Event], readers: int, keep: Kept) -> float:
    from pyee.base import EventEmitter

    emitter, counts = EventEmitter(), [0] * readers
    for index, note in enumerate(_keeping(keep, readers)):

        def on_event(event: Event, index: int = index, note: Any = note) -> None:
            counts[index] += 1
            if note is not None:
                note(event)

        emitter.on("all", on_event)
    seconds = await _timed([], _in_bursts(events, lambda event: emitter.emit("all", event)))
    assert counts == [len(events)] * readers
    return seconds


async def blinker(events: Sequence[Event], readers: int, keep: Kept) -> float:
    from blinker import Signal

    signal, counts, listeners = Signal(), [0] * readers, []
    for index, note in enumerate(_keeping(keep, readers)):

        def on_event(sender: object, event: Event, index: int = index, note: Any = note) -> None:
            counts[index] += 1
            if note is not None:
                note(event)

        listeners.append(on_event)  # the signal refers to it weakly
        signal.connect(on_event)
    seconds = await _timed([], _in_bursts(events, lambda event: signal.send(None, event=event)))
    assert counts == [len(events)] * readers
    return seconds


async def aiopubsub(events: Sequence[Event], readers: int, keep: Kept) -> float:
    from aiopubsub import Hub, Key, Publisher, Subscriber

    hub, counts = Hub(), [0] * readers
    publisher = Publisher(hub, prefix=Key("bench"))
    for index, note in enumerate(_keeping(keep, readers)):

        def on_event(key: object, event: Event, index: int = index, note: Any = note) -> None:
            counts[index] += 1
            if note is not None:
                note(event)

        Subscriber(hub, f"reader-{index}").add_sync_listener(Key("bench", "all"), on_event)
    key = Key("all")
    seconds = await _timed([], _in_bursts(events, lambda event: publisher.publish(key, event)))
    assert counts == [len(events)] * readers
    return seconds


OURS = Entry("eventbus, event by event", eventbus, "nothing: loss is a Gap, with its count")
OURS_BATCHES = Entry("eventbus, `batches()`", eventbus_batches, "nothing: loss is a Gap, with its count")
QUEUES = Entry("`asyncio.Queue` per subscriber", queues, "unbounded, or what does not fit is dropped unseen")
BARE = Entry("bare list, event by event", _bare(False), "no bus: the ceiling")
BARE_BATCHES = Entry("bare list, in slices", _bare(True), "no bus: the ceiling")
PEERS = [
    Entry("broadcaster `memory://`", broadcaster, "unbounded queue per subscriber", "broadcaster"),
    Entry("anyio memory streams", anyio_streams, "the slowest reader stops the publisher", "anyio"),
    Entry("janus", _thread_queue("janus"), "unbounded, or blocks", "janus"),
    Entry("culsans", _thread_queue("culsans"), "unbounded, or blocks", "culsans"),
    Entry("pyee", pyee, "publisher runs every callback", "pyee"),
    Entry("blinker", blinker, "publisher runs every callback; one that raises stops the rest", "blinker"),
    Entry("aiopubsub, sync listener", aiopubsub, "publisher runs every callback", "aiopubsub"),
]
