"""The tap's protocol, version 1, pure: bytes in, values out. `docs/tap-protocol.md` describes it for other languages.

JSON lines both ways. The client speaks first, one request line; the server greets it or rejects it. Then a subscriber
reads event lines, and now and then a note; a publisher writes event lines and reads what became of them.

A line with `specversion` is an event or a Gap. Every other line is about the conversation, and one that a client does
not know is passed over, so that later servers may say more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from ...codec import decode_line
from ...errors import EventError, InvalidEvent, MalformedLine, TypeRefused
from ...event import Event, Gap, check_type
from ...splitter import LineSplitter
from ...timestamps import format_time, parse_time

VERSION = 1
BEGINNING = ""  # as `after` and `at`: before the first event of this bus (an id is never empty)
MAX_REQUEST_BYTES = 64 << 10  # a filter of a thousand terms fits; a stranger costs the server no more than this
REQUEST_SECONDS = 2.0  # a request is one line that the client has ready; who needs longer is not speaking to us

# Why a connection is turned away or ended: `{"error":"<code>","message":…}`, then the server closes.
CODES = {
    "request": "the first line is no request",
    "version": "another version of this protocol",
    "timeout": "no request within 2 seconds",
    "filter": "the filter cannot mean anything, or failed on an event",
    "peer": "another user's process",
    "full": "as many clients as this tap takes",
    "read_only": "this tap does not take events",
    "unexpected": "a subscriber has nothing to say after its request",
    "closed": "the bus is closed",
    "unsafe": "the recorder failed: nothing is acknowledged any more",
}
# Why one published line was refused while the rest went on: `{"refused":<line>,"error":"<code>","message":…}`.
REFUSALS = {
    "malformed": "not one JSON document in UTF-8, or over 1 MiB",
    "invalid": "a member is missing or wrong",
    "type": "a type that may not be published",
}

Direction = Literal["subscribe", "publish", "describe"]


class Rejection(EventError):
    """The conversation is over. code: one of CODES. message: one clause for people."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message or CODES.get(code, code)

    def __str__(self) -> str:
        return self.message


