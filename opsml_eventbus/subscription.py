"""One reader's view of a bus: every event, or a Gap that says how many it missed.

    async with bus.subscribe(AuditEvent) as subscription:
        async for event in subscription: ...

A subscription begins at `subscribe()` and is its own iterator. It holds its place itself: a wait that is cancelled or
times out, a `break` out of a loop, another kind of loop afterwards, all go on exactly where it was. One task reads at
a time; a second one that waits at the same moment is refused with RuntimeError.

It ends when it is left or closed (then nothing more is delivered), when the bus is closed and read to its end, when a
filter raises (that error comes out of the iteration), when it lags and asked to be disconnected (`Lagged`), and when
nobody refers to it any more.

The law, at every moment: **received + filtered + missed + unread == published since it began**; when it ends, what
was unread counts as missed.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import AbstractEventLoop, Future
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import islice
from operator import length_hint
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar
from weakref import ref

from .errors import BusClosed, Lagged
from .event import DataT, Event, Gap
from .hub import Hub, call_in, logger, resolve
from .ring import Cursor, Order
from .selection import Predicate
from .statistics import SubscriptionStatistics

Overflow = Literal["drop_oldest", "block", "disconnect"]
StepT = TypeVar("StepT")

SLICE = 64  # events read ahead at most: what a reader may hold beyond the ring, and enough to share a lock's price
_LOOK = 1024  # events a filter looks at before the loop's other tasks have their turn
MAX_BATCH = 1024


class Subscription(Generic[DataT]):
    """Made by `bus.subscribe`. `async for` gives events; `items()` and `item_batches()` give Gaps too.

    received: events handed to the reader. filtered: events its filter removed. missed: events lost before the filter
    could see them, the sum of its own Gaps (Gaps passed on from upstream are not added).
    """

    if TYPE_CHECKING:

        async def __anext__(self) -> Event[DataT]:
            """The next event; waits for one. Raises StopAsyncIteration at the end."""
            raise NotImplementedError

    # At run time `__anext__` is a slot that holds a method of an async generator: `async for` gets from there to the
    # event without a coroutine of its own per event.
    __slots__ = (
        "__anext__",
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
        self._renew()
        logger.debug("a subscription began: overflow %s, order %s", overflow, order)

    def _find_beginning(self, last: int | Literal["all"] | None, after: str | None) -> None:
        cursor = self._cursor
        if after == "":
            cursor.begin()
        elif after is not None:
            if not cursor.seek(lambda events: _index_of(events, after)):
                self._gap = Gap.new(None, after, "disconnect", source=self._hub.source)
        elif last is not None:
            cursor.rewind()
        if isinstance(last, int):
            cursor.keep_last(last, self._where)

    # ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────

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

    @property
    def position(self) -> str | None:
        """The id of the event behind which reading goes on, one that the filter removed included.

        None where there is none: nothing was read yet, or a part of what was taken is still to be handed out.
        """
        last = self._cursor.last
        return None if last is None or self._gap is not None or length_hint(self._slice) else last.id

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

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def __aiter__(self) -> Self:
        return self

    def items(self) -> AsyncIterator[Event[DataT] | Gap]:
        """Events, and Gaps where some are missing."""
        return _Stream(self._item)

    def batches(self, max_size: int = MAX_BATCH, max_wait: float = 0) -> AsyncIterator[list[Event[DataT]]]:
        """What is there, at most `max_size` events at a time; waits only when nothing is.

        max_wait: seconds to linger for more once there is something, until `max_size` (or the ring's capacity) is
        there. Nothing is taken out of the ring meanwhile.
        """
        return self._batches(max_size, max_wait, gaps=False)  # without Gaps

    def item_batches(self, max_size: int = MAX_BATCH, max_wait: float = 0) -> AsyncIterator[list[Event[DataT] | Gap]]:
        """As `batches`, with the Gaps among the events."""
        return self._batches(max_size, max_wait, gaps=True)

    def drain(self, max_size: int = MAX_BATCH) -> list[Event[DataT] | Gap]:
        """What is there now, at most `max_size`; never waits. Empty with `unread` left: there is more to filter."""
        return self._drain(max_size, gaps=True)

    def _batches(self, size: int, wait: float, gaps: bool) -> AsyncIterator[list[Any]]:
        if size < 1:
            raise ValueError(f"max_size: at least 1 event, not {size}")
        return _Stream(partial(self._batch, size, wait, gaps))

    def _renew(self) -> None:
        """Give it another generator."""
        events = _events(ref(self))
        self.__anext__ = events.__anext__  # type: ignore[method-assign]
        # Started here, without the loop's hooks: they would keep it in a list and finish it in a task of its own when
        # it is dropped. It has nothing to finish.
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            events.__anext__().send(None)
        except StopIteration:
            pass
        finally:
            sys.set_asyncgen_hooks(*hooks)

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

    async def _batch(self, size: int, wait: float, gaps: bool) -> list[Event | Gap]:
        while True:
            if wait > 0:
                await self._linger(size, wait)
            batch = self._drain(size, gaps)
            if batch:
                return batch
            if self._over():
                raise StopAsyncIteration
            await self._wait()

    async def _linger(self, size: int, wait: float) -> None:
        """Once there is something, wait until there is enough, or for `wait` seconds."""
        need = min(size, self._hub.ring.capacity) - length_hint(self._slice)
        if need <= 0 or self._gap is not None:
            return
        if not length_hint(self._slice):
            while not self._cursor.ready():
                if not self._live or self._hub.closed:
                    return
                await self._wait()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while (left := deadline - loop.time()) > 0 and (waiter := self._park(need)) is not None:
            timer = loop.call_later(left, resolve, waiter, None)
            try:
                await waiter
            finally:
                timer.cancel()
                self._unpark(waiter)

    async def _item(self) -> Event | Gap:
        while True:
            if self._gap is not None:
                gap, self._gap = self._gap, None
                return gap
            event = self._one()
            if event is not None:
                return event
            if not self._fill():
                if self._over():
                    raise StopAsyncIteration
                await self._wait()

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

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

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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


async def _events(weak: ref[Subscription[Any]]) -> AsyncGenerator[Event]:
    """What `__anext__` runs. It holds the subscription only while it works, so that a dropped one is gone at once."""
    yield None  # type: ignore[misc]  # up to here it was run by _renew
    if weak() is None:
        raise RuntimeError("this subscription is gone; something must hold it while its events are awaited")
    waiter: Future[None] | None = None
    try:
        while (self := weak()) is not None:
            if self._careful:
                event = self._one()
                if event is not None:
                    del self
                    yield event
                    continue
            else:
                rest = self._slice
                del self
                for event in rest:
                    yield event
                if (self := weak()) is None:
                    return
            while not self._fill():
                if self._over():
                    return
                waiter = self._park()
                del self
                await (waiter if waiter is not None else asyncio.sleep(0))  # as in _wait
                if (self := weak()) is None:
                    return
                self._waiter = waiter = None  # whoever roused it has unparked it
            self._gap = None
    except BaseException as error:
        # An exception ends a generator, not the subscription: it is given another one.
        if (self := weak()) is not None:
            if waiter is not None:
                self._unpark(waiter)
            if not isinstance(error, GeneratorExit):
                self._renew()
        raise


class _Stream(Generic[StepT]):
    """An iterator over what `step` gives. It has no state of its own: the subscription holds the place."""

    def __init__(self, step: Callable[[], Awaitable[StepT]]) -> None:
        self._step = step

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[StepT]:
        return self._step()


def _logged(gap: Gap) -> Gap:
    logger.debug("a subscription missed %s events", gap.missed)
    return gap


def _index_of(events: list[Event], id: str) -> int | None:  # noqa: A002 - the member's name on the wire
    return next((index for index in range(len(events) - 1, -1, -1) if events[index].id == id), None)
