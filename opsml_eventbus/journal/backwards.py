"""A log from its end: the last events, or the last that match, without reading what stands before them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from ..codec import decode_line
from ..event import Event
from .format import is_control, read_place
from .lines import LINE_BYTES, read_blocks
from .reader import Damage, Line
from .segments import Segment, find_log, open_regular

_BLOCK_BYTES = 64 << 10


def read_backwards(path: str | Path) -> Generator[Line | Damage, None, None]:
    """Events and Gaps, the newest first; what is no sound line as Damage, its `byte` from the beginning of its file.

    What stands behind the last newline is not looked at: a writer may be at it. Line numbers are not known (0).
    Files that are finished meanwhile do not disturb it: it has begun at the end of what there was. A compressed file is
    read whole. Raises FileNotFoundError, JournalRefused, OSError.
    """
    for segment in reversed(find_log(path).segments):
        yield from _packed(segment) if segment.packed else _plain(segment)


def last_id(path: str | Path) -> str | None:
    """The id of the last event (no Gap) of a log, to go on after it; None where there is none."""
    for item in read_backwards(path):
        if isinstance(item, Line) and isinstance(event := decode_line(item.line), Event):
            return event.id
    return None


def _plain(segment: Segment) -> Iterator[Line | Damage]:
    with open_regular(segment.path) as stream:
        end = os.fstat(stream.fileno()).st_size
        rest = b""  # the end of a line whose beginning has not been read yet
        partial = True  # behind the last newline
        while end > 0:
            start = max(0, end - _BLOCK_BYTES)
            data = os.pread(stream.fileno(), end - start, start) + rest
            first = data.find(b"\n") + 1 if start > 0 else 0
            if start > 0 and first == 0 and len(data) <= LINE_BYTES:
                rest, end = data, start
                continue
            offset = start + len(data)
            lines = data[first:].split(b"\n")
            for index, line in enumerate(reversed(lines)):
                offset -= len(line) + (index > 0)
                if index > 0 or not partial:
                    yield from _item(segment, line, offset)
            partial = False
            rest, end = data[: max(0, first - 1)], start


def _packed(segment: Segment) -> Iterator[Line | Damage]:
    items: list[Line | Damage] = []
    end = 0
    try:
        with closing(segment.open()) as stream:
            for block in read_blocks(stream.read):
                offset, end = block.offset, block.end
                for line in block.lines if block.whole else ():
                    items += _item(segment, line, offset)
                    offset += len(line) + 1
    except (OSError, EOFError, ValueError) as error:
        items.append(Damage(segment.name, 0, end, 0, None, str(error)))
    return reversed(items)


def _item(segment: Segment, line: bytes, offset: int) -> Iterator[Line | Damage]:
    place = None if b"\0" in line else read_place(line)
    if place is None:
        yield Damage(segment.name, 0, offset, 0, None, "NUL bytes" if b"\0" in line else "not a line of a journal")
    elif not is_control(line):
        yield Line(place.seq, line[: place.start] + b"}", segment.name, 0)
