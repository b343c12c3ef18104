"""Mending what recovery refuses: damage before a durable record, or a torn file written with `fsync=never`.

A repair never guesses and never works without a copy. It keeps every file it replaces (`*.damaged-<time>`), keeps the
log as far as it is sound, says in a `recovered` record what was cut and where it was kept, puts a Gap where events are
lost, and writes those that are still whole behind the damage anew, in their order, with new places. A line whose bytes
are not those that were chained is not whole: it stays in the copy. So does what is another log's, and what stood in
this one already (a file that was copied under another name).

The repaired log verifies. A head from behind the damage that was kept elsewhere no longer matches, as it should.
"""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import msgspec

from ..codec import encode_line
from ..errors import JournalFailed
from ..event import Gap, new_id
from .diagnosis import Diagnosis, blocks_of, diagnose
from .disk import Lock, hold, open_file, sync, sync_folder, write_all
from .format import Pruned, Recovered, Tally, control_line, is_control, peek_control, write_lines
from .live import open_record
from .recovery import keep_aside, open_live
from .salvage import Salvage
from .segments import COMPRESSIONS, Log, Segment, check_live, list_log, open_regular, segment_path
from .walk import Finding

REPAIR_SUFFIX = ".repairing"
_LINES = 1024  # written at once


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done. finding: the first damage, None when there was nothing to mend. kept: copies of what was replaced.
    cut: bytes behind the damage; salvaged: events and Gaps among them that were written anew; lost: pieces among them
    that are not whole; left: events that are another log's, or stood in this one already."""

    finding: Finding | None = None
    kept: tuple[Path, ...] = ()
    cut: int = 0
    salvaged: int = 0
    lost: int = 0
    left: int = 0

    def and_then(self, more: Repair) -> Repair:
        return Repair(
            self.finding or more.finding,
            self.kept + more.kept,
            self.cut + more.cut,
            self.salvaged + more.salvaged,
            self.lost + more.lost,
            self.left + more.left,
        )


def find_damage(path: str | Path) -> Finding | None:
    """The first thing a repair would mend, None when there is nothing. Changes nothing.

    Raises FileNotFoundError; JournalRefused: nothing of it is a journal.
    """
    damage = diagnose(_log_at(Path(path)))
    return None if damage is None else damage.finding


def repair(path: str | Path, *, clock: Callable[[], int] = time.time_ns) -> Repair:
    """Mend the log at the live path `path`.

    Raises FileNotFoundError, JournalBusy; JournalRefused: nothing of it is a journal; JournalFailed: no room for the
    copies, and then nothing was replaced.
    """
    live = Path(path)
    _log_at(live)
    try:
        lock = Lock(live)
        try:
            done, cut = _mend(live, clock)
            if done.finding is not None:
                _leave(live, cut)
        finally:
            lock.release()
    except OSError as error:
        name = Path(error.filename or live).name
        raise JournalFailed(str(live), f"repair: {name}: {error.strerror}") from error
    return done


def _log_at(live: Path) -> Log:
    check_live(live)
    log = list_log(live)
    if not log.segments:
        raise FileNotFoundError(2, "no such file", str(live))
    return log


def _mend(live: Path, clock: Callable[[], int]) -> tuple[Repair, list[Recovered]]:
    """What was done, and the records of it that are in no file yet."""
    done, cut = Repair(), list[Recovered]()
    with contextlib.ExitStack() as opened:
        for segment in list_log(live).segments:
            stream = open_regular(segment.path)  # what cannot be copied is not begun with
            if segment.first is None:
                hold(live, opened.enter_context(stream).fileno())
            else:
                stream.close()
        _remove_superseded(live)
        # What follows a file that was only shortened may be damaged too.
        for _ in range(len(list_log(live).segments) + 1):
            damage = diagnose(list_log(live))
            if damage is None:
                break
            more, records = _Mending(live, damage, clock).run()
            done, cut = done.and_then(more), cut + records
    return done, cut


def _leave(live: Path, cut: Sequence[Recovered]) -> None:
    """In good order: fit to be written again, and with a record of what was cut outside the live file."""
    file, _ = open_live(live, "always")
    try:
        for record in cut:
            file.record(record)
        if not file.state.settled:
            file.checkpoint()
    finally:
        file.close()


