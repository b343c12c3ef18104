"""OpsML's audit table as a source, whatever the database: `TableSource` over a narrow `Table`.

Every row appears once, in the order of ids, also those written while the source follows. A table is read and never
written, page by page; between two looks at it nothing is held: no transaction, no lock.

Following, the table is looked at every 100 ms while rows come and up to every second when none do; a dialect that can
tell cheaply that something was written (`changed`) is asked in between, so that a row is seen sooner at no cost to the
server. What fails for a while (a busy database, a file that is gone, a table that was dropped) is told to `notify` once
and tried again until it works; what cannot get better ends the stream with Broken.

A dialect is one file: a `Table`, and a TableSource that makes one. Every call to a Table comes from one worker thread.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from ...errors import Broken
from ...event import Gap
from ...filter import Filter
from ...flow import Batch, Notice, Notify, Record, Source, Start
from .cursor import Cursor, Page
from .rows import Row

PAGE_ROWS = 256  # one look at the table: a millisecond of a shared lock, and a few of the event loop
FASTEST_SECONDS = 0.1  # between looks while rows come
SLOWEST_SECONDS = 1.0  # and when none have come for a while
PEEK_SECONDS = 0.05  # how often a dialect is asked, in between, whether anything was written

T = TypeVar("T")


class TryAgain(Exception):
    """A look at the table failed and may work later.

    busy: it will, as soon as somebody else is done. gone: there is nothing there to look at.
    """

    def __init__(self, reason: str, *, busy: bool = False, gone: bool = False) -> None:
        super().__init__(reason)
        self.busy = busy
        self.gone = gone


class Table(ABC):
    """One database that holds the table. Synchronous; called from one thread, the same for its whole life.

    Every method but `changed` and `close` may raise TryAgain, or an EndError when trying again is no use.
    """

    source: str  # of its events: the same for the same database, however it was named; never a password

    @abstractmethod
    def open(self) -> None:
        """Connect, and see that the table is there. Raises Unreachable, Refused."""

    @abstractmethod
    def look(self, after: int, mark: int | None, limit: int) -> Page:
        """The rows behind id `after`, and the row with id `mark`, in one snapshot. Reconnects where that is needed."""

    @abstractmethod
    def look_back(self, before: int | None, limit: int) -> Sequence[Row]:
        """The rows before id `before` (None: the last ones), latest first."""

    def skip(self, after: int, since: int) -> tuple[int, bool]:
        """An id up to which no row behind `after` is as late as `since` (ns), and whether the next row may be."""
        del since
        return after, True

    def changed(self) -> bool:
        """Might there be something new since the last look? Costs the server nothing; False where that is unknown."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Disconnect. A second call does nothing."""


class Pace:
    """How long to wait between two looks, in seconds."""

    def __init__(self) -> None:
        self._wait = FASTEST_SECONDS

    def after(self, *, found: bool) -> float:
        """The wait after a look that found something, or did not."""
        wait = FASTEST_SECONDS if found else self._wait
        self._wait = min(wait * 2, SLOWEST_SECONDS)
        return wait


