"""What a person types is understood in one way, or refused in one sentence."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import values

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 10, 30, 15, 500_000, tzinfo=timezone(timedelta(hours=1)))  # winter in Berlin
SECOND = 1_000_000_000


def ns(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2s", 2),
        ("10m", 600),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("0s", 0),
        ("1.5h", 5400),
        ("1 hour 30 minutes", 5400),
        ("90 min", 5400),
        ("1d", 86_400),
        ("2w", 1_209_600),
        ("250us", 0.00025),
        ("250µs", 0.00025),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert values.duration_ns(text) == round(seconds * SECOND)
    assert values.duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "5", "1.5", "-2s", "2", "s", "2x", "2M", "30m1h", "1m1m", "1h x", "1e3s", "999999999d", "٢s", "1" * 99],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        values.duration_ns(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("512B", 512),
        ("40kB", 40_000),
        ("40 KB", 40_000),
        ("100MB", 100_000_000),
        ("100M", 100_000_000),
        ("1GiB", 1 << 30),
        ("1.5kB", 1_500),
        ("2TB", 2 * 10**12),
    ],
)
def test_sizes(text: str, number: int) -> None:
    assert values.size(text) == number


@pytest.mark.parametrize("text", ["", "40", "MB", "-1MB", "1XB", "1 M B", "0x10B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        values.size(text)


def test_speeds_and_rates() -> None:
    assert values.speed("2x") == 2
    assert values.speed("0.5x") == 0.5
    assert values.speed("max") == math.inf
    assert values.rate("50/s") == 50
    assert values.rate("30/m") == 0.5
    assert values.rate("3.6/hour") == pytest.approx(0.001)


@pytest.mark.parametrize("text", ["", "2", "x", "0x", "-1x", "fast", "infx", "nanx", "0.0x"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        values.speed(text)


@pytest.mark.parametrize("text", ["", "50", "/s", "0/s", "-1/s", "50/parsec", "50 s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        values.rate(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", "2026-11-24 10:30:15+01:00"),
        ("10m", "2026-11-24 10:20:15+01:00"),
        ("-3h", "2026-11-24 07:30:15+01:00"),
        ("+10m", "2026-11-24 10:40:15+01:00"),
        ("1h30m", "2026-11-24 09:00:15+01:00"),
        ("2 hours ago", "2026-11-24 08:30:15+01:00"),
        ("1h 30m ago", "2026-11-24 09:00:15+01:00"),
        ("an hour ago", "2026-11-24 09:30:15+01:00"),
        ("A week ago", "2026-11-17 10:30:15+01:00"),
    ],
)
def test_a_distance_from_now(text: str, meant: str) -> None:
    assert values.moment(text, NOW, BERLIN) == ns(meant) + SECOND // 2


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("today", "2026-11-24 00:00:00+01:00"),
        ("Yesterday", "2026-11-23 00:00:00+01:00"),
        ("yesterday 23:59", "2026-11-23 23:59:00+01:00"),
        ("10:15", "2026-11-24 10:15:00+01:00"),
        ("9:05:07", "2026-11-24 09:05:07+01:00"),
        ("2026-11-24", "2026-11-24 00:00:00+01:00"),
        ("2026-11-24 09:00", "2026-11-24 09:00:00+01:00"),
        ("2026-11-24T09:00", "2026-11-24 09:00:00+01:00"),
        ("2026-11-24T09:00Z", "2026-11-24 09:00:00+00:00"),
        ("2026-11-24t09:00:30z", "2026-11-24 09:00:30+00:00"),
        ("2026-11-24 09:00:30 -05:30", "2026-11-24 09:00:30-05:30"),
        ("2026-07-01", "2026-07-01 00:00:00+02:00"),  # that day's offset, not today's
        ("1969-12-31T23:59:59Z", "1969-12-31 23:59:59+00:00"),
    ],
)
def test_a_place_in_time(text: str, meant: str) -> None:
    assert values.moment(text, NOW, BERLIN) == ns(meant)


def test_nine_digits_are_kept() -> None:
    assert values.moment("2026-11-23T21:48:59.747576123Z", NOW) == ns("2026-11-23 21:48:59+00:00") + 747_576_123


def test_without_a_zone_it_is_this_machines() -> None:
    here = datetime(2026, 7, 1, 9, 0).astimezone()
    assert values.moment("2026-07-01 09:00", NOW) == round(here.timestamp()) * SECOND


def test_today_is_the_day_it_is_in_the_zone() -> None:
    late = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)  # already the 24th in Berlin
    assert values.moment("today", late, BERLIN) == ns("2026-11-24 00:00:00+01:00")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "5", "-5", "2026", "1.5", "03/04/2026", "3/4/26", "24.11.2026", "soon", "ago", "10:60", "24:00",
        "25:00", "2026-13-01", "2026-02-30", "2026-11-24T09", "2026-11-24T25:00Z", "2026-11-24T09:00+25:00",
        "2026-11-24T09:00+09:99", "10:15 today", "yesterday yesterday", "5 apples", "-10 minutes ago ago", "٠٩:٠٠",
        "20261124T090000Z", "9" * 65,
    ],
)  # fmt: skip
def test_what_can_be_read_in_no_way_or_in_two_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        values.moment(text, NOW, BERLIN)


def test_a_refusal_says_what_to_write_instead() -> None:
    with pytest.raises(ValueError, match="5m or 5h ago"):
        values.moment("5", NOW)
    with pytest.raises(ValueError, match="years 1 to 9999"):
        values.moment("9999-12-31T23:59:59-05:00", NOW)
    with pytest.raises(ValueError, match="years 1 to 9999"):
        values.moment("0001-01-01T00:00+05:00", NOW)
    with pytest.raises(ValueError, match=r"two ways.*2026-11-24"):
        values.moment("03/04/2026", NOW)


@given(st.integers(-62_135_596_800 * SECOND, 253_402_300_800 * SECOND - 1))
def test_a_moment_that_is_echoed_is_read_back_the_same(moment: int) -> None:
    for zone in (UTC, BERLIN):
        assert values.moment(values.format_moment(moment, zone), NOW, zone) == moment


@given(st.text(alphabet="0123456789:-+/.TZ hmsdagotyer", max_size=30))
def test_any_text_is_a_moment_or_one_sentence(text: str) -> None:
    try:
        moment = values.moment(text, NOW, BERLIN)
    except ValueError as error:
        said = str(error)
    else:
        said = values.format_moment(moment, BERLIN)
    assert said
    assert "\n" not in said
