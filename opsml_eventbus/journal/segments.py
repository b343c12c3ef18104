"""Which files are one log, and how each is read.

A log is known by its live path, `audit.jsonl`. Its finished files (segments) lie beside it, named after the seq of
their first line: `audit.00000000000000000001.jsonl`, perhaps compressed (`.gz`, `.zst`). The live path means the whole
log, a segment's own path that segment, a folder the one log in it.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import stat
import zlib
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from ..errors import JournalRefused
from .disk import is_there

COMPRESSIONS = {"gzip": ".gz", "zstd": ".zst"}
SEQ_DIGITS = 20
_SEGMENT = re.compile(r"(?P<stem>.+)\.(?P<first>[0-9]{20})(?P<suffix>\.[^.]+)(?P<packed>\.gz|\.zst)?", re.DOTALL)
_LIVE_SUFFIX = ".jsonl"
# A large folder is listed in several system calls, and a file that is compressed in between can be missed under both
# its names: such a folder is listed until nothing changes. (32 KiB a call, some 300 names of the longest kind.)
_AT_ONCE = 100
_TRIES = 10
_PIECE = 256 << 10  # read at once
_TAIL_BYTES = 64 << 10  # more than any control record takes
_BOMB_BYTES = 64 << 20  # less than this may unpack from anything
_BOMB_RATIO = 100  # a chain value alone is 32 bytes that cannot be compressed: real logs reach 20


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a log. first: the seq its name promises, None for the live file."""

    path: Path
    first: int | None

    @property
    def name(self) -> str:
        """Its name, printable."""
        return printable(self.path.name)

    @property
    def packed(self) -> bool:
        return self.path.suffix in COMPRESSIONS.values()

    def on_disk(self) -> tuple[int, int] | None:
        """Which file its name stands for now (device and inode; of the link, where it leads nowhere), None for none."""
        for look in (os.stat, os.lstat):
            try:
                status = look(self.path)
            except OSError:
                continue
            return status.st_dev, status.st_ino
        return None

    def open(self) -> Stream:
        """Its bytes, decompressed. Close it."""
        return open_stream(self.path)


@dataclass(frozen=True, slots=True)
class Log:
    """A log on disk: its finished files in order, then the live one if it is there.

    whole: False when only one segment was asked for. stale: files that a crash left beside their successors: a
    compressed segment whose original is still there.
    """

    live: Path
    segments: tuple[Segment, ...]
    whole: bool = True
    stale: tuple[Path, ...] = ()

    @property
    def sealed(self) -> tuple[Segment, ...]:
        return tuple(segment for segment in self.segments if segment.first is not None)


def printable(name: str) -> str:
    """A file's name or path as text that can be written: what is not UTF-8 in it is replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def segment_path(live: Path, first: int) -> Path:
    """Where the live file goes when it is finished."""
    return live.with_name(f"{live.stem}.{first:0{SEQ_DIGITS}d}{live.suffix}")


def parse_segment(path: Path) -> tuple[Path, int] | None:
    """The live path and first seq that a segment's name tells, None for any other name."""
    match = _SEGMENT.fullmatch(path.name)
    if match is None:
        return None
    return path.with_name(match["stem"] + match["suffix"]), int(match["first"])


# Of a live path's name: the names of its finished files, and of copies of them, have to fit into a folder too.
NAME_BYTES = 255 - len(".00000000000000000001.zst.damaged-20260101T000000Z.999.pending")


def check_live(path: Path) -> None:
    """Refuse a path at which no log can be written. Raises JournalRefused."""
    if path.suffix in COMPRESSIONS.values():
        raise JournalRefused(str(path), "compressed files are read, not written; record to a .jsonl file")
    check_name(path)
    segment = parse_segment(path)
    if segment is not None:
        raise JournalRefused(str(path), f"a finished file of {segment[0].name}; name that one")
    if not path.suffix and (path.is_file() or not os.path.lexists(path)):
        raise JournalRefused(str(path), "a log's name has an ending, such as .jsonl: its finished files are told by it")
    if (size := len(path.name.encode())) > NAME_BYTES:
        raise JournalRefused(
            str(path), f"its name has {size} bytes; {NAME_BYTES} leave room for those of its other files"
        )


