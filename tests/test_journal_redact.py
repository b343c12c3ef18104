"""Redacted fields never reach the file, and equal values can still be matched."""

from __future__ import annotations

from journal_support import audit, ids, write

from opsml_eventbus.audit import AuditEvent
from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.journal import Redaction, read_journal, verify_journal
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


def test_a_log_without_redaction_keeps_events_as_they_are(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [audit(1)])
    assert decode_line(next(read_journal(path)).line) == audit(1).replace(id=ids(path)[0])
    assert list_log(path).sealed == ()
