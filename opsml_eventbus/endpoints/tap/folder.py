"""Where taps live: one folder a user, one socket a bus, and who may have which name.

A folder of taps is 0700, ours, and no symlink; anything else is refused, since whoever can write there can put a
socket of their own under a name we trust. A socket is `<name>.sock`, mode 0600; several workers of one program stand
beside it as `<name>.<pid>.sock`.

A live socket is never stolen, a dead one is replaced. `bind` alone can do neither safely (asyncio's own server
silently replaces a live socket), so claimants take turns under a lock on the folder itself: nothing is left behind
that a crash could leave locked. A reader never removes anything.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import glob
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import Refused, Unreachable
from .forks import keep_from_children

NAME = re.compile(r"[A-Za-z0-9_-]+")
_SOCKET = re.compile(r"([A-Za-z0-9_-]+)(?:\.(\d+))?\.sock")
MAX_PATH_BYTES = 107 if sys.platform == "linux" else 103  # sockaddr_un, its NUL left out
BACKLOG = 128  # connections the kernel keeps while accepting pauses
LOCK_SECONDS = 2.0  # a claim takes a millisecond; who holds the lock longer is stuck or hostile
_LOCK_PAUSE = 0.01


def tap_folder(runtime_dir: str | None, tmp: str, uid: int) -> Path:
    """The default folder: `<runtime_dir>/eventbus`, else `<tmp>/eventbus-<uid>`. Nothing is touched.

    runtime_dir: the value of XDG_RUNTIME_DIR; one that is empty or relative is ignored, as its specification says.
    """
    if runtime_dir and runtime_dir.startswith("/"):
        return Path(runtime_dir) / "eventbus"
    return Path(tmp) / f"eventbus-{uid}"


def ensure_folder(folder: Path) -> None:
    """Make the folder (0700) if it is not there, and check it. Raises Refused."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise Refused(str(folder), f"the folder cannot be made: {_clause(error)}") from error
    check_folder(folder)


