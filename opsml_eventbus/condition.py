"""What the texts of one flag mean: `--op delete --op '^read'` as one test over an event.

A text is a value, or a glob (`*`, `?`, `[a-z]`) over the whole of it; `^` (or `!`) before it negates; `=` takes what
follows as it is: no glob, no domain, no folding of case. Several texts of one flag match when any positive one does
(or none is given) and no negated one does.

A condition is two-valued and never raises: a member the payload does not have equals nothing, so that no positive text
matches it and no negated one excludes it. The same holds for a payload that does not decode.

Besides the test, a condition says what it implies about an event's line (`Implied`), so that a file can be searched
before it is parsed. That is never wrong in saying no, for the types registered when it is asked.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Literal, NamedTuple, Protocol

from .audit import DOMAINS, EMITTED_STATUSES
from .errors import InvalidFilter
from .event import Event, Priority
from .implied import Implied, Needle, any_of, glob, inside, may_be_unwritten, nothing_implied, whole
from .members import Getters, as_text, strings

MAX_TEXT = 1024  # characters of one value: twice OpsML's longest member, and a bound on what a glob can cost

Form = dict[str, Any]  # the JSON form of a condition or of a whole filter


class Test(Protocol):
    """One compiled condition. `data` is the decoded payload, None where it does not decode or is not needed."""

    def __call__(self, event: Event, data: Any = None, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Term:
    """A condition, compiled; the leaf of a Filter, and its nodes.

    test: never raises. needs_data: it looks at the payload. form: its JSON, None when it cannot be sent to another
    program. text: for people. notes: one line each about what may surprise. implied: asked for when a file is opened.
    """

    test: Test
    needs_data: bool
    form: Form | None
    text: str
    notes: tuple[str, ...] = ()
    implied: Callable[[], Implied] = nothing_implied
    kind: Literal["leaf", "all", "any", "not"] = "leaf"
    parts: tuple[Term, ...] = ()
    depth: int = 1


def condition(flag: str, texts: Sequence[str]) -> Term:
    """The condition of one flag and its texts. Raises InvalidFilter: an unknown flag or value."""
    make = FLAGS.get(flag)
    if make is None:
        known = [*FLAGS, *_FLAG_OF_MEMBER]
        close = [_FLAG_OF_MEMBER.get(name, name) for name in get_close_matches(flag, known, n=2)]
        raise InvalidFilter(
            f"there is no condition {flag[:64]!r}; there are {', '.join(FLAGS)}",
            text=flag,
            suggestions=tuple(dict.fromkeys(close)),
        )
    if not texts:
        raise InvalidFilter(f"{flag}: no value", text=flag)
    return make(flag, tuple(texts))


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Value(NamedTuple):
    negated: bool
    literal: bool  # written with `=`
    body: str

    @property
    def glob(self) -> bool:
        return not self.literal and any(mark in self.body for mark in "*?[")


def _values(flag: str, texts: Sequence[str]) -> list[_Value]:
    return [_value(flag, text) for text in texts]


def _value(flag: str, text: str) -> _Value:
    if len(text) > MAX_TEXT:
        raise InvalidFilter(f"{flag}: {len(text):,} characters; a value may have {MAX_TEXT:,}", text=text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidFilter(f"{flag}: not UTF-8", text=text, position=error.start) from None
    negated = text.startswith(("^", "!"))
    body = text[1:] if negated else text
    if not body:
        raise InvalidFilter(f"{flag}: an empty value (`=` alone means the empty text)", text=text)
    literal = body.startswith("=")
    return _Value(negated, literal, body[1:] if literal else body)


def _text(flag: str, texts: Sequence[str]) -> str:
    def quoted(text: str) -> str:
        return text if text.isprintable() and not set(text) & set(" ,()&|~'\"") else repr(text)

    return f"{flag}={','.join(map(quoted, texts))}"


def _did_you_mean(flag: str, word: str, domain: Sequence[str], text: str) -> InvalidFilter:
    by_folded = {name.lower(): name for name in domain}
    folded = word.lower()
    close = [name for name in by_folded if len(folded) > 1 and name.startswith(folded)]
    close += [name for name in get_close_matches(folded, by_folded, n=3) if name not in close]
    return InvalidFilter(
        f"{flag}: {word!r} is none of {', '.join(domain)}",
        text=text,
        suggestions=[by_folded[name] for name in close[:3]],
    )


# ── members of the envelope and of the payload ───────────────────────────────────────────────────────────────────

_Accept = Callable[[str], bool]


def _accepts(values: Sequence[_Value], *, fold: bool) -> _Accept:
    """Is a text one of `values`, all of them positive here? fold: without case, except where `=` stands."""
    exact = frozenset(v.body for v in values if v.literal or not (fold or v.glob))
    folded = frozenset(v.body.lower() for v in values if fold and not v.literal and not v.glob)
    globs = [v.body.lower() if fold else v.body for v in values if v.glob]
    if not folded and not globs:
        return exact.__contains__
    match = _globs(globs) if globs else folded.__contains__

    def accept(text: str) -> bool:
        if text in exact:
            return True
        lower = text.lower() if fold else text
        return lower in folded or match(lower)

    return accept


def _globs(globs: Sequence[str]) -> _Accept:
    heads = tuple(glob[:-1] for glob in globs)
    if all(glob == head + "*" and not set(head) & set("*?[") for glob, head in zip(globs, heads, strict=True)):
        return lambda text: text.startswith(heads)
    match = re.compile("|".join(map(fnmatch.translate, globs))).match
    return lambda text: match(text) is not None


def _verdict(values: Sequence[_Value], accepts: Callable[[Sequence[_Value]], _Accept]) -> _Accept:
    positive = [value for value in values if not value.negated]
    negative = [value for value in values if value.negated]
    if not negative:
        return accepts(positive)
    refuse = accepts(negative)
    if not positive:
        return lambda text: not refuse(text)
    accept = accepts(positive)
    return lambda text: accept(text) and not refuse(text)


def _envelope(flag: str, texts: tuple[str, ...]) -> Term:
    values = _values(flag, texts)
    accept = _verdict(values, lambda some: _accepts(some, fold=False))
    test: Test
    if flag == "type":

        def test(event: Event, _data: Any = None, /) -> bool:
            return accept(event.type)
    else:

        def test(event: Event, _data: Any = None, /) -> bool:
            return accept(event.source)

    return Term(test, False, {flag: list(texts)}, _text(flag, texts), implied=lambda: _spelled(values, fold=False))


def _member(flag: str, texts: tuple[str, ...]) -> Term:
    name = _MEMBERS[flag]
    values = _values(flag, texts)
    domain = DOMAINS.get(name)
    fold = domain is not None
    notes = _check_domain(flag, texts, values, domain) if domain else ()
    accept = _verdict(values, lambda some: _accepts(some, fold=fold))
    quick = _Verdicts(accept, domain).__getitem__ if domain else accept
    test = _member_test(name, quick, missing=all(value.negated for value in values))

    def implied() -> Implied:
        return () if may_be_unwritten(name, accept) else _spelled(values, fold=fold)

    return Term(test, True, {flag: list(texts)}, _text(flag, texts), notes, implied)


class _Verdicts(dict[str, bool]):
    """What is accepted, found beforehand for every value of a domain."""

    def __init__(self, accept: _Accept, domain: Sequence[str]) -> None:
        super().__init__({name: accept(name) for name in domain})
        self._accept = accept

    def __missing__(self, text: str) -> bool:
        return self._accept(text)


def _check_domain(flag: str, texts: Sequence[str], values: Sequence[_Value], domain: Sequence[str]) -> tuple[str, ...]:
    notes = []
    for value, text in zip(values, texts, strict=True):
        if value.literal:
            continue
        accept = _accepts([value], fold=True)
        meant = [name for name in domain if accept(name)]
        if not meant and not value.glob:
            raise _did_you_mean(flag, value.body, domain, text)
        if not meant:
            notes.append(f"{flag}: {value.body!r} matches none of the values known: {', '.join(domain)}")
        elif flag == "status" and not value.negated and not EMITTED_STATUSES & set(meant):
            emitted = ", ".join(sorted(EMITTED_STATUSES))
            notes.append(f"status: OpsML itself emits only {emitted} today; {value.body!r} comes from other programs")
    return tuple(notes)


def _member_test(name: str, accept: _Accept, *, missing: bool) -> Test:
    getters = Getters(name)

    def test(_event: Event, data: Any = None, /) -> bool:
        value = getters[data.__class__](data)
        if value.__class__ is not str:
            value = as_text(value)
            if value is None:
                return missing
        return accept(value)

    return test


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────

_MAX_ADDRESS = 64  # characters; the longest IPv6 text with a zone is shorter. Bounds what a cache of them may hold


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def _address(flag: str, texts: tuple[str, ...]) -> Term:
    values = _values(flag, texts)
    networks = {value: _network(flag, value, text) for value, text in zip(values, texts, strict=True)}

    def accepts(some: Sequence[_Value]) -> _Accept:
        literals = frozenset(value.body for value in some if value.literal)
        inside = [network for value in some if (network := networks[value]) is not None]

        @lru_cache(maxsize=1024)  # clients are few, and ipaddress is slow
        def contained(text: str) -> bool:
            address = _parse_address(text)
            return address is not None and any(address in network for network in inside)

        return lambda text: text in literals or (len(text) <= _MAX_ADDRESS and contained(text))

    accept = _verdict(values, accepts)
    name = _MEMBERS[flag]
    test = _member_test(name, accept, missing=all(value.negated for value in values))

    def implied() -> Implied:
        if may_be_unwritten(name, accept):
            return ()
        return any_of([_address_needles(value, networks[value]) for value in values if not value.negated])

    return Term(test, True, {flag: list(texts)}, _text(flag, texts), (), implied)


def _network(flag: str, value: _Value, text: str) -> IPv4Network | IPv6Network | None:
    if value.literal:
        return None
    try:
        network = ip_network(value.body, strict=False)
    except ValueError:
        octets = value.body.rstrip(".*").split(".")
        stars = value.body.endswith("*") and len(octets) < 4 and all(o.isdecimal() and o.isascii() for o in octets)
        cidr = f"{'.'.join((*octets, '0', '0', '0')[:4])}/{8 * len(octets)}"
        raise InvalidFilter(
            f"{flag}: {value.body!r} is no address and no network such as 10.0.0.0/8",
            text=text,
            suggestions=[cidr] if stars else [],
        ) from None
    if isinstance(network, IPv6Network) and (mapped := network.network_address.ipv4_mapped) is not None:
        return ip_network((mapped, max(network.prefixlen - 96, 0)), strict=False)
    return network


def _address_needles(value: _Value, network: IPv4Network | IPv6Network | None) -> frozenset[Needle]:
    if network is None:
        return whole(value.body)
    octets = network.prefixlen // 8
    if isinstance(network, IPv6Network) or octets == 0:
        return frozenset()  # IPv6 has too many spellings
    head = ".".join(str(network.network_address).split(".")[:octets]) + ("." if octets < 4 else "")
    return frozenset({Needle(head.encode(), folded=True), Needle(b"ffff:", folded=True)})  # or ::ffff:a00:1


# ── priority, and text anywhere ──────────────────────────────────────────────────────────────────────────────────

_PRIORITIES = {priority.name.lower(): priority for priority in Priority}


def _priority(flag: str, texts: tuple[str, ...]) -> Term:
    positive: set[Priority] = set()
    negative: set[Priority] = set()
    values = _values(flag, texts)
    for value, text in zip(values, texts, strict=True):
        least = _PRIORITIES.get(value.body.lower())
        if least is None:
            raise _did_you_mean(flag, value.body, list(_PRIORITIES), text)
        meant = {least} if value.literal else {priority for priority in Priority if priority >= least}
        (negative if value.negated else positive).update(meant)
    if all(value.negated for value in values):
        positive = set(Priority)
    wanted = frozenset(positive - negative)

    def test(event: Event, _data: Any = None, /) -> bool:
        return event.priority in wanted

    def implied() -> Implied:
        # A line leaves NORMAL out; the others are spelled in exactly one way.
        if Priority.NORMAL in wanted:
            return ()
        return (frozenset(Needle(f'"{priority.name.lower()}"'.encode()) for priority in wanted),)

    return Term(test, False, {flag: list(texts)}, _text(flag, texts), (), implied)


def _grep(flag: str, texts: tuple[str, ...]) -> Term:
    values = _values(flag, texts)
    positive = tuple(value.body.casefold() for value in values if not value.negated)
    negative = tuple(value.body.casefold() for value in values if value.negated)
    # What stands between two values must not make a text of its own: no text has half a surrogate.
    border = "\ud800" if any("\0" in needle for needle in positive + negative) else "\0"

    def test(_event: Event, data: Any = None, /) -> bool:
        text = border.join(strings(data)).casefold()
        for needle in negative:
            if needle in text:
                return False
        if not positive:
            return True
        for needle in positive:  # noqa: SIM110 - any() over a generator costs three times as much
            if needle in text:
                return True
        return False

    def implied() -> Implied:
        if not positive or may_be_unwritten(None, lambda text: any(n in text.casefold() for n in positive)):
            return ()
        return any_of([inside(needle) for needle in positive])

    return Term(test, True, {flag: list(texts)}, _text(flag, texts), (), implied)


def _spelled(values: Sequence[_Value], *, fold: bool) -> Implied:
    """What a line holds whose member is one of the positive values."""
    return any_of(
        [
            glob(value.body.lower() if fold else value.body, folded=fold)
            if value.glob
            else whole(value.body, folded=fold and not value.literal)
            for value in values
            if not value.negated
        ]
    )


# ── the table of flags ───────────────────────────────────────────────────────────────────────────────────────────

_MEMBERS = {
    "user": "username",
    "op": "operation",
    "status": "status",
    "resource": "resource_type",
    "id": "resource_id",
    "registry": "registry_type",
    "route": "route",
    "ip": "client_ip",
}
_FLAG_OF_MEMBER = {member: flag for flag, member in _MEMBERS.items()}

FLAGS: dict[str, Callable[[str, tuple[str, ...]], Term]] = {
    "type": _envelope,
    "user": _member,
    "op": _member,
    "status": _member,
    "resource": _member,
    "id": _member,
    "registry": _member,
    "route": _member,
    "ip": _address,
    "source": _envelope,
    "priority": _priority,
    "grep": _grep,
}
