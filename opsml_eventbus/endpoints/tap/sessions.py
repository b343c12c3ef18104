"""What a tap does for one client that it has let in: a Watch for a subscriber, an Intake for a publisher.

A Watch reads the bus in published order and may be overtaken: what it loses is a Gap in its stream, and nobody else
notices. An Intake puts a client's lines on the bus in their order and acknowledges them, never earlier than the
recorder (`confirm`) has them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from ...bus import EventBus
from ...codec import encode_line
from ...errors import BusClosed, EventError, InvalidEvent
from ...event import Event, Gap
from ...filter import Filter
from ...subscription import Subscription
from . import protocol
from .connection import Connection
from .protocol import BEGINNING, Accepted, Acked, Greeting, Note, PublishedLines, Refused, Rejection, Request

MAX_BATCH = 256  # events taken from the ring at once: what a stalled client keeps alive beyond the ring
FLUSH_BYTES = 256 << 10  # written at once, about what a socket's buffer takes: what is copied for a stalled client
STINT = 64  # published lines until others get their turn: about 2 ms of decoding

Confirm = Callable[[], Awaitable[None]]


class Watch:
    """A subscriber's session."""

    def __init__(self, bus: EventBus, connection: Connection, request: Request, instance: str) -> None:
        self._connection = connection
        self._request = request
        self._source = bus.source
        self._pending: deque[Event | Gap] = deque()  # taken from the ring, not yet sent
        self._sent = 0  # events, those that could not be written included
        self._noted = 0
        self._left_with: int | None = None
        self._last: str | None = None
        if request.bus not in (None, instance):
            # Replays keep ids, so another instance may well know this one; it says nothing of what was missed.
            self._pending.append(Gap.new(None, request.after or None, "disconnect", source=bus.source))
            request = msgspec.structs.replace(request, after=None, last="all")
        # Asked first: what another thread publishes in between is then behind it and comes twice, rather than never.
        newest = _newest(bus) if request.after is None and request.last == 0 else None
        self._subscription = _subscribe(bus, request)
        self.at = newest if newest is not None else self._subscription.position

    @property
    def lost(self) -> int:
        """Events this client was too slow for; not those it left unread when it left."""
        return self._subscription.missed if self._left_with is None else self._left_with

    async def run(self, greeting: Greeting, closing: asyncio.Event) -> None:
        """Until the client leaves, the history ends (follow: false), or the bus or the tap closes."""
        async with self._subscription:
            try:
                self._connection.send(protocol.encode(greeting))
                if self._request.follow:
                    await self._follow(closing)
                else:
                    await self._rest()
                    self._note("history")
            finally:
                self._left_with = self._subscription.missed

    async def _follow(self, closing: asyncio.Event) -> None:
        stream = asyncio.ensure_future(self._stream())
        gone = asyncio.ensure_future(self._connection.gone())
        stop = asyncio.ensure_future(closing.wait())
        tasks = (stream, gone, stop)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)
            if gone.done():
                gone.result()
                return
            if not stream.cancelled():
                stream.result()  # it ended by itself: an error, or the bus is closed
            await self._rest()
            self._note("closed")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def tick(self) -> None:
        """Once a second: tell a client whose filter removes everything that we are still looking."""
        # A note speaks of what was sent before it, so it waits until everything was.
        if self._connection.idle and not self._pending and self._subscription.filtered:
            self._note()

    async def _stream(self) -> None:
        await self._flush()
        async for batch in self._subscription.item_batches(max_size=MAX_BATCH):
            self._pending.extend(batch)
            await self._flush()

    async def _rest(self) -> None:
        """What is in the ring now, and no more."""
        subscription = self._subscription
        await self._flush()
        left = subscription.unread
        end = left + subscription.received + subscription.filtered + subscription.missed
        while left > 0:
            self._pending.extend(subscription.drain(MAX_BATCH))
            if self._pending:
                await self._flush()
            else:  # a filter that wants nothing is not to keep others waiting
                await asyncio.sleep(0)
            left = min(end - subscription.received - subscription.filtered - subscription.missed, subscription.unread)

    async def _flush(self) -> None:
        while self._pending:
            # Handed over before the wait: one that is cancelled has lost nothing and sends nothing twice.
            self._connection.send(self._piece())
            await self._connection.flush()
            # A flush that need not wait does not let others run, and a busy bus always has a next batch.
            await asyncio.sleep(0)

    def _piece(self) -> bytes:
        """Lines of what is pending, taken out of it: as many as make FLUSH_BYTES."""
        lines: list[bytes] = []
        size = 0
        while self._pending and size < FLUSH_BYTES:
            line = self._line(self._pending.popleft())
            lines.append(line)
            size += len(line) + 1
        lines.append(b"")
        return b"\n".join(lines)

    def _line(self, item: Event | Gap) -> bytes:
        try:
            line = encode_line(item)
        except InvalidEvent:
            # Published by this program, impossible to write: its place in the stream says so.
            line = encode_line(Gap.new(1, self._last, "invalid", source=self._source))
        if isinstance(item, Event):
            self._sent += 1
            self._last = item.id
        return line

    def _note(self, end: str | None = None) -> None:
        seen = self._sent + self._subscription.filtered
        if end is not None or seen != self._noted:
            self._noted = seen
            self._connection.send(protocol.encode(Note(seen, self._subscription.position, end)))


