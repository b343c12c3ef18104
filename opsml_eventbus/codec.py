"""Lines ⇄ events. The only place that spells CloudEvents JSON, both ways, and that chooses an encoder.

A canonical line is compact JSON in UTF-8 on one line, its members in the order

    specversion id source type time [priority] [replay] [unknown attributes, as read] [data]

followed, in a journal only, by `seq durable chain` (a line's place in one file; reading takes them off). `time` has
nine digits and a `Z`. A canonical line round-trips byte for byte. A foreign one (other order, other offsets, spaces)
becomes canonical once; the text inside `data` is kept, insignificant white space at most removed.

msgspec serves typed values, orjson what has no schema; measured, each is the fastest for its part. Neither refuses
NaN, integers beyond 64 bits or deep nesting where a log needs it. This module does, in both directions: what is
written can be read back the same, or is refused as that one event.

Two levels of trust:
- Our own lines (a tap's server, a journal): structure, UTF-8, integers, nesting. `data` stays bytes.
- `foreign=True` (publish, a file that is no journal): duplicate keys and every number too, and `data` is validated.
"""

from __future__ import annotations

import re
from contextlib import suppress
from time import time_ns
from typing import Any, cast

import msgspec
import orjson

from .errors import InvalidEvent, MalformedLine, Unencodable
from .event import (
    GAP_TYPE,
    MAX_ID_BYTES,
    EncodedData,
    Event,
    Gap,
    GapReason,
    Payload,
    Priority,
    new_id,
    payload_type,
)
from .payloads import encode, encode_payload, refuse_unfaithful, schema_of, twins, where_wrong
from .scrutiny import scrutinise, suspicious
from .timestamps import format_time, parse_time

MAX_EVENT_BYTES = 1 << 20  # an OpsML create is 530 B; 1 MiB leaves room and bounds a client's memory

_NORMAL = Priority.NORMAL  # looking it up in its class costs as much as a step of encoding
_PRIORITY_NAMES: dict[Priority, str] = {
    Priority.LOW: "low",
    Priority.HIGH: "high",
    Priority.CRITICAL: "critical",
}
_PRIORITIES = {"normal": Priority.NORMAL, **{name: priority for priority, name in _PRIORITY_NAMES.items()}}
_UNSET = msgspec.UNSET


class _Envelope(msgspec.Struct, gc=False, omit_defaults=True):
    specversion: str | msgspec.UnsetType = _UNSET
    id: str | msgspec.UnsetType = _UNSET
    source: str | msgspec.UnsetType = _UNSET
    type: str | msgspec.UnsetType = _UNSET
    time: str | msgspec.UnsetType = _UNSET
    priority: str | msgspec.UnsetType | None = _UNSET
    replay: str | msgspec.UnsetType | None = _UNSET
    data: msgspec.Raw | msgspec.UnsetType = _UNSET


class _GapData(msgspec.Struct, frozen=True):
    missed: int | None
    after: str | None
    reason: str


_REQUIRED = ("specversion", "id", "source", "type", "time")
_KNOWN = frozenset({*_Envelope.__struct_fields__, "seq", "durable", "chain"})


_astuple, _convert, _keep = msgspec.structs.astuple, msgspec.convert, msgspec.structs.force_setattr
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_gap = msgspec.json.Decoder(_GapData).decode

# A line's place in a journal: always its last three members, spelled exactly so.
_PLACE = re.compile(rb',"seq":\d{1,20},"durable":\d{1,20},"chain":"[0-9a-f]{64}"\}\Z')
PLACE_BYTES = 7 + 20 + 11 + 20 + 76  # at most, with the closing brace


# ── events → lines ───────────────────────────────────────────────────────────────────────────────────────────────


def encode_line(item: Event | Gap) -> bytes:
    """The canonical line, without its newline; encoded once, then kept on the event.

    Raises Unencodable: a value that could not be read back the same, or a line over 1 MiB.
    """
    line = item.line
    if line is not None:
        return line
    line = _encode_event(item) if isinstance(item, Event) else _encode_gap(item)
    if len(line) > MAX_EVENT_BYTES:
        raise Unencodable(f"{len(line):,} bytes; an event may have {MAX_EVENT_BYTES:,}")
    # A frozen value gains a cache: every thread would store the same bytes.
    _keep(item, "line", line)
    return line


def encode_data(type: str, data: Any) -> bytes:  # noqa: A002 - the member's name on the wire
    """The JSON text of a payload. Raises Unencodable naming the member that cannot be written."""
    if isinstance(data, EncodedData):
        return data.raw
    if isinstance(data, Payload):
        return encode_payload(type, data)
    if data.__class__ is dict and _FLAT.issuperset({value.__class__ for value in data.values()}):
        # What orjson would write and not read back the same cannot be in here, and the rest it refuses itself.
        with suppress(TypeError):
            return orjson.dumps(data)
    refuse_unfaithful(data, "data")
    try:
        return orjson.dumps(data)
    except (TypeError, UnicodeEncodeError) as error:
        raise Unencodable(str(error), "data") from error


