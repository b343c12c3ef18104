"""What touches the disk: opening safely, writing wholly, syncing, and the lock that makes a writer the only one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import JournalBusy, JournalFailed, JournalRefused
from .forks import keep_from_children, open_own

_LOCK_SECONDS = 0.5  # a writer that was killed a moment ago may still be holding its files
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def sync(descriptor: int) -> None:
    """The file's bytes and length to the disk itself. Raises OSError, and then nothing about the file is certain."""
    if sys.platform == "darwin":
        # macOS' fsync leaves the bytes in the drive's cache.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_folder(folder: Path) -> None:
    """Names to the disk: after a file is made, renamed or removed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """The folder and those above it that are missing, mode 0700, on disk. One that is there is left as it is."""
    if folder.exists():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    sync_folder(folder.parent)


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a regular file with one name, made with mode 0600 when `flags` say so and it is not there.

    Raises JournalRefused: it is a link, a device, a pipe, a folder, or has a second name. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        # Looked at first, because opening a device or a pipe can already do something.
        _refuse_special(path, path.lstat())
    descriptor = open_own(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    with closed_on_error(descriptor):
        _refuse_special(path, os.fstat(descriptor))
    return descriptor


@contextlib.contextmanager
def closed_on_error(descriptor: int) -> Iterator[None]:
    """What fails within gives the descriptor back: nobody else knows it yet, and it may hold a lock."""
    try:
        yield
    except BaseException:
        close_held(descriptor)
        raise


def is_there(path: Path) -> bool:
    """Has anything that name, a link that leads nowhere too?

    Raises OSError where nobody can tell: what cannot be looked at is not to be taken for gone, and replaced.
    """
    try:
        path.lstat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return False
        raise
    return True


def check_kind(path: Path, status: os.stat_result) -> None:
    """Raises JournalRefused: it is no regular file."""
    for is_kind, name in _KINDS:
        if is_kind(status.st_mode):
            raise JournalRefused(str(path), f"it is {name}; a journal is a regular file")


def _refuse_special(path: Path, status: os.stat_result) -> None:
    check_kind(path, status)
    if status.st_nlink > 1:
        raise JournalRefused(str(path), f"it has {status.st_nlink} names (hard links); a journal has one")


def hold(path: Path, descriptor: int) -> None:
    """Lock the file itself too: a lock file that was tidied away must not let a second writer in.

    Raises JournalBusy.
    """
    keep_from_children(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalBusy(str(path), "its lock file was removed") from None


def close_held(descriptor: int) -> None:
    """Close a file and let go of it at once: a child that was forked a moment ago may not have given it up yet."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """All of `data`, however many writes that takes. Raises OSError; some of it may then be in the file."""
    written = os.write(descriptor, data)
    if written == len(data):
        return
    view = memoryview(data)[written:]
    while view:
        view = view[os.write(descriptor, view) :]


def pread_all(descriptor: int, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`, fewer where the file ends."""
    parts = []
    while size > 0 and (part := os.pread(descriptor, min(size, 1 << 20), offset)):
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)


def renew(descriptor: int, path: Path, offset: int) -> None:
    """Write the bytes from `offset` on over themselves and sync: what the page cache shows is then on disk, or this
    raises JournalFailed. (A descriptor opened with O_APPEND would append them.)"""
    try:
        again = open_file(path, os.O_WRONLY)
        try:
            while data := os.pread(descriptor, 1 << 20, offset):
                view = memoryview(data)
                while view:
                    count = os.pwrite(again, view, offset)
                    view, offset = view[count:], offset + count
            sync(again)
        finally:
            os.close(again)
    except OSError as error:
        raise JournalFailed(str(path), f"its end cannot be brought to disk: {error.strerror}") from error


def stands_at(path: Path, descriptor: int) -> bool:
    """Is the open file still the one that `path` names?"""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


class Lock:
    """The right to write a log: `flock` on `<path>.lock`, which stays there and names its holder.

    Two names of one folder are one lock. A forked child loses it without taking it from its parent.
    """

    def __init__(self, live: Path) -> None:
        """Raises JournalBusy: another writer holds it. JournalRefused: what is there is no file to write to."""
        with contextlib.suppress(FileNotFoundError):
            _refuse_special(live, live.lstat())  # before a lock file is made beside a device
        self.path = live.with_name(live.name + ".lock")
        self._descriptor = open_file(self.path, os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + _LOCK_SECONDS
        with closed_on_error(self._descriptor):
            while True:
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    holder = os.pread(self._descriptor, 256, 0).decode("utf-8", "replace").strip()
                    if time.monotonic() > deadline or holder.startswith(f"pid {os.getpid()} "):
                        raise JournalBusy(str(live), holder or "unnamed") from None
                    time.sleep(0.01)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"pid {os.getpid()} on {socket.gethostname()} since {now}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one in. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            close_held(descriptor)
