"""Stages between a source and a sink: each is itself a Source, so that they stack and `pump` stays one loop.

    Merged      several sources as one, as their batches arrive
    Limited     ends after so many events
    Originals   leaves out what a replay put on the bus
    Stamped     marks every event with the name of the replay
    Paced       holds every event back until its time has come
    Committing  tells what the sink has acknowledged

and some are Sinks: Tee (several as one), Counted (with a report of its own), Rehearsal (sends nothing).

A stage hands `where` and `start` down, and commits through to what it is built on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

from .event import Event
from .filter import Filter
from .flow import Ack, Batch, Notice, Notify, Position, Record, Report, Sink, Source, Start, no_notice
from .pacing import Pacer

LONG_WAIT = 5_000_000_000  # ns; a pause longer than this is explained to whoever watches


class Stage(Source):
    """A source built on another."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name = source.name

    @property
    def finite(self) -> bool:
        """As what it is built on."""
        return self._source.finite

    async def commit(self, position: Position) -> None:
        """Pass it on."""
        await self._source.commit(position)

    async def close(self) -> None:
        """Close what it is built on."""
        await self._source.close()


class Limited(Stage):
    """The first `count` events, and the Gaps among them."""

    def __init__(self, source: Source, count: int) -> None:
        super().__init__(source)
        self._left = count

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source."""
        if self._left <= 0:
            return
        async with aclosing(self._source.batches(where, start)) as stream:
            async for batch in stream:
                for index, record in enumerate(batch.records):
                    if record.gap is None:
                        self._left -= 1
                        if self._left == 0:
                            yield batch.first(index + 1)
                            return
                yield batch


def _events(records: Sequence[Record]) -> int:
    return sum(record.gap is None for record in records)


class Originals(Stage):
    """Leaves out events that a replay put on the bus, so that a replay into a recorded bus cannot loop."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.skipped = 0

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source."""
        async with aclosing(self._source.batches(where, start)) as stream:
            async for batch in stream:
                kept = [record for record in batch.records if not _replayed(record)]
                self.skipped += len(batch.records) - len(kept)
                yield Batch(kept, batch.position, batch.seen, batch.refusals)


# Inside a string the quotes would be escaped, so a line without this has no such member.
_REPLAY_MARK = b'"replay":'


def _replayed(record: Record) -> bool:
    if record.encoded and _REPLAY_MARK not in record.line:
        return False
    item = record.item
    return isinstance(item, Event) and item.replay is not None


class Stamped(Stage):
    """Marks every event with the name of this replay. Ids, times and the bytes of the payload stay."""

    def __init__(self, source: Source, name: str) -> None:
        super().__init__(source)
        self._replay = name

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source."""
        async with aclosing(self._source.batches(where, start)) as stream:
            async for batch in stream:
                records = [self._stamp(record) for record in batch.records]
                yield Batch(records, batch.position, batch.seen, batch.refusals)

    def _stamp(self, record: Record) -> Record:
        item = record.item
        if not isinstance(item, Event):
            return record
        return Record(item.replace(replay=self._replay), position=record.position)


