"""The ring by itself: lanes, stamps, limits, cursors."""

from __future__ import annotations

import pytest

from opsml_eventbus.event import Event, Gap, Priority
from opsml_eventbus.ring import GAPS, SIDE, Cursor, Ring


def event(number: int, priority: Priority = Priority.NORMAL) -> Event:
    return Event.new("n", number, id=str(number), priority=priority)


def put(ring: Ring, *numbers: int, priority: Priority = Priority.NORMAL) -> None:
    """Append as a hub does."""
    for number in numbers:
        if priority is Priority.NORMAL:
            ring.main.items.append(event(number))
            if next(ring.bell, "rung") == "rung":
                ring.cut()
                ring.set_bell()
        else:
            if not ring.sides:
                ring.split()
            ring.put_aside(event(number, priority), SIDE[priority])


def read(cursor: Cursor, size: int = 64) -> list[int | str]:
    """Everything there is: numbers, and `-3` for a Gap of three."""
    seen: list[int | str] = []
    while (found := cursor.take(size)) is not None:
        if isinstance(found, Gap):
            seen.append(f"-{found.missed}")
        else:
            seen += [one.data for one in found]
    return seen


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 64, 100])
def test_a_ring_holds_exactly_its_capacity_as_readers_see_it(capacity: int):
    ring = Ring(capacity, "s")
    cursor = Cursor(ring, "priority")
    put(ring, *range(capacity))
    assert read(cursor) == list(range(capacity))
    put(ring, *range(capacity + 1))
    assert read(cursor) == ["-1", *range(1, capacity + 1)]


def test_the_list_never_grows_beyond_capacity_and_slack():
    ring = Ring(100, "s")
    put(ring, *range(10_000))
    assert len(ring.main.items) <= ring.most + 1
    assert ring.main.head == 10_000
    assert ring.main.items[-1].id == "9999"


def test_a_side_lane_is_cut_too():
    ring = Ring(100, "s")
    put(ring, *range(10_000), priority=Priority.LOW)
    lane = ring.sides[SIDE[Priority.LOW]]
    assert len(lane.items) == len(lane.stamps) <= ring.most
    assert lane.head == 10_000


def test_a_cursor_begins_at_the_end_of_every_lane():
    ring = Ring(8, "s")
    put(ring, 1)
    put(ring, 2, priority=Priority.HIGH)
    cursor = Cursor(ring, "priority")
    assert read(cursor) == []
    put(ring, 3, priority=Priority.HIGH)
    put(ring, 4)
    assert read(cursor) == [3, 4]


def test_a_flood_of_one_priority_evicts_no_other():
    ring = Ring(4, "s")
    urgent, in_order = Cursor(ring, "priority"), Cursor(ring, "published")
    put(ring, 1, priority=Priority.CRITICAL)
    put(ring, *range(100, 1100), priority=Priority.LOW)
    put(ring, *range(2000, 2003))
    assert read(urgent) == [1, 2000, 2001, 2002, "-996", 1096, 1097, 1098, 1099]
    assert read(in_order) == ["-996", 1, 1096, 1097, 1098, 1099, 2000, 2001, 2002]


def test_the_order_of_publication_is_put_back_together_from_the_lanes():
    ring = Ring(64, "s")
    cursor = Cursor(ring, "published")
    lanes = [Priority.NORMAL, Priority.LOW, Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.NORMAL]
    for number in range(60):
        put(ring, number, priority=lanes[number * 7 % 6])
    assert read(cursor, size=7) == list(range(60))


@pytest.mark.parametrize("order", ["priority", "published"])
def test_a_gap_from_upstream_keeps_its_place_and_is_nobody_s_miss(order):
    ring = Ring(8, "s")
    ring.split()
    cursor = Cursor(ring, order)
    put(ring, 1, 2)
    ring.put_aside(Gap.new(7, None, "disconnect"), GAPS)
    put(ring, 3)
    assert read(cursor) == [1, 2, "-7", 3]
    assert (cursor.missed, cursor.passed) == (0, 3)


