"""A journal as a sink and as a source: what every file that the command line writes promises."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from test_files import append, events, ids, name, write

from opsml_eventbus import Event, Gap
from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.endpoints import open_source
from opsml_eventbus.endpoints.journal import JournalSource, is_journal
from opsml_eventbus.endpoints.recorder import JournalSink
from opsml_eventbus.errors import (
    AlreadyThere,
    EventError,
    JournalBusy,
    JournalError,
    JournalFailed,
    JournalTaken,
    UnknownEnd,
    Unreachable,
    WriteRefused,
)
from opsml_eventbus.filter import Filter
from opsml_eventbus.flow import Batch, Record, Report, Source, Start, pump
from opsml_eventbus.journal import Journal, live, verify_journal
from opsml_eventbus.journal.committer import Committer


def batch_of(items: list[Event]) -> Batch:
    return Batch([Record(item) for item in items])


def record(path: Path, *batches: list[Event], mode: Any = "create", **options: Any) -> None:
    async def work() -> None:
        async with JournalSink(path, mode=mode, **options) as sink:
            for items in batches:
                for piece in sink.pieces(batch_of(items)):
                    ack = await sink.write(piece)
                    assert ack.durable
                    assert ack.written == len(piece.records)

    asyncio.run(work())


async def collect(source: Source, where: Filter | None = None, start: Start = Start()) -> tuple[list[str], Batch]:
    everything = Batch([])
    async with source:
        async for batch in source.batches(where, start):
            everything.records += batch.records
            everything.refusals += batch.refusals
            everything.seen += batch.seen
            everything.position = batch.position
    return [name(record.item) for record in everything.records], everything


def read(path: Path, where: Filter | None = None, start: Start = Start()) -> list[str]:
    return asyncio.run(collect(open_source(str(path)), where, start))[0]


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_written_is_read_back_sound_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.jsonl"
    record(path, events(3))
    assert is_journal(path)
    assert read(path) == ids(0, 1, 2)
    assert verify_journal(path).exit == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_log_is_never_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    record(path, events(2))
    with pytest.raises(AlreadyThere):
        record(path, events(1))
    record(path, events(3)[2:], mode="append")
    assert read(path) == ids(0, 1, 2)
    record(path, events(1), mode="overwrite")
    assert read(path) == ids(0)
    assert verify_journal(path).exit == 0


def test_overwriting_removes_the_finished_files_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    record(path, events(4), events(8)[4:], rotate_count=4)
    assert len(list(tmp_path.glob("a.*.jsonl"))) >= 1
    record(path, events(1), mode="overwrite")
    assert read(path) == ids(0)
    assert verify_journal(path).exit == 0


def test_a_log_whose_live_file_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    record(path, events(4), events(8)[4:], rotate_count=4)
    path.unlink()
    with pytest.raises(AlreadyThere):
        record(path, events(1))


def test_the_last_event_of_a_log_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    async def work() -> None:
        async with JournalSink(path) as sink:
            assert sink.last_id() is None
            await sink.write(batch_of(events(5)))
            await sink.write(Batch([Record(Gap.new(1, None, "lag")) for _ in range(600)]))
        async with JournalSink(path, mode="append") as sink:
            assert sink.last_id() == "e4"

    asyncio.run(work())


def test_a_torn_end_is_kept_aside_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    record(path, events(2))
    append(path, b'{"half a li')
    told: list[str] = []

    async def work() -> None:
        async with JournalSink(path, mode="append", notify=lambda notice: told.append(notice.kind)) as sink:
            await sink.write(batch_of(events(3)[2:]))

    asyncio.run(work())
    assert read(path) == ids(0, 1, 2)
    [aside] = [entry for entry in tmp_path.iterdir() if "torn" in entry.name]
    assert aside.read_bytes() == b'{"half a li'
    assert "recovered" in told


def test_a_file_that_is_no_journal_is_not_appended_to(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", events(2))
    before = path.read_bytes()
    with pytest.raises(EventError):
        record(path, events(1), mode="append")
    assert path.read_bytes() == before


def test_a_second_recorder_is_refused_and_told_who_holds_the_log(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    linked = tmp_path / "other"
    linked.symlink_to(tmp_path, target_is_directory=True)

    async def work() -> None:
        async with JournalSink(path):
            for again in (path, linked / "a.jsonl"):
                with pytest.raises(JournalBusy, match=str(os.getpid())):
                    async with JournalSink(again, mode="append"):
                        pass

    asyncio.run(work())
    record(path, events(1), mode="append")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("elsewhere"),
        lambda path: path.mkdir(),
        os.mkfifo,
        lambda path: (path.write_bytes(b""), os.link(path, f"{path}.2")),
    ],
)
def test_only_a_regular_file_with_one_name_is_written(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "a.jsonl"
    make(path)
    with pytest.raises((JournalError, Unreachable)):
        record(path, events(1), mode="append")


def test_devices_and_compressed_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        record(Path("/dev/full"), events(1), mode="append")
    assert not Path("/dev/full.lock").exists()
    with pytest.raises(UnknownEnd, match=r"\.jsonl"):
        JournalSink(tmp_path / "a.jsonl.gz")


def test_an_event_that_cannot_be_written_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    async def work() -> None:
        async with JournalSink(path) as sink:
            bad = Event.new("made.up", {"a": float("nan")}, id="bad")
            ack = await sink.write(batch_of([*events(1), bad, *events(2)[1:]]))
            assert [str(refusal.error) for refusal in ack.refusals] == ["data.a: nan has no JSON form"]

    asyncio.run(work())
    assert read(path) == ["e0", "gap:invalid:1", "e1"]


def test_a_failed_fsync_that_nobody_waited_for_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def work() -> None:
        async with JournalSink(tmp_path / "a.jsonl", fsync="interval=60s") as sink:
            ack = await sink.write(batch_of(events(1)))
            assert not ack.durable
            monkeypatch.setattr(live, "sync", sync)

    with pytest.raises(JournalFailed, match="fsync"):
        asyncio.run(work())


def test_a_recording_whose_file_is_gone_says_so_though_its_thread_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed before the thread that has refused the batch says why it ends."""
    refuse = Committer._refuse

    def slow(*arguments: Any) -> None:
        refuse(*arguments)
        time.sleep(0.2)

    async def work() -> None:
        async with JournalSink(tmp_path / "a.jsonl") as sink:
            await sink.write(batch_of(events(1)))
            (tmp_path / "a.jsonl").unlink()
            await sink.write(batch_of(events(2)))

    monkeypatch.setattr(Committer, "_refuse", slow)
    with pytest.raises(JournalTaken):
        asyncio.run(work())


