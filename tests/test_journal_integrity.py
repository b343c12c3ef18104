"""What verification finds: every cut, every flipped bit, every rearrangement of the lines and files of a log."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from journal_support import (
    damages,
    event,
    ids,
    independent_verifier,
    line_ends,
    lines,
    make,
    open_plain,
    restore,
    snapshot,
    walk_bytes,
    write,
)

from opsml_eventbus.codec import decode_line
from opsml_eventbus.errors import JournalDamaged, JournalFailed, JournalRefused
from opsml_eventbus.event import Gap
from opsml_eventbus.journal import (
    Damage,
    Head,
    Line,
    parse_head,
    read_backwards,
    read_journal,
    reader,
    repair,
    verify,
    verify_journal,
)
from opsml_eventbus.journal.compress import compress_segment
from opsml_eventbus.journal.format import control_line, read_chain, read_control, read_place, write_lines
from opsml_eventbus.journal.live import open_record
from opsml_eventbus.journal.segments import list_log, segment_path
from opsml_eventbus.journal.succession import peek_open

BATCHES = [[1, 2], [3], [4, 5, 6], [7], [8, 9]]


@pytest.fixture(autouse=True)
def _no_writer_is_at_it(monkeypatch):
    """A torn line is looked at once, not waited for: nobody is writing here."""
    monkeypatch.setattr(reader, "_GROWING_SECONDS", 0.0)
    monkeypatch.setattr(verify, "_GROWING_SECONDS", 0.0)


@pytest.fixture
def log(tmp_path):
    """Five batches, a rotation after the second, closed in good order."""
    return make(tmp_path / "audit.jsonl", BATCHES, rotate_after=(2,))


@pytest.fixture
def files(log):
    """Its two files as (first seq, bytes)."""
    segment = log.with_name("audit.00000000000000000001.jsonl")
    return [(1, segment.read_bytes()), (None, log.read_bytes())]


def test_a_closed_log_is_sound_and_durable_to_its_last_event(log):
    report = verify_journal(log)
    assert (report.exit, report.verdict, report.events, report.settled) == (0, "sound", 9, True)
    assert report.durable == report.head.seq - 1
    assert report.lines == report.head.seq == 9 + 4  # two open records, a seal, a checkpoint


def test_each_segment_verifies_alone(log):
    for path in (log.with_name("audit.00000000000000000001.jsonl"), log):
        assert verify_journal(path).exit == 0


def test_every_cut_of_the_live_file_leaves_the_whole_records_before_it(log, tmp_path):
    data = log.read_bytes()
    before = ids(log.with_name("audit.00000000000000000001.jsonl"))
    ends = line_ends(data)
    everything = ids(log)
    for cut in range(0, len(data), 7 if len(data) > 4000 else 1):
        log.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        expected = before + everything[len(before) :][: max(0, whole - 1)]  # the first is the open record
        assert walk_bytes(
            [(1, log.with_name("audit.00000000000000000001.jsonl").read_bytes()), (None, data[:cut])]
        ) == (0 if cut in ends else 3)
        if cut % 49 == 0 or cut in ends:
            assert ids(log) == expected


def test_every_cut_of_a_finished_file_is_tampering(files):
    (first, sealed), live = files
    for cut in range(len(sealed)):
        assert walk_bytes([(first, sealed[:cut]), live]) == 5


@pytest.mark.parametrize("bits", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_flip_of_any_bit_before_the_last_durable_record_is_tampering(files, bits):
    (_, sealed), (_, live) = files
    last = line_ends(live)[-2]  # the closing checkpoint is the one line not known to be durable
    for position in range(len(sealed)):
        for bit in _bits(position, bits):
            assert walk_bytes([(1, _flip(sealed, position, bit)), (None, live)]) == 5, (position, bit)
    for position in range(last):
        for bit in _bits(position, bits):
            assert walk_bytes([(1, sealed), (None, _flip(live, position, bit))]) == 5, (position, bit)


def test_a_flip_in_the_last_record_is_never_sound(files):
    (_, sealed), (_, live) = files
    for position in range(line_ends(live)[-2], len(live)):
        for bit in range(8):
            assert walk_bytes([(1, sealed), (None, _flip(live, position, bit))]) in (3, 5)


def test_a_flip_in_an_unsynced_batch_is_torn_unless_lines_are_rearranged(tmp_path):
    path = make(tmp_path / "a.jsonl", [[1, 2], [3, 4]], close=False)
    data = path.read_bytes()
    start = line_ends(data)[2]
    found = {
        walk_bytes([(None, _flip(data, position, bit))]) for position in range(start, len(data)) for bit in range(8)
    }
    assert found <= {3, 5}
    assert 3 in found


def _bits(position: int, count: int) -> list[int]:
    return [(position + bit) % 8 for bit in range(count)]


def _flip(data: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize("which", range(3, 7))
def test_a_line_deleted_swapped_repeated_or_edited_is_tampering(log, which):
    # Seqs of the live file: 6 open, 7 8 9, 10, 11 12, 13 checkpoint.
    rows = log.read_bytes().splitlines(keepends=True)
    index = which - 2
    deleted = rows[:index] + rows[index + 1 :]
    swapped = [*rows[:index], rows[index + 1], rows[index], *rows[index + 2 :]]
    repeated = [*rows[:index], rows[index], rows[index], *rows[index + 1 :]]
    edited = [*rows[:index], rows[index].replace(b'"source":"s"', b'"source":"z"'), *rows[index + 1 :]]
    for changed in (deleted, swapped, repeated, edited):
        assert changed != rows
        log.write_bytes(b"".join(changed))
        assert verify_journal(log).exit == 5
        assert verify_journal(log.parent).exit == 5


def test_a_report_is_json(log):
    import json

    log.write_bytes(log.read_bytes().replace(b'"n":5', b'"n":6'))
    report = verify_journal(log)
    members = json.loads(json.dumps(report.as_dict()))
    assert members["exit"] == 5
    assert members["verdict"] == "tampered"
    assert members["head"] == str(report.head)
    assert members["findings"][0]["seq"] == 8


def test_one_altered_line_is_one_finding_with_its_place(log):
    rows = log.read_bytes().splitlines(keepends=True)
    rows[2] = rows[2].replace(b'"n":5', b'"n":6')
    log.write_bytes(b"".join(rows))
    (finding,) = verify_journal(log).findings
    assert (finding.kind, finding.file, finding.line, finding.seq) == ("altered", "audit.jsonl", 3, 8)
    assert finding.byte == len(rows[0]) + len(rows[1])


def test_a_copy_with_crlf_is_tampering(log):
    log.write_bytes(log.read_bytes().replace(b"\n", b"\r\n"))
    assert verify_journal(log).exit == 5


def test_every_line_rewritten_by_a_json_tool_is_tampering(log):
    log.write_bytes(log.read_bytes().replace(b'","', b'", "'))
    assert verify_journal(log).exit == 5


@pytest.fixture
def four(tmp_path):
    """Three finished files and the live one."""
    return make(tmp_path / "log" / "audit.jsonl", [[1, 2], [3, 4], [5, 6], [7]], rotate_after=(1, 2, 3))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_dropped_file_is_tampering(four, index):
    sorted(four.parent.glob("audit.0*"))[index].unlink()
    report = verify_journal(four)
    assert report.exit == 5
    assert report.findings[0].kind == "missing"


def test_reordered_files_are_tampering(four):
    first, second, _ = sorted(four.parent.glob("audit.0*"))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert verify_journal(four).exit == 5


def test_a_file_of_another_log_is_tampering(four, tmp_path):
    other = make(tmp_path / "other" / "audit.jsonl", [[1, 2], [3, 4], [5, 6], [7]], rotate_after=(1, 2, 3))
    second = sorted(other.parent.glob("audit.0*"))[1]
    shutil.copy(second, four.parent / second.name)
    report = verify_journal(four)
    assert report.exit == 5
    assert "foreign" in {finding.kind for finding in report.findings}


def _other_log(log):
    return make(log.parent.parent / "other" / "audit.jsonl", [[1], [2]]).read_bytes()


def _first_file_again(log):
    return min(log.parent.glob("audit.0*")).read_bytes()


def _open_record_and_garbage(log):
    return _first_file_again(log).split(b"\n")[0] + b"\nnothing of a journal\n"


LIVE = [_other_log, _first_file_again, _open_record_and_garbage]


@pytest.mark.parametrize("content", LIVE)
def test_a_live_file_that_cannot_follow_the_finished_ones_is_tampering(four, content):
    four.write_bytes(content(four))
    report = verify_journal(four)
    assert report.exit == 5
    assert report.count <= 2  # one, and one for the garbage
    assert report.files[-1] == "audit.jsonl"
    assert [damage.file for damage in damages(four)][:1] == ["audit.jsonl"]
    assert ids(four)[:6] == ["e1", "e2", "e3", "e4", "e5", "e6"]


@pytest.mark.parametrize("content", LIVE)
def test_a_live_file_that_cannot_follow_is_not_written_on(four, content):
    four.write_bytes(content(four))
    before = snapshot(four.parent)
    with pytest.raises(JournalDamaged):
        write(four, [event(8)])
    before[f"{four.name}.lock"] = snapshot(four.parent)[f"{four.name}.lock"]  # it says who tried
    assert snapshot(four.parent) == before


@pytest.mark.parametrize("content", LIVE)
def test_repair_takes_nothing_from_a_live_file_that_cannot_follow(four, content):
    there = content(four)
    four.write_bytes(there)
    done = repair(four)
    assert done.kept[0].read_bytes() == there
    assert (done.salvaged, verify_journal(four).exit) == (0, 0)
    shown = [decode_line(item.line) for item in read_journal(four) if isinstance(item, Line)]
    assert [item.id for item in shown[:-1]] == ["e1", "e2", "e3", "e4", "e5", "e6"]
    assert isinstance(shown[-1], Gap)  # what stood in the file before is not known


def test_a_link_that_leads_nowhere_is_a_file_that_cannot_be_read(four):
    """A finished file that was archived on a disk that is not there."""
    for path in (sorted(four.parent.glob("audit.0*"))[1], four):
        kept = path.read_bytes()
        path.unlink()
        path.symlink_to("/not/mounted/it")
        report = verify_journal(four)
        assert (report.exit, len(report.files)) == (5, 4)
        assert ("unreadable", path.name) in {(finding.kind, finding.file) for finding in report.findings}
        assert path.name in {damage.file for damage in damages(four)}
        assert path.name in {item.file for item in read_backwards(four) if isinstance(item, Damage)}
        assert len(ids(four)) == (5 if path != four else 6)
        path.unlink()
        path.write_bytes(kept)


@pytest.mark.parametrize("name", ["00000000000000000000", "٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٢"])
def test_a_name_that_no_file_of_a_log_can_have(four, name):
    """Number 0 stands before the first line: the file is read, and is wrong. Digits of other scripts are no digits."""
    shutil.copy(min(four.parent.glob("audit.0*")), four.with_name(f"audit.{name}.jsonl"))
    assert verify_journal(four).exit == (5 if name.isascii() else 0)
    assert independent_verifier()(four) == verify_journal(four).exit


def test_lines_that_are_missing_or_there_twice_are_told_from_the_end_too(four):
    files = sorted(four.parent.glob("audit.0*"))
    kept = files[2].read_bytes()
    files[2].unlink()
    items = list(read_backwards(four))
    assert [item.missed for item in items if isinstance(item, Damage)] == [4]
    files[2].write_bytes(kept)
    rows = kept.splitlines(keepends=True)
    files[2].write_bytes(b"".join([*rows[:2], rows[1], *rows[3:]]))
    (damage,) = [item for item in read_backwards(four) if isinstance(item, Damage)][:1]
    assert damage.file == files[2].name


def test_a_live_file_under_the_number_0_is_read(four):
    four.rename(segment_path(four, 0))
    assert sorted(ids(four)) == [f"e{number}" for number in range(1, 8)]
    assert damages(four)


def test_what_is_of_another_log_or_cut_off_is_told_from_the_end_too(four):
    second = sorted(four.parent.glob("audit.0*"))[1]
    kept = second.read_bytes()
    other = make(four.parent.parent / "other" / "audit.jsonl", [[1, 2], [3, 4], [5, 6], [7]], rotate_after=(1, 2, 3))
    second.write_bytes((other.parent / second.name).read_bytes())
    assert any("a file of the log" in item.reason for item in list(read_backwards(four)) if isinstance(item, Damage))
    second.write_bytes(kept + b"half")
    assert any("cut off" in item.reason for item in list(read_backwards(four)) if isinstance(item, Damage))
    compress_segment(list_log(four).sealed[1], "gzip")
    assert any("cut off" in item.reason for item in list(read_backwards(four)) if isinstance(item, Damage))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("content", [b"", b"garbage\n", b"cut"])
def test_what_does_not_end_as_a_finished_file_is_not_written_behind(four, packed, content):
    newest = max(four.parent.glob("audit.0*"))
    if content == b"cut":
        content = b"".join(newest.read_bytes().splitlines(keepends=True)[:-1])
    newest.write_bytes(content)
    if packed:
        compress_segment(list_log(four).sealed[-1], "gzip")
    with pytest.raises(JournalDamaged):
        write(four, [event(8)])


@pytest.mark.parametrize(("content", "exit_code"), [(b"", 3), (b'{"specversion":"1.0","id', 3), (b'{"a":1}\n', 5)])
def test_a_live_file_with_nothing_of_a_journal_in_it_is_told(four, content, exit_code):
    """A crash leaves an empty file behind the finished ones, or a part of its first line; a whole line it does not."""
    four.write_bytes(content)
    assert verify_journal(four).exit == independent_verifier()(four) == exit_code
    assert damages(four)[-1].file == four.name
    if exit_code == 5:
        with pytest.raises((JournalDamaged, JournalRefused)):
            write(four, [event(8)])
    else:
        write(four, [event(8)])
        assert verify_journal(four).exit == 0


def test_another_log_is_not_gone_on_with(four):
    """Its file is the newest, and there is no live one."""
    other = make(four.parent.parent / "other" / "audit.jsonl", [[1, 2], [3, 4], [5, 6], [7]], rotate_after=(1, 2, 3))
    newest = max(four.parent.glob("audit.0*"))
    newest.write_bytes((other.parent / newest.name).read_bytes())
    four.unlink()
    with pytest.raises(JournalDamaged, match="a file of the log"):
        write(four, [event(8)])
    assert not four.exists()


def test_what_is_refused_stays_as_it_is(four):
    """A torn new file behind a finished one without its end."""
    newest = max(four.parent.glob("audit.0*"))
    newest.write_bytes(b"".join(newest.read_bytes().splitlines(keepends=True)[:-1]))
    four.write_bytes(b"")
    before = snapshot(four.parent)
    with pytest.raises(JournalDamaged):
        write(four, [event(8)])
    before[f"{four.name}.lock"] = snapshot(four.parent)[f"{four.name}.lock"]
    assert snapshot(four.parent) == before


def test_a_time_is_not_looked_for_by_a_name_that_does_not_fit(four):
    """The live file under the name of the first: what follows says of the first that nothing late was in it."""
    live = four.read_bytes()
    four.unlink()
    first = min(four.parent.glob("audit.0*"))
    first.write_bytes(live)
    late = event(7).time
    assert "e7" in ids(four, since=late)


def test_a_missing_file_is_not_written_behind(four):
    max(four.parent.glob("audit.0*")).unlink()
    with pytest.raises(JournalDamaged, match="does not join"):
        write(four, [event(8)])


@pytest.mark.parametrize("name", [2, 300])
def test_a_finished_file_copied_under_another_name_is_tampering_and_read_once(four, name):
    second = sorted(four.parent.glob("audit.0*"))[1]
    shutil.copy(second, segment_path(four, name))
    report = verify_journal(four)
    assert report.exit == 5
    assert len(report.files) == 5
    assert sorted(ids(four)) == sorted([*(f"e{number}" for number in range(1, 8)), "e3", "e4"])
    assert damages(four)
    assert repair(four).left == 2
    assert (ids(four), verify_journal(four).exit) == ([f"e{number}" for number in range(1, 8)], 0)


def test_a_finished_file_under_a_wrong_name_is_tampering_and_read_once(four):
    second = sorted(four.parent.glob("audit.0*"))[1]
    second.rename(segment_path(four, 300))
    report = verify_journal(four)
    assert report.exit == 5
    assert len(report.files) == 4
    assert sorted(ids(four)) == [f"e{number}" for number in range(1, 8)]


def test_a_finished_file_that_is_a_folder_or_a_pipe_is_tampering_and_the_others_are_read(four):
    second = sorted(four.parent.glob("audit.0*"))[1]
    second.unlink()
    for make_special in (Path.mkdir, os.mkfifo):
        make_special(second)
        report = verify_journal(four)
        assert (report.exit, len(report.files)) == (5, 4)
        assert (report.findings[0].kind, report.findings[0].file) == ("unreadable", second.name)
        assert ids(four) == ["e1", "e2", "e5", "e6", "e7"]
        assert damages(four)[0].file == second.name
        second.rmdir() if second.is_dir() else second.unlink()


def test_a_first_file_that_is_a_pipe_hides_nothing(four):
    first = min(four.parent.glob("audit.0*"))
    first.unlink()
    os.mkfifo(first)
    assert ids(four) == ["e3", "e4", "e5", "e6", "e7"]
    assert damages(four)[0].file == first.name
    assert verify_journal(four).exit == 5


def test_a_newest_file_that_is_a_pipe_is_waited_for_by_nobody(four):
    newest = max(four.parent.glob("audit.0*"))
    newest.unlink()
    os.mkfifo(newest)
    with pytest.raises(JournalDamaged):
        write(four, [event(8)], compress="gzip")
    with pytest.raises(JournalFailed, match="no regular file"):
        repair(four)


def test_a_pipe_or_a_device_is_no_journal(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", Path("/dev/zero")):
        with pytest.raises(JournalRefused, match=r"a (pipe|device); a journal is a regular file"):
            verify_journal(path)


@pytest.mark.parametrize("fsync", ["always", "never"])
def test_a_last_finished_file_without_its_seal_is_tampering_unless_nothing_was_synced(tmp_path, fsync):
    """It gets its name when its seal is on disk. No live file stands behind it: the writer was killed just then."""
    path = tmp_path / "audit.jsonl"
    file = open_plain(path, fsync)
    file.append(lines([1, 2]))
    file.rotate()
    file.close()
    path.unlink()
    (segment,) = list_log(path).sealed
    data = segment.path.read_bytes()
    assert verify_journal(path).exit == 0
    *_, before_seal, end = line_ends(data)
    for cut in (before_seal, before_seal - 10, end - 10):
        segment.path.write_bytes(data[:cut])
        assert verify_journal(path).exit == (5 if fsync == "always" else 3)


def rewrite(path, old, new):
    """Some bytes changed and every chain value behind them computed anew, as someone would who knows the format."""
    rows = path.read_bytes().splitlines()
    places = [read_place(row) for row in rows]
    head, data = Head(places[0].seq - 1, read_chain(read_control(rows[0]).previous)), b""
    for row, place in zip(rows, places, strict=True):
        head, line = write_lines(head, place.durable, [row[: place.start].replace(old, new) + b"}"])
        data += line
    assert data != path.read_bytes()
    path.write_bytes(data)


def test_a_finished_file_rewritten_as_a_whole_does_not_join_the_next(four):
    rewrite(sorted(four.parent.glob("audit.0*"))[1], b'"n":3', b'"n":9')
    report = verify_journal(four)
    assert (report.exit, [finding.kind for finding in report.findings]) == (5, ["altered"])
    assert "does not join" in report.findings[0].reason


def test_a_finished_file_whose_name_is_one_too_high_is_tampering(four):
    newest = max(four.parent.glob("audit.0*"))
    newest.rename(segment_path(four, list_log(four).sealed[-1].first + 1))
    report = verify_journal(four)
    assert (report.exit, [finding.kind for finding in report.findings]) == (5, ["sequence"])


def test_a_format_that_is_not_ours_is_not_called_sound(log):
    path = make(log.with_name("one.jsonl"), BATCHES)
    rewrite(path, b'"format":1', b'"format":2')
    assert verify_journal(path).exit == 5


def test_an_open_record_inside_a_file_is_tampering(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2]])
    head = verify_journal(path).head
    opened = open_record(peek_open(list_log(path).segments[0]).log, head, "always", None)
    with path.open("ab") as stream:
        stream.write(write_lines(head, head.seq, [control_line(opened, 0)])[1])
    assert verify_journal(path).exit == 5


def test_a_line_of_another_log_is_tampering(log, tmp_path):
    other = make(tmp_path / "other" / "audit.jsonl", BATCHES, rotate_after=(2,))
    rows, others = (path.read_bytes().splitlines(keepends=True) for path in (log, other))
    log.write_bytes(b"".join([*rows[:3], others[3], *rows[4:]]))
    assert verify_journal(log).exit == 5


def test_a_line_chained_on_behind_a_seal_is_tampering(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2]], rotate_after=(1,))
    path.unlink()
    (segment,) = list_log(path).sealed
    head = verify_journal(path).head
    assert verify_journal(path).exit == 0
    with segment.path.open("ab") as stream:
        stream.write(write_lines(head, head.seq, lines([3]))[1])
    assert verify_journal(path).exit == 5


def test_a_chained_line_with_a_wrong_number_or_a_falling_mark_is_tampering(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3]])
    head = verify_journal(path).head
    data = path.read_bytes()
    for wrong, durable in ((head._replace(seq=head.seq + 1), head.seq), (head, 1), (head, head.seq + 1)):
        path.write_bytes(data + write_lines(wrong, durable, lines([4]))[1])
        assert verify_journal(path).exit == 5


def test_a_file_that_begins_without_its_open_record_is_tampering(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1]], rotate_after=(1,))
    path.unlink()
    head = verify_journal(path).head
    path.write_bytes(write_lines(head, head.seq, lines([2, 3]))[1])
    assert verify_journal(path).exit == 5


def test_a_garbled_line_put_in_is_tampering(log):
    rows = log.read_bytes().splitlines(keepends=True)
    for garbage in (b"\n", b"{}\n", b"\0\n", b"x" * 3_000_000 + b"\n"):
        log.write_bytes(b"".join([*rows[:2], garbage, *rows[2:]]))
        assert verify_journal(log).exit == 5


# ── what hashing alone cannot show, and what can ──


def test_a_cut_at_a_line_looks_sound_but_not_to_who_kept_a_head(log):
    head = verify_journal(log).head
    rows = log.read_bytes().splitlines(keepends=True)
    assert verify_journal(log, expect=head).exit == 0
    log.write_bytes(b"".join(rows[:3]))
    assert verify_journal(log).exit == 0  # documented: a log that ends here is a log
    report = verify_journal(log, expect=head)
    assert (report.exit, report.findings[0].kind) == (5, "unexpected")


def test_a_rewritten_log_looks_sound_but_not_to_who_kept_a_head(log, tmp_path):
    head = verify_journal(log).head
    other = make(tmp_path / "other" / "audit.jsonl", BATCHES, rotate_after=(2,))
    assert verify_journal(other).exit == 0
    assert verify_journal(other, expect=head).exit == 5


def test_a_head_in_the_middle_may_be_expected(log):
    middle = verify_journal(log.with_name("audit.00000000000000000001.jsonl")).head
    assert verify_journal(log, expect=middle).exit == 0
    assert verify_journal(log, expect=middle._replace(chain=bytes(32))).exit == 5


def test_a_head_is_written_and_read_as_seq_and_chain():
    head = Head(42, bytes(range(32)))
    assert parse_head(str(head)) == head
    for text in ("", "42", "42:ab", "x:" + "0" * 64, "42:" + "G" * 64):
        with pytest.raises(ValueError, match="SEQ:CHAIN"):
            parse_head(text)


# ── files that are no sound journal ──


def test_plain_json_lines_have_no_chain(tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":2}\n')
    report = verify_journal(path)
    assert (report.exit, report.verdict, report.count) == (3, "unchained", 1)


@pytest.mark.parametrize(("content", "reason"), [(b"", "it is empty"), (b"root:x:0:0\nbin:x:1:1\n", "no line of one")])
def test_a_file_that_is_no_journal_is_neither_sound_nor_torn(tmp_path, content, reason):
    path = tmp_path / "passwd"
    path.write_bytes(content)
    report = verify_journal(path)
    assert (report.exit, report.verdict) == (3, "unchained")
    assert reason in report.findings[0].reason


def test_plain_lines_in_front_of_a_log_are_tampering_however_many(log):
    log.with_name("audit.00000000000000000001.jsonl").unlink()
    path = make(log.with_name("one.jsonl"), BATCHES)
    path.write_bytes(b'{"a":1}\n' * 10_000 + path.read_bytes())
    assert verify_journal(path).exit == 5


def test_a_log_without_its_chain_has_neither_the_expected_line_nor_a_signature(tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":2}\n')
    report = verify_journal(path, expect=Head(3, bytes(32)))
    assert (report.exit, [finding.kind for finding in report.findings]) == (5, ["unchained", "unexpected"])


def test_a_last_line_without_its_newline_is_torn_even_where_it_parses(log):
    data = log.read_bytes()
    log.write_bytes(data[:-1])
    assert verify_journal(log).verdict == "torn"
    log.write_bytes(data + b"12")
    assert verify_journal(log).verdict == "torn"


def test_a_tail_of_nuls_is_torn(log):
    log.write_bytes(log.read_bytes() + bytes(3000))
    report = verify_journal(log)
    assert (report.exit, report.findings[0].reason) == (3, "NUL bytes")


def test_a_hole_in_the_last_batch_is_torn_and_one_before_it_tampering(tmp_path):
    path = make(tmp_path / "a.jsonl", [[1, 2], list(range(10, 30))], close=False)
    data = path.read_bytes()
    ends = line_ends(data)
    for start, stop, exit_code in ((ends[5], ends[9] + 20, 3), (ends[0] + 5, ends[1] + 5, 5)):
        path.write_bytes(data[:start] + bytes(stop - start) + data[stop:])
        assert verify_journal(path).exit == exit_code


def test_findings_are_counted_beyond_what_is_kept(tmp_path):
    path = make(tmp_path / "a.jsonl", [list(range(3000))])
    path.write_bytes(path.read_bytes().replace(b'"source":"s"', b'"source":"z"'))
    seen = []
    report = verify_journal(path, on_finding=seen.append)
    assert len(report.findings) == 1000
    assert report.count == len(seen) == 3000


def test_a_folder_means_the_one_log_in_it(log):
    assert verify_journal(log.parent).exit == 0
    make(log.with_name("other.jsonl"), [[1]])
    with pytest.raises(JournalRefused) as caught:
        verify_journal(log.parent)
    assert caught.value.found == ("audit.jsonl", "other.jsonl")


def test_a_payload_that_looks_like_a_journal_line_confuses_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    hostile = [
        {"seq": 1, "durable": 9, "chain": "0" * 64},
        {"type": "eventbus.journal.seal", "x": '"type":"eventbus.journal.seal"'},
        {"s": ',"seq":7,"durable":6,"chain":"' + "a" * 64 + '"}'},
        {"id": "no", "type": "eventbus.gap", "specversion": "2"},
    ]
    write(path, [event(number).replace(content=data) for number, data in enumerate(hostile)])
    report = verify_journal(path)
    assert (report.exit, report.events) == (0, 4)
    assert ids(path) == ["e0", "e1", "e2", "e3"]


def test_verification_changes_nothing(log):
    before = snapshot(log.parent)
    log.write_bytes(before["audit.jsonl"] + bytes(100))
    damaged = snapshot(log.parent)
    verify_journal(log)
    ids(log)
    assert snapshot(log.parent) == damaged
    restore(log.parent, before)
    assert verify_journal(log).exit == 0
