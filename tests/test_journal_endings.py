"""However a journal ends, everyone who waits for it is answered, and everything it held is given back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
import time

import pytest
from journal_support import event, ids, open_descriptors, write

from opsml_eventbus.errors import JournalFailed, JournalTaken
from opsml_eventbus.journal import Journal, committer, live, tidying, verify_journal
from opsml_eventbus.journal.segments import list_log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def failing(*_):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("behind", ["a rotation", "a batch that is too large to go along"])
def test_what_was_taken_out_of_the_queue_is_answered_when_the_batch_before_it_fails(path, monkeypatch, behind):
    go, syncs = threading.Event(), []

    def sync(descriptor):
        """The first is a slow one, during which others queue; the second fails."""
        syncs.append(descriptor)
        if len(syncs) > 1:
            failing()
        go.wait(10)

    async def run():
        async with Journal(path) as journal:
            monkeypatch.setattr(live, "sync", sync)
            monkeypatch.setattr(committer, "BATCH_BYTES", 0)
            calls = [journal.append([event(1)]), journal.append([event(2)])]
            calls.append(journal.rotate() if behind == "a rotation" else journal.append([event(3)]))
            tasks = []
            for call in calls:
                tasks.append(asyncio.create_task(call))
                await asyncio.sleep(0.01)
            assert len(syncs) == 1
            go.set()
            async with asyncio.timeout(5):
                return await asyncio.gather(*tasks, return_exceptions=True)

    _, *failed = asyncio.run(run())
    assert [type(error) for error in failed] == [JournalFailed, JournalFailed]


def test_whoever_is_told_that_a_journal_has_failed_can_ask_why_at_once(path, monkeypatch):
    """A recording says with it whether its file is still there."""
    why = []
    note = committer.Committer._note

    def slow(self, kind, detail):
        note(self, kind, detail)
        time.sleep(0.1)  # the thread is held up right behind having told

    async def run():
        monkeypatch.setattr(committer.Committer, "_note", slow)
        journal = Journal(path, on_notice=lambda notice: why.append((notice.kind, journal.failed)))
        async with journal:
            await journal.append([event(1)])
            path.unlink()
            with pytest.raises(JournalTaken):
                await journal.append([event(2)])
            while not why:
                await asyncio.sleep(0.01)

    asyncio.run(run())
    [(kind, failed)] = why
    assert kind == "failed"
    assert isinstance(failed, JournalTaken)


def test_a_live_file_that_cannot_be_looked_at_is_not_taken_for_gone(path, monkeypatch):
    """Of a disk that answers with EIO once. A new file in its place would be the end of what was acknowledged."""
    write(path, [event(1), event(2)])
    before, looks, stat, lstat = path.read_bytes(), [], os.stat, os.lstat

    def count(name):
        if not isinstance(name, int) and os.fspath(name) == str(path):
            looks.append(name)
            if len(looks) == failing_at:
                failing()

    def failing_stat(name, **options):
        count(name)
        return stat(name, **options)

    def failing_lstat(name, **options):
        count(name)
        return lstat(name, **options)

    for failing_at in range(1, 30):
        looks.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", failing_stat)
            patch.setattr(os, "lstat", failing_lstat)
            with contextlib.suppress(OSError, JournalFailed):
                write(path, [event(2 + failing_at)])
        assert ids(path)[:2] == ["e1", "e2"], failing_at
        assert path.read_bytes().startswith(before) or list_log(path).sealed
        if len(looks) < failing_at:
            break
    assert failing_at > 3  # it was looked at, and each look has failed
    assert verify_journal(path).exit == 0


def test_a_logging_handler_that_fails_ends_nothing(path):
    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError(record)

    async def run():
        async with asyncio.timeout(10), Journal(path, rotate_count=1) as journal:
            for number in range(3):
                await journal.append([event(number)])

    handler, logger = Broken(), logging.getLogger("opsml_eventbus")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        asyncio.run(run())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert ids(path) == ["e0", "e1", "e2"]


def test_what_is_to_be_compressed_and_cannot_be_listed_is_put_off(path, monkeypatch):
    """No descriptor is left for a moment: the recorder lives."""
    notices = []
    for number in range(3):
        write(path, [event(number)], rotate_count=1)

    def no_descriptor(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def run():
        async with Journal(path, compress="gzip", on_notice=notices.append) as journal:
            await journal.append([event(3)])
            assert journal.failed is None

    with monkeypatch.context() as patch:
        patch.setattr(tidying, "list_log", no_descriptor)
        asyncio.run(run())
    assert [(notice.kind, notice.detail) for notice in notices] == [("compression", "put off: too many open files")]
    write(path, [event(4)], compress="gzip")
    assert all(segment.packed for segment in list_log(path).sealed)
    assert ids(path) == [f"e{number}" for number in range(5)]


# ── closing ──


def closing_fails(monkeypatch, path):
    """close(2) of the live file says EIO, as a network's file system does; its descriptor is gone all the same."""
    inode, close = path.stat().st_ino, os.close

    def closing(descriptor):
        ours = os.fstat(descriptor).st_ino == inode
        close(descriptor)
        if ours:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", closing)


def test_a_file_that_cannot_be_closed_is_told_to_whoever_closes_and_holds_nothing(path, monkeypatch):
    async def run():
        journal = Journal(path)
        await journal.__aenter__()
        await journal.append([event(1)])
        closing_fails(monkeypatch, path)
        async with asyncio.timeout(5):
            with pytest.raises(JournalFailed, match="close: Input/output error"):
                await journal.close()
            await journal.close()  # told once

    write(path, [])
    before = open_descriptors()
    asyncio.run(run())
    monkeypatch.undo()
    assert open_descriptors() == before
    write(path, [event(2)])
    assert ids(path) == ["e1", "e2"]


