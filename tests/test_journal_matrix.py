"""Everything that can be done to one file of a log, on each of its files, and (slow) every two of them at once.

Whatever was done: verification does not call it sound unless nobody can see it, reading ends and shows what is there
once, opening to write refuses without a change or leaves a sound log, and a repair leaves a sound log in which every
event that stood in a whole line of it is there once, in order, and a Gap where one is not.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from journal_support import event, ids, make, snapshot, write

from opsml_eventbus.codec import decode_line
from opsml_eventbus.errors import JournalDamaged, JournalError, JournalRefused
from opsml_eventbus.event import Event
from opsml_eventbus.journal import Damage, Line, read_backwards, read_journal, repair, verify_journal
from opsml_eventbus.journal.segments import list_log, segment_path

FILES = range(5)
EVENTS = [f"e{number}" for number in range(15)]
Deed = Callable[[Path, Path, Path], None]  # of the file, the log's live path, the same file of another log


pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A log of four finished files and the live one, and another: to be copied."""
    folder = tmp_path_factory.mktemp("logs")
    for name, first in (("log", 0), ("other", 1000)):
        batches = [range(first + start, first + start + 3) for start in range(0, 15, 3)]
        make(folder / name / "audit.jsonl", batches, rotate_after=(1, 2, 3, 4))
        (folder / name / "audit.jsonl.lock").unlink(missing_ok=True)
    return folder


def edit(change: Callable[[bytes], bytes]) -> Deed:
    return lambda path, live, other: path.write_bytes(change(path.read_bytes())) and None


