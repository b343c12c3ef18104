"""A log from its end: the last events, or the last that match, without reading what stands before them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from ..codec import MAX_EVENT_BYTES, decode_line
from ..errors import InvalidEvent
from ..event import Event
from .format import Head, Open, Place, Seal, is_control, peek_control
from .lines import HELD_BYTES, LINE_BYTES, place_in, read_blocks, strange
from .reader import NO_SEAL, Damage, Line, joins, line_of
from .segments import Segment, Stream, find_log, list_log, open_regular
from .succession import peek_open, preceding

_BLOCK_BYTES = 64 << 10


class _Found(NamedTuple):
    """A line, or (None) where a file broke off, and where it begins."""

    line: bytes | None
    offset: int
    reason: str = ""


def read_backwards(path: str | Path) -> Generator[Line | Damage, None, None]:
    """Events and Gaps, the newest first; what is no sound line, where lines are missing, a file that does not join the
    one before it or has no seal, as Damage, its `byte` from the beginning of its file.

    What stands behind the last newline is not looked at: a writer may be at it. Line numbers are not known (0).
    Files that are finished, compressed or removed meanwhile do not disturb it: it has begun at the end of what there
    was. That a repair took their place is told where reading ends. A compressed file is read whole.
    Raises FileNotFoundError, JournalRefused.
    """
    log = find_log(path)
    files = preceding(log.live, _open) if log.whole else ((segment, _open(segment)) for segment in log.segments)
    above = 0  # seq of the line above; 0 where nothing can be said of what should stand below it
    following: tuple[str, Open | None] = "", None  # the file above, and how it begins
    name = ""  # the log's id
    last = 0  # seq of the last line given
    read: set[int | None] = set()  # where files that were read begin
    newest: tuple[int, int] | None = None  # which file on disk it began with
    for segment, stream in files:
        if isinstance(stream, OSError):
            yield Damage(segment.name, 0, 0, 0, None, (stream.strerror or str(stream)).lower())
            above, following = 0, ("", None)
            continue
        if not read:
            newest = _on_disk(stream)
        opened = peek_open(segment)
        read |= {segment.first, None if opened is None else opened.first}
        if opened is not None:
            if name not in ("", opened.log):
                yield Damage(segment.name, 0, 0, 0, None, f"a file of the log {opened.log}; this is {name}")
            name = name or opened.log
        with closing(stream):
            final = segment.first is not None
            whole = final and log.whole  # a file by itself is shown as it is
            ended = joined = False
            for found in _plain(stream, final=final) if isinstance(stream, FileIO) else _packed(stream):
                place = None if found.line is None else place_in(found.line)
                if found.line is None or place is None:
                    reason = found.reason if found.line is None else strange(found.line)
                    yield Damage(segment.name, 0, found.offset, 0, None, reason)
                    above, ended = 0, True
                    continue
                if not joined and (damage := _seam(place, *following)):
                    yield damage
                if whole and not ended and not isinstance(peek_control(found.line), Seal):
                    yield Damage(segment.name, 0, found.offset + len(found.line) + 1, place.seq + 1, None, NO_SEAL)
                    above = 0 if place.seq == above - 2 else above  # that one was the seal
                if above and place.seq != above - 1:
                    yield _hole(segment, place, above, found.offset)
                above = last = place.seq
                ended = joined = True
                if not is_control(found.line):
                    yield line_of(found.line, place, segment.name, 0)
            if whole and not ended:
                yield Damage(segment.name, 0, 0, 0, None, NO_SEAL)
            if joined:
                following = segment.name, opened
    if log.whole and last > 1:
        for segment in list_log(log.live).segments:
            if _stands_before(segment, last, read, newest):
                yield Damage(segment.name, 0, 0, 0, None, f"what stands before seq {last} was replaced meanwhile")
                return


def _on_disk(stream: FileIO | Stream) -> tuple[int, int] | None:
    if not isinstance(stream, FileIO):
        return None
    status = os.fstat(stream.fileno())
    return status.st_dev, status.st_ino


def _stands_before(segment: Segment, seq: int, read: set[int | None], newest: tuple[int, int] | None) -> bool:
    """Is it a file that begins with this seq or before it, and was not read? (Retention only removes such files.)"""
    if segment.on_disk() == newest:
        return False
    opened = peek_open(segment) if segment.first is None else None
    first = segment.first if opened is None else opened.first
    return first is not None and first <= seq and (segment.first is None or first not in read)


def last_id(path: str | Path) -> str | None:
    """The id of the last event (no Gap) of a log, to go on after it; None where there is none.

    A line that is no event is passed over, as it is by every reader: what follows the one before it comes again, and
    ids tell.
    """
    for item in read_backwards(path):
        if isinstance(item, Line):
            with suppress(InvalidEvent):
                if isinstance(event := decode_line(item.line), Event):
                    return event.id
    return None


def _seam(place: Place, name: str, opened: Open | None) -> Damage | None:
    """The file of this name, which begins so, does not stand behind the last line of the file before it."""
    if opened is None or joins(opened, Head(place.seq, place.chain)):
        return None
    return Damage(name, 0, 0, opened.first, None, f"it does not join the line {place.seq} before it")


def _hole(segment: Segment, place: Place, above: int, offset: int) -> Damage:
    if place.seq < above:
        missed = above - 1 - place.seq
        reason = f"seq {place.seq + 1} to {above - 1} are not there"
    else:
        missed, reason = None, f"seq {above} where {place.seq + 1} follows"
    return Damage(segment.name, 0, offset, place.seq + 1, missed, reason)


def _open(segment: Segment) -> FileIO | Stream:
    return segment.open() if segment.packed else open_regular(segment.path)


def _plain(stream: FileIO, *, final: bool) -> Iterator[_Found]:
    """final: nobody writes to it any more, so what stands behind its last newline is damage."""
    end = os.fstat(stream.fileno()).st_size
    rest = b""  # the end of a line whose beginning has not been read yet
    long = False  # it is too long, so not all of it is kept
    partial = True  # behind the last newline
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        data = os.pread(stream.fileno(), end - start, start) + rest
        first = data.find(b"\n") + 1 if start > 0 else 0
        if start > 0 and first == 0:
            long = long or len(data) > LINE_BYTES
            rest, end = data[:HELD_BYTES] if long else data, start
            continue
        *lines, last = data[first:].split(b"\n")
        offset = start + len(data) - len(last)
        if partial and final and last:
            yield _Found(None, offset, "a line that was cut off")
        elif not partial:
            yield _Found(None, offset, f"a line of over {MAX_EVENT_BYTES:,} bytes") if long else _Found(last, offset)
        for line in reversed(lines):
            offset -= len(line) + 1
            yield _Found(line, offset)
        partial = False
        rest, long, end = data[: max(0, first - 1)], False, start


def _packed(stream: Stream) -> Iterator[_Found]:
    found: list[_Found] = []
    end = 0
    try:
        for block in read_blocks(stream.read):
            offset, end = block.offset, block.end
            for line in block.lines:
                found.append(_Found(line, offset) if block.whole else _Found(None, offset, "a line that was cut off"))
                offset += len(line) + 1
    except (OSError, EOFError, ValueError) as error:
        found.append(_Found(None, end, str(error)))
    return reversed(found)
