"""When a recorded event is due in a replay. Pure: times go in, times come out; whoever waits brings the clock.

    due = anchor + (greatest time so far − first time) / speed

One anchor, never summed sleeps: a replay that was held up catches up, and does not drift. An event whose time runs
backwards is due at once and stretches nothing. A rate spaces events evenly; a largest gap shortens the idle stretches.
All times are integers in nanoseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """How a replay went. planned, taken: ns from the first event to the last, as asked for and as it was.

    late: ns by which the last event missed its time.
    """

    events: int
    planned: int
    taken: int
    late: int

    @property
    def requested_rate(self) -> float | None:
        """Events per second as asked for; None where all were due at once."""
        return _rate(self.events, self.planned)

    @property
    def actual_rate(self) -> float | None:
        """Events per second as it was; None where no time passed."""
        return _rate(self.events, self.taken)


class Pacer:
    """Says when each event of a replay is due. Ask once for every event, in the order of the recording.

    speed: how many times faster than recorded, `math.inf` for as fast as possible. None: as recorded, or as fast as
        `rate` allows where one is given.
    rate: events per second at most, evenly spaced. max_gap: ns; no pause is planned longer than this.

    Raises ValueError: a speed or rate that is not above zero, a negative gap.
    """

    def __init__(self, speed: float | None = None, rate: float | None = None, max_gap: int | None = None) -> None:
        if speed is None:
            speed = 1.0 if rate is None else math.inf
        if not speed > 0:
            raise ValueError(f"a speed is above zero, not {speed}")
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"a rate is above zero, not {rate}")
        if max_gap is not None and max_gap < 0:
            raise ValueError("a largest gap is not negative")
        self.speed = speed
        self.rate = rate
        self.max_gap = max_gap
        self.events = 0
        self.backwards = 0  # events whose time was before one that came earlier
        self._anchor = 0  # when the first event was due
        self._due = 0
        self._origin = 0  # the clock time that belongs to the time `_first`: the anchor, less the idle time cut out
        self._first = 0
        self._greatest: int | None = None
        self._spaced_from = 0  # the rate counts from here; moved where the recording itself was slower
        self._spaced = 0

    def due(self, event_time: int, now: int) -> int:
        """When an event recorded at `event_time` is due, on the clock that gave `now`; in the past when it is late.

        The first event is due now. `now` is not looked at again, unless the recording starts anew.
        """
        if self._greatest is None:
            self._start(event_time, now)
        elif event_time > self._greatest:
            self._advance(event_time)
        else:
            self.backwards += event_time < self._greatest
        due = self._origin
        if self.speed != math.inf:
            assert self._greatest is not None
            due += int((self._greatest - self._first) / self.speed)
        if self.rate is not None:
            due = self._space(due, self.rate)
        self.events += 1
        self._due = due
        return due

    def rewind(self) -> None:
        """The recording starts anew (`--loop`): the next event is due as the first one was, when it is asked for."""
        self._greatest = None

    @property
    def planned(self) -> int:
        """ns from the first event to the last one asked about. With `now` = 0 throughout, what a dry run says."""
        return self._due - self._anchor if self.events else 0

    def pace(self, now: int) -> Pace:
        """How it went, the last event having gone out at `now`."""
        return Pace(self.events, self.planned, now - self._anchor if self.events else 0, max(now - self._due, 0))

    def _start(self, event_time: int, now: int) -> None:
        if self.events == 0:
            self._anchor = self._due = self._spaced_from = now
        # A dry run has no clock: a further round begins where the last one ended.
        self._origin = max(now, self._due)
        self._first = self._greatest = event_time

    def _advance(self, event_time: int) -> None:
        assert self._greatest is not None
        if self.max_gap is not None and self.speed != math.inf:
            pause = int((event_time - self._greatest) / self.speed)
            if pause > self.max_gap:
                self._origin -= pause - self.max_gap
        self._greatest = event_time

    def _space(self, due: int, rate: float) -> int:
        spaced = self._spaced_from + int(self._spaced * SECOND / rate)
        if due > spaced:
            self._spaced_from, self._spaced, spaced = due, 0, due
        self._spaced += 1
        return spaced


def _rate(events: int, duration: int) -> float | None:
    # The first event starts the clock: n events have n - 1 intervals.
    return (events - 1) * SECOND / duration if events > 1 and duration > 0 else None
