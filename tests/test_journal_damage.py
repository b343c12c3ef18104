"""Damage of unusual shapes: told for what it is by verification, by every reader, and mended."""

from __future__ import annotations

import asyncio
import json
import os
import re
from contextlib import aclosing
from pathlib import Path

import pytest
from journal_support import event, ids, independent_verifier, lines, make, open_plain, prune, rewrite, write

from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.endpoints.journal import JournalSource
from opsml_eventbus.errors import JournalDamaged, JournalRefused
from opsml_eventbus.event import Event
from opsml_eventbus.filter import Filter
from opsml_eventbus.journal import (
    Damage,
    Journal,
    JournalReader,
    Line,
    read_backwards,
    read_journal,
    recover,
    repair,
    verify_journal,
)
from opsml_eventbus.journal.compress import compress_segment, remove_leftovers
from opsml_eventbus.journal.format import OPEN_BYTES, Head, Open, Recovered, control_line, read_control, write_lines
from opsml_eventbus.journal.lines import LINE_BYTES
from opsml_eventbus.journal.segments import NAME_BYTES, list_log

pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


def test_a_place_that_a_payload_spells_moves_nothing(tmp_path):
    path = tmp_path / "audit.jsonl"
    inner = {"specversion": "1.0", "id": "x", "seq": 500, "durable": 499, "chain": "ab" * 32}
    file = open_plain(path)
    file.append(lines([1, 2]))
    file.sync()
    file.append([encode_line(Event.new("t", {"wrapped": inner}, id="w", source="s", time=1)), *lines([3, 4])])
    file.close()
    rows = path.read_bytes().split(b"\n")
    rows[3] = rows[3][:-60] + b"\0" * 60  # what was not synced when the power went
    path.write_bytes(b"\n".join(rows))
    assert verify_journal(path).exit == independent_verifier()(path) == 3
    recover(path)
    assert (verify_journal(path).exit, ids(path)) == (0, ["e1", "e2"])


BROKEN = {
    "NUL bytes": lambda row: row.replace(b'"n":7', b'"n":\0'),
    "not UTF-8": lambda row: row.replace(b'"n":7', b'"\xff":7'),
    "another beginning": lambda row: b"X" + row[1:],
}


@pytest.mark.parametrize("count", [20, 3_000])
@pytest.mark.parametrize("what", BROKEN)
def test_a_filter_hides_no_line_that_is_seen_to_be_broken(tmp_path, what, count):
    path = make(tmp_path / "audit.jsonl", [range(count)])
    rows = path.read_bytes().splitlines(keepends=True)
    rows[8] = BROKEN[what](rows[8])
    path.write_bytes(b"".join(rows))

    async def run(where: Filter | None) -> list[str]:
        async with aclosing(JournalSource(path).batches(where)) as stream:
            return [refusal.place async for batch in stream for refusal in batch.refusals]

    for where in (None, Filter.of(type="absent"), Filter.of(grep="zzz")):
        assert asyncio.run(run(where)) == ["audit.jsonl:9"]


SPOILT = {
    "an upper-case digit": (rb'("chain":"[0-9a-f]*)[a-f]', rb"\1A"),
    "a letter that is no digit": (rb'("chain":")[0-9a-f]', rb"\1g"),
    "a character of two bytes": (rb'("chain":")[0-9a-f]', b"\\g<1>\xc3\xa9"),
    "a digit too many": (rb'("chain":")', rb"\g<1>0"),
    "a durable of letters": (rb'"durable":\d+', rb'"durable":x'),
    "a durable with a leading zero": (rb'"durable":', rb'"durable":0'),
    "a seq with a leading zero": (rb'"seq":', rb'"seq":0'),
    "a blank in it": (rb',"durable":', rb', "durable":'),
    "a member in it": (rb',"chain":', rb',"a":1,"chain":'),
}


