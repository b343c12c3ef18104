"""A file of a log being read: plain and perhaps still growing, or compressed."""

from __future__ import annotations

import os
from collections import deque
from io import FileIO
from typing import NamedTuple

from .format import PLACE_BYTES, Place, read_place
from .lines import BLOCK_BYTES, Block, read_blocks
from .segments import Segment, open_regular

_MARKS = 32  # blocks remembered, to find back behind a batch (4 MiB at most) that was undone
_MARK_BYTES = 77  # a line's chain value and its end: no two lines share them
_FIRST_LINE_BYTES = 64 << 10


class _Mark(NamedTuple):
    """How a file looked where a block ended. following: the seq that comes next; before: the bytes that stood there;
    start, data: the block."""

    offset: int
    number: int
    following: int
    before: bytes
    start: int
    data: bytes


class PlainFile:
    """A file as it lies there, perhaps still growing; kept open when it is renamed or removed."""

    def __init__(self, segment: Segment) -> None:
        self.name = segment.name
        self.sealed_name = segment.first is not None
        self._path = segment.path
        self._stream: FileIO = open_regular(segment.path)
        self.offset = 0
        self.number = 1
        self._marks: deque[_Mark] = deque(maxlen=_MARKS)
        self._block: Block | None = None

    @property
    def descriptor(self) -> int:
        return self._stream.fileno()

    def first_line(self) -> bytes:
        return os.pread(self.descriptor, _FIRST_LINE_BYTES, 0).partition(b"\n")[0]

    def place_before(self, offset: int) -> Place | None:
        """The place of the line that ends there."""
        start = max(0, offset - PLACE_BYTES - 1)
        return read_place(os.pread(self.descriptor, offset - start, start)[:-1])

    def ends_at(self, offset: int) -> bool:
        return offset >= os.fstat(self.descriptor).st_size

    def seek(self, offset: int, first: int) -> int | None:
        """Go on at the beginning of a line; the seq of the one before, if it has one. first: the seq of the file's
        first line, which tells the line's number."""
        before = self.place_before(offset)
        if before is not None and 0 < first <= before.seq:
            self.number = before.seq - first + 2
        else:  # damage stands before it: count
            position = 0
            while position < offset and (data := os.pread(self.descriptor, min(1 << 20, offset - position), position)):
                self.number += data.count(b"\n")
                position += len(data)
        self.offset = offset
        return None if before is None else before.seq

    def block(self) -> Block | None:
        self._stream.seek(self.offset)
        block = next(read_blocks(self._stream.read, self.offset, self.number, size=BLOCK_BYTES), None)
        if block is None or not block.whole:
            return None
        self.offset, self.number = block.end, block.number + block.height
        self._block = block
        return block

    def partial(self) -> Block | None:
        self._stream.seek(self.offset)
        block = next(read_blocks(self._stream.read, self.offset, self.number), None)
        return None if block is None or block.whole else block

    def mark(self, following: int) -> None:
        """Remember how the file looked here, with `following` the seq that comes next."""
        if not self.sealed_name and self._block is not None:
            before, block = self._before(self.offset), self._block
            self._marks.append(_Mark(self.offset, self.number, following, before, block.offset, block.data))

    def check_undone(self) -> int | None:
        """Go back behind what the writer took back; the seq that then comes next, None when all is as it was."""
        undone: _Mark | None = None
        while self._marks and self._before(self._marks[-1].offset) != self._marks[-1].before:
            undone = self._marks.pop()
        if undone is None:
            return None
        following = 0
        self.offset, self.number = 0, 1
        if self._marks:
            self.offset, self.number, following = self._marks[-1][:3]
        if undone.start != self.offset:
            return following
        # The lines of its block that are still there were given out already.
        there = os.pread(self.descriptor, len(undone.data) + 1, self.offset).split(b"\n")[:-1]
        for old, new in zip(undone.data.split(b"\n"), there, strict=False):
            if old != new:
                break
            self.offset, self.number = self.offset + len(new) + 1, self.number + 1
            place = read_place(new)
            following = place.seq + 1 if place is not None else following
        return following

    def _before(self, offset: int) -> bytes:
        return os.pread(self.descriptor, _MARK_BYTES, max(0, offset - _MARK_BYTES))

    def moved(self) -> bool:
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            return True
        ours = os.fstat(self.descriptor)
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        self._stream.close()


class PackedFile:
    """A compressed file: read from its beginning, once."""

    def __init__(self, segment: Segment) -> None:
        self.name = segment.name
        self.sealed_name = segment.first is not None  # a live file that somebody compressed has no seal
        self._stream = segment.open()
        self._blocks = read_blocks(self._stream.read)
        self._partial: Block | None = None
        self.offset = 0
        self.number = 1

    def block(self) -> Block | None:
        block = next(self._blocks, None)
        if block is None:
            return None
        if not block.whole:
            self._partial = block
            return None
        self.offset, self.number = block.end, block.number + block.height
        return block

    def partial(self) -> Block | None:
        return self._partial

    def mark(self, following: int) -> None:
        """Nobody takes back what stands in a finished file."""

    def check_undone(self) -> int | None:
        return None

    def moved(self) -> bool:
        return False

    def close(self) -> None:
        self._stream.close()


def open_segment(segment: Segment) -> PlainFile | PackedFile:
    """Raises OSError, JournalRefused."""
    return PackedFile(segment) if segment.packed else PlainFile(segment)