def test_no_file_holds_more_than_it_may_however_large_the_batch(tmp_path: Path) -> None:
    record(tmp_path / "a.jsonl", events(25), rotate_count=10)
    record(tmp_path / "b" / "b.jsonl", events(25), rotate_size=6000)
    assert [len(read(each)) for each in sorted(tmp_path.glob("a.0*.jsonl"))] == [10, 10]
    assert all(each.stat().st_size <= 6000 for each in (tmp_path / "b").glob("b*.jsonl"))
    assert read(tmp_path / "a.jsonl") == read(tmp_path / "b") == ids(*range(25))


def test_no_file_holds_more_than_it_may_however_the_batches_fall(tmp_path: Path) -> None:
    sizes = [96, 40, 99, 1, 60, 60, 99]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    record(
        tmp_path / "a.jsonl", *[events(size, start) for size, start in zip(sizes, starts, strict=True)], rotate_count=99
    )
    assert [len(read(each)) for each in sorted(tmp_path.glob("a.0*.jsonl"))] == [96, 40, 99, 61, 60]
    assert read(tmp_path / "a.jsonl") == ids(*range(sum(sizes)))


def test_appends_that_wait_together_are_divided_over_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    async def work() -> None:
        async with Journal(path, rotate_count=10) as journal:
            await asyncio.gather(*[journal.append([event]) for event in events(64)])

    asyncio.run(work())
    assert [len(read(each)) for each in sorted(tmp_path.glob("a.0*.jsonl"))] == [10] * 6
    assert read(path) == ids(*range(64))


class Given(Source):
    """A batch, and then the end."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        yield self._batch


class FullDisk:
    """Within it, a write to a journal fails once `room` bytes are in its files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, room: int) -> None:
        real = live.write_all

        def write(descriptor: int, data: bytes) -> None:
            if sum(path.stat().st_size for path in folder.glob("a*.jsonl")) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor, data)

        monkeypatch.setattr(live, "write_all", write)


def test_what_is_in_the_file_is_in_the_summary_though_the_rest_of_its_batch_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, report = tmp_path / "a.jsonl", Report()
    FullDisk(monkeypatch, tmp_path, 9_000)

    async def work() -> None:
        async with JournalSink(path, rotate_count=10) as sink:
            await pump(Given(Batch([Record(item) for item in events(500)], seen=500)), sink, report=report)

    with pytest.raises(WriteRefused):
        asyncio.run(work())
    monkeypatch.undo()
    assert verify_journal(path).exit == 0
    assert 0 < report.shown < 500
    assert report.seen == 500
    assert read(path) == ids(*range(report.shown))


