"""The live file of a log: lines appended, synced, sealed, pruned. Used by one thread; knows no asyncio.

What it promises:
- A write that fails is undone: the file ends at a whole record again, and the batch is refused (`WriteRefused`).
- A sync that fails is final (`JournalFailed`): the kernel may have dropped the bytes and call the next sync a success,
  and reading back shows the page cache, not the disk.
- A rotation that cannot be finished is put off before anything was changed: the next file, its first line included, is
  on disk before the old one is sealed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import JournalFailed, JournalTaken, WriteRefused
from .disk import close_held, closed_on_error, hold, is_there, open_file, pread_all, renew, stands_at, sync, write_all
from .format import (
    FORMAT,
    Checkpoint,
    Control,
    Head,
    Open,
    Pruned,
    Seal,
    Tally,
    control_line,
    write_lines,
)
from .seek import offset_behind
from .segments import segment_path
from .sign import Signer

Fsync = Literal["always", "interval", "never"]
MARK_BYTES = 1 << 20  # a checkpoint this often lets a reader find a time without reading the file
NEXT_SUFFIX = ".next"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the operator should know while the journal goes on.

    kind: `recovered` (a torn tail was cut), `unsigned` (lines were found that this key has not signed), `rotated`,
    `rotation` (put off), `space` (little is left), `blocked` and `resumed` (a write failed and is tried again),
    `compression` and `pruning` (failed; tried again at the next rotation), `pruned`, `failed` (the journal is
    finished). detail: one clause.
    """

    kind: str
    path: str
    detail: str = ""


Notify = Callable[[Notice], None]


@dataclass(slots=True)
class State:
    """Where a live file stands. first: seq of its open record. size: bytes, up to the last whole record. settled: its
    last line is a checkpoint, or it holds nothing but its open record. marked: size at the last checkpoint. begun: when
    its first event was written (ns), its open record until then."""

    log: str
    first: int
    head: Head
    durable: int
    size: int
    tally: Tally
    settled: bool
    begun: int
    marked: int = 0


