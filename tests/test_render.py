"""What reaches a terminal: nothing from data may move its cursor, hide, reorder, or speak Rich's language."""

from __future__ import annotations

import re
import sys
import unicodedata

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.render import Painter, Screen, counted, duration
from cli.terminal import HIDDEN, Notes, safe
from opsml_eventbus import AuditEvent, Event, Gap, Priority
from opsml_eventbus.flow import Record

HOSTILE = [
    "\x1b[2J\x1b[H",  # clear the screen
    "\x1b]0;title\x07",
    "\x1b]52;c;ZXZpbA==\x07",  # the clipboard
    "\x1b]8;;https://evil.example\x07link\x1b]8;;\x07",
    "\x9b2J\x85\x90",  # C1
    "\x00\x07\x08\x7f\r\n\t\v\f",
    "\u202egnp.exe\u2066\u2069\u200f\u061c",  # bidi
    "\u2028\u2029\u200b\ufeff\u00ad",
    "\U000e0041\U000e007f\U000f0000\ue000\uffff\U0010ffff",  # tags, private use, unassigned
    "[/foo][bold red]x[/][link=https://evil.example]y[/link]",
    ":bomb: :smile:",
    "\ud800",
]


def test_every_code_point_of_a_hidden_category_becomes_visible() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        hidden = unicodedata.category(character) in HIDDEN
        assert (safe(character) != character) == hidden, hex(code)
        if hidden:
            assert safe(character).isascii()
            assert safe(character).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202e", "\\u202e"),
        ("\U000e0041", "\\U000e0041"),
        ("é 漢 👍 a\u0301 \u00a0", "é 漢 👍 a\u0301 \u00a0"),
    ],
)
def test_escapes_are_the_ones_people_know(text: str, shown: str) -> None:
    assert safe(text) == shown


def drawn(events: list[Event | Gap], width: int, color: str = "always") -> str:
    screen = Screen(color)
    screen._console.width = width
    screen._cut = True
    painter = Painter()
    return screen.draw(line for event in events for line in painter.paint(Record(event)))


# What our own drawing may send: colours, and newlines.
_OURS = re.compile(r"\x1b\[[0-9;]*m|\n")


def assert_harmless(output: str) -> None:
    for character in _OURS.sub("", output):
        assert unicodedata.category(character) not in HIDDEN, repr(character)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("width", [40, 80, 400])
def test_hostile_text_in_every_place_is_one_harmless_line(text: str, width: int) -> None:
    fields = AuditEvent.__struct_fields__  # type: ignore[attr-defined]
    audit = Event("1", text, "audit", 0, AuditEvent(**dict.fromkeys(fields, text)), Priority.HIGH, text)
    other = Event("2", text, text, 0, {text: text, "n": [text]})
    gap = Gap("3", text, 1, text, text, 0)  # type: ignore[arg-type]
    output = drawn([audit, other, gap], width)
    assert_harmless(output)
    lines = _OURS.sub(lambda match: "\n" if match[0] == "\n" else "", output).splitlines()
    assert len(lines) == 5  # the date, the replay, and one each
    screen = pyte.Screen(width, 10)
    pyte.Stream(screen).feed(output.replace("\n", "\r\n"))
    assert screen.display[0].startswith("── 1970-01-01")
    assert screen.display[1].startswith("── ↻ ")
    assert [line[:12] for line in screen.display[2:5]] == ["00:00:00.000"] * 3
    assert not any(line.strip() for line in screen.display[5:])


@given(st.text(), st.integers(20, 200))
def test_no_text_at_all_can_draw(text: str, width: int) -> None:
    assert_harmless(drawn([Event("1", "opsml", "audit", 0, AuditEvent(username=text, route=text))], width))


def test_markup_and_emoji_codes_are_shown_as_they_are() -> None:
    output = drawn([Event("1", "opsml", "audit", 0, AuditEvent(route="[bold]x[/bold] :bomb: [/no]"))], 200, "never")
    assert "[bold]x[/bold] :bomb: [/no]" in output


def test_claimed_fields_are_marked() -> None:
    output = drawn([Event("1", "opsml", "audit", 0, AuditEvent(username="root", client_ip="10.0.0.1"))], 200, "never")
    assert "~root " in output
    assert " ~10.0.0.1" in output


def test_a_payload_that_does_not_fit_its_type_is_still_shown() -> None:
    from opsml_eventbus.codec import decode_line, encode_line

    line = encode_line(Event("1", "s", "made.up", 0, {"username": 7})).replace(b"made.up", b"audit")
    output = drawn([decode_line(line)], 200, "never")
    assert "does not fit its type: data.username: expected str, got int" in output


@pytest.mark.parametrize(
    ("missed", "words"), [(1, "1 event missing"), (1204, "1,204 events missing"), (None, "unknown number")]
)
def test_a_gap_says_how_many_and_why(missed: int | None, words: str) -> None:
    output = drawn([Gap("1", "s", missed, None, "lag", 0)], 120, "never")
    assert words in output
    assert "this reader was too slow (lag)" in output


def test_the_date_is_shown_once_a_day() -> None:
    day = 86_400 * 10**9
    output = drawn([Event("1", "opsml", "x", time, {}) for time in (0, 1, day, day + 1)], 80, "never")
    assert output.count("UTC") == 2


def test_no_color_means_no_escape_at_all() -> None:
    assert "\x1b" not in drawn([Event("1", "opsml", "audit", 0, AuditEvent(status="Denied"))], 80, "never")


def test_eighty_columns_show_who_did_what_however_long_the_route_is() -> None:
    data = AuditEvent(
        username="support-agent",
        operation="Read",
        route="/opsml/api/v1/skill/pricing/sql-review/1.2.0",
        status="Denied",
    )
    [_day, line] = drawn([Event("1", "opsml", "audit", 0, data)], 80, "never").splitlines()
    assert re.search(r"Denied +Read +.*~support-agent /opsml", line)


def test_notes_and_complaints_are_safe_too(capsys: pytest.CaptureFixture[str]) -> None:
    notes = Notes(color="never")
    for text in HOSTILE[:-1]:
        notes.complain(text, text)
        notes.say(text)
        notes.warn(text)
    assert_harmless(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0 ms"), (4_200_000_000, "4.2 s"), (200 * 10**9, "3 min 20 s"), (7_500 * 10**9, "2 h 5 min")],
)
def test_durations_read_well(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


def test_numbers_are_counted_in_words() -> None:
    assert (counted(1, "event"), counted(0, "event"), counted(1204, "event")) == ("1 event", "0 events", "1,204 events")
