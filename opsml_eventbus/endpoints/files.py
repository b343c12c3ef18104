"""A JSONL file as a source: whole or followed, plain, `.gz` or `.zst`, read as far as it is sound.

A file is read line by line. A line that is no event costs itself: it is refused with its place, and a Gap (`invalid`)
stands where it was. A last line without a newline is an event if it is whole, since the beginning of a JSON object is
never JSON. Readers never write.

A file is followed by its name: when it is moved away, what was still in it is read, then the file that took its name.
When it is cut, that is said, and reading goes on from its new beginning. What happens twice between two looks (0.1 s)
is missed: plain lines carry no number. A journal's do, and there a hole is found.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import stat
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import BinaryIO

from aiofiles.threadpool import wrap

from ..codec import MAX_EVENT_BYTES, decode_line
from ..errors import Broken, InvalidEvent, JournalRefused, MalformedLine, Refused, UnknownEnd, Unreachable, reason
from ..event import CONTROL_PREFIX, Event, Gap, refuse_own
from ..filter import Filter
from ..flow import MAX_BATCH, Batch, Notice, Notify, Record, Refusal, Source, Start, no_notice
from ..journal.lines import is_text
from ..journal.segments import COMPRESSIONS, load_zstd, printable, unpack
from ..splitter import LineSplitter

CHUNK_BYTES = 256 * 1024  # one read; a few hundred events, and no more than that is held
POLL_SECONDS = 0.1  # how often a followed file is looked at: below what a person notices, and no load

# Inside a string the quotes would be escaped, so only a member spells this.
_CONTROL_MARK = b'"type":"eventbus.journal.'


class FileSource(Source):
    """A JSONL file, plain, `.gz` or `.zst`, whole or followed."""

    def __init__(self, path: str | Path, *, notify: Notify = no_notice, foreign: bool = False) -> None:
        """foreign: also look for duplicate keys and validate every payload (`record --from` a file).

        Raises Unreachable: no such file, or one that cannot be opened. UnknownEnd: a directory without one log.
        Refused: no regular file, or `.zst` without the extra.
        """
        self._path = _one_log(Path(path))
        self.name = printable(str(path))
        self._notify = notify
        self._foreign = foreign
        self._suffix = self._path.suffix
        self._compressed = self._suffix in COMPRESSIONS.values()
        if self._suffix == COMPRESSIONS["zstd"]:
            try:
                load_zstd(self.name)
            except JournalRefused as error:
                raise Refused(self.name, error.reason) from error
        self._open().close()  # an error is told now, not when reading begins

    @property
    def finite(self) -> bool:
        """A file ends, unless it is followed."""
        return True

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """See Source. Positions are byte offsets behind the last record."""
        reader = _Reader(self.name, where, start, self._foreign)
        try:
            async with aclosing(self._stream(reader, start)) as stream:
                async for batch in stream:
                    yield batch
        except OSError as error:
            raise Broken(self.name, reason(error)) from error

    async def _stream(self, reader: _Reader, start: Start) -> AsyncGenerator[Batch, None]:
        # One open file from the first look to the last: between two openings it could have been rotated away.
        file = self._open()
        try:
            if isinstance(start.position, int):
                reader.begin_at(start.position)
            elif start.after is not None:
                found = await self._offset_after(file, start.after)
                if found is None:
                    yield Batch([Record(Gap.new(None, start.after, "disconnect", source=self.name))])
                else:
                    reader.begin_at(found)
            forward = self._forward(file, reader)
            if isinstance(start.last, int) and start.after is None and start.position is None:
                if self._compressed:
                    forward = _last_of(forward, start.last)
                else:
                    reader.begin_at(await self._offset_of_last(file, reader, start.last))
            async with aclosing(forward):
                async for batch in forward:
                    yield batch
            if not start.follow or self._compressed:
                rest = reader.end()
                if rest is not None and start.last != 0:
                    yield rest
                return
            missing = False
            while True:
                async with aclosing(self._forward(file, reader)) as more:
                    async for batch in more:
                        yield batch
                state = _identity(self._path)
                opened = os.fstat(file.fileno())
                if state is None:
                    if not missing:
                        missing = True
                        self._notify(Notice("moved", self.name, "the file is gone; waiting for it to come back"))
                elif state != (opened.st_dev, opened.st_ino):
                    # Written between our last read and the rename: read it before we let go.
                    async with aclosing(self._forward(file, reader)) as more:
                        async for batch in more:
                            yield batch
                    if (rest := reader.end()) is not None:
                        yield rest
                    with suppress(FileNotFoundError, Unreachable):  # gone again already
                        successor = self._open()
                        file.close()
                        file = successor
                        reader.restart()
                        missing = False
                        self._notify(Notice("moved", self.name, "another file took its name; reading on in that one"))
                    continue
                elif opened.st_size < reader.read:
                    self._notify(Notice("moved", self.name, "the file was cut; reading on from its beginning"))
                    last = reader.last_id
                    reader.restart()
                    yield Batch([Record(Gap.new(None, last, "source", source=self.name))])
                    continue
                await asyncio.sleep(POLL_SECONDS)
        finally:
            file.close()

    def _open(self) -> BinaryIO:
        """The file. Opening and closing block, for a moment: in a thread, either could be cancelled half way."""
        try:
            # A FIFO would block until somebody writes to it.
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Unreachable(self.name, reason(error)) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Refused(self.name, "not a regular file; what comes through a pipe is read as -")
        return open(fd, "rb")  # noqa: PTH123 - a descriptor

    async def _forward(self, file: BinaryIO, reader: _Reader) -> AsyncGenerator[Batch, None]:
        """From the reader's place to the end of the file as it is now."""
        try:
            async with aclosing(_chunks(file, reader.read, self._suffix)) as chunks:
                async for chunk in chunks:
                    for batch in reader.feed(chunk):
                        yield batch
        except _BROKEN as error:
            yield reader.torn(f"the compressed data ends or breaks here ({error})")

    async def _offset_of_last(self, file: BinaryIO, reader: _Reader, count: int) -> int:
        """Where the last `count` matching events begin, found from the end, block by block."""
        handle = wrap(file)
        end = os.fstat(file.fileno()).st_size
        tail = b""  # the beginning of a block belongs to a line that starts in the block before it
        while end > 0:
            start = max(0, end - CHUNK_BYTES)
            await handle.seek(start)
            block = await handle.read(end - start) + tail
            head = block.find(b"\n") + 1 if start else 0
            end = start
            if start and not head:
                tail = block[-2 * MAX_EVENT_BYTES :] if len(block) > 2 * MAX_EVENT_BYTES else block
                continue
            tail, body = block[:head], block[head:]
            offset = start + head + len(body)
            for line in reversed(body.split(b"\n")):
                offset -= len(line)
                if count == 0:
                    return offset  # behind the last newline: a line that has begun is new
                if line and reader.counts(line):
                    count -= 1
                    if count == 0:
                        return offset
                offset -= 1
        return 0

    async def _offset_after(self, file: BinaryIO, id: str) -> int | None:  # noqa: A002
        """The offset behind the line of the event with this id."""
        splitter = LineSplitter()
        offset = 0
        wanted = id.encode()
        with suppress(*_BROKEN):  # said when it is read
            async with aclosing(_chunks(file, 0, self._suffix)) as chunks:
                async for chunk in chunks:
                    for line in splitter.feed(chunk):
                        if isinstance(line, MalformedLine):
                            offset += line.length + 1
                            continue
                        offset += len(line) + 1
                        if wanted in line or b"\\" in line:
                            with suppress(InvalidEvent):
                                if decode_line(line).id == id:
                                    return offset
        return None


