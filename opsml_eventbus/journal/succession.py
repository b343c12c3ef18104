"""Which file comes next, asked while a writer may be finishing, compressing and removing files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import InvalidEvent
from ..timestamps import parse_time
from .format import Open, read_control, time_text
from .segments import Segment, list_log

_TRIES = 100  # a listing can be out of date when it is used; each time because another file was finished meanwhile
_FIRST_LINE_BYTES = 64 << 10


class _Closable(Protocol):
    def close(self) -> None: ...


OpenedT = TypeVar("OpenedT", bound=_Closable)


def open_following(live: Path, behind: int, opener: Callable[[Segment], OpenedT]) -> tuple[Segment, OpenedT] | None:
    """The file that comes after the one whose first seq is `behind`, opened; None when there is none yet.

    Raises what `opener` raises, FileNotFoundError excepted: the file was renamed, compressed or removed meanwhile.
    """
    for _ in range(_TRIES):
        segment = _following(live, behind)
        if segment is None:
            return None
        try:
            opened = opener(segment)
        except FileNotFoundError:
            continue
        if segment.first is None and _sealed_behind(live, behind) is not None:
            opened.close()  # the live file was finished and another begun between looking and opening
            continue
        return segment, opened
    return None


def _sealed_behind(live: Path, behind: int) -> Segment | None:
    return next((segment for segment in list_log(live).sealed if (segment.first or 0) > behind), None)


def _following(live: Path, behind: int) -> Segment | None:
    for segment in list_log(live).segments:
        if segment.first is None:
            opened = peek_open(segment)
            return None if opened is not None and opened.first <= behind else segment
        if segment.first > behind:
            return segment
    return None


def read_open(segment: Segment) -> Open | None:
    """The open record of a file, None where it has none. Raises OSError, EOFError, ValueError, InvalidEvent."""
    found = read_opened(segment)
    return None if found is None else found[0]


def peek_open(segment: Segment) -> Open | None:
    """The open record of a file, None where it has none or cannot be read."""
    try:
        return read_open(segment)
    except (OSError, EOFError, ValueError, InvalidEvent):
        return None


def read_opened(segment: Segment) -> tuple[Open, int] | None:
    """The open record of a file and when it was written (ns), None where it has none."""
    with closing(segment.open()) as stream:
        line = b""
        while b"\n" not in line and len(line) < _FIRST_LINE_BYTES and (part := stream.read(4096)):
            line += part
    line, newline, _ = line.partition(b"\n")
    control = read_control(line) if newline else None
    text = time_text(line)
    return (control, parse_time(text.decode()) if text else 0) if isinstance(control, Open) else None