class _Mending:
    def __init__(self, live: Path, damage: Diagnosis, clock: Callable[[], int]) -> None:
        self.live = live
        self.damage = damage
        self.clock = clock

    def run(self) -> tuple[Repair, list[Recovered]]:
        """What was done, and the records of it that are in no file yet."""
        damage = self.damage
        kept = tuple(self._keep(path) for path in (*(segment.path for segment in damage.segments), *damage.twins))
        counted = Salvage(damage, self.clock())
        for _ in counted:
            pass
        counted.lost += len(damage.beginning)  # who declared it is not known; perhaps nobody
        done = Repair(damage.finding, kept, counted.cut, counted.salvaged, counted.lost, counted.left)
        if damage.sealed:
            # A finished file and something behind its end: all of it that is of the log is before that.
            return self._shorten(done, _records(counted, kept))
        self._replace(self.live, lambda descriptor: self._write(descriptor, counted, kept))
        _remove_superseded(self.live)
        return done, []

    def _shorten(self, done: Repair, records: list[Recovered]) -> tuple[Repair, list[Recovered]]:
        """Cut a finished file behind its seal; a compressed one becomes plain."""
        (segment,) = self.damage.segments
        self._replace(self.live if segment.first is None else segment_path(self.live, segment.first), self._write_sound)
        for path in (segment.path, *self.damage.twins):
            if path.suffix in COMPRESSIONS.values():
                path.unlink()
        sync_folder(self.live.parent)
        left = done.left + done.salvaged
        return replace(done, salvaged=0, lost=0, left=left), [
            msgspec.structs.replace(record, salvaged=0) for record in records
        ]

    def _replace(self, path: Path, write: Callable[[int], None]) -> None:
        temporary = self.live.with_name(self.live.name + REPAIR_SUFFIX)
        temporary.unlink(missing_ok=True)
        descriptor = open_file(temporary, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        try:
            write(descriptor)
            sync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
        sync_folder(path.parent)

    def _write_sound(self, descriptor: int) -> None:
        for block in blocks_of(self.damage.segments[0], 0, self.damage.sound):
            write_all(descriptor, block.data + b"\n")

    def _keep(self, path: Path) -> Path:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size

            def read(offset: int, count: int) -> bytes:
                return os.pread(stream.fileno(), count, offset)

            return keep_aside(path, "damaged", read, 0, size, pending="")

    def _write(self, descriptor: int, counted: Salvage, kept: Sequence[Path]) -> None:
        damage = self.damage
        head, now = damage.behind, self.clock()
        lines: list[bytes] = []
        self._write_sound(descriptor)
        if not damage.sound:
            opened = open_record(damage.log or new_id(now), head, "always", None)
            lines.append(control_line(opened, now))
        lines += [control_line(record, now) for record in _records(counted, kept)]
        for first, chain in damage.beginning:
            lines.append(control_line(Pruned(1, first, chain.hex(), Tally()), now))
        if counted.lost:
            lines.append(encode_line(Gap.new(None, None, "invalid")))
        for more in itertools.chain((lines,), _batches(Salvage(damage, now))):
            head, data = write_lines(head, damage.durable, more)
            write_all(descriptor, data)


def _records(counted: Salvage, kept: Sequence[Path]) -> list[Recovered]:
    """One for each copy: what was cut of a file, or all of a compressed form beside one."""
    records = [piece.record(copy) for piece, copy in zip(counted.pieces, kept, strict=False)]
    for copy in kept[len(counted.pieces) :]:
        data = copy.read_bytes()
        records.append(Recovered(len(data), 0, copy.name, sha256(data).hexdigest()))
    return records


def _batches(lines: Salvage) -> Iterator[list[bytes]]:
    source = iter(lines)
    while batch := list(itertools.islice(source, _LINES)):
        yield batch


def _remove_superseded(live: Path) -> None:
    """Finished files that a repair has taken into the live file, which names the copy of each."""
    log = list_log(live)
    copies = {path: _copies(path) for path in (*(segment.path for segment in log.sealed), *log.stale)}
    named = _named(live) if any(copies.values()) else set()
    superseded = [path for path, names in copies.items() if names & named]
    for path in superseded:
        path.unlink()
    if superseded:
        sync_folder(live.parent)


def _copies(path: Path) -> set[str]:
    """The names of equal copies that repairs have made of a file."""
    names = os.listdir(path.parent)  # noqa: PTH208 - a name may look like a pattern
    mine = [name for name in names if name.startswith(f"{path.name}.damaged-")]
    return {name for name in mine if filecmp.cmp(path, path.with_name(name), shallow=False)}


def _named(live: Path) -> set[str]:
    """The copies that the live file says were made."""
    if not live.exists():
        return set()
    blocks = blocks_of(Segment(live, None), 0)
    controls = [peek_control(line) for block in blocks for line in block.lines if is_control(line)]
    return {control.kept for control in controls if isinstance(control, Recovered)}
