"""What a person types, as numbers: durations, sizes, moments, speeds, rates.

A number without a unit and a date that two countries read differently are refused, never guessed. Every parser raises
ValueError with one sentence that says what could have been written. Moments and durations are integers in
nanoseconds; a moment without an offset is in `zone`, None being this machine's own time zone.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal

MAX_TEXT = 64  # characters; the longest date-time has 35
LONGEST = timedelta(days=36_525)  # a hundred years: longer is a slip, and a timer could not hold it

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000_000
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3_600 * _SECOND,
    "d": 86_400 * _SECOND,
    "w": 604_800 * _SECOND,
}
_UNIT_NAMES = {
    "µs": "us", "μs": "us",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "day": "d", "days": "d",
    "week": "w", "weeks": "w",
}  # fmt: skip
_SIZES = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip

_FIRST, _LAST = -62_135_596_800 * _SECOND, 253_402_300_800 * _SECOND - 1  # the years 1 to 9999, in UTC
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PART = re.compile(rf"\s*({_NUMBER})\s*([a-zµμ]+)")
_SIZE = re.compile(rf"({_NUMBER})\s*([kmgt]i?)?(b)?", re.IGNORECASE)
_SPEED = re.compile(rf"({_NUMBER})[x×]")
_RATE = re.compile(rf"({_NUMBER})\s*/\s*([a-z]+)")
_AGO = re.compile(r"(?:(an?)\s+([a-z]+)|(.+?))\s+ago")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_OFFSET = re.compile(r"(.*[0-9])\s*(?:([zZ])|([+-])([0-9]{2}):([0-9]{2}))")


# ── durations, sizes ─────────────────────────────────────────────────────────────────────────────────────────────


def duration_ns(text: str) -> int:
    """`2s`, `10m`, `1h30m`, `500ms`, `1.5 hours` as nanoseconds."""
    _check(text)
    if _is_number(text):
        raise ValueError(f"{text!r} has no unit: write {text}s, {text}m or {text}h")
    total, smallest, place = Decimal(0), math.inf, 0
    body = text.strip()
    while place < len(body):
        part = _PART.match(body, place)
        unit = _unit(part[2]) if part else None
        if part is None or unit is None or unit >= smallest:
            raise ValueError(f"{text!r} is no duration such as 500ms, 2s, 10m or 1h30m")
        total += Decimal(part[1]) * unit
        smallest, place = unit, part.end()
    if not place or total > LONGEST.days * _UNITS["d"]:
        raise ValueError(f"{text!r} is no duration of at most a hundred years, such as 2s, 10m or 1h30m")
    return int(total)


def duration(text: str) -> float:
    """As `duration_ns`, in seconds."""
    return duration_ns(text) / _SECOND


def size(text: str) -> int:
    """`512B`, `40kB`, `100MB`, `1GiB` as bytes; k, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024."""
    _check(text)
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size such as 40kB, 100MB or 1GiB")
    if not match[2] and not match[3]:
        raise ValueError(f"{text!r} has no unit: write {text}B, {text}kB or {text}MB")
    return int(Decimal(match[1]) * _SIZES[(match[2] or "").lower()])


# ── how fast ─────────────────────────────────────────────────────────────────────────────────────────────────────


def speed(text: str) -> float:
    """`2x`, `0.5x`, `max` (infinite): how many times faster than recorded."""
    _check(text)
    if text.strip() == "max":
        return math.inf
    match = _SPEED.fullmatch(text.strip())
    if match is None or not float(match[1]) > 0:
        raise ValueError(f"{text!r} is no speed such as 2x, 0.5x or max")
    return float(match[1])


def rate(text: str) -> float:
    """`50/s`, `10/m`, `3/h` as events per second."""
    _check(text)
    if _is_number(text):
        raise ValueError(f"{text!r} has no unit: write {text}/s or {text}/m")
    match = _RATE.fullmatch(text.strip())
    unit = _unit(match[2]) if match else None
    if match is None or unit is None or not float(match[1]) > 0:
        raise ValueError(f"{text!r} is no rate such as 50/s or 10/m")
    return float(match[1]) * _SECOND / unit


# ── moments ──────────────────────────────────────────────────────────────────────────────────────────────────────


def moment(text: str, now: datetime, zone: tzinfo | None = None) -> int:
    """A moment, in nanoseconds since the epoch.

    `10m`, `-3h`, `2 hours ago`: before `now`; `+10m`: after it. `10:15`: today. `today`, `yesterday`: their midnight,
    or `yesterday 10:15`. `2026-11-24`, `2026-11-24T09:00`, and any RFC 3339 date-time.
    now: with a time zone, which only says which moment it is.
    """
    _check(text)
    body = text.strip()
    if _is_number(body.lstrip("+-")):
        bare = body.lstrip("+-")
        raise ValueError(f"{text!r} has no unit: write {bare}m or {bare}h ago, or a time such as 10:15")
    if re.search(r"[0-9]\s*[/.]\s*[0-9]+\s*[/.]\s*[0-9]", body):
        raise ValueError(f"{text!r} can be read in two ways: write the date as 2026-11-24")
    found = _relative(body.lower(), now)
    if found is None:
        found = _absolute(body, now, zone)
    if not _FIRST <= found <= _LAST:
        raise ValueError(f"{text!r} is outside the years 1 to 9999")
    return found


def format_moment(moment: int, zone: tzinfo | None = None) -> str:
    """A moment in `zone`, as `moment()` reads it again."""
    second, fraction = divmod(moment, _SECOND)
    at = _EPOCH + timedelta(seconds=second)
    with suppress(OverflowError, ValueError):  # the first and the last day exist in UTC only
        local = at.astimezone(zone)
        # RFC 3339 has no offsets such as +00:53:28, which zones had in the nineteenth century.
        if (local.utcoffset() or timedelta(0)).seconds % 60 == 0:
            at = local
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    written = at.isoformat(" ")
    return f"{written[:19]}{digits}{written[19:]}"


def _relative(body: str, now: datetime) -> int | None:
    """A distance from now, or None where it is not written as one."""
    if body == "now":
        return _since_epoch(now)
    ago = _AGO.fullmatch(body)
    if ago:
        distance = duration_ns(f"1{ago[2]}" if ago[1] else ago[3])
    elif _PART.match(body.lstrip("+-")):
        distance = duration_ns(body.lstrip("+-"))
    else:
        return None
    if not ago and body.startswith("+"):
        distance = -distance
    return _since_epoch(now) - distance


def _absolute(body: str, now: datetime, zone: tzinfo | None) -> int:
    mistake = ValueError(f"{body!r} is no time such as 10m, '2 hours ago', yesterday, 10:15 or 2026-11-24T09:00Z")
    offset = _OFFSET.fullmatch(body)
    if offset and _DATE.match(body):
        body = offset[1]
        zone = UTC
        if not offset[2]:
            hours, minutes = int(offset[4]), int(offset[5])
            if hours > 23 or minutes > 59:
                raise mistake
            sign = -1 if offset[3] == "-" else 1
            zone = timezone(sign * timedelta(hours=hours, minutes=minutes))
    day, _, clock = body.replace("T", " ").replace("t", " ", 1 if _DATE.match(body) else 0).partition(" ")
    return _at(day, clock.strip(), now, zone, mistake)


def _at(day: str, clock: str, now: datetime, zone: tzinfo | None, mistake: ValueError) -> int:
    today = now.astimezone(zone).date()
    if _CLOCK.fullmatch(day) and not clock:
        day, clock = "today", day
    written = _DATE.fullmatch(day)
    hours = _CLOCK.fullmatch(clock or "00:00")
    try:
        if written:
            when = date(int(written[1]), int(written[2]), int(written[3]))
        else:
            when = {"today": today, "yesterday": today - timedelta(days=1)}[day.lower()]
        if hours is None:
            raise mistake
        at = datetime.combine(when, time(int(hours[1]), int(hours[2]), int(hours[3] or 0)), zone)
    except (KeyError, ValueError):
        raise mistake from None
    fraction = int((hours[4] or "").ljust(9, "0"))
    try:
        # Without a zone, the offset is the one that this machine's zone has on that day, not today's.
        return _since_epoch(at if zone else at.astimezone()) + fraction
    except (OverflowError, ValueError, OSError):
        return _since_epoch(at.replace(tzinfo=UTC)) + fraction  # a day no zone reaches


def _since_epoch(moment: datetime) -> int:
    distance = moment - _EPOCH
    return (distance.days * 86_400 + distance.seconds) * _SECOND + distance.microseconds * 1_000


# ── shared ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _unit(name: str) -> int | None:
    return _UNITS.get(_UNIT_NAMES.get(name, name))


def _is_number(text: str) -> bool:
    return re.fullmatch(_NUMBER, text.strip()) is not None


def _check(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise ValueError(f"{text[:MAX_TEXT]!r}… is too long")
