"""What every end promises, one suite for all of them. A new end adds a line to SOURCES or SINKS.

A source here is a World: something that holds events when it is opened, and can be asked to hold more.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from audit_table import Server

from opsml_eventbus import AuditEvent, Event, EventBus, Gap
from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.endpoints import SCHEMES, open_sink, open_source
from opsml_eventbus.endpoints.memory import BusSink, ItemSource
from opsml_eventbus.endpoints.recorder import JournalSink
from opsml_eventbus.endpoints.stdio import StdinSource, StdoutSink
from opsml_eventbus.endpoints.tap import serve_tap
from opsml_eventbus.errors import UnknownEnd, Unreachable
from opsml_eventbus.filter import Filter
from opsml_eventbus.flow import Batch, Record, Report, Sink, Source, Start, pump
from opsml_eventbus.journal import Line, read_journal
from opsml_eventbus.journal.segments import load_zstd
from opsml_eventbus.stages import Limited, Merged, Originals, Stamped, Tee


def events(count: int, first: int = 0) -> list[Event]:
    """Odd ones are deletions. As OpsML's table has them: whole seconds, its columns."""
    return [
        Event.new(
            "audit",
            AuditEvent(username=f"user{n}", operation="Delete" if n % 2 else "List", metadata="{}"),
            id=f"e{n}",
            time=(1_700_000_000 + n) * 10**9,
        )
        for n in range(first, first + count)
    ]


GAP = Gap("gap", "upstream", 3, None, "lag", 1_700_000_000 * 10**9)


def name(item: Event | Gap) -> str:
    """Who it is, whatever ids the end gives."""
    return f"gap:{item.missed}" if isinstance(item, Gap) else item.data.username


def users(*numbers: int) -> list[str]:
    return [f"user{n}" for n in numbers]


# ── the worlds ───────────────────────────────────────────────────────────────────────────────────────────────────


class World:
    """An end with ten events in it (and a Gap behind the fourth, where it can hold one)."""

    history = True  # can begin with the last N
    gaps = True
    follows = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def source(self) -> Source:
        raise NotImplementedError

    def add(self, items: list[Event]) -> None:
        raise NotImplementedError

    @asynccontextmanager
    async def run(self) -> AsyncIterator[World]:
        self.add(events(10))
        yield self


def lines(items: list[Event]) -> bytes:
    """Ten or fewer; the first batch has its Gap in it."""
    out: list[bytes] = []
    for item in items:
        out.append(encode_line(item))
        if item.id == "e3":
            out.append(encode_line(GAP))
    return b"\n".join([*out, b""])


class PlainFile(World):
    def source(self) -> Source:
        return open_source(str(self.folder / "a.jsonl"))

    def add(self, items: list[Event]) -> None:
        with (self.folder / "a.jsonl").open("ab") as file:
            file.write(lines(items))


class CompressedFile(PlainFile):
    follows = False

    def source(self) -> Source:
        (self.folder / "a.jsonl.gz").write_bytes(gzip.compress((self.folder / "a.jsonl").read_bytes()))
        return open_source(str(self.folder / "a.jsonl.gz"))


class Directory(PlainFile):
    follows = False

    def source(self) -> Source:
        return open_source(str(self.folder))


class Log(World):
    """A journal; what comes later is a later writer's."""

    rotate: int | None = None
    compress: str | None = None

    def source(self) -> Source:
        return open_source(str(self.folder / "a.jsonl"))

    def add(self, items: list[Event]) -> None:
        # In a thread of its own, as another process would: the tests add while their loop is running.
        with ThreadPoolExecutor(1) as other:
            other.submit(lambda: asyncio.run(self._write(items))).result()

    async def _write(self, items: list[Event]) -> None:
        async with JournalSink(
            self.folder / "a.jsonl", mode="append", rotate_count=self.rotate, compress=self.compress
        ) as sink:
            await sink.write(batch([decode_line(line) for line in lines(items).splitlines()]))


class LogOfManyFiles(Log):
    rotate = 2