def check_folder(folder: Path) -> bool:
    """Is it there, and safe? False when it is not there. Raises Refused: a symlink, another's, open to others."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Refused(str(folder), _clause(error)) from error
    if stat.S_ISLNK(status.st_mode):
        raise Refused(str(folder), "a symlink stands where the folder of taps should be")
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(str(folder), "not a folder")
    if status.st_uid != os.geteuid():
        raise Refused(str(folder), f"the folder of taps belongs to another user (uid {status.st_uid})")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise Refused(str(folder), f"the folder of taps is open to others (mode {mode:04o}, must be 0700)")
    return True


def socket_path(folder: Path, name: str) -> Path:
    """The socket of a bus called `name`. Raises Refused: a name has letters, digits, `_` and `-` only."""
    if not NAME.fullmatch(name):
        raise Refused(name, "a bus's name has letters, digits, _ and - only")
    return folder / f"{name}.sock"


@dataclass(frozen=True, slots=True)
class Standing:
    """A socket in a folder. pid: from its file name, None for the plain one."""

    name: str
    path: Path
    pid: int | None


def standing_sockets(folder: Path, name: str | None = None) -> list[Standing]:
    """The sockets in `folder`, dead ones too, by name; only those called `name` where one is given.

    Raises Refused: the folder is not safe. A folder that is not there has none.
    """
    if not check_folder(folder):
        return []
    found = []
    for path in sorted(folder.iterdir()):
        match = _SOCKET.fullmatch(path.name)
        if match and name in (None, match[1]):
            found.append(Standing(match[1], path, int(match[2]) if match[2] else None))
    return found


def live_sockets(folder: Path, name: str | None = None) -> list[Standing]:
    """Those of `standing_sockets` that somebody listens on whom we may speak to."""
    live = []
    for standing in standing_sockets(folder, name):
        with suppress(Refused):  # root's own, in our folder: not for us
            if is_live(standing.path):
                live.append(standing)
    return live


def is_live(path: Path) -> bool:
    """Does anybody listen there? Raises Refused: it cannot be found out (another user's, a path too long)."""
    check_length(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # its backlog is full: somebody listens who has no time
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno in (errno.EPROTOTYPE, errno.ENOTSOCK):
                return False
            raise Refused(str(path), _clause(error)) from error
    return True


def check_length(path: Path) -> None:
    """Raises Refused: longer than a socket's path may be on this system."""
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise Refused(str(path), f"{size} bytes; the path of a socket may have {MAX_PATH_BYTES} here")


class Claim:
    """A name that is ours: a socket that listens at `path`, until `release`."""

    def __init__(self, path: Path, listener: socket.socket) -> None:
        self.path = path
        self.listener = listener
        self._identity = _identity(path)

    def release(self) -> None:
        """Stop listening, and remove the socket file if it is still ours. A second call does nothing."""
        if self._identity is None:
            return
        identity, self._identity = self._identity, None
        # Removed while it still listens: a claimant that looks in between finds a live one or none, never a dead one.
        # While another holds the lock, or when the folder has gone, a dead socket stays: the next start replaces it.
        with suppress(OSError, Refused, Unreachable), _locked(self.path.parent):
            if _identity(self.path) == identity:
                self.path.unlink(missing_ok=True)
        self.listener.close()


class Locked(Refused):
    """Another process is claiming a name in this folder."""


async def claim_soon(path: Path, *, alone: bool = False) -> Claim:
    """`claim`, waiting up to two seconds for another claimant. Raises as `claim`."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return claim(path, alone=alone)
        except Locked:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_LOCK_PAUSE)


def claim(path: Path, *, alone: bool = False) -> Claim:
    """Listen at `path`. Where somebody already does: beside it, as `<stem>.<pid>.sock`, or Refused when `alone`.

    Never waits. Raises Locked: another claims at this moment. Raises Refused: live and `alone`; something that is no
    socket stands there; the folder belongs to somebody else or is open to others; the path is too long. Raises
    Unreachable: there is no such folder.
    """
    check_length(path)
    _check_parent(path.parent)
    with _locked(path.parent):
        if not _free(path):
            if alone:
                raise Refused(str(path), "a live bus is already there")
            path = path.with_name(f"{path.name.removesuffix('.sock')}.{os.getpid()}.sock")
            check_length(path)
            if not _free(path):
                raise Refused(str(path), "a live bus of this process is already there")
        _sweep(path)
        return Claim(path, _listen(path))


def _free(path: Path) -> bool:
    """Make sure that nothing stands at `path`: a dead socket is removed. False when a live one does."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return True
    if not stat.S_ISSOCK(mode):
        kind = "a symlink" if stat.S_ISLNK(mode) else "something that is no socket"
        raise Refused(str(path), f"{kind} stands there")
    if is_live(path):
        return False
    path.unlink(missing_ok=True)
    return True


def _sweep(path: Path) -> None:
    """Remove the dead among those that stood beside `path`: their pids do not come back, so nobody else would."""
    name = path.name.split(".")[0]
    for other in path.parent.glob(f"{glob.escape(name)}.*.sock"):
        match = _SOCKET.fullmatch(other.name)
        if match and match[1] == name and other != path:
            with suppress(Refused):  # another's, or no socket: not ours to judge
                _free(other)


def _listen(path: Path) -> socket.socket:
    listener = keep_from_children(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        listener.setblocking(False)
        listener.bind(str(path))
        path.chmod(0o600)  # before `listen`: until then nobody can connect, whatever the umask was
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Refused(str(path), _clause(error)) from error
    return listener


def _check_parent(folder: Path) -> None:
    """An explicit path may stand in any folder that nobody but us (or root) can swap entries in."""
    try:
        link, status = folder.lstat(), folder.stat()
    except OSError as error:
        raise Unreachable(str(folder), _clause(error)) from error
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (os.geteuid(), 0):
        raise Refused(str(folder), f"a symlink of another user's (uid {link.st_uid})")
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(str(folder), "not a folder")
    if status.st_uid not in (os.geteuid(), 0):
        raise Refused(str(folder), f"the folder belongs to another user (uid {status.st_uid})")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise Refused(str(folder), "others may replace what is in this folder")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Take turns with other claimants in this folder. The lock goes with the process, however it ends."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unreachable(str(folder), _clause(error)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(str(folder), "another process holds the lock on this folder") from None
        yield
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _clause(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[0].lower() + text[1:]
