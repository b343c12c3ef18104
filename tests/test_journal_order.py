"""In which order the disk is touched, seen from outside: what must be on disk before the next step may destroy any.

The power cuts of test_journal_power.py show the same on real file systems; they need root. This needs only /proc.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from journal_support import lines, make, open_plain

from opsml_eventbus.journal import recover, repair
from opsml_eventbus.journal.compress import compress_segment
from opsml_eventbus.journal.segments import list_log

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")


class Steps:
    """Within it, every call that changes the disk, as `fdatasync audit.jsonl`; a folder is `.`."""

    CALLS = ("write", "pwrite", "fdatasync", "fsync", "ftruncate", "rename", "unlink")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._folder = folder
        self.taken: list[str] = []
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._hook(name, getattr(os, name)))

    def _hook(self, name, real):
        def call(target, *arguments, **options):
            path = Path(os.readlink(f"/proc/self/fd/{target}")) if isinstance(target, int) else Path(target)
            if self._folder in (path, path.parent) and not path.name.endswith(".lock"):
                step = f"{name} {'.' if path == self._folder else path.name}"
                if not self.taken or self.taken[-1] != step:  # a thing written in pieces is one step
                    self.taken.append(step)
            return real(target, *arguments, **options)

        return call


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def test_the_first_file_is_on_disk_with_its_name_before_anything_is_acknowledged(path, monkeypatch):
    steps = Steps(monkeypatch, path.parent)
    open_plain(path).close()
    assert steps.taken[-4:] == [
        *("write audit.jsonl.next", "fdatasync audit.jsonl.next"),
        *("rename audit.jsonl.next", "fsync ."),
    ]


def test_a_rotation_has_both_files_on_disk_before_it_renames_them(path, monkeypatch):
    file = open_plain(path)
    file.append(lines([1]))
    file.sync()
    steps = Steps(monkeypatch, path.parent)
    file.rotate()
    file.close()
    assert [step for step in steps.taken if not step.startswith("unlink")] == [
        *("write audit.jsonl.next", "fdatasync audit.jsonl.next"),
        *("write audit.jsonl", "fdatasync audit.jsonl"),
        *("rename audit.jsonl", "fsync .", "rename audit.jsonl.next", "fsync ."),
    ]


def test_a_torn_tail_is_on_disk_elsewhere_before_it_is_cut_and_recorded_before_it_is_named(path, monkeypatch):
    make(path, [[1, 2]])
    with path.open("ab") as stream:
        stream.write(b"torn")
    steps = Steps(monkeypatch, path.parent)
    recover(path)
    (kept,) = [entry.name for entry in path.parent.iterdir() if ".torn-" in entry.name]
    pending = f"{kept}.pending"
    begin = steps.taken.index(f"write {pending}")
    assert steps.taken[begin : begin + 5] == [
        *(f"write {pending}", f"fdatasync {pending}", "fsync ."),
        *("ftruncate audit.jsonl", "fdatasync audit.jsonl"),
    ]
    named = steps.taken.index(f"rename {pending}")
    assert steps.taken[named - 2 : named + 2] == [
        *("write audit.jsonl", "fdatasync audit.jsonl"),
        *(f"rename {pending}", "fsync ."),
    ]


def test_an_interrupted_rotation_is_brought_to_disk_before_it_is_finished(path, monkeypatch):
    make(path, [[1, 2]], rotate_after=(1,))
    path.unlink()
    (segment,) = list_log(path).sealed
    segment.path.rename(path)
    steps = Steps(monkeypatch, path.parent)
    recover(path)
    renamed = steps.taken.index("rename audit.jsonl")
    assert steps.taken[renamed - 2 : renamed + 2] == [
        *("pwrite audit.jsonl", "fdatasync audit.jsonl"),
        *("rename audit.jsonl", "fsync ."),
    ]


def test_a_file_is_compressed_on_disk_with_its_name_before_the_original_goes(path, monkeypatch):
    make(path, [[1, 2]], rotate_after=(1,))
    (segment,) = list_log(path).sealed
    name = segment.path.name
    steps = Steps(monkeypatch, path.parent)
    compress_segment(segment, "gzip")
    assert steps.taken[-5:] == [
        *(f"fdatasync {name}.gz.tmp", f"rename {name}.gz.tmp", "fsync ."),
        *(f"unlink {name}", "fsync ."),
    ]


def test_a_repair_is_on_disk_with_its_copies_before_what_it_replaces_goes(path, monkeypatch):
    make(path, [[1, 2], [3]], rotate_after=(1,))
    (segment,) = list_log(path).sealed
    segment.path.write_bytes(segment.path.read_bytes().replace(b'"n":2', b'"n":7'))
    steps = Steps(monkeypatch, path.parent)
    done = repair(path)
    for copy in done.kept:
        synced = steps.taken.index(f"fdatasync {copy.name}.pending")
        assert steps.taken[synced + 1] == "fsync ."
        named = steps.taken.index(f"rename {copy.name}.pending")
        assert synced < named < steps.taken.index("fsync .", named) < steps.taken.index("write audit.jsonl.repairing")
    renamed = steps.taken.index("rename audit.jsonl.repairing")
    assert steps.taken[renamed - 2 : renamed + 4] == [
        *("write audit.jsonl.repairing", "fdatasync audit.jsonl.repairing"),
        *("rename audit.jsonl.repairing", "fsync .", f"unlink {segment.path.name}", "fsync ."),
    ]
