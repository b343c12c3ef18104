"""When a recorded event is due: one anchor, no drift, no stretching."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsml_eventbus.pacing import SECOND, Pacer

NOW = 5_000 * SECOND  # a monotonic clock has its own zero
RECORDED = 1_700_000_000 * SECOND

times = st.lists(st.integers(0, 10**6 * SECOND).map(lambda offset: RECORDED + offset), min_size=1, max_size=50)
speeds = st.sampled_from([0.5, 1.0, 2.0, 10.0, 1000.0, math.inf])
rates = st.sampled_from([None, 0.5, 50.0, 1e6])
gaps = st.sampled_from([None, 0, SECOND // 2, 2 * SECOND])


def dues(pacer: Pacer, recorded: list[int], now: int = NOW) -> list[int]:
    return [pacer.due(time, now) for time in recorded]


def seconds(*values: float) -> list[int]:
    return [RECORDED + round(value * SECOND) for value in values]


def after(*values: float) -> list[int]:
    return [NOW + round(value * SECOND) for value in values]


def test_events_are_due_as_they_were_recorded() -> None:
    assert dues(Pacer(), seconds(0, 1, 1.5, 10)) == after(0, 1, 1.5, 10)


def test_speed_divides_every_distance() -> None:
    assert dues(Pacer(speed=2), seconds(0, 1, 1.5, 10)) == after(0, 0.5, 0.75, 5)
    assert dues(Pacer(speed=0.5), seconds(0, 1)) == after(0, 2)


def test_as_fast_as_possible_is_due_at_once() -> None:
    assert dues(Pacer(speed=math.inf), seconds(0, 1, 10)) == after(0, 0, 0)


def test_a_rate_alone_spaces_evenly() -> None:
    assert dues(Pacer(rate=50), seconds(0, 100, 200, 200)) == after(0, 0.02, 0.04, 0.06)


def test_a_rate_beside_a_speed_only_holds_back() -> None:
    recorded = seconds(0, 0, 0, 10, 10, 10.05)
    assert dues(Pacer(speed=1, rate=10), recorded) == after(0, 0.1, 0.2, 10, 10.1, 10.2)


def test_a_gap_is_cut_to_the_largest_allowed() -> None:
    pacer = Pacer(max_gap=2 * SECOND)
    assert dues(pacer, seconds(0, 1, 3601, 3602, 9000)) == after(0, 1, 3, 4, 6)
    assert dues(Pacer(speed=10, max_gap=2 * SECOND), seconds(0, 10, 3610)) == after(0, 1, 3)


def test_times_that_run_backwards_stretch_nothing() -> None:
    pacer = Pacer()
    assert dues(pacer, seconds(0, 5, 1, 2, 4, 5, 6)) == after(0, 5, 5, 5, 5, 5, 6)
    assert pacer.backwards == 3


def test_a_late_reader_changes_no_due_time() -> None:
    pacer = Pacer()
    assert [pacer.due(time, NOW + 99 * SECOND * n) for n, time in enumerate(seconds(0, 1, 2))] == after(0, 1, 2)


def test_a_million_events_do_not_drift() -> None:
    pacer = Pacer(rate=3)
    last = 0
    for n in range(1_000_000):
        last = pacer.due(RECORDED + n, NOW)
    assert abs(last - (NOW + 999_999 * SECOND // 3)) <= 1


@given(times, speeds, rates, gaps)
def test_due_times_never_run_backwards_and_no_pause_is_too_long(
    recorded: list[int], speed: float, rate: float | None, gap: int | None
) -> None:
    due = dues(Pacer(speed, rate, gap), recorded)
    assert due[0] == NOW
    longest = max(gap, SECOND / rate if rate else 0) if gap is not None else math.inf
    for earlier, later in pairwise(due):
        assert 0 <= later - earlier <= longest + 2


@given(times, speeds, st.randoms())
def test_disorder_changes_nothing_about_the_length(recorded: list[int], speed: float, random: Random) -> None:
    ordered = sorted(recorded)
    inner = ordered[1:]
    random.shuffle(inner)
    assert dues(Pacer(speed), [ordered[0], *inner])[-1] == dues(Pacer(speed), ordered)[-1]


@given(times, speeds, rates, gaps)
def test_a_dry_run_plans_what_the_replay_takes(
    recorded: list[int], speed: float, rate: float | None, gap: int | None
) -> None:
    dry = Pacer(speed, rate, gap)
    dues(dry, recorded, now=0)
    due = dues(Pacer(speed, rate, gap), recorded)
    assert dry.planned == due[-1] - due[0]


def test_a_further_round_begins_when_it_is_asked_for() -> None:
    pacer = Pacer()
    assert dues(pacer, seconds(0, 1)) == after(0, 1)
    pacer.rewind()
    assert dues(pacer, seconds(0, 1), now=NOW + 5 * SECOND) == after(5, 6)
    dry = Pacer()
    for _ in range(3):
        dues(dry, seconds(0, 2), now=0)
        dry.rewind()
    assert dry.planned == 6 * SECOND
    spaced = Pacer(rate=10)
    assert dues(spaced, seconds(0, 1)) == after(0, 0.1)
    spaced.rewind()
    assert dues(spaced, seconds(0, 1)) == after(0.2, 0.3)


def test_the_summary_has_the_rate_asked_for_and_the_rate_there_was() -> None:
    pacer = Pacer(rate=50)
    dues(pacer, seconds(*range(101)))
    pace = pacer.pace(NOW + 4 * SECOND)
    assert (pace.events, pace.planned, pace.taken, pace.late) == (101, 2 * SECOND, 4 * SECOND, 2 * SECOND)
    assert pace.requested_rate == pytest.approx(50)
    assert pace.actual_rate == pytest.approx(25)
    assert pacer.pace(NOW + SECOND).late == 0


def test_nothing_and_one_event_have_no_rate() -> None:
    pacer = Pacer()
    assert pacer.planned == 0
    assert pacer.pace(NOW).actual_rate is None
    pacer.due(RECORDED, NOW)
    assert pacer.pace(NOW).requested_rate is None


@pytest.mark.parametrize(
    "arguments", [{"speed": 0}, {"speed": -1}, {"speed": math.nan}, {"rate": 0}, {"rate": math.inf}, {"max_gap": -1}]
)
def test_what_no_replay_can_do_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Pacer(**arguments)  # type: ignore[arg-type]
