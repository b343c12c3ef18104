"""One verb for everything that moves events: `pump(source, sink)`. Tail, record and replay are that, with different
ends.

    async with open_source("unix:…") as source, open_sink("audit.jsonl") as sink:
        report = await pump(source, sink, where=filter)

A Source hands out Batches: records that match, Gaps where something is missing, and a position. A Sink writes a batch
and acknowledges it; only then does the pump commit the position back. No filter removes a Gap.

A Record has two faces, each made when first asked for: `.item` (decoded) and `.line` (encoded). A line that is read and
written again unchanged is never decoded.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from .codec import decode_line, encode_line
from .errors import InvalidEvent
from .event import Event, Gap
from .filter import Filter

MAX_BATCH = 1024  # records in a batch at most: bounds what a pump holds, large enough that a batch's price vanishes


# Inside a string the quotes would be escaped, so only a member spells this.
_GAP_MARK = b'"type":"eventbus.gap"'

Position = object  # what only the source that made it understands: a row id, an event id, a byte offset, a seq


class Record:
    """One event or Gap on its way through, as a value and as a line (canonical, where it was made from one).

    position: where its source stands behind it, where the source can say so for each.
    """

    __slots__ = ("_item", "_line", "position")

    def __init__(self, item: Event | Gap | None = None, line: bytes | None = None, position: Position = None) -> None:
        self._item = item
        self._line = line
        self.position = position

    @property
    def item(self) -> Event | Gap:
        """The Event or Gap. Raises InvalidEvent where the line is neither."""
        item = self._item
        if item is None:
            assert self._line is not None
            item = self._item = decode_line(self._line)
        return item

    @property
    def line(self) -> bytes:
        """The canonical line, without its newline. Raises Unencodable."""
        line = self._line
        if line is None:
            assert self._item is not None
            line = self._line = encode_line(self._item)
        return line

    @property
    def encoded(self) -> bool:
        """Is the line at hand, without encoding?"""
        return self._line is not None

    @property
    def gap(self) -> Gap | None:
        """The Gap, when it is one. An event's line is not decoded to find out that it is none."""
        if self._item is None and self._line is not None and _GAP_MARK not in self._line:
            return None
        item = self.item
        return item if isinstance(item, Gap) else None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that was refused while the rest went on. place: `audit.jsonl:17`, or `line 17`."""

    place: str
    error: InvalidEvent


@dataclass(slots=True)
class Batch:
    """What a source had at one moment.

    records: events that match and Gaps, in order. position: where the source stands after them, for `commit`.
    seen: events the source looked at to make this batch, those its filter removed included.
    refusals: lines in between that were no events; each has its Gap (`invalid`) among the records.
    """

    records: list[Record]
    position: Position = None
    seen: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    def encode(self) -> tuple[list[bytes], list[Refusal]]:
        """Every record's line. An event that cannot be written stands as a Gap: it costs itself, never the batch."""
        lines: list[bytes] = []
        refusals: list[Refusal] = []
        written: Record | None = None  # the last event that could be
        for record in self.records:
            try:
                lines.append(record.line)
                if record.gap is None:
                    written = record
            except InvalidEvent as error:
                # Nothing of the refused event goes into the Gap: that may be what could not be written.
                lines.append(encode_line(Gap.new(1, None if written is None else written.item.id, "invalid")))
                refusals.append(Refusal(f"event {record.item.id!s:.256}", error))
        return lines, refusals

    def first(self, count: int) -> Batch:
        """Its first `count` records, and what goes with them. Its position would commit what nobody gets."""
        kept, cut = self.records[:count], self.records[count:]
        if not cut:
            return self
        invalid = sum(gap.reason == "invalid" for record in kept if (gap := record.gap) is not None)
        seen = self.seen - sum(record.gap is None for record in cut)
        return Batch(kept, kept[-1].position if kept else None, seen, self.refusals[:invalid])


@dataclass(frozen=True, slots=True)
class Start:
    """Where in its stream a source begins.

    last: the last N matching events of what is already there ("all": everything, 0: only what is new).
    after: the id of the last event already had; the source goes on behind it, or begins with a Gap.
    position: what this source was told to commit; it goes on there, and `last` and `after` have no meaning.
    since, until: event times in ns since the epoch, since inclusive, until exclusive. `since` implies all from there.
    follow: go on when what is there has been read, until cancelled.
    """

    last: int | Literal["all"] = "all"
    after: str | None = None
    position: Position = None
    since: int | None = None
    until: int | None = None
    follow: bool = False

    def admits(self, event: Event) -> bool:
        """Is the event's time within `since` and `until`?"""
        return (self.since is None or event.time >= self.since) and (self.until is None or event.time < self.until)


