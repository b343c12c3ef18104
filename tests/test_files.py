"""JSONL files as ends: what is acknowledged is on disk, and a damaged file is read as far as it is sound."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from opsml_eventbus import AuditEvent, Event, Gap
from opsml_eventbus.codec import encode_line
from opsml_eventbus.endpoints import files
from opsml_eventbus.endpoints.files import FileSource
from opsml_eventbus.errors import Refused, UnknownEnd, Unreachable
from opsml_eventbus.filter import Filter
from opsml_eventbus.flow import Batch, Notice, Start


def events(count: int, first: int = 0, **members: str) -> list[Event]:
    return [
        Event.new("audit", AuditEvent(resource_id=str(n), **members), id=f"e{n}", time=n * 10**9)
        for n in range(first, first + count)
    ]


def write(path: Path, items: list[Event], tail: bytes = b"") -> Path:
    path.write_bytes(b"".join(encode_line(item) + b"\n" for item in items) + tail)
    return path


async def read(source: FileSource, where: Filter | None = None, start: Start = Start()) -> tuple[list[str], Batch]:
    """The ids in order (a Gap as «gap:reason:missed»), and everything as one batch."""
    everything = Batch([])
    async with source:
        async for batch in source.batches(where, start):
            everything.records += batch.records
            everything.refusals += batch.refusals
            everything.seen += batch.seen
            everything.position = batch.position
    return [name(record.item) for record in everything.records], everything


def name(item: Event | Gap) -> str:
    return f"gap:{item.reason}:{item.missed}" if isinstance(item, Gap) else item.id


def ids(*numbers: int) -> list[str]:
    return [f"e{n}" for n in numbers]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chunk", [100, 1_000, 256 * 1024])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("last", "expected"), [("all", range(30)), (0, ()), (1, (29,)), (5, range(25, 30)), (99, range(30))]
)
def test_the_last_n_are_the_last_n(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, compressed: bool, last: int, expected: range
) -> None:
    path = write(tmp_path / "a.jsonl", events(30))
    if compressed:
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    monkeypatch.setattr(files, "CHUNK_BYTES", chunk)
    got, _ = asyncio.run(read(FileSource(path), None, Start(last=last)))
    assert got == ids(*expected)


def test_the_last_n_are_counted_after_the_filter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", events(10) + events(3, status="Denied") + events(4))
    got, batch = asyncio.run(read(FileSource(path), Filter.of(status="denied"), Start(last=2)))
    assert got == ids(1, 2)
    assert batch.seen == 6  # from the first one shown to the end


def test_a_window_of_time_holds_whatever_the_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*events(10)[5:], *events(10)[:5]])  # the clock stepped back
    got, _ = asyncio.run(read(FileSource(path), None, Start(since=3 * 10**9, until=7 * 10**9)))
    assert got == ids(5, 6, 3, 4)


def test_the_last_n_are_counted_within_the_window(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", events(10))
    got, _ = asyncio.run(read(FileSource(path), None, Start(last=2, since=3 * 10**9, until=7 * 10**9)))
    assert got == ids(5, 6)


def test_reading_goes_on_behind_an_event(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", events(10))
    assert asyncio.run(read(FileSource(path), None, Start(after="e6")))[0] == ids(7, 8, 9)
    assert asyncio.run(read(FileSource(path), None, Start(after="gone")))[0] == [
        "gap:disconnect:None",
        *ids(*range(10)),
    ]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"12", "expected object"),
        (b"{", "expect"),
        (b"\x00" * 900, "expecting value"),
        (b'{"specversion":"1.0"}', "missing"),
        (b"x" * (3 << 20), "a line may have"),
        (b"{" + b"x" * (3 << 20) + b"}", "a line may have"),
    ],
)
@pytest.mark.parametrize("filtered", [False, True])
def test_a_line_that_is_no_event_costs_itself_and_names_its_place(
    tmp_path: Path, bad: bytes, why: str, filtered: bool
) -> None:
    good = [encode_line(event) for event in events(3)]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([good[0], bad, b"", b"  ", good[1], good[2], b""]))
    where = Filter.of(resource="file") if filtered else None
    got, batch = asyncio.run(read(FileSource(path), where))
    assert got == ["e0", "gap:invalid:1", "e1", "e2"]
    assert batch.seen == 3
    [refusal] = batch.refusals
    assert refusal.place == f"{path}:2"
    assert why in str(refusal.error)
    gap = batch.records[1].item
    assert isinstance(gap, Gap)
    assert gap.after == "e0"


@pytest.mark.parametrize("bad", [b"\0", b"\xff"])
def test_a_filter_hides_no_line_with_a_nul_or_that_is_no_utf_8(tmp_path: Path, bad: bytes) -> None:
    first, second, third = (encode_line(event) for event in events(3))
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([first, second.replace(b'"unknown"', b'"unk' + bad + b'own"', 1), third, b""]))
    for where in (None, Filter.of(type="absent")):
        _, batch = asyncio.run(read(FileSource(path), where))
        assert [refusal.place for refusal in batch.refusals] == [f"{path}:2"]


def test_a_last_line_without_newline_counts_when_it_is_whole(tmp_path: Path) -> None:
    whole, cut = encode_line(events(3)[2]), encode_line(events(3)[2])[:-1]
    assert asyncio.run(read(FileSource(write(tmp_path / "a.jsonl", events(2), whole))))[0] == ids(0, 1, 2)
    got, batch = asyncio.run(read(FileSource(write(tmp_path / "b.jsonl", events(2), cut))))
    assert got == [*ids(0, 1), "gap:invalid:1"]
    assert len(batch.refusals) == 1


def test_cutting_a_file_at_every_byte_loses_only_what_was_cut(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", events(3)).read_bytes()
    ends = [at for at, byte in enumerate(data) if byte == 0x0A]
    path = tmp_path / "cut.jsonl"

    async def check() -> None:
        for cut in range(len(data) + 1):
            path.write_bytes(data[:cut])
            got, batch = await read(FileSource(path))
            whole = sum(end <= cut for end in ends)
            assert [name for name in got if name.startswith("e")] == ids(*range(whole))
            torn = cut not in (0, *ends, *(end + 1 for end in ends))
            assert len(batch.refusals) == torn

    asyncio.run(check())


@pytest.mark.parametrize("cut", [5, 60, -9, -1])
def test_a_truncated_archive_is_never_silent(tmp_path: Path, cut: int) -> None:
    plain = write(tmp_path / "a.jsonl", events(500)).read_bytes()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(plain)[:cut])
    got, batch = asyncio.run(read(FileSource(path)))
    assert got[-1].startswith("gap:invalid")
    assert batch.refusals
    assert len(got) <= 502


@pytest.mark.parametrize("last", ["all", 2000, 10])
def test_what_unpacks_before_the_cut_is_shown_and_the_cut_is_said_once(tmp_path: Path, last: int) -> None:
    plain = write(tmp_path / "a.jsonl", events(1500)).read_bytes()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(plain)[:-20])
    got, batch = asyncio.run(read(FileSource(path), None, Start(last=last)))
    assert got[-1] == "gap:invalid:None"
    assert len(batch.refusals) == 1
    shown = [each for each in got if each.startswith("e")]
    if last == 10:
        assert len(shown) == 10
    else:
        assert shown == ids(*range(len(shown)))
        assert len(shown) > 1300


def test_an_archive_without_a_single_event_still_says_its_hole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(write(tmp_path / "a.jsonl", events(1)).read_bytes())[:30])
    got, _ = asyncio.run(read(FileSource(path), None, Start(last=10)))
    assert got == ["gap:invalid:None"]


def test_control_records_are_not_events(tmp_path: Path) -> None:
    control = encode_line(Event("c", "s", "eventbus.journal.open", 0, {})) + b"\n"
    path = write(tmp_path / "a.jsonl", events(2), control + encode_line(events(3)[2]) + b"\n")
    for where in (None, Filter.of(resource="file")):
        got, batch = asyncio.run(read(FileSource(path), where))
        assert got == ids(0, 1, 2)
        assert batch.seen == 3


def test_what_is_not_there_is_an_error_and_never_a_wait(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no such file"):
        FileSource(tmp_path / "a.jsonl")
    with pytest.raises(UnknownEnd, match="here: none"):
        FileSource(tmp_path)
    write(tmp_path / "a.jsonl", events(1))
    assert asyncio.run(read(FileSource(tmp_path)))[0] == ids(0)
    write(tmp_path / "b.jsonl", events(1))
    with pytest.raises(UnknownEnd, match=r"a\.jsonl, b\.jsonl"):
        FileSource(tmp_path)


# ── following ────────────────────────────────────────────────────────────────────────────────────────────────────


class Following:
    """A file that is followed, and what has come of it."""

    def __init__(self, path: Path, start: Start = Start(last="all", follow=True)) -> None:
        self.got: list[str] = []
        self.notices: list[Notice] = []
        self._source = FileSource(path, notify=self.notices.append)
        self._start = start

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        async for batch in self._source.batches(None, self._start):
            self.got += [name(record.item) for record in batch.records]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_growing_file_is_followed_line_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", events(3))
    fourth = encode_line(events(4)[3]) + b"\n"

    async def check() -> None:
        async with Following(path, Start(last=1, follow=True)) as following:
            await following.until(lambda: following.got == ids(2))
            append(path, fourth[:50])
            await asyncio.sleep(0.25)  # longer than a poll: half a line is not an event, and no damage either
            assert following.got == ids(2)
            append(path, fourth[50:])
            await following.until(lambda: following.got == ids(2, 3))

    asyncio.run(check())


def test_a_file_that_is_moved_away_is_read_out_and_its_successor_read_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", events(1))

    async def check() -> None:
        async with Following(path) as following:
            await following.until(lambda: following.got == ids(0))
            append(path, encode_line(events(2)[1]) + b"\n")
            path.rename(tmp_path / "a.1.jsonl")
            await following.until(lambda: any("gone" in notice.detail for notice in following.notices))
            write(tmp_path / "new", events(3)[2:]).rename(path)
            await following.until(lambda: following.got == ids(0, 1, 2))

    asyncio.run(check())


def test_a_file_rotated_while_it_is_first_read_loses_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", events(3000))  # more than one batch

    async def check() -> None:
        got: list[str] = []
        source = FileSource(path)
        async with asyncio.timeout(20), source:
            async for batch in source.batches(None, Start(follow=True)):
                got += [name(record.item) for record in batch.records]
                if len(got) < 2000 and not (tmp_path / "a.1.jsonl").exists():
                    append(path, b"".join(encode_line(event) + b"\n" for event in events(10, 3000)))
                    path.rename(tmp_path / "a.1.jsonl")
                    write(path, events(5, 3010))
                if got[-1] == "e3014":
                    break
        assert got == ids(*range(3015))

    asyncio.run(check())


def test_a_pipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(Refused, match="read as -"):
        FileSource(tmp_path / "pipe.jsonl")


def test_a_type_of_our_own_is_refused_where_it_could_not_be_published_again(tmp_path: Path) -> None:
    own = encode_line(Event("x", "s", "eventbus.custom", 0, {}))
    got, batch = asyncio.run(read(FileSource(write(tmp_path / "a.jsonl", events(1), own))))
    assert got == ["e0", "gap:invalid:1"]
    assert "bus's own" in str(batch.refusals[0].error)


@pytest.mark.parametrize("begun", [100, 300_000])
def test_following_from_now_on_begins_with_the_line_that_has_begun(tmp_path: Path, begun: int) -> None:
    line = encode_line(Event.new("made.up", {"a": "x" * 400_000}, id="late"))
    path = write(tmp_path / "a.jsonl", events(3), line[:begun])

    async def check() -> None:
        async with Following(path, Start(last=0, follow=True)) as following:
            await asyncio.sleep(0.2)  # it has begun; nothing is whole yet
            append(path, line[begun:] + b"\n")
            await following.until(lambda: following.got == ["late"])

    asyncio.run(check())


def test_a_file_that_is_cut_is_said_to_be_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", events(3))

    async def check() -> None:
        async with Following(path) as following:
            await following.until(lambda: following.got == ids(0, 1, 2))
            write(path, events(1))
            await following.until(lambda: following.got == [*ids(0, 1, 2), "gap:source:None", "e0"])
            assert "cut" in following.notices[-1].detail

    asyncio.run(check())
