"""What holds for a log whatever was done to it.

Verification does not call it sound unless nobody can see it, reading ends and shows what is there once, opening to
write refuses without a change or leaves a sound log, and a repair leaves a sound log in which every event that stood in
a whole line of it is there once, in order, and a Gap where one is not.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from journal_support import event, ids, snapshot, write

from opsml_eventbus.codec import decode_line
from opsml_eventbus.errors import JournalError, JournalRefused, MalformedLine
from opsml_eventbus.event import Event
from opsml_eventbus.journal import Damage, Line, read_backwards, read_journal, repair, verify_journal

Damaged = Callable[[Path], Path | None]  # makes the log in a folder that is not there; None: it cannot be made


@dataclass(frozen=True, slots=True)
class Expected:
    """exits: what a verification may say. seen: ids of the events that cannot vanish unseen.
    lost: how many whole lines beside the damage may stay in the copies of a repair: they do not join any more."""

    exits: set[int]
    seen: Sequence[str]
    lost: int
    foreign: int = 0  # events of another log that a repair may take for ours: lines that were put there in pairs


def rows(data: bytes) -> list[bytes]:
    return list(io.BytesIO(data))  # (splitlines would end one at a carriage return too)


def state(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in snapshot(folder).items() if not name.endswith(".lock")}


def standing(folder: Path, events: Sequence[str]) -> set[str]:
    """The ids of those events that stand in whole lines."""
    found = set()
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink() and path.suffix == ".jsonl":
            for row in rows(path.read_bytes()):
                with suppress(Exception):
                    item = decode_line(row)
                    if row.endswith(b'"}\n') and isinstance(item, Event) and item.id in events and item.source == "s":
                        found.add(item.id)
    return found


def check_promises(damaged: Damaged, folder: Path, events: Sequence[str], expected: Callable[[Path], Expected]) -> None:
    """Raises AssertionError. events: the ids that the log had, in order."""
    live = damaged(folder)
    if live is None:
        return
    promised, there = expected(live), standing(folder, events)
    said = _verified(live, promised)
    _check_readers(live, there)
    _check_writer(live, said)
    shutil.rmtree(folder)
    damaged(folder)
    _check_repair(live, events, there, promised)


def _verified(live: Path, promised: Expected) -> int | None:
    try:
        report = verify_journal(live)
    except (FileNotFoundError, JournalRefused):
        return None  # a pipe, or a link, is all there is
    assert report.exit in promised.exits, report.findings
    return report.exit


def _check_readers(live: Path, there: set[str]) -> None:
    for read in (read_journal, read_backwards):
        with suppress(FileNotFoundError, JournalRefused):
            items = list(read(live))
            shown = [_id(item) for item in items if isinstance(item, Line)]
            assert there <= set(shown)
            assert any(isinstance(item, Damage) for item in items) or len(set(shown)) == len(shown)


def _id(line: Line) -> str:
    try:
        return decode_line(line.line).id
    except MalformedLine:  # two lines that have run together, of which the command line says so
        return ""


def _check_writer(live: Path, said: int | None) -> None:
    before, names = state(live.parent), sorted(os.listdir(live.parent))
    try:
        write(live, [event(99)])
    except JournalError:
        assert (state(live.parent), sorted(set(os.listdir(live.parent)) - {f"{live.name}.lock"})) == (before, names)
    except OSError:
        pass
    else:
        if said in (0, 3):
            assert verify_journal(live).exit == 0


def _check_repair(live: Path, events: Sequence[str], there: set[str], promised: Expected) -> None:
    before = state(live.parent)
    try:
        done = repair(live)
    except (JournalError, FileNotFoundError):
        assert state(live.parent) == before
        return
    if done.finding is None:
        return  # an end that nobody can see is gone, or a torn one that the next writer cuts
    assert verify_journal(live).exit == 0
    assert repair(live).finding is None
    found = ids(live)
    kept = [name for name in found if name in events]
    assert kept == sorted(set(kept), key=events.index), "twice, or out of order"
    assert len(there - set(kept)) <= promised.lost, "whole lines are gone"
    foreign = [name for name in found if name.startswith("e1") and len(name) == 5]
    assert len(foreign) <= promised.foreign, "another log's"
    if set(promised.seen) - set(kept):
        assert len(found) > len(kept), "no Gap"