def test_a_failure_that_nobody_was_told_of_is_told_at_closing(path, monkeypatch):
    async def run():
        async with Journal(path, fsync="interval=60s") as journal:
            await journal.append([event(1)])
            monkeypatch.setattr(live, "sync", failing)

    with pytest.raises(JournalFailed, match="fsync: Input/output error"):
        asyncio.run(run())


def test_a_finished_file_that_cannot_be_closed_ends_the_journal_and_leaks_nothing(path, monkeypatch):
    async def run():
        async with Journal(path) as journal:
            await journal.append([event(1)])
            closing_fails(monkeypatch, path)
            with pytest.raises(JournalFailed, match="rotation: Input/output error"):
                await journal.rotate()

    write(path, [])
    before = open_descriptors()
    asyncio.run(run())
    monkeypatch.undo()
    assert open_descriptors() == before
    write(path, [event(2)])
    assert ids(path) == ["e1", "e2"]
    assert verify_journal(path).exit == 0


def test_a_second_close_waits_too_when_the_first_was_cancelled(path, monkeypatch):
    async def run():
        journal = Journal(path)
        await journal.__aenter__()
        await journal.append([event(1)])
        go, real = threading.Event(), live.sync
        monkeypatch.setattr(live, "sync", lambda descriptor: (go.wait(10), real(descriptor)))
        first = asyncio.create_task(journal.close())
        await asyncio.sleep(0.01)
        first.cancel()
        second = asyncio.create_task(journal.close())
        third = asyncio.create_task(journal.close())
        await asyncio.wait([second, third], timeout=0.05)
        assert (first.cancelled(), second.done(), third.done()) == (True, False, False)
        go.set()
        await asyncio.gather(second, third)
        async with Journal(path):
            pass

    asyncio.run(run())


def test_a_journal_may_be_closed_from_another_loop_than_the_one_that_opened_it(path):
    journal = Journal(path)

    async def begin():
        await journal.__aenter__()
        await journal.append([event(1)])

    async def end():
        async with asyncio.timeout(5):
            await journal.close()

    asyncio.run(begin())
    asyncio.run(end())
    write(path, [event(2)])
    assert ids(path) == ["e1", "e2"]


def test_a_journal_may_be_closed_from_another_loop_while_the_one_that_opened_it_runs(path):
    async def run():
        journal = Journal(path)
        await journal.__aenter__()
        await journal.append([event(1)])
        await asyncio.to_thread(asyncio.run, journal.close())
        async with Journal(path) as following:
            await following.append([event(2)])

    asyncio.run(run())
    assert ids(path) == ["e1", "e2"]


# ── openings that come to nothing, and no more threads ──


def no_thread_called(patch, part):
    """As if the system had no room for a thread whose name has this in it."""
    start = threading.Thread.start

    def starting(thread):
        if part in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    patch.setattr(threading.Thread, "start", starting)


def test_an_opening_without_a_thread_says_so_and_holds_nothing(path, monkeypatch):
    async def run():
        with monkeypatch.context() as patch:
            no_thread_called(patch, "")
            with pytest.raises(JournalFailed, match="can't start new thread"):
                await Journal(path).__aenter__()
        async with Journal(path) as journal:
            await journal.append([event(1)])

    write(path, [])
    before = open_descriptors()
    asyncio.run(run())
    assert open_descriptors() == before
    assert ids(path) == ["e1"]


def test_a_cancelled_opening_gives_everything_back(path, monkeypatch):
    write(path, [event(1)])
    go, real = threading.Event(), committer.open_live
    monkeypatch.setattr(committer, "open_live", lambda *args, **options: (go.wait(10), real(*args, **options))[1])

    async def run():
        before = open_descriptors()
        opening = asyncio.create_task(Journal(path).__aenter__())
        await asyncio.sleep(0.01)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        assert open_descriptors() > before  # it is still at it
        go.set()
        async with asyncio.timeout(5):
            while open_descriptors() > before:
                await asyncio.sleep(0.01)

    asyncio.run(run())
    write(path, [event(2)])
    assert ids(path) == ["e1", "e2"]


def test_without_a_thread_for_it_tidying_waits_until_there_is_one(path, monkeypatch):
    notices = []

    async def run():
        with monkeypatch.context() as patch:
            no_thread_called(patch, "tidy")
            journal = Journal(path, rotate_count=1, keep=1, compress="gzip", on_notice=notices.append)
            await journal.__aenter__()
            await journal.append([event(1)])
            await journal.append([event(2)])
        await journal.append([event(3)])
        await journal.append([event(4)])
        await journal.close()

    asyncio.run(run())
    assert "put off: can't start new thread" in [notice.detail for notice in notices]
    assert [segment.path.suffix for segment in list_log(path).sealed] == [".gz"]
    assert ids(path) == ["e3", "e4"]
    assert verify_journal(path).exit == 0


def test_where_no_thread_can_be_had_for_tidying_the_journal_goes_on_without_it(path, monkeypatch):
    with monkeypatch.context() as patch:
        no_thread_called(patch, "tidy")
        for number in range(3):
            write(path, [event(number)], rotate_count=1, keep=0, compress="gzip")
        assert len(list_log(path).sealed) == 2
    write(path, [], keep=0)
    assert not list_log(path).sealed
    assert verify_journal(path).exit == 0
