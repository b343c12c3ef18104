"""Repair: what recovery refuses is mended, never in silence, never without a copy, never by guessing."""

from __future__ import annotations

import errno
import gzip
import os
from contextlib import closing
from hashlib import sha256

import pytest
from journal_support import KillAt, event, ids, line_ends, make, restore, snapshot, write

from opsml_eventbus.codec import decode_line
from opsml_eventbus.errors import JournalBusy, JournalDamaged, JournalFailed, JournalRefused
from opsml_eventbus.event import Gap
from opsml_eventbus.journal import aside, find_damage, live, read_journal, recover, repair, verify_journal
from opsml_eventbus.journal.compress import compress_segment
from opsml_eventbus.journal.format import Recovered, read_control
from opsml_eventbus.journal.recovery import open_live
from opsml_eventbus.journal.segments import list_log, segment_path


@pytest.fixture
def path(tmp_path):
    return make(tmp_path / "audit.jsonl", [[1, 2], [3, 4], [5, 6], [7, 8]], rotate_after=(2,), close=True)


def edit(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def shown(path):
    """Ids of events, and `gap` for a Gap."""
    items = [decode_line(item.line) for item in read_journal(path)]
    return ["gap" if isinstance(item, Gap) else item.id for item in items]


def test_a_sound_log_is_left_as_it_is(path):
    before = snapshot(path.parent)
    assert find_damage(path) is None
    assert repair(path).finding is None
    after = snapshot(path.parent)
    after.pop("audit.jsonl.lock")
    before.pop("audit.jsonl.lock", None)
    assert after == before


def test_an_altered_line_in_the_live_file_is_cut_out_and_the_rest_is_kept(path):
    edit(path, b'"n":6', b'"n":9')
    damaged = path.read_bytes()
    assert find_damage(path).seq == 9
    done = repair(path)
    assert (done.finding.seq, done.salvaged, done.lost) == (9, 2, 1)
    assert [copy.read_bytes() for copy in done.kept] == [damaged]
    report = verify_journal(path)
    assert (report.exit, report.recovered) == (0, 1)
    assert shown(path) == ["e1", "e2", "e3", "e4", "e5", "gap", "e7", "e8"]
    write(path, [event(9)])
    assert verify_journal(path).exit == 0


@pytest.mark.parametrize("packed", [False, True])
def test_damage_in_a_finished_file_takes_what_follows_into_a_new_one(path, packed):
    (segment,) = list_log(path).sealed
    edit(segment.path, b'"n":2', b'"n":7')
    if packed:
        compress_segment(segment, "gzip")
    before = snapshot(path.parent)
    done = repair(path)
    assert sorted(copy.read_bytes() for copy in done.kept) == sorted(
        data for name, data in before.items() if "lock" not in name
    )
    assert verify_journal(path).exit == 0
    assert shown(path) == ["e1", "gap", "e3", "e4", "e5", "e6", "e7", "e8"]


def test_a_missing_file_is_mended_with_a_gap_in_its_place(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1], [2], [3]], rotate_after=(1, 2))
    list_log(path).sealed[1].path.unlink()
    done = repair(path)
    assert done.finding.kind == "missing"
    assert verify_journal(path).exit == 0
    assert ids(path)[0] == "e1"
    assert ids(path)[-1] == "e3"


@pytest.mark.parametrize("name", ["audit[1].jsonl", "a*b?.jsonl", "two\nlines.jsonl"])
def test_a_name_is_never_taken_for_a_pattern(tmp_path, name):
    path = make(tmp_path / name, [[1, 2], [3, 4], [5, 6]], rotate_after=(1, 2))
    edit(list_log(path).sealed[0].path, b'"n":2', b'"n":7')
    assert repair(path).finding.kind == "altered"
    assert verify_journal(path).exit == 0
    assert shown(path) == ["e1", "gap", "e3", "e4", "e5", "e6"]
    assert len(list_log(path).sealed) == 1  # a repaired log goes on in a new file


def test_a_finished_file_of_another_log_stays_in_the_copy(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3, 4], [5, 6]], rotate_after=(1, 2))
    other = make(tmp_path / "other" / "audit.jsonl", [[91, 92], [93, 94], [95, 96]], rotate_after=(1, 2))
    second = list_log(path).sealed[1].path
    second.write_bytes(list_log(other).sealed[1].path.read_bytes())
    done = repair(path)
    assert (done.finding.kind, done.salvaged, done.left) == ("foreign", 2, 2)
    assert verify_journal(path).exit == 0
    assert shown(path) == ["e1", "e2", "gap", "e5", "e6"]


