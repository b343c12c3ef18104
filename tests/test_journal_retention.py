"""What `keep` removes, whatever somebody has put into the folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading

import pytest
from journal_support import START, KillAt, event, ids, lines, make, open_plain, pack, prune

from opsml_eventbus.journal import Journal, tidying, verify, verify_journal
from opsml_eventbus.journal.compress import remove_segment
from opsml_eventbus.journal.format import Checkpoint, Head, Open, Tally, control_line, read_place, write_lines
from opsml_eventbus.journal.recovery import open_live
from opsml_eventbus.journal.retention import Retention
from opsml_eventbus.journal.segments import list_log, segment_path
from opsml_eventbus.journal.succession import peek_open
from opsml_eventbus.journal.tidying import Tidy
from opsml_eventbus.journal.walk import Walk

cryptography = pytest.importorskip("cryptography", reason="needs the extra [sign]")
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402

from opsml_eventbus.journal.sign import Signer  # noqa: E402

KEY = Ed25519PrivateKey.generate()
PRIVATE = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def path(tmp_path):
    """Five finished files of two events each."""
    path = tmp_path / "audit.jsonl"
    fill(path, range(12), rotate_count=2, sign_key=PRIVATE)
    assert len(list_log(path).sealed) == 5
    return path


def fill(path, numbers, **options):
    """One batch for each event."""

    async def run():
        async with Journal(path, **options) as journal:
            for number in numbers:
                await journal.append([event(number)])

    asyncio.run(run())


def go_on(path, *, keep, key=PRIVATE):
    fill(path, [20], keep=keep, sign_key=key)


def firsts(path):
    return [segment.first for segment in list_log(path).sealed]


@pytest.mark.parametrize("key", [PRIVATE, None])
def test_empty_files_do_not_count_among_those_that_stay(path, key):
    real = firsts(path)
    strangers = [segment_path(path, first) for first in (real[2] + 1, real[3] + 1, real[3] + 2)]
    for stranger in strangers:
        stranger.touch()
    go_on(path, keep=5, key=key)
    for stranger in strangers:
        stranger.unlink()
    assert firsts(path) == real
    assert verify_journal(path, public_key=PUBLIC).exit in (0, 3)


@pytest.mark.parametrize("key", [PRIVATE, None])
def test_nor_do_those_that_come_while_it_is_written(tmp_path, key):
    path = tmp_path / "audit.jsonl"

    async def run():
        async with Journal(path, rotate_count=2, keep=3, sign_key=key) as journal:
            for number in range(8):
                await journal.append([event(number)])
            strangers = [segment_path(path, firsts(path)[-1] + number) for number in (1, 2)]
            for stranger in strangers:
                stranger.touch()
            await journal.append([event(8)])
            await journal.append([event(9)])
            for stranger in strangers:
                stranger.unlink()

    asyncio.run(run())
    assert ids(path) == [f"e{number}" for number in range(2, 10)]
    assert verify_journal(path).exit == 0


@pytest.mark.parametrize("key", [PRIVATE, None])
def test_files_of_another_log_and_copies_do_not_count(path, tmp_path, key):
    other = make(tmp_path / "other" / "audit.jsonl", [[1], [2]], rotate_after=(1,))
    real = firsts(path)
    shutil.copy(list_log(other).segments[0].path, segment_path(path, real[4] + 1))
    shutil.copy(segment_path(path, real[2]), segment_path(path, real[4] + 2))
    # Behind them no writer begins; one that runs already is what they deceive.
    segment_path(path, real[4] + 1).rename(tmp_path / "1")
    segment_path(path, real[4] + 2).rename(tmp_path / "2")
    file, _ = open_live(path, "always", signer=key and Signer(key))
    shutil.copy(tmp_path / "1", segment_path(path, real[4] + 1))
    shutil.copy(tmp_path / "2", segment_path(path, real[4] + 2))
    assert prune(file, 5, key and Signer(key)) == []
    file.close()


def test_with_a_key_a_forged_record_makes_nothing_count_that_was_not_sealed_with_it(path):
    """The whole log between the first and the last file would be declared, and signed, as removed."""
    real = list_log(path).sealed
    newest = peek_open(real[-1])
    forged = control_line(newest, START)
    head = Head(newest.first - 1, bytes.fromhex(newest.previous))
    real[1].path.write_bytes(write_lines(head, 0, [forged])[1])
    go_on(path, keep=4)
    assert firsts(path) == [segment.first for segment in real]
    for segment in real[1:-1]:
        segment.path.unlink()
    assert verify_journal(path, public_key=PUBLIC).exit == 5


def test_with_a_key_a_file_counts_only_once_however_it_is_cut_up(path):
    """Its last lines are still sealed with the key, its first ones are somebody's who has none."""
    real = list_log(path).sealed
    victim = real[3]
    opened, content = peek_open(victim), victim.path.read_bytes()
    rows = content.splitlines()
    behind = Head(opened.first - 1, bytes.fromhex(opened.previous))
    beginning = [control_line(opened, START), *lines([900])]
    head, data = write_lines(behind, 0, beginning)
    victim.path.write_bytes(data)
    second = control_line(type(opened)(1, opened.log, head.seq + 1, head.chain.hex(), "always", None), START)
    segment_path(path, head.seq + 1).write_bytes(write_lines(head, 0, [second])[1] + b"\n".join(rows[-2:]) + b"\n")
    go_on(path, keep=5)
    assert firsts(path)[0] == 1


