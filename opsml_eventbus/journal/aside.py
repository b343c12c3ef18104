"""Copies of what a recovery or a repair is about to cut, kept beside the log."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from ..errors import JournalFailed
from .disk import open_file, sync, sync_folder, write_all

PENDING_SUFFIX = ".pending"  # perhaps not all of it; of a torn tail: its `recovered` record is not known to be on disk
_TIME = r"[0-9]{8}T[0-9]{6}Z(?:\.[0-9]+)?"  # in a copy's name


def keep_aside(live: Path, word: str, read: Callable[[int, int], bytes], start: int, end: int) -> Path:
    """Copy bytes to `<name>.<word>-<time>.pending`, on disk with its name. Raises JournalFailed."""
    base = f"{live.name}.{word}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    for attempt in range(1000):
        name = base if attempt == 0 else f"{base}.{attempt}"
        path = live.with_name(name + PENDING_SUFFIX)
        if not path.exists() and not live.with_name(name).exists():
            break
    try:
        descriptor = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            while start < end and (data := read(start, min(1 << 20, end - start))):
                write_all(descriptor, data)
                start += len(data)
            sync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(live.parent)
    except OSError as error:
        if not isinstance(error, FileExistsError):  # that one is an earlier copy
            path.unlink(missing_ok=True)
        raise JournalFailed(str(live), f"what has to be cut cannot be kept aside: {error.strerror}") from error
    return path


def final_name(pending: Path) -> Path:
    return pending.with_name(pending.name.removesuffix(PENDING_SUFFIX))


def pending_copies(path: Path, word: str) -> list[Path]:
    """Of that file, the earliest first. Anything else of such a name is not to be read: a pipe never ends."""
    names = os.listdir(path.parent)  # noqa: PTH208 - a name may look like a pattern
    ours = re.compile(re.escape(f"{path.name}.{word}-") + _TIME + re.escape(PENDING_SUFFIX)).fullmatch
    copies = [path.with_name(name) for name in sorted(names) if ours(name)]
    return [copy for copy in copies if stat.S_ISREG(copy.lstat().st_mode)]


def measure(path: Path) -> tuple[int, str]:
    """How many bytes it has, and their SHA-256."""
    digest, size = sha256(), 0
    with path.open("rb") as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
            size += len(data)
    return size, digest.hexdigest()
