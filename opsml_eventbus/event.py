"""What travels on the bus: `Event`, and `Gap` where events are missing.

An Event is frozen and is shared by every subscriber; nothing ever copies it. Its payload is either a value (made in
this process) or the bytes it was read from, decoded when `event.data` is first asked for. Those bytes are what is
written again, so a member that our types do not know survives, and passing an event on costs no decoding.

A Gap stands in the stream where events are missing and says how many. Loss is a value, never a log line.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, cast, dataclass_transform

import msgspec

from .errors import InvalidEvent, TypeRefused

MAX_ID_BYTES = 256  # UTF-8; room for any producer's id, and a bound on what every index of ids costs
OWN_PREFIX = "eventbus."  # types under this prefix are ours: Gaps, and a journal's control records
GAP_TYPE = "eventbus.gap"
CONTROL_PREFIX = "eventbus.journal."  # a journal's records about itself: never shown, counted, replayed or copied
DEFAULT_SOURCE = "opsml"

GapReason = Literal["lag", "disconnect", "source", "invalid"]


class Priority(IntEnum):
    """What survives a flood: each priority is a lane of its own in the bus. On the wire NORMAL is left out."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # mypy brings it; nothing is imported at run time

    # What `event.data` is: a plain `Event` is an Event of anything.
    DataT = TypeVarWithDefault("DataT", default=Any, covariant=True)
else:
    DataT = TypeVar("DataT")

if TYPE_CHECKING:
    # msgspec lets a subclass inherit `frozen`; type checkers learn that only from a transform of our own.
    @dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
    class Payload:
        """The base of every registered payload; see below."""

        __event_type__: ClassVar[str] = ""
        __eventbus_lane__: ClassVar[None] = None

else:

    class Payload(msgspec.Struct, frozen=True, gc=False):
        """The base of every registered payload: declare fields as in a dataclass.

            @event_type("billing.invoice_paid")
            class InvoicePaid(Payload):
                invoice: str
                cents: int

        Fields are validated when a payload is decoded from a line and when one is encoded; building one checks nothing,
        so that publishing stays cheap. Payloads are frozen and must not contain reference cycles.
        """

        __event_type__: ClassVar[str] = ""
        __eventbus_lane__: ClassVar[None] = None  # not an event: see Event


PayloadT = TypeVar("PayloadT", bound=type[Payload])

_types: dict[str, type[Payload]] = {}


def event_type(name: str) -> Callable[[PayloadT], PayloadT]:
    """Register a payload class under the CloudEvents type `name`; from then on lines of that type decode to it.

    Raises TypeRefused: the name is empty, starts with `eventbus.`, or belongs to another class.
    """

    def register(cls: PayloadT) -> PayloadT:
        if not name:
            raise TypeRefused(name, "a type has a name")
        if name.startswith(OWN_PREFIX):
            raise TypeRefused(name, f"types that start with {OWN_PREFIX!r} are the bus's own")
        known = _types.get(name)
        # A module that is reloaded registers the same class again; two different classes are a mistake.
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeRefused(name, f"already registered by {known.__module__}.{known.__qualname__}")
        cls.__event_type__ = name
        _types[name] = cls
        return cls

    return register


def payload_type(name: str) -> type[Payload] | None:
    """The class registered for a CloudEvents type, or None: an unknown type is not an error."""
    return _types.get(name)


def payload_types() -> dict[str, type[Payload]]:
    """Every registered type by name (a copy)."""
    return dict(_types)


def payload_fields(cls: type[Payload]) -> dict[str, Any]:
    """The fields of a payload class and their types, in order."""
    return {field.name: field.type for field in msgspec.structs.fields(cls)}  # type: ignore[arg-type]  # see above


