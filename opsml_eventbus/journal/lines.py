"""Bytes → blocks of whole lines, each knowing where it stands. Memory is bounded whatever the file holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..codec import MAX_EVENT_BYTES
from .format import PLACE_BYTES, Place, read_place

BLOCK_BYTES = 256 << 10  # large enough that a block's price vanishes, small enough to stay in a core's cache
LINE_BYTES = MAX_EVENT_BYTES + PLACE_BYTES
BEGINNING = b'{"specversion":"1.0","id":"'
HELD_BYTES = 4096  # of a line that is too long, or never ends: enough to show what it is


class Block:
    """Some lines of a file. data: without the last newline.

    offset: of the first byte in the (decompressed) file. number: of the first line, from 1.
    end: of the last line, its newline included. whole: False for the one line after the last newline of a file.
    oversize: this one line is too long; only its beginning is in `data`. ending: as much of its end as a line may have.
    nul: a NUL stands in it somewhere.
    """

    __slots__ = ("_height", "_known", "_lines", "data", "end", "ending", "nul", "number", "offset", "oversize", "whole")

    def __init__(self, offset: int, number: int, data: bytes, end: int, *, whole: bool = True) -> None:
        self.offset = offset
        self.number = number
        self.data = data
        self.end = end
        self.whole = whole
        self.oversize = self.nul = False
        self.ending = b""
        self._lines: list[bytes] | None = None
        self._height = 0
        self._known = (0, offset)

    @property
    def lines(self) -> list[bytes]:
        """The lines, without their newlines; split when first asked for."""
        if self._lines is None:
            self._lines = self.data.split(b"\n")
        return self._lines

    def offset_of(self, index: int) -> int:
        """Where a line begins in the file; `len(lines)`: the end. Asked in order, all of them cost one counting."""
        if index == len(self.lines):
            return self.end
        known, offset = self._known
        if index < known:
            known, offset = 0, self.offset
        offset += sum(map(len, self.lines[known:index])) + index - known
        self._known = (index, offset)
        return offset

    @property
    def height(self) -> int:
        """How many lines."""
        if not self._height:
            self._height = len(self._lines) if self._lines is not None else self.data.count(b"\n") + 1
        return self._height


def place_in(line: bytes) -> Place | None:
    """The place of a line, None where it is no line of a journal. (JSON has no NUL; a disk that lost a sector has.)"""
    return None if b"\0" in line else read_place(line)


def last_place(data: bytes) -> Place | None:
    """The place of the last line that has one."""
    place = place_in(data[data.rfind(b"\n") + 1 :])
    return place or next((place for line in reversed(data.split(b"\n")) if (place := place_in(line))), None)


def look_sound(data: bytes, height: int = 1) -> bool:
    """Do these lines begin as ours do, in UTF-8 and without NUL? What can be told of them without decoding any."""
    return data.startswith(BEGINNING) and data.count(b"\n" + BEGINNING) == height - 1 and is_text(data)


def is_text(data: bytes) -> bool:
    """Is it UTF-8 without NUL?"""
    if b"\0" in data:
        return False
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def strange(line: bytes) -> str:
    """What a line without a place is."""
    return "NUL bytes" if b"\0" in line else "not a line of a journal"


def read_blocks(
    read: Callable[[int], bytes], offset: int = 0, number: int = 1, *, size: int = BLOCK_BYTES
) -> Iterator[Block]:
    """All that `read` gives until it gives nothing, as Blocks. A last line without a newline comes as one of its own.

    offset, number: where `read` begins in its file.
    """
    rest = b""
    long: _Long | None = None
    while chunk := read(size):
        first = chunk.find(b"\n")
        if long is None and len(rest) + (len(chunk) if first < 0 else first) > LINE_BYTES:
            long, rest = _Long(rest), b""
        if long is not None:
            if first < 0:
                long.add(chunk)
                continue
            long.add(chunk[:first])
            block = long.block(offset, number, whole=True)
            yield block
            offset, number, long = block.end, number + 1, None
            chunk = chunk[first + 1 :]
        cut = chunk.rfind(b"\n")
        if cut >= 0:
            data = rest + chunk[:cut]
            block = Block(offset, number, data, offset + len(data) + 1)
            yield block
            # Whoever had it has split it by now, mostly: counting again would cost a third of reading.
            offset, number, rest = block.end, number + block.height, b""
        rest += chunk[cut + 1 :]
    if long is not None:
        yield long.block(offset, number, whole=False)
    elif rest:
        yield Block(offset, number, rest, offset + len(rest), whole=False)


class _Long:
    """What is kept of a line that has grown too long, and may go on."""

    def __init__(self, data: bytes) -> None:
        self._beginning = self._ending = b""
        self._size = 0
        self._nul = False
        self.add(data)

    def add(self, data: bytes) -> None:
        if len(self._beginning) < HELD_BYTES:
            self._beginning = (self._beginning + data)[:HELD_BYTES]
        self._ending = (self._ending + data)[-LINE_BYTES:]
        self._size += len(data)
        self._nul = self._nul or b"\0" in data

    def block(self, offset: int, number: int, *, whole: bool) -> Block:
        """All of it that there is."""
        block = Block(offset, number, self._beginning, offset + self._size + whole, whole=whole)
        block.oversize, block.ending, block.nul = True, self._ending, self._nul
        return block
