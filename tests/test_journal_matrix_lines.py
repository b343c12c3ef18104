"""Everything that can be done to one line of a log, on each of its lines, and (slow) every two of them at once.

Two finished files and the live one, each an open record, two events written together, and a seal or a checkpoint. What
a verification must say is told from the bytes that are there, and the independent verifier has to say the same.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from journal_promises import Expected, check_promises, rows
from journal_support import independent_verifier, lines, make

from opsml_eventbus.journal import verify_journal
from opsml_eventbus.journal.segments import list_log

EVENTS = [f"e{number}" for number in range(6)]
FILES, LINES = 3, 4
PLACES = list(itertools.product(range(FILES), range(LINES)))
Place = tuple[int, int]
Deed = Callable[[list[bytes], int, list[bytes]], list[bytes]]  # of the lines, which one, the same file of another log

pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


def change(how: Callable[[bytes], bytes]) -> Deed:
    return lambda own, at, other: [*own[:at], how(own[at]), *own[at + 1 :]]


def digit(line: bytes, behind: bytes) -> bytes:
    """Another digit at the end of what stands behind these bytes."""
    if (at := line.rfind(behind)) < 0:
        return line
    at += len(behind)
    return line[:at] + (b"7" if line[at : at + 1] != b"7" else b"8") + line[at + 1 :]


DEEDS: dict[str, Deed] = {
    "deleted": lambda own, at, other: own[:at] + own[at + 1 :],
    "twice": lambda own, at, other: own[: at + 1] + own[at:],
    "swapped": lambda own, at, other: own[:at] + own[at : at + 2][::-1] + own[at + 2 :],
    "moved to the end": lambda own, at, other: [*own[:at], *own[at + 1 :], own[at]],
    "a plain event before": lambda own, at, other: [*own[:at], lines([99])[0] + b"\n", *own[at:]],
    "another log's before": lambda own, at, other: own[:at] + other[at : at + 1] + own[at:],
    "another log's instead": lambda own, at, other: own[:at] + other[at : at + 1] + own[at + 1 :],
    "of NULs": change(lambda line: b"\0" * (len(line) - 1) + b"\n"),
    "cut": change(lambda line: line[: len(line) // 2] + b"\n"),
    "with the next": change(lambda line: line[:-1]),
    "with CRLF": change(lambda line: line[:-1] + b"\r\n"),
    "another time": change(lambda line: digit(line, b'"time":"')),
    "another seq": change(lambda line: digit(line, b',"seq":')),
    "another chain": change(lambda line: digit(line, b',"chain":"')),
    "another durable": change(lambda line: digit(line, b',"durable":')),
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The log, and another: to be copied."""
    folder = tmp_path_factory.mktemp("logs")
    for name, first in (("log", 0), ("other", 1000)):
        batches = [range(first + start, first + start + 2) for start in (0, 2, 4)]
        make(folder / name / "audit.jsonl", batches, rotate_after=(1, 2))
        (folder / name / "audit.jsonl.lock").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def verdict():
    return independent_verifier()


def files_of(log: Path) -> list[Path]:
    return [segment.path for segment in list_log(log / "audit.jsonl").segments]


def done_to(logs: Path, folder: Path, deeds: list[tuple[str, Place]]) -> Path | None:
    """The log with these things done to it, from its end on so that the lines before stay where they are."""
    shutil.copytree(logs / "log", folder)
    own, others = files_of(folder), files_of(logs / "other")
    for deed, (file, line) in sorted(deeds, key=lambda deed: deed[1], reverse=True):
        there = rows(own[file].read_bytes())
        if line >= len(there):
            return None
        own[file].write_bytes(b"".join(DEEDS[deed](there, line, rows(others[file].read_bytes()))))
    return folder / "audit.jsonl"


def said_of(whole: list[bytes], there: list[bytes]) -> set[int]:
    """What a verification of these three files may say, by what stands in them."""
    if there == whole:
        return {0}
    if there[:-1] != whole[:-1]:
        return {5}
    own, left = rows(whole[-1]), rows(there[-1])
    same = len([1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(own, left, strict=False))])
    if same == len(left):
        return {0} if left else {3}  # an end that is gone cannot be seen
    if same == 0:
        return {3, 5}
    # With the checkpoint in it all before it is on disk. Without, it is the last batch, and that may be torn.
    return {5} if own[-1] in left and same < len(own) - 1 else {3, 5}


def check(logs: Path, folder: Path, deeds: list[tuple[str, Place]], verdict: Callable[[Path], int]) -> None:
    whole = [path.read_bytes() for path in files_of(logs / "log")]

    def expected(live: Path) -> Expected:
        exits = said_of(whole, [path.read_bytes() for path in files_of(live.parent)])
        assert verify_journal(live).exit == verdict(live)
        # Two lines of another log that join each other cannot be told from an altered line and the one behind it.
        paired = sum(deed.startswith("another log's") for deed, _ in deeds) == 2
        return Expected(exits, EVENTS[:4], lost=3 * len(deeds), foreign=int(paired))

    check_promises(lambda there: done_to(logs, there, deeds), folder, EVENTS, expected)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("deed", DEEDS)
def test_whatever_was_done_to_one_line(logs, tmp_path, verdict, deed, place):
    check(logs, tmp_path / "log", [(deed, place)], verdict)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("deed", DEEDS)
def test_whatever_was_done_to_two_lines(logs, tmp_path, verdict, deed, place):
    for second, other in itertools.product(DEEDS, PLACES):
        if place < other or (place == other and deed < second):
            check(logs, tmp_path / "log", [(deed, place), (second, other)], verdict)
            shutil.rmtree(tmp_path / "log", ignore_errors=True)