def check_name(path: Path) -> None:
    """Refuse a name that no record can tell. Raises JournalRefused."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise JournalRefused(str(path), "its name is not UTF-8, so the log cannot speak of its own files") from None


def find_log(path: str | Path) -> Log:
    """The log that `path` means: a live path, a segment, or a folder with one log in it.

    Raises FileNotFoundError, or JournalRefused: a folder with no log or several (`found` names them).
    """
    path = Path(path)
    if path.is_dir():
        return list_log(_only_log(path))
    segment = parse_segment(path)
    if segment is not None and path.exists():
        live, first = segment
        return Log(live, (Segment(path, first),), whole=False)
    log = list_log(path)
    if not log.segments:
        raise FileNotFoundError(2, "no such file", str(path))
    return log


def list_log(live: Path) -> Log:
    """The files of the log at `live`; none when there is no such log."""
    log = _look(live)
    # Without a live file, a rotation may have renamed it between the two looks that this takes: it has its name by now.
    return log if log.segments and log.segments[-1].first is None else _look(live)


def _look(live: Path) -> Log:
    found: dict[int, list[str]] = {}
    for name in _names(live.parent):
        match = _SEGMENT.fullmatch(name)
        if match is not None and match["stem"] + match["suffix"] == live.name:
            found.setdefault(int(match["first"]), []).append(name)
    segments = []
    stale: list[Path] = []
    for first in sorted(found):
        # The plain file is there until its compressed form is known to be good, so it is the one to trust.
        best, *rest = sorted(found[first], key=lambda name: (len(name), name))
        segments.append(Segment(live.with_name(best), first))
        stale += [live.with_name(name) for name in rest]
    if is_there(live):  # a link that leads nowhere is there: what it stood for is not
        segments.append(Segment(live, None))
    return Log(live, tuple(segments), stale=tuple(stale))


def _names(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all that is wanted
        for _ in range(_TRIES if len(names) > _AT_ONCE else 0):
            before, names = names, os.listdir(folder)  # noqa: PTH208
            if set(names) == set(before):
                break
    except FileNotFoundError:
        return []
    return names


def _only_log(folder: Path) -> Path:
    logs = set()
    for entry in _names(folder):
        path = folder / entry
        segment = parse_segment(path)
        if segment is not None:
            logs.add(segment[0])
        elif path.suffix == _LIVE_SUFFIX:
            logs.add(path)
    if len(logs) != 1:
        names = sorted(path.name for path in logs)
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")
        reason = f"{len(names)} logs in this folder, name one: {shown}" if names else "no log in this folder"
        raise JournalRefused(str(folder), reason, names)
    return logs.pop()


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Stream(Protocol):
    """Bytes to be read once, from the beginning. `read` gives nothing at the end; it may raise OSError, EOFError (cut
    off) or ValueError (not what its name says)."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def open_regular(path: Path) -> FileIO:
    """A file's bytes as they lie there. Raises OSError; a pipe or a device is refused unopened: it may never end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.open("rb", buffering=0)


def last_line(segment: Segment) -> bytes:
    """The last line of a finished file, as long as the line of a seal may be; empty where no newline ends it.

    Raises OSError, EOFError, ValueError.
    """
    if segment.packed:
        tail = b""
        with closing(segment.open()) as stream:
            while data := stream.read(_PIECE):
                tail = tail[-_TAIL_BYTES:] + data
    else:
        with open_regular(segment.path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            tail = file.readall()
    return tail[:-1].rpartition(b"\n")[2] if tail.endswith(b"\n") else b""


def open_stream(path: Path, suffix: str | None = None) -> Stream:
    """A file's bytes, decompressed when its name (or `suffix`, given instead) ends in `.gz` or `.zst`."""
    suffix = path.suffix if suffix is None else suffix
    raw = open_regular(path)
    if suffix not in COMPRESSIONS.values():
        return raw
    try:
        return _Packed(cast("BinaryIO", raw), suffix)
    except BaseException:
        raw.close()
        raise


def unpack(raw: BinaryIO, suffix: str) -> Stream:
    """The bytes of a compressed file that is open, from its beginning; closing it closes the file.

    Raises JournalRefused: a missing extra.
    """
    return _Packed(raw, suffix)


class _Packed:
    """A decompressed stream that notices when it is cut off, and stops at a bomb: 64 MiB at over a hundredfold."""

    def __init__(self, raw: BinaryIO, suffix: str) -> None:
        self._raw = raw
        self._out = 0
        self._broken: Exception | None = None
        self._error: type[Exception] = zlib.error
        if suffix == ".gz":
            self._stream: Any = gzip.GzipFile(fileobj=raw, mode="rb")
        else:
            zstd = load_zstd(str(raw.name))
            self._stream, self._error = zstd.ZstdFile(raw, "rb"), zstd.ZstdError

    def read(self, size: int, /) -> bytes:
        data = self._unpack(size)
        self._out += len(data)
        if self._out > _BOMB_BYTES and self._out > _BOMB_RATIO * self._raw.tell():
            raise ValueError(f"it unpacks to more than {_BOMB_RATIO} times its size")
        return data

    def _unpack(self, size: int) -> bytes:
        """As many bytes as there are. Where the file is cut off, first what unpacks before, then the error."""
        if self._broken is not None:
            raise self._broken
        data = bytearray()
        try:
            while len(data) < size and (piece := self._stream.read1(size - len(data))):
                data += piece
        except (self._error, EOFError, OSError) as error:
            broken = ValueError(f"it does not unpack: {error}") if isinstance(error, self._error) else error
            if not data:
                raise broken from error
            self._broken = broken
        return bytes(data)

    def close(self) -> None:
        self._stream.close()
        self._raw.close()


def load_zstd(path: str) -> Any:
    """`compression.zstd`, or its backport: unlike `zstandard`, they notice a file that was cut off."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise JournalRefused(path, "zstd needs the extra opsml-eventbus[zstd]")