class LiveFile:
    """An open live file. folder: a descriptor of its folder, held so that a rotation need not find a free one."""

    def __init__(
        self,
        path: Path,
        descriptor: int,
        folder: int,
        state: State,
        fsync: Fsync,
        *,
        signer: Signer | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = path
        self.state = state
        self.fsync = fsync
        self._descriptor = descriptor
        self._folder = folder
        self._signer = signer
        self._clock = clock
        self._owe_signature()

    # ── lines ──

    def append(self, lines: Sequence[bytes], tally: Tally | None = None) -> None:
        """Write canonical lines of events and Gaps, all or none. tally: theirs, by who knows it already.

        Raises WriteRefused, JournalFailed.
        """
        state = self.state
        tally = state.tally + (tally or Tally.of(lines))
        begun = state.begun if state.tally.events else self._clock()
        if state.size - state.marked >= MARK_BYTES:
            # Before the batch, so that it counts only what the file holds already.
            lines = [self._checkpoint(), *lines]
            marked = state.size
        else:
            marked = state.marked
        self._write(lines)
        state.tally, state.begun, state.marked, state.settled = tally, begun, marked, False

    def checkpoint(self) -> None:
        """Sync, then say so in the file. Raises WriteRefused, JournalFailed."""
        self.sync()
        self._write([self._checkpoint()])
        self.state.marked, self.state.settled = self.state.size, True
        self.sync()

    def record(self, control: Control) -> None:
        """Write any other control record, and sync. Raises WriteRefused, JournalFailed."""
        self._control(control_line(control, self._clock()))
        self.sync()

    def sync(self) -> None:
        """Everything written so far to the disk, unless the policy is `never`. Raises JournalFailed."""
        if self.fsync != "never" and self.state.durable != self.state.head.seq:
            self._sync()
            self.state.durable = self.state.head.seq

    def renew(self) -> None:
        """Make sure of every line behind the last durable one, whatever became of earlier syncs.

        Raises JournalFailed.
        """
        renew(self._descriptor, self.path, offset_behind(self._descriptor, self.state.durable))
        self.state.durable = self.state.head.seq

    def tail(self, size: int) -> bytes:
        """Its last bytes."""
        return pread_all(self._descriptor, max(0, self.state.size - size), size)

    def check_place(self) -> None:
        """Raises JournalTaken: the file was renamed, removed, cut or written to from outside."""
        if not stands_at(self.path, self._descriptor):
            raise JournalTaken(str(self.path), "the file was moved or removed from outside")
        size, ours = os.fstat(self._descriptor).st_size, self.state.size
        if size != ours:
            what = "cut" if size < ours else "written to"
            raise JournalTaken(str(self.path), f"the file was {what} from outside: it has {size:,} bytes, not {ours:,}")

    def free_bytes(self) -> int:
        """What the file system has left for us."""
        status = os.fstatvfs(self._descriptor)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        """Give the descriptors back; writes nothing. A second call does nothing.

        Raises JournalFailed: the system says only now that it could not keep something; they are given back even so.
        """
        descriptors = [descriptor for descriptor in (self._descriptor, self._folder) if descriptor >= 0]
        self._descriptor = self._folder = -1
        try:
            with ExitStack() as closing:
                for descriptor in descriptors:
                    closing.callback(close_held, descriptor)
        except OSError as error:
            raise JournalFailed(str(self.path), f"close: {error.strerror}") from error

    def _sync(self) -> None:
        try:
            sync(self._descriptor)
        except OSError as error:
            raise JournalFailed(str(self.path), f"fsync: {error.strerror}") from error

    def _owe_signature(self) -> None:
        """An open record alone says all there is to say of a file, except to whoever holds the public key."""
        if self._signer is not None and self.state.head.seq == self.state.first:
            self.state.settled = False

    def _checkpoint(self) -> bytes:
        state = self.state
        signature = self._signer.sign(state.log, state.head, state.tally) if self._signer is not None else None
        return control_line(Checkpoint(state.tally, signature), self._clock())

    def _control(self, line: bytes) -> None:
        self._write([line])
        self.state.settled = False

    def _write(self, lines: Sequence[bytes]) -> None:
        state = self.state
        head, data = write_lines(state.head, state.durable, lines)
        self._write_bytes(data)
        state.head = head

    def _write_bytes(self, data: bytes) -> None:
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            try:
                os.ftruncate(self._descriptor, self.state.size)
            except OSError as second:
                reason = f"a failed write ({error.strerror}) could not be undone: {second.strerror}"
                raise JournalFailed(str(self.path), reason) from second
            raise WriteRefused(str(self.path), error.strerror or str(error)) from error
        self.state.size += len(data)

    # ── rotation ──

    def rotate(self, fsync: Fsync | None = None) -> Path:
        """Seal this file, give it its name, and go on in a new one. The name it now has.

        fsync: of what follows, when another policy than this file's begins.
        Raises WriteRefused: put off, nothing was changed. Raises JournalFailed.
        """
        self.sync()
        state, now = self.state, self._clock()
        durable = state.durable if self.fsync == "never" else state.head.seq
        signature = self._signer.sign(state.log, state.head, state.tally) if self._signer is not None else None
        sealed, seal = write_lines(state.head, durable, [control_line(Seal(state.tally, signature), now)])
        durable = state.durable if self.fsync == "never" else sealed.seq
        target = segment_path(self.path, state.first)
        if is_there(target):
            raise JournalFailed(str(self.path), f"{target.name} is there already")
        temporary = self.path.with_name(self.path.name + NEXT_SUFFIX)
        next_fsync = fsync or self.fsync
        opened = open_record(state.log, sealed, next_fsync, state.tally)
        try:
            descriptor, following = start_file(temporary, opened, sealed, durable, now, self.fsync)
        except OSError as error:
            raise WriteRefused(str(self.path), f"the next file: {error.strerror}") from error
        try:
            self._write_bytes(seal)
            state.head = sealed
            self.sync()
            try:
                self.path.rename(target)
                self._sync_folder()  # a disk that kept only the second name would have lost the file
                temporary.rename(self.path)
                self._sync_folder()
            except OSError as error:
                raise JournalFailed(str(self.path), f"rotation: {error.strerror}") from error
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        finished, self._descriptor = self._descriptor, descriptor
        self.state, self.fsync = following, next_fsync
        self._owe_signature()
        try:
            os.close(finished)
        except OSError as error:
            raise JournalFailed(str(self.path), f"rotation: {error.strerror}") from error
        return target

    def _sync_folder(self) -> None:
        if self.fsync != "never":
            os.fsync(self._folder)

    def declare_pruned(self, records: Sequence[Pruned]) -> None:
        """Say in the log which of its oldest files go, and make that sure, before anything is removed: whatever the
        policy, a removal is on disk at once. With a key it is signed, too: a declaration that its own writer has not
        signed proves nothing.

        Raises WriteRefused, JournalFailed.
        """
        for record in records:
            self._control(control_line(record, self._clock()))
        if self._signer is not None:
            self.checkpoint()
        self.sync()
        if self.fsync == "never":
            self._sync()


def open_record(log: str, behind: Head, fsync: Fsync, sealed: Tally | None) -> Open:
    """The first line of a file that follows `behind`."""
    return Open(FORMAT, log, behind.seq + 1, behind.chain.hex(), fsync, sealed)


def start_file(path: Path, opened: Open, behind: Head, durable: int, now: int, fsync: Fsync) -> tuple[int, State]:
    """A new file with its open record, on disk (its name is not: sync the folder). Raises OSError."""
    path.unlink(missing_ok=True)
    descriptor = open_file(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
    head, data = write_lines(behind, durable, [control_line(opened, now)])
    try:
        with closed_on_error(descriptor):
            hold(path, descriptor)
            write_all(descriptor, data)
            if fsync != "never":
                sync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return descriptor, State(opened.log, opened.first, head, durable, len(data), Tally(), settled=True, begun=now)
