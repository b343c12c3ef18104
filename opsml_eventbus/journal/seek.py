"""Finding a place in a plain segment without reading it: by seq, because every line says its own, and by time, because
a checkpoint stands in every MiB and says the greatest time before it. Both are halving searches over the file itself.

There is no index file: what is looked up is part of the log and covered by its chain, so it needs neither trust nor
rebuilding. Times step back when clocks do; the *greatest time so far* never falls, which is what makes it searchable.
"""

from __future__ import annotations

import os

from ..errors import InvalidEvent
from .format import CONTROL_AT, CONTROL_MARK, PLACE_BYTES, Checkpoint, read_control, read_place

_CHUNK = 64 << 10
_LINE_CHUNK = 4096  # an OpsML line is 700 bytes
_CLOSE = 64 << 10  # nearer than this, reading is cheaper than searching


def offset_behind(descriptor: int, seq: int) -> int:
    """The offset of the first line whose seq is greater than `seq` (the file's size when there is none)."""
    low, high = 0, os.fstat(descriptor).st_size
    while low < high:
        middle = (low + high) // 2
        found = _line_from(descriptor, middle, high)
        if found is not None and found[1] <= seq:
            low = found[0]
        else:
            high = middle
    return low


def _line_from(descriptor: int, offset: int, limit: int) -> tuple[int, int] | None:
    """The first sound line that begins at or behind `offset` and before `limit`: its end and its seq."""
    begin = offset
    if offset > 0:
        # The line that begins at `offset` itself counts: look for the newline before it.
        newline = _find_newline(descriptor, offset - 1)
        if newline is None:
            return None
        begin = newline + 1
    while begin < limit:
        newline = _find_newline(descriptor, begin)
        if newline is None:
            return None
        tail = os.pread(descriptor, min(PLACE_BYTES, newline - begin), max(begin, newline - PLACE_BYTES))
        place = read_place(tail)
        if place is not None:
            return newline + 1, place.seq
        begin = newline + 1
    return None


def _find_newline(descriptor: int, offset: int) -> int | None:
    while chunk := os.pread(descriptor, _LINE_CHUNK, offset):
        at = chunk.find(b"\n")
        if at >= 0:
            return offset + at
        offset += len(chunk)
    return None


def begin_of_line(descriptor: int, end: int) -> int:
    """Where the line begins that ends at `end`, its newline included."""
    end -= 1
    while end > 0:
        start = max(0, end - _LINE_CHUNK)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def offset_of_time(descriptor: int, since: bytes) -> int:
    """An offset before which no event of the file has a time (as text) of `since` or later: a safe place to begin."""
    low, high = 0, os.fstat(descriptor).st_size
    while high - low > _CLOSE:
        middle = (low + high) // 2
        found = _checkpoint_from(descriptor, middle, high)
        if found is None:
            high = middle
            continue
        end, greatest = found
        if greatest is None or greatest.encode() < since:
            low = end
        else:
            high = middle
    return low


def _checkpoint_from(descriptor: int, offset: int, limit: int) -> tuple[int, str | None] | None:
    """The first checkpoint that begins in a line behind `offset`: where it ends, and the greatest time before it."""
    first = offset
    while offset < limit:
        chunk = os.pread(descriptor, _CHUNK + len(CONTROL_MARK), offset)
        at = chunk.find(CONTROL_MARK)
        if at < 0:
            if len(chunk) <= _CHUNK:
                return None
            offset += _CHUNK
            continue
        begin = offset + at - CONTROL_AT
        end = _find_newline(descriptor, offset + at)
        if end is None:
            return None
        if begin >= first and end - begin < _CLOSE:
            try:
                control = read_control(os.pread(descriptor, end - begin, begin))
            except InvalidEvent:
                control = None
            if isinstance(control, Checkpoint):
                return end + 1, control.tally.greatest
        offset = end + 1
    return None