class Paced(Stage):
    """Hands every event on when its time has come, never earlier, and never drifting: one anchor, no summed sleeps.

    clock: ns, monotonic. sleep: seconds. Both are passed in so that a test needs no real time.
    """

    def __init__(
        self,
        source: Source,
        pacer: Pacer,
        *,
        clock: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        notify: Notify = no_notice,
    ) -> None:
        super().__init__(source)
        self._pacer = pacer
        self._clock = clock
        self._sleep = sleep
        self._notify = notify

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source."""
        async with aclosing(self._source.batches(where, start)) as stream:
            async for batch in stream:
                ready: list[Record] = []
                for record in batch.records:
                    if record.gap is None:
                        wait = self._pacer.due(record.item.time, self._clock()) - self._clock()
                        if wait > 0:
                            if ready:
                                # What is due goes out before we wait for what is not.
                                yield Batch(ready, ready[-1].position, _events(ready))
                                batch.seen -= _events(ready)
                                ready = []
                            if wait > LONG_WAIT:
                                self._notify(Notice("pause", self.name, f"{wait / 1e9:.0f}"))
                            await self._sleep(wait / 1e9)
                    ready.append(record)
                yield Batch(ready, batch.position, max(batch.seen, 0), batch.refusals)


class Merged(Source):
    """Several sources as one: batches in the order they arrive, each committed to the source it came from."""

    def __init__(self, sources: Sequence[Source], *, follow_finite: bool = True) -> None:
        """follow_finite: where the others are followed, follow those too that would end by themselves."""
        self._sources = sources
        self._follow_finite = follow_finite
        self.name = ", ".join(source.name for source in sources)

    @property
    def finite(self) -> bool:
        """When all of them are."""
        return all(source.finite for source in self._sources)

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source. An error in one source ends all of them: it must not be missed among the others."""
        # One slot a source: a slow sink holds the sources back instead of filling memory.
        arrivals: asyncio.Queue[Batch | None] = asyncio.Queue(len(self._sources))

        async def forward(source: Source) -> None:
            follow = start.follow and (self._follow_finite or not source.finite)
            async with aclosing(source.batches(where, replace(start, follow=follow))) as stream:
                async for batch in stream:
                    batch.position = (source, batch.position)
                    await arrivals.put(batch)

        tasks = [asyncio.create_task(forward(source)) for source in self._sources]
        everything = asyncio.gather(*tasks)  # done at the first error
        everything.add_done_callback(lambda _: _wake(arrivals))
        try:
            while not (everything.done() and (arrivals.empty() or everything.exception() is not None)):
                arrival = await arrivals.get()
                if arrival is not None:
                    yield arrival
            await everything
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, everything, return_exceptions=True)

    async def commit(self, position: Position) -> None:
        """To the source it came from."""
        if isinstance(position, tuple):
            source, inner = position
            if inner is not None:
                await source.commit(inner)

    async def close(self) -> None:
        """All of them."""
        for source in self._sources:
            await source.close()


def _wake(arrivals: asyncio.Queue[Batch | None]) -> None:
    if not arrivals.full():  # a full queue has something to be woken by
        arrivals.put_nowait(None)


class Committing(Stage):
    """Tells `on_commit` every position that the sink has acknowledged."""

    def __init__(self, source: Source, on_commit: Callable[[Position], None]) -> None:
        super().__init__(source)
        self._on_commit = on_commit

    def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source."""
        return self._source.batches(where, start)

    async def commit(self, position: Position) -> None:
        """Pass it on, and tell."""
        await self._source.commit(position)
        self._on_commit(position)


class Tee(Sink):
    """Several sinks as one: a batch is acknowledged when all of them have it. They are closed together."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self.name = ", ".join(sink.name for sink in sinks)

    async def write(self, batch: Batch) -> Ack:
        """One after the other, in the order given: what a person sees has happened."""
        acks = [await sink.write(piece) for sink in self._sinks for piece in sink.pieces(batch)]
        refusals = next((ack.refusals for ack in acks if ack.refusals), ())
        left = max((ack.left for ack in acks), default=0)
        return Ack(len(batch.records) - left, all(ack.durable for ack in acks), refusals, left)

    def hasten(self) -> None:
        """All of them."""
        for sink in self._sinks:
            sink.hasten()

    async def close(self) -> None:
        """All of them."""
        for sink in self._sinks:
            await sink.close()


class Counted(Sink):
    """A sink, and a report of what it acknowledged: within a Tee that fails, one has taken what another has not."""

    def __init__(self, sink: Sink, report: Report) -> None:
        self._sink = sink
        self._report = report
        self.name = sink.name

    def pieces(self, batch: Batch) -> Iterable[Batch]:
        """As the sink takes it."""
        return self._sink.pieces(batch)

    async def write(self, batch: Batch) -> Ack:
        """See Sink."""
        self._report.seen += batch.seen
        ack = await self._sink.write(batch)
        self._report.add(batch.first(len(batch.records) - ack.left), ack)
        return ack

    def hasten(self) -> None:
        """Pass it on."""
        self._sink.hasten()

    async def close(self) -> None:
        """Close it."""
        await self._sink.close()


class Rehearsal(Sink):
    """Takes events, sends nothing, and asks the pacer when each would have been due."""

    name = "nowhere"

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self.first: int | None = None  # least and greatest time seen, ns since the epoch
        self.last: int | None = None

    async def write(self, batch: Batch) -> Ack:
        """See Sink."""
        for record in batch.records:
            if record.gap is None:
                time = record.item.time
                self._pacer.due(time, 0)
                self.first = time if self.first is None else min(self.first, time)
                self.last = time if self.last is None else max(self.last, time)
        return Ack(len(batch.records))