@pytest.fixture
def four(tmp_path):
    """Three finished files and the live one."""
    return make(tmp_path / "audit.jsonl", [[1, 2], [3, 4], [5, 6], [7, 8]], rotate_after=(1, 2, 3))


EVERY = [f"e{number}" for number in range(1, 9)]


def mended(path):
    """Repair, look that it is sound, can be gone on with and needs no second repair; what it then shows."""
    done = repair(path)
    assert verify_journal(path).exit == 0
    assert repair(path).finding is None
    write(path, [event(99)])
    assert verify_journal(path).exit == 0
    return done, shown(path)[:-1]


def test_a_first_file_of_another_log_stays_in_the_copy(four, tmp_path):
    other = make(tmp_path / "other" / "audit.jsonl", [[91, 92], [93]], rotate_after=(1,))
    list_log(four).sealed[0].path.write_bytes(list_log(other).sealed[0].path.read_bytes())
    done, found = mended(four)
    assert done.left == 2
    assert found == ["gap", *EVERY[2:]]


@pytest.mark.parametrize(("index", "name"), [(1, 6), (1, 500), (0, 500), (2, 2)])
def test_files_under_wrong_names_are_put_in_their_order(four, index, name):
    segment = list_log(four).sealed[index]
    segment.path.rename(segment_path(four, name))
    assert mended(four)[1] == EVERY


def test_files_that_changed_their_names_are_put_in_their_order(four):
    first, second, _ = (segment.path for segment in list_log(four).sealed)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert mended(four)[1] == EVERY


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_live_file_that_changed_places_with_a_finished_one_is_put_back(four, index):
    finished = list_log(four).sealed[index].path
    kept = finished.read_bytes()
    finished.write_bytes(four.read_bytes())
    four.write_bytes(kept)
    done, found = mended(four)
    assert [name for name in found if name != "gap"] == EVERY
    assert kept in [copy.read_bytes() for copy in done.kept]


@pytest.mark.parametrize("index", [0, 1])
def test_a_finished_file_moved_over_the_live_one_is_put_back(four, index):
    """The live one is gone: an end that was cut off, which nobody can see."""
    list_log(four).sealed[index].path.rename(four)
    done, found = mended(four)
    assert found == EVERY[:6]
    assert done.kept


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("behind", [b"\n", b"garbage\n", b"half"])
@pytest.mark.parametrize("index", [0, 2])
def test_what_stands_behind_the_end_of_a_finished_file_is_cut(four, index, behind, packed):
    segment = list_log(four).sealed[index]
    with segment.path.open("ab") as stream:
        stream.write(behind)
    if packed:
        compress_segment(segment, "gzip")
    edit(four, b'"n":7', b'"n":9')  # and the next damage is mended too
    done, found = mended(four)
    assert found == [*EVERY[:6], "gap", "e8"]
    kept = done.kept[0].read_bytes()
    assert (gzip.decompress(kept) if packed else kept).endswith(behind)
    records = [read_control(line) for item in list_log(four).segments for line in content(item).splitlines()]
    assert done.kept[0].name in {record.kept for record in records if isinstance(record, Recovered)}


def content(segment):
    with closing(segment.open()) as stream:
        return stream.read(1 << 20)


def test_what_stands_behind_the_seal_of_a_live_file_is_cut(four):
    """Its writer was killed in a rotation; then something was added."""
    head = verify_journal(four).head
    live = four.read_bytes()
    file = open_live(four, "always")[0]
    file.rotate()
    file.close()
    four.unlink()
    sealed = list_log(four).sealed[-1].path
    sealed.rename(four)
    assert four.read_bytes().startswith(live)
    four.write_bytes(four.read_bytes() + b"garbage\n")
    assert mended(four)[1] == EVERY
    assert verify_journal(four, expect=head).exit == 0


def test_what_a_damaged_file_lacks_is_taken_from_its_compressed_form_and_both_are_replaced(four):
    segment = list_log(four).sealed[1]
    plain = segment.path.read_bytes()
    packed = compress_segment(segment, "gzip")
    segment.path.write_bytes(plain.replace(b'"n":3', b'"n":9'))
    done, found = mended(four)
    assert found == EVERY
    assert not packed.exists()
    assert any(copy.name.startswith(packed.name) for copy in done.kept)


@pytest.mark.parametrize("lost", [[-2], [1, 2], range(1, 3)])
@pytest.mark.parametrize("index", [0, 1, None])
def test_events_that_were_deleted_before_a_record_of_the_log_s_own_have_a_gap(four, index, lost):
    path = four if index is None else list_log(four).sealed[index].path
    rows = path.read_bytes().splitlines(keepends=True)
    gone = {position % len(rows) for position in lost}
    path.write_bytes(b"".join(row for position, row in enumerate(rows) if position not in gone))
    assert verify_journal(four).exit == 5
    done, found = mended(four)
    assert done.lost >= 1
    assert "gap" in found
    assert len([name for name in found if name != "gap"]) == 8 - len(gone)


