"""The source against the genuine OpsML server: what it yields is held against the table, row by row, every column."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from calendar import timegm
from typing import Any

import pytest
from following import Following, read
from opsml_server import OpsmlServer

from opsml_eventbus.audit import AuditEvent
from opsml_eventbus.codec import decode_line
from opsml_eventbus.endpoints import open_source
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.filter import Filter
from opsml_eventbus.flow import Start

pytestmark = pytest.mark.opsml


def assert_is_row(item: Event | Gap, row: dict[str, Any], source: str) -> None:
    """The event says what the row says: every column, and nothing else."""
    assert isinstance(item, Event), item
    columns = {name: value for name, value in row.items() if name not in ("id", "created_at")}
    assert json.loads(item.content.raw) == columns
    assert item.data == AuditEvent(**columns)
    assert item.time == timegm(time.strptime(row["created_at"], "%Y-%m-%d %H:%M:%S")) * 10**9
    assert (item.type, item.source) == ("audit", source)
    # The row's id is in the event's: derived here by hand, from the published recipe.
    text = json.dumps(
        {name: row[name] for name in sorted(row) if row[name] is not None}, separators=(",", ":"), ensure_ascii=False
    )
    assert item.id == str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, source), text))


def assert_is_table(items: list[Event | Gap], rows: list[dict[str, Any]], source: str) -> None:
    assert len(items) == len(rows)
    for item, row in zip(items, rows, strict=True):
        assert_is_row(item, row, source)


def test_every_row_of_real_work_appears_once_with_every_column(opsml_server: OpsmlServer) -> None:
    assert opsml_server.work("columns") == 1
    rows = opsml_server.settle()
    items = asyncio.run(read(opsml_server.url))
    assert_is_table(items, rows, opsml_server.url)
    mine = [item.data for item in items if isinstance(item, Event) and '"columns"' in item.data.metadata]
    assert {data.operation for data in mine} >= {"Create", "List", "Update", "Delete"}
    assert {data.registry_type for data in mine} >= {"prompt", "data", "experiment", "service"}
    assert "artifact" in {item.data.registry_type for item in items if isinstance(item, Event)}


def test_lines_hold_the_rows_too(opsml_server: OpsmlServer) -> None:
    opsml_server.list_cards(username="mallory", **{"X-Forwarded-For": "203.0.113.9, 10.0.0.1"})
    (row,) = opsml_server.settle()[-1:]
    assert (row["username"], row["client_ip"]) == ("mallory", "203.0.113.9")

    async def last_line() -> bytes:
        async with open_source(opsml_server.url) as source:
            return [record.line async for batch in source.batches(None, Start(last=1)) for record in batch.records][-1]

    line = asyncio.run(last_line())
    item = decode_line(line)
    assert_is_row(item, row, opsml_server.url)
    assert item.line == line, "the line is canonical"


def test_rows_written_while_the_source_follows_appear_once(opsml_server: OpsmlServer) -> None:
    before = opsml_server.settle()

    async def scenario() -> list[dict[str, Any]]:
        async with Following(opsml_server.url, Start(last="all", follow=True)) as following:
            await following.until(len(before))
            for space in ("while-one", "while-two"):
                await asyncio.to_thread(opsml_server.work, space)
            rows = await asyncio.to_thread(opsml_server.settle)
            await following.until(len(rows))
        assert following.notices == []
        assert_is_table(following.items, rows, opsml_server.url)
        return rows

    assert len(asyncio.run(scenario())) > len(before)


def test_only_what_is_new_is_followed_when_nothing_else_is_asked_for(opsml_server: OpsmlServer) -> None:
    async def scenario() -> None:
        before = opsml_server.settle()
        async with Following(opsml_server.url, Start(last=0, follow=True)) as following:
            # Until it has begun we cannot know what is new to it: rows are made until one is seen.
            while not following.items:
                await asyncio.to_thread(opsml_server.list_cards)
                await asyncio.sleep(0.1)
            await asyncio.to_thread(opsml_server.work, "new")
            rows = await asyncio.to_thread(opsml_server.settle)
            first = next(index for index, row in enumerate(rows) if _is(following.items[0], row, opsml_server.url))
            await following.until(len(rows) - first)
        assert first >= len(before)
        assert_is_table(following.items, rows[first:], opsml_server.url)

    asyncio.run(scenario())


def _is(item: Event | Gap, row: dict[str, Any], source: str) -> bool:
    try:
        assert_is_row(item, row, source)
    except AssertionError:
        return False
    return True


def test_sixteen_clients_are_not_disturbed_and_the_source_shows_exactly_the_table(opsml_server: OpsmlServer) -> None:
    before = opsml_server.settle()

    async def scenario() -> None:
        async with Following(opsml_server.url, Start(last=0 if not before else "all", follow=True)) as following:
            await following.until(len(before))
            answers = await asyncio.to_thread(opsml_server.flood, 16, 50)
            assert answers == {"200": 800}, "a request failed"
            errors = await asyncio.to_thread(opsml_server.register, 16, 3)
            assert errors == [], "a write of the server's own failed"
            rows = await asyncio.to_thread(opsml_server.settle)
            await following.until(len(rows))
        # On a loaded disk the writer may hold its lock for long: that is said, and nothing else.
        assert {notice.kind for notice in following.notices} <= {"error", "connected"}, following.notices
        assert_is_table(following.items, rows, opsml_server.url)

    asyncio.run(scenario())
    log = opsml_server.log.read_text().lower()
    assert "database is locked" not in log, "the server was kept from writing"
    assert "failed to insert" not in log, "the server was kept from writing"


def test_a_filter_and_a_last_n_select_from_the_table(opsml_server: OpsmlServer) -> None:
    opsml_server.work("select")
    rows = opsml_server.settle()
    wanted = [row for row in rows if row["operation"] == "Delete"]
    assert 0 < len(wanted) < len(rows)
    # Between two deletions there is other traffic, but no hole: no Gap may show.
    everything = asyncio.run(read(opsml_server.url, Start(), Filter.of(op=["delete"])))
    assert_is_table(everything, wanted, opsml_server.url)
    last = asyncio.run(read(opsml_server.url, Start(last=1), Filter.of(op=["delete"])))
    assert_is_table(last, wanted[-1:], opsml_server.url)
