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
from asyncio import Future
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from operator import length_hint
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar
from weakref import ref

from .event import DataT, Event, Gap
from .hub import Hub, resolve
from .ring import Order
from .selection import Predicate
from .taking import Overflow, Taking

StepT = TypeVar("StepT")

MAX_BATCH = 1024


class Subscription(Taking, Generic[DataT]):
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
    __slots__ = ("__anext__",)

    def __init__(
        self,
        hub: Hub,
        where: Predicate | None,
        overflow: Overflow,
        order: Order,
        last: int | Literal["all"] | None,
        after: str | None,
    ) -> None:
        super().__init__(hub, where, overflow, order, last, after)
        self._renew()

    @property
    def position(self) -> str | None:
        """The id of the event behind which reading goes on, one that the filter removed included.

        None where there is none: nothing was read yet, or a part of what was taken is still to be handed out.
        """
        last = self._cursor.last
        return None if last is None or self._gap is not None or length_hint(self._slice) else last.id

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────

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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
