"""A repair that was killed at any step: what it leaves says what it is, and costs nothing."""

from __future__ import annotations

import sys
from contextlib import suppress

import pytest
from journal_support import KillAt, event, make, restore, snapshot, write

from opsml_eventbus.codec import decode_line
from opsml_eventbus.errors import JournalDamaged, JournalFailed
from opsml_eventbus.event import Gap
from opsml_eventbus.journal import read_journal, repair, verify_journal
from opsml_eventbus.journal.segments import list_log

WORDS = (".damaged-", ".cut-")


@pytest.fixture
def path(tmp_path):
    """Three files, of which the first is damaged."""
    path = make(tmp_path / "audit.jsonl", [range(4), range(4, 8), range(8, 12)], rotate_after=(1, 2))
    first = list_log(path).sealed[0].path
    first.write_bytes(first.read_bytes().replace(b'"n":2', b'"n":66'))
    return path


def put_behind_the_seal(path):
    first = list_log(path).sealed[0].path
    first.write_bytes(first.read_bytes().replace(b'"n":66', b'"n":2') + b"garbage\n")


def steps(path, *, half=False):
    """After each step at which a repair of the log may be killed: once it was."""
    before = snapshot(path.parent)
    for count in range(200):
        restore(path.parent, before)
        with KillAt(count, half=half) as kill:
            repair(path)
        yield count
        if not kill.killed:
            break
    assert count > 10


def shown(path):
    items = [decode_line(item.line) for item in read_journal(path)]
    return ["gap" if isinstance(item, Gap) else item.id for item in items]


def unfinished(path):
    return [entry.name for entry in path.parent.iterdir() if ".repairing" in entry.name]


def copies(path):
    return [entry for entry in path.parent.iterdir() if any(word in entry.name for word in WORDS)]


@pytest.mark.parametrize("damage", ["an event edited", "bytes behind a seal"])
def test_a_copy_has_its_name_when_it_is_whole_and_none_is_left_that_is_not(path, damage):
    if damage == "bytes behind a seal":
        put_behind_the_seal(path)
    before = snapshot(path.parent).values()
    for _ in steps(path, half=True):
        assert all(copy.read_bytes() in before for copy in copies(path) if copy.suffix != ".pending")
        repair(path)
        assert not [copy for copy in copies(path) if copy.suffix == ".pending"]
        assert verify_journal(path).exit == 0


def test_an_unfinished_copy_of_what_is_no_more_there_is_left(path):
    first, second = (segment.path for segment in list_log(path).sealed)
    left, gone = (file.with_name(f"{file.name}.damaged-20260101T000000Z.pending") for file in (first, second))
    left.write_bytes(first.read_bytes()[:900].replace(b'"n":1', b'"n":7'))
    gone.write_bytes(second.read_bytes()[:900])
    repair(path)
    assert left.exists()
    assert not gone.exists()


@pytest.mark.parametrize("then", ["repaired", "opened"])
def test_a_live_file_that_a_repair_had_begun_costs_nothing(path, then):
    path.unlink()
    for _ in steps(path):
        done = verify_journal(path).recovered
        if then == "opened":
            with suppress(JournalDamaged):  # from when it is in its place until the files in it are removed
                write(path, [event(99)])
                assert not unfinished(path)
            assert verify_journal(path).recovered == done  # nothing was taken for emptied
        repair(path)
        assert verify_journal(path).exit == 0
        expected = ["e0", "e1", "gap", *(f"e{n}" for n in range(3, 8))]
        assert [name for name in shown(path) if name != "e99"] == expected


def test_a_live_file_that_somebody_had_emptied_is_no_such_one(path):
    path.write_bytes(b"")
    for _ in steps(path):
        repair(path)
        assert shown(path)[-2:] == ["e7", "gap"]


def test_a_repair_that_finds_no_room_to_write_leaves_no_live_file_where_none_was(path, monkeypatch):
    path.unlink()
    before = list_log(path)

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[repair.__module__], "write_all", full)
        with pytest.raises(JournalFailed):
            repair(path)
    assert list_log(path) == before
    assert not unfinished(path)
    assert repair(path).finding is not None
    assert shown(path) == ["e0", "e1", "gap", *(f"e{n}" for n in range(3, 8))]
