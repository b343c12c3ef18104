"""The command line against the genuine OpsML server: what it prints is what the table holds, row by row."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from commandline import CommandLine, until

pytestmark = pytest.mark.opsml

COLUMNS = (
    "username", "client_ip", "user_agent", "operation", "resource_type", "resource_id", "access_location", "status",
    "error_message", "metadata", "registry_type", "route",
)  # fmt: skip


def as_row(event: dict[str, Any]) -> dict[str, Any]:
    moment = datetime.fromisoformat(event["time"][:26] + "+00:00")
    return {"created_at": moment.strftime("%Y-%m-%d %H:%M:%S"), **event["data"]}


def wanted(row: dict[str, Any]) -> dict[str, Any]:
    return {"created_at": row["created_at"], **{name: row[name] for name in COLUMNS}}


def test_tail_prints_the_table_row_by_row(cli: CommandLine, opsml_server: Any) -> None:
    opsml_server.work("cli")
    rows = opsml_server.settle()
    assert len(rows) >= 10
    events = cli.run("tail", opsml_server.url, "-n", "all", "--no-follow").events
    assert [as_row(event) for event in events] == [wanted(row) for row in rows]
    assert len({event["id"] for event in events}) == len(rows)
    assert {event["type"] for event in events} == {"audit"}


def test_rows_written_while_a_tail_and_a_record_run_appear_once(cli: CommandLine, opsml_server: Any) -> None:
    before = len(opsml_server.settle())
    tail = cli.start("tail", opsml_server.url, "-n", "1")
    until(lambda: len(tail.events) == 1, "the tail's beginning")
    record = cli.start("record", "audit.jsonl", "--from", opsml_server.url)
    until(lambda: (cli.folder / "audit.jsonl").exists() and _lines(cli) == before, "the rows that were there")
    opsml_server.work("meanwhile")
    answers = opsml_server.flood(clients=8, requests=200)
    assert answers == {"200": 8 * 200}, "the server's own work was disturbed"
    rows = opsml_server.settle()
    until(lambda: len(tail.events) == 1 + len(rows) - before, "the new rows in the tail")
    until(lambda: _lines(cli) == len(rows), "all rows in the record")
    assert [as_row(event) for event in tail.events] == [wanted(row) for row in rows[before - 1 :]]
    assert "0 lost" in tail.stop().err
    record.stop()
    recorded = [json.loads(line) for line in cli.recorded("audit.jsonl")]
    assert [as_row(event) for event in recorded] == [wanted(row) for row in rows]
    # And back onto a bus, each id once.
    replayed = cli.run("replay", "audit.jsonl", "--speed", "max", "--op", "create").events
    assert [event["id"] for event in replayed] == [e["id"] for e in recorded if e["data"]["operation"] == "Create"]


def test_a_record_of_the_table_goes_on_where_it_ended(cli: CommandLine, opsml_server: Any) -> None:
    before = len(opsml_server.settle())
    cli.run("record", "audit.jsonl", "--from", opsml_server.url, "--for", "2s")
    assert _lines(cli) == before
    opsml_server.work("later")
    rows = opsml_server.settle()
    cli.run("record", "audit.jsonl", "--from", opsml_server.url, "--append", "--for", "2s")
    recorded = [json.loads(line) for line in cli.recorded("audit.jsonl")]
    assert [as_row(event) for event in recorded] == [wanted(row) for row in rows]


def test_the_tracking_uri_names_the_table(cli: CommandLine, opsml_server: Any) -> None:
    done = cli.run("tail", "--no-follow", "-n", "1", OPSML_TRACKING_URI=f"sqlite://{opsml_server.db_path}")
    assert len(done.ids) == 1
    assert "OPSML_TRACKING_URI" in done.err


def _lines(cli: CommandLine) -> int:
    return len(cli.recorded("audit.jsonl"))
