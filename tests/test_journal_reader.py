"""Reading: the files of a log as one, live, from any place, and never in silence over what is not sound."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
import tracemalloc

import pytest
from journal_support import START, damages, event, ids, lines, make, open_plain, pack, prune, write

from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.event import Gap
from opsml_eventbus.journal import (
    Journal,
    JournalReader,
    Line,
    backwards,
    find_log,
    last_id,
    read_backwards,
    read_journal,
    reader,
    repair,
    succession,
    verify,
    verify_journal,
)
from opsml_eventbus.journal.compress import compress_segment, remove_segment
from opsml_eventbus.journal.format import time_text
from opsml_eventbus.journal.lines import LINE_BYTES, read_blocks
from opsml_eventbus.journal.seek import offset_behind, offset_of_time
from opsml_eventbus.journal.segments import Segment, list_log, open_regular, segment_path
from opsml_eventbus.journal.succession import Succession, peek_open

pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log" / "audit.jsonl"


# ── which files ──


def test_the_live_path_is_the_whole_log_a_segment_itself_and_a_folder_the_one_log(path):
    make(path, [[1], [2], [3]], rotate_after=(1, 2))
    first, second = list_log(path).sealed
    assert ids(path) == ids(path.parent) == ["e1", "e2", "e3"]
    assert ids(first.path) == ["e1"]
    assert ids(second.path) == ["e2"]
    assert not find_log(first.path).whole


def test_a_log_that_is_not_there_is_an_error(path):
    with pytest.raises(FileNotFoundError):
        JournalReader(path)


def test_files_of_another_name_do_not_belong_to_a_log(path):
    make(path, [[1]])
    make(path.with_name("audit2.jsonl"), [[5], [6]], rotate_after=(1,))
    path.with_name("audit.jsonl.torn-20250101T000000Z").write_bytes(b"x")
    path.with_name("audit.0001.jsonl").write_bytes(b"x")
    assert ids(path) == ["e1"]
    assert ids(path.with_name("audit2.jsonl")) == ["e5", "e6"]


# ── from a place on ──


@pytest.mark.parametrize("packed", [False, True])
def test_every_seq_can_be_sought(path, packed):
    make(path, [list(range(n, n + 5)) for n in range(0, 40, 5)], rotate_after=(2, 5))
    if packed:
        pack(path)
    everything = [item for item in read_journal(path) if isinstance(item, Line)]
    last = verify_journal(path).head.seq
    for seq in range(1, last + 3):
        found = list(read_journal(path, from_seq=seq))
        assert [item.seq for item in found] == [item.seq for item in everything if item.seq >= seq]
        assert [item.number for item in found] == [item.number for item in everything if item.seq >= seq]


def test_seeking_reads_a_fraction_of_the_file(path, monkeypatch):
    make(path, [list(range(n, n + 100)) for n in range(0, 20_000, 100)])
    read = 0
    real = os.pread

    def counting(descriptor, size, offset):
        nonlocal read
        data = real(descriptor, size, offset)
        read += len(data)
        return data

    size = path.stat().st_size
    monkeypatch.setattr(os, "pread", counting)
    for seq in (5_000, 20_001):
        with JournalReader(path, from_seq=seq) as log:
            first = log.read().items[0]
            assert (first.seq, first.number) == (seq, seq)
    assert read < size / 4
    read = 0
    with path.open("rb") as stream:
        for seq in (1, 5_000, 20_001):
            offset = offset_behind(stream.fileno(), seq - 1)
            stream.seek(offset)
            assert b'"seq":%d,' % seq in stream.readline()
    assert read < size
    read = 0
    with path.open("rb") as stream:
        offset = offset_of_time(stream.fileno(), time_text(lines([10_000])[0]))
    assert 0 < offset < size
    assert read < size


def test_since_misses_nothing_although_clocks_step_back(path):
    file = open_plain(path)
    hour = 3_600_000_000_000
    clock = START
    sent = []
    for number in range(30_000):
        if number == 10_000:
            clock -= hour
        if number == 20_000:
            clock += 3 * hour
        clock += 1_000_000
        sent.append(event(number, time=clock))
    for begin in range(0, len(sent), 500):
        file.append([encode_line(item) for item in sent[begin : begin + 500]])
        file.sync()
        if begin in (4_000, 15_000, 24_000):
            file.rotate()
    file.checkpoint()
    file.close()
    compress_segment(list_log(path).sealed[1], "gzip")
    for since in (0, START, START + 5_000 * 1_000_000, clock - 1_000_000_000, clock - 2 * hour, clock + 1):
        wanted = [item.id for item in sent if item.time >= since]
        found = ids(path, since=since)
        assert set(wanted) <= set(found)
    assert len(ids(path, since=clock - 1_000_000_000)) < 12_000  # and it did not read it all


def test_since_skips_no_file_for_what_is_said_of_a_missing_one(path):
    make(path, [[1000, 1001], [1, 2], [2000]], rotate_after=(1, 2))
    since = START + 500 * 1_000_000
    assert ids(path, since=since)[:2] == ["e1000", "e1001"]
    list_log(path).sealed[1].path.unlink()
    first, hole, *rest = list(read_journal(path, since=since))[1:]
    assert first.seq == 3
    assert hole.missed == 4
    assert [decode_line(item.line).id for item in rest] == ["e2000"]


def test_events_of_1970_and_9999_are_found_by_their_time(path):
    early, late = event(1, time=0), event(2, time=253_402_300_799_000_000_000)
    write(path, [event(5), early, late, event(6)], rotate_count=1)
    write(path, [event(7)])
    assert {"e2"} <= set(ids(path, since=START * 2))
    assert {"e1", "e2"} <= set(ids(path, since=0))
    assert [item.seq for item in read_journal(path)] == sorted(item.seq for item in read_journal(path))


def test_a_reader_tells_where_to_resume(path):
    make(path, [[1, 2], [3, 4], [5]], rotate_after=(1,))
    seen, place = [], 1
    for _ in range(20):  # killed after every portion
        with JournalReader(path, from_seq=place) as log:
            portion = log.read()
            seen += [item.seq for item in portion.items]
            place = log.next_seq
            if portion.end:
                break
    assert seen == [item.seq for item in read_journal(path)]


# ── from the end ──


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("block", [100, 1000, 1 << 16])
def test_backwards_is_forwards_reversed(path, monkeypatch, packed, block):
    monkeypatch.setattr(backwards, "_BLOCK_BYTES", block)
    make(path, [list(range(n, n + 7)) for n in range(0, 70, 7)], rotate_after=(2, 5))
    if packed:
        pack(path)
    forwards = [(item.seq, item.line) for item in read_journal(path)]
    assert [(item.seq, item.line) for item in read_backwards(path)] == forwards[::-1]


def test_the_last_events_are_read_without_those_before_them(path, monkeypatch):
    make(path, [list(range(n, n + 100)) for n in range(0, 10_000, 100)])
    read = 0
    real = os.pread

    def counting(descriptor, size, offset):
        nonlocal read
        data = real(descriptor, size, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    assert last_id(path) == "e9999"
    assert read <= 1 << 16


def test_backwards_tells_of_damage_and_leaves_half_a_line_alone(path):
    make(path, [[1, 2, 3]])
    rows = path.read_bytes().splitlines(keepends=True)
    rows[2] = b"garbage\n"
    path.write_bytes(b"".join(rows) + b"half a li")
    items = list(read_backwards(path))
    assert [item.seq for item in items if isinstance(item, Line)] == [4, 2]
    (damage,) = (item for item in items if not isinstance(item, Line))
    assert damage.byte == len(rows[0]) + len(rows[1])


@pytest.mark.parametrize("kind", [b"\0", b"x"])
def test_from_the_end_too_a_line_that_is_too_long_is_one_damage_and_an_unfinished_one_none(path, kind):
    make(path, [[1, 2, 3]], close=False)
    rows = path.read_bytes().splitlines(keepends=True)
    long = kind * (3 << 20)
    path.write_bytes(b"".join([*rows[:3], long, b"\n", rows[3], long]))
    *_, e2, damage, e3 = reversed(list(read_backwards(path)))
    assert [decode_line(item.line).id for item in (e2, e3)] == ["e2", "e3"]
    told = damages(path)[0]
    assert (damage.byte, damage.reason) == (told.byte, told.reason)


def test_the_last_event_of_a_log_is_no_gap_and_may_stand_in_an_earlier_file(path):
    write(path, [event(1), Gap.new(1, None, "lag")], rotate_count=1)
    write(path, [Gap.new(1, None, "lag")], rotate_count=1)
    assert last_id(path) == "e1"


# ── live ──


def drain(log):
    found = []
    while not (portion := log.read()).end:
        found += portion.items
    return found


def test_a_live_reader_follows_across_rotation_compression_and_removal(path):
    file = open_plain(path)
    seen = []
    with JournalReader(path) as log:
        for number in range(0, 40, 2):
            file.append(lines([number]))
            if number % 6 == 0:
                file.rotate()
            if number % 10 == 0:
                for segment in list_log(path).sealed[:-1]:
                    if not segment.packed:
                        compress_segment(segment, "gzip")
            file.append(lines([number + 1]))
            file.sync()
            seen += drain(log)
            assert not log.moved
    file.close()
    assert [decode_line(item.line).id for item in seen] == [f"e{n}" for n in range(40)]


def test_a_reader_that_fell_behind_removed_files_says_what_is_missing(path):
    file = open_plain(path)
    file.append(lines([1]))
    with JournalReader(path) as log:
        assert len(drain(log)) == 1
        for number in (2, 3, 4):
            file.rotate()
            file.append(lines([number]))
        for segment in list_log(path).sealed[1:2]:
            remove_segment(segment)
        items = drain(log)
    file.close()
    damage = next(item for item in items if not isinstance(item, Line))
    assert damage.missed == 3  # lines: its open record, its event, its seal
    assert "removed by retention or missing" in damage.reason  # it need not be tampering
    assert [decode_line(item.line).id for item in items if isinstance(item, Line)] == ["e3", "e4"]


def test_a_batch_that_was_undone_is_read_again_as_what_was_written_in_its_stead(path):
    file = open_plain(path)
    file.append(lines([1, 2]))
    with JournalReader(path) as log:
        assert len(drain(log)) == 2
        kept = (file.state.size, file.state.head, file.state.tally)
        file.append(lines([3, 4]))
        assert [item.seq for item in drain(log)] == [4, 5]
        os.truncate(path, kept[0])
        file.state.size, file.state.head, file.state.tally = kept
        file.append(lines([5, 6, 7]))
        again = drain(log)
    file.close()
    assert [(item.seq, decode_line(item.line).id) for item in again] == [(4, "e5"), (5, "e6"), (6, "e7")]


def test_a_file_finished_between_looking_and_opening_is_not_skipped(path):
    file = open_plain(path)
    file.append(lines([1]))
    rotations = iter([True, False, False])

    def opener(segment):
        if segment.first is None and next(rotations):
            file.rotate()
            file.append(lines([2]))
        return segment.open()

    segment, stream = Succession(path).following(opener)
    stream.close()
    file.close()
    assert segment.first == 1


def half_a_rotation(path, first):
    """Between its two renames: the live file has its own name, and its successor is not there yet."""
    path.rename(segment_path(path, first))


def test_a_file_renamed_between_two_looks_is_not_the_end(path, monkeypatch):
    """No sealed file behind, then no live one either: it was renamed in between, and all it holds would be missing."""
    make(path, [[1], [2]], rotate_after=(1,))
    first, live = list_log(path).segments
    begun = peek_open(live).first

    def peek(segment):
        if path.exists():
            half_a_rotation(path, begun)
        return peek_open(segment)

    monkeypatch.setattr(succession, "peek_open", peek)
    segment, stream = Succession(path, first.first).following(lambda segment: segment.open())
    stream.close()
    assert segment.first == begun


def test_a_log_is_there_in_the_middle_of_its_first_rotation(path, monkeypatch):
    make(path, [[1]])
    listing = os.listdir

    def listdir(folder):
        names = listing(folder)
        if path.exists():
            half_a_rotation(path, 1)
        return names

    monkeypatch.setattr(os, "listdir", listdir)
    assert [segment.first for segment in find_log(path).segments] == [1]


def test_a_large_folder_is_listed_until_nothing_changes(path, monkeypatch):
    """What is compressed while a folder is read in pieces can be missed under both its names."""
    make(path, [[number] for number in range(3)], rotate_after=(1, 2))
    for number in range(120):
        (path.parent / f"{number}.txt").touch()
    finished = segment_path(path, 1)
    listing, calls = os.listdir, []

    def listdir(folder):
        calls.append(folder)
        return [name for name in listing(folder) if len(calls) > 1 or name != finished.name]

    monkeypatch.setattr(os, "listdir", listdir)
    assert list_log(path).sealed[0].first == 1


def test_a_live_file_that_got_the_place_of_a_removed_one_on_disk_is_read(path, monkeypatch):
    monkeypatch.setattr(Segment, "on_disk", lambda segment: (1, 1))
    file = open_plain(path)
    file.append(lines([1]))
    with JournalReader(path) as log:
        assert len(drain(log)) == 1
        for number in (2, 3):
            file.rotate()
            file.append(lines([number]))
        assert len(drain(log)) == 2
    file.close()


def test_a_log_of_many_files_lists_its_folder_a_few_times(path, monkeypatch):
    make(path, [[number] for number in range(120)], rotate_after=range(1, 120))
    listing, calls = os.listdir, []
    monkeypatch.setattr(os, "listdir", lambda folder: calls.append(folder) or listing(folder))
    for look in (ids, verify_journal, lambda path: list(read_backwards(path))):
        calls.clear()
        look(path)
        assert len(calls) < 20


def opened_while(path, step):
    """The ids from the end, with `step` taken once before a file other than the newest is opened."""
    seen = []
    for item in read_backwards(path):
        seen.append(decode_line(item.line).id)
        if len(seen) == 1:
            step()
    return seen[::-1]


def test_reading_from_the_end_goes_on_while_files_are_finished_compressed_and_removed(path):
    make(path, [[1], [2], [3], [4]], rotate_after=(1, 2, 3))

    def finish_and_compress():
        file = open_plain(path)
        file.rotate()
        file.append(lines([5]))
        file.close()
        for segment in list_log(path).sealed[:3]:
            compress_segment(segment, "gzip")

    assert opened_while(path, finish_and_compress) == ["e1", "e2", "e3", "e4"]
    assert opened_while(path, lambda: remove_segment(list_log(path).sealed[0])) == ["e2", "e3", "e4", "e5"]


def test_the_live_file_finished_while_it_is_opened_is_not_left_out_from_the_end(path, monkeypatch):
    make(path, [[1], [2]], rotate_after=(1,))
    opened, once = open_regular, iter([True])

    def open_(found):
        if found == path and next(once, False):
            file = open_plain(path)
            file.rotate()
            file.append(lines([3]))
            file.close()
        return opened(found)

    monkeypatch.setattr(backwards, "open_regular", open_)
    assert [decode_line(item.line).id for item in read_backwards(path)] == ["e3", "e2", "e1"]


def test_a_file_that_vanishes_while_it_is_opened_is_looked_for_again(path):
    make(path, [[1], [2]], rotate_after=(1,))
    vanished = iter([True, False])

    def opener(segment):
        if next(vanished):
            compress_segment(segment, "gzip")
        return segment.open()

    segment, stream = Succession(path).following(opener)
    stream.close()
    assert segment.packed


def test_verification_goes_on_into_files_that_were_begun_meanwhile(path):
    file = open_plain(path)
    file.append(lines([1]))
    rotations = iter([True, True])

    def progress(_):
        if next(rotations, False):
            file.rotate()
            file.append(lines([2]))

    report = verify_journal(path, on_progress=progress)
    file.close()
    assert (report.exit, report.events, len(report.files)) == (0, 3, 3)


def test_half_a_line_is_waited_for(path):
    make(path, [[1]], close=False)
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    with JournalReader(path) as log:
        assert drain(log) == []
        assert log.torn_end().reason == "a line that was cut off"
        path.write_bytes(data)
        assert [item.seq for item in drain(log)] == [2]
        assert log.torn_end() is None


def test_a_live_file_taken_away_is_noticed(path):
    make(path, [[1]], close=False)
    with JournalReader(path) as log:
        drain(log)
        path.rename(path.with_name("elsewhere"))
        drain(log)
        assert log.moved


def test_verification_reads_what_was_added_to_the_live_file_before_it_was_finished(path, monkeypatch):
    """Between its end and the look for the next file: its seal would be missing, which is tampering."""
    file = open_plain(path)
    file.append(lines([1]))
    following, calls = Succession.following, []

    def look(self, opener):
        calls.append(1)
        if len(calls) == 2:
            file.append(lines([2]))
            file.rotate()
            file.append(lines([3]))
        return following(self, opener)

    monkeypatch.setattr(Succession, "following", look)
    report = verify_journal(path)
    file.close()
    assert (report.exit, report.events) == (0, 3)


def test_retention_that_overtakes_a_verification_twice_is_no_tampering(path, monkeypatch):
    """What declares the first hole is in a file that is removed before it is read."""
    file = open_plain(path)
    for number in range(4):
        file.append(lines([number]))
        file.rotate()

    following, calls = Succession.following, []

    def look(self, opener):
        calls.append(1)
        if len(calls) == 2:
            prune(file, 2)
        elif len(calls) == 3:
            for number in (10, 11):
                file.append(lines([number]))
                file.rotate()
            prune(file, 1)
        return following(self, opener)

    monkeypatch.setattr(Succession, "following", look)
    report = verify_journal(path)
    file.close()
    assert (report.exit, len(report.files)) == (0, 4)


def test_reading_and_verifying_a_log_under_load_finds_nothing_wrong(path):
    stop = threading.Event()
    reports, counts = [], []

    def check():
        while not stop.is_set():
            reports.append(verify_journal(path))
            counts.append((sum(isinstance(item, Line) for item in read_journal(path)), len(damages(path))))

    async def run():
        async with Journal(path, fsync="interval=20ms", rotate_size=20_000, compress="gzip") as journal:
            await journal.append([event(0)])
            thread = threading.Thread(target=check)
            thread.start()
            for number in range(1, 300):
                await journal.append([event(number * 3 + k) for k in range(3)])
            stop.set()
            await asyncio.to_thread(thread.join)

    reader._GROWING_SECONDS = verify._GROWING_SECONDS = 2.0
    asyncio.run(run())
    assert {report.exit for report in reports} == {0}, [report for report in reports if report.exit][:1]
    assert {damaged for _, damaged in counts} == {0}
    assert [count for count, _ in counts] == sorted(count for count, _ in counts)


# ── what is not sound ──


def test_a_damaged_line_costs_itself_and_says_where_it_stands(path):
    make(path, [[1, 2, 3]])
    rows = path.read_bytes().splitlines(keepends=True)
    rows[2] = b"garbage\n"
    path.write_bytes(b"".join(rows))
    assert ids(path) == ["e1", "e3"]
    (damage,) = damages(path)
    assert (damage.number, damage.byte, damage.seq, damage.reason) == (
        3,
        len(rows[0]) + len(rows[1]),
        3,
        "not a line of a journal",
    )


def test_a_deleted_line_is_missed(path):
    make(path, [[1, 2, 3, 4]])
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[:2] + rows[4:]))
    assert ids(path) == ["e1", "e4"]
    (damage,) = damages(path)
    assert (damage.seq, damage.missed) == (3, 2)


def shown(items):
    """Ids, and the reason of what is damaged."""
    return [decode_line(item.line).id if isinstance(item, Line) else item.reason for item in items]


def test_damage_before_it_does_not_excuse_a_line_that_was_read_already(path):
    make(path, [[1, 2, 3]])
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*rows[:3], b"garbage\n", *rows[2:]]))
    told = ["not a line of a journal", "seq 3 where 4 follows"]
    assert shown(read_journal(path)) == ["e1", "e2", *told, "e2", "e3"]


def test_a_repair_that_takes_a_reader_back_behind_damage_is_told(path, monkeypatch):
    make(path, [[1], [2], [3]], rotate_after=(1, 2))
    with path.open("ab") as stream:
        stream.write(b"garbage\n")
    first = peek_open(Segment(path, None)).first
    rename, seen = os.rename, []

    def renaming(old, new):
        rename(old, new)
        seen.extend(drain(log))

    monkeypatch.setattr(os, "rename", renaming)
    with JournalReader(path) as log:
        assert shown(drain(log)) == ["e1", "e2", "e3", "not a line of a journal"]
        repair(path)
    assert shown(seen)[:2] == [f"seq {first} where {first + 3} follows", "e3"]


def test_a_line_of_100_megabytes_costs_little_memory(path):
    make(path, [[1]], close=False)
    whole = path.read_bytes()
    with path.open("ab") as stream:
        for _ in range(100):
            stream.write(b"x" * 1_000_000)
        stream.write(b"\n")
    make_tail = whole.splitlines(keepends=True)[1]
    with path.open("ab") as stream:
        stream.write(make_tail)
    tracemalloc.start()
    found = damages(path)
    report = verify_journal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0].byte == len(whole)
    assert report.exit == 3 or report.exit == 5
    assert peak < 16_000_000


def test_a_bomb_is_not_unpacked(path):
    make(path, [[1], [2]], rotate_after=(1,))
    (segment,) = list_log(path).sealed
    data = segment.path.read_bytes()
    bomb = segment.path.with_name(segment.path.name + ".gz")
    with gzip.open(bomb, "wb") as stream:
        stream.write(data)
        for _ in range(300):
            stream.write(bytes(1_000_000))
    segment.path.unlink()
    found = damages(path)
    assert "100 times" in found[-1].reason
    assert ids(path) == ["e1", "e2"]
    report = verify_journal(path)
    assert (report.exit, report.findings[-1].kind) == (5, "unreadable")


# ── blocks ──


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
def test_blocks_are_the_same_however_they_are_read(size):
    data = b"a\n\nbb\nccc\n" + b"d" * 100 + b"\nrest"
    rest = [data]

    def read(count):
        head, rest[0] = rest[0][:count], rest[0][count:]
        return head

    seen = []
    for block in read_blocks(read, size=size):
        assert data[block.offset : block.end].rstrip(b"\n") == block.data.rstrip(b"\n")
        seen += [(block.number + index, line, block.whole) for index, line in enumerate(block.lines)]
    assert seen == [
        *((number, line, True) for number, line in enumerate((b"a", b"", b"bb", b"ccc", b"d" * 100), 1)),
        (6, b"rest", False),
    ]


def test_a_line_that_is_too_long_comes_once_and_shortened():
    data = b"a\n" + b"x" * (LINE_BYTES + 300_000) + b"\nb\nc"
    rest = [data]

    def read(count):
        head, rest[0] = rest[0][:count], rest[0][count:]
        return head

    blocks = list(read_blocks(read, size=100_000))
    assert [(block.number, block.oversize, block.whole, block.end) for block in blocks] == [
        (1, False, True, 2),
        (2, True, True, len(data) - 3),
        (3, False, True, len(data) - 1),
        (4, False, False, len(data)),
    ]


def test_a_sieve_spares_what_it_rules_out_and_no_gap(path):
    write(path, [*(event(n) for n in range(3000)), Gap.new(3, None, "lag"), *(event(n) for n in range(3000, 9000))])
    asked = []

    def sieve(data):
        asked.append(len(data))
        return b'"n":8500}' in data

    with JournalReader(path, sieve=sieve) as log:
        passed, kept = 0, []
        while not (portion := log.read()).end:
            passed += portion.passed
            kept += portion.items
    assert passed + len(kept) == 9001
    assert passed > 4000
    assert any(b'"n":8500}' in item.line for item in kept)
    assert any(b"eventbus.gap" in item.line for item in kept)
    assert asked


def test_verification_and_reading_agree_on_what_there_is(path):
    make(path, [list(range(50)), list(range(50, 80))], rotate_after=(1,))
    assert verify_journal(path).events == len(ids(path)) == 80
