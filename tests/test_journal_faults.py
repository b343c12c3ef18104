"""The disk fails: it is full, it refuses, it lies. What was acknowledged stays true and the file stays whole.

Marked `slow` where real machinery does it (a tiny file system, strace); `make faults` runs these.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from journal_support import event, ids, make, write

from opsml_eventbus.errors import JournalFailed, WriteRefused
from opsml_eventbus.event import Event
from opsml_eventbus.journal import Journal, committer, recover, verify_journal
from opsml_eventbus.journal.segments import list_log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def is_ours(data):
    """Is this write the journal's? The event loop writes too, to wake itself."""
    return bytes(data[:5]) == b'{"spe'


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("half", [False, True])
def test_a_failed_write_is_undone_and_later_writes_work(path, monkeypatch, code, half):
    async def run():
        async with Journal(path) as journal:
            await journal.append([event(1)])
            size = path.stat().st_size
            with monkeypatch.context() as patch:
                write_part = os.write

                def broken(descriptor, data):
                    if half and is_ours(data):
                        return write_part(descriptor, data[:100])
                    if is_ours(data) or isinstance(data, memoryview):  # the rest of a short write
                        raise OSError(code, os.strerror(code))
                    return write_part(descriptor, data)

                patch.setattr(os, "write", broken)
                with pytest.raises(WriteRefused) as caught:
                    await journal.append([event(2)])
                assert os.strerror(code) in str(caught.value)
            assert path.stat().st_size == size
            await journal.append([event(3)])

    asyncio.run(run())
    assert ids(path) == ["e1", "e3"]
    assert verify_journal(path).exit == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_one_failed_fsync_is_the_end_of_that_file(path, monkeypatch, code):
    notices = []

    async def run():
        async with Journal(path, on_notice=notices.append) as journal:
            await journal.append([event(1)])
            calls = []

            def fails_once(descriptor):
                calls.append(descriptor)
                if len(calls) == 1:
                    raise OSError(code, os.strerror(code))

            monkeypatch.setattr(os, "fdatasync", fails_once)
            results = await asyncio.gather(*(journal.append([event(n)]) for n in (2, 3, 4)), return_exceptions=True)
            assert all(isinstance(result, JournalFailed) for result in results)
            with pytest.raises(JournalFailed, match="fsync"):
                await journal.append([event(5)])
            assert len(calls) == 1  # never retried, not at closing either
            durable = journal.durable
        await asyncio.sleep(0)
        return durable

    durable = asyncio.run(run())
    assert [notice.kind for notice in notices] == ["failed"]
    monkeypatch.undo()
    assert verify_journal(path).durable < durable + 2
    write(path, [event(6)])
    found = ids(path)
    assert found[0] == "e1"
    assert found[-1] == "e6"
    assert len(list_log(path).sealed) == 1  # it goes on in a new file
    assert verify_journal(path).exit == 0


def test_a_restart_after_a_failed_fsync_writes_again_what_only_the_cache_may_hold(path, monkeypatch):
    make(path, [[1], [2, 3]], close=False)
    data = path.read_bytes()
    rewritten = {}
    real = os.pwrite

    def spy(descriptor, part, offset):
        if os.fstat(descriptor).st_ino == inode:
            rewritten[offset] = bytes(part)
        return real(descriptor, part, offset)

    inode = path.stat().st_ino
    monkeypatch.setattr(os, "pwrite", spy)
    recover(path)
    (offset, part), *rest = rewritten.items()
    durable_line = data.index(b'"id":"e2"')
    assert not rest
    assert offset < durable_line < offset + len(part)
    assert data[offset:] == part


def test_a_failed_undo_is_final(path, monkeypatch):
    async def run():
        async with Journal(path) as journal:
            await journal.append([event(1)])
            real = os.write

            def broken(descriptor, data):
                if is_ours(data):
                    raise OSError(errno.EIO, "Input/output error")
                return real(descriptor, data)

            monkeypatch.setattr(os, "write", broken)
            monkeypatch.setattr(os, "ftruncate", _raise_eio)
            with pytest.raises(JournalFailed, match="could not be undone"):
                await journal.append([event(2)])

    asyncio.run(run())
    monkeypatch.undo()
    assert ids(path) == ["e1"]