@dataclass(frozen=True, slots=True)
class Ack:
    """What a sink says of a batch.

    written: records, Gaps included. durable: they are on disk. refusals: events that could not be written; each
    stands as a Gap (`invalid`) where it would have been. left: records at the batch's end that nobody got, where the
    sink was cancelled within it.
    """

    written: int
    durable: bool = False
    refusals: Sequence[Refusal] = ()
    left: int = 0


NOTHING_WRITTEN = Ack(0)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an end wants its user to know while it goes on.

    kind: `waiting` (nothing there yet), `connected`, `disconnected`, `closed` (a bus, in good order), `moved` (a file
    was replaced), `error` (a poll failed and will be tried again). end: its name. detail: one clause.
    """

    kind: str
    end: str
    detail: str = ""


Notify = Callable[[Notice], None]


def no_notice(notice: Notice) -> None:
    """The default: nobody is told."""


class End:
    """One end of a pump, opened by `async with`. name: as a person would write it."""

    name: str = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give back what is held. A second call does nothing."""


class Source(End, ABC):
    """Where events come from. `batches` is called once."""

    @property
    def finite(self) -> bool:
        """Does it end by itself when everything has been read?"""
        return False

    @abstractmethod
    def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """The stream from `start` on: what matches `where`, and every Gap. Never an empty batch with seen == 0.

        Raises Unreachable, Refused, Broken.
        """

    async def commit(self, position: Position) -> None:
        """Everything up to `position` has been acknowledged by the sink."""


class Sink(End, ABC):
    """Where events go. Closing it flushes it."""

    def pieces(self, batch: Batch) -> Iterable[Batch]:
        """The batch as this sink takes it: pieces that are each written as a whole or not at all."""
        return (batch,)

    @abstractmethod
    async def write(self, batch: Batch) -> Ack:
        """Write every record of the batch, or raise and have written none that was acknowledged.

        Cancelled when some of it is out and cannot be taken back, it may acknowledge the first records, and is then
        cancelled still: nothing may follow what was left out. Raises Broken (the sink is finished), Refused.
        """

    def hasten(self) -> None:
        """We are asked to end: from now on, what cannot be written is refused instead of waited for."""


@dataclass(slots=True)
class Report:
    """What a pump did.

    seen: events the source looked at. shown: events the sink took. lost: the sum of all Gaps; `unknown` when one of
    them could not say how many. skipped: events left out by a wrapper, by reason. refused: lines that were no events.
    """

    seen: int = 0
    shown: int = 0
    gaps: int = 0
    lost: int = 0
    unknown: bool = False
    refused: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Nothing is missing, as far as anyone knows."""
        return self.lost == 0 and not self.unknown

    def add(self, batch: Batch, ack: Ack) -> None:
        """Count a batch that was acknowledged; what its source looked at is counted before it is written."""
        self.refused += len(batch.refusals) + len(ack.refusals)
        self.gaps += len(ack.refusals)
        self.lost += len(ack.refusals)
        self.shown -= len(ack.refusals)
        for record in batch.records:
            gap = record.gap
            if gap is None:
                self.shown += 1
            else:
                self.gaps += 1
                if gap.missed is None:
                    self.unknown = True
                else:
                    self.lost += gap.missed


async def pump(
    source: Source,
    sink: Sink,
    *,
    where: Filter | None = None,
    start: Start = Start(),
    report: Report | None = None,
    watch: Callable[[Batch, Ack, Report], None] | None = None,
) -> Report:
    """Move everything from `source` to `sink` until the source ends; commit only what the sink acknowledged.

    report: filled in while the pump runs, so that it can be read when the pump was cancelled.
    watch: called after each batch (or piece of one, see `Sink.pieces`) that was acknowledged.
    Raises what the ends raise; cancelling it loses nothing that was acknowledged.
    """
    report = Report() if report is None else report
    stream = source.batches(where, start)
    try:
        async for batch in stream:
            report.seen += batch.seen
            for piece in sink.pieces(batch):
                ack = await sink.write(piece) if piece.records else NOTHING_WRITTEN
                taken = piece.first(len(piece.records) - ack.left)
                if taken.position is not None:
                    await source.commit(taken.position)
                report.add(taken, ack)
                if watch is not None:
                    watch(taken, ack, report)
                if taken is not piece:
                    await asyncio.sleep(0)  # the cancellation is felt here, before anything is written behind it
    finally:
        # An abandoned generator would be closed by the garbage collector, at a time of its choosing.
        await stream.aclose()
    return report
