"""Lines ⇄ events: what survives, what is refused, and where it says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsml_eventbus import AuditEvent, Event, Gap, Payload, Priority, SpaceNameEvent, event_type
from opsml_eventbus.codec import (
    MAX_EVENT_BYTES,
    decode_line,
    encode_line,
    strip_place,
)
from opsml_eventbus.errors import EventError, InvalidEvent, MalformedLine, TypeRefused, Unencodable
from opsml_eventbus.event import new_id
from opsml_eventbus.splitter import LineSplitter
from opsml_eventbus.timestamps import format_time, parse_time

CANONICAL = (
    b'{"specversion":"1.0","id":"01a20a62-3be4-7c83-82e0-c39982f89478","source":"opsml","type":"audit",'
    b'"time":"2026-11-23T21:48:59.747576123Z","data":{"username":"guest","client_ip":"127.0.0.1",'
    b'"user_agent":"opsml-client/","operation":"Create","resource_type":"Database","resource_id":"x",'
    b'"access_location":null,"status":"Success","error_message":null,"metadata":"{\\"a\\":1}",'
    b'"registry_type":"prompt","route":"/opsml/api/card/create"}}'
)


class Level(IntEnum):
    """Takes every number."""

    LOW = 1
    OTHER = 0

    @classmethod
    def _missing_(cls, value: object) -> Level:
        return cls.OTHER


@event_type("test.levelled")
class Levelled(Payload):
    level: Level


class Text(str):
    """As `numpy.str_` and `markupsafe.Markup` are."""

    __slots__ = ()


@event_type("test.reading")
class Reading(Payload):
    celsius: float
    count: int = 0
    tags: list[str] = []  # noqa: RUF012 - msgspec copies it


def line(data: str = "{}", **members: str) -> bytes:
    """A foreign line; members are JSON texts."""
    given = {
        "specversion": '"1.0"',
        "id": '"1"',
        "source": '"s"',
        "type": '"made.up"',
        "time": '"2026-01-01T00:00:00Z"',
    }
    given.update(members)
    given = {name: value for name, value in given.items() if value}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in given.items()) + f',"data":{data}}}').encode()


# ── round trips ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_canonical_line_round_trips_byte_for_byte() -> None:
    event = decode_line(CANONICAL)
    assert encode_line(event) == CANONICAL
    assert isinstance(event, Event)
    # Once more with nothing kept: the encoder, not the cache, spells the same bytes.
    assert encode_line(event.replace()) == CANONICAL
    assert isinstance(event.data, AuditEvent)
    assert event.data.registry_type == "prompt"
    assert event.time % 1_000_000_000 == 747_576_123


def test_members_and_attributes_nobody_knows_survive() -> None:
    foreign = (
        b'{ "subject":"x" , "type":"audit","specversion":"1.0","time":"2026-11-23T22:48:59+01:00","id":"7",'
        b'"source":"elsewhere","nested":{"a":[1, 2.50]},"data":{"username":"u","column_of_tomorrow":[1.0,{"z":null}]}}'
    )
    event = decode_line(foreign)
    canonical = encode_line(event)
    assert canonical == (
        b'{"specversion":"1.0","id":"7","source":"elsewhere","type":"audit","time":"2026-11-23T21:48:59.000000000Z",'
        b'"subject":"x","nested":{"a":[1,2.50]},"data":{"username":"u","column_of_tomorrow":[1.0,{"z":null}]}}'
    )
    again = decode_line(canonical)
    assert encode_line(again) == canonical
    assert again == event
    assert isinstance(again, Event)
    assert encode_line(again.replace(replay="r")) == canonical.replace(b'000000000Z",', b'000000000Z","replay":"r",', 1)


def test_a_place_in_a_journal_is_taken_off() -> None:
    placed = CANONICAL[:-1] + b',"seq":42,"durable":40,"chain":"' + b"0f" * 32 + b'"}'
    assert strip_place(placed) == CANONICAL
    assert encode_line(decode_line(placed)) == CANONICAL


def test_a_payload_with_members_called_like_ours_is_not_confused() -> None:
    data = '{"id":"inner","seq":9,"chain":"c","type":"t","time":1,"replay":"no","data":{"id":2}}'
    event = decode_line(line(data))
    assert isinstance(event, Event)
    assert event.id == "1"
    assert event.replay is None
    assert event.data == json.loads(data)
    assert encode_line(event).endswith(data.encode() + b"}")


def test_an_unknown_type_round_trips_without_a_schema() -> None:
    event = Event.new("made.up", {"a": [1, 2.5, None, True, "é\u2028"]}, priority=Priority.CRITICAL, id="π")
    again = decode_line(encode_line(event))
    assert again == event
    assert isinstance(again, Event)
    assert again.priority is Priority.CRITICAL


def test_an_event_without_data_stays_without() -> None:
    bare = b'{"specversion":"1.0","id":"1","source":"s","type":"ping","time":"2026-01-01T00:00:00.000000000Z"}'
    event = decode_line(bare)
    assert isinstance(event, Event)
    assert event.data is None
    assert encode_line(event.replace()) == bare


def test_normal_priority_and_null_replay_are_left_out() -> None:
    event = decode_line(line(priority='"normal"', replay="null"))
    assert b"priority" not in encode_line(event)
    assert b"replay" not in encode_line(event)


@pytest.mark.parametrize("missed", [0, 12, None])
def test_a_gap_is_a_cloud_event(missed: int | None) -> None:
    gap = Gap.new(missed, "some-id" if missed else None, "lag")
    text = json.loads(encode_line(gap))
    assert text["type"] == "eventbus.gap"
    assert text["data"] == {"missed": missed, "after": gap.after, "reason": "lag"}
    assert decode_line(encode_line(gap)) == gap


def test_a_gap_for_a_reason_of_tomorrow_is_not_lost() -> None:
    gap = decode_line(line('{"missed":3,"after":null,"reason":"quota"}', type='"eventbus.gap"'))
    assert isinstance(gap, Gap)
    assert gap.missed == 3


texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(
    data=values,
    id=texts.filter(lambda text: 0 < len(text.encode()) <= 256),
    source=texts.filter(bool),
    time=st.integers(-62_135_596_800 * 10**9, 253_402_300_799 * 10**9),
    priority=st.sampled_from(Priority),
    replay=st.none() | texts,
)
def test_whatever_is_written_is_read_back_the_same(
    data: Any, id: str, source: str, time: int, priority: Priority, replay: str | None
) -> None:
    event = Event.new("made.up", data, id=id, source=source, time=time, priority=priority, replay=replay)
    written = encode_line(event)
    assert b"\n" not in written
    for foreign in (False, True):
        read = decode_line(written, foreign=foreign)
        assert read == event
        assert isinstance(read, Event)
        assert encode_line(read.replace()) == written


@given(fields=st.fixed_dictionaries({}, optional=dict.fromkeys(("username", "metadata", "route"), texts)))
def test_audit_events_with_any_text_come_back(fields: dict[str, str]) -> None:
    event = Event.new("audit", AuditEvent(**fields))
    assert decode_line(encode_line(event)) == event


# ── what is refused, and where it says so ────────────────────────────────────────────────────────────────────────

DEEP = "[" * 129 + "]" * 129


@pytest.mark.parametrize(
    ("bad", "reason", "place"),
    [
        (b"", "empty", "byte 0"),
        (b"12", "expected object", ""),
        (b'"text"', "expected object", ""),
        (b"{", "expect", "byte 1"),
        (b"\x00\x00\x00", "expecting value", "byte 0"),
        (b"\xef\xbb\xbf{}", "byte order mark", "byte 0"),
        (line() + line(), "extra data", "byte 100"),
        (line('{"a":NaN}'), "NaN is no JSON", "byte"),
        (line('{"a":-Infinity}'), "-Infinity is no JSON", "byte"),
        (line('{"a":18446744073709551616}'), "beyond 64 bits", "byte"),
        (line('{"a":-9223372036854775809}'), "beyond 64 bits", "byte"),
        (line('{"a":' + "9" * 5000 + "}"), "beyond 64 bits", "byte"),
        (line(DEEP), "deeper than 128", "byte"),
        (line('{"a":"\\ud800"}'), "lone surrogate", "byte"),
        (line(id='"\\udfff"'), "lone surrogate", "byte"),
        (line('"x"').replace(b"x", b"\xff"), "not UTF-8", "byte"),
        (line('"x"').replace(b"x", b"\xc0\xaf"), "not UTF-8", "byte"),
        (line('"x"').replace(b"x", b"\xed\xa0\x80"), "not UTF-8", "byte"),
        (line('"' + "x" * MAX_EVENT_BYTES + '"'), "bytes; a line may have", ""),
        (line(id=""), "missing", "id"),
        (line(source=""), "missing", "source"),
        (line(type=""), "missing", "type"),
        (line(time=""), "missing", "time"),
        (line(specversion=""), "missing", "specversion"),
        (line(specversion='"0.3"'), "CloudEvents '0.3'", "specversion"),
        (line(id="7"), "expected str, got int", "id"),
        (line(id='""'), "1 to 256 bytes", "id"),
        (line(id='"' + "é" * 129 + '"'), "1 to 256 bytes", "id"),
        (line(source='""'), "empty", "source"),
        (line(type='""'), "empty", "type"),
        (line(time='"yesterday"'), "no RFC 3339 time", "time"),
        (line(time='"2026-02-30T00:00:00Z"'), "no date and time", "time"),
        (line(time='"2026-01-01T00:00:00"'), "no RFC 3339 time", "time"),
        (line(priority='"urgent"'), "'urgent' is none of", "priority"),
        (line(type='"eventbus.gap"'), "missing required field", "data"),
        (line('{"missed":-1,"after":null,"reason":"lag"}', type='"eventbus.gap"'), "less than nothing", "data.missed"),
    ],
)
def test_what_is_no_event_is_refused_with_its_place(bad: bytes, reason: str, place: str) -> None:
    for foreign in (False, True):
        with pytest.raises(InvalidEvent) as refused:
            decode_line(bad, foreign=foreign)
        assert reason in str(refused.value)
        assert refused.value.place.startswith(place)


@pytest.mark.parametrize(
    ("data", "reason", "place"),
    [
        ('{"username":7}', "expected str, got int", "data.username"),
        ('{"access_location":[]}', "expected str | null, got array", "data.access_location"),
        ("[]", "expected object, got array", "data"),
    ],
)
def test_data_that_does_not_fit_its_type_is_refused_when_asked_for(data: str, reason: str, place: str) -> None:
    event = decode_line(line(data, type='"audit"'))
    assert isinstance(event, Event)
    with pytest.raises(InvalidEvent) as refused:
        event.data  # noqa: B018
    assert (refused.value.reason, refused.value.place) == (reason, place)
    with pytest.raises(InvalidEvent):
        decode_line(line(data, type='"audit"'), foreign=True)


def test_a_missing_field_names_itself() -> None:
    event = decode_line(line('{"space":"s"}', type='"space_name"'))
    assert isinstance(event, Event)
    with pytest.raises(InvalidEvent, match="missing required field name"):
        event.data  # noqa: B018


@pytest.mark.parametrize(
    "bad",
    [
        line('{"a":1,"a":2}'),
        line('{"a":{"b":1,"c":2,"b":3}}'),
        line(subject='"x"')[:-1] + b',"subject":"y"}',
        line('{"a":1e999}'),
        line('{"a":-1e400}'),
    ],
)
def test_foreign_lines_are_looked_at_more_closely(bad: bytes) -> None:
    with pytest.raises(MalformedLine):
        decode_line(bad, foreign=True)


def test_values_outside_the_domains_are_kept() -> None:
    event = decode_line(line('{"operation":"Teleport","status":"Maybe"}', type='"audit"'), foreign=True)
    assert isinstance(event, Event)
    assert event.data.operation == "Teleport"


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"a": float("nan")}, "data.a"),
        ({"a": [1, float("inf")]}, "data.a[1]"),
        ({"a": 2**64}, "data.a"),
        ({"a": -(2**63) - 1}, "data.a"),
        ({1: 2}, "data"),
        ({"a": "\ud800"}, "data.a"),
        ({"\ud800": 1}, "data"),
        ({"a": b"bytes"}, "data.a"),
        ({"a": object()}, "data.a"),
        (json.loads(DEEP), "data" + "[0]" * 128),
    ],
)
def test_what_could_not_be_read_back_is_not_written(data: Any, place: str) -> None:
    with pytest.raises(Unencodable) as refused:
        encode_line(Event.new("made.up", data))
    assert refused.value.place == place


@pytest.mark.parametrize(
    "payload",
    [
        AuditEvent(username=7),  # type: ignore[arg-type]
        AuditEvent(username=None),  # type: ignore[arg-type]
        AuditEvent(username="\ud800"),
        Reading(celsius=float("nan")),
        Reading(celsius=1.0, count=2**64),
        Reading(celsius=1.0, tags=["\udc00"]),
        SpaceNameEvent("s", "n", msgspec.UNSET),  # type: ignore[arg-type]
    ],
)
def test_a_payload_with_a_wrong_field_is_refused_when_it_is_written(payload: Payload) -> None:
    with pytest.raises(Unencodable):
        encode_line(Event.new(payload.__event_type__, payload))


# Twice: a class is looked at when its first payload is written.
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("payload", "place"),
    [
        (AuditEvent(username=b"abc"), "data.username"),  # type: ignore[arg-type]
        (AuditEvent(username=datetime(2026, 1, 1, tzinfo=UTC)), "data.username"),  # type: ignore[arg-type]
        (AuditEvent(username=msgspec.UNSET), "data.username"),  # type: ignore[arg-type]
        (AuditEvent(access_location=float("nan")), "data.access_location"),  # type: ignore[arg-type]
        (AuditEvent(username=msgspec.Raw(b'"x","username":"root"')), "data"),  # type: ignore[arg-type]
        (Levelled(2**64), "data.level"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_would_be_read_back_as_another_is_refused(payload: Payload, place: str, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Unencodable) as refused:
            encode_line(Event.new(payload_name(payload), payload))
        assert refused.value.place == place


def payload_name(payload: Payload) -> str:
    return "audit" if isinstance(payload, AuditEvent) else "test.levelled"


@pytest.mark.parametrize("times", [1, 2])
def test_a_text_of_a_class_of_its_own_is_written_as_the_text_it_is(times: int) -> None:
    for _ in range(times):
        line = encode_line(Event.new("audit", AuditEvent(username=Text("x"))))
    assert decode_line(line).data == AuditEvent(username="x")  # type: ignore[union-attr]


@event_type("test.carrying")
class Carrying(Payload):
    content: msgspec.Raw


def test_ready_made_json_stays_on_one_line() -> None:
    line = encode_line(Event.new("audit", AuditEvent(username=msgspec.Raw(b'\n"x"'))))  # type: ignore[arg-type]
    assert decode_line(line).data == AuditEvent(username="x")  # type: ignore[union-attr]
    line = encode_line(Event.new("test.carrying", Carrying(msgspec.Raw(b'{\n  "a": [1,\n 2]\n}'))))
    assert line.endswith(b'"data":{"content":{"a":[1,2]}}}')


def test_a_line_break_between_members_is_taken_out_when_it_is_read() -> None:
    broken = CANONICAL.replace(b'"data":{', b'"data":{\n')
    for foreign in (False, True):
        item = decode_line(broken, foreign=foreign)
        assert item.line is None
        assert encode_line(item) == CANONICAL


@event_type("test.failing")
class Failing(Payload):
    name: str

    def __post_init__(self) -> None:
        if self.name == "fail":
            raise KeyError(self.name)


def test_whatever_a_class_raises_is_a_refusal() -> None:
    payload = Failing("fine")
    msgspec.structs.force_setattr(payload, "name", "fail")
    with pytest.raises(Unencodable, match="KeyError"):
        encode_line(Event.new("test.failing", payload))
    line = CANONICAL.replace(b'"audit"', b'"test.failing"').partition(b',"data"')[0] + b',"data":{"name":"fail"}}'
    with pytest.raises(InvalidEvent, match="KeyError"):
        decode_line(line).data  # type: ignore[union-attr]  # noqa: B018


def test_an_event_over_one_mebibyte_is_refused() -> None:
    with pytest.raises(Unencodable, match="bytes; an event may have"):
        encode_line(Event.new("made.up", "x" * MAX_EVENT_BYTES))


def test_the_deepest_that_is_written_can_be_read() -> None:
    data = json.loads("[" * 128 + "]" * 128)
    event = Event.new("made.up", data)
    assert decode_line(encode_line(event), foreign=True) == event


# ── filling in, times, types, ids ────────────────────────────────────────────────────────────────────────────────


def test_publish_fills_in_what_a_line_leaves_out() -> None:
    event = decode_line(b'{"type":"audit","data":{"username":"me"},"subject":"s"}', foreign=True, source="shop")
    assert isinstance(event, Event)
    assert (event.source, event.data.username) == ("shop", "me")
    assert len(event.id) == 36
    assert b'"subject":"s"' in encode_line(event)
    kept = decode_line(line(), foreign=True, source="shop")
    assert (kept.id, kept.source) == ("1", "s")
    with pytest.raises(InvalidEvent, match="type: missing"):
        decode_line(b"{}", foreign=True, source="shop")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2026-11-23T21:48:59Z", "2026-11-23T21:48:59.000000000Z"),
        ("2026-11-23t21:48:59.5z", "2026-11-23T21:48:59.500000000Z"),
        ("2026-11-23 21:48:59.1234567899+05:30", "2026-11-23T16:18:59.123456789Z"),
        ("1969-12-31T23:59:59.999999999-00:00", "1969-12-31T23:59:59.999999999Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000000Z"),
    ],
)
def test_times_of_any_offset_and_precision_become_canonical(text: str, canonical: str) -> None:
    assert format_time(parse_time(text)) == canonical


def test_a_time_that_its_offset_or_leap_second_carries_out_of_the_calendar_is_refused() -> None:
    for text in ("9999-12-31T23:59:60Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-00:01"):
        for _ in range(2):
            with pytest.raises(InvalidEvent, match="outside the years"):
                parse_time(text)


def test_a_time_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(Unencodable, match="years 1 to 9999"):
        encode_line(Event.new("made.up", 1, time=10**21))


def test_types_of_ours_and_doubles_are_refused() -> None:
    with pytest.raises(TypeRefused, match="bus's own"):
        event_type("eventbus.mine")(Reading)
    with pytest.raises(TypeRefused, match="already registered by"):

        @event_type("audit")
        class Other(Payload):
            x: int

    with pytest.raises(TypeRefused):
        Event.new("eventbus.gap", {})
    with pytest.raises(TypeRefused, match="the payload's type is 'audit'"):
        Event.new("other", AuditEvent())
    with pytest.raises(TypeRefused):
        Event.new("", {})


def test_pattern_matching_works_as_the_specification_shows() -> None:
    event = decode_line(CANONICAL.replace(b"Success", b"Denied"))
    assert isinstance(event, Event)
    match event.data:
        case AuditEvent(status="Denied", username=name):
            assert name == "guest"
        case _:
            raise AssertionError


def test_every_error_descends_from_one() -> None:
    import opsml_eventbus.errors as errors

    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(classes) > 10
    assert all(issubclass(cls, EventError) for cls in classes)
    assert all(cls.__name__ in (errors.__doc__ or "") for cls in classes)


def test_ids_are_uuid7_and_increase() -> None:
    import uuid

    ids = [new_id() for _ in range(20_000)]
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == ids
    first = uuid.UUID(ids[0])
    assert (first.version, first.variant) == (7, uuid.RFC_4122)


def test_ids_made_by_many_threads_at_once_are_unique() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: [new_id() for _ in range(5_000)], range(8)))
    assert len({id for ids in made for id in ids}) == 40_000


# ── bytes → lines: whole, byte by byte, with trailing data ───────────────────────────────────────────────────────


def splits(chunks: list[bytes], limit: int = 100) -> tuple[list[bytes | int], bytes | None]:
    splitter = LineSplitter(limit)
    out: list[bytes | int] = []
    for chunk in chunks:
        out += [item.length if isinstance(item, MalformedLine) else item for item in splitter.feed(chunk)]
    rest = splitter.end()
    return out, rest if rest is None or isinstance(rest, bytes) else b"too long"


@given(st.binary(max_size=60).map(lambda data: data.replace(b"a", b"\n")), st.integers(1, 7))
def test_lines_do_not_depend_on_how_bytes_arrive(data: bytes, size: int) -> None:
    whole = splits([data])
    assert splits([data[at : at + 1] for at in range(len(data))]) == whole
    assert splits([data[at : at + size] for at in range(0, len(data), size)]) == whole
    lines, rest = whole
    assert b"\n".join([*(item for item in lines if isinstance(item, bytes)), rest or b""]) == data


def test_a_line_that_is_too_long_costs_itself_and_no_memory() -> None:
    chunks = [b"a\n", *[b"x" * 60] * 50, b"\nb\n"]
    assert splits(chunks) == ([b"a", 3000, b"b"], None)


# ── the quick way of looking never says yes where the exact one says no ──────────────────────────────────────────

json_texts = st.recursive(
    st.sampled_from(
        ["1", "1.50", "1e999", "-0", "18446744073709551616", "9223372036854775807", '"\\ud800"', '"x"', "null"]
    )
    | texts.map(json.dumps)
    | st.floats().map(repr),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(st.sampled_from("aab"), inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}"
        )
    ),
)


@given(json_texts)
def test_a_text_that_comes_back_is_one_that_the_exact_look_lets_pass(text: str) -> None:
    from opsml_eventbus import scrutiny

    if not scrutiny._comes_back(text.encode()):
        return
    quick, scrutiny._comes_back = scrutiny._comes_back, lambda line: False
    try:
        scrutiny.scrutinise(text.encode(), duplicates=True)
    finally:
        scrutiny._comes_back = quick


# ── what was found by reading, and must stay found ───────────────────────────────────────────────────────────────


def test_a_canonical_line_without_data_may_be_foreign_too() -> None:
    bare = b'{"specversion":"1.0","id":"1","source":"s","type":"ping","time":"2026-01-01T00:00:00.000000000Z"}'
    assert encode_line(decode_line(bare, foreign=True)) == bare
    with pytest.raises(InvalidEvent, match="data: missing"):
        decode_line(bare.replace(b"ping", b"space_name"), foreign=True)


@pytest.mark.parametrize(
    "hostile",
    [
        b'{"a":"' + b'\\"' * 200_000 + b"[" * 200,
        b"{" + b'"a":1,' * 100_000 + b'"b":2}',
        b"{" + b",".join(b'"k%d":1' % n for n in range(100_000)) + b',"k0":1}',
    ],
)
@pytest.mark.timeout(20)
def test_no_line_costs_more_than_its_length(hostile: bytes) -> None:
    with pytest.raises(MalformedLine):
        decode_line(hostile, foreign=True)


@pytest.mark.parametrize(
    ("members", "place"),
    [
        ({"id": 7}, "id"),
        ({"id": ""}, "id"),
        ({"id": "é" * 129}, "id"),
        ({"source": 5}, "source"),
        ({"source": ""}, "source"),
        ({"source": "\ud800"}, "envelope"),
        ({"type": ""}, "type"),
        ({"time": 1.5}, "time"),
        ({"priority": 1}, "priority"),
        ({"replay": 5}, "replay"),
    ],
)
def test_an_envelope_that_no_reader_would_take_back_is_not_written(members: dict[str, Any], place: str) -> None:
    event = Event(**{"id": "1", "source": "s", "type": "made.up", "time": 0, "content": {}, **members})
    with pytest.raises(Unencodable) as refused:
        encode_line(event)
    assert refused.value.place == place
    from opsml_eventbus.flow import Batch, Record

    good = Event("good", "s", "made.up", 0, {})
    lines, refusals = Batch([Record(good), Record(event), Record(good)]).encode()
    assert len(refusals) == 1
    gap = decode_line(lines[1])
    assert isinstance(gap, Gap)
    assert gap.after == "good"