def encoded_data(type: str, data: Any) -> EncodedData:  # noqa: A002
    """A payload in its bytes, as if it had been read from a line: for a source whose members we may not all know.

    Raises Unencodable.
    """
    return _JsonData(encode_data(type, data))


def from_text(text: bytes) -> EncodedData:
    """A payload that is compact JSON text already."""
    return _JsonData(text)


_FLAT = frozenset({str, int, bool, type(None)})


def _check_envelope(event: Event) -> None:
    """Refuse what no reader would take back. Building an Event checks nothing."""
    for name in ("id", "source", "type"):
        value = getattr(event, name)
        if not isinstance(value, str) or not value:
            raise Unencodable(f"{value!r:.40} is no text", name)
    if event.replay is not None and not isinstance(event.replay, str):
        raise Unencodable(f"{event.replay!r:.40} is no text", "replay")
    if not isinstance(event.time, int):
        raise Unencodable(f"{event.time!r:.40} is no number of nanoseconds", "time")
    if not isinstance(event.priority, Priority):
        raise Unencodable(f"{event.priority!r:.40} is no Priority", "priority")
    if len(event.id) > MAX_ID_BYTES or len(event.id.encode("utf-8", "replace")) > MAX_ID_BYTES:
        raise Unencodable(f"an id has 1 to {MAX_ID_BYTES} bytes", "id")


def _encode_event(event: Event) -> bytes:
    id, source, content, time = event.id, event.source, event.content, event.time  # noqa: A001 - the member on the wire
    type_, priority, replay, extensions = event.type, event.priority, event.replay, event.extensions
    if not (
        type(id) is type(source) is type(type_) is str
        and id
        and source
        and type_
        and len(id) <= MAX_ID_BYTES // 4
        and type(time) is int
        and (priority is _NORMAL or type(priority) is Priority)
        and (replay is None or type(replay) is str)
    ):
        _check_envelope(event)
    lane = _UNSET if priority is _NORMAL else _PRIORITY_NAMES[priority]
    origin = _UNSET if replay is None else replay
    values = twins.get(content.__class__)
    if values is not None and not extensions:
        try:
            _convert(_astuple(content), values)
            return encode(_Envelope("1.0", id, source, type_, format_time(time), lane, origin, content))
        except Exception:  # noqa: BLE001, S110 - an enumeration may run anybody's code
            pass  # the long way says what is wrong, and where
    raw = encode_data(type_, content)
    data = msgspec.Raw(raw) if raw and not extensions else _UNSET
    try:
        line = encode(_Envelope("1.0", id, source, type_, format_time(time), lane, origin, data))
    except UnicodeEncodeError as error:
        raise Unencodable("a lone surrogate", "envelope") from error
    if extensions:
        line = b"".join((line[:-1], extensions, b',"data":' if raw else b"", raw, b"}"))
    if b"\n" in line:  # inside a text it is escaped: so it came in ready-made bytes, and would end the line
        raise Unencodable("a line break between two members", "data")
    return line


def _encode_gap(gap: Gap) -> bytes:
    envelope = _Envelope("1.0", gap.id, gap.source, GAP_TYPE, format_time(gap.time))
    try:
        envelope.data = msgspec.Raw(encode(_GapData(gap.missed, gap.after, gap.reason)))
        return encode(envelope)
    except UnicodeEncodeError as error:
        raise Unencodable("a lone surrogate", "envelope") from error


# ── lines → events ───────────────────────────────────────────────────────────────────────────────────────────────


def decode_line(line: bytes, *, foreign: bool = False, source: str | None = None) -> Event | Gap:
    """One line, with or without its newline, as an Event or a Gap.

    foreign: the line comes from outside: duplicate keys are looked for and `data` is validated at once.
    source: fill in missing specversion, id, time and source (this one), as `publish` does.

    Raises MalformedLine: not one JSON document in UTF-8, over 1 MiB, a number beyond 64 bits, nesting over 128.
    Raises InvalidEvent: a member is missing, of the wrong type, or has a value it cannot have.
    """
    line = line.strip(b" \t\r\n")
    if foreign or suspicious(line):
        scrutinise(line, duplicates=foreign)
    line = strip_place(line)
    if len(line) > MAX_EVENT_BYTES:
        raise MalformedLine(f"{len(line):,} bytes; a line may have {MAX_EVENT_BYTES:,}")
    try:
        envelope = _decode_envelope(line)
    except msgspec.ValidationError as error:
        place, reason = where_wrong(error, "")
        raise InvalidEvent(reason, place) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        scrutinise(line)  # says what and where, better than the decoder does
        raise MalformedLine(str(error)) from error
    if source is not None:
        line = _complete(envelope, line, source)
    return _to_item(envelope, line, foreign=foreign)


def strip_place(line: bytes) -> bytes:
    """A journal's line without `seq`, `durable` and `chain`; any other line as it is."""
    if line.endswith(b'"}'):
        match = _PLACE.search(line, max(0, len(line) - PLACE_BYTES))
        if match:
            return line[: match.start()] + b"}"
    return line