class _Reader:
    """Chunks in, batches out: what of a file's bytes matches, and where it stands. No I/O."""

    def __init__(self, name: str, where: Filter | None, start: Start, foreign: bool) -> None:
        self._name = name
        self._where = where
        self._screen = where.screen() if where is not None else None
        self._start = start
        self._foreign = foreign
        self._splitter = LineSplitter()
        self._number = 0
        self._origin = 0
        self.offset = 0  # behind the last whole line
        self.last_id: str | None = None

    def begin_at(self, offset: int) -> None:
        """Begin in the middle of the file, at the beginning of a line."""
        self.offset = self._origin = offset

    def counts(self, line: bytes) -> bool:
        """Is this line an event that passes?"""
        batch = Batch([])
        last = self.last_id  # looking ahead is not reading
        with suppress(InvalidEvent):
            self._look_at(line, batch)
        self.last_id = last
        return bool(batch.records) and batch.records[0].gap is None

    @property
    def read(self) -> int:
        """Bytes read, a line that has begun included."""
        return self.offset + self._splitter.pending

    def restart(self) -> None:
        """Another file, or the same one from its beginning."""
        self._splitter = LineSplitter()
        self._number = self._origin = self.offset = 0

    def feed(self, chunk: bytes) -> list[Batch]:
        """The batches that a chunk completes."""
        batches: list[Batch] = []
        batch = Batch([], self.offset)
        for line in self._splitter.feed(chunk):
            self._take(line, batch)
            if len(batch.records) >= MAX_BATCH:
                batches.append(batch)
                batch = Batch([], self.offset)
        if batch.seen or batch.records:
            batches.append(batch)
        return batches

    def end(self) -> Batch | None:
        """The last line, when it has no newline."""
        line = self._splitter.end()
        if line is None:
            return None
        batch = Batch([], self.offset)
        self._take(line, batch)
        return batch if batch.seen or batch.records else None

    def torn(self, reason: str) -> Batch:
        """The file breaks off: said once, as a hole of unknown size."""
        error = MalformedLine(reason)
        self._splitter = LineSplitter()  # what had begun is part of the hole
        gap = Gap.new(None, self.last_id, "invalid", source=self._name)
        return Batch([Record(gap)], self.offset, 0, [Refusal(self._place(), error)])

    def _take(self, line: bytes | MalformedLine, batch: Batch) -> None:
        self._number += 1
        if isinstance(line, MalformedLine):
            self.offset += line.length + 1
            self._refuse(line, batch)
        else:
            self.offset += len(line) + 1
            if line and not line.isspace():
                self._look_at(line, batch)
        batch.position = self.offset

    def _look_at(self, line: bytes, batch: Batch) -> None:
        # What the filter implies about raw bytes comes first. A line that has not even the shape of an event, or bytes
        # that no JSON has, is decoded all the same: so much of a file's damage no filter hides.
        shaped = line[0] == 0x7B and line[-1] == 0x7D
        if self._screen is not None and shaped and not self._screen(line) and is_text(line):
            batch.seen += _CONTROL_MARK not in line
            return
        try:
            item = decode_line(line, foreign=self._foreign)
            refuse_own(item)
        except InvalidEvent as error:
            self._refuse(error, batch)
            return
        if isinstance(item, Gap):
            batch.records.append(Record(item, item.line, self.offset))
            return
        if item.type.startswith(CONTROL_PREFIX):
            return
        batch.seen += 1
        self.last_id = item.id
        if self._passes(item):
            batch.records.append(Record(item, item.line, self.offset))

    def _passes(self, event: Event) -> bool:
        return self._start.admits(event) and (self._where is None or self._where.matches(event))

    def _place(self) -> str:
        # Begun in the middle, nobody has counted the lines before.
        return f"{self._name}: byte {self.offset}" if self._origin else f"{self._name}:{self._number}"

    def _refuse(self, error: InvalidEvent, batch: Batch) -> None:
        gap = Gap.new(1, self.last_id, "invalid", source=self._name)
        batch.records.append(Record(gap))
        batch.refusals.append(Refusal(self._place(), error))


