"""One Filter for everything: the live bus, the tap (evaluated at the server), files, tables.

    wanted = Filter.of(type=["audit"], op=["delete"], user=["^guest"]) & ~Filter.of(route=["/opsml/api/card/*"])
    wanted.matches(event)

Different flags must all hold; what several texts of one flag mean is in `condition`. `& | ~` combine filters. A filter
is compiled when it is made, never changes, and may be shared by threads. Matching never raises, except where a
function of the caller's does (`Filter.predicate`). A Filter sees events only: no filter removes a Gap.

The JSON form is one object whose members must all hold; `{}` is everything:

    {"op": ["delete"], "user": ["^guest"], "any": [{"priority": ["high"]}, {"not": {"status": ["success"]}}]}

Every flag takes an array of texts, `all` and `any` an array of filters, `not` one filter. It comes over a socket from
other programs, so reading it is strict and limited: an unknown member, or one with another shape, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .condition import FLAGS, Form, Term, Test, condition
from .errors import InvalidFilter
from .event import EncodedData, Event, Priority
from .implied import Implied, Needle, nothing_implied, screen, selectivity
from .members import payload_of

MAX_DEPTH = 32  # filters inside one another; bounds the recursion of a match
MAX_VALUES = 256  # texts in one JSON form; a person types a handful, and each costs every event a comparison

Texts = str | Sequence[str]


class Filter:
    """A predicate over events. Make one with `of`, `predicate` or `from_json`; combine with `&`, `|`, `~`.

    matches: the compiled predicate, `Event -> bool`.
    """

    __slots__ = ("_term", "matches")

    matches: Callable[[Event], bool]

    def __init__(self, term: Term) -> None:
        if term.depth > MAX_DEPTH:
            raise InvalidFilter(f"filters nested deeper than {MAX_DEPTH}")
        self._term = term
        self.matches = _compile(term)

    @staticmethod
    def of(
        *,
        type: Texts = (),  # noqa: A002 - the flag's name
        user: Texts = (),
        op: Texts = (),
        status: Texts = (),
        resource: Texts = (),
        id: Texts = (),  # noqa: A002
        registry: Texts = (),
        route: Texts = (),
        ip: Texts = (),
        source: Texts = (),
        priority: Texts | Priority = (),
        grep: Texts = (),
    ) -> Filter:
        """The filter that the plain flags make. None given: everything.

        type, source: of the event. user, op, resource, id, registry: the payload's username, operation, resource_type,
        resource_id, registry_type. status, route: as they are. ip: an address or a network for client_ip. priority: at
        least this one (`=high`: exactly). grep: a text anywhere in the payload's string values, without case.
        `op`, `status`, `resource` and `registry` are compared without case and must be values OpsML knows.

        Raises InvalidFilter, with what was perhaps meant.
        """
        given: dict[str, Texts] = {
            "type": type,
            "user": user,
            "op": op,
            "status": status,
            "resource": resource,
            "id": id,
            "registry": registry,
            "route": route,
            "ip": ip,
            "source": source,
            "priority": priority.name.lower() if isinstance(priority, Priority) else priority,
            "grep": grep,
        }
        return Filter(
            _all(
                condition(flag, [texts] if isinstance(texts, str) else texts) for flag, texts in given.items() if texts
            )
        )

    @staticmethod
    def predicate(
        function: Callable[[Event], bool], text: str = "a function", *, envelope_only: bool = False
    ) -> Filter:
        """Any function of an event. It stays in this program: such a filter has no JSON form.

        envelope_only: it does not look at the payload, and may be asked before what does. Otherwise a function is
        asked in its place: `Filter.of(status="denied") & Filter.predicate(f)` calls f for denied events only.
        What the function raises reaches whoever matches.
        """

        def test(event: Event, _data: Any = None, /) -> bool:
            return bool(function(event))

        return Filter(Term(test, not envelope_only, None, text))

    def __call__(self, event: Event) -> bool:
        """As `matches`."""
        return self.matches(event)

    def __and__(self, other: Filter) -> Filter:
        return Filter(_all((self._term, other._term))) if isinstance(other, Filter) else NotImplemented

    def __or__(self, other: Filter) -> Filter:
        return Filter(_any((self._term, other._term))) if isinstance(other, Filter) else NotImplemented

    def __invert__(self) -> Filter:
        return Filter(_not(self._term))

    def __eq__(self, other: object) -> bool:
        """The same JSON form; without one, the same object."""
        if not isinstance(other, Filter):
            return NotImplemented
        return self is other or (self._term.form is not None and self._term.form == other._term.form)

    def __hash__(self) -> int:
        return hash(self._term.text)

    def __str__(self) -> str:
        return self._term.text

    def __repr__(self) -> str:
        return f"<Filter {self._term.text}>"

    @property
    def notes(self) -> tuple[str, ...]:
        """What may surprise about this filter, one line each."""
        return self._term.notes

    @property
    def parts(self) -> tuple[Filter, ...]:
        """The filters that must all hold for this one to: itself when it is not several joined by `&`."""
        return tuple(Filter(part) for part in self._term.parts) if self._term.kind == "all" else (self,)

    def to_json(self) -> Form:
        """The JSON form, as Python values. Raises InvalidFilter: a part of it is a function."""
        if self._term.form is None:
            raise InvalidFilter("a function cannot be sent to another program", text=self._term.text)
        return self._term.form

    @staticmethod
    def from_json(form: object) -> Filter:
        """The filter of a JSON form (Python values, as a JSON decoder gives them). Raises InvalidFilter."""
        return Filter(_Reader().read(form, MAX_DEPTH))

    def screen(self) -> Callable[[bytes], bool] | None:
        """A quick test over the bytes of a line, made for the types registered now; None where nothing is implied.

        False: this line is certainly no Gap and no event that matches. True: decode it and see.
        (A line that is malformed may be False too: it matches nothing.)
        """
        implied = self._term.implied()
        return screen(implied) if implied else None

    @property
    def implied(self) -> Implied:
        """What `screen` looks for: of each group, at least one needle stands in the line of every event that matches,
        unless that line hides it behind an escape."""
        return self._term.implied()


# ── the algebra ──────────────────────────────────────────────────────────────────────────────────────────────────


def _everything(_event: Event, _data: Any = None, /) -> bool:
    return True


def _nothing(_event: Event, _data: Any = None, /) -> bool:
    return False


_EVERYTHING = Term(_everything, False, {}, "everything", kind="all")
_NOTHING = Term(_nothing, False, {"not": {}}, "nothing", kind="not", parts=(_EVERYTHING,))


def _all(terms: Iterable[Term]) -> Term:
    parts = _flat("all", terms)
    if not parts:
        return _EVERYTHING
    if len(parts) == 1:
        return parts[0]
    # What the envelope alone decides comes first: it needs no decoding.
    tests = tuple(part.test for part in sorted(parts, key=lambda part: part.needs_data))

    def test(event: Event, data: Any = None, /) -> bool:
        for each in tests:  # noqa: SIM110 - all() over a generator costs three times as much
            if not each(event, data):
                return False
        return True

    def implied() -> Implied:
        return tuple(group for part in parts for group in part.implied())

    return _node("all", parts, test, _joined_form(parts), " & ".join(_inner(part) for part in parts), implied)


def _any(terms: Iterable[Term]) -> Term:
    parts = _flat("any", terms)
    if not parts:
        return _NOTHING
    if any(part is _EVERYTHING for part in parts):
        return _EVERYTHING
    if len(parts) == 1:
        return parts[0]
    tests = tuple(part.test for part in sorted(parts, key=lambda part: part.needs_data))

    def test(event: Event, data: Any = None, /) -> bool:
        for each in tests:  # noqa: SIM110 - as above
            if each(event, data):
                return True
        return False

    def implied() -> Implied:
        # One group of each part, joined, is implied by the whole; the one whose shortest needle is longest says most.
        best = [max(part.implied(), key=selectivity, default=frozenset[Needle]()) for part in parts]
        return (frozenset[Needle]().union(*best),) if all(best) else ()

    forms = [part.form for part in parts]
    form: Form | None = {"any": forms} if None not in forms else None
    return _node("any", parts, test, form, " | ".join(_inner(part) for part in parts), implied)


def _not(term: Term) -> Term:
    if term.kind == "not":
        return term.parts[0]
    if term is _EVERYTHING:
        return _NOTHING
    inner = term.test

    def test(event: Event, data: Any = None, /) -> bool:
        return not inner(event, data)

    form: Form | None = {"not": term.form} if term.form is not None else None
    return _node("not", (term,), test, form, f"~({term.text})", nothing_implied)


def _flat(kind: str, terms: Iterable[Term]) -> tuple[Term, ...]:
    parts: list[Term] = []
    for term in terms:
        parts.extend(term.parts if term.kind == kind else (term,))
    return tuple(parts)


def _node(
    kind: Any, parts: tuple[Term, ...], test: Test, form: Form | None, text: str, implied: Callable[[], Implied]
) -> Term:
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    needs_data = any(part.needs_data for part in parts)
    depth = 1 + max(part.depth for part in parts)
    return Term(test, needs_data, form, text, notes, implied, kind, parts, depth)


def _inner(term: Term) -> str:
    return f"({term.text})" if term.kind in ("all", "any") and term.parts else term.text


def _joined_form(parts: Sequence[Term]) -> Form | None:
    """One object where no member stands twice, else `all`."""
    joined: Form = {}
    forms = []
    for part in parts:
        if part.form is None:
            return None
        joined.update(part.form)
        forms.append(part.form)
    return joined if len(joined) == sum(map(len, forms)) else {"all": forms}


def _compile(term: Term) -> Callable[[Event], bool]:
    if not term.needs_data:
        return term.test
    parts = term.parts if term.kind == "all" else (term,)
    heads = tuple(part.test for part in parts if not part.needs_data)
    rest = tuple(part.test for part in parts if part.needs_data)
    if not heads and len(rest) == 1:
        only = rest[0]

        def matches_one(event: Event) -> bool:
            content = event.content
            return only(event, payload_of(event) if isinstance(content, EncodedData) else content)

        return matches_one

    def matches(event: Event) -> bool:
        for test in heads:
            if not test(event):
                return False
        content = event.content
        data = payload_of(event) if isinstance(content, EncodedData) else content
        for test in rest:  # noqa: SIM110 - as above
            if not test(event, data):
                return False
        return True

    return matches


EVERYTHING = Filter(_EVERYTHING)


# ── the JSON form ────────────────────────────────────────────────────────────────────────────────────────────────


class _Reader:
    """Reads one form, counting its texts."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def read(self, form: object, depth: int) -> Term:
        if not isinstance(form, dict):
            raise InvalidFilter(f"a filter is a JSON object, not {_kind(form)}")
        if depth == 0:
            raise InvalidFilter(f"filters nested deeper than {MAX_DEPTH}")
        self._spend(1)
        return _all([self._member(name, value, depth) for name, value in form.items()])

    def _member(self, name: object, value: object, depth: int) -> Term:
        if name == "not":
            return _not(self.read(value, depth - 1))
        if name not in ("all", "any"):
            return condition(str(name), self._texts(str(name), value))
        if not isinstance(value, list) or not value:
            raise InvalidFilter(f"{name}: an array of filters, not {_kind(value)}", text=str(name))
        join = _all if name == "all" else _any
        return join([self.read(form, depth - 1) for form in value])

    def _texts(self, name: str, value: object) -> list[str]:
        if name not in FLAGS:
            return []  # `condition` refuses the name first, with a suggestion
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise InvalidFilter(f"{name}: an array of texts, not {_kind(value)}", text=name)
        self._spend(len(value))
        return value

    def _spend(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise InvalidFilter(f"more than {MAX_VALUES} values and filters in one filter")


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "an array of other things" if value else "an empty array"
    kinds = {dict: "an object", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")
