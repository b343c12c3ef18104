"""What a repair keeps when lines and files do not stand where they stood: told from the chain, whatever was moved.

Three files of four events each, e0 to e11, and another log with e1000 to e1011. "gap" is a Gap.
"""

from __future__ import annotations

import shutil
from collections import Counter
from hashlib import sha256

import pytest
from journal_support import KillAt, event, ids, make, write

from opsml_eventbus.errors import JournalBusy
from opsml_eventbus.event import Event
from opsml_eventbus.journal import repair, verify_journal
from opsml_eventbus.journal.compress import compress_segment
from opsml_eventbus.journal.disk import Lock
from opsml_eventbus.journal.format import Pruned, Recovered, peek_control, read_control
from opsml_eventbus.journal.recovery import open_live
from opsml_eventbus.journal.segments import list_log, segment_path

EVERY = [f"e{number}" for number in range(12)]


def three(path, first=0):
    return make(path, [range(first + start, first + start + 4) for start in (0, 4, 8)], rotate_after=(1, 2))


@pytest.fixture
def log(tmp_path):
    return three(tmp_path / "log" / "audit.jsonl")


@pytest.fixture
def other(tmp_path):
    return three(tmp_path / "other" / "audit.jsonl", 1000)


def rows(path):
    return path.read_bytes().splitlines(keepends=True)


def put(path, lines):
    path.write_bytes(b"".join(lines))


def mended(path):
    """What a reader is shown after a repair, which has to have left a sound log."""
    done = repair(path)
    assert verify_journal(path).exit == 0
    assert repair(path).finding is None
    shown = [name if name.startswith("e") else "gap" for name in ids(path)]
    assert shown.count("gap") == done.lost
    return shown


# ── nothing that joins is thrown away ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("into", ["the last finished", "the first", "the live"])
def test_files_that_were_put_together_are_all_there(log, into):
    first, second = (segment.path for segment in list_log(log).sealed)
    if into == "the last finished":
        put(second, [second.read_bytes(), log.read_bytes()])
        log.unlink()
    elif into == "the first":
        put(first, [first.read_bytes(), second.read_bytes(), log.read_bytes()])
        log.unlink()
        second.unlink()
    else:
        put(log, [first.read_bytes(), second.read_bytes(), log.read_bytes()])
        first.unlink()
        second.unlink()
    assert mended(log) == EVERY


def test_a_file_that_was_put_behind_another_and_stands_in_its_place_too_is_there_once(log):
    first, second = (segment.path for segment in list_log(log).sealed)
    put(first, [first.read_bytes(), second.read_bytes()])
    before = second.read_bytes(), log.read_bytes()
    assert mended(log) == EVERY
    assert second.read_bytes() == before[0]  # only the first was shortened
    assert log.read_bytes().startswith(before[1])


@pytest.mark.parametrize("stands", ["in the place of the last", "in the last", "behind the last"])
def test_what_joins_the_sound_part_from_below_is_put_before_it(log, stands):
    first = list_log(log).sealed[0].path
    lines, last = rows(first), rows(log)
    first.unlink()
    if stands == "in the place of the last":
        put(first, last)
        put(log, [lines[0].replace(b"journal.open", b"journal.opem"), *lines[1:]])
    elif stands == "in the last":
        put(log, [*last[:-1], *lines[1:], last[-1]])
    else:
        put(log, [*last, *lines[1:]])
    assert [name for name in mended(log) if name != "gap"] == EVERY


def test_what_two_writers_acknowledged_is_kept(tmp_path):
    path = make(tmp_path / "audit.jsonl", [range(4), range(4, 8)], rotate_after=(1,))
    before = path.read_bytes()
    path.unlink()  # moved away; the next writer went on behind the finished file
    write(path, [event(number) for number in (20, 21, 22, 23)])
    put(path, [before, path.read_bytes()])
    assert mended(path) == [f"e{number}" for number in (*range(8), 20, 21, 22, 23)]


def two_ways(path):
    """The lines of two that went on from e0 and e1: one to e11, the other with e20 to e29."""
    one = rows(make(path, [range(2), range(2, 12)]))
    put(path, one[:3])
    write(path, [event(number) for number in range(20, 30)])
    return one, rows(path)