class _JsonData(EncodedData):
    """`data` as bytes, decoded at most once (twice if two threads ask at the same moment: to equal values)."""

    __slots__ = ("_value",)
    _value: Any

    def decode(self, type: str) -> Any:  # noqa: A002 - the member's name on the wire
        try:
            return self._value
        except AttributeError:
            self._value = value = _decode_data(type, self.raw)
            return value


def _decode_data(type: str, raw: bytes) -> Any:  # noqa: A002
    if not raw:
        return None
    cls = payload_type(type)
    if cls is None:
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise MalformedLine(str(error), "data") from error
    try:
        return schema_of(cls).decode(raw)
    except msgspec.ValidationError as error:
        place, reason = where_wrong(error, "data")
        raise InvalidEvent(reason, place) from error
    except InvalidEvent:
        raise
    except Exception as error:  # a class may run anybody's code when it is made
        raise InvalidEvent(f"{error.__class__.__name__}: {error}", "data") from error


def _to_item(envelope: _Envelope, line: bytes, *, foreign: bool) -> Event | Gap:
    id, source, type, text = envelope.id, envelope.source, envelope.type, envelope.time  # noqa: A001
    if id is _UNSET or source is _UNSET or type is _UNSET or text is _UNSET or envelope.specversion is _UNSET:
        raise InvalidEvent("missing", next(name for name in _REQUIRED if getattr(envelope, name) is _UNSET))
    if envelope.specversion != "1.0":
        raise InvalidEvent(f"CloudEvents {envelope.specversion!r}; this is 1.0", "specversion")
    if not id or len(id) > MAX_ID_BYTES or (not id.isascii() and len(id.encode()) > MAX_ID_BYTES):
        raise InvalidEvent(f"an id has 1 to {MAX_ID_BYTES} bytes", "id")
    if not source:
        raise InvalidEvent("empty", "source")
    if not type:
        raise InvalidEvent("empty", "type")
    time = parse_time(text)
    name, replay, data = envelope.priority, envelope.replay, envelope.data
    priority = _NORMAL
    if name is not _UNSET and name is not None:
        try:
            priority = _PRIORITIES[name]
        except KeyError:
            raise InvalidEvent(f"{name[:32]!r} is none of {', '.join(_PRIORITIES)}", "priority") from None
    raw = b"" if data is _UNSET else bytes(data)
    # What our own encoder writes is canonical and carries no attribute we do not know; comparing costs less than
    # asking for the members one by one.
    canonical = (
        (name is _UNSET or priority is not _NORMAL)
        and replay is not None
        and text == format_time(time)
        and encode(envelope) == line
        and b"\n" not in raw
        and not (foreign and raw and msgspec.json.format(raw, indent=-1) != raw)
    )
    if not canonical and raw:
        raw = msgspec.json.format(raw, indent=-1)
    if type == GAP_TYPE:
        return _to_gap(id, source, time, raw, line if canonical else None)
    extensions = b"" if canonical else _extensions(line)
    origin = None if replay is _UNSET else replay
    event = Event(id, source, type, time, _JsonData(raw), priority, origin, extensions, line if canonical else None)
    if foreign:
        if not raw and payload_type(type) is not None:
            raise InvalidEvent("missing", "data")
        event.data  # noqa: B018 - validates; a foreign event of a known type must fit it before it goes any further
    return event


def _to_gap(id: str, source: str, time: int, raw: bytes, line: bytes | None) -> Gap:  # noqa: A002
    try:
        data = _decode_gap(raw)
    except msgspec.ValidationError as error:
        place, reason = where_wrong(error, "data")
        raise InvalidEvent(reason, place) from error
    except msgspec.DecodeError:
        raise InvalidEvent("missing", "data") from None
    if data.missed is not None and data.missed < 0:
        raise InvalidEvent("less than nothing", "data.missed")
    # A reason from a later version is shown as it is: a Gap that is refused would be a loss in silence.
    return Gap(id, source, data.missed, data.after, cast("GapReason", data.reason), time, line)


def _extensions(line: bytes) -> bytes:
    """The attributes we do not know, as they were read: `,"name":value` each."""
    parts = [
        b"," + encode(name) + b":" + msgspec.json.format(bytes(value), indent=-1)
        for name, value in _decode_members(line).items()
        if name not in _KNOWN
    ]
    return b"".join(parts)


def _complete(envelope: _Envelope, line: bytes, source: str) -> bytes:
    """Fill in what a publisher may leave out; the line that says the same."""
    if _UNSET not in msgspec.structs.astuple(envelope)[:5]:
        return line
    missing = {
        "specversion": "1.0",
        "id": new_id,
        "source": source,
        "time": lambda: format_time(time_ns()),
    }
    added = []
    for name, value in missing.items():
        if getattr(envelope, name) is _UNSET:
            text = value() if callable(value) else value
            setattr(envelope, name, text)
            added.append(encode(name) + b":" + encode(text))
    if not added:
        return line
    inner = line[1:].lstrip()
    return b"{" + b",".join(added) + (b"" if inner == b"}" else b",") + inner
