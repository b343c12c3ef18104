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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import JournalFailed, WriteRefused
from ..event import new_id
from .aside import final_name, keep_aside, pending_copies
from .diagnosis import Diagnosis, diagnose
from .disk import Lock, hold, is_there, open_file, sync, sync_folder, write_all
from .format import Recovered, control_line, is_control, peek_control, write_lines
from .live import open_record
from .recovery import REPAIR_NEW_SUFFIX, REPAIR_SUFFIX, discard_repair, open_live
from .runs import blocks_of
from .salvage import Salvage
from .segments import Log, Segment, check_live, list_log, open_regular, segment_path
from .walk import Finding

_LINES = 1024  # written at once


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done. finding: the first damage, None when there was nothing to mend. kept: copies of what was replaced.
    cut: bytes behind the damage; salvaged: events and Gaps among them that were written anew; lost: pieces among them
    that are not whole; left: events that are another log's, stood in this one already, or are of unknown origin."""

    finding: Finding | None = None
    kept: tuple[Path, ...] = ()
    cut: int = 0
    salvaged: int = 0
    lost: int = 0
    left: int = 0


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
            return _mend(live, clock)
        finally:
            lock.release()
    except WriteRefused as error:  # no batch that could be sent again
        raise JournalFailed(str(live), f"repair: {error.reason}") from error
    except OSError as error:
        name = Path(error.filename or live).name
        raise JournalFailed(str(live), f"repair: {name}: {error.strerror}") from error


def _log_at(live: Path) -> Log:
    check_live(live)
    log = list_log(live)
    if not log.segments:
        raise FileNotFoundError(2, "no such file", str(live))
    return log


def _mend(live: Path, clock: Callable[[], int]) -> Repair:
    with contextlib.ExitStack() as held:
        for segment in list_log(live).segments:
            stream = open_regular(segment.path)  # what cannot be copied is not begun with
            if segment.first is None:
                hold(live, held.enter_context(stream).fileno())
            else:
                stream.close()
        discard_repair(live)
        _remove_superseded(live)
        _remove_unfinished(live)
        damage = diagnose(list_log(live))
        if damage is None:
            return Repair()
        mending = _Mending(live, damage, clock)
        if mending.salvage.precedes and (damage := diagnose(list_log(live), whole=True)) is not None:
            mending = _Mending(live, damage, clock)
        elif damage.unsealed is not None and mending.salvage.salvaged:
            mending = _Mending(live, damage.unsealed, clock)  # events of the log stand behind a seal, and nowhere else
        if not mending.damage.sealed:
            mending.rewrite(held)
    if mending.damage.sealed:
        mending.shorten()
    else:
        _leave(live)
    return mending.done


def _leave(live: Path) -> None:
    """In good order: fit to be written again."""
    file, _ = open_live(live, "always")
    try:
        if not file.state.settled:
            file.checkpoint()
    finally:
        file.close()