@pytest.mark.parametrize("count", [5, 3_000])
@pytest.mark.parametrize("what", SPOILT)
def test_a_line_whose_place_is_not_spelled_as_it_should_be_is_damage_to_every_reader(tmp_path, what, count):
    path = make(tmp_path / "audit.jsonl", [range(count)])
    rows = path.read_bytes().splitlines(keepends=True)
    rows[3] = re.sub(*SPOILT[what], rows[3])
    path.write_bytes(b"".join(rows))
    events = [f"e{number}" for number in range(count) if number != 2]

    def look(items):
        items = list(items)
        assert [item.reason for item in items if isinstance(item, Damage)] == ["not a line of a journal"]
        return [decode_line(item.line).id for item in items if isinstance(item, Line) and item.head]

    assert look(read_journal(path)) == events
    assert look(read_journal(path, from_seq=3)) == events[1:]
    assert look(read_backwards(path)) == events[::-1]
    look(read_journal(path, sieve=lambda _: False))
    assert verify_journal(path).exit == 5


@pytest.mark.parametrize("at", [0, 2])
def test_a_control_record_as_deep_as_you_like_is_damage(tmp_path, at):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3]])
    rows = path.read_bytes().splitlines(keepends=True)
    name = b'{"specversion":"1.0","id":"' + b"x" * 36 + b'","source":"eventbus.journal","type":"eventbus.journal.seal"'
    deep = b"[" * 1000 + b"]" * 1000
    rows.insert(at, name + b',"time":"x","data":' + deep + b',"seq":9,"durable":1,"chain":"' + b"a" * 64 + b'"}\n')
    path.write_bytes(b"".join(rows))
    assert verify_journal(path).exit == 5
    assert any(isinstance(item, Damage) for item in read_journal(path))
    assert {"e1", "e2", "e3"} <= {decode_line(item.line).id for item in read_backwards(path) if isinstance(item, Line)}
    repair(path)
    assert (verify_journal(path).exit, [name for name in ids(path) if name[0] == "e"]) == (0, ["e1", "e2", "e3"])


def test_a_filter_hides_no_damage_between_the_ends_of_a_block(tmp_path):
    path = make(tmp_path / "audit.jsonl", [range(1000), range(1000, 2000)])
    rows = path.read_bytes().splitlines()
    rows[500] = b"X" * len(rows[500])
    rows[700], rows[701] = rows[701], rows[700]
    path.write_bytes(b"\n".join(rows) + b"\n")
    told = [item for item in read_journal(path) if isinstance(item, Damage)]
    assert [item for item in read_journal(path, sieve=lambda data: False) if isinstance(item, Damage)] == told
    assert [item.byte for item in told] == [sum(map(len, rows[:at])) + at for at in (500, 700, 701, 702)]


def test_a_log_whose_every_line_was_spaced_anew_is_altered(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3, 4], [5, 6]], rotate_after=(1, 2))
    for file in tmp_path.glob("audit*.jsonl"):
        file.write_text("".join(json.dumps(json.loads(line)) + "\n" for line in file.read_text().splitlines()))
    assert verify_journal(path).exit == independent_verifier()(path) == 5


def test_an_emptied_live_file_is_torn_under_any_policy(tmp_path):
    file = open_plain(tmp_path / "audit.jsonl", "never")
    file.append(lines([1, 2]))
    file.rotate()
    file.close()
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"")
    assert verify_journal(path).exit == independent_verifier()(path) == 3


@pytest.mark.parametrize(("fsync", "verdict"), [("never", 3), ("always", 5)])
@pytest.mark.parametrize("cut", ["in the seal", "at the seal", "in the line before it", "at the line before it"])
def test_a_finished_file_whose_end_is_gone_is_one_damage_wherever_it_is_cut(tmp_path, fsync, verdict, cut):
    """No file is missing: what lies up to the next one belongs to that damage."""
    file = open_plain(tmp_path / "audit.jsonl", fsync)
    file.append(lines([1, 2]))
    finished = file.rotate()
    file.append(lines([3]))
    file.checkpoint()
    file.close()
    rows = finished.read_bytes().splitlines(keepends=True)
    last = -1 if "seal" in cut else -2
    half = rows[last][:40] if cut.startswith("in ") else b""
    finished.write_bytes(b"".join(rows[:last]) + half)
    path = tmp_path / "audit.jsonl"
    report = verify_journal(path)
    assert (report.exit, len(report.findings)) == (verdict, 1)
    assert independent_verifier()(path) == verdict


