"""Redacted fields never reach the file, and equal values can still be matched."""

from __future__ import annotations

import asyncio
import json

import pytest
from journal_support import audit, event, ids, write

from opsml_eventbus.audit import AuditEvent
from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.errors import InvalidEvent
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.journal import Journal, Redaction, read_journal, verify_journal
from opsml_eventbus.journal.redact import REDACTED
from opsml_eventbus.journal.segments import list_log


def test_a_redacted_field_never_reaches_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    payload = AuditEvent(username="alice", client_ip="10.1.2.3", access_location="basement")
    items = [Event.new("audit", payload), encode_line(Event.new("audit", payload)), Gap.new(1, None, "lag")]
    write(path, items, redact=Redaction(["username", "client_ip", "access_location", "nothing"]))
    data = path.read_bytes()
    assert b"alice" not in data
    assert b"10.1.2.3" not in data
    first, second, gap = (decode_line(item.line) for item in read_journal(path))
    assert first.data == second.data
    assert (first.data.username, first.data.route) == (REDACTED, "unknown")
    assert isinstance(gap, Gap)
    assert verify_journal(path).exit == 0


def test_equal_values_can_still_be_matched_with_a_key(tmp_path):
    def names(key, path):
        people = ["alice", "bob", "alice"]
        items = [Event.new("audit", AuditEvent(username=name)) for name in people]
        write(path, items, redact=Redaction(["username"], key))
        return [decode_line(item.line).data.username for item in read_journal(path)]

    first, second, third = names(b"k", tmp_path / "a.jsonl")
    assert first == third != second
    assert first.startswith("hmac-sha256:")
    assert names(b"other", tmp_path / "b.jsonl")[0] != first


def test_members_inside_others_are_named_with_dots(tmp_path):
    path = tmp_path / "a.jsonl"
    redact = Redaction(["card.owner", "card.missing", "n.deep"])
    write(path, [Event.new("t", {"card": {"owner": "x", "size": 3}, "n": 5})], redact=redact)
    (item,) = read_journal(path)
    assert decode_line(item.line).data == {"card": {"owner": REDACTED, "size": 3}, "n": 5}


@pytest.mark.parametrize(
    ("data", "redacted"),
    [
        ({"card": [{"owner": "x"}, {"size": 1}]}, {"card": [{"owner": 0}, {"size": 1}]}),
        ({"card": [[{"owner": "x"}], {"owner": "y"}]}, {"card": [[{"owner": 0}], {"owner": 0}]}),
        ([{"card": {"owner": "x"}}, 1], [{"card": {"owner": 0}}, 1]),
        ({"card.owner": "x", "card": "y"}, {"card.owner": 0, "card": "y"}),
        ({"card.owner": {"owner": "x"}}, {"card.owner": None}),
        ({"card": {"owner": None}}, {"card": {"owner": None}}),
        ("card.owner", "card.owner"),
    ],
)
def test_members_are_met_in_lists_and_under_names_with_dots(data, redacted):
    redacted_event = Redaction(["card.owner"])(Event.new("t", data))
    assert redacted_event.data == json.loads(json.dumps(redacted).replace("0", f'"{REDACTED}"'))


def test_everything_else_stays_to_the_byte():
    text = b'{"a":"x","n":0.1e1,"m":12345678901234567.5,"s":"\\u0061"}'
    line = encode_line(Event.new("t", {})).replace(b'"data":{}', b'"data":' + text)
    assert encode_line(Redaction(["a"])(decode_line(line))).endswith(
        b'"data":' + text.replace(b'"x"', b'"[redacted]"') + b"}"
    )


GROWS = {"a": [{"p": 1}] * 100_000}  # each number becomes 46 bytes


@pytest.mark.parametrize(
    "data",
    [GROWS, encode_line(Event.new("t", GROWS)), {"p": "x", "v": object()}, {"p": "x", "v": "y" * (1 << 20)}, b"1e999"],
)
def test_an_event_that_cannot_be_redacted_costs_itself_only(tmp_path, data):
    path = tmp_path / "a.jsonl"
    if data == b"1e999":
        bad = encode_line(Event.new("t", {"p": 0}, id="bad")).replace(b'"p":0', b'"p":%b' % data)
    else:
        bad = data if isinstance(data, bytes) else Event.new("t", data)

    async def run():
        async with Journal(path, redact=Redaction(["a.p", "p"], b"k")) as journal:
            return await journal.append([event(1), bad, event(2)])

    assert asyncio.run(run()).refused == 1
    first, gap, second = (decode_line(item.line) for item in read_journal(path))
    assert (first.id, second.id) == ("e1", "e2")
    assert (gap.reason, gap.missed, gap.after) == ("invalid", 1, "e1")


def test_bytes_that_are_no_event_are_refused_when_they_are_redacted_too(tmp_path):
    with pytest.raises(InvalidEvent):
        write(tmp_path / "a.jsonl", [event(1), b"{}"], redact=Redaction(["p"]))
    assert ids(tmp_path / "a.jsonl") == []


SMUGGLED = [
    b'"data":{"password":"SECRET","password":null}',
    b'"data":{"password":"SECRET","password":"SECRET"}',
    b'"data":{"pass\\u0077ord":"SECRET","password":null}',
    b'"data":{"pass\\u0077ord":"SECRET"}',
    b'"data":{"a":{"password":"SECRET"},"a":{"z":1}}',
    b'"data":{"a":{"password":"SECRET"},"a":1}',
    b'"data":{"a":[[{"password":"SECRET","password":null}],{"password":"SECRET"}],"b":1}',
    b'"data":[{"password":"SECRET","password":null}]',
    b'"data":{"a.password":"SECRET","a.password":null}',
    b'"data":{"password":"SECRET"},"data":{"b":1}',
    b'"data":{"password":"SECRET"},"d\\u0061ta":{"b":1}',
    b'"data":{"password":"SECRET"},"data":null',
    b'"data":{"password":"SECRET"},"more":1',
    b'"more":1,"data":{"password":"SECRET","password":null}',
]


@pytest.mark.parametrize("key", [None, b"k"])
@pytest.mark.parametrize("members", SMUGGLED)
def test_no_member_that_stands_twice_smuggles_a_secret_through(tmp_path, members, key):
    path = tmp_path / "a.jsonl"
    line = encode_line(event(1)).partition(b',"data"')[0].removesuffix(b"}") + b"," + members + b"}"
    items = [line, decode_line(line), event(2)]
    write(path, items, redact=Redaction(["password", "a.password"], key))
    assert b"SECRET" not in path.read_bytes()
    assert ids(path) == ["e1", "e1", "e2"]  # nothing is lost by it
    assert verify_journal(path).exit == 0


def test_an_empty_key_hides_nothing():
    with pytest.raises(ValueError, match="empty"):
        Redaction(["a"], b"")


def test_a_log_without_redaction_keeps_events_as_they_are(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [audit(1)])
    assert decode_line(next(read_journal(path)).line) == audit(1).replace(id=ids(path)[0])
    assert list_log(path).sealed == ()
