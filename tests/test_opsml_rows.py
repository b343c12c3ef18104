"""A row and the Event it becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsml_eventbus.audit import AuditEvent
from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.endpoints.opsml.rows import event_from_row, row_event_id
from opsml_eventbus.errors import InvalidEvent

SOURCE = "sqlite:////srv/opsml.db"
ROW: dict[str, Any] = {
    "id": 1,
    "created_at": "2026-11-23 21:48:59",
    "username": "guest",
    "client_ip": "127.0.0.1",
    "user_agent": "opsml-client/",
    "operation": "Create",
    "resource_type": "Database",
    "resource_id": "01a20a62-3be4-7c83-82e0-c39982f89478",
    "access_location": None,
    "status": "Success",
    "error_message": None,
    "metadata": '{"registry_type":"Prompt","card":{"name":"Grüße 👋"}}',
    "registry_type": "prompt",
    "route": "/opsml/api/card/create",
}
SECOND = 1_795_470_539

texts = st.text(st.characters(codec="utf-8"), max_size=20)
rows = st.fixed_dictionaries(
    {name: (st.none() | texts if ROW[name] is None else texts) for name in ROW if name not in ("id", "created_at")}
).map(lambda columns: {"id": 7, "created_at": ROW["created_at"], **columns})


def test_a_row_becomes_an_audit_event() -> None:
    event = event_from_row(ROW, SOURCE)
    columns = {name: value for name, value in ROW.items() if name not in ("id", "created_at")}
    assert event.data == AuditEvent(**columns)
    assert (event.source, event.type, event.time) == (SOURCE, "audit", SECOND * 10**9)
    assert list(json.loads(event.content.raw)) == list(columns), "in the table's order"


def test_the_recipe_of_an_id_does_not_change() -> None:
    # Recordings hold these ids: another recipe would make every row of the past look new.
    assert row_event_id(ROW, SOURCE) == "f87f61ad-c0ac-5071-8825-8fb4163839e4"


@given(rows)
def test_a_row_read_twice_is_the_same_event_and_its_line_says_all_of_it(row: dict[str, Any]) -> None:
    event = event_from_row(row, SOURCE)
    assert event == event_from_row(dict(reversed(row.items())), SOURCE)
    assert event.id == row_event_id(row, SOURCE)
    line = encode_line(event)
    again = decode_line(line, foreign=True)
    assert encode_line(again) == line
    assert json.loads(line)["data"] == {name: row[name] for name in row if name not in ("id", "created_at")}


@given(rows, st.sampled_from(sorted(ROW)), texts)
def test_a_row_that_was_altered_is_another_event(row: dict[str, Any], column: str, text: str) -> None:
    value: Any = row["id"] + 1 if column == "id" else "2026-11-23 21:49:00" if column == "created_at" else text
    same = row[column] == value
    assert (row_event_id(row, SOURCE) == row_event_id({**row, column: value}, SOURCE)) == same


def test_rows_of_two_databases_are_two_events() -> None:
    assert row_event_id(ROW, SOURCE) != row_event_id(ROW, "sqlite:////srv/other.db")


def test_a_column_opsml_adds_later_is_kept_and_does_not_rename_the_past() -> None:
    added = {**ROW, "trace_id": "abc"}
    event = event_from_row(added, SOURCE)
    assert b'"trace_id":"abc"' in encode_line(event)
    assert event.data.username == "guest"
    assert row_event_id({**ROW, "trace_id": None}, SOURCE) == row_event_id(ROW, SOURCE)
    assert event.id != row_event_id(ROW, SOURCE)


def test_null_where_our_type_says_text_is_kept_as_null() -> None:
    event = event_from_row({**ROW, "user_agent": None}, SOURCE)
    assert b'"user_agent":null' in encode_line(event)
    with pytest.raises(InvalidEvent, match=r"data\.user_agent"):
        event.data  # noqa: B018 - the typed view refuses; the line goes on unharmed


def test_bytes_are_written_in_base64_and_other_values_as_they_are() -> None:
    event = event_from_row({**ROW, "signature": b"\x00\xff", "weight": 0.5, "count": 2**63 - 1}, SOURCE)
    data = json.loads(event.content.raw)
    assert (data["signature"], data["weight"], data["count"]) == ("AP8=", 0.5, 2**63 - 1)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2026-11-23 21:48:59", 0),
        ("2026-11-23 21:48:59.5", 500_000_000),
        ("2026-11-23T21:48:59.123456Z", 123_456_000),
        ("2026-11-23 23:48:59+02:00", 0),
    ],
)
def test_created_at_is_utc_unless_it_says_otherwise(text: str, nanoseconds: int) -> None:
    assert event_from_row({**ROW, "created_at": text}, SOURCE).time == SECOND * 10**9 + nanoseconds


@pytest.mark.parametrize("value", [None, "", "yesterday", 1_795_470_539, "2026-11-31 00:00:00", b"2026-11-23 21:48:59"])
def test_a_row_without_a_time_is_refused_naming_the_column(value: Any) -> None:
    with pytest.raises(InvalidEvent) as caught:
        event_from_row({**ROW, "created_at": value}, SOURCE)
    assert caught.value.place == "created_at"


@pytest.mark.parametrize(
    ("value", "reason"), [("\udcff", "surrogate"), (float("inf"), "JSON"), ("x" * (1 << 20), "1,048,576")]
)
def test_a_row_that_cannot_be_written_is_refused_by_itself(value: Any, reason: str) -> None:
    with pytest.raises(InvalidEvent, match=reason):
        event_from_row({**ROW, "metadata": value}, SOURCE)
