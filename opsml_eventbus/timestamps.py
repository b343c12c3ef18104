"""Times as text: nanoseconds since the Unix epoch (UTC) ⇄ RFC 3339.

Ours is always `2026-11-23T21:48:59.123456789Z`, thirty characters, so that texts are ordered as the times are. What is
read may have any offset and any number of digits. Both directions remember the seconds they have met: a log's events
share theirs with their neighbours.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from .errors import InvalidEvent, Unencodable

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive on both sides, UTC by construction
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)

_REMEMBERED = 4096  # seconds, in each direction
_texts: dict[str, str] = {}  # the digits of a second since the epoch → `2026-11-23T21:48:59`
_seconds: dict[str, int] = {}  # and back


def format_time(time: int) -> str:
    """Nanoseconds since the epoch as RFC 3339, nine digits, `Z`. Raises Unencodable outside the years 1 to 9999."""
    digits = str(time)  # the last nine are the fraction: cheaper than dividing and padding
    try:
        return f"{_texts[digits[:-9]]}.{digits[-9:]}Z"
    except KeyError:
        pass
    second, fraction = divmod(time, 1_000_000_000)
    text = _second_text(second)
    if second > 0:
        if len(_texts) >= _REMEMBERED:
            _texts.clear()
        _texts[digits[:-9]] = text
    return f"{text}.{fraction:09d}Z"


def parse_time(text: str) -> int:
    """RFC 3339, any offset, any number of digits, as nanoseconds since the epoch. Raises InvalidEvent."""
    second = _seconds.get(text[:19])
    if second is not None and len(text) == 30 and text[29] == "Z" and text[19] == "." and text.isascii():
        fraction = text[20:29]
        if fraction.isdecimal():
            return second * 1_000_000_000 + int(fraction)
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise InvalidEvent(f"{text[:64]!r} is no RFC 3339 time", "time")
    date, clock, fraction, offset = match.groups()
    second = _second_number(f"{date}T{clock}")
    if offset not in ("Z", "z"):
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if hours > 23 or minutes > 59:
            raise InvalidEvent(f"{offset!r} is no offset", "time")
        distance = hours * 3600 + minutes * 60
        second += distance if offset[0] == "-" else -distance
    elif len(_seconds) < _REMEMBERED and second <= _LAST_SECOND:
        _seconds[f"{date}T{clock}"] = second
    else:
        _seconds.clear()
    if not _FIRST_SECOND <= second <= _LAST_SECOND:  # by its offset, or by a leap second
        raise InvalidEvent(f"{text[:64]!r} is outside the years 1 to 9999", "time")
    return second * 1_000_000_000 + int((fraction or "")[:9].ljust(9, "0"))


def _second_text(second: int) -> str:
    try:
        moment = _EPOCH + timedelta(seconds=second)
    except OverflowError:
        raise Unencodable("a time outside the years 1 to 9999", "time") from None
    return moment.isoformat(timespec="seconds")


def _second_number(text: str) -> int:
    try:
        # RFC 3339 allows a leap second; POSIX time has none: it is the second after :59.
        leap = 1 if text.endswith(":60") else 0
        moment = datetime.strptime(f"{text[:-2]}59" if leap else text, "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007
    except ValueError:
        raise InvalidEvent(f"{text[:64]!r} is no date and time", "time") from None
    distance = moment - _EPOCH
    return distance.days * 86_400 + distance.seconds + leap
