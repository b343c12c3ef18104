"""The testing aids say what they mean, and fail when they should."""

from __future__ import annotations

import asyncio

import pytest

from opsml_eventbus import AuditEvent, EventBus, SpaceNameEvent
from opsml_eventbus.errors import Broken
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.flow import pump
from opsml_eventbus.testing import (
    ListSink,
    ManualClock,
    ScriptedSource,
    assert_all_accounted_for,
    assert_gap,
    assert_nothing,
    assert_received,
    bus_watched,
)


def test_what_was_published_is_what_was_received():
    bus = EventBus()
    with bus_watched(bus) as seen:
        assert_nothing(seen)
        bus.publish(AuditEvent(operation="Delete"))
        event = bus.publish(SpaceNameEvent("a", "b", "model"))
        assert_received(seen, AuditEvent(operation="Delete"), event)
        assert_nothing(seen)
        assert_all_accounted_for(seen, 2)
    assert bus.statistics().subscriptions == ()


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (lambda seen: assert_received(seen, AuditEvent(operation="Read")), "event 1: expected .*Read.*received.*Write"),
        (lambda seen: assert_received(seen, AuditEvent(), AuditEvent()), "event 2: .*there is nothing"),
        (assert_gap, "expected a gap, there is Event"),
        (assert_nothing, "expected nothing, there is Event"),
        (lambda seen: assert_all_accounted_for(seen, 2), r"2 published, but 0 received \+ .* 1 unread"),
    ],
)
def test_each_assertion_fails_and_says_what_came_instead(check, text):
    bus = EventBus()
    with bus_watched(bus) as seen:
        bus.publish(AuditEvent())
        with pytest.raises(AssertionError, match=text):
            check(seen)


def test_a_gap_is_looked_at_member_by_member():
    bus = EventBus(1)
    with bus_watched(bus) as seen:
        bus.publish_many([AuditEvent()] * 3)
        assert assert_gap(seen, missed=2, reason="lag", after=None).missed == 2
        bus.pass_gap(Gap.new(None, "x", "disconnect"))
        assert_received(seen, AuditEvent())
        with pytest.raises(AssertionError, match="reason 'lag', it has 'disconnect'"):
            assert_gap(seen, reason="lag")


def test_a_scripted_source_plays_its_script_and_a_list_sink_keeps_it():
    gap = Gap.new(3, None, "source")
    source, sink = ScriptedSource(AuditEvent(), gap, Event.new("x", 1), Broken("script", "torn")), ListSink()
    with pytest.raises(Broken, match="torn"):
        asyncio.run(pump(source, sink))
    assert [item.type for item in sink.items] == ["audit", "eventbus.gap", "x"]
    assert [event.data for event in sink.events] == [AuditEvent(), 1]
    assert source.committed == [1, 2, 3]


def test_what_a_list_sink_refuses_is_not_committed():
    source, sink = ScriptedSource(AuditEvent(), AuditEvent()), ListSink([None, Broken("list", "full")])
    with pytest.raises(Broken, match="full"):
        asyncio.run(pump(source, sink))
    assert source.committed == [1]


def test_a_manual_clock_moves_when_it_is_told_to():
    clock = ManualClock(10)
    assert (clock(), clock()) == (10, 10)
    clock.advance(1.5)
    assert clock() == 1_500_000_010
    clock.advance(-1)
    assert clock() == 500_000_010
