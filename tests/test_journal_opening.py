"""A log that cannot be opened for writing: what is said of it, and of which file."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from contextlib import suppress
from pathlib import Path

import pytest
from journal_support import event, ids, make, open_descriptors, open_plain, restore, snapshot, write

from opsml_eventbus.codec import encode_line
from opsml_eventbus.errors import JournalDamaged, JournalError, JournalFailed
from opsml_eventbus.journal import last_id, segments, verify_journal
from opsml_eventbus.journal.compress import compress_segment
from opsml_eventbus.journal.segments import list_log


def failing(number):
    def call(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def path(tmp_path):
    """A log whose writer was killed behind two finished files."""
    return make(tmp_path / "audit.jsonl", [[1], [2], [3]], rotate_after=(1, 2), close=False)


@pytest.mark.parametrize("step", ["read_blocks", "read_opened", "pread_all", "sync_folder"])
def test_a_disk_that_cannot_be_read_is_named_with_the_file(path, monkeypatch, step):
    path.write_bytes(path.read_bytes() + b"torn")
    monkeypatch.setattr(f"opsml_eventbus.journal.recovery.{step}", failing(errno.EIO))
    with pytest.raises(JournalFailed) as caught:
        open_plain(path)
    assert str(path) in str(caught.value)


def test_a_full_disk_is_told_by_an_opening_as_the_end_not_as_a_batch_that_can_be_sent_again(path, monkeypatch):
    path.write_bytes(path.read_bytes() + b"torn")
    monkeypatch.setattr("opsml_eventbus.journal.live.write_all", failing(errno.ENOSPC))
    with pytest.raises(JournalFailed, match="No space left"):
        open_plain(path)


@pytest.mark.parametrize("broken", [b"", b"x"])
def test_a_finished_file_that_may_not_be_read_is_not_called_damaged(path, monkeypatch, broken):
    path.write_bytes(broken + path.read_bytes())
    before = snapshot(path.parent)

    def refusing(real):
        def call(name, *arguments):
            if name != path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
            return real(name, *arguments)

        return call

    monkeypatch.setattr(segments, "open_regular", refusing(segments.open_regular))
    with pytest.raises(PermissionError) as caught:
        open_plain(path)
    assert caught.value.filename.endswith(".00000000000000000004.jsonl")
    assert snapshot(path.parent) == before


def test_a_log_whose_last_line_is_no_event_is_gone_on_with_behind_the_one_before(tmp_path):
    """What a line given as bytes holds behind its time is taken on trust: it is sound, and no writer is locked out."""
    path = tmp_path / "audit.jsonl"
    write(path, [event(1), encode_line(event(2)).replace(b'"data":{', b'"data"{{')])
    assert verify_journal(path).exit == 0
    assert last_id(path) == "e1"


@pytest.mark.parametrize("fsync", ["always", "never"])
def test_damage_in_a_live_file_without_its_first_line_has_the_seq_it_should_have_had(path, fsync):
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"x" * len(first) + b"\n" + rest)
    with pytest.raises(JournalDamaged) as caught:
        open_plain(path, fsync)
    assert caught.value.seq == 7


# ── an opening that fails at whatever step ──


class FailAt:
    """Within it, the n-th call that opens, locks or changes a file fails, once."""

    CALLS = (
        *((os, name) for name in ("open", "write", "pwrite", "fdatasync", "fsync", "ftruncate", "rename", "unlink")),
        (fcntl, "flock"),
    )

    def __init__(self, patch, number):
        self.left = number
        for module, name in self.CALLS:
            patch.setattr(module, name, self._hook(getattr(module, name)))

    def _hook(self, real):
        def call(*arguments, **options):
            self.left -= 1
            if self.left == -1:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
            return real(*arguments, **options)

        return call


def tear(path):
    make(path, [[1], [2]], close=False)
    path.write_bytes(path.read_bytes() + b"torn")


def begin_rotating(path):
    """Between its seal and its new name."""
    make(path, [[1], [2]], rotate_after=(1,))
    path.unlink()
    list_log(path).sealed[0].path.rename(path)


FOUND = {
    "nothing": lambda _: None,
    "a torn end": tear,
    "no live file": lambda path: make(path, [[1], [2]], rotate_after=(1, 2)).unlink(),
    "an empty live file": lambda path: make(path, [[1], [2]], rotate_after=(1, 2)).write_bytes(b""),
    "a rotation that was begun": begin_rotating,
}


@pytest.mark.parametrize("found", FOUND)
def test_an_opening_that_fails_at_any_step_holds_nothing_and_the_next_one_is_none_the_worse(
    tmp_path, monkeypatch, found
):
    path = tmp_path / "audit.jsonl"
    FOUND[found](path)
    before = snapshot(tmp_path)
    write(path, [])
    expected, descriptors = ids(path), open_descriptors()
    for number in itertools.count():
        restore(tmp_path, before)
        with monkeypatch.context() as patch:
            steps = FailAt(patch, number)
            with suppress(JournalError, OSError):
                write(path, [])
        if steps.left >= 0:
            break  # there are no more
        assert open_descriptors() == descriptors, number
        write(path, [])
        assert ids(path) == expected
        assert verify_journal(path).exit == 0
    assert number > 8


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compression_that_fails_at_any_step_leaves_nothing_open_and_nothing_unfinished(
    tmp_path, monkeypatch, compression
):
    path = make(tmp_path / "audit.jsonl", [[1], [2]], rotate_after=(1,))
    before, descriptors = snapshot(tmp_path), open_descriptors()
    (segment,) = list_log(path).sealed
    for number in itertools.count():
        with monkeypatch.context() as patch:
            steps = FailAt(patch, number)
            with suppress(OSError):
                compress_segment(segment, compression)
        if steps.left >= 0:
            break
        assert open_descriptors() == descriptors
        assert not list(tmp_path.glob("*.tmp"))
        assert ids(path) == ["e1", "e2"]
        restore(tmp_path, before)
    assert number > 3


def test_a_file_that_is_taken_away_before_it_is_compressed_leaves_nothing_open(tmp_path):
    (segment,) = list_log(make(tmp_path / "audit.jsonl", [[1], [2]], rotate_after=(1,))).sealed
    descriptors = open_descriptors()
    segment.path.unlink()
    with pytest.raises(FileNotFoundError):
        compress_segment(segment, "gzip")
    assert open_descriptors() == descriptors
    assert not list(tmp_path.glob("*.tmp"))


# ── what stands where a recovery keeps what it cuts ──


STRANGE = {
    "a pipe": os.mkfifo,
    "a link to what never ends": lambda name: os.symlink("/dev/zero", name),
    "a link to nothing": lambda name: os.symlink("nowhere", name),
    "a folder": os.mkdir,
}


@pytest.mark.parametrize("torn", [b"", b"torn"])
@pytest.mark.parametrize("strange", STRANGE)
def test_what_only_has_the_name_of_something_kept_aside_is_left_alone(tmp_path, strange, torn):
    path = make(tmp_path / "audit.jsonl", [[1], [2]], close=False)
    path.write_bytes(path.read_bytes() + torn)
    others = [f"{path}.torn-a.pending", f"{path}.torn-20260101T000000Z.pending"]
    for name in others:
        STRANGE[strange](name)
    write(path, [event(3)])
    assert ids(path) == ["e1", "e2", "e3"]
    assert all(map(os.path.lexists, others))
    assert len(list(tmp_path.glob("*.torn-*Z"))) == bool(torn)


def test_a_name_that_is_no_text_is_nothing_kept_aside(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1]], close=False)
    other = Path(os.fsdecode(os.fsencode(path) + b".torn-\xff.pending"))
    other.write_bytes(b"kept")
    write(path, [])
    assert other.read_bytes() == b"kept"


@pytest.mark.parametrize("strange", STRANGE)
def test_what_only_has_the_name_of_an_unfinished_compression_stops_nothing(tmp_path, strange):
    path = make(tmp_path / "audit.jsonl", [[1], [2]], rotate_after=(1,))
    temporary = list_log(path).sealed[0].path.with_name("audit.00000000000000000001.jsonl.gz.tmp")
    STRANGE[strange](temporary)
    write(path, [event(3)])
    assert ids(path) == ["e1", "e2", "e3"]
    write(path, [event(4)], compress="gzip")  # or says why not
    assert ids(path) == ["e1", "e2", "e3", "e4"]
    assert verify_journal(path).exit == 0


@pytest.mark.parametrize("name", ["audit.jsonl.next", "audit.jsonl.lock"])
def test_a_folder_where_a_writer_has_a_file_of_its_own_is_named(tmp_path, name):
    path = make(tmp_path / "audit.jsonl", [[1], [2]])
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(JournalError, match=rf"{name}: .*(a folder|[Ii]s a directory)"):
        write(path, [event(3)])