class TableSource(Source):
    """OpsML's audit table; see the module."""

    def __init__(self, name: str, table: Table, *, notify: Notify) -> None:
        self.name = name
        self._table = table
        self._notify = notify
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="opsml-table")
        self._opened = False
        self._closed = False
        self._troubled = False

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source. Positions are row ids; there is nothing to commit to a table that is only read."""
        await self._open()
        cursor = Cursor(self.name, self._table.source, where, start)
        given_out = (await self._look(cursor, 0)).given_out
        horizon = None if start.follow else given_out
        if start.after is not None and not await self._go_behind(cursor, start.after):
            yield Batch([Record(Gap.new(None, start.after, "disconnect", source=cursor.source))])
        if start.since is not None and start.after is None:
            await self._go_to_time(cursor, start.since)
        elif isinstance(start.last, int) and start.after is None:
            await self._go_to_last(cursor, start.last, given_out)
        pace = Pace()
        while True:
            page = await self._look(cursor, PAGE_ROWS)
            cursor.source = self._table.source
            if (reason := cursor.displaced(page)) is not None:
                self._notify(Notice("moved", self.name, f"{reason}; reading on from the beginning"))
                yield cursor.begin_again()
                continue
            if (key := cursor.gone(page)) is not None:
                self._notify(Notice("moved", self.name, f"row {key} was read and has been deleted since"))
            batch = cursor.take(page)
            if batch is not None:
                yield batch
            if horizon is not None and (not page.full or cursor.at >= horizon):
                return
            if not page.full:
                await self._wait(pace.after(found=batch is not None))

    async def close(self) -> None:
        """Disconnect, and end the worker thread."""
        if self._closed:
            return
        self._closed = True
        closing = self._thread.submit(self._table.close)
        self._thread.shutdown(wait=False)
        # Cancelled or not, the connection is closed: a future that has not started yet could be cancelled with us.
        await asyncio.shield(asyncio.wrap_future(closing))

    async def _open(self) -> None:
        if not self._opened:
            await self._patiently(self._table.open)
            self._opened = True

    async def _look(self, cursor: Cursor, limit: int) -> Page:
        mark = None if cursor.mark is None else cursor.mark["id"]
        return await self._patiently(lambda: self._table.look(cursor.at, mark, limit), wait=cursor.start.follow)

    async def _go_behind(self, cursor: Cursor, event_id: str) -> bool:
        """Find the row of an event, from the end: whoever resumes was here not long ago."""
        before: int | None = None
        while rows := await self._look_back(before):
            for row in rows:
                if cursor.identify(row) == event_id:
                    cursor.stand_at(row)
                    return True
            before = rows[-1]["id"]
        return False

    async def _go_to_time(self, cursor: Cursor, since: int) -> None:
        """Pass over what the database itself can tell is too early. Ids are not in the order of times: only a start."""
        reached = False
        while not reached:
            at, reached = await self._patiently(lambda: self._table.skip(cursor.at, since))
            cursor.stand_behind(at)

    async def _go_to_last(self, cursor: Cursor, count: int, given_out: int) -> None:
        """Find where the last `count` matching rows begin; if none does, what is new from now on."""
        rows = await self._look_back(None)
        cursor.stand_at_end(rows[0] if rows else None, given_out)
        while rows and count > 0:
            for row in rows:
                if cursor.matches(row):
                    cursor.stand_behind(row["id"] - 1)
                    count -= 1
                    if count == 0:
                        return
            rows = await self._look_back(rows[-1]["id"])

    async def _look_back(self, before: int | None) -> Sequence[Row]:
        return await self._patiently(lambda: self._table.look_back(before, PAGE_ROWS))

    async def _wait(self, seconds: float) -> None:
        """Until the next look: `seconds`, or less when the dialect knows that something was written."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        await asyncio.sleep(FASTEST_SECONDS)
        # What is waited for happens in another process: there is no event to await.
        while (left := end - loop.time()) > 0 and not await self._in_thread(self._table.changed):  # noqa: ASYNC110
            await asyncio.sleep(min(PEEK_SECONDS, left))

    async def _patiently(self, ask: Callable[[], T], *, wait: bool = False) -> T:
        """Ask the table until it answers. What is more than busy is waited for only if `wait`: while following.

        Raises Broken, and what the table raises.
        """
        pace = Pace()
        while True:
            try:
                answer = await self._in_thread(ask)
            except TryAgain as error:
                if not (error.busy or wait):
                    raise Broken(self.name, str(error)) from error
                if not self._troubled:
                    self._troubled = True
                    self._notify(Notice("disconnected" if error.gone else "error", self.name, f"{error}; trying again"))
                await asyncio.sleep(pace.after(found=False))
            else:
                if self._troubled:
                    self._troubled = False
                    self._notify(Notice("connected", self.name))
                return answer

    async def _in_thread(self, ask: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, ask)
