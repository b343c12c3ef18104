"""Everything that can be done to one file of a log, on each of its files, and (slow) every two of them at once."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from journal_promises import Expected, check_promises, rows, state
from journal_support import event, ids, make, write

from opsml_eventbus.errors import JournalDamaged
from opsml_eventbus.journal import verify_journal
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


def is_an_end(deeds: list[tuple[str, int]]) -> bool:
    """Is only the end gone or torn: of the live file, or that and the finished one before it?"""
    done = {index: deed for deed, index in deeds}
    return done.pop(4, "") in UNSEEN | TORN and done in ({}, {3: "deleted"})


def check(logs: Path, folder: Path, deeds: list[tuple[str, int]]) -> None:
    def damaged(there: Path) -> Path | None:
        live = done_to(logs, there, deeds)
        return live if live is not None and list_log(live).segments else None

    def expected(live: Path) -> Expected:
        unseen = not os.path.lexists(live) or any(deed in UNSEEN and index == 4 for deed, index in deeds)
        exits = {0, 3, 5} if is_an_end(deeds) else {5}
        return Expected(exits, EVENTS[:12] if unseen else EVENTS, lost=3 * len(deeds))

    check_promises(damaged, folder / "log", EVENTS, expected)


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
