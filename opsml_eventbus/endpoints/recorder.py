"""A JSONL file as a sink: acknowledged means on disk.

One exclusive writer (`flock` on `<file>.lock`), `O_NOFOLLOW`, a regular file with one name, 0600. Every batch is
written and fsynced before it is acknowledged. A write that fails is undone and refused, and the file ends at a whole
record. An fsync that fails is final: the page cache lies after one. A last line that was cut off is kept beside the
file, then taken out of it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ..codec import MAX_EVENT_BYTES, decode_line
from ..errors import AlreadyThere, Broken, InvalidEvent, Refused, UnknownEnd, Unreachable
from ..event import Event
from ..flow import Ack, Batch, Sink

BLOCK_BYTES = 256 * 1024  # one read, where the end of a file is looked at
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has only the one


class FileSink(Sink):
    """A JSONL file that is written: acknowledged means fsynced.

    mode: `create` (it must not be there), `append`, `overwrite`. A missing directory is made, 0700.
    Raises Refused: it is there already, is not a regular file with one name, or another recorder writes it.
    Raises Unreachable: it cannot be opened.
    """

    def __init__(self, path: str | Path, *, mode: Literal["create", "append", "overwrite"] = "create") -> None:
        self._path = Path(path)
        self.name = str(path)
        self._finished: str | None = None  # why nothing can be written any more
        if self._path.suffix in (".gz", ".zst"):
            raise UnknownEnd(self.name, "compressed files are read, not written; record to a .jsonl file")
        self._lock = _Lock(self._path, self.name)
        try:
            self._fd = self._open(mode)
            try:
                self.mended = self._mend()
            except BaseException:
                os.close(self._fd)
                raise
        except BaseException:
            self._lock.release()
            raise
        self._size = os.fstat(self._fd).st_size

    def _open(self, mode: str) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        if mode == "create":
            flags |= os.O_EXCL
        try:
            fd = os.open(self._path, flags, 0o600)
        except FileExistsError:
            raise AlreadyThere(self.name, "exists already") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Refused(self.name, "a symbolic link; a log is written under its own name") from None
            raise Unreachable(self.name, _reason(error)) from error
        try:
            self._check(fd)
            if mode == "overwrite":
                os.ftruncate(fd, 0)
            _sync_directory(self._path.parent)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check(self, fd: int) -> None:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise Refused(self.name, "not a regular file")
        if state.st_nlink != 1:
            raise Refused(self.name, f"has {state.st_nlink} names; a log that others can reach is not safe")

    def _mend(self) -> Path | None:
        """Move a last line that was cut off out of the way, kept beside the file: a reader would stumble over it."""
        size = os.fstat(self._fd).st_size
        start = size
        while start and (block := os.pread(self._fd, min(BLOCK_BYTES, start), max(0, start - BLOCK_BYTES))):
            newline = block.rfind(b"\n")
            start = max(0, start - BLOCK_BYTES) + newline + 1
            if newline >= 0:
                break
        if start == size:
            return None
        tail = os.pread(self._fd, min(size - start, 2 * MAX_EVENT_BYTES), start)
        with suppress(InvalidEvent):
            decode_line(tail)
            os.write(self._fd, b"\n")  # whole, only its newline is missing
            return None
        aside = self._path.with_name(f"{self._path.name}.torn-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        copy = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for offset in range(start, size, BLOCK_BYTES):
                os.write(copy, os.pread(self._fd, min(BLOCK_BYTES, size - offset), offset))
            os.fsync(copy)
        finally:
            os.close(copy)
        os.ftruncate(self._fd, start)
        os.fsync(self._fd)
        return aside

    async def write(self, batch: Batch) -> Ack:
        """Write and fsync the batch. Cancelling does not stop it half way: it is waited for first.

        Raises Broken: the write failed and was undone, or the fsync failed and the file is finished.
        """
        lines, refusals = batch.encode()
        data = b"\n".join((*lines, b""))
        work = asyncio.ensure_future(asyncio.to_thread(self._write, data))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # looked at: the cancellation is what counts now
            raise
        return Ack(len(lines), durable=True, refusals=refusals)

    def _write(self, data: bytes) -> None:
        if self._finished is not None:
            raise Broken(self.name, self._finished)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self._undo()
            raise Broken(self.name, f"{_reason(error)}; the batch was not written") from error
        try:
            _sync_data(self._fd)
        except OSError as error:
            # A second fsync would say yes and mean nothing: the kernel has dropped what it could not write.
            self._finished = f"fsync failed ({_reason(error)}); nothing after it can be trusted"
            raise Broken(self.name, self._finished) from error
        self._size += len(data)

    def _undo(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            self._finished = f"a failed write could not be undone ({_reason(error)})"

    def last_id(self) -> str | None:
        """The id of the last event in the file, to resume after it."""
        end = self._size
        block = os.pread(self._fd, 2 * MAX_EVENT_BYTES, max(0, end - 2 * MAX_EVENT_BYTES))
        for line in reversed(block.split(b"\n")):
            with suppress(InvalidEvent):
                if line and isinstance(item := decode_line(line), Event) and not item.type.startswith("eventbus."):
                    return item.id
        return None

    async def close(self) -> None:
        """Close the file and let others write it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._lock.release()


class _Lock:
    """`<file>.lock`: one writer a file, whoever opens it under whatever name of its directory."""

    def __init__(self, path: Path, name: str) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unreachable(name, _reason(error)) from error
        self._path = path.with_name(f"{path.name}.lock")
        while True:
            try:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise Unreachable(name, f"{self._path.name}: {_reason(error)}") from error
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
                os.close(self._fd)
                raise Refused(name, f"process {holder or '?'} is recording to it") from None
            # Whoever held it before us may have removed the name while we waited for the lock.
            if _is_at(self._fd, self._path):
                break
            os.close(self._fd)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        with suppress(OSError):
            self._path.unlink()
        os.close(self._fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _sync_directory(path: Path) -> None:
    """A new name is on disk only when its directory is."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