class CompressedLog(Log):
    rotate = 3
    compress = "zstd"


class FolderOfALog(LogOfManyFiles):
    def source(self) -> Source:
        return open_source(str(self.folder))


class ZstdFile(PlainFile):
    follows = False

    def source(self) -> Source:
        packed = load_zstd("").compress((self.folder / "a.jsonl").read_bytes())
        (self.folder / "a.jsonl.zst").write_bytes(packed)
        return open_source(str(self.folder / "a.jsonl.zst"))


class PackedLog(Log):
    """A live file that somebody compressed and put elsewhere: it has no seal, and needs none."""

    follows = False

    def source(self) -> Source:
        (self.folder / "copy.jsonl.gz").write_bytes(gzip.compress((self.folder / "a.jsonl").read_bytes()))
        return open_source(str(self.folder / "copy.jsonl.gz"))


class Pipe(World):
    history = False
    follows = False

    def source(self) -> Source:
        reader, writer = os.pipe()
        os.write(writer, (self.folder / "pipe").read_bytes())
        os.close(writer)
        return _Closing(StdinSource(reader), reader)

    def add(self, items: list[Event]) -> None:
        with (self.folder / "pipe").open("ab") as file:
            file.write(lines(items))


class _Closing(Source):
    """Standard input is not a source's to close; a test's pipe is."""

    def __init__(self, source: Source, fd: int) -> None:
        self._source = source
        self._fd = fd

    def batches(self, where=None, start=Start()):  # type: ignore[no-untyped-def]
        return self._source.batches(where, start)

    async def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Memory(World):
    history = False
    follows = False

    def source(self) -> Source:
        return ItemSource([decode_line(line) for line in self.data.splitlines()])

    def add(self, items: list[Event]) -> None:
        self.data = lines(items)


class LiveTap(World):
    @property
    def text(self) -> str:
        return f"unix:{self.folder}/t.sock"

    def source(self) -> Source:
        return open_source(self.text, wait=False)

    def add(self, items: list[Event]) -> None:
        for item in items:
            self.bus.publish(item)
            if item.id == "e3":
                self.bus.pass_gap(GAP)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[World]:
        self.bus = EventBus(64)
        self.folder.chmod(0o700)
        async with serve_tap(self.bus, self.folder / "t.sock"):
            self.add(events(10))
            yield self
        self.bus.close()


class NamedTap(LiveTap):
    def source(self) -> Source:
        return open_source("t", folder=self.folder, wait=False)


class Table(World):
    gaps = False

    def source(self) -> Source:
        return open_source(self.server.url)

    def add(self, items: list[Event]) -> None:
        from datetime import UTC, datetime

        for item in items:
            moment = datetime.fromtimestamp(item.time // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")
            self.server.insert(username=item.data.username, operation=item.data.operation, created_at=moment)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[World]:
        self.server = Server(self.folder / "o.db")
        self.add(events(10))
        yield self
        self.server.close()


WORLDS = [
    PlainFile,
    CompressedFile,
    ZstdFile,
    Directory,
    Log,
    LogOfManyFiles,
    CompressedLog,
    FolderOfALog,
    PackedLog,
    Pipe,
    Memory,
    LiveTap,
    NamedTap,
    Table,
]


def run(kind: type[World], check: Callable[[World], object]) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="eb-") as folder:
            async with asyncio.timeout(30), kind(Path(folder)).run() as world:
                await check(world)  # type: ignore[misc]
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"

    descriptors = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    asyncio.run(main())
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) <= descriptors, "descriptors left behind"


async def collect(source: Source, where: Filter | None = None, start: Start = Start()) -> tuple[list[str], Report]:
    got = List()
    async with source:
        report = await pump(source, got, where=where, start=start)
    return [name(item) for item in got.items], report


class List(Sink):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.items: list[Event | Gap] = []

    async def write(self, batch: Batch):  # type: ignore[no-untyped-def]
        from opsml_eventbus.flow import Ack

        assert batch.records, "an empty batch reached a sink"
        self.items += [record.item for record in batch.records]
        return Ack(len(batch.records))


