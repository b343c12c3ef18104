"""The journal's format, version 1. Pure: bytes in, values out. `docs/journal-format.md` says it for other languages.

A journal is a log of JSON lines in one file or several, each line ended by one LF. A line is an event's canonical line
with three members appended, spelled exactly so and always last:

    …,"seq":42,"durable":40,"chain":"<64 lower-case hex digits>"}

    seq      counts every line of the log from 1, control records too, across its files.
    durable  the last seq that was known to be on disk before the batch of this line was written. It never falls.
    chain    SHA-256( "eventbus/journal/v1" NUL · chain of the line before, 32 bytes · this line up to `,"chain":"` ).
             Before the first line of a log stand 32 zero bytes.

The bytes are hashed as they stand in the file; nothing is ever serialised again to check it. `durable` is what tells a
torn tail from damage: what a power cut can spoil was not on disk yet, so it lies behind the greatest `durable`.

Control records are lines too. Their types start with `eventbus.journal.`, and they are never shown, counted, replayed
or copied:

    open        the first line of every file.
    checkpoint  after a second without events, at close (both: all before it is on disk), and after every MiB.
    seal        the last line of a file that was finished; the file is then renamed and never written again.
    recovered   after a torn tail was cut: what was cut, and where it was kept.
    pruned      before the oldest file is removed: only a declared beginning may be missing.
    unsigned    by a writer that signs, behind lines it found that its key has not signed.
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec

from ..codec import encode_line
from ..errors import InvalidEvent
from ..event import CONTROL_PREFIX, Event, new_id
from ..timestamps import format_time, parse_time

FORMAT = 1
DOMAIN = b"eventbus/journal/v1\0"
ZERO = bytes(32)
CHAIN_BYTES = 76  # `,"chain":"` + 64 digits + `"}`
MAX_SEQ = 10**19 - 1  # twenty digits would not fit an unsigned 64-bit integer
CONTROL_SOURCE = "eventbus.journal"
CONTROL_AT = 63  # behind `{"specversion":"1.0","id":"` and an id of 36 characters, in every control record
CONTROL_MARK = b'","source":"eventbus.journal","type":"eventbus.journal.'

_PLACE = re.compile(rb',"seq":([1-9]\d{0,18}),"durable":(0|[1-9]\d{0,18}),"chain":"([0-9a-f]{64})"\}')
BLANKS = b"\0\r\t "  # around a line they are of whoever copied the file, or of a disk
_PLACE_END = re.compile(_PLACE.pattern + rb"\Z")
_PLACE_OF_LINE = re.compile(_PLACE.pattern + b"[" + BLANKS + rb']*(?=\{"specversion":|\Z)')
PLACE_BYTES = 7 + 19 + 11 + 19 + CHAIN_BYTES
OPEN_BYTES = 64 << 10  # of an open record at most, so that a look at a file's beginning tells where it belongs
TIME_MARK = b',"time":"'


class Place(NamedTuple):
    """A line's place in its journal. start: where it begins in the line; end: behind its closing brace."""

    seq: int
    durable: int
    chain: bytes
    start: int
    end: int


class Head(NamedTuple):
    """Where a chain stands: behind the line `seq`, whose chain value is `chain` (32 bytes)."""

    seq: int = 0
    chain: bytes = ZERO

    def __str__(self) -> str:
        return f"{self.seq}:{self.chain.hex()}"


START = Head()


def parse_head(text: str) -> Head:
    """`SEQ:CHAIN` as `--expect` takes it. Raises ValueError."""
    if re.fullmatch("[0-9]{1,19}:[0-9a-f]{64}", text.lower()) is None:
        raise ValueError(f"{text[:100]!r} is not SEQ:CHAIN (a number, a colon, 64 hex digits)")
    seq, _, chain = text.partition(":")
    return Head(int(seq), bytes.fromhex(chain))


def read_chain(text: str) -> bytes:
    """A chain value from its 64 hex digits; nothing for any other text, which then joins no line."""
    return bytes.fromhex(text) if re.fullmatch("[0-9a-f]{64}", text) else b""