async def _last_of(stream: AsyncGenerator[Batch, None], count: int) -> AsyncGenerator[Batch, None]:
    """The last `count` events of a stream that can only be read forwards, with the Gaps among them."""
    kept: deque[Record] = deque()
    events = 0
    last = Batch([])
    async with aclosing(stream):
        async for batch in stream:
            last.position = batch.position
            last.seen += batch.seen
            last.refusals.extend(batch.refusals)
            for record in batch.records:
                kept.append(record)
                events += record.gap is None
                while kept and (events > count or (events == count and kept[0].gap is not None)):
                    events -= kept.popleft().gap is None
    last.records.extend(kept)
    yield last


# A compressed file that is cut off, or no such file at all.
_BROKEN = (EOFError, ValueError, gzip.BadGzipFile)


async def _chunks(file: BinaryIO, offset: int, suffix: str) -> AsyncGenerator[bytes, None]:
    """A file's bytes from `offset` to its end, unpacked. Raises OSError, EOFError, ValueError."""
    if suffix not in COMPRESSIONS.values():
        handle = wrap(file)
        await handle.seek(offset)
        while chunk := await handle.read(CHUNK_BYTES):
            yield chunk
        return
    file.seek(0)
    archive = unpack(file, suffix)
    while offset and (passed := await asyncio.to_thread(archive.read, min(offset, CHUNK_BYTES))):
        offset -= len(passed)
    while chunk := await asyncio.to_thread(archive.read, CHUNK_BYTES):
        yield chunk


def _one_log(path: Path) -> Path:
    """The file that a path means: itself, or the one log in a directory."""
    if not path.is_dir():
        return path
    logs = sorted(entry for entry in path.iterdir() if entry.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")))
    if len(logs) != 1:
        found = ", ".join(entry.name for entry in logs) or "none"
        raise UnknownEnd(str(path), f"a directory means the one log in it; here: {found}")
    return logs[0]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino
