"""Logs written from docs/journal-format.md alone, right and wrong: both verifiers say the same of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from journal_support import event, independent_verifier, lines, make, open_plain, write

from opsml_eventbus.journal import verify_journal
from opsml_eventbus.journal.segments import list_log

pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")

UUID = "01a20a62-0000-7000-8000-000000000000"
TIME = "2026-01-01T00:00:00.000000000Z"
PLACE_AT = b',"seq":'


@dataclass
class Stranger:
    """Somebody else's writer: whatever it is told to write, it chains rightly."""

    folder: Path
    seq: int = 0
    chain: bytes = bytes(32)
    events: int = 0
    first: int = 1
    rows: list[bytes] = field(default_factory=list)

    def line(self, head: str, durable: int | None = None) -> None:
        self.seq += 1
        body = head[:-1].encode() + b',"seq":%d,"durable":%d' % (self.seq, self.seq - 1 if durable is None else durable)
        self.chain = hashlib.sha256(b"eventbus/journal/v1\0" + self.chain + body).digest()
        self.rows.append(body + b',"chain":"%s"}\n' % self.chain.hex().encode())

    def record(self, name: str, data: Any, durable: int | None = None) -> None:
        source = f'"source":"eventbus.journal","type":"eventbus.journal.{name}","time":"{TIME}"'
        self.line(f'{{"specversion":"1.0","id":"{UUID}",{source},"data":{json.dumps(data)}}}', durable)

    def event(self, text: str = "", durable: int | None = None) -> None:
        self.events += 1
        self.line(
            f'{{"specversion":"1.0","id":"e","source":"s","type":"t","time":"{TIME}","data":{{"x":"{text}"}}}}', durable
        )

    @property
    def tally(self) -> dict[str, Any]:
        time = TIME if self.events else None
        return {"events": self.events, "least": time, "greatest": time}

    def open(self, durable: int | None = None, **members: Any) -> None:
        self.events, self.first, self.rows = 0, self.seq + 1, []
        said = {"format": 1, "log": UUID, "first": self.first, "previous": self.chain.hex(), "fsync": "always"}
        self.record("open", {**said, "sealed": None, **members}, durable)

    def mark(self, name: str = "checkpoint", durable: int | None = None) -> dict[str, Any]:
        said = self.tally
        self.record(name, {"tally": said, "signature": None}, durable)
        return said

    def rotate(self, durable: int | None = None, **members: Any) -> Path:
        said = self.mark("seal", durable)
        path = self.folder / f"audit.{self.first:020}.jsonl"
        path.write_bytes(b"".join(self.rows))
        self.open(durable, **{"sealed": said, **members})
        return path

    def close(self) -> None:
        self.live.write_bytes(b"".join(self.rows))

    @property
    def live(self) -> Path:
        return self.folder / "audit.jsonl"


def agreed(live: Path) -> int:
    said = verify_journal(live).exit
    assert independent_verifier()(live) == said
    return said


