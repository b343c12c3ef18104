"""What happens when a reader is too slow: the three policies, and the senders that wait."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from opsml_eventbus import AuditEvent, EventBus
from opsml_eventbus.errors import BusClosed, Lagged, WouldBlock
from opsml_eventbus.event import Event, Gap, Priority
from opsml_eventbus.testing import assert_all_accounted_for, assert_received

ALL = list(Priority)


def number(value, priority: Priority = Priority.NORMAL) -> Event:
    return Event.new("n", value, priority=priority)


def data(items) -> list:
    return [f"gap {item.missed}" if isinstance(item, Gap) else item.data for item in items]


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(8):
        await asyncio.sleep(0)


# ── block ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("priority", ALL)
def test_publish_to_a_full_lossless_reader_reaches_nobody(priority):
    bus = EventBus(3)
    other = bus.subscribe()
    lossless = bus.subscribe(overflow="block")
    for value in range(3):
        bus.publish(number(value, priority))
    for _ in range(5):
        with pytest.raises(WouldBlock):
            bus.publish(number("too much", priority))
    assert bus.statistics().published == 3
    assert data(other.drain()) == data(lossless.drain()) == [0, 1, 2]
    bus.publish(number(3, priority))
    assert data(lossless.drain()) == data(other.drain()) == [3]


def test_each_lane_has_places_of_its_own():
    bus = EventBus(1)
    lossless = bus.subscribe(overflow="block", order="published")
    for priority in ALL:
        bus.publish(number(priority.name, priority))
        with pytest.raises(WouldBlock):
            bus.publish(number(0, priority))
    assert data(lossless.drain()) == [priority.name for priority in ALL]


def test_a_place_is_freed_when_its_event_is_handed_over_and_not_before():
    async def main():
        bus = EventBus(3)
        lossless = bus.subscribe(overflow="block")
        for value in range(3):
            bus.publish(number(value))
        reader = aiter(lossless)
        for value in range(3, 10):
            assert (await anext(reader)).data == value - 3
            bus.publish(number(value))
            with pytest.raises(WouldBlock):
                bus.publish(number("too much"))

    asyncio.run(main())


def test_many_are_published_all_or_none():
    bus = EventBus(4)
    lossless = bus.subscribe(overflow="block", order="published")
    bus.publish(number(0))
    with pytest.raises(WouldBlock):
        bus.publish_many([number(value) for value in range(1, 5)])
    with pytest.raises(WouldBlock):
        bus.publish_many([number("high", Priority.HIGH), *[number(value) for value in range(1, 5)]])
    bus.publish_many([number(1), number("high", Priority.HIGH), number(2), number(3)])
    assert data(lossless.drain()) == [0, 1, "high", 2, 3]


def test_the_slowest_of_several_lossless_readers_counts():
    bus = EventBus(2)
    fast, slow = bus.subscribe(overflow="block"), bus.subscribe(overflow="block")
    for value in range(2):
        bus.publish(number(value))
    fast.drain()
    with pytest.raises(WouldBlock):
        bus.publish(number(2))
    slow.close()
    bus.publish_many([number(2), number(3)])
    assert data(fast.drain()) == [2, 3]


@pytest.mark.parametrize("priority", ALL)
def test_send_waits_for_a_place_and_senders_are_served_in_their_order(priority):
    async def main():
        bus = EventBus(2)
        lossless = bus.subscribe(overflow="block")
        senders = [asyncio.create_task(bus.send(number(value, priority))) for value in range(6)]
        await settle()
        assert [sender.done() for sender in senders] == [True, True, False, False, False, False]
        assert bus.statistics().waiting_senders == 4
        with pytest.raises(WouldBlock):
            bus.publish(number("does not push in", priority))
        seen = []
        for value in range(6):
            seen.append((await anext(lossless)).data)
            await settle()
            assert sum(sender.done() for sender in senders) == min(6, 3 + value)
        assert seen == list(range(6))
        assert [sender.result().data for sender in senders] == seen

    asyncio.run(main())


def test_send_publishes_at_once_when_there_is_a_place():
    async def main():
        bus = EventBus(1)
        assert (await bus.send(AuditEvent(), priority=Priority.LOW)).priority is Priority.LOW
        assert bus.statistics().published == 1

    asyncio.run(main())


def test_a_send_that_times_out_was_not_published():
    async def main():
        bus = EventBus(1)
        lossless = bus.subscribe(overflow="block")
        await bus.send(number(0))
        with pytest.raises(TimeoutError):
            await bus.send(number(1), timeout=0.01)
        assert bus.statistics().waiting_senders == 0
        later = asyncio.create_task(bus.send(number(2), timeout=60))
        await settle()
        assert data(lossless.drain()) == [0, 2]
        await later

    asyncio.run(main())


def test_a_cancelled_sender_leaves_the_queue():
    async def main():
        bus = EventBus(1)
        lossless = bus.subscribe(overflow="block")
        senders = [asyncio.create_task(bus.send(number(value))) for value in range(4)]
        await settle()
        senders[1].cancel()
        senders[3].cancel()
        await settle()
        assert bus.statistics().waiting_senders == 1
        assert data(lossless.drain()) == [0, 2]
        await senders[2]
        bus.publish(number(9))
        assert data(lossless.drain()) == [9]

    asyncio.run(main())


@pytest.mark.parametrize("how", ["close", "leave", "drop", "cancel", "filter raises"])
def test_a_lossless_reader_that_goes_frees_every_waiting_sender_at_once(how):
    async def main():
        bus = EventBus(1)

        def choose(event):
            if event.data == "poison":
                raise ZeroDivisionError
            return True

        lossless = bus.subscribe(choose, overflow="block")
        bus.publish(number("poison"))
        senders = [asyncio.create_task(bus.send(number(value))) for value in range(5)]
        await settle()
        if how == "close":
            lossless.close()
        elif how == "leave":
            async with lossless:
                pass
        elif how == "drop":
            del lossless
        elif how == "filter raises":
            with pytest.raises(ZeroDivisionError):
                await anext(lossless)
        else:

            async def read():
                async with lossless:
                    await asyncio.Event().wait()

            reader = asyncio.create_task(read())
            await settle()
            reader.cancel()
        await settle()
        assert all(sender.done() for sender in senders)
        assert bus.statistics().published == 6

    asyncio.run(main())


def test_close_refuses_the_senders_that_wait():
    async def main():
        bus = EventBus(1)
        lossless = bus.subscribe(overflow="block")
        senders = [asyncio.create_task(bus.send(number(value))) for value in range(3)]
        await settle()
        bus.close()
        results = await asyncio.gather(*senders, return_exceptions=True)
        assert [type(result) for result in results] == [Event, BusClosed, BusClosed]
        assert data([event async for event in lossless]) == [0]

    asyncio.run(main())


def test_a_publishing_thread_learns_it_in_the_call():
    bus = EventBus(4)
    lossless = bus.subscribe(overflow="block")
    refused: list[int] = []

    def publish():
        for value in range(10):
            try:
                bus.publish(number(value))
            except WouldBlock:
                refused.append(value)

    thread = threading.Thread(target=publish)
    thread.start()
    thread.join()
    assert refused == [4, 5, 6, 7, 8, 9]
    assert data(lossless.drain()) == [0, 1, 2, 3]


def test_a_lossless_reader_misses_nothing_however_fast_its_senders_are():
    async def main():
        bus = EventBus(3)
        lossless = bus.subscribe(overflow="block", order="published")

        async def send(name):
            for value in range(200):
                await bus.send(number((name, value), Priority(value % 4)))

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(send(name))
            seen = []
            async for event in lossless:
                seen.append(event.data)
                if len(seen) == 600:
                    break
        for name in "abc":
            for lane in range(4):
                mine = [value for sender, value in seen if sender == name and value % 4 == lane]
                assert mine == list(range(lane, 200, 4))
        assert lossless.missed == 0
        assert_all_accounted_for(lossless, 600)

    asyncio.run(main())


def test_batches_of_a_lossless_reader_free_what_they_hand_over():
    async def main():
        bus = EventBus(4)
        lossless = bus.subscribe(overflow="block")
        senders = [asyncio.create_task(bus.send(number(value))) for value in range(10)]
        await settle()
        seen = []
        async for batch in lossless.batches(3):
            seen += data(batch)
            if len(seen) == 10:
                break
        assert seen == list(range(10))
        await asyncio.gather(*senders)

    asyncio.run(main())


def test_a_lossless_reader_with_a_filter_keeps_nobody_waiting_for_what_it_does_not_want():
    async def main():
        bus = EventBus(1)
        lossless = bus.subscribe(lambda event: event.data == 9, overflow="block")
        reading = asyncio.create_task(anext(lossless))
        for value in range(10):
            await asyncio.wait_for(bus.send(number(value)), 5)
        assert (await reading).data == 9
        assert lossless.filtered == 9

    asyncio.run(main())


def test_history_for_a_lossless_reader_takes_its_places():
    bus = EventBus(4)
    bus.publish_many([number(value) for value in range(6)])
    lossless = bus.subscribe(overflow="block", last="all")
    with pytest.raises(WouldBlock):
        bus.publish(number(6))
    assert data(lossless.drain()) == [2, 3, 4, 5]
    assert lossless.missed == 0


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.LOW])
def test_a_lossless_reader_from_the_very_beginning_is_told_what_is_gone_already(priority):
    bus = EventBus(4)
    for value in range(600):
        bus.publish(number(value, priority))
    lossless = bus.subscribe(overflow="block", after="")
    assert data(lossless.drain()) == ["gap 596", 596, 597, 598, 599]
    assert_all_accounted_for(lossless, 600)


def test_a_sender_in_another_loop_is_served_too():
    bus = EventBus(1)
    lossless = bus.subscribe(overflow="block")
    bus.publish(number(0))
    sent = threading.Event()

    def send():
        asyncio.run(bus.send(number(1)))
        sent.set()

    thread = threading.Thread(target=send)
    thread.start()
    deadline = time.monotonic() + 10
    while not bus.statistics().waiting_senders and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not sent.is_set()
    assert data(lossless.drain(1)) == [0]
    assert sent.wait(10)
    thread.join()
    assert data(lossless.drain()) == [1]


# ── disconnect ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("view", ["events", "items", "batches"])
def test_a_reader_that_asked_for_it_is_disconnected_when_it_lags(view):
    async def main():
        bus = EventBus(4)
        subscription = bus.subscribe(overflow="disconnect")
        bus.publish(number(0))
        assert (await anext(subscription)).data == 0
        bus.publish_many([number(value) for value in range(1, 6)])
        stream = {"events": subscription, "items": subscription.items(), "batches": subscription.batches()}[view]
        with pytest.raises(Lagged) as caught:
            await anext(stream)
        assert caught.value.missed == subscription.missed == 5
        bus.publish(number(6))
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert_all_accounted_for(subscription, 6)
        assert bus.statistics().subscriptions == ()

    asyncio.run(main())


def test_a_reader_that_keeps_up_is_not_disconnected():
    bus = EventBus(4)
    subscription = bus.subscribe(overflow="disconnect")
    for value in range(20):
        bus.publish(number(value))
        if value % 4 == 3:
            assert len(subscription.drain()) == 4
    assert subscription.missed == 0


def test_lag_in_one_lane_disconnects():
    async def main():
        bus = EventBus(2)
        subscription = bus.subscribe(overflow="disconnect")
        for value in range(3):
            bus.publish(number(value, Priority.LOW))
        bus.publish(number("urgent", Priority.CRITICAL))
        with pytest.raises(Lagged, match="4"):
            await anext(subscription)

    asyncio.run(main())


def test_a_reader_that_lags_in_an_urgent_lane_reads_what_it_holds_and_is_disconnected_then():
    async def main():
        bus = EventBus(3)
        subscription = bus.subscribe(overflow="disconnect")
        bus.publish_many([number(value) for value in range(3)])
        assert (await anext(subscription)).data == 0
        for value in range(4):
            bus.publish(number(value, Priority.HIGH))
        assert [(await anext(subscription)).data for _ in range(2)] == [1, 2]
        with pytest.raises(Lagged):
            await anext(subscription)
        assert_all_accounted_for(subscription, 7)

    asyncio.run(main())


# ── drop oldest ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stalled_reader_costs_no_memory():
    bus = EventBus(100)
    stalled = bus.subscribe()
    for value in range(100_000):
        bus.publish(number(value))
    assert len(bus._hub.ring.main.items) <= bus._hub.ring.most
    assert data(stalled.drain(200)) == ["gap 99900", *range(99_900, 100_000)]


def test_a_reader_that_is_lapped_again_and_again_accounts_for_every_event():
    bus = EventBus(8)
    subscription = bus.subscribe(lambda event: event.data % 3 == 0)
    gaps = 0
    for value in range(1000):
        bus.publish(number(value))
        if value % 37 == 0:
            gaps += sum(item.missed for item in subscription.drain(5) if isinstance(item, Gap))
            assert_all_accounted_for(subscription, value + 1)
    gaps += sum(item.missed for item in subscription.drain() if isinstance(item, Gap))
    assert subscription.missed == gaps
    assert_all_accounted_for(subscription, 1000)


def test_a_dropped_reader_is_gone_at_once():
    bus = EventBus()
    gc.disable()
    try:
        subscription = bus.subscribe()
        bus.publish(number(1))
        assert_received(subscription, *bus.subscribe(last=1).drain())
        assert len(bus.statistics().subscriptions) == 1
        del subscription
        assert bus.statistics().subscriptions == ()
    finally:
        gc.enable()
