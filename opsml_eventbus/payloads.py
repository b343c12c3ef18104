"""Payloads ⇄ JSON text: what is known of a payload class, and when a payload can be written so that it is read back the
same. The rest of a line is the codec's.

Building a payload checks nothing, so it is validated when it is written. A flat class (text, flags, enumerations) has a
twin, to which its values are converted: that is the short way, the codec's. Everything else is written, read and
compared here, which also says what is wrong, and where.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import orjson

from .errors import InvalidEvent, MalformedLine, Unencodable
from .event import Payload
from .scrutiny import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER, scrutinise, suspicious

_UNSET = msgspec.UNSET


def _as_builtin(value: Any) -> Any:
    """A text or number of a class derived from its own (`numpy.str_`, `markupsafe.Markup`) is written as what it is."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, msgspec.Raw):  # only asked for when it is compared
        return orjson.loads(bytes(value))
    raise TypeError(f"{type(value).__name__} has no JSON form")


encode = msgspec.json.Encoder(enc_hook=_as_builtin).encode


def encode_payload(type: str, payload: Payload) -> bytes:  # noqa: A002
    schema = schemas.get(payload.__class__) or schema_of(payload.__class__)
    try:
        raw = encode(payload)
        if b"\n" in raw:  # inside a text it is escaped: this is JSON that was put in ready-made
            raw = msgspec.json.format(raw, indent=-1)
        if schema.nullable:
            refuse_unfaithful(msgspec.to_builtins(payload, enc_hook=_as_builtin), "data")
        # Building a payload checks nothing, so a field of the wrong type shows only here: it would be written
        # without complaint and then refused by every reader.
        read = schema.decode(raw)
        if schema.flat:
            _refuse_another(payload, read)
    except UnicodeEncodeError as error:
        raise Unencodable(f"a lone surrogate in {type!r}", "data") from error
    except msgspec.ValidationError as error:
        place, reason = where_wrong(error, "data")
        raise Unencodable(reason, place) from error
    except InvalidEvent:
        raise
    except Exception as error:  # a class may run anybody's code when it is made
        raise Unencodable(f"{error.__class__.__name__}: {error}", "data") from error
    if schema.loose and suspicious(raw):
        try:
            scrutinise(raw)
        except MalformedLine as error:
            raise Unencodable(error.reason, "data") from error
    return raw


@dataclass(frozen=True, slots=True)
class Schema:
    """What the codec knows of a payload class.

    decode: from its JSON text, validated. nullable: a value of it could hold a float, and msgspec writes NaN as null.
    loose: it could hold an integer or something without a schema, so that its text has to be looked at too.
    flat: it holds only text, flags and enumerations, so that a value that JSON changes is of the wrong type.
    """

    decode: Callable[[bytes], Any]
    nullable: bool
    loose: bool
    flat: bool


schemas: dict[type[Payload], Schema] = {}
# Of a flat payload class: a class with the same fields, to which its values, as a tuple, are converted. That validates
# them at a quarter of the price of writing and reading them.
twins: dict[type, Any] = {}


def schema_of(cls: type[Payload]) -> Schema:
    known = schemas.get(cls)
    if known is None:
        try:
            info = msgspec.inspect.type_info(cls)
            decode = msgspec.json.Decoder(cls).decode
        except Exception as error:  # annotations that mean nothing outside the function they stand in, and the like
            raise InvalidEvent(f"the class {cls.__qualname__} cannot be decoded to: {error}", "data") from error
        kinds = _kinds(info, set())
        strict = {"StructType", "StrType", "NoneType", "UnionType", "BoolType", "LiteralType", "EnumType"}
        flat = strict.issuperset(kinds) and kinds.count("StructType") == 1
        if flat and not hasattr(cls, "__post_init__"):
            fields = [(field.name, field.type) for field in msgspec.structs.fields(cls)]  # type: ignore[arg-type]
            twins[cls] = msgspec.defstruct(cls.__name__, fields, array_like=True, gc=False)
        known = schemas[cls] = Schema(
            decode=decode,
            nullable=not strict.union({"IntType", "ListType", "DictType"}).issuperset(kinds),
            loose=not strict.union({"FloatType"}).issuperset(kinds),
            flat=flat,
        )
    return known


def _kinds(info: Any, seen: set[int]) -> list[str]:
    """The kinds of types in a class's description; `recursive` where it speaks of itself, `open` for an enumeration
    that takes what it does not list."""
    if isinstance(info, tuple | list):
        return [kind for part in info for kind in _kinds(part, seen)]
    if not isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        return []
    if id(info) in seen:
        return ["recursive"]
    if isinstance(info, msgspec.inspect.EnumType):
        return ["EnumType" if "_missing_" not in _members(info.cls) else "open"]
    own = [info.__class__.__name__] if isinstance(info, msgspec.inspect.Type) else []
    inside = {*seen, id(info)}
    return own + [kind for part in msgspec.structs.astuple(info) for kind in _kinds(part, inside)]


def _members(cls: type) -> set[str]:
    return {name for base in cls.__mro__ if base.__module__ != "enum" for name in vars(base)}


def _refuse_another(payload: Payload, read: Payload) -> None:
    """Raise Unencodable where JSON turned a value of the wrong type into one of the right type: bytes, UNSET, NaN."""
    mine, theirs = _plain(payload), _plain(read)
    if mine != theirs:
        names = {**mine, **theirs} if isinstance(mine, dict) else {}
        name = next((name for name in names if mine.get(name, _UNSET) != theirs.get(name, _UNSET)), "")
        raise Unencodable("it would be read back as another value", f"data.{name}".rstrip("."))


def _plain(payload: Payload) -> Any:
    """Its values as JSON has them, but what is no JSON (bytes, dates) as it is."""
    return msgspec.to_builtins(payload, builtin_types=_NO_JSON, enc_hook=_as_builtin)


_NO_JSON = (bytes, bytearray, datetime, date, clock, timedelta, Decimal, UUID)


def refuse_unfaithful(value: Any, place: str, depth: int = 1) -> None:
    """Raise Unencodable where JSON would not carry `value` faithfully."""
    match value:
        case None | bool():
            return
        case str():
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise Unencodable("a lone surrogate", place) from None
        case int():
            if not MIN_INTEGER <= value <= MAX_INTEGER:
                raise Unencodable("an integer beyond 64 bits", place)
        case float():
            if not math.isfinite(value):
                raise Unencodable(f"{value} has no JSON form", place)
        case dict() | list() | tuple():
            if depth > MAX_DEPTH:
                raise Unencodable(f"nested deeper than {MAX_DEPTH}", place)
            if isinstance(value, dict):
                for key, member in value.items():
                    if not isinstance(key, str):
                        raise Unencodable(f"the key {key!r} is not a string", place)
                    refuse_unfaithful(key, place, depth)
                    refuse_unfaithful(member, f"{place}.{key}", depth + 1)
            else:
                for index, member in enumerate(value):
                    refuse_unfaithful(member, f"{place}[{index}]", depth + 1)
        case _:
            raise Unencodable(f"{type(value).__name__} has no JSON form", place)


_AT = re.compile(r" - at `\$(.*)`\Z")


def where_wrong(error: Exception, root: str) -> tuple[str, str]:
    """msgspec's «Expected `str`, got `int` - at `$.username`» as (place, reason)."""
    text = str(error)
    match = _AT.search(text)
    path = match[1] if match else ""
    reason = (text[: match.start()] if match else text).replace("`", "")
    return f"{root}{path}".lstrip("."), reason[0].lower() + reason[1:]