def _subscribe(bus: EventBus, request: Request) -> Subscription[Any]:
    """Raises Rejection: the filter cannot mean anything, the bus is closed."""
    try:
        where = Filter.from_json(request.filter) if request.filter is not None else None
    except EventError as error:
        raise Rejection("filter", str(error)) from error
    since, until = request.times()
    if since is not None or until is not None:
        span = Filter.predicate(lambda event: _within(event, since, until), "a span of time")
        where = span if where is None else where & span
    last = None if request.after is not None or request.last == 0 else request.last
    try:
        return bus.subscribe(where, overflow="drop_oldest", order="published", last=last, after=request.after)
    except BusClosed as error:
        raise Rejection("closed") from error


def _newest(bus: EventBus) -> str:
    """The id of the newest event, BEGINNING where nothing has been published."""
    with suppress(BusClosed):
        scout = bus.subscribe(order="published", last=1)
        for item in scout.drain():
            if isinstance(item, Event):
                return item.id
    return BEGINNING


def _within(event: Event, since: int | None, until: int | None) -> bool:
    return (since is None or event.time >= since) and (until is None or event.time < until)


class Intake:
    """A publisher's session. confirm: returns when everything that is on the bus by now has been recorded."""

    def __init__(self, bus: EventBus, connection: Connection, confirm: Confirm | None) -> None:
        self._bus = bus
        self._connection = connection
        self._confirm = confirm
        self._lines = PublishedLines(bus.source)
        self._done = 0  # lines that are on the bus or were refused
        self._acked = 0
        self._more = asyncio.Event()

    async def run(self, greeting: Greeting, closing: asyncio.Event) -> None:
        """Until the client has sent everything and been answered. Raises Rejection: `closed`, `unsafe`."""
        self._connection.send(protocol.encode(greeting))
        reading = asyncio.ensure_future(self._read())
        acking = asyncio.ensure_future(self._acknowledge())
        stop = asyncio.ensure_future(closing.wait())
        tasks = (reading, acking, stop)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            acking.cancel()
            await asyncio.gather(reading, acking, return_exceptions=True)
            if not acking.cancelled():
                acking.result()  # nothing can be acknowledged any more
            await self._settle()
            if reading.cancelled():
                raise Rejection("closed")
            reading.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        while chunk := await self._connection.read():
            await self._take(self._lines.feed(chunk))
            self._done = self._lines.count
            self._more.set()
            # Neither a full buffer nor a bus with room makes this wait: readers run before the ring is overwritten.
            await asyncio.sleep(0)
        await self._take(self._lines.end())
        self._done = self._lines.count

    async def _take(self, found: Iterable[Accepted | Refused]) -> None:
        for turn, one in enumerate(found, 1):
            if turn % STINT == 0:
                await asyncio.sleep(0)
            try:
                if isinstance(one, Refused):
                    self._connection.send(protocol.encode(one))
                    await self._connection.flush()
                    continue
                self._done = one.number - 1
                if isinstance(one.item, Gap):
                    self._bus.pass_gap(one.item)
                else:
                    await self._bus.send(one.item)
            except BusClosed:
                raise Rejection("closed") from None

    async def _acknowledge(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            await self._settle()

    async def _settle(self) -> None:
        """Answer for what is done by now."""
        done = self._done
        if done == self._acked:
            return
        if self._confirm is not None:
            try:
                await self._confirm()
            except EventError as error:
                raise Rejection("unsafe", str(error)) from error
        self._acked = done
        self._connection.send(protocol.encode(Acked(done)))
        await self._connection.flush()
