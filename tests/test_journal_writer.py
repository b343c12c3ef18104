"""Writing: what an acknowledgement means, who may write, what is refused, and when a file is finished."""

from __future__ import annotations

import asyncio
import gzip
import math
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
from journal_support import damages, event, ids, lines, open_descriptors, open_plain, snapshot, write

from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.errors import (
    InvalidEvent,
    JournalBusy,
    JournalRefused,
    JournalTaken,
    TypeRefused,
    WriteRefused,
)
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.journal import (
    Journal,
    Line,
    committer,
    compress,
    discard_log,
    live,
    parse_fsync,
    read_journal,
    verify_journal,
)
from opsml_eventbus.journal.disk import Lock, open_file
from opsml_eventbus.journal.format import read_control
from opsml_eventbus.journal.recovery import open_live
from opsml_eventbus.journal.segments import list_log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log" / "audit.jsonl"


# ── what an acknowledgement means ──


def test_always_acknowledges_what_is_on_disk(path, monkeypatch):
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (real(fd), synced.append(os.fstat(fd).st_size)))

    async def run():
        async with Journal(path) as journal:
            for number in range(5):
                ack = await journal.append([event(number)])
                assert ack.durable == ack.seq == journal.durable == journal.head.seq
                assert synced[-1] == path.stat().st_size

    asyncio.run(run())
    assert verify_journal(path).settled


def test_interval_acknowledges_what_is_written_and_syncs_in_time(path):
    async def run():
        async with Journal(path, fsync="interval=50ms") as journal:
            ack = await journal.append([event(1)])
            assert ack.durable < ack.seq
            for _ in range(200):
                await asyncio.sleep(0.01)
                if journal.durable >= ack.seq:
                    break
            assert journal.durable >= ack.seq

    asyncio.run(run())
    assert verify_journal(path).settled


def test_never_syncs_nothing_and_claims_nothing(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)

    async def run():
        async with Journal(path, fsync="never", rotate_count=2) as journal:
            for number in range(6):
                ack = await journal.append([event(number)])
                assert ack.durable == 0

    asyncio.run(run())
    assert synced == []
    report = verify_journal(path)
    assert (report.exit, report.durable, report.events) == (0, 0, 6)


def test_a_second_of_idling_leaves_a_checkpoint(path, monkeypatch):
    monkeypatch.setattr(committer, "IDLE_SECONDS", 0.02)

    async def run():
        async with Journal(path, fsync="interval=1h".replace("1h", "60m")) as journal:
            await journal.append([event(1)])
            for _ in range(200):
                await asyncio.sleep(0.01)
                if b"checkpoint" in path.read_bytes():
                    break
            assert verify_journal(path).settled
            before = path.read_bytes()
            await asyncio.sleep(0.1)
            assert path.read_bytes() == before  # nothing came, nothing more is said

    asyncio.run(run())
    assert path.read_bytes().count(b"checkpoint") == 1


def test_many_producers_share_one_sync(path, monkeypatch):
    count = 0
    real = os.fdatasync

    def slow(descriptor):
        nonlocal count
        count += 1
        threading.Event().wait(0.002)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)

    async def producer(journal, number):
        for step in range(10):
            time.sleep(0.0001)  # something that lets the other thread run in between, as writing to a socket does
            await journal.append([event(number * 100 + step)])

    async def run():
        async with Journal(path) as journal:
            await asyncio.gather(*(producer(journal, number) for number in range(64)))

    asyncio.run(run())
    assert verify_journal(path).events == 640
    assert count < 20  # ten rounds of producers, one sync each, and what opening and closing take


def test_appends_keep_their_order_and_stay_together(path):
    async def run():
        async with Journal(path) as journal:
            acks = await asyncio.gather(*(journal.append([event(n), event(n + 1)]) for n in range(0, 100, 2)))
            assert [ack.seq for ack in acks] == sorted(ack.seq for ack in acks)

    asyncio.run(run())
    assert ids(path) == [f"e{n}" for n in range(100)]