class _Mending:
    def __init__(self, live: Path, damage: Diagnosis, clock: Callable[[], int]) -> None:
        self.live = live
        self.damage = damage
        self.now = clock()
        self.kept: tuple[Path, ...] = ()
        self.salvage = Salvage(damage, self.now)
        for _ in self.salvage:
            pass  # it counts

    @property
    def done(self) -> Repair:
        salvage = self.salvage
        return Repair(self.damage.finding, self.kept, salvage.cut, salvage.salvaged, salvage.lost, salvage.left)

    def rewrite(self, held: contextlib.ExitStack) -> None:
        """Everything from the damage on anew, in a live file that takes the place of the files it stood in."""
        self._keep("damaged")
        new = not is_there(self.live)
        with self._replacing(self.live, REPAIR_NEW_SUFFIX if new else REPAIR_SUFFIX) as descriptor:
            if new:
                # A writer that comes meanwhile finds a file that is held. What it stands in for is known to be there.
                sync_folder(self.live.parent)
                held.callback(os.close, stand_in := open_file(self.live, os.O_RDWR | os.O_CREAT | os.O_EXCL))
                hold(self.live, stand_in)
            self._write(descriptor)
        _remove_superseded(self.live)

    def shorten(self) -> None:
        """Cut a finished file behind its seal; a compressed one becomes plain. The log says so before it is done."""
        segments = self.damage.segments
        # Another name, because these are not copies of what stands in the live file now.
        self._keep("cut")
        file, _ = open_live(self.live, "always")
        try:
            for record in self._records():
                file.record(record)
            with self._replacing(segment_path(self.live, segments[0].first or 0)) as descriptor:
                self._write_sound(descriptor)
            for segment in segments:
                if segment.packed:
                    segment.path.unlink()
            sync_folder(self.live.parent)
            file.checkpoint()
        finally:
            file.close()

    def _keep(self, word: str) -> None:
        kept: list[Path] = []
        try:
            for segment in self.damage.segments:
                kept.append(_keep(segment.path, word))  # noqa: PERF401 - what was made has to be known
        except JournalFailed:
            for copy in kept:
                copy.unlink()  # nothing names it yet, and the room it takes is missing
            raise
        self.kept = tuple(copy.rename(final_name(copy)) for copy in kept)
        sync_folder(self.live.parent)

    def _records(self) -> list[Recovered]:
        """One for each copy."""
        return [piece.record(copy) for piece, copy in zip(self.salvage.pieces, self.kept, strict=True)]

    @contextlib.contextmanager
    def _replacing(self, path: Path, suffix: str = REPAIR_SUFFIX) -> Iterator[int]:
        """What is written to it takes the place of a file."""
        temporary = self.live.with_name(self.live.name + suffix)
        temporary.unlink(missing_ok=True)
        descriptor = open_file(temporary, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        try:
            yield descriptor
            sync(descriptor)
            temporary.rename(path)
        except OSError:
            discard_repair(self.live)  # the room it takes may be what was missing
            raise
        finally:
            os.close(descriptor)
        sync_folder(path.parent)

    def _write(self, descriptor: int) -> None:
        damage, head = self.damage, self.damage.behind
        lines: list[bytes] = []
        self._write_sound(descriptor)
        if not damage.sound:
            lines.append(control_line(open_record(damage.log or new_id(self.now), head, "always", None), self.now))
        lines += [control_line(record, self.now) for record in self._records()]
        for more in itertools.chain((lines,), _batches(self.salvage)):
            head, data = write_lines(head, damage.durable, more)
            write_all(descriptor, data)

    def _write_sound(self, descriptor: int) -> None:
        for block in blocks_of(self.damage.segments[0], 0, self.damage.sound):
            write_all(descriptor, block.data + b"\n")


def _keep(path: Path, word: str) -> Path:
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        return keep_aside(path, word, lambda start, count: os.pread(stream.fileno(), count, start), 0, size)


def _batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
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


def _remove_unfinished(live: Path) -> None:
    """Copies that a repair was killed over. Of what is no more there they may be all there is, and stay."""
    log = list_log(live)
    for path in (*(segment.path for segment in log.segments), *log.stale):
        for copy in (*pending_copies(path, "damaged"), *pending_copies(path, "cut")):
            if copy.is_file() and _begins_with(path, copy):
                copy.unlink()


def _begins_with(path: Path, copy: Path) -> bool:
    with path.open("rb") as original, copy.open("rb") as begun:
        while data := begun.read(1 << 20):
            if original.read(len(data)) != data:
                return False
    return True


def _copies(path: Path) -> set[str]:
    """The names of equal copies that repairs have made of a file."""
    names = os.listdir(path.parent)  # noqa: PTH208 - a name may look like a pattern
    mine = [name for name in names if name.startswith(f"{path.name}.damaged-")]
    return {name for name in mine if filecmp.cmp(path, path.with_name(name), shallow=False)}


def _named(live: Path) -> set[str]:
    """The copies that the live file says were made."""
    if not is_there(live):
        return set()
    blocks = blocks_of(Segment(live, None), 0)
    controls = [peek_control(line) for block in blocks for line in block.lines if is_control(line)]
    return {control.kept for control in controls if isinstance(control, Recovered)}