def with_gap(world: World, names: list[str]) -> list[str]:
    at = names.index("user3") + 1 if "user3" in names else 0
    return [*names[:at], "gap:3", *names[at:]] if world.gaps else names


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", WORLDS)
def test_every_event_comes_once_in_order_with_its_gaps(kind: type[World]) -> None:
    async def check(world: World) -> None:
        got, report = await collect(world.source())
        assert got == with_gap(world, users(*range(10)))
        assert (report.seen, report.shown, report.lost) == (10, 10, 3 if world.gaps else 0)

    run(kind, check)


@pytest.mark.parametrize("kind", WORLDS)
def test_a_filter_removes_events_and_never_a_gap(kind: type[World]) -> None:
    async def check(world: World) -> None:
        got, report = await collect(world.source(), Filter.of(op="delete"))
        assert got == with_gap(world, users(1, 3, 5, 7, 9))
        assert (report.seen, report.shown) == (10, 5)
        nothing, report = await collect(world.source(), Filter.of(user="nobody"))
        assert nothing == (["gap:3"] if world.gaps else [])
        assert (report.seen, report.shown) == (10, 0)

    run(kind, check)


@pytest.mark.parametrize("kind", [kind for kind in WORLDS if kind.history])
@pytest.mark.parametrize("last", [0, 1, 4, 99])
def test_the_last_n_are_counted_after_the_filter(kind: type[World], last: int) -> None:
    async def check(world: World) -> None:
        got, _ = await collect(world.source(), None, Start(last=last))
        assert [each for each in got if each.startswith("user")] == users(*range(10))[max(0, 10 - last) :]
        got, _ = await collect(world.source(), Filter.of(op="delete"), Start(last=last))
        assert [each for each in got if each.startswith("user")] == users(1, 3, 5, 7, 9)[max(0, 5 - last) :]

    run(kind, check)


@pytest.mark.parametrize("kind", WORLDS)
def test_a_window_of_time_includes_its_beginning_and_not_its_end(kind: type[World]) -> None:
    async def check(world: World) -> None:
        second = 1_700_000_000
        got, _ = await collect(world.source(), None, Start(since=(second + 2) * 10**9, until=(second + 5) * 10**9))
        assert [each for each in got if each.startswith("user")] == users(2, 3, 4)

    run(kind, check)


@pytest.mark.parametrize("kind", [kind for kind in WORLDS if kind.history])
def test_it_goes_on_behind_an_event_or_begins_with_a_gap(kind: type[World]) -> None:
    async def check(world: World) -> None:
        kept = List()
        async with world.source() as source:
            await pump(source, kept)
        sixth = next(item for item in kept.items if name(item) == "user6")
        got, _ = await collect(world.source(), None, Start(after=sixth.id))
        assert got == users(7, 8, 9)
        got, report = await collect(world.source(), None, Start(after="nobody-knows"))
        assert got[0] == "gap:None"
        assert report.unknown
        assert [each for each in got if each.startswith("user")] == users(*range(10))

    run(kind, check)


@pytest.mark.parametrize("kind", [kind for kind in WORLDS if kind.follows])
@pytest.mark.parametrize("last", [0, "all"])
def test_following_goes_on_with_what_is_new(kind: type[World], last: int) -> None:
    async def check(world: World) -> None:
        got = List()
        async with world.source() as source:
            pumping = asyncio.create_task(pump(source, got, start=Start(last=last, follow=True)))
            before = 0 if last == 0 else 10
            async with asyncio.timeout(10):
                while sum(isinstance(item, Event) for item in got.items) < before:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.3)  # a source that has begun; what is new is what comes after
                world.add(events(3, first=10))
                while [name(item) for item in got.items][-1:] != ["user12"]:
                    await asyncio.sleep(0.01)
            assert [name(item) for item in got.items][-3:] == users(10, 11, 12)
            assert sum(isinstance(item, Event) for item in got.items) == before + 3
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)

    run(kind, check)


