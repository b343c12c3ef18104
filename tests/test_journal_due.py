"""What a writer does unasked: what is due by the clock or when idle, and what an earlier one left behind."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest
from journal_support import event, ids, make, write

from opsml_eventbus.errors import (
    JournalDamaged,
)
from opsml_eventbus.journal import (
    Journal,
    committer,
    live,
    retention,
    tidying,
    verify_journal,
)
from opsml_eventbus.journal.segments import list_log, segment_path
from opsml_eventbus.journal.succession import peek_open


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log" / "audit.jsonl"


def full(descriptor, data):
    raise OSError(errno.ENOSPC, "No space left on device")


class Syncs:
    """Counts what is brought to disk."""

    def __init__(self, monkeypatch):
        self.count = 0
        real = live.sync

        def sync(descriptor):
            self.count += 1
            real(descriptor)

        monkeypatch.setattr(live, "sync", sync)


def test_under_steady_load_an_interval_is_kept(path, monkeypatch):
    async def run():
        async with Journal(path, fsync="interval=50ms") as journal:
            await journal.append([event(0)])
            syncs = Syncs(monkeypatch)
            for number in range(1, 60):
                await journal.append([event(number)])
                await asyncio.sleep(0.01)
            assert syncs.count >= 3
            assert journal.durable > 1

    asyncio.run(run())


def test_a_lone_event_is_on_disk_after_the_interval(path, monkeypatch):
    monkeypatch.setattr(committer, "IDLE_SECONDS", 60.0)

    async def run():
        async with Journal(path, fsync="interval=50ms") as journal:
            ack = await journal.append([event(0)])
            async with asyncio.timeout(10):
                while journal.durable < ack.seq:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_closing_without_room_for_a_checkpoint_syncs_the_events(path, monkeypatch):
    syncs = []

    async def run():
        async with Journal(path, fsync="interval=60s") as journal:
            await journal.append([event(0)])
            syncs.append(Syncs(monkeypatch))

            monkeypatch.setattr(live, "write_all", full)

    asyncio.run(run())
    assert syncs[0].count >= 1
    assert ids(path) == ["e0"]


def test_what_was_appended_in_the_round_in_which_it_is_closed_is_written(path):
    async def run():
        async with Journal(path) as journal:
            ack, _ = await asyncio.gather(journal.append([event(0)]), journal.close())
            assert ack.seq == 2

    asyncio.run(run())
    assert ids(path) == ["e0"]


def test_a_file_that_cannot_be_pruned_does_not_end_the_journal(path, monkeypatch):
    notices = []

    async def run():
        async with Journal(path, keep=0, on_notice=lambda notice: notices.append(notice.kind)) as journal:
            await journal.append([event(0)])
            monkeypatch.setattr(retention, "peek_open", lambda segment: None)
            await journal.rotate()
            await journal.append([event(1)])
            await asyncio.sleep(0)

    asyncio.run(run())
    assert "pruning" in notices
    assert ids(path) == ["e0", "e1"]


@pytest.mark.parametrize("change", [(b"journal.open", b"journal.opem"), (b'"format":1', b'"format":"x"')])
def test_what_cannot_be_declared_is_not_removed(path, change):
    make(path, [[1], [2], [3], [4]], rotate_after=(1, 2, 3))
    second = list_log(path).segments[1].path
    second.write_bytes(second.read_bytes().replace(*change))
    notices = []

    async def run():
        async with Journal(path, keep=1, on_notice=notices.append) as journal:
            await journal.append([event(5)])

    asyncio.run(run())
    assert len(list_log(path).sealed) == 3
    (notice,) = [notice for notice in notices if notice.kind == "pruning"]
    assert second.name in notice.detail


def test_an_idle_checkpoint_is_told(path, monkeypatch):
    monkeypatch.setattr(committer, "IDLE_SECONDS", 0.05)

    async def run():
        async with Journal(path) as journal:
            ack = await journal.append([event(0)])
            async with asyncio.timeout(10):
                while journal.head.seq == ack.seq:
                    await asyncio.sleep(0.01)
            assert journal.head.seq == ack.seq + 1

    asyncio.run(run())


def test_an_idle_journal_is_rotated_at_its_turn(path):
    async def run():
        async with Journal(path, rotate_every=0.3) as journal:
            await journal.append([event(0)])
            async with asyncio.timeout(10):
                while not list_log(path).sealed:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_restart_does_not_rotate_before_the_turn(path):
    now = [500_000 * 3_600_000_000_000]  # the beginning of an hour
    for number in range(3):
        write(path, [event(number)], rotate_every=3600, clock=lambda: now[0])
        now[0] += 60_000_000_000
    assert list_log(path).sealed == ()


def test_what_a_killed_compression_left_is_removed(path):
    write(path, [event(0)])
    leftover = path.with_name(segment_path(path, 1).name + ".gz.tmp")
    leftover.touch()
    write(path, [event(1)])
    assert not leftover.exists()


def test_a_log_that_could_not_be_opened_is_not_kept_locked(path):
    write(path, [event(0), event(1)])
    kept = path.read_bytes()
    rows = kept.splitlines(keepends=True)
    path.write_bytes(b"".join([rows[0], *rows[2:], b"torn"]))
    with pytest.raises(JournalDamaged):
        write(path, [event(2)])
    path.write_bytes(kept)
    write(path, [event(2)])
    assert ids(path) == ["e0", "e1", "e2"]


def test_without_syncs_nothing_is_called_durable(path):
    for number in range(3):
        write(path, [event(number)], fsync="never", rotate_count=1)
    assert len(list_log(path).sealed) == 2
    assert verify_journal(path).durable == 0


@pytest.mark.parametrize(("before", "after"), [("always", "never"), ("never", "always")])
def test_another_policy_begins_another_file(path, before, after):
    write(path, [event(0)], fsync=before)
    write(path, [event(1)], fsync=after)
    assert [peek_open(segment).fsync for segment in list_log(path).segments] == [before, after]
    assert verify_journal(path).exit == 0


def test_what_was_acknowledged_is_synced_in_time_while_a_later_write_is_blocked(path, monkeypatch):
    monkeypatch.setattr(committer, "IDLE_SECONDS", 60.0)

    async def run():
        async with Journal(path, fsync="interval=100ms", on_error="block") as journal:
            ack = await journal.append([event(0)])
            monkeypatch.setattr(live, "write_all", full)
            blocked = asyncio.create_task(journal.append([event(1)]))
            async with asyncio.timeout(committer.RETRY_SECONDS * 0.8):
                while journal.durable < ack.seq:
                    await asyncio.sleep(0.01)
            assert not blocked.done()
            monkeypatch.undo()
            await blocked

    asyncio.run(run())
    assert ids(path) == ["e0", "e1"]


def test_what_was_acknowledged_is_synced_before_closing_waits_for_what_is_tidied(path, monkeypatch):
    go, real = threading.Event(), tidying.compress_segment
    monkeypatch.setattr(tidying, "compress_segment", lambda *args: (go.wait(10), real(*args))[1])

    async def run():
        async with Journal(path, fsync="interval=60s", compress="gzip") as journal:
            await journal.append([event(0)])
            await journal.rotate()
            ack = await journal.append([event(1)])
            thread = journal._committer
            closing = asyncio.create_task(journal.close())
            async with asyncio.timeout(5):
                while thread.durable < ack.seq:
                    await asyncio.sleep(0.01)
            assert not closing.done()
            go.set()
            await closing

    asyncio.run(run())