def test_a_finished_file_without_its_end_has_a_gap(four):
    newest = list_log(four).sealed[-1].path
    newest.write_bytes(b"".join(newest.read_bytes().splitlines(keepends=True)[:-2]))
    four.unlink()
    assert mended(four)[1] == [*EVERY[:5], "gap"]


def test_an_empty_finished_file_has_a_gap_in_its_place(four):
    list_log(four).sealed[-1].path.write_bytes(b"")
    four.unlink()
    assert mended(four)[1] == [*EVERY[:4], "gap"]


def test_nothing_is_begun_where_a_file_cannot_be_copied(four):
    first, _, third = (segment.path for segment in list_log(four).sealed)
    with first.open("ab") as stream:
        stream.write(b"garbage\n")
    third.unlink()
    third.mkdir()
    before = snapshot(four.parent)
    with pytest.raises(JournalFailed, match=third.name):
        repair(four)
    before[f"{four.name}.lock"] = snapshot(four.parent)[f"{four.name}.lock"]
    assert snapshot(four.parent) == before


def test_a_beginning_that_nobody_declared_has_a_gap_in_its_place(four):
    first, second, _ = (segment.path for segment in list_log(four).sealed)
    first.unlink()
    second.rename(segment_path(four, 500))  # nothing is lost by that
    assert mended(four)[1] == ["gap", *EVERY[2:]]


def test_each_file_that_is_replaced_has_its_record(path):
    (segment,) = list_log(path).sealed
    edit(segment.path, b'"n":2', b'"n":7')
    done = repair(path)
    rows = list_log(path).sealed[0].path.read_bytes().splitlines()
    found = [control for line in rows if isinstance(control := read_control(line), Recovered)]
    assert [record.kept for record in found] == [copy.name for copy in done.kept]
    for record, copy in zip(found, done.kept, strict=True):
        cut = copy.read_bytes()[record.offset :]
        assert (record.bytes, record.sha256) == (len(cut), sha256(cut).hexdigest())


def test_a_missing_beginning_cannot_be_mended(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1], [2]], rotate_after=(1,))
    list_log(path).sealed[0].path.unlink()
    with pytest.raises(JournalRefused, match="seq 1 to 3 are gone"):
        repair(path)


def test_what_was_declared_behind_the_damage_stays_declared(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, [event(1)])
    write(path, [event(2)], rotate_count=1)
    write(path, [event(3)], rotate_count=1, keep=1)
    assert b"pruned" in path.read_bytes()
    write(path, [event(4)])
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([rows[0], rows[1].replace(b'"source":"', b'"source":"X', 1), *rows[2:]]))
    assert verify_journal(path).exit == 5
    repair(path)
    assert verify_journal(path).exit == 0


def test_a_torn_file_written_with_never_is_cut_by_repair_only(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [event(1), event(2)], fsync="never")
    data = path.read_bytes()
    cut = line_ends(data)[2] - 20
    path.write_bytes(data[:cut])
    with pytest.raises(JournalDamaged):
        recover(path)
    done = repair(path)
    assert done.kept[0].read_bytes() == data[:cut]
    assert shown(path) == ["e1", "gap"]
    assert verify_journal(path).exit == 0


def test_a_first_line_that_is_gone_is_mended_too(path):
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[1:]))
    repair(path)
    assert verify_journal(path).exit == 0
    assert set(ids(path)) >= {"e1", "e2", "e3", "e4", "e6", "e7", "e8"}