def link(chain: bytes, body: bytes) -> bytes:
    """The chain value of a line: `chain` of the line before it, `body` its bytes before `,"chain":"`."""
    return sha256(DOMAIN + chain + body).digest()


def read_place(line: bytes) -> Place | None:
    """The place at the end of a line (without its newline), or None."""
    match = _PLACE_END.search(line, max(0, len(line) - PLACE_BYTES))
    return _to_place(match) if match else None


def holds_place(data: bytes) -> bool:
    """Is there a place anywhere in these bytes? A payload may spell one."""
    return _PLACE.search(data) is not None


def lines_within(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """The lines of damaged bytes of which only the newlines were lost or changed, and whether another follows each.

    They begin where the bytes do and follow each other with NULs, CRs and blanks between at most. So a payload cannot
    spell one: in JSON, no object stands directly behind another.
    """
    begin = 0
    for match in _PLACE_OF_LINE.finditer(data):
        yield data[begin : match.end(3) + 2], match.end() < len(data)
        begin = match.end()


def _to_place(match: re.Match[bytes]) -> Place:
    return Place(int(match[1]), int(match[2]), bytes.fromhex(match[3].decode()), match.start(), match.end())


def write_lines(head: Head, durable: int, lines: Iterable[bytes]) -> tuple[Head, bytes]:
    """Canonical lines (without newline) given their places behind `head`; the new head and the bytes to append."""
    seq, chain = head
    middle = b',"durable":%d' % durable
    out: list[bytes] = []
    add = out.append
    for line in lines:
        seq += 1
        body = b'%b,"seq":%d%b' % (line[:-1], seq, middle)
        chain = sha256(DOMAIN + chain + body).digest()
        add(body)
        add(b',"chain":"%b"}\n' % hexlify(chain))
    return Head(seq, chain), b"".join(out)


def time_text(line: bytes) -> bytes | None:
    """The `time` of a canonical line as it stands there (30 bytes, ordered as the times are), or None."""
    start = line.find(TIME_MARK) + 9
    text = line[start : start + 30]
    return text if start > 8 and len(text) == 30 and text[29] == 0x5A and text[19] == 0x2E else None


class Tally(msgspec.Struct, frozen=True, omit_defaults=False):
    """What a file holds so far. events: events and Gaps, control records not counted.

    least, greatest: the least and greatest `time` among them as text, None before the first. Clocks step back, so
    they need not be the first and last.
    """

    events: int = 0
    least: str | None = None
    greatest: str | None = None

    @staticmethod
    def of(lines: Sequence[bytes]) -> Tally:
        """Of the canonical lines of some events and Gaps."""
        times = [text for line in lines if (text := time_text(line))]
        return Tally(len(lines), min(times).decode(), max(times).decode()) if times else Tally(len(lines))

    def __add__(self, other: Tally) -> Tally:
        if self.least is None or self.greatest is None:
            return Tally(self.events + other.events, other.least, other.greatest)
        if other.least is None or other.greatest is None:
            return Tally(self.events + other.events, self.least, self.greatest)
        least, greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        return Tally(self.events + other.events, least, greatest)

    def reaches(self, since: int) -> bool:
        """Is any event of `since` (ns) or later among them, or can nobody tell?"""
        try:
            return self.greatest is not None and parse_time(self.greatest) >= since
        except InvalidEvent:
            return True


# ── control records ──────────────────────────────────────────────────────────────────────────────────────────────


class Open(msgspec.Struct, frozen=True):
    """The first line of a file.

    format: 1. log: the log's id, the same in all its files. first: the seq of this very line.
    previous: the chain value of the line before, in the file before; zeros at the start of a log.
    fsync: the writer's policy for this file: `always`, `interval` or `never`.
    sealed: what the file before held, so that a reader can skip it without opening it; None at the start.
    """

    format: int
    log: str
    first: int
    previous: str
    fsync: str
    sealed: Tally | None = None


class Signature(msgspec.Struct, frozen=True):
    """A signed head: `value` (128 hex digits, Ed25519) is made over
    `eventbus/journal/head/v1` NUL log id NUL seq as decimal NUL chain as hex, of the line before this record, and
    NUL events as decimal NUL least NUL greatest, of the tally in this record (nothing for None).

    key: the first 16 hex digits of the SHA-256 of the raw public key, to tell keys apart.
    """

    seq: int
    chain: str
    key: str
    value: str


class Checkpoint(msgspec.Struct, frozen=True):
    """Up to its `durable`, what stands before it is on disk: written when idle and at close it says so of everything.
    tally: of this file so far."""

    tally: Tally
    signature: Signature | None = None


class Seal(msgspec.Struct, frozen=True):
    """The end of a finished file. tally: of all of it."""

    tally: Tally
    signature: Signature | None = None


class Recovered(msgspec.Struct, frozen=True):
    """A tail was cut. bytes: how many. offset: where in the file it began. kept: the name of the file it was copied
    to, in the same folder. sha256: of the bytes cut. salvaged: lines of it that were written anew behind this record
    (`eventbus repair`; a recovery at start never does)."""

    bytes: int
    offset: int
    kept: str
    sha256: str
    salvaged: int = 0


class Pruned(msgspec.Struct, frozen=True):
    """The file that began with the line `first` may be gone; the log then begins with the line `before`, whose
    predecessor's chain value was `chain`."""

    first: int
    before: int
    chain: str
    tally: Tally


class Unsigned(msgspec.Struct, frozen=True):
    """What stands between the last head signed with a key and this record was there when its writer began: the
    signatures behind it do not say who wrote it. key: that writer's, named as in a signature."""

    key: str


Control = Open | Checkpoint | Seal | Recovered | Pruned | Unsigned
ControlT = TypeVar("ControlT", Open, Checkpoint, Seal, Recovered, Pruned, Unsigned)

_CONTROLS: dict[bytes, type[Control]] = {
    cls.__name__.lower().encode(): cls for cls in (Open, Checkpoint, Seal, Recovered, Pruned, Unsigned)
}


class _Data(msgspec.Struct):
    data: msgspec.Raw


_decode_data = msgspec.json.Decoder(_Data).decode


def control_line(record: Control, now: int) -> bytes:
    """A control record as a canonical line; it gets its place like any other. now: ns since the epoch."""
    name = CONTROL_PREFIX + record.__class__.__name__.lower()
    return encode_line(Event(new_id(now), CONTROL_SOURCE, name, now, msgspec.to_builtins(record)))


def is_control(line: bytes) -> bool:
    """Is this line one of the journal's own? Control records have one form, so a look at one place tells."""
    return line.startswith(CONTROL_MARK, CONTROL_AT)


def read_control(line: bytes) -> Control | None:
    """The control record on a line, None where it is none we know. Raises InvalidEvent: one with wrong members."""
    if not is_control(line):
        return None
    begin = CONTROL_AT + len(CONTROL_MARK)
    cls = _CONTROLS.get(line[begin : line.find(b'"', begin)])
    if cls is None:
        return None
    if cls is Open:
        opened_at(line)
        if len(line) > OPEN_BYTES:
            raise InvalidEvent(f"an open record of more than {OPEN_BYTES:,} bytes", "data")
    try:
        return msgspec.json.decode(bytes(_decode_data(line).data), type=cls)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidEvent(str(error), "data") from error


def opened_at(line: bytes) -> int:
    """When an open record was written (ns). Raises InvalidEvent: it does not say."""
    return parse_time((time_text(line) or b"").decode("ascii", "replace"))


def peek_control(line: bytes) -> Control | None:
    """The control record on a line, None where it is none, or none that can be read."""
    try:
        return read_control(line)
    except InvalidEvent:
        return None


def format_bound(time: int) -> bytes:
    """A time (ns) as the text that `time_text` compares with."""
    return format_time(time).encode()
