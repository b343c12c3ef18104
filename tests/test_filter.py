"""One Filter for everything: what flags mean, the algebra, the JSON form, and what a line may be spared of."""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsml_eventbus import AuditEvent, Event, Payload, Priority, SpaceNameEvent
from opsml_eventbus import event as registry
from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.condition import FLAGS
from opsml_eventbus.errors import InvalidFilter
from opsml_eventbus.event import Gap, event_type
from opsml_eventbus.filter import EVERYTHING, MAX_DEPTH, MAX_VALUES, Filter


def audit(*, priority: Priority = Priority.NORMAL, source: str = "opsml", **fields: Any) -> Event:
    return Event.new("audit", AuditEvent(**fields), priority=priority, source=source)


DELETE = audit(
    username="mira",
    client_ip="10.1.2.3",
    user_agent="curl/8.5.0",
    operation="Delete",
    resource_type="Database",
    resource_id="01a20a62-3be4",
    status="Denied",
    error_message="Straße gesperrt",
    registry_type="prompt",
    route="/opsml/api/card/delete",
    priority=Priority.HIGH,
)


class Verdict(Enum):
    DENIED = "Denied"


@pytest.fixture(autouse=True)
def only_opsml_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types that other tests register must not decide what a line implies here."""
    known = registry.payload_types()
    monkeypatch.setattr(registry, "_types", {name: known[name] for name in ("audit", "space_name")})


# ── what a flag means ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flags", "matches"),
    [
        ({"type": "audit"}, True),
        ({"type": "aud*"}, True),
        ({"type": "space_name"}, False),
        ({"source": "opsml"}, True),
        ({"source": "^opsml"}, False),
        ({"user": "mira"}, True),
        ({"user": "Mira"}, False),
        ({"user": "m?ra"}, True),
        ({"user": ["guest", "mira"]}, True),
        ({"user": ["m*", "^mira"]}, False),
        ({"user": ["^guest", "^admin"]}, True),
        ({"user": "!mira"}, False),
        ({"op": "delete"}, True),
        ({"op": "DELETE"}, True),
        ({"op": "=delete"}, False),
        ({"op": "=Delete"}, True),
        ({"op": "del*"}, True),
        ({"op": "^DEL*"}, False),
        ({"op": ["=Delete", "read"]}, True),
        ({"op": ["read", "create", "List"]}, False),
        ({"status": "denied"}, True),
        ({"status": "=Quarantined"}, False),
        ({"resource": "database"}, True),
        ({"id": "01a20a62-*"}, True),
        ({"id": "01a20a62"}, False),
        ({"registry": "PROMPT"}, True),
        ({"route": "/opsml/api/card/*"}, True),
        ({"route": "/opsml/api/files/*"}, False),
        ({"ip": "10.1.2.3"}, True),
        ({"ip": "10.0.0.0/8"}, True),
        ({"ip": "10.1.2.3/8"}, True),
        ({"ip": "^10.0.0.0/8"}, False),
        ({"ip": ["10.0.0.0/8", "^10.1.2.3"]}, False),
        ({"ip": "::ffff:10.1.2.3"}, True),
        ({"ip": "fe80::/10"}, False),
        ({"ip": "=10.1.2.3"}, True),
        ({"priority": "low"}, True),
        ({"priority": "high"}, True),
        ({"priority": "critical"}, False),
        ({"priority": "^critical"}, True),
        ({"priority": "^high"}, False),
        ({"priority": "=high"}, True),
        ({"priority": "=normal"}, False),
        ({"priority": Priority.HIGH}, True),
        ({"grep": "CURL"}, True),
        ({"grep": "STRASSE"}, True),
        ({"grep": "username"}, False),
        ({"grep": "curl/*"}, False),
        ({"grep": ["wget", "curl"]}, True),
        ({"grep": ["curl", "^gesperrt"]}, False),
        ({"grep": "^wget"}, True),
        ({"user": "mira", "op": "delete", "status": "denied", "priority": "high", "type": "audit"}, True),
        ({"user": "mira", "op": "delete", "status": "success"}, False),
        ({"type": "space_name", "op": "delete"}, False),
        ({}, True),
    ],
)
def test_a_flag_means_what_it_says(flags: dict[str, Any], matches: bool) -> None:
    assert Filter.of(**flags).matches(DELETE) is matches


def test_a_negated_status_leaves_the_others() -> None:
    wanted = Filter.of(status="^success")
    assert [wanted(audit(status=status)) for status in ("Success", "Failed", "Denied", "success")] == [
        False, True, True, False,
    ]  # fmt: skip


def test_what_a_payload_does_not_have_equals_nothing() -> None:
    event = Event.new("space_name", SpaceNameEvent(space="dev", name="card", registry_type="model"))
    assert not Filter.of(status="success").matches(event)
    assert not Filter.of(user="*").matches(event)
    assert not Filter.of(ip="0.0.0.0/0").matches(event)
    assert Filter.of(status="^success").matches(event)
    assert Filter.of(ip="^10.0.0.0/8").matches(event)
    assert Filter.of(registry="model").matches(event)


@pytest.mark.parametrize("data", [None, [], "text", 7, {}, {"status": None}, {"status": ["denied"]}, {"status": 1.5}])
def test_a_payload_of_any_shape_is_no_error(data: Any) -> None:
    event = Event.new("thing", data)
    assert not Filter.of(status="denied").matches(event)
    assert Filter.of(status="^denied").matches(event)
    assert not Filter.of(grep="absent").matches(event)


def test_schemaless_payloads_are_looked_into() -> None:
    event = Event.new("thing", {"status": 404, "username": "mira", "nested": [{"deep": "Needle"}], "op": True})
    assert Filter.of(status="=404").matches(event)
    assert Filter.of(user="mira").matches(event)
    assert Filter.of(grep="needle").matches(event)
    assert not Filter.of(grep="deep").matches(event)


def test_a_registered_type_of_ones_own_is_looked_into() -> None:
    @event_type("test.filter.own")
    class Own(Payload):
        status: Verdict
        route: int
        labels: dict[str, list[str]]

        @property
        def username(self) -> str:
            raise RuntimeError("a property is code")

    event = Event.new("test.filter.own", Own(Verdict.DENIED, 42, {"a": ["x", "Deep down"]}))
    assert Filter.of(status="denied", route="42", grep="DEEP").matches(event)
    assert not Filter.of(user="*").matches(event)


def test_data_that_does_not_decode_matches_no_payload_condition() -> None:
    line = encode_line(DELETE).replace(b'"Denied"', b"17")
    event = decode_line(line)
    assert isinstance(event, Event)
    assert not Filter.of(op="delete").matches(event)
    assert not Filter.of(grep="curl").matches(event)
    assert Filter.of(op="^delete").matches(event)
    assert Filter.of(type="audit", priority="high").matches(event)


def test_a_payload_that_contains_itself_ends_a_grep() -> None:
    loop: list[Any] = ["a"]
    loop += [loop, loop]
    assert not Filter.of(grep="b").matches(Event.new("loop", loop))


def test_an_address_that_is_none_is_in_no_network() -> None:
    for text in ("unknown", "", "10.1.2.3.4", "x" * 100_000, "10.1.2.3, 10.1.2.4"):
        assert not Filter.of(ip="0.0.0.0/0").matches(audit(client_ip=text))
    assert Filter.of(ip="10.0.0.0/8").matches(audit(client_ip="::ffff:a01:203"))
    assert Filter.of(ip="::ffff:10.0.0.0/104").matches(audit(client_ip="10.1.2.3"))
    assert Filter.of(ip="=unknown").matches(audit())


# ── what is refused, and what is noted ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flags", "suggestions"),
    [
        ({"op": "delte"}, ("Delete",)),
        ({"op": "^del"}, ("Delete",)),
        ({"status": "denyed"}, ("Denied",)),
        ({"registry": "promt"}, ("prompt",)),
        ({"resource": "xyzzy"}, ()),
        ({"priority": "hihg"}, ("high",)),
        ({"ip": "10.1.*"}, ("10.1.0.0/16",)),
        ({"ip": "unknown"}, ()),
        ({"user": ""}, ()),
        ({"user": [""]}, ()),
        ({"user": "^"}, ()),
        ({"user": "x" * 1025}, ()),
        ({"user": "\udcff"}, ()),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_may_be(flags: dict[str, Any], suggestions: tuple[str, ...]) -> None:
    if flags == {"user": ""}:
        flags = {"user": [""]}  # an empty text alone is no text, as an empty list is
    with pytest.raises(InvalidFilter) as caught:
        Filter.of(**flags)
    assert caught.value.suggestions == suggestions


def test_a_status_opsml_never_emits_is_allowed_and_noted() -> None:
    (note,) = Filter.of(status=["denied", "success"]).notes
    assert "Success" in note
    assert "denied" in note
    assert Filter.of(status="success").notes == ()
    assert Filter.of(status="^denied").notes == ()
    assert (Filter.of(status="denied") & Filter.of(status="denied", op="read")).notes == (note,)
    assert (~Filter.of(op="zz*") | EVERYTHING).notes == ()
    assert len(Filter.of(op="zz*").notes) == 1


# ── the algebra ──────────────────────────────────────────────────────────────────────────────────────────────────

_WORDS = ["Delete", "delete", "Read", "mira", "guest", "a*", "é", 'q"', "back\\slash", "/", "K", "10.1.2.3", "42", "\n"]
_texts = st.lists(
    st.builds(lambda sign, word: sign + word, st.sampled_from(["", "^", "=", "^="]), st.sampled_from(_WORDS)),
    min_size=1,
    max_size=3,
)
_leaves = st.one_of(
    st.builds(lambda t: Filter.of(user=t), _texts),
    st.builds(lambda t: Filter.of(route=t), _texts),
    st.builds(lambda t: Filter.of(id=t), _texts),
    st.builds(lambda t: Filter.of(grep=t), _texts),
    st.builds(lambda t: Filter.of(type=t), _texts),
    st.builds(lambda t: Filter.of(source=t), _texts),
    st.builds(
        lambda t: Filter.of(op=t), st.lists(st.sampled_from(["delete", "^read", "d*", "=delete", "^=Read"]), min_size=1)
    ),
    st.builds(
        lambda t: Filter.of(priority=t),
        st.lists(st.sampled_from(["low", "high", "^high", "^critical", "=low"]), min_size=1),
    ),
    st.builds(
        lambda t: Filter.of(ip=t), st.lists(st.sampled_from(["10.1.2.3", "10.0.0.0/8", "^::1", "=K"]), min_size=1)
    ),
    st.just(EVERYTHING),
)
filters = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=6,
)
_values = st.one_of(
    st.sampled_from([*_WORDS, "Kelvin", "DELETE", "\u212a", "::ffff:10.1.2.3", "10.9.9.9", "abc", "Success"]),
    st.text(max_size=4),
)
_names_to_flags = {
    "username": "user",
    "route": "route",
    "resource_id": "id",
}
_names = st.sampled_from(sorted(_names_to_flags))
_members = st.dictionaries(
    st.sampled_from(["username", "operation", "route", "resource_id", "client_ip", "metadata"]), _values
)
_numbers = st.dictionaries(st.sampled_from(["username", "route"]), st.sampled_from([42, 42.0, True, None, ["abc"]]))
_types = st.sampled_from(["audit", "abc", "é", "42", "Delete"])
_priorities = st.sampled_from(list(Priority))
events = st.one_of(
    st.builds(lambda d, p: Event.new("audit", AuditEvent(**d), priority=p), _members, _priorities),
    st.builds(
        lambda t, d, n, p, s: Event.new(t, d | n, priority=p, source=s or "x"),
        _types.filter(lambda name: name != "audit"),
        _members,
        _numbers,
        _priorities,
        _values,
    ),
)


@given(filters, filters, events)
def test_and_or_not_are_the_logic_of_truth(a: Filter, b: Filter, event: Event) -> None:
    assert (a & b).matches(event) == (a.matches(event) and b.matches(event))
    assert (a | b).matches(event) == (a.matches(event) or b.matches(event))
    assert (~a).matches(event) == (not a.matches(event))
    assert (~~a) == a


@given(filters, events)
def test_the_json_form_says_the_same(wanted: Filter, event: Event) -> None:
    again = Filter.from_json(json.loads(json.dumps(wanted.to_json())))
    assert again.matches(event) == wanted.matches(event)
    assert again == wanted
    assert again.notes == wanted.notes
    assert str(again) == str(wanted)
    assert hash(again) == hash(wanted)


@given(filters, events)
def test_a_filter_is_all_of_its_parts(wanted: Filter, event: Event) -> None:
    assert all(part.matches(event) for part in wanted.parts) == wanted.matches(event)


@given(_texts, events)
def test_a_negated_text_is_the_negation_of_the_text(texts: list[str], event: Event) -> None:
    text = texts[0].removeprefix("^")
    assert Filter.of(user="^" + text).matches(event) == (~Filter.of(user=text)).matches(event)


@given(_texts, events)
def test_several_texts_of_a_flag_are_any_positive_and_no_negated(texts: list[str], event: Event) -> None:
    positive = [text for text in texts if not text.startswith("^")]
    negated = [text for text in texts if text.startswith("^")]
    expected = (not positive or any(Filter.of(user=text).matches(event) for text in positive)) and all(
        Filter.of(user=text).matches(event) for text in negated
    )
    assert Filter.of(user=texts).matches(event) == expected


def test_a_function_composes_and_cannot_be_sent() -> None:
    curl = Filter.predicate(lambda event: "curl" in event.data.user_agent, "curl")
    wanted = Filter.of(op="delete") & curl
    assert wanted.matches(DELETE)
    assert not (~wanted).matches(DELETE)
    assert str(wanted) == "op=delete & curl"
    with pytest.raises(InvalidFilter):
        wanted.to_json()
    assert wanted == wanted
    assert wanted != Filter.of(op="delete") & curl


def test_a_function_is_asked_in_its_place() -> None:
    def explains(event: Event) -> bool:
        return "gesperrt" in event.data.error_message

    wanted = Filter.of(status="denied") & Filter.predicate(explains) & Filter.of(type="audit")
    assert wanted.matches(DELETE)
    assert not wanted.matches(audit(status="Success", error_message=None))
    assert (~Filter.of(status="denied") | Filter.predicate(explains)).matches(audit(error_message=None))
    with pytest.raises(TypeError):
        Filter.predicate(explains).matches(audit(error_message=None))


def test_a_function_of_the_envelope_spares_the_decoding() -> None:
    line = encode_line(DELETE)
    event = decode_line(line)
    assert isinstance(event, Event)
    calls: list[Event] = []
    early = Filter.predicate(lambda each: calls.append(each) or False, "early", envelope_only=True)  # type: ignore[func-returns-value]
    assert not (Filter.of(op="delete") & early).matches(event)
    assert calls == [event]
    assert not hasattr(event.content, "_value")  # never decoded


def test_a_filter_reads_as_it_was_written() -> None:
    wanted = (Filter.of(type="audit", op=["delete", "^read"]) | Filter.of(user="a b")) & ~Filter.of(grep="x,y")
    assert str(wanted) == "((type=audit & op=delete,^read) | user='a b') & ~(grep='x,y')"
    assert str(EVERYTHING) == "everything"
    assert str(~EVERYTHING) == "nothing"
    assert str(Filter.of(user="\x1b[31m")).isprintable()
    assert Filter.of() == EVERYTHING


# ── the JSON form, from other programs ───────────────────────────────────────────────────────────────────────────


def test_the_json_form_is_one_object() -> None:
    wanted = Filter.of(op="delete", user="^guest") & (Filter.of(priority="high") | ~Filter.of(status="success"))
    assert wanted.to_json() == {
        "user": ["^guest"],
        "op": ["delete"],
        "any": [{"priority": ["high"]}, {"not": {"status": ["success"]}}],
    }
    assert EVERYTHING.to_json() == {}
    twice = Filter.of(user="a*") & Filter.of(user="*b")
    assert twice.to_json() == {"all": [{"user": ["a*"]}, {"user": ["*b"]}]}


def test_what_the_page_about_filters_shows_is_a_filter() -> None:
    page = (Path(__file__).parent.parent / "docs" / "filters.md").read_text()
    shown = re.findall(r"```json\n(.*?)\n```", page, re.DOTALL)
    assert len(shown) == 3
    for text in shown:
        wanted = Filter.from_json(json.loads(text))
        assert Filter.from_json(wanted.to_json()) == wanted
    assert f"At most {MAX_VALUES} texts" in page
    assert f"{MAX_DEPTH} inside one another" in page
    for flag in FLAGS:
        assert f"`--{flag}`" in page


def _nested(depth: int) -> dict[str, Any]:
    form: dict[str, Any] = {"any": [{"op": ["read"]}, {"user": ["x"]}]}
    for _ in range(depth):
        form = {"any": [{"op": ["list"]}, {"not": form}]}
    return form


@pytest.mark.parametrize(
    "form",
    [
        None,
        [],
        "op=delete",
        True,
        {"operation": ["delete"]},
        {"where": "x"},
        {"op": "delete"},
        {"op": []},
        {"op": [1]},
        {"op": None},
        {"op": ["delte"]},
        {"not": []},
        {"not": None},
        {"all": {}},
        {"any": []},
        {"any": [None]},
        {1: ["x"]},
        {"user": ["x"] * (MAX_VALUES + 1)},
        {"any": [{} for _ in range(MAX_VALUES)]},
        {"user": ["x" * 100_000]},
        _nested(MAX_DEPTH),
    ],
)
def test_a_form_that_is_none_is_refused(form: object) -> None:
    with pytest.raises(InvalidFilter):
        Filter.from_json(form)


def test_a_member_of_the_payload_is_no_flag_but_suggests_one() -> None:
    with pytest.raises(InvalidFilter) as caught:
        Filter.from_json({"operation": ["delete"]})
    assert caught.value.suggestions == ("op",)


def test_depth_is_limited_before_anything_recurses() -> None:
    form: dict[str, Any] = {}
    for _ in range(100_000):
        form = {"not": form}
    with pytest.raises(InvalidFilter):
        Filter.from_json(form)
    while form:  # taken apart by hand: freeing it recurses too
        form = form.pop("not")


def test_filters_nested_too_deep_are_refused_when_made() -> None:
    def nested(levels: int) -> Filter:
        wanted = Filter.of(user="a")
        for _ in range(levels):
            wanted = ~wanted & Filter.of(op="read")
        return wanted

    nested(MAX_DEPTH // 2 - 1)
    with pytest.raises(InvalidFilter):
        nested(MAX_DEPTH)


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _foreign(value: Any, escape: Any) -> str:
    """JSON as somebody else may spell it: spaces, escapes, another order."""
    if isinstance(value, str):
        out = []
        for character in value:
            how = escape()
            if how == 0 or (character < " " and character not in "\n\t\r\b\f"):
                units = character.encode("utf-16-be")
                out += [f"\\u{units[i]:02X}{units[i + 1]:02x}" for i in range(0, len(units), 2)]
            elif how == 1 and character == "/":
                out.append("\\/")
            else:
                out.append(json.dumps(character, ensure_ascii=False)[1:-1])
        return f'"{"".join(out)}"'
    if isinstance(value, dict):
        items = list(value.items())
        if escape() == 0:
            items.reverse()
        return "{ " + " ,".join(f"{_foreign(k, escape)} : {_foreign(v, escape)}" for k, v in items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_foreign(item, escape) for item in value) + " ]"
    return json.dumps(value)


@given(filters, events, st.data())
def test_a_screen_is_never_wrong_in_saying_no(wanted: Filter, event: Event, draw: st.DataObject) -> None:
    screen = wanted.screen()
    if screen is None:
        return
    line = encode_line(event)
    if wanted.matches(event):
        assert screen(line)
    escaping = draw.draw(st.booleans())
    members = json.loads(line)
    if draw.draw(st.booleans()) and isinstance(members["data"], dict):
        kept = draw.draw(st.sets(st.sampled_from(sorted(members["data"]) or ["none"])))
        members["data"] = {name: value for name, value in members["data"].items() if name in kept}
    spelled = _foreign(members, lambda: draw.draw(st.integers(0, 3)) if escaping else 9).encode()
    read = decode_line(spelled)
    assert isinstance(read, Event)
    if wanted.matches(read):
        assert screen(spelled)


@given(st.data(), st.dictionaries(_names, _values | st.text('aK/*[\n"é', max_size=5), min_size=1))
def test_a_line_that_matches_passes_however_it_is_spelled(draw: st.DataObject, members: dict[str, str]) -> None:
    """The filter is made from the event, so that it matches; then the line is spelled in any way JSON allows."""
    kind = draw.draw(st.sampled_from(["audit", "other"]))
    event = Event.new(kind, AuditEvent(**members) if kind == "audit" else members)
    wanted = EVERYTHING
    for name, value in members.items():
        start, end = sorted((draw.draw(st.integers(0, len(value))), draw.draw(st.integers(0, len(value)))))
        piece = value[start:end]
        texts = {
            "whole": "=" + value,
            "head": value[:end] + "*",
            "tail": "*" + value[start:],
            "class": value[:start] + "[!\x7f]" + value[start + 1 :],
            "grep": "=" + draw.draw(st.sampled_from([piece, piece.upper(), piece.lower()])),
        }
        how = draw.draw(st.sampled_from(sorted(texts)))
        flag = "grep" if how == "grep" else _names_to_flags[name]
        text = texts[how]
        clause = Filter.of(**{flag: [text, *draw.draw(st.sampled_from([[], ["=nobody"]]))]})
        if text != "=" and clause.matches(event):
            wanted &= clause
    line = encode_line(event)
    rate = draw.draw(st.sampled_from([0.0, 0.02, 1.0]))
    random = draw.draw(st.randoms(use_true_random=False))
    spelled = _foreign(json.loads(line), lambda: random.randrange(2) if random.random() < rate else 9).encode()
    read = decode_line(spelled)
    assert isinstance(read, Event)
    assert wanted.matches(read)
    screen = wanted.screen()
    assert screen is None or screen(spelled)
    assert screen is None or screen(line)


@pytest.mark.parametrize(
    ("flags", "data"),
    [
        ({"user": "404"}, b'{"username":404}'),
        ({"user": "true"}, b'{"username":true}'),
        ({"user": "-1"}, b'{"username":-1}'),
        ({"user": "mira"}, b'{"username":"m\\u0069ra"}'),
        ({"route": "/opsml/*"}, b'{"route":"\\/opsml\\/api"}'),
        ({"route": "/x[/]*"}, b'{"route":"/x/y"}'),
        ({"route": "[/]xyz[abc]"}, b'{"route":"/xyza"}'),
        ({"op": "check"}, b'{"operation":"CHEC\xe2\x84\xaa"}'),
        ({"op": "del*"}, b'{"operation":"DELETE"}'),
        ({"grep": "k"}, b'{"metadata":"\xe2\x84\xaa"}'),
        ({"grep": "STRASSE"}, b'{"metadata":"stra\xc3\x9fe"}'),
        ({"grep": "NeedLe"}, b'{"metadata":"nEEDLe"}'),
        ({"ip": "10.0.0.1"}, b'{"client_ip":"::ffff:10.0.0.1"}'),
        ({"ip": "10.0.0.1"}, b'{"client_ip":"::FFFF:a00:1"}'),
        ({"ip": "10.0.0.0/9"}, b'{"client_ip":"10.127.0.1"}'),
        ({"ip": "10.1.2.3/12"}, b'{"client_ip":"10.15.9.9"}'),
        ({"ip": "2001:db8::/32"}, b'{"client_ip":"2001:0DB8:0::1"}'),
        ({"ip": ["10.0.0.1", "2001:db8::1"]}, b'{"client_ip":"2001:db8:0:0::1"}'),
        ({"user": ["mira", "4*"]}, b'{"username":"42"}'),
        ({"user": ["mira", "*"]}, b'{"username":"zoe"}'),
    ],
)
def test_the_traps_of_a_screen(flags: dict[str, Any], data: bytes) -> None:
    head = b'{"specversion":"1.0","id":"1","source":"x","type":"thing","time":"2026-11-23T21:48:59Z","data":'
    line = head + data + b"}"
    event = decode_line(line)
    assert isinstance(event, Event)
    wanted = Filter.of(**flags)
    assert wanted.matches(event)
    screen = wanted.screen()
    assert screen is None or screen(line)


def test_a_payload_that_changes_itself_on_the_way_in_has_no_screen() -> None:
    @event_type("test.filter.changing")
    class Changing(Payload):
        username: str

        def __post_init__(self) -> None:
            msgspec.structs.force_setattr(self, "username", self.username.title())

    line = encode_line(Event.new("test.filter.changing", Changing("mira")))
    event = decode_line(line.replace(b"Mira", b"mira"))
    assert isinstance(event, Event)
    assert Filter.of(user="Mira").matches(event)
    assert Filter.of(user="Mira").screen() is None


def test_a_grep_does_not_reach_from_one_value_into_the_next() -> None:
    event = Event.new("thing", {"a": "left", "b": "right", "c": "x\0"})
    for text in ("leftright", "left\0right", "rightleft", "right\0left", "right\0x", "left\0"):
        assert not Filter.of(grep=text).matches(event)
    assert Filter.of(grep="x\0").matches(event)


def test_a_screen_spares_what_cannot_match() -> None:
    # At a time of its own: a screen looks for `10.` anywhere in the line, also where the second is the tenth.
    event = audit(username="mira", operation="Create", metadata='{"a":"Delete"}').replace(
        time=1_700_000_000_000_000_000
    )
    line = encode_line(event)
    for flags in (
        {"op": "delete"},
        {"op": ["delete", "list"]},
        {"user": "zoe"},
        {"route": "/opsml/api/card/*"},
        {"type": "space_name"},
        {"priority": "high"},
        {"ip": "10.1.2.3"},
        {"ip": "10.0.0.0/8"},
        {"grep": "curl"},
        {"op": "create", "user": "zoe"},
    ):
        screen = Filter.of(**flags).screen()
        assert screen is not None, flags
        assert not screen(line), flags
    either = (Filter.of(op="delete") | Filter.of(user="zoe")).screen()
    assert either is not None
    assert not either(line)


def test_a_filter_that_nothing_passes_spares_every_line() -> None:
    wanted = Filter.of(priority=["high", "^high"])
    assert not wanted.matches(DELETE)
    screen = wanted.screen()
    assert screen is not None
    assert not screen(encode_line(DELETE))


def test_a_screen_lets_every_gap_pass() -> None:
    screen = Filter.of(op="delete").screen()
    assert screen is not None
    assert screen(encode_line(Gap.new(3, None, "lag")))


def test_a_default_that_a_line_leaves_out_is_not_looked_for() -> None:
    line = b'{"specversion":"1.0","id":"1","source":"x","type":"audit","time":"2026-11-23T21:48:59Z","data":{}}'
    event = decode_line(line)
    assert isinstance(event, Event)
    for flags in ({"user": "guest"}, {"op": "write"}, {"grep": "UNKNOWN"}, {"ip": "=unknown"}, {"registry": "model"}):
        assert Filter.of(**flags).matches(event)
        assert Filter.of(**flags).screen() is None


def test_a_type_registered_later_counts_when_a_screen_is_made() -> None:
    wanted = Filter.of(user="from-a-default")
    assert wanted.screen() is not None

    @event_type("test.filter.default")
    class WithDefault(Payload):
        username: str = "from-a-default"

    assert wanted.screen() is None


def test_a_type_whose_annotations_do_not_resolve_only_costs_the_screen() -> None:
    class Local(Enum):
        A = "a"

    @event_type("test.filter.unresolved")
    class Unresolved(Payload):
        status: Local

    assert Filter.of(op="delete").screen() is None
    assert Filter.of(op="delete").matches(DELETE)
    line = encode_line(DELETE).replace(b'"audit"', b'"test.filter.unresolved"')
    event = decode_line(line)
    assert isinstance(event, Event)
    assert not Filter.of(status="denied").matches(event)


def test_what_nothing_can_be_said_about_has_no_screen() -> None:
    for wanted in (EVERYTHING, ~Filter.of(op="delete"), Filter.of(op="^delete"), Filter.of(priority="low"),
                   Filter.of(op="delete") | Filter.of(user="^x"), Filter.of(user="*")):  # fmt: skip
        assert wanted.screen() is None
