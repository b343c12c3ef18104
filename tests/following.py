"""Sources read to their end, or followed while something happens to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Self

from opsml_eventbus.endpoints import open_source
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.filter import Filter
from opsml_eventbus.flow import Notice, Start


async def read(url: str, start: Start = Start(), where: Filter | None = None) -> list[Event | Gap]:
    """Everything a source has, to its end."""
    async with open_source(url) as source:
        return [record.item async for batch in source.batches(where, start) for record in batch.records]


class Following:
    """A source that is followed meanwhile. items: what it has yielded. arrived: when, ns since the epoch."""

    def __init__(self, url: str, start: Start = Start(follow=True)) -> None:
        self.items: list[Event | Gap] = []
        self.arrived: list[int] = []
        self.notices: list[Notice] = []
        self._url = url
        self._start = start
        self._moved = asyncio.Event()

    @property
    def gaps(self) -> list[Gap]:
        return [item for item in self.items if isinstance(item, Gap)]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def until(self, condition: int | Callable[[], bool], seconds: float = 30) -> None:
        """Wait until so many items have come, or until something holds."""
        count = condition
        holds = condition if callable(condition) else lambda: len(self.items) >= count
        async with asyncio.timeout(seconds):
            while not holds() and not self._task.done():
                self._moved.clear()
                await self._moved.wait()
        if self._task.done():
            self._task.result()

    async def noticed(self, kind: str, seconds: float = 30) -> Notice:
        """Wait until the source says something of this kind; what it says."""
        await self.until(lambda: any(notice.kind == kind for notice in self.notices), seconds)
        return next(notice for notice in self.notices if notice.kind == kind)

    def _notify(self, notice: Notice) -> None:
        self.notices.append(notice)
        self._moved.set()

    async def _run(self) -> None:
        try:
            async with open_source(self._url, notify=self._notify) as source:
                async for batch in source.batches(None, self._start):
                    self.items += [record.item for record in batch.records]
                    self.arrived += [time.time_ns()] * len(batch.records)
                    self._moved.set()
        finally:
            self._moved.set()
