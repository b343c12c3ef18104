"""Each law is broken once, to see that its test can fail. A test that cannot is no test."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import test_bus_interleavings as interleavings
import test_bus_lifecycle as lifecycle
import test_bus_policies as policies
import test_bus_threads as threads
import test_ring as rings
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from test_bus_law import Everything

from opsml_eventbus.hub import Hub
from opsml_eventbus.ring import Cursor, Ring
from opsml_eventbus.subscription import Subscription


def the_law() -> None:
    run_state_machine_as_test(
        Everything,
        settings=settings(
            max_examples=200,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # that it fails is enough; the smallest failure is not wanted
            suppress_health_check=list(HealthCheck),
        ),
    )


def lose_without_counting(monkeypatch):
    lose = Cursor._lose

    def broken(self, count):
        gap = lose(self, count)
        self.missed -= 1
        return gap

    monkeypatch.setattr(Cursor, "_lose", broken)


def lose_without_a_gap(monkeypatch):
    take = Cursor._take_main

    def broken(self, end, stop, size):
        if end - self.at > self.patience:
            self._lose(end - self.at - self.patience)
            self.at = end - self.patience
        return take(self, end, stop, size)

    monkeypatch.setattr(Cursor, "_take_main", broken)


def hand_out_twice(monkeypatch):
    take = Cursor.take

    def broken(self, size):
        found = take(self, size)
        if isinstance(found, list) and len(found) > 2:
            self.at -= 1
        return found

    monkeypatch.setattr(Cursor, "take", broken)


def keep_what_has_no_place(monkeypatch):
    monkeypatch.setattr(Ring, "take_back", lambda self, event: True)


def sleep_without_looking_once_more(monkeypatch):
    def broken(self, loop, need):
        self._hub.park(loop, self, None)
        return self._live and not self._hub.closed

    monkeypatch.setattr(Subscription, "_arm", broken)


def look_and_then_arm(monkeypatch):
    arm = Subscription._arm

    def broken(self, loop, need):
        if self._cursor.ready():
            return False
        self._hub.ring.set_bell()
        worth = arm(self, loop, need)
        self._hub.ring.set_bell()
        return worth

    monkeypatch.setattr(Subscription, "_arm", broken)


def forget_to_wake_on_close(monkeypatch):
    def broken(self):
        self.closed = True
        self.ring.limit = self.ring.main.head

    monkeypatch.setattr(Hub, "close", broken)


def keep_senders_waiting_when_a_reader_leaves(monkeypatch):
    def broken(self, key, missed):
        self.readers.pop(key, None)
        self.lossless.pop(key, None)

    monkeypatch.setattr(Hub, "leave", broken)


def leave_a_cancelled_wait_behind(monkeypatch):
    def broken(self, waiter):
        self._waiter = None

    monkeypatch.setattr(Subscription, "_unpark", broken)


def let_a_generator_die(monkeypatch):
    renew = Subscription._renew

    def broken(self):
        if not hasattr(self, "__anext__"):
            renew(self)

    monkeypatch.setattr(Subscription, "_renew", broken)


def read_a_lossless_reader_ahead(monkeypatch):
    look = Subscription._look
    monkeypatch.setattr(Subscription, "_look", lambda self, size: look(self, 64 if size == 1 else size))


def let_low_push_out_critical(monkeypatch):
    put_aside = Ring.put_aside

    def broken(self, item, index):
        old = put_aside(self, item, index)
        for lane in self.sides:
            lane.cut(max(0, len(lane.items) - 3))
        return old

    monkeypatch.setattr(Ring, "put_aside", broken)


def grow_without_end(monkeypatch):
    monkeypatch.setattr(Ring, "cut", lambda self: [])


def ignore_the_stamps(monkeypatch):
    take = Cursor._take_in_order

    def broken(self, end, size):
        found = self._take_main(end, end, size)
        return take(self, end, size) if found is None else found

    monkeypatch.setattr(Cursor, "_take_in_order", broken)


def reader(does: str, before: int = 0) -> Callable[[], None]:
    return lambda: interleavings.test_a_reader_interrupted_anywhere_gets_everything_once(
        "plain", "events", before, does, "lines"
    )


@pytest.mark.parametrize(
    ("break_it", "test"),
    [
        (lose_without_counting, policies.test_a_reader_that_is_lapped_again_and_again_accounts_for_every_event),
        (lose_without_a_gap, policies.test_a_reader_that_is_lapped_again_and_again_accounts_for_every_event),
        (hand_out_twice, the_law),
        (keep_what_has_no_place, the_law),
        (ignore_the_stamps, rings.test_the_order_of_publication_is_put_back_together_from_the_lanes),
        (read_a_lossless_reader_ahead, policies.test_a_place_is_freed_when_its_event_is_handed_over_and_not_before),
        (sleep_without_looking_once_more, reader("publish")),
        (look_and_then_arm, reader("publish")),
        (forget_to_wake_on_close, reader("close")),
        (
            keep_senders_waiting_when_a_reader_leaves,
            lambda: policies.test_a_lossless_reader_that_goes_frees_every_waiting_sender_at_once("close"),
        ),
        (
            leave_a_cancelled_wait_behind,
            lambda: lifecycle.test_a_thousand_cancelled_waits_on_a_silent_bus_leave_nothing_behind("events"),
        ),
        (let_a_generator_die, lambda: lifecycle.test_a_wait_that_times_out_loses_nothing("events")),
        (let_low_push_out_critical, rings.test_a_flood_of_one_priority_evicts_no_other),
        (grow_without_end, policies.test_a_stalled_reader_costs_no_memory),
    ],
)
def test_a_broken_law_is_noticed(monkeypatch, break_it, test):
    break_it(monkeypatch)
    with pytest.raises((Exception, pytest.fail.Exception)):
        test()


def test_unbroken_it_is_silent():
    threads.test_lossless_under_threads_loses_nothing_and_refuses_the_rest()
    reader("publish", 3)()
