"""A file of a log being read: plain and perhaps still growing, or compressed."""

from __future__ import annotations

import os
from collections import deque
from contextlib import closing, suppress
from io import FileIO
from itertools import takewhile
from typing import NamedTuple

from .format import OPEN_BYTES, PLACE_BYTES, Open, Place, peek_control, read_place
from .lines import BLOCK_BYTES, Block, last_place, read_blocks
from .seek import offset_behind
from .segments import Segment, open_regular
from .succession import peek_open

_TAKEN_BACK_BYTES = 6 << 20  # remembered of what was read: more than a batch (4 MiB) that is refused and taken back
_LINE_END_BYTES = 76  # a line's chain value: no two lines share it


class _Given(NamedTuple):
    """Whole lines that were read. data: without the last newline."""

    offset: int
    number: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data) + 1


class PlainFile:
    """A file as it lies there, perhaps still growing; kept open when it is renamed or removed."""

    def __init__(self, segment: Segment) -> None:
        self.name = segment.name
        self.sealed_name = segment.first is not None
        self._path = segment.path
        self._stream: FileIO = open_regular(segment.path)
        self.offset = 0
        self.number = 1
        self._given: deque[_Given] = deque()  # the last of them without a hole, to find back what was taken back
        self._held = 0  # bytes of it

    @property
    def descriptor(self) -> int:
        return self._stream.fileno()

    def opened(self) -> Open | None:
        """Its open record, None where its first line is none."""
        record = peek_control(os.pread(self.descriptor, OPEN_BYTES + 1, 0).partition(b"\n")[0])
        return record if isinstance(record, Open) else None

    def place_of(self, seq: int) -> Place | None:
        """The place of this line, or of another where it is not there."""
        return self.place_before(offset_behind(self.descriptor, seq))

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
        if before is not None and not self.sealed_name:
            # What is on disk stays; only what stands behind it can be taken back.
            start = max(offset_behind(self.descriptor, before.durable - 1), offset - _TAKEN_BACK_BYTES)
            if start < offset:
                data = os.pread(self.descriptor, offset - start, start)
                self._give(_Given(start, self.number - data.count(b"\n"), data[:-1]))
        return None if before is None else before.seq

    def block(self) -> Block | None:
        self._stream.seek(self.offset)
        block = next(read_blocks(self._stream.read, self.offset, self.number, size=BLOCK_BYTES), None)
        if block is None or not block.whole:
            return None
        self.offset, self.number = block.end, block.number + block.height
        return block

    def partial(self) -> Block | None:
        self._stream.seek(self.offset)
        block = next(read_blocks(self._stream.read, self.offset, self.number), None)
        return None if block is None or block.whole else block

    def keep(self, block: Block) -> None:
        """Remember a block that was read, to notice when the writer takes its lines back."""
        if block.oversize:  # no writer of ours wrote it
            self._given.clear()
            self._held = 0
        elif not self.sealed_name:
            self._give(_Given(block.offset, block.number, block.data))

    def _give(self, given: _Given) -> None:
        self._given.append(given)
        self._held += len(given.data)
        while self._held - len(self._given[0].data) >= _TAKEN_BACK_BYTES:
            self._held -= len(self._given.popleft().data)

    def check_undone(self) -> int | None:
        """Go back behind what the writer took back: the seq that then comes next (0: any), None when all is as it was.

        A file of which nothing remembered is left is another: it is read from its beginning.
        """
        if not self._given or self._stands(self._given[-1]):
            return None
        while self._given and not self._stands(self._given[-1]):
            undone = self._given.pop()
            self._held -= len(undone.data)
        # The lines of it that are still there were given out already.
        there = os.pread(self.descriptor, len(undone.data) + 1, undone.offset).split(b"\n")[:-1]
        pairs = zip(undone.data.split(b"\n"), there, strict=False)
        if kept := [old for old, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]:
            self._give(undone._replace(data=b"\n".join(kept)))
        if not self._given:
            self.offset, self.number = 0, 1
            return 0
        last = self._given[-1]
        self.offset, self.number = last.end, last.number + last.data.count(b"\n") + 1
        place = last_place(last.data)
        return 0 if place is None else place.seq + 1

    def _stands(self, given: _Given) -> bool:
        tail = given.data[-_LINE_END_BYTES:] + b"\n"
        return os.pread(self.descriptor, len(tail), given.end - len(tail)) == tail

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
        self._segment = segment
        self._stream = segment.open()
        self._blocks = read_blocks(self._stream.read)
        self._partial: Block | None = None
        self.offset = 0
        self.number = 1

    def opened(self) -> Open | None:
        """See PlainFile."""
        return peek_open(self._segment)

    def place_of(self, seq: int) -> Place | None:
        """See PlainFile. Unpacks the file up to there."""
        mark = b',"seq":%d,"durable":' % seq
        with suppress(OSError, EOFError, ValueError), closing(self._segment.open()) as stream:
            for block in read_blocks(stream.read):
                for line in block.lines if mark in block.data else ():
                    place = read_place(line)
                    if place is not None and place.seq == seq:
                        return place
        return None

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

    def keep(self, block: Block) -> None:
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