@pytest.mark.parametrize("packed", [False, True])
def test_what_another_key_has_sealed_goes_when_enough_of_ours_is_there(path, packed):
    if packed:
        pack(path)
    key = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    before = firsts(path)
    fill(path, range(30, 34), rotate_count=2, keep=3, sign_key=key)
    assert firsts(path)[:5] == before
    fill(path, range(34, 40), rotate_count=2, keep=3, sign_key=key)
    assert len(firsts(path)) == 3
    assert verify_journal(path).exit == 0


@pytest.mark.parametrize("compress", [None, "gzip"])
@pytest.mark.parametrize("keep", [0, 1, 3])
def test_as_many_stay_as_were_asked_for(tmp_path, keep, compress):
    path = tmp_path / "audit.jsonl"
    for begin in (0, 20):
        fill(path, range(begin, begin + 20), rotate_count=3, keep=keep, compress=compress)
        sealed = list_log(path).sealed
        assert len(sealed) == keep
        assert all(segment.packed == (compress is not None) for segment in sealed)
        assert verify_journal(path).exit == 0
    assert ids(path)[-1] == "e39"


def test_without_syncs_too_a_removal_is_declared_on_disk_first(tmp_path, monkeypatch):
    path = make(tmp_path / "audit.jsonl", [[1], [2], [3]], rotate_after=(1, 2))
    open_live(path, "never")[0].close()
    file, _ = open_live(path, "never")
    synced = []
    monkeypatch.setattr("opsml_eventbus.journal.live.sync", lambda _: synced.append(path.read_bytes()))
    assert prune(file, 1)
    file.close()
    assert synced
    assert b"eventbus.journal.pruned" in synced[-1]


def test_a_file_keeps_its_promise_when_a_writer_that_does_not_sync_goes_on(tmp_path, monkeypatch):
    """It was killed under `always`: its seal, and its name, are on disk before something else is built on them."""
    path = make(tmp_path / "audit.jsonl", [[1], [2]], close=False)
    synced = []
    monkeypatch.setattr("opsml_eventbus.journal.live.sync", lambda _: synced.append(path.read_bytes()))
    file, _ = open_live(path, "never")
    assert file.fsync == "never"
    assert peek_open(list_log(path).segments[-1]).fsync == "never"
    file.close()
    assert any(b"eventbus.journal.seal" in content for content in synced)


def test_a_disk_that_keeps_only_the_later_of_two_names_loses_no_file(tmp_path, monkeypatch):
    """POSIX promises no order between two names that are not on disk yet."""
    path = make(tmp_path / "audit.jsonl", [[1]], close=False)
    file = open_plain(path)
    file.append(lines([2]))
    names, real = [], os.fsync

    def fsync(descriptor):
        names.append(set(os.listdir(tmp_path)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    finished = file.rotate()
    file.close()
    assert [finished.name in seen and path.name not in seen for seen in names] == [True, False]


def test_retention_that_is_killed_at_any_step_is_done_by_the_next_writer(tmp_path):
    count, killed = 0, True
    while killed:
        path = tmp_path / str(count) / "audit.jsonl"
        fill(path, range(8), rotate_count=2, sign_key=PRIVATE)
        with KillAt(count, half=True) as life_ends:
            file, _ = open_live(path, "always", signer=Signer(PRIVATE))
            prune(file, 1, Signer(PRIVATE))
            file.close()
        killed, count = life_ends.killed, count + 1
        go_on(path, keep=1)
        assert len(firsts(path)) <= 2
        assert {"e6", "e7", "e20"} <= set(ids(path))
        assert verify_journal(path, public_key=PUBLIC).exit in (0, 3)
    assert count > 5


def test_what_two_looks_have_found_is_declared_and_removed_once(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1], [2], [3]], rotate_after=(1, 2))
    notes = []
    tidy = Tidy(path, 1, None, None, lambda *note: notes.append(note), lambda: None)
    for _ in range(2):
        tidy.look(peek_open(list_log(path).segments[0]).log)
    tidy.wait()
    going = tidy.found()
    assert len(going) == 1
    tidy.clear(going)
    assert tidy.found() == []
    tidy.stop()
    assert [kind for kind, _ in notes] == ["pruned"]
    assert len(firsts(path)) == 1