WRITTEN: dict[str, tuple[int, Callable[[Stranger], Any]]] = {
    "nothing strange": (0, lambda log: (log.open(), log.event(), log.rotate(), log.event(), log.mark())),
    "unknown names and members": (0, lambda log: (log.open(new=1), log.record("new", [1]), log.event(), log.mark())),
    "no signature": (0, lambda log: (log.open(), log.record("checkpoint", {"tally": log.tally}))),
    "another format": (5, lambda log: (log.open(format=2), log.event(), log.mark())),
    "an open record that lacks a member": (5, lambda log: (log.open(previous=None), log.event())),
    "a checkpoint that lacks its tally": (5, lambda log: (log.open(), log.record("checkpoint", {}), log.event())),
    "a checkpoint that is a list": (5, lambda log: (log.open(), log.record("checkpoint", [1]), log.event())),
    "a tally that counts wrongly": (5, lambda log: (log.open(), log.record("checkpoint", {"tally": {"events": 7}}))),
    "an open record inside a file": (5, lambda log: (log.open(), log.record("open", {}))),
    "`previous` that is another": (5, lambda log: (log.open(), log.event(), log.rotate(previous="ab" * 32))),
    "`previous` that is none": (5, lambda log: (log.open(), log.event(), log.rotate(previous="none"))),
    "`sealed` that is another": (
        5,
        lambda log: (log.open(), log.event(), log.rotate(sealed=log.tally | {"events": 9})),
    ),
    "`sealed` of an earlier time": (
        5,
        lambda log: (log.open(), log.event(), log.rotate(sealed=log.tally | {"greatest": "1999" + TIME[4:]})),
    ),
    "`sealed` that is left out": (0, lambda log: (log.open(), log.event(), log.rotate(sealed=None))),
    "`sealed` where nothing is before": (5, lambda log: (log.open(sealed=log.tally), log.event())),
    "a raw NUL": (5, lambda log: (log.open(), log.event(), log.event("\0"), log.event(), log.mark())),
    "a `durable` that falls": (5, lambda log: (log.open(), log.event(), log.event(), log.event("", 1))),
    "a `durable` of zero": (0, lambda log: (log.open(), log.event("", 0), log.event("", 0))),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_stranger_wrote_is_judged_by_the_document(tmp_path, name):
    log = Stranger(tmp_path)
    expected, deed = WRITTEN[name]
    deed(log)
    log.close()
    assert agreed(log.live) == expected


def test_a_line_has_a_mib_and_its_place(tmp_path):
    log = Stranger(tmp_path)
    room = (1 << 20) + 132
    for number, expected in ((0, 0), (1, 5), (300_000, 5)):
        log.seq, log.chain = 0, bytes(32)
        log.open()
        log.event()
        log.event("y" * (room - len(log.rows[-1]) + 1 + number))
        assert len(log.rows[-1]) == room + number + 1  # its newline
        log.event()
        log.mark()
        log.close()
        assert agreed(log.live) == expected


@pytest.mark.parametrize("declared", [True, False])
def test_a_file_missing_in_the_middle_may_be_declared(tmp_path, declared):
    log = Stranger(tmp_path)
    log.open()
    log.rotate()
    gone = log.rotate()
    if declared:
        data = {"first": 3, "before": log.first, "chain": json.loads(log.rows[0])["data"]["previous"]}
        log.record("pruned", {**data, "tally": log.tally})
    log.close()
    gone.unlink()
    assert agreed(log.live) == (0 if declared else 5)


def test_behind_the_torn_end_of_a_file_that_was_never_synced_the_next_one_is_sound(tmp_path):
    log = Stranger(tmp_path)
    log.open(0, fsync="never")
    for _ in range(3):
        log.event("", 0)
    path = log.rotate(0, fsync="never")
    log.event("", 0)
    log.close()
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[:-2]) + bytes(50))
    assert agreed(log.live) == 3


@pytest.mark.parametrize("before", ["never", "always"])
def test_a_finished_file_that_does_not_say_how_it_was_synced_was_synced(tmp_path, before):
    log = Stranger(tmp_path)
    log.open(0, fsync=before)
    log.event("", 0)
    path = log.rotate(0)
    log.event("", 0)
    path = log.rotate(0, fsync="never")
    log.event("", 0)
    log.close()
    path.write_bytes(path.read_bytes().replace(b"\n", b"X", 1))
    assert agreed(log.live) == 5
    path.write_bytes(bytes(path.stat().st_size))
    assert agreed(log.live) == 5


@pytest.mark.parametrize("policies", [("always", "never"), ("interval=1h", "never"), ("never", "always")])
@pytest.mark.parametrize("killed", [True, False])
def test_the_policy_may_change_from_run_to_run(tmp_path, policies, killed):
    path = tmp_path / "audit.jsonl"
    for number, policy in enumerate(policies):
        write(path, [event(3 * number + step) for step in range(3)], fsync=policy)
        if killed:  # before its last checkpoint
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert agreed(path) == 0


def stripped(data: bytes) -> bytes:
    return b"".join(row[: row.rfind(PLACE_AT)] + b"}\n" for row in data.splitlines())


@pytest.mark.parametrize("damage", [stripped, lambda data: b""])
def test_a_finished_file_that_is_no_journal_any_more_is_altered(tmp_path, damage):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3]], rotate_after=(1,))
    path.unlink()
    (segment,) = list_log(path).segments
    segment.path.write_bytes(damage(segment.path.read_bytes()))
    assert agreed(path) == verify_journal(segment.path).exit == 5


def test_what_an_open_record_says_is_checked_whether_it_joins_or_not(tmp_path):
    log = Stranger(tmp_path)
    log.open()
    log.close()
    data = log.live.read_bytes()
    log.live.write_bytes(data.replace(b'"previous": "0', b'"previous": "1'))
    assert agreed(log.live) == 5
    log.live.write_bytes(data.replace(b'"data"', b'"dAta"'))  # none that can be read: a line that does not join
    assert agreed(log.live) == 3


@pytest.mark.parametrize("number", range(4))
def test_lines_that_end_otherwise_state_what_was_durable_whichever_is_altered(tmp_path, number):
    file = open_plain(tmp_path / "audit.jsonl")
    for batch in ([1], [2]):
        file.append(lines(batch))
        file.sync()
    file.append(lines([3]))
    file.close()
    path = tmp_path / "audit.jsonl"
    rows = path.read_bytes().splitlines()
    rows[number] = rows[number].replace(b'"source":"', b'"source":"z', 1)
    path.write_bytes(b"\r\n".join(rows) + b"\r\n")
    assert agreed(path) == 5