def _raise_eio(*_):
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("name", ["rename", "fsync"])
def test_a_rotation_that_fails_halfway_is_final_and_said(path, monkeypatch, name):
    notices = []

    async def run():
        async with Journal(path, on_notice=notices.append) as journal:
            await journal.append([event(1)])
            monkeypatch.setattr(os, name, _raise_eio)
            with pytest.raises(JournalFailed, match="rotation"):
                await journal.rotate()
            monkeypatch.undo()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert [notice.kind for notice in notices] == ["failed"]
    write(path, [event(2)])
    assert ids(path) == ["e1", "e2"]
    assert verify_journal(path).exit == 0


def test_block_waits_until_the_write_succeeds(path, monkeypatch):
    monkeypatch.setattr(committer, "RETRY_SECONDS", 0.01)
    notices = []
    blocked = threading.Event()

    def note(notice):
        notices.append(notice.kind)
        if notice.kind == "blocked":
            blocked.set()

    async def run():
        async with Journal(path, on_error="block", on_notice=note) as journal:
            await journal.append([event(1)])
            real = os.write
            full = True

            def broken(descriptor, data):
                if full and is_ours(data):
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(descriptor, data)

            monkeypatch.setattr(os, "write", broken)
            task = asyncio.create_task(journal.append([event(2)]))
            while not blocked.is_set():
                await asyncio.sleep(0.005)
            assert not task.done()
            full = False
            await task

    asyncio.run(run())
    assert notices == ["blocked", "resumed"]
    assert ids(path) == ["e1", "e2"]


def test_closing_does_not_wait_for_a_disk_that_stays_full(path, monkeypatch):
    async def run():
        async with Journal(path, on_error="block") as journal:
            await journal.append([event(1)])
            real = os.write

            def broken(descriptor, data):
                if is_ours(data):
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(descriptor, data)

            monkeypatch.setattr(os, "write", broken)
            task = asyncio.create_task(journal.append([event(2)]))
            await asyncio.sleep(0.01)
        with pytest.raises(WriteRefused):
            await task

    asyncio.run(run())
    monkeypatch.undo()
    assert ids(path) == ["e1"]
    assert verify_journal(path).exit == 0


def test_little_space_is_said_once(path, monkeypatch):
    monkeypatch.setattr(committer, "SPACE_SECONDS", 0.0)
    notices = []

    async def run():
        async with Journal(path, min_free=1 << 60, on_notice=notices.append) as journal:
            for number in range(5):
                await journal.append([event(number)])
        await asyncio.sleep(0)

    asyncio.run(run())
    assert [notice.kind for notice in notices] == ["space"]


