"""Ends within this process: a list of events, and a bus.

async with BusSource(bus) as source, open_sink("audit.jsonl") as sink:
    await pump(source, sink)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from types import TracebackType
from typing import Literal, Self

from ..bus import EventBus
from ..errors import Broken, BusClosed
from ..event import Event, Gap
from ..filter import Filter
from ..flow import MAX_BATCH, Ack, Batch, Record, Report, Sink, Source, Start, pump


class ItemSource(Source):
    """Events and Gaps that are at hand."""

    def __init__(self, items: Iterable[Event | Gap], name: str = "memory") -> None:
        self._items = items
        self.name = name

    @property
    def finite(self) -> bool:
        """It ends."""
        return True

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source. Everything from the beginning: `start.last` and `after` are not looked at."""
        batch = Batch([])
        for item in self._items:
            if isinstance(item, Event):
                batch.seen += 1
                if not start.admits(item) or (where is not None and not where.matches(item)):
                    continue
            batch.records.append(Record(item))
            if len(batch.records) >= MAX_BATCH:
                yield batch
                batch = Batch([])
        if batch.seen or batch.records:
            yield batch


class BusSink(Sink):
    """Puts events on a bus as they are, ids and times kept; waits while a lossless subscriber is full."""

    name = "bus"

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    async def write(self, batch: Batch) -> Ack:
        """See Sink. Raises Broken when the bus is closed."""
        try:
            for record in batch.records:
                item = record.item
                if isinstance(item, Gap):
                    self._bus.pass_gap(item)
                else:
                    await self._bus.send(item)
        except BusClosed as error:
            raise Broken(self.name, "the bus was closed") from error
        return Ack(len(batch.records))


class BusSource(Source):
    """What is published on a bus from the moment this source is made. Positions count events."""

    name = "bus"

    def __init__(self, bus: EventBus, *, overflow: Literal["drop_oldest", "block"] = "drop_oldest") -> None:
        self._subscription = bus.subscribe(overflow=overflow, order="published")

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source. A subscription begins with what is new: `start.last` and `after` are not looked at."""
        received = 0
        async for items in self._subscription.item_batches(max_size=MAX_BATCH):
            events = sum(isinstance(item, Event) for item in items)
            received += events
            records = [
                Record(item)
                for item in items
                if isinstance(item, Gap) or (start.admits(item) and (where is None or where.matches(item)))
            ]
            yield Batch(records, received, events)

    @property
    def waiting(self) -> int:
        """Events published since this source was made and not yet read."""
        return self._subscription.unread

    async def close(self) -> None:
        """Leave the bus."""
        self._subscription.close()


class Recording:
    """A bus written to a sink, losslessly, for the length of an `async with` block.

        async with JournalSink("audit.jsonl") as sink, Recording(bus, sink) as recording:
            await bus.send(AuditEvent(...))
            await recording.confirm()       # it is on disk now

    Leaving the block closes the bus, writes what is still in it and closes the sink; cancelled, it does not
    wait for a sink that cannot write. When the sink fails, the block is cancelled and the sink's error comes out of it:
    nothing may go on as if it were recorded.
    """

    def __init__(self, bus: EventBus, sink: Sink, report: Report | None = None) -> None:
        self._bus = bus
        self._sink = sink
        self._report = report
        self._error: Exception | None = None
        self._recorded = 0
        self._moved = asyncio.Event()

    async def confirm(self) -> None:
        """Wait until everything that is on the bus now has been acknowledged by the sink. Raises what ended it.

        An event that the file refused is acknowledged as the Gap that stands for it.
        """
        goal = self._bus.statistics().published - self._began
        while self._recorded < goal:
            if self._task.done():
                raise self._error or Broken(self._sink.name, "the recording has ended")
            await self._moved.wait()

    async def __aenter__(self) -> Self:
        self._source = BusSource(self._bus, overflow="block")
        # What is published between the two lines is counted by the subscription too.
        self._began = self._bus.statistics().published - self._source.waiting
        parent = asyncio.current_task()
        assert parent is not None
        self._parent = parent
        self._task = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        try:
            await pump(self._source, self._sink, report=self._report, watch=self._on_batch)
        except Exception as error:  # noqa: BLE001 - whatever ends it, nothing may go on as if it were recorded
            self._error = error
            await self._source.close()  # senders must not wait for a reader that is dead
            self._parent.cancel()
        finally:
            self._wake()

    def _on_batch(self, batch: Batch, _ack: Ack, _report: Report) -> None:
        if isinstance(batch.position, int):  # the last piece of what was received together
            self._recorded = batch.position
            self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.close()
        cancelled = False
        if isinstance(error, asyncio.CancelledError):
            self._sink.hasten()
        try:
            while not self._task.done():
                # Cancelled while the rest is written: it is written first, if it can be.
                try:
                    await asyncio.shield(self._task)
                except asyncio.CancelledError:
                    cancelled = not self._task.cancelled()
                    self._sink.hasten()
        finally:
            await self._source.close()
            await self._sink.close()
        if self._error is not None:
            self._parent.uncancel()
            raise self._error from None
        if cancelled:
            raise asyncio.CancelledError
