"""What a bus remembers, and where a reader stands in it. Pure: no asyncio, no clock but the one that stamps a Gap.

A Ring keeps the last `capacity` events of each priority, each priority in a lane of its own, so that a flood of one
cannot push out another. A lane is a list that is only ever appended to and cut at its front; an event's position is
its place in that list since the beginning of the bus. A Cursor is one position per lane.

NORMAL is the main lane. It is appended to without a lock, from any thread: *the append is the publication*. What must
happen now and then (waking readers, cutting the front, refusing an event that has no place) waits for the bell, an
iterator with as many steps as appends may still pass unnoticed. Every append is followed by one step; whoever finds
no step left has been rung. Stepping costs half of what comparing the list's length does, and arming the bell, so that
it rings at the very next append, is putting an empty iterator in its place.
Everything else here is called with the hub's lock held.

- `limit`: the position up to which events are published. A lossless reader and the end of the bus set it. An append
  beyond it has not happened for any reader; whoever made it is rung, takes it back and says so.
- The other lanes come into being when they are first used; until then a bus pays nothing for them. They are appended
  to under the lock, each event with a stamp: where the main lane ended then, and a running number. Stamps put all
  lanes back into the order of publication; the main lane needs none.
- Gaps passed on from upstream are a lane too, so that they keep their place in the order and cost no event its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Literal

from .event import Event, Gap, Priority

Order = Literal["priority", "published"]
Stamp = tuple[int, int]

NEVER = sys.maxsize
CRITICAL, HIGH, LOW, GAPS = range(4)  # the side lanes, the urgent ones first
SIDE = {Priority.CRITICAL: CRITICAL, Priority.HIGH: HIGH, Priority.LOW: LOW}
PRIORITIES = {index: priority for priority, index in SIDE.items()}
LAST: Stamp = (NEVER, 0)
_RUNG: Iterator[None] = iter(())


class Lane:
    """The last events of one priority. `items[i]` has the position `base + i`."""

    __slots__ = ("base", "items", "stamps")

    def __init__(self) -> None:
        self.base = 0
        self.items: list[Event | Gap] = []
        self.stamps: list[Stamp] = []  # as long as `items`; empty in the main lane

    @property
    def head(self) -> int:
        """The position of the next event."""
        return self.base + len(self.items)

    def cut(self, count: int) -> list[Event | Gap]:
        """Forget the oldest `count`; they are handed back, to be let go when nothing is locked.

        (A finaliser of theirs may publish. It must find the books in order.)
        """
        old = self.items[:count]
        del self.items[:count]
        del self.stamps[:count]
        self.base += count
        return old


class Ring:
    """Lanes of `capacity` events each (exactly, as readers see it; the lists are cut half a capacity late)."""

    __slots__ = ("bell", "capacity", "limit", "main", "most", "side_published", "sides", "source")

    def __init__(self, capacity: int, source: str) -> None:
        self.capacity = capacity
        self.source = source  # of the Gaps made here
        # Cutting moves `capacity` pointers; half as many appends share its price.
        self.most = capacity + max(64, capacity // 2)
        self.main = Lane()
        self.sides: list[Lane] = []
        self.side_published = 0  # events and Gaps ever put into side lanes: says whether one is new
        self.limit = NEVER
        self.bell = _RUNG
        self.set_bell()

    @property
    def end(self) -> int:
        """The position after the last published event of the main lane."""
        main = self.main
        head = main.base + len(main.items)
        return min(self.limit, head)

    @property
    def overfull(self) -> bool:
        """Does an append stand beyond the limit?"""
        return self.main.head > self.limit

    def arm(self) -> None:
        """Ring at the next append."""
        self.bell = _RUNG

    def set_bell(self, target: int = NEVER) -> None:
        """Ring when the list must be cut, when the limit is passed, or when the main lane has reached `target`."""
        # Armed while the steps are counted: an append in between rings once too often, never once too seldom.
        self.bell = _RUNG
        quiet = self.most - len(self.main.items)
        if self.limit is not NEVER or target is not NEVER:
            quiet = min(quiet, min(self.limit, target - 1) - self.main.head)
        if quiet > 0:
            self.bell = repeat(None, quiet)

    def cut(self) -> list[Event | Gap]:
        """Bring the main lane back to its capacity once it is longer than `most`; what was cut is handed back."""
        main = self.main
        if len(main.items) <= self.most:
            return []
        return main.cut(max(self.end - main.base - self.capacity, 0))

    def take_back(self, event: Event) -> bool:
        """Remove an event that was appended beyond the limit. False: it is within, so it is published."""
        items = self.main.items
        for index in range(max(self.limit - self.main.base, 0), len(items)):
            if items[index] is event:
                del items[index]
                return True
        return False

    def take_all_back(self, events: list[Event]) -> bool:
        """Remove a run that was appended while the lock is held, when a part of it is beyond the limit."""
        first = max(self.limit - self.main.base, 0)
        ours = {id(event) for event in events if event.priority is Priority.NORMAL}
        if not any(id(item) in ours for item in self.main.items[first:]):
            return False
        for event in reversed(events):
            if event.priority is Priority.NORMAL:
                items = self.main.items
                del items[next(index for index in range(len(items) - 1, -1, -1) if items[index] is event)]
            else:
                lane = self.sides[SIDE[event.priority]]
                del lane.items[-1:], lane.stamps[-1:]
        return True

    def split(self) -> None:
        """Begin the side lanes."""
        self.sides = [Lane(), Lane(), Lane(), Lane()]

    def put_aside(self, item: Event | Gap, index: int) -> list[Event | Gap]:
        """Append to a side lane. Returns what was cut from it."""
        lane = self.sides[index]
        lane.stamps.append((self.end, self.side_published))
        lane.items.append(item)
        self.side_published += 1
        return lane.cut(len(lane.items) - self.capacity) if len(lane.items) > self.most else []

    def heads(self) -> dict[Priority, int]:
        """Events ever published, by priority."""
        heads = dict.fromkeys(Priority, 0)
        heads[Priority.NORMAL] = self.end
        for index, lane in enumerate(self.sides[:GAPS]):
            heads[PRIORITIES[index]] = lane.head
        return heads


class Cursor:
    """Where one reader stands in every lane, and what it has not seen.

    passed: events it has gone past, taken or missed. missed: those that were gone before it came.
    lossless: the ring waits for it. (A publisher that was overtaken may have put one event too many; it is kept.)
    """

    __slots__ = ("at", "high_water", "last", "missed", "order", "passed", "patience", "ring", "side", "sides_seen")

    def __init__(self, ring: Ring, order: Order, *, lossless: bool = False) -> None:
        self.ring = ring
        self.order = order
        self.patience = NEVER if lossless else ring.capacity  # events it may be behind
        self.at = ring.end
        self.side = [lane.head for lane in ring.sides]
        self.sides_seen = ring.side_published  # as it was when something was last taken
        self.passed = 0
        self.missed = 0
        self.high_water = 0
        self.last: Event | None = None

    # ── how far behind ───────────────────────────────────────────────────────────────────────────────────────────

    def unread(self) -> int:
        """Events published and not yet gone past, those already lost included."""
        self._see_sides()
        behind = self.ring.end - self.at
        for index, lane in enumerate(self.ring.sides[:GAPS]):
            behind += lane.head - self.side[index]
        return behind

    def ready(self) -> bool:
        """Is there anything to take?"""
        if self.ring.end > self.at:
            return True
        if not self.ring.sides:
            return False
        self._see_sides()
        return any(lane.head > self.side[index] for index, lane in enumerate(self.ring.sides))

    def lagging(self) -> bool:
        """Has an event been lost that `take` has not yet reported?"""
        patience = self.patience
        self._see_sides()
        return self.ring.end - self.at > patience or any(
            lane.head - self.side[index] > patience for index, lane in enumerate(self.ring.sides[:GAPS])
        )

    def oldest(self) -> Event | None:
        """The unread event that has waited longest in its lane."""
        ring, capacity = self.ring, self.ring.capacity
        self._see_sides()
        lanes = [(ring.main, self.at, ring.end)]
        lanes += [(lane, self.side[index], lane.head) for index, lane in enumerate(ring.sides[:GAPS])]
        waiting = [lane.items[max(at, end - capacity) - lane.base] for lane, at, end in lanes if end > at]
        events = [item for item in waiting if isinstance(item, Event)]
        return min(events, key=lambda event: event.time, default=None)

    def abandon(self) -> None:
        """Go to the end. What was unread is missed."""
        unread = self.unread()
        self.passed += unread
        self.missed += unread
        self.at = self.ring.end
        self.side = [lane.head for lane in self.ring.sides]

    # ── taking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, size: int) -> list[Event] | Gap | None:
        """The next events, at most `size`; or the Gap that stands before them; or None when there is nothing."""
        ring = self.ring
        main, at = ring.main, self.at
        end = main.base + len(main.items)  # once: the main lane may grow meanwhile
        if end > ring.limit:
            end = ring.limit
        if ring.sides:
            return self._take_mixed(end, size)
        behind = end - at
        if not 0 < behind <= self.patience:
            return self._take_main(end, end, size)
        # What _take_main would do, without the call: a reader comes by here for every slice.
        if behind > self.high_water:
            self.high_water = behind
        count = size if size < behind else behind  # noqa: FURB136 - `min` costs as much as half of this function
        first = at - main.base
        events: list[Event] = main.items[first : first + count]  # type: ignore[assignment]  # no Gap among them
        self.at = at + count
        self.passed += count
        self.last = events[-1]
        return events

    def _take_mixed(self, end: int, size: int) -> list[Event] | Gap | None:
        self._see_sides()
        self.sides_seen = self.ring.side_published
        if self.order == "published":
            return self._take_in_order(end, size)
        stop = min(end, self._stamp(GAPS)[0])
        found = self._take_side(CRITICAL, size) or self._take_side(HIGH, size)
        if found is None and stop <= self.at:
            found = self._take_gap()
        return found or self._take_main(end, stop, size) or self._take_side(LOW, size)

    def take_above(self, priority: Priority, size: int) -> list[Event] | Gap | None:
        """The next events of more than this priority, as `take`."""
        end = self.ring.end
        self._see_sides()
        self.sides_seen = self.ring.side_published
        found: list[Event] | Gap | None = None
        if self.ring.sides and priority < Priority.CRITICAL:
            found = self._take_side(CRITICAL, size)
        if self.ring.sides and found is None and priority < Priority.HIGH:
            found = self._take_side(HIGH, size)
        if found is None and priority < Priority.NORMAL:
            found = self._take_main(end, min(end, self._stamp(GAPS)[0]), size)
        return found

    def _take_main(self, end: int, stop: int, size: int) -> list[Event] | Gap | None:
        at = self.at
        behind = end - at
        if behind > self.patience:
            lost = behind - self.patience
            self.at += lost
            return self._lose(lost)
        if behind > self.high_water:
            self.high_water = behind
        count = stop - at
        if count <= 0:
            return None
        if count > size:
            count = size
        main = self.ring.main
        first = at - main.base
        events: list[Event] = main.items[first : first + count]  # type: ignore[assignment]  # no Gap among them
        self.at = at + count
        self.passed += count
        self.last = events[-1]
        return events

    def _take_side(self, index: int, size: int) -> list[Event] | Gap | None:
        lane, at = self.ring.sides[index], self.side[index]
        behind = lane.head - at
        if behind > self.patience:
            lost = behind - self.patience
            self.side[index] += lost
            return self._lose(lost)
        if behind > self.high_water:
            self.high_water = behind
        if behind <= 0:
            return None
        first = at - lane.base
        events: list[Event] = lane.items[first : first + size]  # type: ignore[assignment]  # no Gap among them
        self.side[index] += len(events)
        self.passed += len(events)
        self.last = events[-1]
        return events

    def _take_gap(self) -> Gap | None:
        lane, at = self.ring.sides[GAPS], self.side[GAPS]
        if at >= lane.head:
            return None
        if at < lane.base:  # even Gaps may flood; one stands for those that are gone
            self.side[GAPS] = lane.base
            return Gap.new(None, self._last_id(), "source", source=self.ring.source)
        self.side[GAPS] += 1
        gap = lane.items[at - lane.base]
        assert isinstance(gap, Gap)
        return gap

    def _take_in_order(self, end: int, size: int) -> list[Event] | Gap | None:
        for index, lane in enumerate(self.ring.sides[:GAPS]):
            lost = lane.head - self.side[index] - self.patience
            if lost > 0:
                self.side[index] += lost
                return self._lose(lost)
        taken: list[Event] = []
        while len(taken) < size:
            stamp, index = min((self._stamp(index), index) for index in (CRITICAL, HIGH, LOW, GAPS))
            found = self._take_main(end, min(end, stamp[0]), size - len(taken))
            if isinstance(found, Gap):
                return found  # only ever the first: all lag was there at the beginning
            if found:
                taken += found
            if stamp is LAST:
                break
            if self.at < stamp[0] or len(taken) == size:
                continue
            if index == GAPS:  # stands alone
                return taken or self._take_gap()
            side = self._take_side(index, 1)
            assert isinstance(side, list)
            taken += side
        return taken or None

    def _stamp(self, index: int) -> Stamp:
        """The stamp of the next unread item of a side lane."""
        if not self.ring.sides:
            return LAST
        lane = self.ring.sides[index]
        place = max(self.side[index] - lane.base, 0)
        return lane.stamps[place] if place < len(lane.stamps) else LAST

    def _see_sides(self) -> None:
        if len(self.side) != len(self.ring.sides):
            self.side = [0, 0, 0, 0]  # they began after this cursor did

    def _last_id(self) -> str | None:
        return self.last.id if self.last is not None else None

    def _lose(self, count: int) -> Gap:
        self.passed += count
        self.missed += count
        return Gap.new(count, self._last_id(), "lag", source=self.ring.source)

    # ── beginning in the past ────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> Gap | None:
        """Go back to where the bus began. What the lanes no longer hold is lag, and counted as that.

        A lossless cursor has no lag from then on; for it the Gap that comes first is returned.
        """
        self.at = 0
        self.side = [0] * len(self.side)
        if self.patience is not NEVER:
            return None
        ever = self.unread()
        self.rewind()
        lost = ever - self.unread()
        return self._lose(lost) if lost else None

    def rewind(self) -> None:
        """Go back to the oldest event of every lane."""
        capacity = self.ring.capacity
        self.at = max(self.ring.main.base, self.ring.end - capacity)
        self.side = [max(lane.base, lane.head - capacity) for lane in self.ring.sides]

    def seek(self, found: Callable[[list[Event]], int | None]) -> bool:
        """Go back, then stop after the last event that `found` points at, in order of publication.

        found: given a run of events, the index of the last one looked for, or None.
        False when there was none; then the cursor is at the beginning.
        """
        self.rewind()
        best: tuple[Cursor, Event] | None = None
        for start, events in self._runs():
            index = found(events)
            if index is not None:
                # The main lane grows meanwhile, and what was found may just have gone: then it is not found.
                gone = isinstance(start.take(index + 1), Gap)
                best = None if gone else (start, events[index])
        if best is None:
            return False
        place, self.last = best
        self.at, self.side = place.at, place.side
        return True

    def keep_last(self, count: int, where: Callable[[Event], bool] | None) -> None:
        """Go forward until only `count` events that match `where` are ahead, in order of publication."""
        for start, events in reversed(list(self._runs())):
            for index in range(len(events) - 1, -1, -1):
                if where is None or where(events[index]):
                    if count == 0:
                        start.take(index + 1)
                        self.at, self.side, self.last = start.at, start.side, events[index]
                        return
                    count -= 1

    def _runs(self) -> Iterator[tuple[Cursor, list[Event]]]:
        """What is ahead now, run by run in order of publication, each with a cursor before it."""
        scout, end = self.copy_in_order(), self.ring.end
        while scout.at <= end:  # the main lane grows meanwhile; the others cannot
            start = scout.copy_in_order()
            events = scout.take(_STRIDE)
            if events is None:
                return
            if not isinstance(events, Gap):
                yield start, events

    def copy_in_order(self) -> Cursor:
        """Another cursor at the same place, that reads in order of publication."""
        copy = Cursor(self.ring, "published")
        copy.at, copy.side = self.at, self.side[:]
        return copy


_STRIDE = 1024
