"""A journal as a source: a whole log, its files in order, live across rotation; or one finished file of it.

What is no sound line is refused with its place, and a Gap (`invalid`) stands where it was; reading goes on behind it.
So does a line that is chained and holds no event: somebody has changed its inside. Readers never write, and do not
check the chain: `verify` does.

A log that is followed by its live path is followed by name: when it is overwritten, the one that took its name is read
from its beginning, and that is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, closing
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from ..codec import decode_line
from ..errors import InvalidEvent, JournalRefused, MalformedLine, UnknownEnd, Unreachable, reason
from ..event import CONTROL_PREFIX, Event, Gap, refuse_own
from ..filter import Filter
from ..flow import Batch, Notice, Notify, Position, Record, Refusal, Source, Start, no_notice
from ..journal import Damage, Head, JournalReader, Line, find_log, read_backwards
from ..journal.format import CONTROL_AT, CONTROL_MARK
from ..journal.lines import look_sound
from ..journal.segments import printable
from ..journal.succession import peek_open

POLL_SECONDS = 0.1  # how often a followed log is looked at: below what a person notices, and no load
TORN_SECONDS = 0.25  # a last line that does not grow for so long was cut off
ResultT = TypeVar("ResultT")
_TRIES = 10  # a batch is refused and tried again once a second at most
CHUNK = 1000  # lines looked at from the end before others have their turn


def is_journal(path: str | Path) -> bool:
    """Does `path` mean a journal, rather than any JSONL file? Raises UnknownEnd: a folder with several logs."""
    try:
        log = find_log(path)
    except FileNotFoundError:
        return False
    except JournalRefused as error:
        if error.found:
            raise UnknownEnd(str(path), error.reason) from error
        return False  # a folder without a log: perhaps one of compressed files that are no journal
    if not log.segments:
        return False
    if log.whole and len(log.segments) > 1:
        return True
    try:
        with closing(log.segments[0].open()) as stream:
            start = stream.read(CONTROL_AT + len(CONTROL_MARK))
    except (OSError, EOFError, ValueError):
        return log.segments[0].first is not None
    return start[CONTROL_AT:] == CONTROL_MARK


def log_id(path: str | Path) -> str:
    """The id of the log that has this name now; empty where there is none, or none can be read."""
    try:
        segments = find_log(path).segments
    except (OSError, JournalRefused):
        return ""
    return next((opened.log for segment in segments if (opened := peek_open(segment))), "")


class JournalSource(Source):
    """The events and Gaps of a journal, in the order of their seq.

    Positions are Heads: where the line is not the one that was committed (the log was cut or repaired since), all of it
    comes again, behind a Gap. A bare seq is taken at its word.
    """

    def __init__(self, path: str | Path, *, notify: Notify = no_notice) -> None:
        """Raises Unreachable: it is not there, or cannot be read. UnknownEnd: a folder with several logs."""
        self._path = Path(path)
        self.name = printable(str(path))
        self._notify = notify
        try:
            find_log(path)
        except JournalRefused as error:
            raise UnknownEnd(self.name, error.reason) from error
        except OSError as error:
            raise Unreachable(self.name, reason(error)) from error

    @property
    def finite(self) -> bool:
        """It ends, unless it is followed."""
        return True

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source."""
        view, log = _View(self.name, where, start), log_id(self._path)
        if start.position is None and start.after is None and isinstance(start.last, int):
            view, reader, last = await self._from_end(where, start, start.last)
        else:
            behind, from_seq = None, 1
            if isinstance(start.position, Head):
                behind = start.position
            elif isinstance(start.position, int):
                from_seq = start.position + 1
            elif start.after is not None:
                behind = await self._head_of(start.after)
                if behind is None:
                    yield Batch([Record(Gap.new(None, start.after, "disconnect", source=self.name))])
            since = start.since if from_seq == 1 and behind is None else None
            reader, last = self._reader(view, from_seq=from_seq, behind=behind, since=since), None
        while True:
            with reader:
                if last is not None and (last.records or last.seen):
                    yield last
                only_torn = last is not None and not start.follow
                async with aclosing(self._read(reader, view, log, start.follow, only_torn)) as stream:
                    async for batch in stream:
                        yield batch
            if not start.follow:
                return
            self._notify(Notice("moved", self.name, "another log took its name; reading on in that one"))
            log, last = log_id(self._path), None
            reader = self._reader(view)

    async def _read(
        self, reader: JournalReader, view: _View, log: str, follow: bool, only_torn: bool
    ) -> AsyncGenerator[Batch, None]:
        """To the end of the log, or, followed, until another log has taken its name.

        only_torn: a last line that was cut off, which is not seen from the end, and nothing that is added meanwhile.
        """
        said = False
        idle = 0.0
        while True:
            portion = await _in_thread(reader.read)
            if only_torn and (portion.passed or any(isinstance(item, Line) for item in portion.items)):
                return
            batch = view.take([] if only_torn else portion.items, portion.passed, reader.head)
            if batch.records or batch.seen:
                idle = 0.0
                yield batch
            if not portion.end:
                continue
            if reader.moved and follow:
                if log_id(self._path) not in ("", log):
                    return
                if not said:
                    said = True
                    self._notify(Notice("moved", self.name, "the file was taken away; waiting for its successor"))
            if follow:
                await asyncio.sleep(POLL_SECONDS)
                continue
            torn = reader.torn_end()
            if torn is None:
                return
            if idle >= TORN_SECONDS:
                yield view.take([torn], 0, reader.head)
                return
            await asyncio.sleep(0.02)
            idle += 0.02

    def _reader(
        self, view: _View, *, from_seq: int = 1, behind: Head | None = None, since: int | None = None
    ) -> JournalReader:
        try:
            return JournalReader(self._path, from_seq=from_seq, behind=behind, since=since, sieve=view.sieve)
        except JournalRefused as error:
            raise UnknownEnd(self.name, error.reason) from error
        except OSError as error:
            raise Unreachable(self.name, reason(error)) from error

    async def _from_end(self, where: Filter | None, start: Start, count: int) -> tuple[_View, JournalReader, Batch]:
        """The last `count` matching events, and a reader that goes on behind them."""
        for _ in range(_TRIES):
            view = _View(self.name, where, start)
            last, behind = await self._last(view, count, start.follow)
            reader = self._reader(view, behind=behind)
            if not reader.cut:
                return view, reader, last
            reader.close()  # a batch that was among them was refused meanwhile
        # Its lines are out of order: they are found from the end, and not by their seq.
        return view, self._reader(view, from_seq=1 if behind is None else behind.seq + 1), last

    async def _last(self, view: _View, count: int, follow: bool) -> tuple[Batch, Head | None]:
        """The last `count` matching events with the Gaps among and behind them, and the newest line; read from the end.

        follow: what is damaged behind the newest line is left to whoever reads on behind it.
        """
        kept: list[Line | Damage] = []
        scout = view.again()  # met from the end, nothing knows yet which event stands before it
        events = seen = 0
        head: Head | None = None
        with closing(read_backwards(self._path)) as items:
            while (head is None or events < count) and (chunk := await _in_thread(lambda: list(islice(items, CHUNK)))):
                for item in chunk:
                    if isinstance(item, Line):
                        head = head or item.head
                    if head is None and follow:
                        continue
                    if head is not None and events == count:
                        break
                    one = scout.take([item], 0, None)
                    seen += one.seen
                    if one.records:
                        kept.append(item)
                        events += one.records[0].gap is None
        last = view.take(kept[::-1], 0, head)
        last.seen = seen
        return last, head

    async def _head_of(self, id: str) -> Head | None:  # noqa: A002
        """Where the log stands behind the event with this id."""
        beginning = b'{"specversion":"1.0","id":' + msgspec.json.encode(id) + b","
        with JournalReader(self._path, sieve=lambda block: beginning in block) as reader:
            while not (portion := await _in_thread(reader.read)).end:
                for item in portion.items:
                    if isinstance(item, Line) and item.line.startswith(beginning):
                        return item.head
        return None


