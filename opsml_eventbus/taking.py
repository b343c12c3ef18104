"""How a subscription takes events out of the ring, and waits when there are none. The half of it that nobody sees.

Taken is a slice of at most 64 events, filtered, kept in `_slice` until it is handed out; or a Gap, kept in `_gap`,
which comes before the slice when both are there. Both are state of this object and of nothing else, which is why a
reader may be interrupted anywhere.

Whoever replaces `_slice` has emptied it first, in one step (`list(iterator)`): a reader on another thread that is
inside its loop over that very iterator then comes out of it, and no event is in two hands.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Iterator
from itertools import islice
from operator import length_hint
from typing import Literal
from weakref import ref

from .errors import BusClosed, Lagged
from .event import Event, Gap
from .hub import Hub, call_in, logger
from .ring import Cursor, Order
from .selection import Predicate
from .statistics import SubscriptionStatistics

Overflow = Literal["drop_oldest", "block", "disconnect"]

SLICE = 64  # events read ahead at most: what a reader may hold beyond the ring, and enough to share a lock's price
_LOOK = 1024  # events a filter looks at before the loop's other tasks have their turn


class Taking:
    """See the module."""

    __slots__ = (
        "__weakref__",
        "_careful",
        "_cursor",
        "_error",
        "_filtered",
        "_gap",
        "_hub",
        "_left",
        "_live",
        "_lossless",
        "_need",
        "_overflow",
        "_plain",
        "_slice",
        "_waiter",
        "_where",
        "prompt",
    )

    def __init__(
        self,
        hub: Hub,
        where: Predicate | None,
        overflow: Overflow,
        order: Order,
        last: int | Literal["all"] | None,
        after: str | None,
    ) -> None:
        self._live = False
        self._hub = hub
        self._where = where
        self.prompt = where is None  # the hub's: see there
        self._overflow: Overflow = overflow
        self._lossless = overflow == "block"
        self._filtered = 0
        self._slice: Iterator[Event] = iter(())
        self._gap: Gap | None = None
        self._error: Exception | None = None
        self._left = False  # delivers nothing more
        self._waiter: Future[None] | None = None
        self._need = 1
        with hub.lock:
            if hub.closed:
                raise BusClosed
            self._cursor = Cursor(hub.ring, order, lossless=self._lossless)
            # Ask before each event whether something more urgent has come meanwhile.
            self._careful = bool(hub.ring.sides) and order == "priority"
            self._find_beginning(last, after)
            hub.join(id(self), ref(self), self._cursor, lossless=self._lossless)
            self._live = True  # takes from the ring
            # Takes from the one lane, and no question is asked: the reader that has to be fast.
            self._plain = where is None and overflow == "drop_oldest" and not hub.ring.sides
        logger.debug("a subscription began: overflow %s, order %s", overflow, order)

    def _find_beginning(self, last: int | Literal["all"] | None, after: str | None) -> None:
        cursor = self._cursor
        if after == "":
            self._gap = cursor.begin()
        elif after is not None:
            if not cursor.seek(lambda events: _index_of(events, after)):
                self._gap = Gap.new(None, after, "disconnect", source=self._hub.source)
        elif last is not None:
            cursor.rewind()
        if isinstance(last, int):
            cursor.keep_last(last, self._where)

    # ── counts ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def received(self) -> int:
        """Events handed to the reader."""
        cursor = self._cursor
        return cursor.passed - cursor.missed - self._filtered - length_hint(self._slice)

    @property
    def filtered(self) -> int:
        """Events that its filter removed."""
        return self._filtered

    @property
    def missed(self) -> int:
        """Events lost before the filter could see them; once it has ended, also those it had not read."""
        return self._cursor.missed

    @property
    def unread(self) -> int:
        """Events published and neither received, filtered nor counted as missed. 0 once it has ended."""
        with self._hub.lock:
            return length_hint(self._slice) + (self._cursor.unread() if self._live else 0)

    def statistics(self, now: int) -> SubscriptionStatistics:
        """Lock held. now: ns since the epoch."""
        cursor = self._cursor
        oldest = cursor.oldest() if self._live else None
        return SubscriptionStatistics(
            overflow=self._overflow,
            order=cursor.order,
            received=self.received,
            filtered=self.filtered,
            missed=self.missed,
            unread=self.unread,
            high_water=cursor.high_water,
            oldest_unread=None if oldest is None else max(0.0, (now - oldest.time) / 1e9),
            waiting=self._waiter is not None,
        )

    # ── taking ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _look(self, size: int) -> list[Event] | Gap | None:
        """Take what comes next, filtered: events, a Gap, or None: nothing for this reader now."""
        hub, cursor, left = self._hub, self._cursor, _LOOK
        while True:
            with hub.lock:
                if length_hint(self._slice):  # `alert`, on another thread, took it out of the reader's hands
                    return list(islice(self._slice, size))
                if not self._live or (self._overflow == "disconnect" and self._cut_off()):
                    return None
                found = cursor.take(size)
                if self._lossless and (hub.senders or hub.ring.overfull):
                    hub.make_room()
                if found is None:
                    if hub.closed:
                        self._finish()
                    return None
            if isinstance(found, Gap):
                return _logged(found)
            if self._where is None:
                return found
            left -= len(found)
            found = self._sift(found, self._where)
            if found:
                return found
            if left <= 0:
                return None

    def _cut_off(self) -> bool:
        cursor = self._cursor
        if not cursor.lagging():
            return False
        cursor.abandon()
        self._fail(Lagged(cursor.missed))
        return True

    def _fill(self) -> bool:
        """Have a slice or a Gap at hand. False: nothing for this reader now."""
        if self._plain:
            # As `_look`, without what a plain reader has no need of. (`with` costs twice as much as this.)
            hub = self._hub
            hub.lock.acquire()
            try:
                events = self._cursor.take(SLICE) if self._plain else None
            finally:
                hub.lock.release()
            if events.__class__ is list:
                self._slice = iter(events)
                return True
            if isinstance(events, Gap):
                self._gap = _logged(events)
                return True
            if self._plain and not hub.closed:
                return False
        # A place is freed for a sender when its event is handed over, so a lossless reader reads nothing ahead.
        found = self._look(1 if self._lossless else SLICE)
        if isinstance(found, Gap):
            self._gap = found
        elif found is not None:
            self._slice = iter(found)
        return found is not None

    def _sift(self, events: list[Event], where: Predicate) -> list[Event]:
        kept: list[Event] = []
        looked = 0
        try:
            for event in events:
                if where(event):
                    kept.append(event)
                looked += 1
        except BaseException as error:
            # What matched before is still delivered; this one, and what follows, nobody has looked at.
            if len(kept) > looked:
                kept.pop()
            self._cursor.missed += len(events) - looked
            with self._hub.lock:
                self._cursor.abandon()
            if not isinstance(error, Exception):
                raise
            self._fail(error)
        self._filtered += looked - len(kept)
        return kept

    def _one(self) -> Event | None:
        """The next event of the slice, or one that goes before it."""
        if self._careful and self._cursor.sides_seen != self._hub.ring.side_published:
            self._let_pass()
        return next(self._slice, None)

    def _let_pass(self) -> None:
        """Something came into the side lanes. What is more urgent than the rest of the slice goes before it."""
        cursor = self._cursor
        rest = list(self._slice)
        while rest and self._live and len(rest) < SLICE:
            with self._hub.lock:
                if self._overflow == "disconnect" and cursor.lagging():
                    break  # it will be cut off when what it holds is read
                found = cursor.take_above(rest[0].priority, SLICE - len(rest))
            if found is None:
                break
            if isinstance(found, Gap):
                self._gap = found
                break
            rest[:0] = found if self._where is None else self._sift(found, self._where)
        self._slice = iter(rest)

    def _drain(self, size: int, gaps: bool) -> list[Event | Gap]:
        """Everything there is for this reader, at most `size`."""
        if self._plain and self._gap is None and not length_hint(self._slice):
            with self._hub.lock:
                found = self._cursor.take(size) if self._plain else None  # all there is, unless it is a Gap
            if found.__class__ is list:
                return found  # type: ignore[return-value]
            if isinstance(found, Gap):
                self._gap = _logged(found)
        if self._careful and self._cursor.sides_seen != self._hub.ring.side_published:
            self._let_pass()
        batch: list[Event | Gap] = [self._gap] if gaps and self._gap is not None else []
        self._gap = None
        batch += islice(self._slice, size - len(batch))
        while len(batch) < size and (found := self._look(size - len(batch))) is not None:
            if isinstance(found, Gap):
                if gaps:
                    batch.append(found)
            elif batch:
                batch += found
            else:
                batch = found  # type: ignore[assignment]  # ours alone from here on
        return batch

    # ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _wait(self) -> None:
        waiter = self._park()
        if waiter is None:
            await asyncio.sleep(0)  # there is more to look at; the loop's other tasks have their turn first
            return
        try:
            await waiter
        except BaseException:
            self._unpark(waiter)
            raise
        self._waiter = None  # whoever roused it has unparked it

    def _park(self, need: int = 1) -> Future[None] | None:
        """A future that is done when there may be something new; None when there is already, or never will be.

        need: unread events that are worth being woken for.
        """
        if self._waiter is not None:
            raise RuntimeError("another task is waiting on this subscription: it has one reader at a time")
        loop = asyncio.get_running_loop()
        with self._hub.lock:
            if not self._arm(loop, need):
                return None
            self._need = need
            self._waiter = waiter = loop.create_future()
            return waiter

    def _arm(self, loop: AbstractEventLoop, need: int) -> bool:
        """Lock held. False: do not wait."""
        hub, cursor = self._hub, self._cursor
        if not self._live or hub.closed:
            return False
        # Armed first, then looked at once more: see hub.py.
        hub.park(loop, self, None if need == 1 else hub.ring.end + need - cursor.unread())
        if cursor.ready() if need == 1 else cursor.unread() >= need:
            hub.unpark(loop, self)
            return False
        return True

    def _unpark(self, waiter: Future[None]) -> None:
        with self._hub.lock:
            self._waiter = None
            self._hub.unpark(waiter.get_loop(), self)

    def rouse(self) -> None:
        """The hub's: there may be something new. In the reader's loop."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        # A filter is asked before its task is woken: what it does not want costs no task switch.
        if self._need > 1 or (self._where is not None and not self._fill()):
            with self._hub.lock:
                if self._arm(waiter.get_loop(), self._need):
                    return
        waiter.set_result(None)

    def alert(self) -> None:
        """The hub's: there is more than one lane from now on. Lock held."""
        self._plain = False
        if self._cursor.order == "priority":
            self._careful = True
            # Emptied in one step, so that the reader, if it is inside its loop over this very iterator, comes out.
            self._slice = iter(list(self._slice))

    # ── ending ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """End it: nothing more is delivered, whoever waits for it (a reader, a sender) is let go. From any thread."""
        with self._hub.lock:
            if self._left:
                return
            self._left = True
            self._gap = None
            self._cursor.missed += len(list(self._slice))  # emptied: what was in the reader's hands too
            if self._live:
                self._cursor.abandon()
                self._finish()
            waiter = self._waiter
            if waiter is not None:
                self._hub.unpark(waiter.get_loop(), self)
        if waiter is not None:
            call_in(waiter.get_loop(), self.rouse)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._finish()

    def _finish(self) -> None:
        """Take nothing more from the ring."""
        if self._live:
            self._live = self._plain = False
            self._hub.leave(id(self), self._cursor.missed)
            logger.debug("a subscription ended: %d received, %d missed", self.received, self.missed)

    def _over(self) -> bool:
        """Is nothing more to come? Raises what ended it, once."""
        if self._live:
            return False
        error, self._error = self._error, None
        if error is not None and not self._left:
            raise error
        return True

    def __del__(self) -> None:
        if getattr(self, "_live", False):
            self._live = False
            self._hub.leave(id(self), self._cursor.missed)


def _logged(gap: Gap) -> Gap:
    logger.debug("a subscription missed %s events", gap.missed)
    return gap


def _index_of(events: list[Event], id: str) -> int | None:  # noqa: A002 - the member's name on the wire
    return next((index for index in range(len(events) - 1, -1, -1) if events[index].id == id), None)
