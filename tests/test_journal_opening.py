"""A log that cannot be opened for writing: what is said of it, and of which file."""

from __future__ import annotations

import errno
import os

import pytest
from journal_support import make, open_plain, rewrite, snapshot

from opsml_eventbus.errors import JournalDamaged, JournalFailed
from opsml_eventbus.journal import last_id, segments


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


def test_a_last_line_that_is_no_event_is_named_with_its_file(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3]], rotate_after=(1,))
    rewrite(path, b'"data":{', b'"data"{{')
    with pytest.raises(JournalDamaged, match=r"audit\.jsonl: its last event cannot be read: byte \d+: .* \(seq 6;"):
        last_id(path)


@pytest.mark.parametrize("fsync", ["always", "never"])
def test_damage_in_a_live_file_without_its_first_line_has_the_seq_it_should_have_had(path, fsync):
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"x" * len(first) + b"\n" + rest)
    with pytest.raises(JournalDamaged) as caught:
        open_plain(path, fsync)
    assert caught.value.seq == 7
