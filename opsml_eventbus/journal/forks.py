"""A journal's files are this process's alone: a forked child gives its copies up before it does anything else.

A lock belongs to the open file, which a child shares: a pool of workers that outlives its parent would keep the log
locked, and nobody could say by whom. (A program that is executed gets none: Python opens files close-on-exec.)
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

_ours: dict[int, tuple[int, int, int]] = {}  # what stood behind each descriptor when it was opened
# No fork falls between opening a file and remembering it. (A signal's handler may fork in the same thread.)
_undisturbed = threading.RLock()


def open_own(path: Path, flags: int, mode: int) -> int:
    """As `os.open`, for a descriptor that no child of this process shall keep. Raises OSError."""
    with _undisturbed:
        descriptor = os.open(path, flags, mode)
        try:
            keep_from_children(descriptor)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor


def keep_from_children(descriptor: int) -> None:
    """Remember it, until its number is another file's."""
    with _undisturbed:
        _ours[descriptor] = _identity(descriptor)


def _identity(descriptor: int) -> tuple[int, int, int]:
    """Of the file and of how it was opened: a number that was freed may be a reader's of the same file by now."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, fcntl.fcntl(descriptor, fcntl.F_GETFL)


def _give_up() -> None:
    """In the child. The numbers stay taken: what it inherited of a journal may still close them."""
    for descriptor, file in _ours.items():
        with suppress(OSError):  # it was closed since
            if _identity(descriptor) == file:
                _make_nothing(descriptor)
    _ours.clear()
    _undisturbed.release()


def _make_nothing(descriptor: int) -> None:
    try:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        os.close(descriptor)  # no number is free; that it keeps none locked matters more
        return
    os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


os.register_at_fork(before=_undisturbed.acquire, after_in_parent=_undisturbed.release, after_in_child=_give_up)