@pytest.mark.parametrize(("number", "deleted", "gone"), [(5, False, {5}), (5, True, {5, 6}), (9, False, {9})])
def test_so_is_the_first_way_although_all_before_the_hole_is_sound(tmp_path, number, deleted, gone):
    path = make(tmp_path / "audit.jsonl", [range(2)])
    before = rows(path)
    write(path, [event(n) for n in range(2, 10)])
    one = rows(path)
    at = next(at for at, line in enumerate(one) if b'"id":"e%d"' % number in line)
    one[at : at + 1] = [] if deleted else [one[at].replace(b'"n":', b'"n":7')]
    put(path, before)
    write(path, [event(n) for n in range(20, 28)])
    put(path, [*one, *rows(path)])
    found = mended(path)
    assert {name for name in found if name != "gap"} == {f"e{n}" for n in (*range(10), *range(20, 28)) if n not in gone}
    assert found.count("gap") == 1


@pytest.mark.parametrize("damage", ["an event edited", "an event deleted", "two holes"])
def test_the_second_way_on_from_a_line_is_kept_behind_a_hole_in_it(tmp_path, damage):
    path = tmp_path / "audit.jsonl"
    one, other = two_ways(path)
    at = next(at for at, line in enumerate(other) if b'"id":"e23"' in line)
    if damage == "an event edited":
        other[at] = other[at].replace(b'"n":23', b'"n":66')
    else:
        del other[at]
    if damage == "two holes":
        del other[at + 2]  # e26
    put(path, [*one, *other])
    found = mended(path)
    # The first event behind a deleted one proves nothing of itself, as everywhere.
    gone = {"an event edited": {23}, "an event deleted": {23, 24}, "two holes": {23, 24, 26, 27}}[damage]
    assert [name for name in found if name != "gap"] == [*EVERY, *(f"e{n}" for n in range(20, 30) if n not in gone)]
    assert "gap" in found[found.index("e22") : found.index("e29")]
    assert found.count("gap") == 1 + (damage == "two holes")


def test_lines_of_another_log_behind_the_end_of_one_way_are_not_taken_for_it(tmp_path):
    path = tmp_path / "audit.jsonl"
    one, other = two_ways(path)
    theirs = rows(make(tmp_path / "other" / "audit.jsonl", [range(1000, 1012)]))
    put(path, [*one, *other[:5], *theirs[:9], *other[5:]])
    assert mended(path) == [*EVERY, *(f"e{n}" for n in range(20, 30))]


def test_two_lines_that_have_run_together_are_two(log):
    lines = rows(log)
    put(log, [*lines[:2], lines[2][:-1], *lines[3:]])
    assert mended(log) == EVERY


@pytest.mark.parametrize("last", ["an event", "a checkpoint", "a seal"])
def test_a_last_line_that_lacks_only_its_newline_is_whole(log, last):
    path = list_log(log).sealed[-1].path if last == "a seal" else log
    lines = rows(path)
    lines = lines[:-1] if last == "an event" else lines
    put(path, [*lines[:-1], lines[-1][:-1]])
    assert mended(log) == EVERY


def test_a_place_that_a_payload_spells_ends_no_line(tmp_path):
    path = tmp_path / "audit.jsonl"
    line = rows(make(tmp_path / "other.jsonl", [[8, 9]]))[2]  # with the seq that follows
    write(path, [event(0), Event.new("t", {"a": line.decode()}, id="e1", source="s")])
    data = path.read_bytes().replace(b'\\"', b'"')  # (as one could that is no string)
    put(path, [data[: data.index(b'"}', data.index(b'"id":"e9"')) + 2]])
    assert mended(path) == ["e0", "gap"]