def test_only_what_was_not_declared_of_a_beginning_is_said_to_be_missing(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1], [2], [3], [4]], rotate_after=(1, 2, 3))
    file = open_plain(path)
    prune(file, 2)
    file.checkpoint()
    file.close()
    first, second, _ = list_log(path).segments
    first.path.unlink()
    (finding,) = verify_journal(path).findings
    assert (finding.kind, finding.seq) == ("missing", first.first)
    assert finding.reason == f"seq {first.first} to {second.first - 1} are gone"


def test_a_time_that_is_no_text_in_a_first_line_is_damage_to_a_writer(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2]], close=True)
    at = path.read_bytes().index(b'"time":"') + 16
    path.write_bytes(path.read_bytes()[:at] + b"\xb2" + path.read_bytes()[at + 1 :])
    with pytest.raises(JournalDamaged):
        write(path, [event(3)])


def test_who_goes_on_behind_an_emptied_live_file_says_so_in_the_log(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3, 4]], rotate_after=(1,))
    path.write_bytes(b"")  # as logrotate's copytruncate leaves it
    write(path, [event(5)])
    report = verify_journal(path)
    assert (report.exit, report.recovered, ids(path)) == (0, 1, ["e1", "e2", "e5"])
    write(path, [event(6)])
    assert verify_journal(path).recovered == 1


@pytest.mark.parametrize(("first", "gone"), [(2, slice(4, 6)), (5, slice(4, 6)), (6, slice(4, 7))])
def test_who_reads_on_from_a_seq_is_told_what_is_missing_there(tmp_path, first, gone):
    path = make(tmp_path / "audit.jsonl", [range(1, 200)])
    rows = path.read_bytes().splitlines(keepends=True)
    del rows[gone]
    path.write_bytes(b"".join(rows))
    (damage,) = [item for item in read_journal(path, from_seq=first) if isinstance(item, Damage)]
    assert damage.seq <= first + 3


def test_a_wrong_seq_does_not_mislead_who_reads_on(tmp_path):
    path = make(tmp_path / "audit.jsonl", [range(1, 200)])
    rows = path.read_bytes().splitlines(keepends=True)
    for at in (60, 80, 100, 103, 120, 150):
        damaged = list(rows)
        damaged[at] = damaged[at].replace(b'"seq":%d,' % (at + 1), b'"seq":13,')
        path.write_bytes(b"".join(damaged))
        items = list(read_journal(path, from_seq=50))
        assert any(isinstance(item, Damage) for item in items)
        shown = {decode_line(item.line).id for item in items if isinstance(item, Line)}
        assert {f"e{number}" for number in range(50, 200) if number != at} <= shown


def test_a_file_that_is_missing_where_it_is_read_on_is_told(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3, 4], [5, 6]], rotate_after=(1, 2))
    segments = list_log(path).segments
    segments[1].path.unlink()
    first = segments[1].first
    assert [item.missed for item in read_journal(path, from_seq=first + 1) if isinstance(item, Damage)] == [4]
    segments[0].path.unlink()
    assert [item.missed for item in read_journal(path, from_seq=first + 1) if isinstance(item, Damage)] == [3]


def test_half_a_line_behind_a_seal_is_told(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3, 4]], rotate_after=(1,))
    with list_log(path).segments[0].path.open("ab") as file:
        file.write(b'{"specversion":"1.0","id":"hidden')
    assert [item.reason for item in read_journal(path) if isinstance(item, Damage)]
    assert verify_journal(path).exit == independent_verifier()(path) == 5
    path.unlink()
    assert verify_journal(path).exit == independent_verifier()(path) == 5


def test_a_log_begins_with_zeros(tmp_path):
    path, head = tmp_path / "audit.jsonl", Head(0, b"\xab" * 32)
    opened = control_line(Open(1, "x", 1, head.chain.hex(), "always"), 1)
    path.write_bytes(write_lines(head, 0, [opened, *lines([1, 2])])[1])
    assert verify_journal(path).exit == 5


