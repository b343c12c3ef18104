"""Sockets are this process's alone: a forked child gives its copies up at once.

Otherwise a pool of workers that outlives a killed server would keep its socket looking live, and its clients waiting
for an end that does not come. (A program that is executed gets none: Python opens sockets close-on-exec.)
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from weakref import WeakSet

_ours: WeakSet[socket.socket] = WeakSet()


def keep_from_children(sock: socket.socket) -> socket.socket:
    """Remember a socket until it is gone; returns it."""
    _ours.add(sock)
    return sock


def _give_up() -> None:
    for sock in list(_ours):
        with suppress(OSError):
            sock.close()
    _ours.clear()


os.register_at_fork(after_in_child=_give_up)
