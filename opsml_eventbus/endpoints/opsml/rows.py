"""One row of `opsml_audit_event` → one Event. Pure.

- `data` holds every column but `id` and `created_at`, in the table's order, so that a column OpsML adds tomorrow
  is kept today. NULL is `null`, also where our type says text: the bytes are true to the row, and it is the typed view
  (`event.data`) that refuses. JSON has no bytes: a BLOB is written in base64.
- `time` is `created_at`, read as UTC.
- `id` is derived, so that a row read twice, by two readers or after a restart, is recognised:
  `uuid5(uuid5(NAMESPACE_URL, source), columns)`, where `columns` is the compact JSON object of all columns that are
  not NULL, by name. A row that was altered has another id. NULLs are left out, so that a migration which adds a column
  does not rename the past.

A row that cannot be an event (a `created_at` that is no time, text that is no UTF-8, over 1 MiB) is refused by itself.
"""

from __future__ import annotations

import uuid
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ...codec import MAX_EVENT_BYTES, encode_data, encode_line, encoded_data
from ...errors import InvalidEvent
from ...event import Event
from ...timestamps import parse_time

Row = Mapping[str, Any]  # a row by column name, in the table's order

TABLE = "opsml_audit_event"
EVENT_TYPE = "audit"
OPSML_TIME_LENGTH = len("YYYY-MM-DD HH:MM:SS")
NEEDED = ("id", "created_at")  # what a table must have to be read at all


def event_from_row(row: Row, source: str) -> Event:
    """The Event a row stands for. Raises InvalidEvent: this row cannot be one, and which column says so."""
    time = _time(row["created_at"])
    values = _jsonable(row)
    identity = _identify(values, source)
    del values["id"], values["created_at"]
    content = encoded_data(EVENT_TYPE, values)
    event = Event(identity, source, EVENT_TYPE, time, content)
    if len(content.raw) > MAX_EVENT_BYTES // 2:
        encode_line(event)  # refuses what is too long as this one row, before it stands in a batch
    return event


def row_event_id(row: Row, source: str) -> str:
    """The id of the Event a row stands for, without making it. Raises InvalidEvent."""
    return _identify(_jsonable(row), source)


def _identify(values: dict[str, Any], source: str) -> str:
    present = {name: values[name] for name in sorted(values) if values[name] is not None}
    return str(uuid.uuid5(_namespace(source), encode_data(EVENT_TYPE, present).decode()))


@lru_cache(maxsize=64)
def _namespace(source: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, source)


def _jsonable(row: Row) -> dict[str, Any]:
    values = dict(row)
    if bytes in {value.__class__ for value in values.values()}:
        for name, value in values.items():
            if isinstance(value, bytes):
                values[name] = b64encode(value).decode()
    return values


def _time(value: Any) -> int:
    """`YYYY-MM-DD HH:MM:SS` with any number of further digits; UTC unless it names an offset."""
    if not isinstance(value, str):
        raise InvalidEvent(f"{value!r} is no time", "created_at")
    text = value.strip()
    try:
        if len(text) == OPSML_TIME_LENGTH:
            return parse_time(f"{text[:10]}T{text[11:]}.000000000Z")  # canonical, which is read the fastest
        zoned = text[-1:] in ("Z", "z") or text[-6:-5] in ("+", "-")
        return parse_time(text if zoned else f"{text}Z")
    except InvalidEvent as error:
        raise InvalidEvent(f"{value[:64]!r} is no time", "created_at") from error
