"""OpsML's table in a SQLite file, followed: everything that can happen to it meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_table import SCHEMA, Server, assert_no_other_has_it_open, assert_no_thread_is_left, names, users
from following import Following, read

from opsml_eventbus.endpoints import open_source
from opsml_eventbus.endpoints.opsml import SqliteSource, sqlite
from opsml_eventbus.errors import Broken
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.flow import Start


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "opsml.db")
    yield server
    server.close()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_rows_written_meanwhile_appear_once(server: Server, mode: str) -> None:
    server.sql(f"PRAGMA journal_mode={mode}")
    server.insert(2)

    async def scenario() -> list[Event | Gap]:
        async with Following(server.url) as following:
            for number in range(3, 30, 3):
                await following.until(number - 1)
                await asyncio.to_thread(server.insert, 3)
            await following.until(29)
        assert following.notices == []
        return following.items

    assert names(asyncio.run(scenario())) == users(1, 29)


def test_no_lock_is_held_between_looks(server: Server) -> None:
    server.insert(2)

    async def scenario() -> None:
        async with Following(server.url) as following:
            await following.until(2)
            for _ in range(20):
                # The strictest lock there is; a reader that stayed would make this fail after half a second.
                await asyncio.to_thread(server.sql, "BEGIN EXCLUSIVE")
                await asyncio.to_thread(server.sql, "COMMIT")
            server.insert()
            await following.until(3)

    asyncio.run(scenario())


def test_a_busy_database_is_waited_for_and_said_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.02)
    server.insert(2)
    looked, look = threading.Event(), sqlite.SqliteTable.look
    monkeypatch.setattr(sqlite.SqliteTable, "look", lambda *given: looked.set() or look(*given))

    async def scenario() -> None:
        async with Following(server.url) as following:
            await following.until(2)
            server.sql("BEGIN EXCLUSIVE")
            notice = await following.noticed("error")
            assert "busy" in notice.detail
            for _ in range(3):
                looked.clear()
                await asyncio.to_thread(looked.wait, 10)
            server.sql("COMMIT")
            server.insert(2)
            await following.until(4)
            await following.noticed("connected")
        assert [notice.kind for notice in following.notices] == ["error", "connected"]
        assert names(following.items) == users(1, 4)

    asyncio.run(scenario())


def test_a_busy_database_does_not_fail_a_plain_read_either(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.02)
    server.insert(2)
    server.sql("BEGIN EXCLUSIVE")

    async def scenario() -> list[Event | Gap]:
        async with Following(server.url, Start()) as following:
            await following.noticed("error")
            server.sql("COMMIT")
            await following.until(2)
        return following.items

    assert names(asyncio.run(scenario())) == users(1, 2)


def test_a_truncated_table_whose_ids_go_on_loses_nothing(server: Server) -> None:
    async def scenario() -> None:
        async with Following(server.url) as following:
            server.insert(3)
            await following.until(3)
            server.delete("1 = 1")
            notice = await following.noticed("moved")
            assert "row 3 was read and has been deleted since" in notice.detail
            server.insert(2)
            await following.until(5)
        assert names(following.items) == users(1, 5)

    asyncio.run(scenario())


def test_a_table_whose_ids_start_again_is_noticed_and_read_from_its_beginning(server: Server) -> None:
    async def scenario() -> None:
        async with Following(server.url) as following:
            server.insert(3)
            await following.until(3)
            server.sql("BEGIN")
            server.delete("1 = 1")
            server.sql("DELETE FROM sqlite_sequence")
            server.sql("COMMIT")
            server.insert(5)
            await following.until(9)
            await following.noticed("moved")
        assert names(following.items) == [*users(1, 3), None, *users(4, 8)]
        (gap,) = following.gaps
        assert (gap.reason, gap.after) == ("source", following.items[2].id)

    asyncio.run(scenario())


def test_a_table_dropped_and_made_again_is_said_and_read(server: Server) -> None:
    async def scenario() -> None:
        async with Following(server.url) as following:
            server.insert(3)
            await following.until(3)
            server.sql("DROP TABLE opsml_audit_event")
            notice = await following.noticed("disconnected")
            assert "no table" in notice.detail
            server.sql(SCHEMA)
            server.insert(1)
            await following.until(5)
        assert names(following.items) == [*users(1, 3), None, "user4"]

    asyncio.run(scenario())


def test_a_table_dropped_ends_a_plain_read(server: Server) -> None:
    server.insert(700)

    async def scenario() -> None:
        async with open_source(server.url) as source:
            async for _ in source.batches():
                server.sql("DROP TABLE IF EXISTS opsml_audit_event")

    with pytest.raises(Broken, match="no table"):
        asyncio.run(scenario())


def test_another_database_in_its_place_is_a_gap_and_is_read_whole(server: Server, tmp_path: Path) -> None:
    other = Server(tmp_path / "other.db")
    other.insert(5, operation="Create")

    async def scenario() -> None:
        async with Following(server.url) as following:
            server.insert(3)
            await following.until(3)
            os.replace(other.path, server.path)
            await following.until(9)
        assert names(following.items) == [*users(1, 3), None, *users(1, 5)]
        assert [item.data.operation for item in following.items[4:]] == ["Create"] * 5

    try:
        asyncio.run(scenario())
    finally:
        other.close()


def test_another_database_is_noticed_when_the_row_last_read_had_been_deleted(server: Server, tmp_path: Path) -> None:
    other = Server(tmp_path / "other.db")
    other.insert(5, operation="Create")

    async def scenario() -> None:
        async with Following(server.url) as following:
            server.insert(3)
            await following.until(3)
            server.delete("id = 3")
            await following.noticed("moved")
            os.replace(other.path, server.path)
            await following.until(9)
        assert names(following.items) == [*users(1, 3), None, *users(1, 5)]

    try:
        asyncio.run(scenario())
    finally:
        other.close()


KILLED = """
import os, signal, sqlite3, sys
sql = sqlite3.connect(sys.argv[1], isolation_level=None).execute
sql("PRAGMA cache_size = 1")
sql("BEGIN")
sql("UPDATE opsml_audit_event SET username = 'half'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_server_left_is_not_touched_and_not_believed(server: Server) -> None:
    server.insert(300, metadata="x" * 2000)
    journal = Path(f"{server.path}-journal")

    async def scenario() -> None:
        async with Following(server.url) as following:
            await following.until(300)
            subprocess.run([sys.executable, "-c", KILLED, str(server.path)], check=False)
            left = journal.read_bytes()
            notice = await following.noticed("error")
            assert "a server that died left a transaction" in notice.detail
            with pytest.raises(Broken, match="a server that died"):
                await read(server.url)
            assert journal.read_bytes() == left
            server.insert(1)  # the server is back: it rolls back what the dead one began
            await following.until(301)
            await following.noticed("connected")
        assert names(following.items) == users(1, 301)

    asyncio.run(scenario())


def test_a_copy_in_its_place_is_read_on_without_a_gap(server: Server, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Following(server.url) as following:
            server.insert(3)
            await following.until(3)
            server.insert(2)
            server.sql("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
            os.replace(tmp_path / "copy.db", server.path)
            await following.until(5)
        assert names(following.items) == users(1, 5)

    asyncio.run(scenario())


def test_a_vacuum_changes_nothing(server: Server) -> None:
    async def scenario() -> None:
        async with Following(server.url) as following:
            server.insert(400, metadata="x" * 1000)
            await following.until(400)
            server.delete("id < 390")
            server.sql("VACUUM")
            server.insert(1)
            await following.until(401)
        assert names(following.items) == users(1, 401)

    asyncio.run(scenario())


def test_a_file_that_goes_and_comes_back_is_waited_for(server: Server, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Following(server.url) as following:
            server.insert(3)
            await following.until(3)
            os.rename(server.path, tmp_path / "away.db")
            notice = await following.noticed("disconnected")
            assert "no such file" in notice.detail
            os.rename(tmp_path / "away.db", server.path)
            await following.noticed("connected")
            server.insert(1)
            await following.until(4)
        assert names(following.items) == users(1, 4)

    asyncio.run(scenario())


def test_a_migration_that_adds_a_column_is_followed(server: Server) -> None:
    async def scenario() -> None:
        async with Following(server.url) as following:
            server.insert(2)
            await following.until(2)
            server.sql("ALTER TABLE opsml_audit_event ADD COLUMN tenant TEXT")
            server.sql("ALTER TABLE opsml_audit_event ADD COLUMN weight INTEGER NOT NULL DEFAULT 1")
            server.insert(1, tenant="lab")
            await following.until(3)
        assert names(following.items) == users(1, 3)
        assert b'"tenant":"lab","weight":1' in following.items[2].content.raw

    asyncio.run(scenario())


def test_a_hole_made_while_following_is_a_gap(server: Server) -> None:
    async def scenario() -> None:
        async with Following(server.url) as following:
            server.insert(2)
            await following.until(2)
            server.sql("BEGIN")
            server.sql("UPDATE sqlite_sequence SET seq = seq + 4")  # four rows came and went between two looks
            server.sql("COMMIT")
            await following.until(3)
            server.insert(1)
            await following.until(4)
        assert names(following.items) == ["user1", "user2", 4, "user3"]

    asyncio.run(scenario())


def test_a_source_that_is_cancelled_while_it_closes_is_closed(server: Server) -> None:
    server.insert(1)
    let_go = threading.Event()

    async def scenario() -> None:
        source = SqliteSource(server.path)
        async with source:
            stream = source.batches()
            await anext(stream)
            await stream.aclose()
            # The worker has something else to do first, so that closing has not begun when it is cancelled.
            source._thread.submit(let_go.wait, 10)
            closing = asyncio.create_task(source.close())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            assert closing.cancelled()
            let_go.set()

    asyncio.run(scenario())
    assert_no_thread_is_left()
    assert_no_other_has_it_open(server.path)


def test_a_cancelled_follower_lets_go(server: Server) -> None:
    async def scenario() -> None:
        for _ in range(20):
            async with Following(server.url):
                await asyncio.sleep(0)

    asyncio.run(scenario())
    assert_no_thread_is_left()