def test_a_recording_that_waits_for_a_full_disk_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, told = tmp_path / "a.jsonl", asyncio.Event()

    async def work() -> None:
        async with JournalSink(path, on_error="block", notify=lambda _: told.set()) as sink:
            FullDisk(monkeypatch, tmp_path, 0)
            task = asyncio.create_task(pump(Given(batch_of(events(5))), sink))
            await asyncio.wait_for(told.wait(), 5)  # it is blocked
            task.cancel()
            with pytest.raises(WriteRefused):
                await asyncio.wait_for(task, 5)

    asyncio.run(work())
    monkeypatch.undo()
    assert read(path) == []


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Thirty events in several files, some compressed, one more run behind."""
    path = tmp_path / "a.jsonl"
    record(path, *[events(5, first) for first in range(0, 25, 5)], rotate_count=10, compress="gzip")
    record(path, events(5, 25), mode="append")
    return path


def test_the_last_events_of_a_damaged_file_come_once_and_the_damage_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    record(path, events(25), rotate_count=20, compress="gzip")
    (packed,) = tmp_path.glob("a.0*.gz")
    packed.write_bytes(packed.read_bytes()[:-20])
    shown, batch = asyncio.run(collect(open_source(str(packed)), None, Start(last=5)))
    assert shown == [*ids(*range(15, 20)), "gap:invalid:None"]
    assert [refusal.place for refusal in batch.refusals] == [packed.name]


def test_the_live_path_and_its_folder_mean_the_whole_log(log: Path) -> None:
    assert list(log.parent.glob("*.gz"))
    assert read(log) == ids(*range(30))
    assert read(log.parent) == ids(*range(30))


def test_a_finished_file_means_itself(log: Path) -> None:
    [first, *_] = sorted(log.parent.glob("a.0*"))
    assert read(first) == ids(*range(10))


@pytest.mark.parametrize("last", [0, 1, 7, 29, 99])
def test_the_last_n_reach_across_files(log: Path, last: int) -> None:
    assert read(log, None, Start(last=last)) == ids(*range(max(0, 30 - last), 30))
    assert read(log, Filter.of(id="1?"), Start(last=last)) == ids(*range(max(10, 20 - last), 20))


def test_reading_goes_on_behind_an_event_or_a_position(log: Path) -> None:
    assert read(log, None, Start(after="e12")) == ids(*range(13, 30))
    assert read(log, None, Start(after="gone"))[:2] == ["gap:disconnect:None", "e0"]
    _, batch = asyncio.run(collect(JournalSource(log)))
    twelfth = batch.records[12].position
    assert read(log, None, Start(position=twelfth)) == ids(*range(13, 30))


def test_a_window_of_time_reaches_across_files(log: Path) -> None:
    assert read(log, None, Start(since=8 * 10**9, until=22 * 10**9)) == ids(*range(8, 22))


def test_lines_pass_undecoded_and_unplaced(log: Path) -> None:
    _, batch = asyncio.run(collect(JournalSource(log)))
    lines = [record.line for record in batch.records]
    assert lines == [encode_line(event) for event in events(30)]
    assert all(b'"chain"' not in line for line in lines)
    assert all(decode_line(line).id == name for line, name in zip(lines, ids(*range(30)), strict=True))


def test_damage_costs_itself_and_is_named(log: Path) -> None:
    data = log.read_bytes().splitlines(keepends=True)
    broken = next(index for index, line in enumerate(data) if b'"id":"e27"' in line)
    data[broken] = b"rubbish\n"
    log.write_bytes(b"".join(data))
    got, batch = asyncio.run(collect(JournalSource(log)))
    assert [each for each in got if each.startswith("e")] == ids(*range(27), 28, 29)
    assert any(each.startswith("gap:invalid") for each in got)
    assert any(f"a.jsonl:{broken + 1}" in refusal.place for refusal in batch.refusals)
    assert verify_journal(log).exit == 5


def test_a_truncated_archive_is_never_silent(log: Path) -> None:
    [first, *_] = sorted(log.parent.glob("*.gz"))
    first.write_bytes(first.read_bytes()[:-20])
    got, batch = asyncio.run(collect(JournalSource(log)))
    assert batch.refusals
    assert any(each.startswith("gap:invalid") for each in got)
    assert verify_journal(log).exit == 5


def test_a_rotating_log_is_followed_without_a_hole_or_a_repetition(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    got: list[str] = []

    async def work() -> None:
        async with JournalSink(path, rotate_count=7, compress="gzip", keep=50) as sink:
            await sink.write(batch_of(events(3)))

            async def follow() -> None:
                async for batch in open_source(str(path)).batches(None, Start(follow=True)):
                    got.extend(name(record.item) for record in batch.records)

            following = asyncio.create_task(follow())
            for first in range(3, 203, 4):
                await sink.write(batch_of(events(4, first)))
                await asyncio.sleep(0.005)
            async with asyncio.timeout(20):
                while len(got) < 203:
                    await asyncio.sleep(0.01)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    asyncio.run(work())
    assert got == ids(*range(203))


def test_a_log_that_is_overwritten_while_it_is_followed_is_read_on_and_that_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    got: list[str] = []
    said: list[str] = []

    async def put(items: list[Event], mode: Any) -> None:
        async with JournalSink(path, mode=mode) as sink:
            await sink.write(batch_of(items))

    async def until(count: int) -> None:
        async with asyncio.timeout(20):
            while len(got) < count:
                await asyncio.sleep(0.01)

    async def work() -> None:
        await put(events(3), "create")
        source = open_source(str(path), notify=lambda notice: said.append(notice.detail))

        async def follow() -> None:
            async for batch in source.batches(None, Start(follow=True)):
                got.extend(name(record.item) for record in batch.records)

        following = asyncio.create_task(follow())
        await until(3)
        path.unlink()
        async with asyncio.timeout(20):
            while not said:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.35)  # several looks later it is still said only once
        assert len(said) == 1
        await put(events(7)[5:], "create")
        await until(5)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(work())
    assert got == ids(0, 1, 2, 5, 6)
    assert "another log" in said[-1]
