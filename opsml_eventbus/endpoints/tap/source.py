"""Follow a bus, or all buses of one name: tail and record read from here.

A TapSource goes on for as long as it is wanted. A bus that is not there yet is waited for, one that comes back is read
on where we stopped, and a worker that joins under the same name is read from its beginning. Where the server can no
longer say what was missed in between, its stream starts with a Gap, and so does ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

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
    """Where we stopped in one tap's stream: `at`, the last event looked at, on this `bus`; None: before all it had."""

    bus: str
    at: str | None


class TapSource(Source):
    """The events of the tap that `target` names.

    target: `unix:/path.sock`, a path, or a bare name: every live bus of that name in `folder`.
    notify: told `waiting`, `connected`, `disconnected`, `closed`. wait: where no bus is there, look until there is one;
        otherwise that is Unreachable.
    """

    def __init__(
        self, target: str | Path, folder: Path | None = None, *, notify: Notify = no_notice, wait: bool = True
    ) -> None:
        self._target = Target.of(target, folder)
        self.name = self._target.text
        self._notify = notify
        self._wait = wait
        self._places: dict[Path, _Place] = {}
        self._followers: dict[Path, asyncio.Task[None]] = {}
        self._conversations: set[Conversation] = set()
        self._connects = 0

    async def __aenter__(self) -> Self:
        """Raises Unreachable where no bus is there and none is waited for: before a sink is opened for nothing."""
        if not self._wait and not self._target.live():
            raise Unreachable(self.name, "no bus there")
        return self

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source. A stream that follows ends when `start.until` has passed, else never.

        Raises Unreachable (only without `wait`), Refused, Broken.
        """
        request = Request(
            eventbus=VERSION,
            do="subscribe",
            filter=None if where is None else where.to_json(),
            last="all" if start.since is not None else start.last,
            after=start.after,
            since=format_moment(start.since),
            until=format_moment(start.until),
            follow=start.follow and not _over(start),
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

    async def close(self) -> None:
        """Hang up."""
        for conversation in self._conversations:
            conversation.abort()

    async def _supervise(self, request: Request, start: Start, arrivals: asyncio.Queue[Batch | None]) -> None:
        """Keep a follower on every socket that answers. The end, or an error, is announced by None."""
        try:
            await self._look_after(request, start, arrivals)
            if request.follow:
                await self._catch_up(request, arrivals)
        finally:
            for task in self._followers.values():
                task.cancel()
            await asyncio.gather(*self._followers.values(), return_exceptions=True)
            this = asyncio.current_task()
            if this is None or not this.cancelling():  # cancelled: nobody listens any more
                await arrivals.put(None)

    async def _look_after(self, request: Request, start: Start, arrivals: asyncio.Queue[Batch | None]) -> None:
        told = -1  # how often we had been connected when we last said that we wait
        first = request
        while not (request.follow and _over(start, _GRACE)):
            for path in self._target.candidates():
                if path not in self._followers and (request.follow or path not in self._places):
                    ask = self._resume(path, first)
                    self._followers[path] = asyncio.create_task(self._follow(path, ask, arrivals))
            if request.follow and request.after is None:
                # Who joins from now on is new, and all it has is new to us.
                first = msgspec.structs.replace(request, after=BEGINNING)
            await self._reap()
            if self._followers:
                continue
            if self._connects and not request.follow:
                return
            if not self._wait:
                raise Unreachable(self.name, "the bus has gone" if self._connects else "no bus there")
            if told != self._connects:
                told = self._connects
                self._notify(Notice("waiting", self.name, self._scenery()))
            await asyncio.sleep(WAIT_SECONDS)

    async def _catch_up(self, request: Request, arrivals: asyncio.Queue[Batch | None]) -> None:
        """`until` has passed: what came before it and is still on its way, or in a ring, is read to its end."""
        await self.close()
        await asyncio.gather(*self._followers.values())
        rest = msgspec.structs.replace(request, follow=False)
        for path in self._places:
            self._followers[path] = asyncio.create_task(self._follow(path, self._resume(path, rest), arrivals))
        await asyncio.gather(*self._followers.values())

    async def _reap(self) -> None:
        """Until it is time to look again, or nobody is left to follow. Raises what ended a follower."""
        deadline = time.monotonic() + LOOK_SECONDS
        while self._followers and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(self._followers.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for path, task in list(self._followers.items()):
                if task.done():
                    del self._followers[path]
                    task.result()

    def _resume(self, path: Path, request: Request) -> Request:
        place = self._places.get(path)
        if place is None:
            return request
        return msgspec.structs.replace(request, last="all", after=place.at, bus=place.bus)

    def _scenery(self) -> str:
        names = self._target.neighbours()
        return f"no bus there; live: {', '.join(names)}" if names else "no bus there"

    async def _follow(self, path: Path, request: Request, arrivals: asyncio.Queue[Batch | None]) -> None:
        """One connection to one tap, to its end. Nobody there is no error: the supervisor looks again."""
        try:
            conversation = await Conversation.open(path, request)
        except Unreachable:
            return
        except Refused as error:
            code = rejection_code(error)
            if code == "closed" or (code == "full" and path in self._places):
                return  # it is about to go, or others were quicker; our place is kept
            raise
        self._conversations.add(conversation)
        self._connects += 1
        self._notify(Notice("connected", str(path)))
        greeting = conversation.greeting
        place = self._places.setdefault(path, _Place(greeting.bus, greeting.at))
        try:
            end = await _read(conversation, place, arrivals)
        finally:
            self._conversations.discard(conversation)
            conversation.abort()
        if request.follow:
            self._notify(Notice("closed" if end == "closed" else "disconnected", str(path)))
        elif end is None:
            raise Broken(str(path), "it hung up in the middle of its history")


def _over(start: Start, grace: int = 0) -> bool:
    return start.until is not None and time.time_ns() >= start.until + grace


async def _read(conversation: Conversation, place: _Place, arrivals: asyncio.Queue[Batch | None]) -> str | None:
    """Until the server hangs up. Returns which end it said that this is, None: it did not say."""
    reading = _Reading(place)
    while lines := await conversation.lines():
        if place.bus != conversation.greeting.bus:
            # Only now: had the connection broken before its first line, the Gap would have been lost with it.
            place.bus, place.at = conversation.greeting.bus, None
        for line in lines:
            if not isinstance(line, MalformedLine) and is_event(line):
                reading.add(line)
            elif isinstance(note := conversation.reply(line), Note):
                reading.note(note)
            if len(reading.records) == MAX_BATCH:
                await arrivals.put(reading.take())
        if reading.records or reading.seen:
            await arrivals.put(reading.take())
    return reading.end


class _Reading:
    """Event lines and notes of one connection on their way to batches."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._told = 0  # events that came, or that a note told of
        self._last: Record | None = None  # the event that came last, if no note came after it
        self.records: list[Record] = []
        self.seen = 0
        self.end: str | None = None

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
        self.end = note.end

    def take(self) -> Batch:
        """What there is, as a batch."""
        if self._last is not None:
            with suppress(InvalidEvent):  # who wants the event will be told
                self._place.at = self._last.item.id
            self._last = None
        batch = Batch(self.records, None, self.seen)
        self.records, self.seen = [], 0
        return batch
