"""What the tests of the tap share: a folder, a client that speaks by hand, and waiting for a condition."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

from opsml_eventbus.endpoints.tap import TapSource, ensure_folder
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.filter import Filter
from opsml_eventbus.flow import Batch, Notice, Start

LIVE = Start(last=0, follow=True)
ALL = Start(last="all", follow=True)
HISTORY = Start(last="all")


@contextmanager
def tap_folder() -> Iterator[Path]:
    """A folder of taps with a short path, which pytest's own are not everywhere."""
    with tempfile.TemporaryDirectory(prefix="tap-") as parent:
        folder = Path(parent) / "t"
        ensure_folder(folder)
        yield folder


async def until(condition: Callable[[], object], what: str, seconds: float = 10) -> None:
    """Wait for something that will happen; fail with its name where it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s: {what}"
        await asyncio.sleep(0.002)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))


def numbered(count: int, first: int = 0, kind: str = "n") -> list[Event]:
    """Events with ids that say their order."""
    return [Event.new(kind, {"n": n}, id=f"{kind}-{n}") for n in range(first, first + count)]


class ByHand:
    """A client that says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def to(cls, path: Path, *said: bytes) -> AsyncGenerator[Self, None]:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=4 << 20)
        client = cls(reader, writer)
        try:
            client.say(*said)
            yield client
        finally:
            writer.transport.abort()

    def say(self, *lines: bytes) -> None:
        for line in lines:
            self.writer.write(line + b"\n")

    def finish(self) -> None:
        self.writer.write_eof()

    async def line(self, seconds: float = 5) -> bytes:
        async with asyncio.timeout(seconds):
            return await self.reader.readline()

    async def told(self, seconds: float = 5) -> Any:
        """The next line, decoded; None at the end."""
        line = await self.line(seconds)
        return json.loads(line) if line else None

    async def rest(self, seconds: float = 5) -> list[Any]:
        """Every line until the server hangs up."""
        found = []
        while (line := await self.told(seconds)) is not None:
            found.append(line)
        return found


SUBSCRIBE = b'{"eventbus":1,"do":"subscribe"}'
PUBLISH = b'{"eventbus":1,"do":"publish"}'
DESCRIBE = b'{"eventbus":1,"do":"describe"}'


class Following:
    """A TapSource that is read in the background: what has come so far, always at hand."""

    def __init__(self, source: TapSource, where: Filter | None, start: Start) -> None:
        self._source = source
        notify = source._notify
        source._notify = lambda notice: (self.notices.append(notice), notify(notice))
        self.notices: list[Notice] = []
        self._stream = source.batches(where, start)
        self.batches: list[Batch] = []
        self.items: list[Event | Gap] = []
        self.ended = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with aclosing(self._stream) as stream:
            async for batch in stream:
                self.batches.append(batch)
                self.items += [record.item for record in batch.records]

    @property
    def connections(self) -> int:
        return sum(notice.kind == "connected" for notice in self.notices)

    @property
    def connected(self) -> bool:
        return self.connections > 0

    def cut(self) -> None:
        """Break every connection, as a network would."""
        for conversation in self._source._conversations:
            conversation.abort()

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.items if isinstance(item, Event)]

    @property
    def gaps(self) -> list[Gap]:
        return [item for item in self.items if isinstance(item, Gap)]

    @property
    def seen(self) -> int:
        return sum(batch.seen for batch in self.batches)


@asynccontextmanager
async def following(
    source: TapSource, start: Start = ALL, where: Filter | None = None
) -> AsyncGenerator[Following, None]:
    found = Following(source, where, start)
    try:
        yield found
    finally:
        found.ended.cancel()
        await asyncio.gather(found.ended, return_exceptions=True)