@pytest.mark.parametrize("kind", WORLDS)
def test_one_that_is_abandoned_leaves_nothing_behind(kind: type[World]) -> None:
    async def check(world: World) -> None:
        for _ in range(3):
            got, _ = await collect(Limited(world.source(), 2))
            assert got == users(0, 1)
            async with world.source():
                pass  # opened and never read

    run(kind, check)


@pytest.mark.parametrize(
    "text", ["nowhere.jsonl", "/no/such/file", "unix:/tmp/no/such.sock", "nobody", "sqlite:////no/such.db"]
)
def test_what_is_not_there_is_unreachable_and_never_a_wait(text: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with asyncio.timeout(5):
            with pytest.raises(Unreachable):
                await collect(open_source(text, folder=tmp_path, wait=False), None, Start(follow=False))

    asyncio.run(check())


# ── sinks ────────────────────────────────────────────────────────────────────────────────────────────────────────

MANY = events(3000)


def batch(items: list[Event | Gap]) -> Batch:
    return Batch([Record(item) for item in items], None, len(items))


@asynccontextmanager
async def file_sink(folder: Path) -> AsyncIterator[tuple[Sink, Callable[[], list[bytes]]]]:
    async with open_sink(str(folder / "out.jsonl")) as sink:
        yield sink, lambda: [item.line for item in read_journal(folder / "out.jsonl") if isinstance(item, Line)]


@asynccontextmanager
async def tap_sink(folder: Path) -> AsyncIterator[tuple[Sink, Callable[[], list[bytes]]]]:
    bus = EventBus(4096)
    kept = bus.subscribe(order="published")
    async with (
        serve_tap(bus, folder / "t.sock", allow_publish=True),
        open_sink(f"unix:{folder}/t.sock") as sink,
        kept,
    ):
        yield sink, lambda: [encode_line(item) for item in kept.drain(100_000)]
    bus.close()


@asynccontextmanager
async def bus_sink(folder: Path) -> AsyncIterator[tuple[Sink, Callable[[], list[bytes]]]]:
    bus = EventBus(4096)
    async with bus.subscribe(order="published") as kept:
        yield BusSink(bus), lambda: [encode_line(item) for item in kept.drain(100_000)]
    bus.close()


@asynccontextmanager
async def pipe_sink(folder: Path) -> AsyncIterator[tuple[Sink, Callable[[], list[bytes]]]]:
    with (folder / "out").open("wb") as out:
        yield StdoutSink(out.fileno()), lambda: (folder / "out").read_bytes().splitlines()


SINKS: list[Callable[[Path], AbstractAsyncContextManager[tuple[Sink, Callable[[], list[bytes]]]]]] = [
    file_sink,
    tap_sink,
    bus_sink,
    pipe_sink,
]


def run_sink(
    open: Callable[[Path], AbstractAsyncContextManager[tuple[Sink, Callable[[], list[bytes]]]]], check
) -> None:  # type: ignore[no-untyped-def]
    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="eb-") as folder:
            async with asyncio.timeout(30), open(Path(folder)) as (sink, written):
                await check(sink, written)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@pytest.mark.parametrize("open", SINKS)
def test_what_is_acknowledged_is_written_byte_for_byte(open) -> None:  # type: ignore[no-untyped-def]
    async def check(sink: Sink, written: Callable[[], list[bytes]]) -> None:
        foreign = decode_line(
            b'{"specversion":"1.0","id":"f","source":"s","type":"audit","time":"2026-01-01T00:00:00.000000000Z",'
            b'"x":[1],"data":{"username":"u","new":1.50}}'
        )
        stamped = [item.replace(replay="r") for item in MANY]
        items: list[Event | Gap] = [*stamped, foreign, GAP]
        for at in range(0, len(items), 1000):
            ack = await sink.write(batch(items[at : at + 1000]))
            assert ack.written == len(items[at : at + 1000])
            assert not ack.refusals
        assert written() == [encode_line(item) for item in items]

    run_sink(open, check)