class Request(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The client's first line.

    eventbus: the version. do: what it wants. The rest is a subscriber's:
    filter: `Filter.to_json()`, None for everything. since, until: event times, RFC 3339; since inclusive, until not.
    last: history to begin with: the last N events in the ring that match, or "all" of them.
    after: go on behind this event ("" means from the first one); then `last` has no meaning. bus: the instance it
        was seen on, so that another one is noticed. follow: false ends the stream after the history.
    """

    eventbus: int
    do: Direction
    filter: dict[str, Any] | None = None
    last: int | Literal["all"] = 0
    after: str | None = None
    bus: str | None = None
    since: str | None = None
    until: str | None = None
    follow: bool = True

    def times(self) -> tuple[int | None, int | None]:
        """`since` and `until` in nanoseconds. Raises Rejection."""
        try:
            since = None if self.since is None else parse_time(self.since)
            until = None if self.until is None else parse_time(self.until)
        except InvalidEvent as error:
            raise Rejection("request", error.reason) from error
        return since, until


class Greeting(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The server's first line when it takes the request.

    bus: this instance of the bus; another one after a restart. source: the bus's default `source`.
    capacity: events its ring holds, per lane. publish: may one publish here?
    at: the event behind which a subscriber's stream begins ("" before the first), where the server knows it: with
        `bus`, where one goes on who has seen nothing since. recorded: acknowledged means recorded. The rest answers
        `describe`:
    pid, since (RFC 3339), clients connected, events published so far, events that subscribers of this tap lost so far,
    rate (events published per second, over the last ten).
    """

    eventbus: int
    bus: str
    source: str
    capacity: int
    publish: bool
    at: str | None = None
    recorded: bool = False
    pid: int | None = None
    since: str | None = None
    clients: int | None = None
    published: int | None = None
    lost: int | None = None
    rate: float | None = None


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a subscription has come.

    seen: events it has looked at since it began, those its filter removed included. at: the last of them, where known.
    end: the stream is over: `history` (follow was false) or `closed` (the bus is).
    """

    seen: int
    at: str | None = None
    end: str | None = None


class Acked(msgspec.Struct, frozen=True):
    """Lines so far that are on the bus (and recorded, where a recorder is attached) or were refused."""

    acked: int


class Refused(msgspec.Struct, frozen=True):
    """One published line, counted from 1 after the request, that is not on the bus. error: one of REFUSALS."""

    refused: int
    error: str
    message: str


class _Error(msgspec.Struct, frozen=True):
    error: str
    message: str = ""


Reply = Greeting | Rejection | Note | Acked | Refused

_encode = msgspec.json.Encoder().encode


def encode(message: Request | Greeting | Note | Acked | Refused | Rejection) -> bytes:
    """One line, its newline included."""
    if isinstance(message, Rejection):
        return _encode(_Error(message.code, message.message)) + b"\n"
    return _encode(message) + b"\n"


class _Head(msgspec.Struct):
    eventbus: int
    do: str


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_request = msgspec.json.Decoder(Request).decode


def parse_request(line: bytes) -> Request:
    """The client's first line. Raises Rejection (`request`, `version`), which is the answer to it."""
    if len(line) > MAX_REQUEST_BYTES:
        raise Rejection("request", f"the first line has more than {MAX_REQUEST_BYTES:,} bytes")
    try:
        head = _decode_head(line)
        if head.eventbus != VERSION:
            raise Rejection("version", f"version {head.eventbus}; this is version {VERSION}")
        request = _decode_request(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejection("request", f"the first line is no request: {error}") from error
    if isinstance(request.last, int) and request.last < 0:
        raise Rejection("request", f"the last {request.last} events cannot be given")
    request.times()
    return request


# The member that tells a reply apart, in the order in which they are looked for: a refusal has an `error` too.
_REPLIES: dict[str, msgspec.json.Decoder[Any]] = {
    "eventbus": msgspec.json.Decoder(Greeting),
    "refused": msgspec.json.Decoder(Refused),
    "error": msgspec.json.Decoder(_Error),
    "acked": msgspec.json.Decoder(Acked),
    "seen": msgspec.json.Decoder(Note),
}
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def is_event(line: bytes) -> bool:
    """Is this server's line an event or a Gap? (A canonical line begins with its specversion.)"""
    return line.startswith(b'{"specversion":')


def parse_reply(line: bytes) -> Reply | None:
    """A server's line that is no event; None where it is one this version does not know.

    Raises MalformedLine: not a JSON object, or a known line with wrong members.
    """
    try:
        members = _decode_members(line)
        for name, decoder in _REPLIES.items():
            if name in members:
                reply = decoder.decode(line)
                return Rejection(reply.error, reply.message) if isinstance(reply, _Error) else reply
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedLine(str(error)) from error
    return None


def format_moment(time: int | None) -> str | None:
    """A time for a request or a greeting."""
    return None if time is None else format_time(time)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A published line that may go on the bus. number: the line, from 1 after the request."""

    number: int
    item: Event | Gap


class PublishedLines:
    """What a publisher sends, chunk by chunk, as values. Empty lines are counted and mean nothing.

    source: filled in where an event names none.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._splitter = LineSplitter()
        self.count = 0  # lines that have ended

    def feed(self, chunk: bytes) -> Iterator[Accepted | Refused]:
        """The lines that end in this chunk."""
        for line in self._splitter.feed(chunk):
            self.count += 1
            yield from self._take(line)

    def end(self) -> Iterator[Accepted | Refused]:
        """The last line, where it has no newline: half a line of a publisher that died is refused as malformed."""
        line = self._splitter.end()
        if line is not None:
            self.count += 1
            yield from self._take(line)

    def _take(self, line: bytes | MalformedLine) -> Iterator[Accepted | Refused]:
        try:
            if isinstance(line, MalformedLine):
                raise line
            if not line or line.isspace():
                return
            item = decode_line(line, foreign=True, source=self._source)
            if isinstance(item, Event):
                check_type(item.type, None)
            yield Accepted(self.count, item)
        except (InvalidEvent, TypeRefused) as error:
            yield Refused(self.count, _refusal_code(error), str(error))


def _refusal_code(error: EventError) -> str:
    if isinstance(error, TypeRefused):
        return "type"
    return "malformed" if isinstance(error, MalformedLine) else "invalid"
