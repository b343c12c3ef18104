"""A log from its end: the last events, or the last that match, without reading what stands before them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from io import FileIO
from pathlib import Path

from ..codec import decode_line
from ..event import Event
from .format import is_control, read_place
from .lines import LINE_BYTES, read_blocks
from .reader import Damage, Line
from .segments import Segment, Stream, find_log, open_regular
from .succession import preceding

_BLOCK_BYTES = 64 << 10


def read_backwards(path: str | Path) -> Generator[Line | Damage, None, None]:
    """Events and Gaps, the newest first; what is no sound line as Damage, its `byte` from the beginning of its file.

    What stands behind the last newline is not looked at: a writer may be at it. Line numbers are not known (0).
    Files that are finished, compressed or removed meanwhile do not disturb it: it has begun at the end of what there
    was. A compressed file is read whole. Raises FileNotFoundError, JournalRefused.
    """
    log = find_log(path)
    files = preceding(log.live, _open) if log.whole else ((segment, _open(segment)) for segment in log.segments)
    for segment, stream in files:
        if isinstance(stream, OSError):
            yield Damage(segment.name, 0, 0, 0, None, (stream.strerror or str(stream)).lower())
            continue
        with closing(stream):
            yield from _plain(segment, stream) if isinstance(stream, FileIO) else _packed(segment, stream)


def last_id(path: str | Path) -> str | None:
    """The id of the last event (no Gap) of a log, to go on after it; None where there is none."""
    for item in read_backwards(path):
        if isinstance(item, Line) and isinstance(event := decode_line(item.line), Event):
            return event.id
    return None


def _open(segment: Segment) -> FileIO | Stream:
    return segment.open() if segment.packed else open_regular(segment.path)


def _plain(segment: Segment, stream: FileIO) -> Iterator[Line | Damage]:
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


def _packed(segment: Segment, stream: Stream) -> Iterator[Line | Damage]:
    items: list[Line | Damage] = []
    end = 0
    try:
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