def test_a_file_at_its_size_limit_stays_whole(path):
    child(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
        async def run():
            refused = 0
            async with Journal(path) as journal:
                for number in range(40):
                    try:
                        await journal.append([Event.new("t", "x" * 100, id=f"e{number}")])
                        print(f"e{number}", flush=True)
                    except WriteRefused as error:
                        refused += 1
                await_small = await journal.append([])
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                await journal.append([Event.new("t", 1, id="late")])
                print("late", flush=True)
            assert refused
        """,
        path,
    )
    report = verify_journal(path)
    assert report.exit == 0
    assert ids(path)[-1] == "late"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


CHILD = """
import asyncio, sys
from pathlib import Path
from opsml_eventbus.errors import *
from opsml_eventbus.event import Event
from opsml_eventbus.journal import *
path = Path(sys.argv[1])
"""


def child(body, path, *, prefix=(), check=True):
    """Run `async def run()` in another process; the lines it printed are what it was acknowledged."""
    code = CHILD + textwrap.dedent(body) + "\nasyncio.run(run())\n"
    done = subprocess.run([*prefix, sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, done.stderr
    return done.stdout.split()


LOAD = """
async def run():
    async def producer(journal, name):
        for number in range(30):
            await journal.append([Event.new("t", number, id=f"{name}-{number}")])
            print(f"{name}-{number}", flush=True)
    async with Journal(path, rotate_count=25) as journal:
        await asyncio.gather(*(producer(journal, name) for name in "abc"))
"""


def strace(*inject):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return ["strace", "-f", "-qq", "-o", "/dev/null", *(word for rule in inject for word in ("-e", rule))]


@pytest.mark.slow
@pytest.mark.parametrize("call", ["write", "fdatasync", "rename", "fsync"])
@pytest.mark.parametrize("when", [1, 2, 3, 5, 8, 13, 21, 34])
def test_kill_9_at_a_system_call_loses_nothing_acknowledged(path, call, when):
    # Acknowledgements go through a pipe, written by the same `write`: killing at one of those is fair game.
    acknowledged = child(LOAD, path, prefix=strace(f"inject={call}:signal=KILL:when={when}"), check=False)
    if list_log(path).segments:
        assert verify_journal(path).exit in (0, 3)
    write(path, [event(1)])
    found = ids(path)
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))
    assert verify_journal(path).exit == 0


@pytest.mark.slow
@pytest.mark.parametrize("code", ["ENOSPC", "EIO"])
def test_a_failing_fdatasync_is_never_followed_by_an_acknowledgement(path, code):
    body = LOAD.replace("rotate_count=25", "")
    acknowledged = child(body, path, prefix=strace(f"inject=fdatasync:error={code}:when=9"), check=False)
    found = ids(path)
    assert set(acknowledged) <= set(found)
    assert len(acknowledged) < 90
    write(path, [event(1)])
    assert set(acknowledged) <= set(ids(path))
    assert verify_journal(path).exit == 0


@pytest.mark.slow
def test_a_full_file_system_refuses_a_batch_and_goes_on_when_there_is_room(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    mount = tmp_path / "tiny"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(mount)], check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        filler = mount / "filler"
        filler.write_bytes(b"x" * 8192)
        path = mount / "audit.jsonl"

        async def run():
            refused = 0
            async with Journal(path) as journal:
                written = []
                for number in range(100):
                    try:
                        await journal.append([Event.new("t", "x" * 300, id=f"e{number}")])
                        written.append(f"e{number}")
                    except WriteRefused:
                        refused += 1
                        if refused == 3:
                            filler.unlink()
            return written, refused

        written, refused = asyncio.run(run())
        assert refused >= 3
        assert ids(path) == written
        assert verify_journal(path).exit in (0, 3)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.slow
def test_with_64_producers_syncs_are_a_fraction_of_appends(path, tmp_path):
    """Counted from outside, by strace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    body = LOAD.replace("range(30)", "range(10)").replace('in "abc"', "in range(64)").replace("rotate_count=25", "")
    acknowledged = child(body, path, prefix=["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=fdatasync"])
    syncs = trace.read_text().count("fdatasync(")
    assert len(acknowledged) == 640
    assert 10 <= syncs < 640 / 8


@pytest.mark.slow
def test_a_stopped_process_acknowledges_nothing_it_has_not_synced(path):
    """SIGSTOP in the middle of a load, then SIGKILL: what was said before is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD + LOAD.replace("range(30)", "range(3000)") + "\nasyncio.run(run())\n", str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        seen = [process.stdout.readline().strip() for _ in range(50)]
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # the signal is only sent so far: now every thread of it has stopped
        before = path.stat().st_size
        time.sleep(1)
        assert path.stat().st_size == before
    finally:
        process.kill()
        seen += process.stdout.read().split("\n")[:-1]
        process.wait()
        process.stdout.close()
    write(path, [event(1)])
    assert set(seen) <= set(ids(path))
    assert verify_journal(path).exit == 0
