"""Which file of a log comes next, asked while a writer may be finishing, compressing and removing them."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import InvalidEvent
from .format import OPEN_BYTES, Open, opened_at, read_control
from .segments import Log, Segment, list_log

_TRIES = 100  # a listing can be out of date when it is used; each time because another file was finished meanwhile
# What does not open because of us, not because of what became of the file.
NOT_THE_FILES = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class _Closable(Protocol):
    def close(self) -> None: ...


OpenedT = TypeVar("OpenedT", bound=_Closable)


class Succession:
    """The files of a log, each once and in order.

    A finished file is told by its name. Names only rise here, so no file comes twice, whatever stands in it. The live
    file is told by what it is on disk, because its name goes on to the next one: a live file that was not read yet is
    read, wherever it claims to begin.
    """

    def __init__(self, live: Path, behind: int = -1) -> None:
        """behind: the name of the last finished file that is not wanted."""
        self._live = live
        self._behind = behind
        self._ahead: deque[Segment] = deque()  # finished files of the last listing that come next
        self._seen: tuple[int, int] | None = None  # the file that was given last, when it was the live one
        self._unnamed: tuple[int, int] | None = None  # the same, until it says where it begins
        self.segment: Segment | None = None  # the file that was given last, or could not be opened

    def begun(self, first: int) -> None:
        """The live file that was given last says that it begins with this seq, so that will be its name."""
        self._behind = max(self._behind, first)
        self._unnamed = None

    def following(self, opener: Callable[[Segment], OpenedT], *, log: str = "") -> tuple[Segment, OpenedT] | None:
        """The next file, opened; None when there is none yet.

        log: when the live file was taken away, only one of this log (its id) takes its place.
        Raises what `opener` raises; the file is then passed over. FileNotFoundError is no reason where there is no such
        name any more: it was renamed, compressed or removed meanwhile.
        """
        for attempt in range(_TRIES):
            segment = self._next()
            if segment is None:
                return None
            on_disk = segment.on_disk()
            try:
                opened = opener(segment)
            except OSError as error:
                if not _is_gone(segment, error) or attempt == _TRIES - 1:
                    self._pass(segment, on_disk)
                    raise
                self._ahead.clear()
                continue
            if segment.first is None:
                record = peek_open(segment)
                if on_disk is None or segment.on_disk() != on_disk or self._next() != segment:
                    opened.close()  # it was finished and another begun between looking and opening
                    continue
                if log and (record is None or record.log != log):
                    opened.close()
                    return None
            self._pass(segment, on_disk)
            return segment, opened
        raise FileNotFoundError(2, "it is replaced faster than it can be opened", str(self._live))

    def _pass(self, segment: Segment, on_disk: tuple[int, int] | None) -> None:
        self.segment = segment
        # Only of the file that was given last: when it is closed, its number on disk goes to another.
        self._seen = self._unnamed = on_disk if segment.first is None else None
        self._behind = self._behind if segment.first is None else segment.first

    def _next(self) -> Segment | None:
        while self._ahead and not self._comes(self._ahead[0]):
            self._ahead.popleft()
        if self._ahead:
            return self._ahead[0]
        # A large folder is listed once for all the finished files in it, and again where the live file would come.
        log = list_log(self._live)
        self._ahead.extend(filter(self._comes, log.sealed))
        if self._ahead:
            return self._ahead[0]
        live = next((segment for segment in log.segments if segment.first is None), None)
        return None if live is None or (self._seen is not None and live.on_disk() == self._seen) else live

    def _comes(self, segment: Segment) -> bool:
        if segment.first is None or segment.first <= self._behind:
            return False
        # A live file whose first line is damaged did not say what its name would be.
        return self._unnamed is None or segment.on_disk() != self._unnamed


def _is_gone(segment: Segment, error: OSError) -> bool:
    """Is there no such name any more? (A link that leads nowhere is one.)"""
    return isinstance(error, FileNotFoundError) and not segment.path.is_symlink()


def preceding(live: Path, opener: Callable[[Segment], OpenedT]) -> Iterator[tuple[Segment, OpenedT | OSError]]:
    """The files of a log from its end, opened; the newest one is what is there now. Close each.

    A file that cannot be opened comes with its error. One that was removed meanwhile is passed over: retention removes
    the oldest. Raises FileNotFoundError: there is no log any more.
    """
    log, opened = _newest(live, opener)
    yield log.segments[-1], opened
    behind = list(log.segments[:-1])
    while behind:
        segment = behind.pop()
        try:
            yield segment, opener(segment)
        except OSError as error:
            if not _is_gone(segment, error):
                yield segment, error
                continue
            there = list_log(live).sealed  # compressed or removed since it was listed
            behind = [found for found in there if (found.first or 0) <= (segment.first or 0) and found != segment]


def _newest(live: Path, opener: Callable[[Segment], OpenedT]) -> tuple[Log, OpenedT | OSError]:
    for _ in range(_TRIES):
        log = list_log(live)
        if not log.segments:
            break
        segment = log.segments[-1]
        on_disk = segment.on_disk()
        try:
            opened = opener(segment)
        except OSError as error:
            if not _is_gone(segment, error):
                return log, error
            continue
        stands = segment.on_disk() == on_disk and _last_name(list_log(live)) == _last_name(log)
        if segment.first is not None or stands:
            return log, opened
        opened.close()  # it was finished and another begun between looking and opening
    raise FileNotFoundError(2, "no such file", str(live))


def _last_name(log: Log) -> int:
    return (log.sealed[-1].first or 0) if log.sealed else 0


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


def begins_as_journal(segment: Segment) -> bool:
    """Is its first line an open record? Raises OSError: it may not be read."""
    try:
        return read_open(segment) is not None
    except (EOFError, ValueError, InvalidEvent):
        return False


def read_opened(segment: Segment) -> tuple[Open, int] | None:
    """The open record of a file and when it was written (ns), None where it has none. Raises as `read_open`."""
    with closing(segment.open()) as stream:
        line = b""
        while b"\n" not in line and len(line) <= OPEN_BYTES and (part := stream.read(4096)):
            line += part
    line, newline, _ = line.partition(b"\n")
    control = read_control(line) if newline else None
    return (control, opened_at(line)) if isinstance(control, Open) else None