@pytest.mark.parametrize("open", [sink for sink in SINKS if sink is not bus_sink])
def test_what_cannot_be_written_costs_itself(open) -> None:  # type: ignore[no-untyped-def]
    async def check(sink: Sink, written: Callable[[], list[bytes]]) -> None:
        bad = Event.new("made.up", {"a": float("nan")}, id="bad")
        ack = await sink.write(batch([MANY[0], bad, MANY[1]]))
        assert len(ack.refusals) == 1
        assert "nan has no JSON form" in str(ack.refusals[0].error)
        items = [decode_line(line) for line in written()]
        assert [item.id for item in items if isinstance(item, Event)] == ["e0", "e1"]
        [gap] = [item for item in items if isinstance(item, Gap)]
        assert (gap.missed, gap.after, gap.reason) == (1, "e0", "invalid")

    run_sink(open, check)


# ── stages and the table of schemes ──────────────────────────────────────────────────────────────────────────────


def test_merged_sources_give_everything_each_has() -> None:
    got, report = asyncio.run(collect(Merged([ItemSource(events(2000)), ItemSource(events(2000, 5000))])))
    assert sorted(got, key=lambda each: int(each[4:])) == users(*range(2000), *range(5000, 7000))
    assert [each for each in got if int(each[4:]) < 5000] == users(*range(2000))
    assert report.seen == 4000


def test_an_error_in_one_of_several_sources_is_not_missed_among_the_others() -> None:
    class Failing(ItemSource):
        async def batches(self, where=None, start=Start()):  # type: ignore[no-untyped-def]
            async for each in super().batches(where, start):
                yield each
            raise Unreachable("there", "gone")

    async def check() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.jsonl"
            path.write_bytes(lines(events(3)))
            forever = open_source(str(path))
            with pytest.raises(Unreachable):
                await collect(Merged([Failing(events(3)), forever]), None, Start(follow=True))

    asyncio.run(check())


def test_an_error_ends_a_merge_while_another_source_is_busy_and_the_sink_slow() -> None:
    class Busy(ItemSource):
        async def batches(self, where=None, start=Start()):  # type: ignore[no-untyped-def]
            while True:
                yield Batch([Record(events(1)[0])], None, 1)
                await asyncio.sleep(0)

    class Failing(ItemSource):
        async def batches(self, where=None, start=Start()):  # type: ignore[no-untyped-def]
            await asyncio.sleep(0.05)
            raise Unreachable("there", "gone")
            yield

    class Sleepy(List):
        async def write(self, batch: Batch):  # type: ignore[no-untyped-def]
            await asyncio.sleep(0.01)
            return await super().write(batch)

    async def check() -> None:
        with pytest.raises(Unreachable):
            await pump(Merged([Busy([]), Failing([])]), Sleepy())

    asyncio.run(asyncio.wait_for(check(), 10))


def test_what_is_cut_is_not_counted() -> None:
    first, second = events(2)
    got, report = asyncio.run(collect(Limited(ItemSource([first, GAP, second, GAP]), 1)))
    assert got == ["user0"]
    assert (report.seen, report.shown, report.lost, report.refused) == (1, 1, 0, 0)


def test_stages_stack() -> None:
    source = Limited(
        Stamped(Originals(ItemSource([*events(3), *[item.replace(replay="x") for item in events(3)]])), "r"), 2
    )
    kept = List()

    async def check() -> None:
        await pump(source, Tee(kept, kept))

    asyncio.run(check())
    assert [(item.id, item.replay) for item in kept.items if isinstance(item, Event)] == [("e0", "r"), ("e1", "r")] * 2


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(UnknownEnd) as refused:
        open_source("kafka://host/topic")
    assert any("sqlite:///" in form for form in refused.value.known)
    with pytest.raises(UnknownEnd, match="not written"):
        open_sink("sqlite:///x.db")
    assert set(SCHEMES) >= {"unix", "sqlite"}
    for text in ("postgresql://me:secret@h/db", "redis://me:secret@h"):
        with pytest.raises(UnknownEnd) as refused:
            open_sink(text)
        assert "secret" not in str(refused.value)
