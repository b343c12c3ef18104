"""What a filter implies about an event's line: pieces to look for in its bytes before anything is decoded.

Never wrong in saying no. Three things could make it so, and each is minded: a line may spell a character by an escape
(`\\u0044`, `\\/`); a payload may hold what its line does not spell (a default, a converted value); and case is folded
beyond ASCII. So an implication holds for the types registered when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from .codec import encode_data
from .errors import InvalidFilter, Unencodable
from .event import GAP_TYPE, payload_types
from .members import as_text, strings


class Needle(NamedTuple):
    """A piece of a canonical line. folded: lower case, to be looked for in the line's lower case."""

    text: bytes
    folded: bool = False


# A conjunction: of each group, at least one needle stands in the line of every event that matches, unless the line
# hides it behind an escape: whoever looks must take such a line for a possible match.
Implied = tuple[frozenset[Needle], ...]


def nothing_implied() -> Implied:
    """For a condition that no line can rule out."""
    return ()


def any_of(alternatives: Sequence[frozenset[Needle]]) -> Implied:
    """One group out of alternatives, of which each has its needles; nothing when one of them could be anywhere."""
    return (frozenset().union(*alternatives),) if alternatives and all(alternatives) else ()


def selectivity(group: frozenset[Needle]) -> int:
    return min((len(needle.text) for needle in group), default=0)


# ── needles (folded: the text given is in lower case already) ────────────────────────────────────────────────────


def whole(text: str, *, folded: bool = False) -> frozenset[Needle]:
    """A member whose text is this."""
    if re.fullmatch(r"-?[0-9]+|true|false", text):
        return frozenset()  # may stand for a number, which has no quotes and may have other spellings
    return _needle(b'"%b"' % _json(text), folded=folded)


def glob(pattern: str, *, folded: bool = False) -> frozenset[Needle]:
    """A member whose text matches this."""
    # A class in brackets could end anywhere: only what stands before the first is looked for.
    runs = re.split(r"[*?]", pattern.split("[")[0])
    return _needle(max(map(_json, runs), key=len), folded=folded)


def inside(text: str) -> frozenset[Needle]:
    """A member whose text contains this, without case."""
    return _needle(_json(text), folded=True)


def _needle(text: bytes, *, folded: bool) -> frozenset[Needle]:
    return frozenset({Needle(text, folded)} if text else ())


def _json(text: str) -> bytes:
    """The inside of a JSON string, as our own lines spell it."""
    try:
        return encode_data("", text)[1:-1]
    except Unencodable as error:
        raise InvalidFilter(str(error), text=text) from error


# ── what a line need not spell ───────────────────────────────────────────────────────────────────────────────────

_SCALARS: tuple[Any, ...] = (str, str | None, int, int | None, bool, bool | None, float, float | None)
_STRUCTURES: tuple[Any, ...] = (Any, dict, dict[str, Any], dict[str, str], list, list[Any], list[str])


def may_be_unwritten(name: str | None, accept: Callable[[str], bool]) -> bool:
    """Might a registered payload hold an accepted text that its line does not spell: a default, or a converted value?

    name: the member; None for any of them.
    """
    for cls in payload_types().values():
        if hasattr(cls, "__post_init__"):
            return True
        try:
            fields = msgspec.structs.fields(cast("type[msgspec.Struct]", cls))
        except (NameError, TypeError):  # annotations that do not resolve: nothing is known about such a type
            return True
        for field in fields:
            if name is not None and field.name != name:
                continue
            if field.type not in _SCALARS and (name is not None or field.type not in _STRUCTURES):
                return True
            if field.default_factory is not msgspec.NODEFAULT and field.default_factory not in (list, dict):
                return True
            if any(accept(text) for text in _default_texts(field.default)):
                return True
    return False


def _default_texts(default: Any) -> list[str]:
    text = as_text(default)
    return [text] if text is not None else strings(default)


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

_GAP = GAP_TYPE.encode()
# Only \u and \/ can spell a character otherwise than we do; the other escapes have no second form. A literal pattern
# is found at twice the speed of a class, and of `in`, which is slow for two bytes.
_ESCAPE = re.compile(rb"\\u").search
_ESCAPE_OR_SLASH = re.compile(rb"\\[u/]").search


def screen(implied: Implied) -> Callable[[bytes], bool]:
    """Could this line be a Gap, or hold what is implied? Never wrong in saying no."""
    slash = any(b"/" in needle.text for group in implied for needle in group)
    hidden = _ESCAPE_OR_SLASH if slash else _ESCAPE
    groups = []
    # Needles as they are spelled are looked for first: folding a line's case costs as much as reading it twice.
    for group in sorted(implied, key=lambda group: (any(needle.folded for needle in group), -selectivity(group))):
        exact = tuple(needle.text for needle in group if not needle.folded)
        folded = tuple(needle.text for needle in group if needle.folded)
        groups.append((exact, folded))

    def possible(line: bytes) -> bool:
        lower = b""
        for exact, folded in groups:
            for needle in exact:
                if needle in line:
                    break
            else:
                if folded and not lower:
                    if not line.isascii():
                        return True  # beyond ASCII, folding case is more than bytes can tell
                    lower = line.lower()
                for needle in folded:
                    if needle in lower:
                        break
                else:
                    return _GAP in line or hidden(line) is not None
        return True

    return possible
