"""The protocol, without a socket: what is said comes back the same, whole or byte by byte; nonsense is answered."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsml_eventbus.codec import encode_line
from opsml_eventbus.endpoints.tap import protocol
from opsml_eventbus.endpoints.tap.protocol import (
    Accepted,
    Acked,
    Greeting,
    Note,
    PublishedLines,
    Refused,
    Rejection,
    Request,
    parse_reply,
    parse_request,
)
from opsml_eventbus.errors import MalformedLine
from opsml_eventbus.event import Event, Gap

REQUESTS = [
    Request(eventbus=1, do="subscribe"),
    Request(eventbus=1, do="subscribe", filter={"all": []}, last="all", after="é", bus="b", follow=False),
    Request(eventbus=1, do="subscribe", last=10, since="2026-11-23T21:48:59Z", until="2026-11-23T21:49:59+01:00"),
    Request(eventbus=1, do="publish"),
    Request(eventbus=1, do="describe"),
]
REPLIES = [
    Greeting(eventbus=1, bus="b", source="opsml", capacity=3, publish=False),
    Greeting(eventbus=1, bus="b", source="opsml", capacity=3, publish=True, pid=3, rate=1.5, lost=0),
    Note(3),
    Note(3, "id", "history"),
    Acked(7),
    Refused(7, "malformed", "no"),
    Rejection("full", "64 clients"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.do)
def test_a_request_comes_back_the_same(request_: Request):
    line = protocol.encode(request_)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert parse_request(line) == request_


@pytest.mark.parametrize("reply", REPLIES, ids=lambda r: type(r).__name__)
def test_a_reply_comes_back_the_same(reply: protocol.Reply):
    back = parse_reply(protocol.encode(reply))
    if isinstance(reply, Rejection):
        assert isinstance(back, Rejection)
        assert (back.code, back.message) == (reply.code, reply.message)
    else:
        assert back == reply


def test_a_subscriber_sees_only_what_is_new_unless_it_asks():
    request = parse_request(b'{"eventbus":1,"do":"subscribe"}')
    assert (request.last, request.after, request.filter, request.follow) == (0, None, None, True)


def test_members_and_lines_of_a_later_version_are_passed_over():
    assert parse_request(b'{"eventbus":1,"do":"publish","colour":"red"}\r\n').do == "publish"
    assert parse_reply(b'{"weather":"fine"}') is None
    assert parse_reply(b'{"seen":1,"weather":"fine"}') == Note(1)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "request"),
        (b"GET / HTTP/1.1", "request"),
        (b"\xff\xfe", "request"),
        (b"[]", "request"),
        (b"[" * 5000, "request"),
        (b'{"eventbus":2,"do":"sing"}', "version"),
        (b'{"eventbus":"1","do":"publish"}', "request"),
        (b'{"eventbus":1,"do":"sing"}', "request"),
        (b'{"eventbus":1}', "request"),
        (b'{"eventbus":1,"do":"subscribe","last":-1}', "request"),
        (b'{"eventbus":1,"do":"subscribe","last":"some"}', "request"),
        (b'{"eventbus":1,"do":"subscribe","filter":"x"}', "request"),
        (b'{"eventbus":1,"do":"subscribe","since":"yesterday"}', "request"),
        (b'{"eventbus":1,"do":"subscribe","pad":"' + b"x" * (64 << 10) + b'"}', "request"),
    ],
)
def test_what_is_no_request_is_answered_with_a_code(line: bytes, code: str):
    with pytest.raises(Rejection) as error:
        parse_request(line)
    assert error.value.code == code
    assert protocol.encode(error.value).startswith(f'{{"error":"{code}","message":"'.encode())


@given(st.binary(max_size=200))
def test_random_bytes_are_never_more_than_a_rejection(line: bytes):
    with pytest.raises(Rejection):
        parse_request(line)
    with contextlib.suppress(MalformedLine):
        parse_reply(line)


def test_every_code_is_described():
    for codes in (protocol.CODES, protocol.REFUSALS):
        assert all(text and not text.endswith(".") for text in codes.values())


def lines() -> bytes:
    good = encode_line(Event.new("a", {"n": 1}))
    gap = encode_line(Gap.new(3, None, "lag"))
    return b"\n".join(
        [
            good,
            b'{"type":"b","data":1}',
            b"",
            b"no",
            gap,
            b'{"type":"eventbus.gap2"}',
            b'{"id":3,"type":"c"}',
            good,
            b"",
        ]
    )


def as_text(found: list[Accepted | Refused]) -> list[tuple[int, str]]:
    return [(f.number, f.item.type) if isinstance(f, Accepted) else (f.refused, f"!{f.error}") for f in found]


EXPECTED = [
    (1, "a"),
    (2, "b"),
    (4, "!malformed"),
    (5, "eventbus.gap"),
    (6, "!type"),
    (7, "!invalid"),
    (8, "a"),
]


def test_published_lines_are_numbered_whole_or_byte_by_byte():
    stream = lines()
    whole = PublishedLines("here")
    assert as_text(list(whole.feed(stream))) == EXPECTED
    assert whole.count == 8
    byte = PublishedLines("here")
    assert as_text([f for i in range(len(stream)) for f in byte.feed(stream[i : i + 1])]) == EXPECTED
    assert list(byte.end()) == []
    random.seed(7)
    for _ in range(50):
        cut = random.randrange(len(stream))
        parts = PublishedLines("here")
        assert as_text([*parts.feed(stream[:cut]), *parts.feed(stream[cut:])]) == EXPECTED


def test_what_a_publisher_leaves_out_is_filled_in():
    [accepted] = PublishedLines("here").feed(b'{"type":"b","data":1}\n')
    assert isinstance(accepted, Accepted)
    assert isinstance(accepted.item, Event)
    assert accepted.item.source == "here"
    assert accepted.item.id
    assert accepted.item.data == 1


def test_half_a_line_at_the_end_is_refused_and_a_whole_one_taken():
    half = PublishedLines("here")
    assert list(half.feed(lines()[:40])) == []
    assert as_text(list(half.end())) == [(1, "!malformed")]
    whole = PublishedLines("here")
    assert list(whole.feed(b'{"type":"b"}')) == []
    assert as_text(list(whole.end())) == [(1, "b")]


def test_a_line_over_the_limit_is_one_refusal_and_costs_no_memory():
    stream = PublishedLines("here")
    found = [f for _ in range(40) for f in stream.feed(b"x" * (64 << 10))]
    found += stream.feed(b'\n{"type":"b"}\n')
    assert as_text(found) == [(1, "!malformed"), (2, "b")]