def test_half_a_record_that_has_run_together_with_an_event_is_no_record(log):
    path = list_log(log).sealed[1].path
    lines = rows(path)
    put(path, [lines[0][: len(lines[0]) // 2], *lines[1:]])
    assert mended(log) == [*EVERY[:4], "gap", *EVERY[5:]]


def test_a_log_that_was_copied_with_other_line_ends_is_all_there(log):
    for segment in list_log(log).segments:
        put(segment.path, [segment.path.read_bytes().replace(b"\n", b"\r\n")])
    assert mended(log) == EVERY


def test_a_wrong_chain_value_costs_nothing(log):
    path = list_log(log).sealed[1].path
    lines = rows(path)
    lines[1] = lines[1][:-4] + (b"0" if lines[1][-4:-3] != b"0" else b"1") + lines[1][-3:]
    put(path, lines)
    assert mended(log) == EVERY


@pytest.mark.parametrize("damage", ["garbage in the first", "an event of the first edited"])
def test_a_copy_of_another_file_says_nothing_of_where_lines_belong(tmp_path, damage):
    path = make(tmp_path / "audit.jsonl", [range(4), range(4, 8)], rotate_after=(1,))
    first = list_log(path).sealed[0].path
    copy, lines = rows(first), rows(path)
    if damage == "garbage in the first":
        put(first, [*copy[:2], b"garbage\n", *copy[2:]])
        put(path, [lines[0], *lines[2:], *copy])
    else:
        put(first, [copy[0], copy[1].replace(b'"n":0', b'"n":5'), *copy[2:]])
        put(path, [lines[0], b"\0" * 40 + b"\n", *lines[2:], *copy])
    found = mended(path)
    assert "gap" in found
    assert [name for name in found if name != "gap"] == [*EVERY[:4], *EVERY[6 - (damage[0] == "a") : 8]]


@pytest.mark.parametrize("files", [1, 3])
def test_a_wrong_chain_value_of_an_open_record_costs_nothing_either(tmp_path, files):
    path = tmp_path / "audit.jsonl"
    path = three(path) if files == 3 else make(path, [range(12)])
    lines = rows(path)
    put(path, [lines[0][:-5] + (b"0" if lines[0][-5:-4] != b"0" else b"1") + lines[0][-4:], *lines[1:]])
    assert mended(path) == EVERY


# ── nothing is invented, and nothing displaced ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("theirs", [slice(1, 3), slice(0, 5)])
def test_lines_of_another_log_displace_none(log, other, theirs):
    path = list_log(log).sealed[0].path
    lines = rows(path)
    put(path, [*lines[:2], *rows(list_log(other).sealed[1].path)[theirs], *lines[2:]])
    assert mended(log) == EVERY


def test_a_line_of_another_log_between_garbage_displaces_none(log, other):
    path = list_log(log).sealed[0].path
    lines = rows(path)
    put(path, [*lines[:2], b"garbage\n", rows(list_log(other).sealed[1].path)[1], b"garbage\n", *lines[3:]])
    assert mended(log) == ["e0", "gap", *EVERY[2:], "gap"]  # two lines cannot be read, and one is known to be missing


def test_lines_that_were_copied_to_an_earlier_file_are_there_once_and_in_order(log):
    first, second = (segment.path for segment in list_log(log).sealed)
    lines = rows(first)
    put(first, [*lines[:4], *rows(second)[2:4], *lines[4:]])
    assert mended(log) == EVERY


def test_a_block_that_was_moved_is_put_back(log):
    path = list_log(log).sealed[0].path
    lines = rows(path)
    put(path, [*lines[:2], *lines[4:-1], *lines[2:4], lines[-1]])
    assert mended(log) == EVERY


def test_an_edited_event_does_not_come_back_behind_a_deleted_one(log):
    lines = rows(log)
    put(log, [*lines[:2], lines[3].replace(b'"n":10', b'"n":66'), *lines[4:]])
    assert mended(log) == [*EVERY[:9], "gap", "e11"]


@pytest.mark.parametrize(
    ("stands", "found"),
    [
        ("01n523", ["e0", "e1", "e2", "gap"]),
        ("01n23", ["e0", "e1", "e2", "gap"]),
        ("01523", ["e0", "e1", "e2", "gap"]),
        ("01n235", ["e0", "e1", "e2", "gap"]),
    ],
)
def test_a_last_event_that_is_gone_has_a_gap_wherever_its_bytes_stood(tmp_path, stands, found):
    """Its bytes (n: NULs), its place and the checkpoint behind it were moved up, or it was deleted."""
    path = make(tmp_path / "audit.jsonl", [range(4)])
    lines = rows(path)
    put(path, [b"\0" * 200 + b"\n" if what == "n" else lines[int(what)] for what in stands])
    assert mended(path) == found


@pytest.mark.parametrize("index", [0, 1, None])
def test_an_edited_event_does_not_come_back_where_an_open_record_was_deleted(log, index):
    path = log if index is None else list_log(log).sealed[index].path
    number = 4 * (2 if index is None else index)
    lines = rows(path)
    put(path, [lines[1].replace(b'"n":%d' % number, b'"n":66'), *lines[2:]])
    assert mended(log) == [*EVERY[:number], "gap", *EVERY[number + 1 :]]


def test_an_edited_event_does_not_come_back_behind_one_that_nothing_proves(log):
    path = list_log(log).sealed[1].path
    lines = rows(path)
    put(path, [lines[0], b"garbage\n", lines[2], lines[3].replace(b'"n":6', b'"n":66'), *lines[4:]])
    found = mended(log)
    assert [name for name in found if name != "gap"] == [*EVERY[:4], *EVERY[7:]]
    assert found[4] == "gap"


def test_an_edited_first_open_record_does_not_come_back_as_an_event(log):
    path = list_log(log).sealed[0].path
    lines = rows(path)
    put(path, [b"garbage\n", lines[0].replace(b"journal.open", b"journam.open"), *lines[1:]])
    mended(log)
    assert b"journam" not in b"".join(segment.path.read_bytes() for segment in list_log(log).segments)


# ── whose file, and in which order ───────────────────────────────────────────────────────────────────────────────────


def test_an_edited_event_does_not_give_the_log_to_another(log, other):
    put(log, [other.read_bytes()])
    path = list_log(log).sealed[0].path
    put(path, [path.read_bytes().replace(b'"n":0', b'"n":5', 1)])
    assert mended(log) == ["gap", *EVERY[1:8], "gap"]


@pytest.mark.parametrize("where", ["in front", "behind the open record", "behind an edited event"])
def test_a_few_lines_of_another_log_do_not_take_a_whole_one(tmp_path, where):
    path = make(tmp_path / "log" / "audit.jsonl", [range(50)])
    theirs = rows(make(tmp_path / "other" / "audit.jsonl", [range(1000, 1004)]))
    lines = rows(path)
    if where == "in front":
        put(path, [*theirs[:2], *lines])
    elif where == "behind the open record":
        put(path, [lines[0], *theirs[:2], *lines[1:]])
    else:
        put(path, [lines[0], lines[1].replace(b'"n":0', b'"n":9'), *lines[2:], *theirs])
    found = [name for name in mended(path) if name != "gap"]
    assert found == [f"e{number}" for number in range(where == "behind an edited event", 50)]


def test_most_lines_say_whose_the_log_is_though_no_file_begins_as_it_did(log, other):
    for segment in list_log(log).sealed:
        lines = rows(segment.path)
        put(segment.path, [lines[0][:-9] + b"!" + lines[0][-8:], *lines[1:]])
    put(log, [*rows(other)[:2], *rows(log)])
    assert [name for name in mended(log) if name != "gap"] == EVERY


def test_files_that_changed_places_are_put_back_though_one_was_edited(log):
    first, second = (segment.path for segment in list_log(log).sealed)
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0].replace(b'"n":0', b'"n":5', 1))
    assert mended(log) == ["gap", *EVERY[1:]]


def test_another_log_s_file_does_not_move_one_of_ours(log, other):
    second = list_log(log).sealed[1].path
    content = second.read_bytes()
    shutil.copy(list_log(other).sealed[1].path, second)
    log.rename(segment_path(log, 13))
    log.write_bytes(content)
    assert mended(log) == EVERY


# ── what is declared stays declared, what is cut is said ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_beginning_that_nobody_declared_has_its_gap_in_front(log, damaged):
    path = make(log.parent / "longer.jsonl", [range(n, n + 4) for n in (0, 4, 8, 12)], rotate_after=(1, 2, 3))
    files = [segment.path for segment in list_log(path).segments]
    put(files[damaged + 1], [files[damaged + 1].read_bytes().replace(b'"n":%d' % (4 * damaged + 6), b'"n":66')])
    files[0].unlink()
    edited = 4 * damaged + 6
    assert mended(path) == ["gap", *(f"e{n}" if n != edited else "gap" for n in range(4, 16))]


@pytest.mark.parametrize("damaged", ["the line before", "the record itself"])
def test_a_beginning_stays_declared(tmp_path, damaged):
    path = tmp_path / "audit.jsonl"
    for number in range(5):
        write(path, [event(2 * number), event(2 * number + 1)], rotate_count=2, keep=2)
    lines = rows(path)
    at = next(at for at, line in enumerate(lines) if isinstance(peek_control(line[:-1]), Pruned))
    at -= damaged == "the line before"
    lines[at] = lines[at][:-4] + (b"0" if lines[at][-4:-3] != b"0" else b"1") + lines[at][-3:]
    put(path, lines)
    there = [name for name in ids(path) if name.startswith("e")]
    assert [name for name in mended(path) if name != "gap"] == there


def test_a_copy_that_is_put_back_is_mended_again(log):
    path = list_log(log).sealed[0].path
    with path.open("ab") as stream:
        stream.write(b'{"oops":1}\n')
    assert mended(log) == EVERY
    (copy,) = (entry for entry in log.parent.iterdir() if ".cut-" in entry.name)
    shutil.copy(copy, path)
    assert mended(log) == EVERY


@pytest.mark.parametrize("packed", [False, True])
def test_a_repair_that_was_killed_while_it_shortened_a_file_is_told_in_the_log(tmp_path, packed):
    told = Counter()
    for count in range(200):
        path = three(tmp_path / f"{count}" / "audit.jsonl")
        segment = list_log(path).sealed[0]
        with segment.path.open("ab") as stream:
            stream.write(b'{"evil":1}\n')
        if packed:
            compress_segment(segment, "gzip")
        with KillAt(count) as kill:
            repair(path)
        repair(path)
        report = verify_journal(path)
        told[report.exit, report.recovered > 0] += 1
        assert ids(path) == EVERY
        if not kill.killed:
            break
    assert set(told) == {(0, True)}
    assert count > 10


def test_a_writer_that_comes_in_while_a_log_without_a_live_file_is_mended_is_kept_out(log, monkeypatch):
    path = list_log(log).sealed[0].path
    put(path, [path.read_bytes().replace(b'"n":1', b'"n":5', 1)])
    log.unlink()
    tried = []

    def rename(self, target):
        if self.name.endswith(".repairing-new"):
            log.with_name("audit.jsonl.lock").unlink()  # somebody tidied up
            lock = Lock(log)
            with pytest.raises(JournalBusy):
                open_live(log, "always")
            lock.release()
            tried.append(target)
        return real(self, target)

    real = type(log).rename
    monkeypatch.setattr(type(log), "rename", rename)
    repair(log)
    assert tried == [log]


# ── large ones ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("copied", ["a block in the middle", "each second line"])
def test_a_long_file_with_lines_of_its_own_put_behind_it_has_each_once(tmp_path, copied):
    path = make(tmp_path / "audit.jsonl", [range(2000), range(2000, 2010)], rotate_after=(1,))
    first = list_log(path).sealed[0].path
    lines = rows(first)
    more = lines[700:1500] if copied == "a block in the middle" else lines[1:-1:2]
    put(first, [*lines[:-1], *more, lines[-1]])
    assert mended(path) == [f"e{number}" for number in range(2010)]


def test_two_long_ways_on_from_one_line_are_both_kept(tmp_path):
    path = make(tmp_path / "audit.jsonl", [range(1000), range(1000, 2000)])
    before = rows(path)
    put(path, before[:1001])
    write(path, [event(number) for number in range(3000, 4000)])
    put(path, [*before, *rows(path)])
    assert mended(path) == [f"e{number}" for number in (*range(2000), *range(3000, 4000))]


@pytest.mark.parametrize("end", [b"\r", b"", b"\r\r \r"])
def test_a_file_whose_newlines_are_all_gone_is_all_there_however_long(tmp_path, end):
    path = make(tmp_path / "audit.jsonl", [range(5000), range(5000, 5010)], rotate_after=(1,))
    first = list_log(path).sealed[0].path
    put(first, [first.read_bytes().replace(b"\n", end)])
    assert first.stat().st_size > 1 << 20
    before = first.read_bytes()
    done = repair(path)
    assert ids(path) == [f"e{number}" for number in range(5010)]
    assert verify_journal(path).exit == 0
    records = [read_control(line[:-1]) for segment in list_log(path).segments for line in rows(segment.path)]
    told = [(record.bytes, record.sha256) for record in records if isinstance(record, Recovered)]
    assert told[0] == (len(before), sha256(before).hexdigest())
    assert done.kept[0].read_bytes() == before


def test_a_line_that_is_too_long_takes_none_beside_it_along(tmp_path):
    path = make(tmp_path / "audit.jsonl", [range(4000)])
    lines = rows(path)
    long = lines[1000][:100] + b"x" * (3 << 20) + lines[1000][100:]
    put(path, [b"".join([*lines[:1000], long, *lines[1001:]]).replace(b"\n", b"\r")])
    assert mended(path) == [*(f"e{n}" for n in range(999)), "gap", *(f"e{n}" for n in range(1000, 4000))]