def test_more_gaps_than_fit_are_told_of_by_one_that_counts_nothing():
    ring = Ring(1, "s")
    ring.split()
    cursor = Cursor(ring, "published")
    for _ in range(500):
        ring.put_aside(Gap.new(7, None, "disconnect"), GAPS)
    gaps = read(cursor)
    assert gaps[0] == "-None"
    assert 1 <= len(gaps) <= 1 + ring.most


def test_nothing_beyond_the_limit_is_there_for_anyone():
    ring = Ring(8, "s")
    cursor = Cursor(ring, "priority")
    put(ring, 1, 2)
    ring.limit = 2
    late = event(3)
    ring.main.items.append(late)
    assert ring.overfull
    assert read(cursor) == [1, 2]
    assert ring.take_back(late)
    assert not ring.overfull
    assert not ring.take_back(late)


def test_one_event_published_twice_is_taken_back_once():
    ring = Ring(8, "s")
    same = event(1)
    ring.main.items += [same, same]
    ring.limit = 1
    assert ring.take_back(same)
    assert not ring.take_back(same)
    assert ring.main.items == [same]


def test_the_bell_rings_at_the_target_and_not_before():
    ring = Ring(100, "s")
    ring.set_bell(target=3)
    assert [next(ring.bell, "rung") for _ in range(3)] == [None, None, "rung"]


def test_an_armed_bell_rings_at_once():
    ring = Ring(100, "s")
    ring.arm()
    assert next(ring.bell, "rung") == "rung"


def test_seeking_finds_the_last_of_that_name_in_order_of_publication():
    ring = Ring(100, "s")
    put(ring, 1, 2)
    put(ring, 3, priority=Priority.LOW)
    put(ring, 2, 4)
    for order in ("priority", "published"):
        cursor = Cursor(ring, order)
        assert cursor.seek(lambda events: max((i for i, e in enumerate(events) if e.id == "2"), default=None))
        assert read(cursor) == [4]
    assert not cursor.seek(lambda events: None)
    assert sorted(read(cursor)) == [1, 2, 2, 3, 4]


def test_keeping_the_last_matching_ones_counts_in_order_of_publication():
    ring = Ring(5000, "s")
    for number in range(3000):
        put(ring, number, priority=Priority.HIGH if number % 3 == 0 else Priority.NORMAL)
    for count, where, first in [
        (5, None, 2995),
        (2, lambda e: e.data % 10 == 0, 2980),
        (9999, None, 0),
        (2500, None, 500),
    ]:
        cursor = Cursor(ring, "published")
        cursor.rewind()
        cursor.keep_last(count, where)
        # What precedes the first that is kept and does not match may stand before it.
        kept = [number for number in read(cursor) if where is None or where(event(number))]
        assert kept == [n for n in range(first, 3000) if where is None or n % 10 == 0]


def test_looking_back_while_the_main_lane_grows_begins_with_what_is_still_there():
    ring = Ring(64, "s")
    put(ring, *range(64))
    put(ring, 100, priority=Priority.HIGH)
    grown = iter(range(1000, 1200))

    def growing(_event: Event) -> bool:
        # As another thread would: publishing takes no lock.
        ring.main.items.append(event(next(grown)))
        return True

    cursor = Cursor(ring, "published")
    cursor.rewind()
    cursor.keep_last(60, growing)
    kept = read(cursor)
    assert kept[-1] == next(grown) - 1
    assert cursor.passed == cursor.missed + len([one for one in kept if isinstance(one, int)])

    def found(events: list[Event]) -> int | None:
        ring.main.items.extend([event(next(grown)) for _ in range(100)])
        return 0

    ring = Ring(64, "s")
    grown = iter(range(1000, 2000))
    put(ring, *range(64))
    assert not Cursor(ring, "published").seek(found)
