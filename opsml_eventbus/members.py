"""Reading a payload's members, be it of a registered class, JSON values, or bytes not yet decoded.

Nothing here raises, and nothing runs code of a payload's: only its fields are read.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Any

import msgspec

from .errors import InvalidEvent
from .event import Event


def payload_of(event: Event) -> Any:
    """The decoded payload, None where it does not decode."""
    try:
        return event.data
    except (InvalidEvent, NameError, TypeError):  # the latter: annotations that do not resolve
        return None


class Getters(dict[type, Callable[[Any], Any]]):
    """How the member `name` is read from a payload, by the payload's class: `getters[data.__class__](data)`.

    None where the payload has no such field.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __missing__(self, cls: type) -> Callable[[Any], Any]:
        getter = self[cls] = _getter(cls, self._name)
        return getter


def _getter(cls: type, name: str) -> Callable[[Any], Any]:
    if issubclass(cls, dict):
        return lambda data: data.get(name)
    # Fields only: a property or a method of the same name is code, which could do anything.
    if issubclass(cls, msgspec.Struct) and name in cls.__struct_fields__:
        return attrgetter(name)
    return lambda _: None


def as_text(value: Any) -> str | None:
    """The text of a value that is not plainly a string, None where it has none: null, a float, a structure."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return str(value)
    return str(value) if isinstance(value, int) and -(1 << 64) < value < 1 << 64 else None


def strings(data: Any) -> list[str]:
    """Every string value inside a payload, keys excepted."""
    found: list[str] = []
    todo: list[Any] = [data]
    entered: set[int] = set()  # a value made in this process may contain itself
    for value in todo:  # grows on the way
        if value.__class__ is str:
            found.append(value)
        elif value is None:
            pass
        elif isinstance(value, Enum):
            todo.append(value.value)
        elif isinstance(value, str):
            found.append(str(value))
        elif id(value) not in entered:
            entered.add(id(value))
            if isinstance(value, msgspec.Struct):
                todo.extend(msgspec.structs.astuple(value))
            elif isinstance(value, dict):
                todo.extend(value.values())
            elif isinstance(value, list | tuple | set | frozenset):
                todo.extend(value)
    return found
