"""Standard input as a source, standard output as a sink: one line an event.

Neither blocks the event loop. A pipe is waited for; a regular file is always ready. A reader that has gone away
(`| head -1`) raises ReaderGone, also while nothing is being written.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import time
from collections.abc import AsyncGenerator, Callable

from ..codec import MAX_EVENT_BYTES, decode_line
from ..errors import Broken, InvalidEvent, MalformedLine, ReaderGone, reason
from ..event import CONTROL_PREFIX, Event, Gap, refuse_own
from ..filter import Filter
from ..flow import MAX_BATCH, Ack, Batch, Record, Refusal, Sink, Source, Start
from ..splitter import LineSplitter

CHUNK_BYTES = 256 * 1024
END_SECONDS = 1.0  # for a reader to take the rest of a line when we are told to stop
PIPE_BYTES = 4096  # PIPE_BUF: what a pipe that says it is writable takes without blocking


class StdinSource(Source):
    """Lines from a file descriptor until it ends; foreign, hence looked at closely.

    source: filled in, with specversion, id and time, where a line leaves them out; None: they must be there.
    """

    name = "-"

    def __init__(self, fd: int = 0, *, source: str | None = None) -> None:
        self._fd = fd
        self._source = source

    @property
    def finite(self) -> bool:
        """A pipe ends with its writer."""
        return True

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source. A stream has no history to begin in: `start.last` and `after` are not looked at."""
        splitter = LineSplitter()
        number = 0
        last: str | None = None
        loop = asyncio.get_running_loop()
        while True:
            await _ready(loop.add_reader, loop.remove_reader, self._fd)
            try:
                chunk = os.read(self._fd, CHUNK_BYTES)
            except OSError as error:
                raise Broken(self.name, reason(error)) from error
            lines = list(splitter.feed(chunk)) if chunk else [splitter.end() or b""]
            batch = Batch([])
            for line in lines:
                number += 1
                if isinstance(line, bytes) and (not line or line.isspace()):
                    continue
                try:
                    item = _decode(line, self._source)
                except InvalidEvent as error:
                    batch.records.append(Record(Gap.new(1, last, "invalid", source=self.name)))
                    batch.refusals.append(Refusal(f"line {number}", error))
                    continue
                if isinstance(item, Event):
                    if item.type.startswith(CONTROL_PREFIX):
                        continue  # a journal that is piped in: its control records speak of another file
                    last = item.id
                    batch.seen += 1
                    if not start.admits(item) or (where is not None and not where.matches(item)):
                        continue
                batch.records.append(Record(item, item.line))
                if len(batch.records) >= MAX_BATCH:
                    yield batch
                    batch = Batch([])
            if batch.seen or batch.records:
                yield batch
            if not chunk:
                return


def _decode(line: bytes | MalformedLine, source: str | None) -> Event | Gap:
    if isinstance(line, MalformedLine):
        raise line
    item = decode_line(line, foreign=True, source=source)
    refuse_own(item)
    return item


class StdoutSink(Sink):
    """Lines to a file descriptor. Raises ReaderGone when nobody reads them any more."""

    name = "-"

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        mode = os.fstat(fd).st_mode
        self._begun = False  # a line has been written in part
        self._fifo = stat.S_ISFIFO(mode)
        self._waits = self._fifo or stat.S_ISSOCK(mode)

    async def write(self, batch: Batch) -> Ack:
        """See Sink. Cancelled, it acknowledges the lines that are out."""
        lines, refusals = batch.encode()
        view = memoryview(b"\n".join((*lines, b"")))
        try:
            while view:
                if self._waits:
                    await self._writable()
                written = os.write(self._fd, view[:PIPE_BYTES] if self._waits else view)
                self._begun = view[written - 1] != 0x0A
                view = view[written:]
        except asyncio.CancelledError:
            out = len(lines) - bytes(view[self._end_line(view) :]).count(b"\n")
            task = asyncio.current_task()
            if not out or task is None:
                raise
            task.cancel()  # felt at the next wait, when these lines have been acknowledged
            return Ack(out, refusals=Batch(batch.records[:out]).encode()[1], left=len(lines) - out)
        except BrokenPipeError:
            raise ReaderGone(self.name, "the reader has gone") from None
        except OSError as error:
            raise Broken(self.name, reason(error)) from error
        return Ack(len(lines), refusals=refusals)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        await _ready(loop.add_writer, loop.remove_writer, self._fd)

    def _end_line(self, rest: memoryview) -> int:
        """Cancelled within a line: whoever reads gets it whole, if it is read within a second. Returns the bytes
        written."""
        size = 0
        if self._begun:
            line = bytes(rest[: bytes(rest[: 2 * MAX_EVENT_BYTES]).find(b"\n") + 1])
            deadline = time.monotonic() + END_SECONDS
            while line and (left := deadline - time.monotonic()) > 0 and select.select([], [self._fd], [], left)[1]:
                size += (written := os.write(self._fd, line[:PIPE_BYTES]))
                line = line[written:]
        return size

    async def gone(self) -> None:
        """Return when the reader has gone; where that cannot be noticed, never."""
        loop = asyncio.get_running_loop()
        if not self._fifo:
            await loop.create_future()
        # The write end of a pipe becomes readable only by its error: the last reader closed it.
        await _ready(loop.add_reader, loop.remove_reader, self._fd)


async def _ready(add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool], fd: int) -> None:
    """Wait until the descriptor can be used without blocking. A regular file always can."""
    ready = asyncio.Event()
    try:
        add(fd, ready.set)
    except PermissionError:  # epoll takes no regular files
        return
    try:
        await ready.wait()
    finally:
        remove(fd)