def rows(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def special(make_special: Callable[[Path], object]) -> Deed:
    def deed(path: Path, live: Path, other: Path) -> None:
        path.unlink()
        make_special(path)

    return deed


DEEDS: dict[str, Deed] = {
    "deleted": lambda path, live, other: path.unlink(),
    "copied lower": lambda path, live, other: shutil.copy(path, segment_path(live, 3)) and None,
    "copied higher": lambda path, live, other: shutil.copy(path, segment_path(live, 500)) and None,
    "renamed lower": lambda path, live, other: path.rename(segment_path(live, 3)) and None,
    "renamed higher": lambda path, live, other: path.rename(segment_path(live, 500)) and None,
    "renamed 0": lambda path, live, other: path.rename(segment_path(live, 0)) and None,
    "of another log": lambda path, live, other: shutil.copy(other, path) and None,
    "cut at a line": edit(lambda data: b"".join(rows(data)[:3])),
    "cut in a line": edit(lambda data: data[: len(data) // 2 + 11]),
    "without its last line": edit(lambda data: b"".join(rows(data)[:-1])),
    "without its first line": edit(lambda data: b"".join(rows(data)[1:])),
    "without a line": edit(lambda data: b"".join(rows(data)[:2] + rows(data)[3:])),
    "a line twice": edit(lambda data: b"".join([*rows(data)[:2], rows(data)[1], *rows(data)[2:]])),
    "lines swapped": edit(lambda data: b"".join([*rows(data)[:2], rows(data)[3], rows(data)[2], *rows(data)[4:]])),
    "a line edited": edit(lambda data: data.replace(b'"source":"s"', b'"source":"x"', 1)),
    "garbage behind": edit(lambda data: data + b"garbage\ngarbage\n"),
    "half a line behind": edit(lambda data: data + b"garb"),
    "empty": edit(lambda data: b""),
    "with CRLF": edit(lambda data: data.replace(b"\n", b"\r\n")),
    "a folder": special(Path.mkdir),
    "a pipe": special(os.mkfifo),
    "a link to nowhere": special(lambda path: path.symlink_to("/not/there/it")),
}
# Of the live file: an end that is gone, which nobody can see, and what a crash may have left of it.
UNSEEN = {"deleted", "cut at a line", "without its last line"}
TORN = {"cut in a line", "garbage behind", "half a line behind", "empty", "without its last line"}


def done_to(logs: Path, folder: Path, deeds: list[tuple[str, int]]) -> Path | None:
    """The log with these things done to it; None where one of them cannot be done any more."""
    shutil.copytree(logs / "log", folder)
    live = folder / "audit.jsonl"
    files = [segment.path for segment in list_log(live).segments]
    others = [segment.path for segment in list_log(logs / "other" / "audit.jsonl").segments]
    try:
        for deed, index in deeds:
            DEEDS[deed](files[index], live, others[index])
    except OSError:
        return None
    return live


def standing(folder: Path, log: str) -> set[str]:
    """The ids of the events of this log that stand in whole lines."""
    found = set()
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink() and path.suffix == ".jsonl":
            for row in rows(path.read_bytes()):
                with suppress(Exception):
                    item = decode_line(row)
                    if row.endswith(b'"}\n') and isinstance(item, Event) and item.id in EVENTS and item.source == "s":
                        found.add(item.id)
    return found


def state(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in snapshot(folder).items() if not name.endswith(".lock")}


def is_an_end(deeds: list[tuple[str, int]]) -> bool:
    """Is only the end gone or torn: of the live file, or that and the finished one before it?"""
    done = {index: deed for deed, index in deeds}
    return done.pop(4, "") in UNSEEN | TORN and done in ({}, {3: "deleted"})


def check(logs: Path, folder: Path, deeds: list[tuple[str, int]]) -> None:
    live = done_to(logs, folder / "log", deeds)
    if live is None or not list_log(live).segments:
        return
    before, names, there = state(live.parent), sorted(os.listdir(live.parent)), standing(live.parent, "log")
    try:
        report = verify_journal(live)
    except (FileNotFoundError, JournalRefused):
        report = None  # a pipe, or a link, is all there is
    if report is not None and not is_an_end(deeds):
        assert report.exit == 5, report.findings
    for read in (read_journal, read_backwards):
        with suppress(FileNotFoundError, JournalRefused):
            items = list(read(live))
            shown = [decode_line(item.line).id for item in items if isinstance(item, Line)]
            damaged = any(isinstance(item, Damage) for item in items)
            assert there <= set(shown)
            assert damaged or len(set(shown)) == len(shown)
    try:
        write(live, [event(99)])
    except JournalError:
        assert (state(live.parent), sorted(set(os.listdir(live.parent)) - {"audit.jsonl.lock"})) == (before, names)
    except OSError:
        pass
    else:
        if report is not None and report.exit in (0, 3):
            assert verify_journal(live).exit == 0
    shutil.rmtree(live.parent)
    done_to(logs, folder / "log", deeds)
    try:
        done = repair(live)
    except (JournalError, FileNotFoundError):
        assert state(live.parent) == before
        return
    again = verify_journal(live)
    if done.finding is None:
        return  # an end that nobody can see is gone, or a torn one that the next writer cuts
    assert again.exit == 0, again.findings
    assert repair(live).finding is None
    found = ids(live)
    kept = [name for name in found if name in EVENTS]
    assert kept == sorted(set(kept), key=EVENTS.index), "twice, or out of order"
    assert len(there - set(kept)) <= 3 * len(deeds), "whole lines are gone"  # those beside the damage do not join
    assert not [name for name in found if name.startswith("e1") and len(name) == 5], "another log's"
    unseen = "audit.jsonl" not in names or any(deed in UNSEEN and index == 4 for deed, index in deeds)
    seen = EVENTS[:12] if unseen else EVENTS
    if set(seen) - set(kept):
        assert len(found) > len(kept), "no Gap"


@pytest.mark.parametrize("index", FILES)
@pytest.mark.parametrize("deed", DEEDS)
def test_whatever_was_done_to_one_file(logs, tmp_path, deed, index):
    check(logs, tmp_path, [(deed, index)])


@pytest.mark.slow
@pytest.mark.parametrize("first", DEEDS)
def test_whatever_was_done_to_two_files(logs, tmp_path, first):
    for count, (second, one, two) in enumerate(itertools.product(DEEDS, FILES, FILES)):
        if one != two:
            check(logs, tmp_path / str(count), [(first, one), (second, two)])
            shutil.rmtree(tmp_path / str(count), ignore_errors=True)


def test_the_deeds_do_something(logs, tmp_path):
    whole = state(logs / "log")
    for count, deed in enumerate(DEEDS):
        live = done_to(logs, tmp_path / str(count), [(deed, 1)])
        assert live is not None
        assert state(live.parent) != whole, deed


def test_a_log_that_is_left_alone_is_refused_by_nobody(logs, tmp_path):
    live = done_to(logs, tmp_path / "log", [])
    assert live is not None
    assert verify_journal(live).exit == 0
    assert ids(live) == EVENTS
    with suppress(JournalDamaged):
        write(live, [event(99)])
    assert ids(live) == [*EVENTS, "e99"]
