"""Reading on where lines were taken back: by a writer whose batch was refused, by a power cut, by a repair."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing

import pytest
from journal_support import START, ids, lines, make, open_plain, pack, rewrite

from opsml_eventbus.codec import decode_line
from opsml_eventbus.endpoints import journal as ends
from opsml_eventbus.flow import Start
from opsml_eventbus.journal import Damage, Head, JournalReader, Line, read_backwards, read_journal, repair
from opsml_eventbus.journal.format import write_lines
from opsml_eventbus.journal.live import LiveFile
from opsml_eventbus.journal.segments import list_log
from opsml_eventbus.journal.succession import peek_open

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


def test_a_batch_that_is_taken_back_and_written_after_all_is_shown_once_more_with_the_same_ids(path):
    file = open_plain(path)
    file.append(lines(range(10)))
    with JournalReader(path) as log:
        refused = Refused(file, range(6000, 6003))
        assert shown(drain(log))[-3:] == ["e6000", "e6001", "e6002"]
        refused.take_back()
        assert drain(log) == []
        file.append(lines(range(6000, 6004)))
        assert shown(drain(log)) == ["e6000", "e6001", "e6002", "e6003"]
    file.close()
    assert ids(path)[-4:] == ["e6000", "e6001", "e6002", "e6003"]


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


# ── behind a line ──


@pytest.mark.parametrize("packed", [False, True])
def test_reading_goes_on_behind_any_line(path, packed):
    make(path, [list(range(n, n + 5)) for n in range(0, 40, 5)], rotate_after=(2, 5))
    if packed:
        pack(path)
    everything = [item for item in read_journal(path) if isinstance(item, Line)]
    for number, item in enumerate(everything, 1):
        assert list(read_journal(path, behind=item.head)) == everything[number:]
        with JournalReader(path, behind=item.head) as log:
            assert not log.cut
            drain(log)
            last = log.head
    assert last is not None
    assert list(read_journal(path, behind=last)) == []


def test_behind_a_line_that_ended_a_file_that_is_gone_reading_goes_on(path):
    make(path, [[1, 2], [3, 4]], rotate_after=(1,))
    with JournalReader(list_log(path).sealed[0].path) as log:
        drain(log)
        seal = log.head
    list_log(path).sealed[0].path.unlink()
    assert ids(path, behind=seal) == ["e3", "e4"]
    assert shown(list(read_journal(path, behind=Head(seal.seq, bytes(32)))))[1:] == ["e3", "e4"]


@pytest.mark.parametrize("added", [0, 5, 30])
def test_a_place_that_a_power_cut_took_brings_the_whole_log_and_says_so(path, added):
    file = open_plain(path)
    file.append(lines(range(10)))
    file.sync()
    kept = file.state.size
    file.append(lines(range(10, 20)))
    file.close()
    *_, last = read_journal(path)
    os.truncate(path, kept)
    if added:
        file = open_plain(path)
        file.append(lines(range(100, 100 + added)))
        file.close()
    reason, *events = shown(list(read_journal(path, behind=last.head)))
    assert "cut or repaired" in reason
    assert events == [f"e{n}" for n in (*range(10), *range(100, 100 + added))]


@pytest.mark.parametrize("packed", [False, True])
def test_a_place_in_a_log_that_was_repaired_brings_the_whole_log_and_says_so(path, packed):
    make(path, [range(k * 10, k * 10 + 10) for k in range(6)])
    place = list(read_journal(path))[39].head
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*rows[:10], b"garbage\n", *rows[20:]]))
    repair(path)
    if packed:
        pack(path)
    reason, *events = shown(list(read_journal(path, behind=place)))
    assert "cut or repaired" in reason
    assert {f"e{n}" for n in (*range(9), *range(19, 60))} < set(events)


def test_a_repair_behind_which_the_next_file_happens_to_have_the_next_number_brings_the_whole_log(path):
    make(path, [range(20), range(20, 24), range(24, 28)], rotate_after=(1, 2))
    first, second = list_log(path).sealed
    rows = first.path.read_bytes().splitlines(keepends=True)
    first.path.write_bytes(b"".join([*rows[:2], b"garbage\n", *rows[8:]]))
    with JournalReader(path, from_seq=second.first) as log:
        assert shown(log.read().items) == ["e20", "e21", "e22", "e23"]
        expected = log.next_seq
        repair(path)
        assert peek_open(list_log(path).segments[-1]).first == expected
        reason, *events = shown(drain(log))
    assert reason.startswith(f"the line {expected - 1} is not the one that was read")
    assert [id for id in events if len(id) < 4] == ["e0", *(f"e{n}" for n in range(7, 28))]


def test_lines_that_a_repair_puts_where_a_reader_has_been_are_missed(path):
    make(path, [range(4), range(4, 8), range(8, 12)], rotate_after=(1, 2))
    second = list_log(path).sealed[1]
    rows = second.path.read_bytes().splitlines(keepends=True)
    second.path.write_bytes(b"".join([*rows[:-1], b"garbage\n"]))
    with JournalReader(path) as log:
        read = [*log.read().items, *log.read().items]
        assert shown(read)[-2:] == ["e7", "not a line of a journal"]
        expected = log.next_seq
        repair(path)
        found = drain(log)
    first = peek_open(list_log(path).segments[-1]).first
    assert [(item.seq, item.missed) for item in found] == [(expected, first - expected)]


def test_files_that_were_never_joined_are_read_once(path):
    """It is damage, and no repair was at it: nothing comes twice."""
    make(path, [[1], [2], [3]], rotate_after=(1, 2))
    second = list_log(path).sealed[1]
    rewrite(second.path, b'"n":2', b'"n":7')
    told = shown(list(read_journal(path)))
    assert [id for id in told if id.startswith("e")] == ["e1", "e2", "e3"]
    assert [reason for reason in told if "does not join" in reason] == [told[2]]


def test_from_the_end_a_log_that_a_repair_replaced_does_not_end_in_silence(path, monkeypatch):
    make(path, [range(4), range(4, 8), range(8, 12)], rotate_after=(1, 2))
    first = list_log(path).sealed[0]
    rows = first.path.read_bytes().splitlines(keepends=True)
    first.path.write_bytes(b"".join([*rows[:2], b"garbage\n", *rows[3:]]))
    unlink, items = os.unlink, read_backwards(path)
    found = [next(items)]

    def unlinking(name, **options):
        unlink(name, **options)
        if not list_log(path).sealed:  # all of it stands in the new live file now
            found.extend(items)

    monkeypatch.setattr(os, "unlink", unlinking)
    repair(path)
    *events, reason = shown(found)
    assert events == ["e11", "e10", "e9", "e8"]
    assert reason.endswith("replaced meanwhile")


def test_from_the_end_retention_and_rotation_replace_nothing(path):
    make(path, [[1], [2], [3]], rotate_after=(1, 2))
    items = read_backwards(path)
    found = [next(items)]
    file = open_plain(path)
    file.rotate()
    file.append(lines([4]))
    file.close()
    for segment in list_log(path).sealed[:2]:
        segment.path.unlink()
    assert shown([*found, *items]) == ["e3"]


def follow(path, start: Start, step) -> list[str]:
    """What a source shows until nothing more comes; `step` runs after its first batch."""
    found: list[str] = []

    async def run() -> None:
        async with aclosing(ends.JournalSource(path).batches(None, start)) as stream:
            while True:
                batch = await asyncio.wait_for(anext(stream), 1)
                found.extend("a Gap" if record.gap else record.item.id for record in batch.records)
                if len(found) == len(batch.records):
                    step()

    with pytest.raises(TimeoutError):
        asyncio.run(run())
    return found


def test_the_last_events_are_looked_for_again_when_a_batch_among_them_is_refused_meanwhile(path, monkeypatch):
    file = open_plain(path)
    file.append(lines(range(20)))
    file.sync()
    refused = Refused(file, range(100, 105))

    def later(*arguments, **options):
        monkeypatch.undo()
        refused.take_back()
        return JournalReader(*arguments, **options)

    monkeypatch.setattr(ends, "JournalReader", later)
    found = follow(path, Start(last=3, follow=True), lambda: file.append(lines(range(200, 208))))
    file.close()
    assert found == ["e17", "e18", "e19", *(f"e{n}" for n in range(200, 208))]


def test_a_batch_refused_behind_the_last_events_is_not_gone_on_behind(path):
    file = open_plain(path)
    file.append(lines(range(20)))
    file.sync()
    refused = Refused(file, range(100, 105))

    def step() -> None:
        refused.take_back()
        file.append(lines(range(200, 203)))

    found = follow(path, Start(last=1, follow=True), step)
    file.close()
    assert found == ["e104", "e200", "e201", "e202"]