def test_a_file_without_a_single_record_is_no_journal(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n{"b":2}\n')
    with pytest.raises(JournalRefused):
        repair(path)
    assert path.read_bytes() == b'{"a":1}\n{"b":2}\n'


def test_a_repair_killed_at_any_step_and_begun_again_loses_nothing(path):
    (segment,) = list_log(path).sealed
    edit(segment.path, b'"n":2', b'"n":7')
    before = snapshot(path.parent)
    for count in range(200):
        restore(path.parent, before)
        with KillAt(count) as kill:
            repair(path)
        repair(path)
        assert verify_journal(path).exit == 0
        assert [name for name in shown(path) if name != "gap"] == ["e1", "e3", "e4", "e5", "e6", "e7", "e8"]
        copies = list(snapshot(path.parent).values())
        assert all(data in copies for name, data in before.items() if "lock" not in name)
        if not kill.killed:
            break
    assert count > 10


@pytest.fixture
def theirs(tmp_path):
    """The lines of another log."""
    return make(tmp_path / "theirs" / "audit.jsonl", [[1001, 1002, 1003]]).read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("file", [0, 1])
def test_another_log_s_open_record_takes_nothing_of_ours_away(path, theirs, at, file):
    damaged = list_log(path).segments[file].path
    rows = damaged.read_bytes().splitlines(keepends=True)
    damaged.write_bytes(b"".join([*rows[:at], theirs[0], *rows[at:]]))
    repair(path)
    assert (verify_journal(path).exit, [name for name in ids(path) if name[0] == "e"]) == (
        0,
        [f"e{n}" for n in range(1, 9)],
    )


def test_an_open_record_in_a_wrong_file_does_not_move_it(path):
    first = list_log(path).segments[0].path
    first.write_bytes(path.read_bytes().splitlines(keepends=True)[0] + first.read_bytes())
    repair(path)
    assert [name for name in ids(path) if name[0] == "e"] == [f"e{n}" for n in range(1, 9)]


def test_a_line_that_the_one_before_disproves_is_not_taken_at_its_word(path):
    rows = path.read_bytes().splitlines(keepends=True)
    rows[2] = b"\n" + rows[2].replace(b'"n":6', b'"n":666')
    path.write_bytes(b"".join(rows))
    repair(path)
    assert verify_journal(path).exit == 0
    assert b'"n":666' not in path.read_bytes()


@pytest.mark.parametrize("stranger", ["theirs", "ours"])
def test_a_whole_line_behind_garbage_displaces_none(path, theirs, stranger):
    rows = path.read_bytes().splitlines(keepends=True)
    put = theirs[2] if stranger == "theirs" else rows[3]
    path.write_bytes(b"".join([*rows[:2], b"garbage\n", put, *rows[2:]]))
    repair(path)
    assert [name for name in ids(path) if name[0] == "e"] == [f"e{n}" for n in range(1, 9)]


def test_a_writer_whose_lock_was_removed_is_not_repaired_under(path):
    segment_path(path, 1).write_bytes(segment_path(path, 1).read_bytes().replace(b'"n":1', b'"n":9'))
    file = open_live(path, "always")[0]
    path.with_name("audit.jsonl.lock").unlink(missing_ok=True)
    before = path.read_bytes()
    with pytest.raises(JournalBusy):
        repair(path)
    file.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", [recover, repair, find_damage])
def test_only_a_live_path_is_worked_on(path, call):
    finished = list_log(path).segments[0]
    packed = compress_segment(finished, "gzip")
    copy = packed.with_name("copy.jsonl.gz")
    copy.write_bytes(packed.read_bytes())
    before = snapshot(path.parent)
    for wrong in (packed, copy, segment_path(path, 1)):
        with pytest.raises((JournalRefused, FileNotFoundError)):
            call(wrong)
    assert snapshot(path.parent) == before
    with pytest.raises(FileNotFoundError):
        call(path.with_name("nothing.jsonl"))


def test_a_beginning_that_is_gone_and_bytes_behind_a_seal_are_mended_together(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3, 4], [5, 6]], rotate_after=(1, 2))
    gone, sealed, _ = list_log(path).segments
    gone.path.unlink()
    with sealed.path.open("ab") as file:
        file.write(b"behind\n")
    repair(path)
    assert (verify_journal(path).exit, shown(path)) == (0, ["gap", "e3", "e4", "e5", "e6"])


def full(after, real):
    """A disk on which so many writes have room."""
    left = [after]

    def write(descriptor, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        real(descriptor, data)

    return write


def test_copies_that_found_no_room_together_are_all_removed(path, monkeypatch):
    segment = list_log(path).segments[0].path
    edit(segment, b'"n":1', b'"n":7')
    before = snapshot(path.parent)
    for room in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(aside, "write_all", full(room, aside.write_all))
            with pytest.raises(JournalFailed, match="No space left"):
                repair(path)
        assert snapshot(path.parent).keys() - {"audit.jsonl.lock"} == before.keys() - {"audit.jsonl.lock"}
    assert repair(path).finding is not None
    assert verify_journal(path).exit == 0


def test_a_repair_that_cannot_say_what_it_cuts_has_failed_and_can_be_run_again(tmp_path, monkeypatch):
    path = make(tmp_path / "audit.jsonl", [[1], [2], [3]], rotate_after=(1, 2))
    first = list_log(path).segments[0].path
    first.write_bytes(first.read_bytes() + b'{"x":1}\n')
    with monkeypatch.context() as patch:
        patch.setattr(live, "write_all", full(0, live.write_all))
        with pytest.raises(JournalFailed, match="repair: No space left"):
            repair(path)
    assert repair(path).finding is not None
    assert verify_journal(path).exit == 0
