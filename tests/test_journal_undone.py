"""Reading on where lines were taken back: by a writer whose batch was refused, by a power cut, by a repair."""

from __future__ import annotations

import os

import pytest
from journal_support import START, lines, open_plain

from opsml_eventbus.codec import decode_line
from opsml_eventbus.journal import Damage, JournalReader, Line
from opsml_eventbus.journal.format import write_lines
from opsml_eventbus.journal.live import LiveFile

pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log" / "audit.jsonl"


class Refused:
    """Within it, lines are seen that the writer takes back at its end."""

    def __init__(self, file: LiveFile, numbers: range) -> None:
        self._file = file
        self._kept = (file.state.size, file.state.head, file.state.tally)
        file.append(lines(numbers))

    def take_back(self) -> None:
        os.truncate(self._file.path, self._kept[0])
        self._file.state.size, self._file.state.head, self._file.state.tally = self._kept


def drain(log: JournalReader) -> list[Line | Damage]:
    found: list[Line | Damage] = []
    while not (portion := log.read()).end:
        found += portion.items
    return found


def shown(items: list[Line | Damage]) -> list[str]:
    return [decode_line(item.line).id if isinstance(item, Line) else item.reason for item in items]


def long_log(path) -> LiveFile:
    file = open_plain(path)
    for first in range(0, 3_000, 100):
        file.append(lines(range(first, first + 100)))
        file.sync()
        file.checkpoint()
    return file


FROM = {
    "the end": lambda head: {"from_seq": head + 1},
    "the last line": lambda head: {"from_seq": head},
    "the middle": lambda head: {"from_seq": head - 50},
    "a time": lambda _: {"since": START + 2_900 * 1_000_000},
    "the beginning": lambda _: {},
}


@pytest.mark.parametrize("place", FROM)
def test_a_reader_that_began_anywhere_shows_nothing_twice_when_a_batch_is_taken_back(path, place):
    file = long_log(path)
    with JournalReader(path, **FROM[place](file.state.head.seq)) as log:
        file.append(lines(range(5000, 5003)))
        file.sync()
        refused = Refused(file, range(6000, 6003))
        before = shown(drain(log))
        refused.take_back()
        file.append(lines(range(7000, 7003)))
        assert before[-6:] == ["e5000", "e5001", "e5002", "e6000", "e6001", "e6002"]
        assert shown(drain(log)) == ["e7000", "e7001", "e7002"]
    file.close()


@pytest.mark.parametrize("read", [False, True])
def test_what_takes_the_place_of_a_batch_that_a_reader_began_behind_is_shown(path, read):
    file = long_log(path)
    refused = Refused(file, range(5000, 5005))
    with JournalReader(path, from_seq=file.state.head.seq + 1) as log:
        if read:
            assert drain(log) == []
        refused.take_back()
        file.append(lines(range(6000, 6003)))
        assert shown(drain(log)) == ["e6000", "e6001", "e6002"]
    file.close()


def test_a_refused_batch_that_is_seen_line_by_line_brings_nothing_twice(path):
    file = open_plain(path)
    file.append(lines(range(100)))
    with JournalReader(path) as log:
        assert len(drain(log)) == 100
        _, data = write_lines(file.state.head, file.state.durable, lines(range(1000, 1040)))
        for line in data.splitlines(keepends=True):
            with path.open("ab") as stream:
                stream.write(line)
            assert len(drain(log)) == 1
        os.truncate(path, file.state.size)
        file.append(lines(range(2000, 2003)))
        assert shown(drain(log)) == ["e2000", "e2001", "e2002"]
    file.close()


def test_a_batch_taken_back_while_the_file_is_finished_brings_nothing_wrong(path, monkeypatch):
    file = long_log(path)
    with JournalReader(path) as log:
        assert len(drain(log)) == 3_000
        refused = Refused(file, range(5000, 5003))
        assert len(drain(log)) == 3

        def moved() -> bool:
            monkeypatch.undo()
            refused.take_back()
            file.append(lines([6000]))
            file.rotate()
            return True

        monkeypatch.setattr(log._file, "moved", moved)
        assert shown(drain(log)) == ["e6000"]
    file.close()