@pytest.mark.parametrize("make_special", [Path.mkdir, lambda path: path.symlink_to("/not/there/it")])
@pytest.mark.parametrize("index", [0, 1])
def test_what_is_no_file_is_tampering_for_both_verifiers(tmp_path, make_special, index):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3, 4]], rotate_after=(1,))
    file = list_log(path).segments[index].path
    file.unlink()
    make_special(file)
    assert independent_verifier()(path) == 5
    if index == 0:
        assert verify_journal(path).exit == 5


def test_a_tally_without_a_time_hides_nothing(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3, 4]], rotate_after=(1,))
    path.write_bytes(re.sub(rb'"greatest":"[^"]*"', b'"greatest":"yesterday"', path.read_bytes()))
    assert ids(path, since=0) == ["e1", "e2", "e3", "e4"]


@pytest.mark.parametrize("options", [["-n", "all"], []])
def test_a_record_that_is_no_record_is_no_event(cli, options):
    path = make(cli.folder / "audit.jsonl", [[1, 2], [3]])
    rows = path.read_bytes().splitlines(keepends=True)
    rows[-1] = b" " + rows[-1]
    path.write_bytes(b"".join(rows))
    done = cli.run("tail", str(path), *options, check=3)
    assert [json.loads(line)["type"] for line in done.out.splitlines()] == ["t", "t", "t", "eventbus.gap"]


def test_a_record_of_what_was_cut_says_where(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3, 4]], rotate_after=(1,), close=False)
    whole = len(path.read_bytes())
    with path.open("ab") as file:
        file.write(b"torn")
    recover(path)
    data = b"".join(segment.path.read_bytes() for segment in list_log(path).segments)
    (record,) = [control for line in data.splitlines() if isinstance(control := read_control(line), Recovered)]
    assert (record.bytes, record.offset) == (4, whole)


def test_a_good_compressed_copy_is_not_replaced_by_what_was_altered_since(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3, 4]], rotate_after=(1,))
    segment = list_log(path).segments[0]
    plain = segment.path.read_bytes()
    packed = compress_segment(segment, "gzip")
    good = packed.read_bytes()
    segment.path.write_bytes(plain.replace(b'"n":1', b'"n":7'))
    with pytest.raises(ValueError, match="stands in the plain file"):
        compress_segment(segment, "gzip")
    assert packed.read_bytes() == good
    assert segment.path.exists()
    segment.path.write_bytes(plain)  # as a crash leaves it
    compress_segment(segment, "gzip")
    assert not segment.path.exists()


def test_leftovers_of_another_log_are_not_ours_to_remove(tmp_path):
    other = tmp_path / "audit.eu.00000000000000000001.jsonl.gz.tmp"
    own = tmp_path / "audit.00000000000000000001.jsonl.gz.tmp"
    for path in (other, own):
        path.write_bytes(b"")
    remove_leftovers(tmp_path / "audit.jsonl")
    assert (other.exists(), own.exists()) == (True, False)


def test_a_name_that_leaves_no_room_for_finished_files_is_refused(tmp_path):
    name = "a" * (NAME_BYTES - len(".jsonl")) + ".jsonl"
    path = make(tmp_path / name, [[1], [2]], rotate_after=(1,))
    path.write_bytes(path.read_bytes() + b"x\ny\n")
    first = list_log(path).segments[0]
    first.path.write_bytes(first.path.read_bytes().replace(b'"n":1', b'"n":7'))
    compress_segment(first, "gzip")
    repair(path)
    assert verify_journal(path).exit == 0
    with pytest.raises(JournalRefused, match="bytes"):
        Journal(tmp_path / f"a{name}")


@pytest.mark.parametrize("count", [10, 3000])
@pytest.mark.parametrize("wanted", [b"", b'"n":2'])
def test_lines_before_what_was_taken_back_are_shown_once(tmp_path, count, wanted):
    path = tmp_path / "audit.jsonl"
    file = open_plain(path)
    file.append(lines(range(count)))
    file.sync()
    before = file.state.size, file.state.head, file.state.tally
    file.append(lines(range(9000, 9005)))
    reader = JournalReader(path, sieve=lambda data: wanted in data)
    items = list[Line | Damage]()

    def drain():
        while not (portion := reader.read()).end:
            items.extend(portion.items)

    drain()
    # A write that was refused, undone; and others in its place.
    os.truncate(path, before[0])
    file.state.size, file.state.head, file.state.tally = before
    file.append(lines([*range(20_000, 20_003)]))
    file.sync()
    drain()
    reader.close()
    file.close()
    shown = [decode_line(item.line).id for item in items if isinstance(item, Line)]
    assert not [item for item in items if isinstance(item, Damage)]
    assert len(set(shown)) == len(shown)
    assert {"e2", "e20000", "e20002"} <= set(shown)


