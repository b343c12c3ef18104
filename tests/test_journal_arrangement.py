"""The files of a log as somebody else has left them: gone, copied, renamed, exchanged, emptied, links, pipes.

What verification says, what readers show, what is not written behind, and what a repair makes of it.
"""

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
    rewrite,
    snapshot,
    write,
)

from opsml_eventbus.codec import decode_line
from opsml_eventbus.errors import JournalDamaged, JournalFailed, JournalRefused
from opsml_eventbus.event import Gap
from opsml_eventbus.journal import (
    Damage,
    Line,
    read_backwards,
    read_journal,
    repair,
    verify_journal,
)
from opsml_eventbus.journal.compress import compress_segment
from opsml_eventbus.journal.segments import list_log, segment_path

pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


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
