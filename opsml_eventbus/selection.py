"""What `subscribe(where)` may be, and what it means: one function of the event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .event import Event, Payload, payload_type
from .filter import Filter

Predicate = Callable[[Event], bool]
Where = Filter | type[Payload] | tuple["Filter | type[Payload] | Predicate", ...] | Predicate | None


def predicate(where: Where) -> Predicate | None:
    """What `where` means, as one function. Raises TypeError: nothing a subscription can select by."""
    if where is None:
        return None
    if isinstance(where, tuple):
        return _any_of(where)
    if isinstance(where, type):
        return _of_types((where,))
    matches = getattr(where, "matches", None)
    if callable(matches):
        return matches  # type: ignore[no-any-return]
    if callable(where):
        return where
    raise TypeError(f"where: a Filter, a payload type, several of them, or a function; not {where!r}")


def _any_of(wheres: tuple[Any, ...]) -> Predicate:
    if not wheres:
        raise TypeError("where: an empty tuple selects nothing")
    if all(isinstance(where, type) for where in wheres):
        return _of_types(wheres)
    matches = [function for where in wheres if (function := predicate(where)) is not None]
    return lambda event: any(match(event) for match in matches)


def _of_types(classes: tuple[type, ...]) -> Predicate:
    for cls in classes:
        if not issubclass(cls, Payload):
            raise TypeError(f"where: {cls.__qualname__} is not a payload type")
    known: dict[str, bool] = {}

    def matches(event: Event) -> bool:
        verdict = known.get(event.type)
        if verdict is None:
            cls = payload_type(event.type)
            if cls is None:
                return False  # not remembered: it may be registered later
            verdict = known[event.type] = issubclass(cls, classes)
        return verdict

    return matches