def test_an_event_without_its_newline_is_no_torn_journal(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(lines([1])[0])
    with pytest.raises(JournalRefused, match="is no journal"):
        recover(path)
    assert path.read_bytes() == lines([1])[0]
    whole = make(tmp_path / "other.jsonl", [[1]]).read_bytes().splitlines()[0]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        recover(path)
        assert verify_journal(path).exit == 0


def test_a_live_file_that_does_not_say_where_it_begins_comes_once(tmp_path):
    path = tmp_path / "audit.jsonl"
    file = open_plain(path)
    file.append(lines([1, 2, 3]))
    with path.open("r+b") as edited:
        edited.seek(10)
        edited.write(b"X" * 40)
    reader = JournalReader(path)
    items = list[Line | Damage]()

    def drain():
        while not (portion := reader.read()).end:
            items.extend(portion.items)

    drain()
    file.append(lines([4]))
    file.rotate()
    drain()
    file.append(lines([5]))
    drain()
    reader.close()
    file.close()
    shown = [decode_line(item.line).id for item in items if isinstance(item, Line)]
    assert shown == ["e1", "e2", "e3", "e4", "e5"]


def test_how_far_it_was_durable_is_told_by_the_end_of_a_log_whose_newlines_are_gone(tmp_path):
    """Over a MiB of lines that have become one: only its beginning and its end are kept in memory."""
    path = make(tmp_path / "audit.jsonl", [range(3), range(3, 8000), [8000]], close=False)
    rows = path.read_bytes().splitlines(keepends=True)
    for lost in (b"", b"\r", b" \r\n"[:2]):
        path.write_bytes(b"".join(rows[:4]) + b"".join(row[:-1] + lost for row in rows[4:]))
        assert path.stat().st_size > LINE_BYTES
        assert verify_journal(path).exit == independent_verifier()(path) == 5, lost
        path.write_bytes(path.read_bytes() + b"\n")
        assert verify_journal(path).exit == independent_verifier()(path) == 5, lost


def test_a_hole_of_a_mib_of_zeros_is_what_a_crash_left(tmp_path):
    path = make(tmp_path / "audit.jsonl", [range(3), range(3, 8000)], close=False)
    rows = path.read_bytes().splitlines(keepends=True)
    cut = b"".join(rows[:10])
    path.write_bytes(cut + b"\0" * (LINE_BYTES + 10) + b"".join(rows[6000:]))
    assert verify_journal(path).exit == independent_verifier()(path) == 3
    recover(path)
    assert verify_journal(path).exit == 0
    assert ids(path) == [f"e{number}" for number in range(9)]


@pytest.mark.parametrize("change", ["long", "no time", "no such time"])
def test_an_open_record_that_a_look_at_the_beginning_cannot_read_is_none(tmp_path, change):
    """Whoever reads the whole line and whoever looks at its beginning must not come to two verdicts."""
    path = make(tmp_path / "audit.jsonl", [[1], [2]])
    time = re.search(rb',"time":"[^"]*"', path.read_bytes())[0]
    changes = {
        "long": (b'"sealed":null', b'"sealed":null,"more":"' + b"x" * OPEN_BYTES + b'"'),
        "no time": (time, b""),
        "no such time": (time, time[:-22] + b"2" * 21 + b'"'),
    }
    first, _, rest = path.read_bytes().partition(b"\n")
    assert changes[change][0] in first
    path.write_bytes(first + b"\n" + rest)
    rewrite(path, *changes[change])
    before = path.read_bytes()
    assert verify_journal(path).exit == independent_verifier()(path) == 5
    with pytest.raises((JournalDamaged, JournalRefused)):
        recover(path)
    assert path.read_bytes() == before
