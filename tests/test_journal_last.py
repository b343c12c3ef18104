"""The last N events of a log (`tail -n N`): read from the end, they tell what all of it tells of that stretch."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from following import Following
from journal_support import make, pack, rewrite

from opsml_eventbus.endpoints.journal import JournalSource
from opsml_eventbus.event import Gap
from opsml_eventbus.flow import Start
from opsml_eventbus.journal.segments import list_log

pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log" / "audit.jsonl"


def name(item):
    """The id of an event; of a Gap the one it says it stands behind."""
    return f"?{item.after}" if isinstance(item, Gap) else item.id


def told(path, last):
    """What is shown, and why something of it is missing."""

    async def run():
        shown, refused = [], []
        async with aclosing(JournalSource(path).batches(None, Start(last=last))) as stream:
            async for batch in stream:
                shown += [name(record.item) for record in batch.records]
                refused += [str(refusal.error) for refusal in batch.refusals]
        return shown, refused

    return asyncio.run(run())


def change(path, rows):
    path.write_bytes(b"".join(rows(path.read_bytes().splitlines(keepends=True))))


def test_damage_at_the_same_byte_of_the_next_live_file_is_told_as_well(path):
    """A name and a byte tell nothing apart in a log that is followed: a rotation brings both again."""
    make(path, [[0, 1], [2, 3], [4, 5]], rotate_after=(1, 2))
    _, finished = list_log(path).sealed
    for file in (finished.path, path):
        change(file, lambda rows: [rows[0], b"x\n", *rows[2:]])
    *rows, seal = finished.path.read_bytes().splitlines(keepends=True)
    successor = path.replace(path.with_name("next"))
    path.write_bytes(b"".join(rows))
    finished.path.unlink()

    async def run():
        async with Following(str(path), Start(last=9, follow=True)) as following:
            await following.until(4)
            with path.open("ab") as stream:
                stream.write(seal)
            path.rename(finished.path)
            successor.rename(path)
            await following.until(6, 5)
        return [name(item) for item in following.items]

    assert asyncio.run(run()) == ["e0", "e1", "?e1", "e3", "?e3", "e5"]


DAMAGE = {
    "an event is missing behind the last": (lambda rows: [*rows[:4], *rows[5:]], ["e1", "e2", "e3", "?e3"]),
    "an event is missing": (lambda rows: [*rows[:2], *rows[3:]], ["e1", "?e1", "e3", "e4"]),
    "a line is garbage": (lambda rows: [*rows[:2], b"x\n", *rows[3:]], ["e1", "?e1", "e3", "e4"]),
    "the last line is garbage": (lambda rows: [*rows, b"x\n"], ["e1", "e2", "e3", "e4", "?e4"]),
    "the last line is cut off": (lambda rows: [*rows, b"x"], ["e1", "e2", "e3", "e4", "?e4"]),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_told_once_and_behind_the_event_it_stands_behind(path, what):
    rows, expected = DAMAGE[what]
    make(path, [[1, 2, 3, 4]])
    change(path, rows)
    for last in ("all", 9, len(expected) - 1):
        assert told(path, last)[0] == expected


def without(record):
    """Drop the line with this control record."""
    return lambda rows: [row for row in rows if b"eventbus.journal." + record not in row]


def test_a_finished_file_without_its_seal_is_told_from_the_end_too(path):
    make(path, [[1, 2], [3]], rotate_after=(1,))
    (finished,) = list_log(path).sealed
    change(finished.path, without(b"seal"))
    reason = "a finished file without its seal"
    for last in ("all", 3):
        shown, why = told(path, last)
        assert (shown, len(why), reason in why[0]) == (["e1", "e2", "?e2", "e3"], 1, True)
    path.unlink()  # the newest file is a finished one now
    for last in ("all", 2, 1, 0):
        shown, why = told(path, last)
        assert (len(why), reason in why[0]) == (1, True)
        assert shown[-1].startswith("?")
    assert told(finished.path, "all") == told(finished.path, 9) == (["e1", "e2"], [])


def test_a_file_that_was_emptied_is_told_from_the_end_as_from_the_beginning(path):
    make(path, [[1], [2], [3]], rotate_after=(1, 2))
    list_log(path).sealed[1].path.write_bytes(b"")
    forwards, backwards = told(path, "all"), told(path, 3)
    assert forwards[0] == backwards[0]
    assert len(forwards[1]) == len(backwards[1])


@pytest.mark.parametrize("packed", [False, True])
def test_files_that_do_not_join_are_told_from_the_end_too(path, packed):
    make(path, [[1, 2], [3], [4]], rotate_after=(1, 2))
    rewrite(list_log(path).sealed[0].path, b'"n":2', b'"n":9')
    if packed:
        pack(path)
    for last in ("all", 4, 3):
        shown, why = told(path, last)
        assert shown == ["e1", "e2", "?e2", "e3", "e4"][-last - 1 if last != "all" else 0 :]
        assert (len(why), "does not join the line 4" in why[0]) == (1, True)
    assert told(path, 2) == (["e3", "e4"], [])
