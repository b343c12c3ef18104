"""The encoder's short way and its long way say the same, whatever a payload's class and whatever its fields hold.

A flat class (text, flags, enumerations) is checked by converting its values to a twin class; every other class, and
every value the twin refuses, is written and read back. Classes and values are drawn at random, right and wrong: both
ways write the same bytes or refuse with the same place and reason, and what was written is read back. Without its
twin in `payloads.twins`, a class goes the long way.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar, cast
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from msgspec import UNSET, Meta, Raw, UnsetType
from msgspec.structs import astuple, force_setattr

from opsml_eventbus import Event, Payload, event_type, payloads
from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.errors import InvalidEvent

T = TypeVar("T")
Name = NewType("Name", str)


class Holder(Payload, Generic[T]):
    held: T


class TextHolder(Holder[str]):
    pass


class Inner(msgspec.Struct):
    text: str


class Text(str):
    """As `numpy.str_` and `markupsafe.Markup` are."""

    __slots__ = ()


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Open(Enum):
    """Takes every text."""

    KNOWN = "known"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> Open:
        return cls.OTHER


TOO_LONG = "x" * 9
texts = st.text('abA \0\n"\\é\u2028\ud800\U0001f600', max_size=8)
integers = st.integers() | st.sampled_from([-(2**63) - 1, -(2**63), 2**64 - 1, 2**64])
floats = st.floats() | st.sampled_from([math.nan, math.inf, 0.5])

# The types of fields, and values that are right for them. A flat class has no others than these,
FLAT: dict[Any, SearchStrategy[Any]] = {
    str: texts,
    str | None: texts | st.none(),
    str | UnsetType: texts | st.just(UNSET),
    bool: st.booleans(),
    bool | str: st.booleans() | texts,
    Name: texts,
    Literal["a", "b"] | None: st.sampled_from(["a", "b", None]),
    Literal[1, 2]: st.sampled_from([1, 2]),
    Colour: st.sampled_from(Colour),
    Level | None: st.sampled_from([*Level, None]),
    Annotated[str, Meta(min_length=1, max_length=3)]: texts.map(lambda text: text[:2] + "z"),
    Annotated[str, Meta(pattern="^a")] | None: texts.map("a".__add__),
}
# and any of these makes its class go the long way.
OTHER: dict[Any, SearchStrategy[Any]] = {
    Open: st.sampled_from(Open),
    int: integers,
    int | None: integers | st.none(),
    float | None: floats | st.none(),
    list[str]: st.lists(texts, max_size=2),
    dict[str, float | None]: st.dictionaries(texts, floats | st.none(), max_size=2),
    datetime: st.datetimes(timezones=st.none() | st.just(UTC)),
    Annotated[int, Meta(ge=0)]: st.integers(0, 9),
    Raw: st.just(Raw(b'{"a":1}')),
    Inner: texts.map(Inner),
    Any: texts | st.lists(floats, max_size=2),
}  # fmt: skip
# Wrong for most.
STRANGE: list[Any] = [
    *(None, True, 0, 1, 1.0, 2**64, -(2**63) - 1, math.nan, math.inf, "", "zzz", "red", "\ud800", TOO_LONG, Text("x")),
    *(
        b"x",
        UNSET,
        Raw(b'"x"'),
        Raw(b"7"),
        Raw(b"}"),
        Colour.RED,
        Level.LOW,
        Open.KNOWN,
        *(Inner(text) for text in "xy"),
    ),
    *(datetime(2026, 1, 1, tzinfo=UTC), Decimal("1.5"), object(), [], ["x"], [math.nan], {"x": 1}, {1: 2}, {"x"}),
]


def refuse_too_long(self: Payload) -> None:
    if TOO_LONG in astuple(cast("Any", self)):
        raise ValueError("too long")


def strip(self: Payload) -> None:
    for name, value in msgspec.structs.asdict(cast("Any", self)).items():
        if type(value) is str:
            force_setattr(cast("Any", self), name, value.strip())


class Drawn(NamedTuple):
    event: Event
    flat: bool
    right: bool


@st.composite
def payload_events(draw: DrawFn, *, others: int) -> Drawn:
    """An event of a payload class nobody has seen before, with values that fit it or do not.

    others: how many of its fields make it go the long way.
    """
    drawn = draw(st.lists(st.sampled_from([*FLAT]), max_size=3))
    drawn += draw(st.lists(st.sampled_from([*OTHER]), min_size=others, max_size=others))
    kinds = {f"field_{n}": kind for n, kind in enumerate(draw(st.permutations(drawn)))}
    base = draw(st.sampled_from([Payload, Payload, TextHolder]))
    hook = draw(st.sampled_from([None, None, None, None, refuse_too_long, strip]))
    fields: list[Any] = []
    for name, kind in kinds.items():
        default = UNSET if kind == str | UnsetType else draw(FLAT.get(kind, st.none()) | st.just(7))
        has_default = kind == str | UnsetType or draw(st.booleans())
        fields.append((name, kind, default) if has_default else (name, kind))
    options: dict[str, Any] = {
        "rename": draw(st.sampled_from([None, "camel", "kebab"])),
        "tag": draw(st.sampled_from([None, True, "tag"])),
        **{name: draw(st.booleans()) for name in ("array_like", "omit_defaults", "forbid_unknown_fields")},
    }
    cls = msgspec.defstruct(
        "Drawn", fields, bases=(base,), module=__name__, namespace={"__post_init__": hook} if hook else None,
        frozen=True, kw_only=True, **options,
    )  # fmt: skip
    # The same name again and again: `event_type` takes it for a module that is reloaded.
    cls = event_type("test.drawn")(cast("Any", cls))
    if base is TextHolder:
        kinds = {"held": str, **kinds}
    payload = cls(**{name: draw((FLAT | OTHER)[kind]) for name, kind in kinds.items()})
    # Neither building a payload nor setting a field checks anything; only `__post_init__` would see the difference.
    changes = draw(st.dictionaries(st.sampled_from([*kinds]), st.sampled_from(STRANGE), max_size=2)) if kinds else {}
    for name, value in changes.items():
        force_setattr(cast("Any", payload), name, value)
    return Drawn(Event.new("test.drawn", payload), hook is None and not others, not changes)


def encoded(event: Event) -> bytes | tuple[str, str]:
    """The line, or the place and the reason of its refusal."""
    try:
        return encode_line(event.replace())
    except InvalidEvent as error:
        return error.place, error.reason


def assert_both_ways_agree(event: Event, *, flat: bool, right: bool) -> None:
    with patch.dict(payloads.schemas, clear=True), patch.dict(payloads.twins, clear=True):
        first = encoded(event)
        assert (event.content.__class__ in payloads.twins) == flat
        written = encoded(event)
        with patch.dict(payloads.twins, clear=True):
            assert first == written == encoded(event)
        if not isinstance(written, bytes):
            return
        read = decode_line(written)
        assert isinstance(read, Event)
        assert isinstance(read.data, type(event.content))
        # A wrong value may be one that JSON writes like a right one: bytes as text, NaN as null.
        assert read == event or not right


@pytest.mark.parametrize("kind", [*FLAT, *OTHER], ids=str)
def test_both_ways_agree_on_every_strange_value_in_every_kind_of_field(kind: Any) -> None:
    cls: Any = msgspec.defstruct("OneField", [("field", kind)], bases=(Payload,), module=__name__, frozen=True)
    event_type("test.one_field")(cls)
    for value in STRANGE:
        assert_both_ways_agree(Event.new("test.one_field", cls(value)), flat=kind in FLAT, right=False)


# Each example makes a class, its decoder and its twin; on a busy machine one of them takes longer than the deadline.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("others", [0, 1], ids=["flat", "not flat"])
@given(data=st.data())
def test_both_ways_agree_on_any_class_and_what_is_written_is_read(others: int, data: st.DataObject) -> None:
    event, flat, right = data.draw(payload_events(others=others))
    assert_both_ways_agree(event, flat=flat, right=right)
