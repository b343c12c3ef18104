"""OpsML's table in a SQLite file: what is opened, where reading begins, what is missing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_table import Server, assert_no_other_has_it_open, assert_no_thread_is_left, names, users
from following import Following, read

from opsml_eventbus.endpoints import open_source
from opsml_eventbus.endpoints.opsml import SqliteSource, sqlite
from opsml_eventbus.errors import Refused, Unreachable
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.filter import Filter
from opsml_eventbus.flow import Start


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "opsml.db")
    yield server
    server.close()


# ── what is opened, and what is not ──────────────────────────────────────────────────────────────────────────────


def test_a_file_that_is_not_there_is_unreachable_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no such file"):
        open_source(f"sqlite:///{tmp_path}/none.db")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is no file"):
        SqliteSource(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"not a database at all\n" * 100, "is no SQLite database"), (b"", "has no table opsml_audit_event")],
)
def test_a_file_that_is_something_else_is_refused_in_one_sentence(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(content)
    with pytest.raises(Refused, match=reason):
        asyncio.run(read(f"sqlite:///{path}"))
    assert path.read_bytes() == content


def test_a_table_that_is_not_opsmls_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE opsml_audit_event (id INTEGER, name TEXT)")
    connection.close()
    with pytest.raises(Refused, match="has no column created_at"):
        asyncio.run(read(f"sqlite:///{tmp_path}/other.db"))


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(server: Server) -> None:
    server.path.chmod(0)
    with pytest.raises(Refused, match="may not be read"):
        asyncio.run(read(server.url))


def test_the_same_database_by_any_of_its_names_gives_the_same_events(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.insert(3)
    (server.path.parent / "link.db").symlink_to(server.path)
    monkeypatch.chdir(server.path.parent)
    absolute = asyncio.run(read(server.url))
    assert len(absolute) == 3
    assert {item.source for item in absolute} == {f"sqlite:///{os.path.realpath(server.path)}"}
    for text in ("sqlite:///opsml.db", "sqlite:///link.db", "sqlite:///../" + server.path.parent.name + "/opsml.db"):
        assert asyncio.run(read(text)) == absolute
    # The name in an event can be opened again.
    assert asyncio.run(read(absolute[0].source)) == absolute


def test_a_relative_path_means_the_folder_it_was_said_in(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.insert()
    monkeypatch.chdir(server.path.parent)
    source = open_source("sqlite:///opsml.db")
    monkeypatch.chdir("/")

    async def scenario() -> int:
        async with source:
            return sum([batch.seen async for batch in source.batches()])

    assert asyncio.run(scenario()) == 1


def test_nothing_is_left_behind(server: Server) -> None:
    server.insert(3)
    before = {path: path.stat() for path in server.path.parent.iterdir()}

    async def scenario() -> None:
        async with Following(server.url) as following:
            await following.until(3)
        unused = open_source(server.url)
        await unused.close()
        await unused.close()

    asyncio.run(scenario())
    after = {path: path.stat() for path in server.path.parent.iterdir()}
    assert after.keys() == before.keys()
    assert after[server.path].st_mtime_ns == before[server.path].st_mtime_ns
    assert_no_thread_is_left()
    assert_no_other_has_it_open(server.path)


# ── where reading begins ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("last", [0, 1, 7, 299, 300, 301, "all"])
def test_the_last_n_across_pages(server: Server, last: Any) -> None:
    server.insert(300)
    count = 300 if last == "all" else min(last, 300)
    assert names(asyncio.run(read(server.url, Start(last=last)))) == users(301 - count, 300)


def test_filter_first_then_the_last_n(server: Server) -> None:
    for number in range(30):
        server.insert(operation="Delete" if number in (3, 10, 20) else "List")
    server.insert(600)
    where = Filter.of(op=["Delete"])
    assert names(asyncio.run(read(server.url, Start(last=2), where))) == ["user11", "user21"]
    assert names(asyncio.run(read(server.url, Start(last=9), where))) == ["user4", "user11", "user21"]
    assert names(asyncio.run(read(server.url, Start(last=9), Filter.of(user=["nobody"])))) == []


def test_going_on_behind_an_event(server: Server) -> None:
    server.insert(600)
    everything = asyncio.run(read(server.url))
    for index in (0, 299, 598, 599):
        rest = asyncio.run(read(server.url, Start(after=everything[index].id, last=10)))
        assert rest == everything[index + 1 :]


def test_an_event_that_is_not_in_the_table_means_a_gap_and_everything(server: Server) -> None:
    server.insert(3)
    gap, *rest = asyncio.run(read(server.url, Start(after="someone-elses")))
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.missed, gap.after) == ("disconnect", None, "someone-elses")
    assert names(rest) == users(1, 3)


def test_times_select_although_they_do_not_rise_with_ids(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "SKIP_ROWS", 3)
    hours = [10, 11, 12, 11, 9, 13, 13, 14, 8, 15]
    for number, hour in enumerate(hours):
        forms = (
            f"{hour:02}:00:00",
            f"{hour:02}:00:00.000000Z",
            f"{hour - 7:02}:00:00-07:00",
            f"{hour + 7:02}:00:00+07:00",
        )
        server.insert(created_at=f"2026-11-23 {forms[number % 4]}")
    noon = 1_795_435_200 * 10**9

    def expected(keep: Any) -> list[str | int | None]:
        return [f"user{number}" for number, hour in enumerate(hours, 1) if keep(hour)]

    for hour in range(7, 17):
        since = noon + (hour - 12) * 3600 * 10**9
        assert names(asyncio.run(read(server.url, Start(since=since)))) == expected(lambda h, hour=hour: h >= hour)
        assert names(asyncio.run(read(server.url, Start(until=since)))) == expected(lambda h, hour=hour: h < hour)
        assert names(asyncio.run(read(server.url, Start(since=since + 1)))) == expected(lambda h, hour=hour: h > hour)


def test_since_passes_over_the_past_without_reading_it(server: Server) -> None:
    server.insert(900, created_at="2026-11-22 00:00:00")
    server.insert(2, created_at="2026-11-23 12:00:00")

    async def scenario() -> tuple[int, int]:
        async with open_source(server.url) as source:
            batches = [batch async for batch in source.batches(None, Start(since=1_795_435_200 * 10**9))]
        return sum(batch.seen for batch in batches), sum(len(batch.records) for batch in batches)

    assert asyncio.run(scenario()) == (2, 2)


def test_a_table_that_grows_as_fast_as_it_is_read_still_ends(server: Server) -> None:
    server.insert(700)

    async def scenario() -> int:
        seen = 0
        async with open_source(server.url) as source:
            async for batch in source.batches():
                seen += batch.seen
                server.insert(400)
        return seen

    assert 700 <= asyncio.run(scenario()) < 700 + 3 * 400


# ── what is missing ──────────────────────────────────────────────────────────────────────────────────────────────


def test_deleted_rows_are_counted_where_they_were(server: Server) -> None:
    server.insert(10)
    server.delete("id IN (4, 5, 8)")
    assert names(asyncio.run(read(server.url))) == [*users(1, 3), 2, *users(6, 7), 1, *users(9, 10)]


def test_a_pruned_beginning_is_no_loss(server: Server) -> None:
    server.insert(10)
    server.delete("id <= 6")
    assert names(asyncio.run(read(server.url))) == users(7, 10)


def test_the_last_rows_deleted_are_noticed_too(server: Server) -> None:
    server.insert(10)
    server.delete("id > 8")
    assert names(asyncio.run(read(server.url))) == [*users(1, 8), 2]
    server.delete("1 = 1")
    assert names(asyncio.run(read(server.url))) == []


def test_what_was_deleted_before_is_no_news(server: Server) -> None:
    server.insert(10)
    server.delete("id > 8")

    async def scenario() -> list[Event | Gap]:
        async with open_source(server.url) as source:
            stream = source.batches(None, Start(last=0, follow=True))
            waiting = asyncio.create_task(anext(stream))
            while not waiting.done():  # what is new to it begins when it has begun, which only this can show
                server.insert(1)
                await asyncio.wait([waiting], timeout=0.05)
            await stream.aclose()
        return [record.item for record in (await waiting).records]

    assert isinstance(asyncio.run(scenario())[0], Event), "not the Gap of the two"


def test_an_insert_that_was_rolled_back_is_no_loss(server: Server) -> None:
    server.insert(2)
    server.sql("BEGIN")
    server.sql("INSERT INTO opsml_audit_event SELECT NULL, created_at, 'ghost', client_ip, user_agent, operation, "
               "resource_type, resource_id, access_location, status, error_message, metadata, registry_type, route "
               "FROM opsml_audit_event")  # fmt: skip
    server.sql("ROLLBACK")
    with pytest.raises(sqlite3.IntegrityError):
        server.sql("INSERT INTO opsml_audit_event (username) VALUES ('half')")
    server.insert(2)
    assert names(asyncio.run(read(server.url))) == users(1, 4)


def test_rows_that_cannot_be_events_cost_themselves(server: Server) -> None:
    server.insert(5)
    server.sql("UPDATE opsml_audit_event SET created_at = NULL WHERE id = 2")
    server.sql("UPDATE opsml_audit_event SET metadata = CAST(x'ff41' AS TEXT) WHERE id = 3")
    server.sql("UPDATE opsml_audit_event SET metadata = zeroblob(1048576) WHERE id = 4")

    async def scenario() -> list[str]:
        async with open_source(server.url) as source:
            batches = [batch async for batch in source.batches()]
        assert names([record.item for batch in batches for record in batch.records]) == ["user1", 1, 1, 1, "user5"]
        assert all(record.line for batch in batches for record in batch.records)
        return [f"{refusal.place}: {refusal.error}" for batch in batches for refusal in batch.refusals]

    second, third, fourth = asyncio.run(scenario())
    assert "row 2: created_at: None is no time" in second
    assert "row 3: data.metadata: a lone surrogate" in third
    assert "row 4: " in fourth
    assert "1,048,576" in fourth


def test_a_page_of_large_rows_is_bounded(server: Server) -> None:
    server.insert(30, metadata="x" * 500_000)

    async def scenario() -> list[int]:
        async with open_source(server.url) as source:
            return [batch.seen async for batch in source.batches()]

    seen = asyncio.run(scenario())
    assert sum(seen) == 30
    assert max(seen) <= sqlite.PAGE_BYTES // 500_000 + 1
