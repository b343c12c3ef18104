"""Payloads that spell lines of a journal, in a batch that a crash left in part: they move nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from journal_support import ids, independent_verifier, lines, make, open_plain

from opsml_eventbus.codec import encode_line
from opsml_eventbus.event import Event
from opsml_eventbus.journal import recover, verify_journal
from opsml_eventbus.journal.format import ZERO, Head, lines_within, link, write_lines

pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


def spelled(seq: int, durable: int, before: bytes = b"") -> bytes:
    """An object with a place that joins a chain value of one's choice."""
    body = b'{"specversion":"1.0","x":1,"seq":%d,"durable":%d' % (seq, durable)
    return body + b',"chain":"%s"}' % link(before, body).hex().encode()


def excerpt(seq: int) -> bytes:
    """Lines of some journal, as somebody would publish them."""
    rows = [row[:-1] + b',"a":1}' for row in lines(range(5))]
    return b"[" + b",".join(write_lines(Head(seq, ZERO), seq, rows)[1].splitlines()) + b"]"


PAYLOADS = {
    "a great mark": spelled(900, 899),
    "a great seq": spelled(900, 0),
    "behind the start of a log": spelled(1, 0, ZERO),
    "an excerpt": excerpt(0),
    "a later excerpt": excerpt(900),
}


@pytest.fixture(params=PAYLOADS)
def published(request, tmp_path) -> tuple[Path, bytes]:
    """A log whose last batch holds such a payload, and the payload."""
    payload = PAYLOADS[request.param]
    path = tmp_path / "audit.jsonl"
    file = open_plain(path)
    file.append(lines([1, 2]))
    file.sync()
    data = json.loads(b'{"o":%s,"rest":"%s"}' % (payload, b"x" * 300))
    file.append([encode_line(Event.new("t", data, id="w", source="s", time=1)), *lines([3, 4])])
    file.close()
    assert payload in path.read_bytes()
    return path, payload


def is_torn(path: Path) -> None:
    report = verify_journal(path)
    assert (report.exit, report.verdict) == (3, "torn")
    assert report.durable <= 3  # what stands behind the hole states that
    assert independent_verifier()(path) == 3
    recover(path)
    assert (verify_journal(path).exit, ids(path)) == (0, ["e1", "e2"])


def test_a_crash_that_tears_it_is_torn_wherever_it_does(published):
    path, payload = published
    data = path.read_bytes()
    begin = data.index(payload)
    for end in {begin + len(payload), *range(begin, begin + len(payload) + 200, 41)}:
        path.write_bytes(data[:end])
        report = verify_journal(path)
        assert (report.exit, report.head.seq, report.durable) == (3, 3, 0), end
        assert independent_verifier()(path) == 3
    is_torn(path)


@pytest.mark.parametrize("until", ["its end", "the end of the line", "the next line"])
@pytest.mark.parametrize("behind", ["the payload", "a part of the rest"])
def test_a_hole_behind_it_is_torn(published, behind, until):
    path, payload = published
    data = path.read_bytes()
    begin = data.index(payload) + len(payload) + (150 if behind != "the payload" else 0)
    newline = data.index(b"\n", begin)
    end = {"its end": newline - 20, "the end of the line": newline, "the next line": newline + 40}[until]
    path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])
    is_torn(path)


ENDED = itertools.product((b"\r\n", b" \n"), [None, 0, 1, 2])
RUN_TOGETHER = itertools.product((b"", b"\r"), [None, 2])


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize(("newline", "altered"), [*ENDED, *RUN_TOGETHER, (b"\0", None)])
def test_a_log_whose_newlines_became_something_else_is_altered(tmp_path, close, newline, altered):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3], [4]], close=close)
    rows = path.read_bytes().splitlines()
    if altered is not None:
        rows[altered] = rows[altered].replace(b'"source":"', b'"source":"z', 1)
    path.write_bytes(b"".join(row + newline for row in rows))
    assert verify_journal(path).exit == 5


def test_lines_follow_each_other_or_are_none():
    first, second = spelled(1, 0, ZERO), spelled(2, 1)
    for between in (b"", b"\r", b" \t", bytes(700)):
        assert list(lines_within(first + between + second + b"\r")) == [(first, True), (second, False)]
    for between in (b",", b"x", b"}"):
        assert [line for line, _ in lines_within(first + between + second)] == [first + between + second]
    assert not list(lines_within(first + b"]"))