def test_an_append_of_nothing_writes_nothing(path):
    async def run():
        async with Journal(path) as journal:
            size = path.stat().st_size
            assert (await journal.append([])).seq == 1
            assert path.stat().st_size == size

    asyncio.run(run())


def test_a_cancelled_append_is_written_all_the_same(path):
    async def run():
        async with Journal(path) as journal:
            task = asyncio.create_task(journal.append([event(1)]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert ids(path) == ["e1"]


def test_a_slow_disk_does_not_hold_up_the_loop(path, monkeypatch):
    release = threading.Event()

    async def run():
        async with Journal(path) as journal:
            monkeypatch.setattr(os, "fdatasync", lambda _: release.wait(30))
            task = asyncio.create_task(journal.append([event(1)]))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not task.done()
            release.set()
            await task

    asyncio.run(run())


def test_two_loops_may_append_to_one_journal(path):
    async def run():
        async with Journal(path) as journal:
            await asyncio.gather(
                *(asyncio.to_thread(lambda n=n: asyncio.run(journal.append([event(n)]))) for n in range(8))
            )

    asyncio.run(run())
    assert sorted(ids(path)) == [f"e{n}" for n in range(8)]


# ── what is written ──


def test_lines_are_kept_byte_for_byte_and_gaps_too(path):
    items = [event(1), Gap.new(12, "e1", "lag"), event(2, replay="r1"), encode_line(event(3))]
    write(path, items)
    expected = [item if isinstance(item, bytes) else encode_line(item) for item in items]
    assert [item.line for item in read_journal(path)] == expected


def test_a_foreign_line_is_made_canonical_and_a_journal_line_loses_its_place(path, tmp_path):
    other = tmp_path / "other.jsonl"
    write(other, [event(1)])
    placed = other.read_bytes().splitlines()[1]
    foreign = b'{"type": "t", "id": "e2", "source": "s", "time": "2025-01-01T00:00:00Z", "specversion": "1.0"}'
    write(path, [placed, foreign])
    assert [item.line for item in read_journal(path)] == [
        encode_line(event(1)),
        b'{"specversion":"1.0","id":"e2","source":"s","type":"t","time":"2025-01-01T00:00:00.000000000Z"}',
    ]


def test_a_leap_second_is_written_as_the_moment_that_it_means(path):
    """Times are looked up as texts, and as text it stands before that moment: `--since` would pass over it."""
    write(path, [encode_line(event(1)).replace(b":48:59.", b":48:60.")])
    [line] = read_journal(path)
    assert b":49:00.748576123Z" in line.line


def test_what_json_cannot_carry_becomes_a_gap_and_the_rest_is_written(path):
    async def run():
        async with Journal(path) as journal:
            bad = Event.new("t", {"x": math.nan}, id="bad")
            return await journal.append([event(1), bad, event(2)])

    ack = asyncio.run(run())
    assert (ack.seq, ack.refused) == (4, 1)
    first, gap, second = (decode_line(item.line) for item in read_journal(path))
    assert (first.id, second.id) == ("e1", "e2")
    assert (gap.reason, gap.missed, gap.after) == ("invalid", 1, "e1")


@pytest.mark.parametrize(
    "line", [b"", b"12", b"{}", b'{"specversion":"1.0"}', b'{"specversion":"1.0","id":"x"}\n{}', b"\xff", b"[" * 500]
)
def test_bytes_that_are_no_event_are_refused(path, line):
    async def run():
        async with Journal(path) as journal:
            with pytest.raises(InvalidEvent):
                await journal.append([event(1), line])

    asyncio.run(run())
    assert ids(path) == []


CANONICAL = encode_line(event(2))
SPELLED = encode_line(Event.new("t", {"type": "eventbus.journal.open", "s": "\u00e9"}, id="e2"))


@pytest.mark.parametrize("spoilt", [b'"a\0b"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b"2\0", b'"\xc3\xa9\0"'])
def test_a_line_that_only_begins_as_an_event_does_is_refused(path, spoilt):
    async def run():
        async with Journal(path) as journal:
            with pytest.raises(InvalidEvent):
                await journal.append([event(1), CANONICAL.replace(b'"n":2', b'"n":%b' % spoilt)])
            with pytest.raises(InvalidEvent):
                await journal.append([CANONICAL.replace(b'"id":"e2', b'"id":"e2\0')])

    asyncio.run(run())
    assert ids(path) == []


def test_a_second_type_of_our_own_is_refused_and_one_in_a_payload_is_none(path):
    second = CANONICAL[:-1] + b',"type":"eventbus.journal.open"}'

    async def run():
        async with Journal(path) as journal:
            with pytest.raises(TypeRefused):
                await journal.append([second])
            await journal.append([SPELLED])

    asyncio.run(run())
    assert [item.line for item in read_journal(path)] == [SPELLED]


def test_nobody_can_write_a_control_record(path, tmp_path):
    other = tmp_path / "other.jsonl"
    write(other, [event(1)])
    control = other.read_bytes().splitlines()[0]
    assert read_control(control) is not None

    async def run():
        async with Journal(path) as journal:
            for item in (control, event(1).replace(type="eventbus.journal.seal")):
                with pytest.raises(TypeRefused):
                    await journal.append([item])

    asyncio.run(run())
    assert verify_journal(path).exit == 0


# ── who may write, and where ──


def test_a_second_writer_is_refused_and_told_who_holds_it(path):
    async def run():
        async with Journal(path):
            with pytest.raises(JournalBusy) as caught:
                async with Journal(path):
                    pass
            assert caught.value.holder.startswith(f"pid {os.getpid()} on ")
        async with Journal(path):
            pass

    asyncio.run(run())


def test_a_lock_file_that_was_tidied_away_lets_nobody_in(path):
    async def run():
        async with Journal(path) as journal:
            for _ in range(2):
                await journal.append([event(1)])
                path.with_name(path.name + ".lock").unlink()
                with pytest.raises(JournalBusy):
                    async with Journal(path):
                        pass
                await journal.rotate()

    asyncio.run(run())
    assert verify_journal(path).exit == 0


def test_two_names_of_a_folder_are_one_lock(path, tmp_path):
    path.parent.mkdir()
    (tmp_path / "alias").symlink_to(path.parent)

    async def run():
        async with Journal(path):
            with pytest.raises(JournalBusy):
                async with Journal(tmp_path / "alias" / path.name):
                    pass

    asyncio.run(run())


def _in_child(journal, answers, go):
    async def run():
        try:
            await journal.append([event(2)])
        except JournalRefused as error:
            answers.put(str(error))

    asyncio.run(run())
    go.get()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking with threads is what is tried here
def test_a_forked_child_cannot_write_and_does_not_keep_the_lock(path):
    context = multiprocessing.get_context("fork")
    answers, go = context.SimpleQueue(), context.SimpleQueue()

    async def run():
        async with Journal(path) as journal:
            await journal.append([event(1)])
            child = context.Process(target=_in_child, args=(journal, answers, go))
            child.start()
            refused = answers.get()
        async with Journal(path):  # the child still lives, and holds nothing
            pass
        go.put(None)
        child.join()
        return refused

    assert "forked child cannot write" in asyncio.run(run())
    assert ids(path) == ["e1"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_while_a_log_is_being_opened_keeps_nothing(path, monkeypatch):
    """Not only what was opened is given up: the lock is held long before there is a Journal that says so."""
    children = []

    def fork_and_look(*args, **kwargs):
        if (child := os.fork()) == 0:
            signal.pause()
        children.append(child)
        return open_live(*args, **kwargs)

    async def run():
        async with Journal(path) as journal:
            await journal.append([event(1)])

    monkeypatch.setattr(committer, "open_live", fork_and_look)
    try:
        asyncio.run(run())
        asyncio.run(run())  # the first one's child still lives
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert len(children) == 2


def test_what_is_let_go_is_free_at_once_though_a_child_has_not_given_it_up_yet(path):
    """A child shares the open file, as a duplicate does, until it runs for the first time."""
    path.parent.mkdir(exist_ok=True)
    file, lock = open_plain(path), Lock(path)
    children = [os.dup(lock._descriptor), os.dup(file._descriptor)]
    file.close()
    lock.release()
    write(path, [event(1)])
    for child in children:
        os.close(child)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_keeps_what_it_reads_of_a_log_open(path):
    """A number that was the writer's may be a reader's of the same file by now."""
    write(path, [event(1)])
    lock = Lock(path)
    descriptor = open_file(path, os.O_RDWR | os.O_APPEND)
    os.close(descriptor)
    with path.open("rb") as reader:
        assert reader.fileno() == descriptor
        if (child := os.fork()) == 0:
            os._exit(0 if reader.read() == path.read_bytes() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lock.release()


def test_files_and_new_folders_are_private_and_an_old_folder_is_left_alone(tmp_path):
    (tmp_path / "old").mkdir(mode=0o755)
    path = tmp_path / "old" / "new" / "newer" / "audit.jsonl"
    write(path, [event(1)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "folder", "device"])
def test_what_is_no_regular_file_with_one_name_is_refused(tmp_path, kind):
    path = tmp_path / "audit.jsonl"
    other = tmp_path / "other"
    if kind == "link":
        other.write_bytes(b"")
        path.symlink_to(other)
    elif kind == "dangling link":
        path.symlink_to(other)
    elif kind == "hard link":
        other.write_bytes(b"")
        path.hardlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = tmp_path.joinpath("/dev/full")

    async def run():
        async with Journal(path):
            pass

    with pytest.raises((JournalRefused, OSError)) as caught:
        asyncio.run(run())
    assert str(path) in str(caught.value)
    assert not other.exists() or other.read_bytes() == b""


def append_to(path):
    with path.open("ab") as stream:
        stream.write(b"x")


OUTSIDE = {
    "moved": lambda path: path.rename(path.with_name("elsewhere.jsonl")),
    "removed": lambda path: path.unlink(),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "written to": append_to,
}


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
@pytest.mark.parametrize("what", OUTSIDE)
def test_a_file_that_somebody_else_changes_is_noticed_before_anything_is_acknowledged(path, fsync, what):
    said = {"moved": "moved or removed", "removed": "moved or removed", "emptied": "cut"}.get(what, what)

    async def run():
        notices = []
        journal = Journal(path, fsync, on_notice=notices.append)
        async with journal:
            await journal.append([event(1)])
            OUTSIDE[what](path)
            with pytest.raises(JournalTaken, match=said):
                await journal.append([event(2)])
            with pytest.raises(JournalTaken, match=said):
                await journal.append([event(3)])
            assert isinstance(journal.failed, JournalTaken)
        await asyncio.sleep(0)
        assert [notice.kind for notice in notices] == ["failed"]

    asyncio.run(run())


def test_a_file_that_is_emptied_before_it_is_closed_is_told_at_closing(path):
    async def run():
        async with Journal(path) as journal:
            await journal.append([event(1)])
            os.truncate(path, 0)

    with pytest.raises(JournalTaken, match="cut from outside: it has 0 bytes, not"):
        asyncio.run(run())


def test_a_closed_journal_refuses_and_leaks_nothing(path):
    write(path, [event(1)])
    before, threads = open_descriptors(), threading.active_count()

    async def run():
        journal = Journal(path, rotate_count=1, compress="gzip")
        async with journal:
            await journal.append([event(2)])
            await journal.append([event(3)])
        with pytest.raises(JournalRefused):
            await journal.append([event(4)])
        await journal.close()

    asyncio.run(run())
    assert (open_descriptors(), threading.active_count()) == (before, threads)


@pytest.mark.parametrize(
    "options",
    [
        {"fsync": "sometimes"},
        {"fsync": "interval=99999999h"},
        {"fsync": "interval=" + "9" * 400},
        {"rotate_size": 0},
        {"rotate_every": 1e11},
        {"rotate_every": math.nan},
        {"rotate_every": math.inf},
        {"rotate_every": 10**400},
        {"keep": -1},
        {"on_error": "ignore"},
    ],
)
def test_bad_settings_are_refused_before_anything_is_opened(path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Journal(path, **options)
    assert not path.parent.exists()


def test_a_century_is_not_too_long_for_a_file(path):
    write(path, [event(1)], rotate_every=99 * 365 * 86400, fsync=f"interval={99 * 365 * 24}h")
    assert ids(path) == ["e1"]


def test_a_compression_nobody_knows_is_refused_before_anything_is_opened(path):
    with pytest.raises(JournalRefused, match="lzma"):
        Journal(path, compress="lzma")
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("always", ("always", 0.0)),
        ("never", ("never", 0.0)),
        ("interval", ("interval", 1.0)),
        ("interval=500ms", ("interval", 0.5)),
        ("interval=2s", ("interval", 2.0)),
        ("interval=1m", ("interval", 60.0)),
        ("interval=1h", ("interval", 3600.0)),
    ],
)
def test_policies_are_spelled_as_documented(text, expected):
    assert parse_fsync(text) == expected


@pytest.mark.parametrize(
    "text", ["", "interval=", "interval=x", "interval=0s", "interval=-1s", "interval=٣s", "always=1s", "never=1s"]
)
def test_other_spellings_of_a_policy_are_refused(text):
    with pytest.raises(ValueError, match="none of"):
        parse_fsync(text)


# ── rotation, retention, compression ──


def test_a_file_is_finished_by_size_and_by_count(path, tmp_path):
    async def run(path, **options):
        async with Journal(path, **options) as journal:
            for number in range(20):
                await journal.append([event(number)])

    asyncio.run(run(path, rotate_size=2000))
    for segment in list_log(path).sealed:
        assert segment.path.stat().st_size < 2000 + 600  # and its seal
    assert len(list_log(path).sealed) >= 2
    other = tmp_path / "other.jsonl"
    asyncio.run(run(other, rotate_count=5))
    assert len(list_log(other).sealed) == 3
    for log in (path, other):
        assert verify_journal(log).exit == 0
        assert ids(log) == [f"e{n}" for n in range(20)]


def test_a_file_is_finished_when_the_clock_says_so(path):
    now = 10 * 3_600_000_000_000

    async def run():
        nonlocal now
        async with Journal(path, rotate_every=3600, clock=lambda: now) as journal:
            now += 7_200_000_000_000
            await journal.append([event(1)])
            now += 3_599_000_000_000  # still the hour of its first event
            await journal.append([event(2)])
            now += 2_000_000_000
            await journal.append([event(3)])

    asyncio.run(run())
    (segment,) = list_log(path).sealed
    assert ids(segment.path) == ["e1", "e2"]
    assert verify_journal(path).exit == 0


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_finished_files_are_compressed_and_read_as_before(path, compression):
    if compression == "zstd":
        pytest.importorskip("backports.zstd")

    async def run():
        async with Journal(path, rotate_count=3, compress=compression) as journal:
            for number in range(10):
                await journal.append([event(number)])

    asyncio.run(run())
    assert [segment.packed for segment in list_log(path).segments] == [True, True, True, False]
    assert ids(path) == [f"e{n}" for n in range(10)]
    assert verify_journal(path).exit == 0
    for segment in list_log(path).sealed:
        assert verify_journal(segment.path).exit == 0
        assert stat.S_IMODE(segment.path.stat().st_mode) == 0o600


def test_what_was_left_uncompressed_is_compressed_at_the_next_start(path):
    async def run(**options):
        async with Journal(path, rotate_count=2, **options) as journal:
            for number in range(4):
                await journal.append([event(number)])

    asyncio.run(run())
    write(path, [event(9)], compress="gzip")
    assert all(segment.packed for segment in list_log(path).sealed)
    assert verify_journal(path).exit == 0


def test_a_compression_that_went_wrong_costs_nothing(path, monkeypatch):
    notices = []
    monkeypatch.setattr(compress, "gzip", _Forgetful)

    async def run():
        async with Journal(path, rotate_count=1, compress="gzip", on_notice=notices.append) as journal:
            for number in range(3):
                await journal.append([event(number)])
        await asyncio.sleep(0)

    asyncio.run(run())
    assert [segment.packed for segment in list_log(path).segments] == [False, False, False]
    assert "compression" in {notice.kind for notice in notices}
    assert ids(path) == ["e0", "e1", "e2"]
    assert verify_journal(path).exit == 0


class _Forgetful:
    """A gzip that loses the last byte of what it is given."""

    @staticmethod
    def GzipFile(**options):
        real = gzip.GzipFile(**options)
        write = real.write
        real.write = lambda data: write(data[:-1])
        return real


def test_a_truncated_compressed_file_is_never_silence(path):
    async def run():
        async with Journal(path, rotate_count=200, compress="gzip") as journal:
            for start in (0, 200):
                await journal.append([event(number) for number in range(start, start + 200)])

    asyncio.run(run())
    (segment,) = list_log(path).sealed
    data = segment.path.read_bytes()
    for cut in (len(data) // 2, len(data) - 1, 10):
        segment.path.write_bytes(data[:cut])
        assert verify_journal(path).exit == 5
        assert damages(path)
        assert ids(path)[-200:] == [f"e{n}" for n in range(200, 400)]


def test_only_what_is_kept_stays_and_the_beginning_is_declared(path):
    async def run():
        async with Journal(path, rotate_count=1, keep=2) as journal:
            for number in range(8):
                await journal.append([event(number)])

    asyncio.run(run())
    assert len(list_log(path).sealed) == 2
    report = verify_journal(path)
    assert (report.exit, report.verdict) == (0, "sound")
    assert report.first > 1
    assert ids(path) == ["e5", "e6", "e7"]


def test_rotating_on_demand_finishes_a_file_with_events_only(path):
    async def run():
        async with Journal(path) as journal:
            await journal.rotate()
            await journal.append([event(1)])
            await journal.rotate()
            await journal.rotate()

    asyncio.run(run())
    assert len(list_log(path).sealed) == 1
    assert verify_journal(path).exit == 0


def test_a_rotation_without_room_is_put_off_and_the_old_file_goes_on(path, monkeypatch):

    notices = []

    async def run():
        async with Journal(path, rotate_count=1, on_notice=notices.append) as journal:
            await journal.append([event(1)])
            with monkeypatch.context() as patch:
                patch.setattr(live, "start_file", _no_room)
                await journal.append([event(2)])
                with pytest.raises(WriteRefused):
                    await journal.rotate()
            await journal.append([event(3)])
            await asyncio.sleep(0)

    asyncio.run(run())
    assert [notice.kind for notice in notices] == ["rotation"]
    assert ids(path) == ["e1", "e2", "e3"]
    assert verify_journal(path).exit == 0


def _no_room(*_):
    raise OSError(24, "Too many open files")


def test_a_discarded_log_is_gone_as_a_whole_and_another_may_begin(path, tmp_path):
    write(path, [event(1)], rotate_count=1, compress="gzip")
    write(path, [event(2)], rotate_count=1, compress="gzip")
    other = path.with_name("other.jsonl")
    write(other, [event(7)])
    assert len(discard_log(path)) == 2
    assert discard_log(path) == []
    write(path, [event(3)])
    assert ids(path) == ["e3"]
    assert ids(other) == ["e7"]
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(b"{}\n")
    with pytest.raises(JournalRefused):
        discard_log(plain)
    assert plain.exists()


def test_a_log_that_is_written_cannot_be_discarded(path):
    async def run():
        async with Journal(path):
            with pytest.raises(JournalBusy):
                discard_log(path)
            path.with_name("audit.jsonl.lock").unlink()  # somebody tidied up
            with pytest.raises(JournalBusy):
                discard_log(path)
            assert path.exists()

    asyncio.run(run())


def test_the_lock_is_free_after_the_holder_was_killed(path):
    code = (
        "import asyncio, sys, os, signal\n"
        "from opsml_eventbus.journal import Journal\n"
        "async def run():\n"
        "    async with Journal(sys.argv[1]):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(run())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    write(path, [event(1)])
    assert ids(path) == ["e1"]


def test_a_reader_never_writes(path):
    write(path, [event(1)])
    before = snapshot(path.parent)
    path.parent.chmod(0o500)
    try:
        assert [item.seq for item in read_journal(path) if isinstance(item, Line)] == [2]
        assert snapshot(path.parent) == before
    finally:
        path.parent.chmod(0o700)


def test_canonical_lines_cost_no_decoding(path, monkeypatch):
    from opsml_eventbus.journal import writer

    monkeypatch.setattr(writer, "decode_line", None)
    write(path, lines(range(10)))
    assert len(ids(path)) == 10


# ── what people put into fields ──

HOSTILE = [
    "\u0000",
    "\u2028\u2029",
    "\u007f\u0080\u009f",
    "\u202e\u2066",
    "a\r\nb\n",
    "[/x][link=http://x]y[/link]:bomb:",
    "\x1b]52;c;aGk=\x07\x1b]8;;http://x\x07",
    '","seq":9,"durable":8,"chain":"' + "a" * 64 + '"}',
    '{"specversion":"1.0","id":"',
    "\U0001f9e8é",
    "\\" * 100,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_stored_faithfully_one_line_an_event(path, text):
    item = Event.new(text, {"k" + text: [text, {text: text}]}, id=(text * 9)[:40] or "x", source=text)
    write(path, [item, event(1)])
    first, second = read_journal(path)
    assert decode_line(first.line) == item
    assert second.seq == 3
    assert path.read_bytes().count(b"\n") == 4  # open, two events, checkpoint
    assert verify_journal(path).exit == 0


@pytest.mark.parametrize("data", [math.nan, math.inf, 1 << 64, -(1 << 63) - 1, "\ud800", {"a": {1}}, {1: 2}, object()])
def test_what_cannot_be_stored_costs_itself_only(path, data):
    async def run():
        async with Journal(path) as journal:
            ack = await journal.append([Event.new("t", {"x": data}), event(1)])
            assert ack.refused == 1

    asyncio.run(run())
    assert ids(path)[-1] == "e1"
    assert verify_journal(path).exit == 0


def test_an_event_at_the_limit_is_stored_and_one_beyond_it_is_not(path):
    fits = Event.new("t", "x" * ((1 << 20) - 200), id="fits")
    beyond = Event.new("t", "x" * (1 << 20), id="beyond")

    async def run():
        async with Journal(path) as journal:
            assert (await journal.append([fits])).refused == 0
            assert (await journal.append([beyond])).refused == 1

    asyncio.run(run())
    assert ids(path)[0] == "fits"
    assert len(ids(path)) == 2
    assert verify_journal(path).exit == 0


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.00000000000000000001.jsonl", "log"])
def test_a_name_no_log_can_have_is_refused_before_anything_is_touched(tmp_path, name):
    with pytest.raises(JournalRefused):
        Journal(tmp_path / name)
    assert not list(tmp_path.iterdir())