def test_a_file_of_another_log_among_the_oldest_is_nobodys_to_remove(path, tmp_path):
    go_on(path, keep=4)
    stranger, real = segment_path(path, 1), firsts(path)
    make(tmp_path / "other" / "audit.jsonl", [[1]])
    shutil.copy(tmp_path / "other" / "audit.jsonl", stranger)
    notices = []

    async def run():
        async with Journal(path, keep=1, sign_key=PRIVATE, on_notice=notices.append) as journal:
            await journal.append([event(20)])

    asyncio.run(run())
    assert firsts(path) == [1, *real]
    assert stranger.name in next(notice.detail for notice in notices if notice.kind == "pruning")


def test_a_file_that_cannot_be_removed_keeps_those_that_another_look_has_found(path, monkeypatch):
    """Rotations that come faster than files are removed: each look finds more, and the first removal is yet to fail."""
    go, first, notices = threading.Event(), firsts(path)[0], []

    def refuse(segment):
        if segment.first == first:
            go.wait(10)
            raise PermissionError(1, "Operation not permitted", str(segment.path))
        remove_segment(segment)

    async def run():
        async with Journal(path, keep=1, rotate_count=1, sign_key=PRIVATE, on_notice=notices.append) as journal:
            for number in range(20, 26):
                await journal.append([event(number)])
                await asyncio.sleep(0.02)
            go.set()

    monkeypatch.setattr(tidying, "remove_segment", refuse)
    asyncio.run(run())
    assert len(firsts(path)) > 6
    assert firsts(path)[0] == first
    assert not [notice for notice in notices if notice.kind == "pruned"]
    assert verify_journal(path, public_key=PUBLIC).exit == 0


def test_a_file_that_cannot_be_removed_keeps_those_behind_it(path, monkeypatch):
    first, notices = firsts(path)[0], []

    def refuse(segment):
        if segment.first == first:
            raise PermissionError(1, "Operation not permitted", str(segment.path))
        remove_segment(segment)

    async def run():
        async with Journal(path, keep=1, sign_key=PRIVATE, on_notice=notices.append) as journal:
            await journal.append([event(20)])

    real = firsts(path)
    monkeypatch.setattr(tidying, "remove_segment", refuse)
    asyncio.run(run())
    assert firsts(path)[:5] == real
    reason = f"{segment_path(path, first).name} cannot be removed: operation not permitted"
    assert [notice.detail for notice in notices if notice.kind == "pruning"] == [f"put off: {reason}"]
    monkeypatch.undo()
    go_on(path, keep=1)
    assert len(firsts(path)) == 1
    assert verify_journal(path, public_key=PUBLIC).exit == 0


def test_only_a_seal_lets_a_file_count_to_whoever_signs(path):
    """A file cut back to a signed checkpoint is none that was finished, whatever its neighbour says."""
    signer = Signer(PRIVATE)
    files = list_log(path).segments
    log = peek_open(files[0]).log
    second, third = files[1].path, files[2].path
    opened = second.read_bytes().split(b"\n")[0]
    place = read_place(opened)
    head = Head(place.seq, place.chain)
    checkpoint = control_line(Checkpoint(Tally(), signer.sign(log, head, Tally())), START)
    head, marked = write_lines(head, place.seq - 1, [checkpoint])
    second.write_bytes(opened + b"\n" + marked)
    begun = control_line(Open(1, log, head.seq + 1, head.chain.hex(), "always", Tally()), START)
    third.unlink()
    segment_path(path, head.seq + 1).write_bytes(write_lines(head, head.seq, [begun])[1])
    retention = Retention(path, 3, log, signer)
    going = [gone.segment.first for gone in retention.going()]
    assert going == []  # with the second one counted, the first would go


@pytest.mark.parametrize("key", [PUBLIC, None])
def test_what_retention_removes_while_it_is_verified_is_no_hole(path, monkeypatch, key):
    walked = []

    class Slow(Walk):
        def end(self):
            super().end()
            walked.append(self.head)
            if len(walked) == 1:  # the first file was read; all but the last finished one go now
                go_on(path, keep=1)

    monkeypatch.setattr(verify, "Walk", Slow)
    report = verify_journal(path, public_key=key)
    assert [str(finding) for finding in report.findings] == []
    assert firsts(path)[0] > walked[0].seq + 1