class _View:
    """Lines in, batches out: what of a log matches. No I/O."""

    def __init__(self, name: str, where: Filter | None, start: Start) -> None:
        self._name = name
        self._where = where
        self._start = start
        self.sieve = where.screen() if where is not None else None
        self._last_id: str | None = None

    def again(self) -> _View:
        """The same view of another stretch of the log."""
        return _View(self._name, self._where, self._start)

    def take(self, items: list[Line | Damage], passed: int, position: Position) -> Batch:
        batch = Batch([], position, passed)
        for item in items:
            if isinstance(item, Damage):
                self._damage(item, batch)
                continue
            if self.sieve is not None and not self.sieve(item.line) and look_sound(item.line):
                batch.seen += 1
                continue
            try:
                event = decode_line(item.line)
                _refuse_own(event)
            except InvalidEvent as error:
                self._refuse(_place(item), error, batch, 1)
                continue
            if isinstance(event, Gap):
                batch.records.append(Record(event, item.line, item.head))
                continue
            batch.seen += 1
            self._last_id = event.id
            if self._start.admits(event) and (self._where is None or self._where.matches(event)):
                batch.records.append(Record(event, item.line, item.head))
        return batch

    def _damage(self, damage: Damage, batch: Batch) -> None:
        # How many lines are missing may be known, but not how many of them were events.
        self._refuse(_place(damage), MalformedLine(damage.reason, f"byte {damage.byte}"), batch, None)

    def _refuse(self, place: str, error: InvalidEvent, batch: Batch, missed: int | None) -> None:
        batch.records.append(Record(Gap.new(missed, self._last_id, "invalid", source=self._name)))
        batch.refusals.append(Refusal(place, error))


def _place(item: Line | Damage) -> str:
    """Where it stands. Nobody has counted lines that were read from the end: a seq, or a Damage's own byte, is told."""
    if item.number:
        return f"{item.file}:{item.number}"
    return f"{item.file}: seq {item.seq}" if isinstance(item, Line) else item.file


def _refuse_own(item: Event | Gap) -> None:
    """A journal's records are not read as lines; one that is, stands there as no journal writes it."""
    if item.type.startswith(CONTROL_PREFIX):
        raise InvalidEvent(f"{item.type!r}, but not as a journal writes it", "type")
    refuse_own(item)


async def _in_thread(call: Callable[[], ResultT]) -> ResultT:
    """Run what blocks on the disk. Cancelled, it is waited for: whoever closes the files must be their only user."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # looked at: the cancellation is what counts now
        raise
