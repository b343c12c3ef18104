"""Follow one or several taps: tail and record read from here.

A TapSource goes on for as long as it is wanted. A bus that is not there yet is waited for, one that comes back is read
on where we stopped, and a worker that joins under the same name is read from its beginning. Where the server can no
longer say what was missed in between, its stream starts with a Gap, and so does ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...errors import Broken, InvalidEvent, MalformedLine, Refused, Unreachable
from ...filter import Filter
from ...flow import MAX_BATCH, Batch, Notice, Notify, Record, Source, Start, no_notice
from .client import Conversation, Target, rejection_code
from .protocol import BEGINNING, VERSION, Note, Request, format_moment, is_event

WAIT_SECONDS = 0.1  # between two looks for a bus that is not there; what it publishes until we come is in its ring
LOOK_SECONDS = 0.5  # between two looks for another worker of the same name
AHEAD = 2  # batches read ahead of the consumer, all taps together: after that, who is slow is the server's to see
_GRACE = 1_000_000_000  # ns after `until` for events that were published just before it


@dataclass(slots=True)
class _Place:
    """Where we stopped in one tap's stream: `at`, the last event looked at, on this `bus`."""

    bus: str
    at: str | None


class TapSource(Source):
    """The events of the taps that `target` names.

    target: `unix:/path.sock`, a path, or a bare name (every live bus of that name in `folder`); several to follow them
        all. notify: told `waiting`, `connected`, `disconnected`. wait: where no bus is there, look until there is one;
        otherwise that is Unreachable.
    """

    def __init__(
        self,
        target: str | Path | Sequence[str | Path],
        folder: Path | None = None,
        *,
        notify: Notify = no_notice,
        wait: bool = True,
    ) -> None:
        texts = [target] if isinstance(target, str | Path) else target
        self._targets = [Target.of(text, folder) for text in texts]
        self.name = ", ".join(one.text for one in self._targets)
        self._notify = notify
        self._wait = wait
        self._places: dict[Path, _Place] = {}

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source. A stream that follows ends when `start.until` has passed, else never.

        Raises Unreachable (only without `wait`), Refused, Broken.
        """
        follow = start.follow and (start.until is None or start.until > time.time_ns())
        request = Request(
            eventbus=VERSION,
            do="subscribe",
            filter=None if where is None else where.to_json(),
            last="all" if start.since is not None else start.last,
            after=start.after,
            since=format_moment(start.since),
            until=format_moment(start.until),
            follow=follow,
        )
        arrivals: asyncio.Queue[Batch | None] = asyncio.Queue(AHEAD)
        supervisor = asyncio.create_task(self._supervise(request, start, arrivals))
        try:
            while (batch := await arrivals.get()) is not None:
                yield batch
            await supervisor
        finally:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)

    async def _supervise(self, request: Request, start: Start, arrivals: asyncio.Queue[Batch | None]) -> None:
        """Keep a follower on every socket that answers; the end, or an error, is announced by None."""
        followers: dict[Path, asyncio.Task[None]] = {}
        try:
            await self._look_after(followers, request, start, arrivals)
        finally:
            for task in followers.values():
                task.cancel()
            await asyncio.gather(*followers.values(), return_exceptions=True)
            this = asyncio.current_task()
            if this is None or not this.cancelling():  # cancelled: nobody listens any more
                await arrivals.put(None)

    async def _look_after(
        self,
        followers: dict[Path, asyncio.Task[None]],
        request: Request,
        start: Start,
        arrivals: asyncio.Queue[Batch | None],
    ) -> None:
        waiting = False
        first = request
        while start.until is None or not request.follow or time.time_ns() < start.until + _GRACE:
            for target in self._targets:
                for path in target.candidates():
                    if path not in followers:
                        ask = self._resume(path, first)
                        followers[path] = asyncio.create_task(self._follow(path, ask, arrivals))
            # Who joins from now on is new, and all it has is new to us.
            first = (
                msgspec.structs.replace(request, after=BEGINNING)
                if request.follow and request.after is None
                else request
            )
            if followers:
                await asyncio.wait(followers.values(), timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for path, task in list(followers.items()):
                if task.done():
                    del followers[path]
                    task.result()
            if followers:
                waiting = False
                continue
            if self._places and not request.follow:
                return
            if not self._wait:
                gone = "the bus has gone" if self._places else "no bus there"
                raise Unreachable(self.name, gone)
            if not waiting:
                waiting = True
                self._notify(Notice("waiting", self.name, self._scenery()))
            await asyncio.sleep(WAIT_SECONDS)

    def _resume(self, path: Path, request: Request) -> Request:
        place = self._places.get(path)
        if place is None:
            return request
        return msgspec.structs.replace(request, after=place.at, bus=place.bus)

    def _scenery(self) -> str:
        names = sorted({name for target in self._targets for name in target.neighbours()})
        return f"no bus there; live: {', '.join(names)}" if names else "no bus there"

    async def _follow(self, path: Path, request: Request, arrivals: asyncio.Queue[Batch | None]) -> None:
        """One connection to one tap, to its end. Nobody there is no error: the supervisor looks again."""
        known = path in self._places
        try:
            conversation = await Conversation.open(path, request)
        except Unreachable:
            return
        except Refused as error:
            if known and rejection_code(error) in ("full", "closed"):
                return  # it is restarting, or others were quicker; our place is kept
            raise
        greeting = conversation.greeting
        self._places[path] = _Place(greeting.bus, greeting.at)
        self._notify(Notice("connected", str(path)))
        try:
            ended = await _read(conversation, self._places[path], arrivals)
        finally:
            conversation.abort()
        if request.follow:
            self._notify(Notice("disconnected", str(path)))
        elif not ended:
            raise Broken(str(path), "it hung up in the middle of its history")


async def _read(conversation: Conversation, place: _Place, arrivals: asyncio.Queue[Batch | None]) -> bool:
    """Until the server hangs up. Did it say that this is the end?"""
    reading = _Reading(place)
    while lines := await conversation.lines():
        for line in lines:
            if not isinstance(line, MalformedLine) and is_event(line):
                reading.add(line)
            elif isinstance(note := conversation.reply(line), Note):
                reading.note(note)
            if len(reading.records) == MAX_BATCH:
                await arrivals.put(reading.take())
        if reading.records or reading.seen:
            await arrivals.put(reading.take())
    return reading.ended


class _Reading:
    """Event lines and notes of one connection on their way to batches."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._told = 0  # events that came, or that a note told of
        self._last: Record | None = None  # the event that came last, if no note came after it
        self.records: list[Record] = []
        self.seen = 0
        self.ended = False

    def add(self, line: bytes) -> None:
        record = Record(line=line)
        self.records.append(record)
        if record.gap is None:
            self._last = record
            self._told += 1
            self.seen += 1

    def note(self, note: Note) -> None:
        if note.seen > self._told:
            self.seen += note.seen - self._told
            self._told = note.seen
        if note.at is not None:
            self._place.at, self._last = note.at, None
        self.ended = note.end is not None

    def take(self) -> Batch:
        """What there is, as a batch."""
        if self._last is not None:
            with suppress(InvalidEvent):  # who wants the event will be told
                self._place.at = self._last.item.id
            self._last = None
        batch = Batch(self.records, None, self.seen)
        self.records, self.seen = [], 0
        return batch
