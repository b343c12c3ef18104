"""Whatever ended a writer, the next one finds every record that was acknowledged, and says what it cut."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from journal_support import (
    KillAt,
    event,
    ids,
    line_ends,
    lines,
    make,
    open_plain,
    prune,
    restore,
    snapshot,
    write,
)

from opsml_eventbus.errors import JournalDamaged, JournalRefused
from opsml_eventbus.event import Event
from opsml_eventbus.journal import recover, verify_journal
from opsml_eventbus.journal.compress import compress_segment, remove_leftovers
from opsml_eventbus.journal.format import Recovered, read_control
from opsml_eventbus.journal.recovery import open_live
from opsml_eventbus.journal.segments import list_log

pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


@pytest.fixture
def unclean(tmp_path):
    """Two batches and no checkpoint: its writer was killed."""
    return make(tmp_path / "audit.jsonl", [[1, 2], [3, 4]], close=False)


def records(path):
    """The recovered records of a log."""
    found = []
    for segment in list_log(path).segments:
        for line in segment.path.read_bytes().splitlines():
            control = read_control(line)
            if isinstance(control, Recovered):
                found.append(control)
    return found


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_every_cut_of_the_last_batch_is_mended_and_recorded(unclean, step):
    before = snapshot(unclean.parent)
    data = before["audit.jsonl"]
    ends = line_ends(data)
    for cut in sorted({*range(ends[2], len(data), step), *ends[2:-1]}):
        restore(unclean.parent, before)
        unclean.write_bytes(data[:cut])
        recovery = recover(unclean)
        sound = max(end for end in ends if end <= cut)
        assert recovery.cut == cut - sound
        assert ids(unclean) == [f"e{n}" for n in range(1, ends.index(sound) + 1)]
        assert verify_journal(unclean).exit == 0
        if cut == sound:
            assert recovery.kept is None
            continue
        kept = unclean.with_name(recovery.kept.name)
        assert kept.read_bytes() == data[sound:cut]
        (record,) = records(unclean)
        assert (record.bytes, record.offset, record.kept) == (cut - sound, sound, kept.name)
        assert record.sha256 == hashlib.sha256(data[sound:cut]).hexdigest()


@pytest.mark.parametrize("tail", [b"12", bytes(3000), b'{"a":1}', b"\xff" * 50, b"x" * 2_000_000])
def test_a_tail_that_is_no_record_is_cut(unclean, tail):
    unclean.write_bytes(unclean.read_bytes() + tail)
    recovery = recover(unclean)
    assert recovery.cut == len(tail)
    assert recovery.kept.read_bytes() == tail
    assert ids(unclean) == ["e1", "e2", "e3", "e4"]
    assert verify_journal(unclean).exit == 0


def test_a_hole_in_the_last_batch_is_cut_with_what_follows_it(tmp_path):
    path = make(tmp_path / "a.jsonl", [[1, 2], list(range(10, 20))], close=False)
    data = path.read_bytes()
    ends = line_ends(data)
    path.write_bytes(data[: ends[4] + 10] + bytes(300) + data[ends[4] + 310 :])
    recovery = recover(path)
    assert recovery.cut == len(data) - ends[4]
    assert ids(path) == ["e1", "e2", "e10", "e11"]
    assert verify_journal(path).exit == 0


@pytest.mark.parametrize("line", [0, 1, 2])
def test_damage_before_a_durable_record_is_refused_and_nothing_is_changed(unclean, line):
    data = bytearray(unclean.read_bytes())
    position = line_ends(data)[line] - 150  # its body; a batch of two stands behind it, and says it was durable
    data[position] ^= 1
    unclean.write_bytes(data + b"torn")
    with pytest.raises(JournalDamaged) as caught:
        recover(unclean)
    assert unclean.read_bytes() == data + b"torn"
    assert sorted(snapshot(unclean.parent)) == ["audit.jsonl", "audit.jsonl.lock"]
    assert caught.value.seq <= caught.value.durable
    assert str(unclean) in str(caught.value)


def test_an_unclean_log_goes_on_in_a_new_file_and_a_clean_one_does_not(unclean):
    assert recover(unclean).renewed
    assert len(list_log(unclean).segments) == 2
    assert not recover(unclean).renewed
    assert len(list_log(unclean).segments) == 2
    assert verify_journal(unclean).exit == 0


def test_recovering_twice_is_recovering_once(unclean):
    unclean.write_bytes(unclean.read_bytes()[:-100])
    recover(unclean)
    once = snapshot(unclean.parent)
    recover(unclean)
    twice = snapshot(unclean.parent)
    assert {k: v for k, v in once.items() if "lock" not in k} == {k: v for k, v in twice.items() if "lock" not in k}


def test_a_file_written_with_fsync_never_is_not_cut(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [event(1), event(2)], fsync="never")
    assert recover(path, fsync="never").cut == 0
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with pytest.raises(JournalDamaged, match="fsync=never"):
        recover(path)
    assert path.read_bytes() == data[:-30]
    assert verify_journal(path).exit == 3


def test_a_log_first_written_with_never_becomes_durable_when_opened_with_always(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [event(1), event(2)], fsync="never")
    assert verify_journal(path).durable == 0
    write(path, [event(3)], fsync="always")
    report = verify_journal(path)
    assert (report.exit, report.durable) == (0, report.head.seq - 1)
    assert ids(path) == ["e1", "e2", "e3"]


def test_a_first_line_that_never_came_to_disk_is_begun_again(unclean):
    recover(unclean)  # a live file with nothing but its open record
    whole = unclean.read_bytes()
    first = line_ends(whole)[0]
    for beginning in (b"", whole[:1], whole[: first - 1], bytes(500)):
        unclean.write_bytes(beginning)
        recover(unclean)
        assert ids(unclean) == ["e1", "e2", "e3", "e4"]
        assert verify_journal(unclean).exit == 0


def test_a_missing_live_file_is_begun_behind_the_last_segment(unclean):
    recover(unclean)
    unclean.unlink()
    assert verify_journal(unclean).exit == 0
    write(unclean, [event(5)])
    assert ids(unclean) == ["e1", "e2", "e3", "e4", "e5"]
    assert verify_journal(unclean).exit == 0


@pytest.mark.parametrize("content", [b'{"a":1}\n', b'{"a":1}', b"hello\n", b"\x89PNG\r\n"])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path, content):
    path = tmp_path / "notes.jsonl"
    path.write_bytes(content)
    with pytest.raises((JournalRefused, JournalDamaged)):
        recover(path)
    assert path.read_bytes() == content


# ── killed at every step ──


def until_it_survives(action, *, half=False):
    """Run `action(kill)` killed at its 1st, 2nd, … change of the disk, until it comes through."""
    for count in itertools.count():
        kill = KillAt(count, half=half)
        action(kill)
        if not kill.killed:
            assert count > 0
            return count
    return 0


@pytest.mark.parametrize("half", [False, True])
def test_a_writer_killed_at_any_step_loses_nothing_it_acknowledged(tmp_path, half):
    def action(kill):
        path = tmp_path / f"{kill._left}" / "audit.jsonl"
        acknowledged = []
        with kill:
            file = open_plain(path)
            for number in range(1, 7):
                file.append(lines([number * 10, number * 10 + 1]))
                file.sync()
                acknowledged += [f"e{number * 10}", f"e{number * 10 + 1}"]
                if number % 2 == 0:
                    file.rotate()
            file.checkpoint()
        if list_log(path).segments:
            assert verify_journal(path).exit in (0, 3)
        write(path, [event(99)])
        found = ids(path)
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) == len(set(found))
        assert verify_journal(path).exit == 0

    assert until_it_survives(action, half=half) > 20


@pytest.mark.parametrize("half", [False, True])
def test_a_recovery_killed_at_any_step_and_begun_again_comes_to_the_same(unclean, half):
    unclean.write_bytes(unclean.read_bytes()[:-100])
    before = snapshot(unclean.parent)

    def action(kill):
        restore(unclean.parent, before)
        with kill:
            open_live(unclean, "always")[0].close()
        for again in (3, 2):  # killed twice more, at other steps
            with KillAt(again, half=half):
                open_live(unclean, "always")[0].close()
        recover(unclean)
        assert ids(unclean) == ["e1", "e2", "e3"]
        assert verify_journal(unclean).exit == 0
        kept = {name: data for name, data in snapshot(unclean.parent).items() if ".torn-" in name}
        assert sorted(kept) == sorted(record.kept for record in records(unclean))
        sound = line_ends(before["audit.jsonl"])[-1]
        assert before["audit.jsonl"][sound:] in kept.values()
        assert not [name for name in snapshot(unclean.parent) if name.endswith((".pending", ".next"))]

    assert until_it_survives(action, half=half) > 8


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compression_killed_at_any_step_loses_nothing(tmp_path, compression):
    if compression == "zstd":
        pytest.importorskip("backports.zstd")
    source = make(tmp_path / "source" / "audit.jsonl", [list(range(50)), [60]], rotate_after=(1,))
    before = snapshot(source.parent)
    expected = ids(source)

    def action(kill):
        restore(source.parent, before)
        segment = list_log(source).sealed[0]
        with kill:
            compress_segment(segment, compression)
        assert ids(source) == expected
        assert verify_journal(source).exit == 0
        remove_leftovers(source)
        (segment,) = list_log(source).sealed
        if not segment.packed:
            compress_segment(segment, compression)
        names = sorted(snapshot(source.parent))
        assert names == [f"audit.{1:020d}.jsonl.{'gz' if compression == 'gzip' else 'zst'}", "audit.jsonl"]
        assert ids(source) == expected
        assert verify_journal(source).exit == 0

    assert until_it_survives(action) > 4


def test_pruning_killed_at_any_step_leaves_a_declared_beginning(tmp_path):
    source = make(tmp_path / "audit.jsonl", [[1], [2], [3], [4]], rotate_after=(1, 2, 3))
    before = snapshot(source.parent)

    def action(kill):
        restore(source.parent, before)
        with kill:
            file = open_plain(source)
            prune(file, 1)
            file.checkpoint()
            file.close()
        assert verify_journal(source).exit in (0, 3)
        recover(source)
        assert verify_journal(source).exit == 0
        assert set(ids(source)) >= {"e3", "e4"}

    assert until_it_survives(action) > 5


@pytest.mark.parametrize("behind", [b"garbage\ngarbage\n", b"garbage\n\0\0\nhalf", b"x\n" * 100_000])
def test_only_what_is_damaged_is_cut_however_many_lines_it_is(tmp_path, behind):
    path = make(tmp_path / "audit.jsonl", [[number] for number in range(40)])
    with path.open("ab") as stream:
        stream.write(behind)
    assert verify_journal(path).exit == 3
    done = recover(path)
    assert done.cut == len(behind)
    assert ids(path) == [f"e{number}" for number in range(40)]
    assert verify_journal(path).exit == 0


def test_a_torn_batch_of_two_lines_costs_those_two_lines(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[number] for number in range(40)] + [[90, 91]], close=False)
    path.write_bytes(path.read_bytes().replace(b'"n":90', b'"n":\0\0').replace(b'"n":91', b'"n":\0\0'))
    assert verify_journal(path).exit == 3
    recover(path)
    assert ids(path) == [f"e{number}" for number in range(40)]


@pytest.mark.parametrize("fsync", ["never", "always"])
def test_whole_lines_behind_a_first_one_that_is_spoiled_are_not_cut(tmp_path, fsync):
    path = tmp_path / "audit.jsonl"
    write(path, [event(1), event(2)], fsync="never")
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([bytes(len(rows[0])), *rows[1:]]))
    before = path.read_bytes()
    with pytest.raises(JournalDamaged):
        write(path, [event(3)], fsync=fsync)
    assert path.read_bytes() == before


def test_an_undeclared_missing_beginning_is_tampering(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1], [2], [3]], rotate_after=(1, 2))
    list_log(path).sealed[0].path.unlink()
    report = verify_journal(path)
    assert (report.exit, report.findings[0].kind) == (5, "missing")


def test_a_payload_that_spells_the_name_of_a_copy_is_not_the_record_of_it(tmp_path):
    """A recovery that was killed behind its cut: what says so in the log is a record."""
    path = tmp_path / "audit.jsonl"
    kept = path.name + ".torn-20261126T000000Z"
    write(path, [event(1), Event.new("t", {"see": kept}, id="e2", source="s")])
    path.with_name(kept + ".pending").write_bytes(b"torn")
    recover(path)
    assert [record.kept for record in records(path)] == [kept]
    assert path.with_name(kept).read_bytes() == b"torn"