class EncodedData:
    """A payload still in the bytes it was read from. The codec, which alone knows how to decode it, makes these."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw  # the JSON text of `data`, compact; empty when the event has no data

    def decode(self, type: str) -> Any:  # noqa: A002 - the member's name on the wire
        """The payload, validated; decoded once. Raises InvalidEvent naming the member."""
        raise NotImplementedError


class Event(msgspec.Struct, Generic[DataT], frozen=True, eq=False, gc=False):
    """One thing that happened. Frozen; make one with `Event.new`, or let the bus stamp a payload.

    id: non-empty text of at most 256 bytes, the event's identity through recording, replay and NATS.
    source: who emitted it (CloudEvents `source`). type: CloudEvents `type`.
    time: nanoseconds since the Unix epoch, UTC.
    content: the payload (a Payload, or JSON values for a type nobody registered), or an EncodedData.
    priority: the lane. replay: the name of the replay that put it on the bus again, None for an original.
    extensions: further CloudEvents attributes, as compact JSON text that begins with a comma; kept as read.
    line: the canonical line once the event has been read from or written to one, so that it is encoded once
        however many readers there are. The codec's to fill.
    """

    id: str
    source: str
    type: str
    time: int
    content: Any
    priority: Priority = Priority.NORMAL
    replay: str | None = None
    extensions: bytes = b""
    line: bytes | None = None

    @staticmethod
    def new(
        type: str,  # noqa: A002 - the member's name on the wire
        data: Any,
        *,
        id: str | None = None,  # noqa: A002
        source: str = DEFAULT_SOURCE,
        time: int | None = None,
        priority: Priority = Priority.NORMAL,
        replay: str | None = None,
    ) -> Event:
        """An event of any type, registered or not. `data` is a Payload or JSON values; id and time default to new.

        Raises TypeRefused: the type is empty, is ours (`eventbus.…`), or is not the payload's own.
        """
        check_type(type, data)
        now = _time_ns()
        return Event(id or new_id(now), source, type, now if time is None else time, data, priority, replay)

    if TYPE_CHECKING:

        @property
        def __eventbus_lane__(self) -> Priority: ...

    @property
    def data(self) -> DataT:
        """The payload, decoded and validated when first asked for.

        Raises InvalidEvent: the bytes it came from do not fit the type registered for `type`.
        """
        content: DataT | EncodedData = self.content
        if isinstance(content, EncodedData):
            content = cast("DataT", content.decode(self.type))
        return content

    def replace(self, **changes: Any) -> Self:
        """The same event with some members changed; the bytes of its payload are kept."""
        return msgspec.structs.replace(self, **{"line": None, **changes})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self is other or (
            (self.id, self.source, self.type, self.time, self.priority, self.replay, self.extensions)
            == (
                other.id,
                other.source,
                other.type,
                other.time,
                other.priority,
                other.replay,
                other.extensions,
            )
            and self.data == other.data
        )

    def __hash__(self) -> int:
        return hash(self.id)


# The priority under a name that no payload's field can have. One look at it tells a bus what it was given: an event of
# which lane, or (None) a payload. It is the busiest line of the house; asking for the class as well cost a tenth more.
Event.__eventbus_lane__ = Event.__dict__["priority"]  # type: ignore[method-assign]


class Gap(msgspec.Struct, frozen=True, gc=False):
    """Events are missing here.

    missed: how many, None where that cannot be known. after: the id of the last event before the hole, None before
    the first. reason: `lag` (a reader was too slow), `disconnect` (a connection was lost and the place in the stream
    with it), `source` (the source itself says so), `invalid` (an event that could not be written or read).
    """

    id: str
    source: str
    missed: int | None
    after: str | None
    reason: GapReason
    time: int
    line: bytes | None = None  # as Event.line

    @staticmethod
    def new(missed: int | None, after: str | None, reason: GapReason, *, source: str = DEFAULT_SOURCE) -> Gap:
        """A gap that is noticed now."""
        now = _time_ns()
        return Gap(new_id(now), source, missed, after, reason, now)

    @property
    def type(self) -> str:
        """`eventbus.gap`: a Gap is a CloudEvent too."""
        return GAP_TYPE


def check_type(type: str, data: Any) -> None:  # noqa: A002
    """Refuse what may not be published under `type`. Raises TypeRefused."""
    if not type:
        raise TypeRefused(type, "an event has a type")
    if type.startswith(OWN_PREFIX):
        raise TypeRefused(type, f"types that start with {OWN_PREFIX!r} are the bus's own")
    if isinstance(data, Payload) and data.__event_type__ != type:
        own = data.__event_type__
        raise TypeRefused(type, f"the payload's type is {own!r}" if own else "its payload class is not registered")


def refuse_own(item: Event | Gap) -> None:
    """Refuse an event, read from a line, whose type is the bus's own: it could not be published. Gaps may pass, and a
    journal's records are passed over by who reads them. Raises InvalidEvent.
    """
    if item.type.startswith(OWN_PREFIX) and isinstance(item, Event) and not item.type.startswith(CONTROL_PREFIX):
        raise InvalidEvent(f"{item.type!r} is a type of the bus's own", "type")


_time_ns: Callable[[], int] = time.time_ns
_SUFFIXES = tuple(f"{n:03x}" for n in range(4096))


class _Ids:
    """UUIDv7 text (RFC 9562), increasing within this process, at a fraction of a library's price.

    Method 2 of section 6.2: the 74 bits below the millisecond are a random number that is counted up. The upper 62
    of them are spelled once a page, the lowest 12 come from a table, so that an id costs one concatenation.
    (`uuid_utils` was measured at three times the price, which would have been half of a publish.)

    page: the ids that are ready to be taken. until: the time (ns) from which on they are too old.
    """

    __slots__ = ("_lock", "_millisecond", "_upper", "page", "until")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = -1
        self._upper = 0
        self.page: Iterator[str] = iter(())
        self.until = 0

    def turn(self, now: int) -> None:
        """Begin a new page for the time `now` (ns)."""
        millisecond = now // 1_000_000
        with self._lock:
            if millisecond > self._millisecond:
                self._millisecond = millisecond
                self._upper = int.from_bytes(os.urandom(8), "big") >> 3  # 61 of 62 bits: room to count up
            else:  # the page is used up, or the clock stepped back: ids still increase
                self._upper += 1
            head = f"{self._millisecond:012x}"
            tail = f"{1 << 63 | (self._upper & (1 << 50) - 1) << 12:016x}"
            prefix = f"{head[:8]}-{head[8:]}-7{self._upper >> 50:03x}-{tail[:4]}-{tail[4:13]}"
            self.page = map(prefix.__add__, _SUFFIXES)
            self.until = (self._millisecond + 1) * 1_000_000


_ids = _Ids()


def _reseed() -> None:
    """A forked child must not count on from its parent's random number."""
    global _ids
    _ids = _Ids()


os.register_at_fork(after_in_child=_reseed)


def new_id(now: int | None = None) -> str:
    """A new UUIDv7 as text, for the time `now` (ns since the epoch; default: the clock's). From any thread."""
    if now is None:
        now = _time_ns()
    ids = _ids
    if now >= ids.until:
        ids.turn(now)
    while True:
        for text in ids.page:  # its next one; an iterator's step is cheaper than `next`
            return text
        ids.turn(now)
