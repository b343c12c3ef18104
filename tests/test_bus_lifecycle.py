"""Cancelled, dropped, left, closed, failed: nothing leaks, nothing is lost, nothing is said."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import weakref

import pytest

from opsml_eventbus import AuditEvent, EventBus
from opsml_eventbus.errors import BusClosed
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.testing import assert_all_accounted_for, assert_nothing

VIEWS = ["events", "items", "batches", "lingering"]


def view(subscription, name):
    return {
        "events": lambda: subscription,
        "items": subscription.items,
        "batches": lambda: subscription.batches(2),
        "lingering": lambda: subscription.batches(2, max_wait=0.001),
    }[name]()


def number(value) -> Event:
    return Event.new("n", value)


def flat(item) -> list:
    return [event.data for event in item] if isinstance(item, list) else [item.data]


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", VIEWS)
def test_a_wait_that_times_out_loses_nothing(name):
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        stream = view(subscription, name)
        seen = []
        for value in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.002)
            bus.publish(number(value))
            seen += flat(await anext(stream))
        assert seen == list(range(20))
        assert_all_accounted_for(subscription, 20)

    asyncio.run(main())


@pytest.mark.parametrize("name", VIEWS)
def test_a_wait_that_is_cancelled_as_its_event_arrives_loses_nothing(name):
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        stream = view(subscription, name)
        seen = []
        for steps in range(8):
            reading = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            bus.publish(number(steps))
            for _ in range(steps):
                await asyncio.sleep(0)
            reading.cancel()
            try:
                seen += flat(await reading)
            except asyncio.CancelledError:
                seen += flat(await anext(stream))
        assert seen == list(range(8))
        assert_all_accounted_for(subscription, 8)

    asyncio.run(main())


def test_leaving_a_loop_and_coming_back_goes_on_exactly_there():
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        bus.publish_many([number(value) for value in range(100)])
        bus.close()
        seen = []
        while len(seen) < 100:
            async for event in subscription:
                seen.append(event.data)
                if len(seen) % 7 == 0:
                    break
        assert seen == list(range(100))
        assert [event async for event in subscription] == []

    asyncio.run(main())


@pytest.mark.parametrize("name", VIEWS)
def test_a_thousand_cancelled_waits_on_a_silent_bus_leave_nothing_behind(name):
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        stream = view(subscription, name)
        for _ in range(1000):
            reading = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
        assert bus._hub.parked == {}
        assert not bus._hub.senders
        assert len(asyncio.all_tasks()) == 1
        bus.publish(number(1))
        assert flat(await anext(stream)) == [1]

    asyncio.run(main())


def test_an_exception_in_the_reader_s_loop_ends_nothing():
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        bus.publish_many([number(value) for value in range(3)])
        with pytest.raises(ZeroDivisionError):
            async for event in subscription:
                1 / event.data
        assert (await anext(subscription)).data == 1

    asyncio.run(main())


@pytest.mark.parametrize("name", VIEWS)
def test_close_wakes_every_reader_and_the_ring_is_read_to_its_end(name):
    async def main():
        bus = EventBus()
        subscriptions = [bus.subscribe() for _ in range(5)]

        async def read(subscription):
            seen = []
            async for item in view(subscription, name):
                seen += flat(item)
            return seen

        readers = [asyncio.create_task(read(subscription)) for subscription in subscriptions]
        await settle()
        bus.publish_many([number(value) for value in range(5)])
        bus.close()
        assert await asyncio.gather(*readers) == [list(range(5))] * 5
        assert bus.statistics().subscriptions == ()

    asyncio.run(main())


@pytest.mark.parametrize("name", VIEWS)
def test_nothing_is_delivered_after_a_subscription_is_closed(name):
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        stream = view(subscription, name)
        bus.publish_many([number(value) for value in range(10)])
        got = len(flat(await anext(stream)))
        subscription.close()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert (subscription.received, subscription.missed, subscription.unread) == (got, 10 - got, 0)
        bus.publish(number(10))
        assert_all_accounted_for(subscription, 10)
        subscription.close()

    asyncio.run(main())


@pytest.mark.parametrize("name", VIEWS)
def test_closing_a_subscription_from_elsewhere_ends_its_wait(name):
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        reading = asyncio.ensure_future(anext(view(subscription, name), None))
        await asyncio.sleep(0)
        await asyncio.to_thread(subscription.close)
        assert await asyncio.wait_for(reading, 5) is None
        assert bus._hub.parked == {}

    asyncio.run(main())


def test_a_filter_that_raises_ends_that_subscription_alone_with_that_error():
    async def main():
        bus = EventBus()
        healthy = bus.subscribe()
        broken = bus.subscribe(lambda event: 1 // (3 - event.data) >= 0)
        bus.publish_many([number(value) for value in range(6)])
        seen = []
        with pytest.raises(ZeroDivisionError):
            async for event in broken:
                seen.append(event.data)  # noqa: PERF401 - it raises on the way
        assert seen == [0, 1, 2]
        assert [event async for event in broken] == []
        assert (broken.received, broken.filtered, broken.missed) == (3, 0, 3)
        bus.close()
        assert len([event async for event in healthy]) == 6

    asyncio.run(main())


def test_a_filter_that_raises_while_its_reader_sleeps_wakes_it():
    async def main():
        bus = EventBus()
        broken = bus.subscribe(lambda event: 1 // event.data)
        reading = asyncio.ensure_future(anext(broken))
        await asyncio.sleep(0)
        bus.publish(number(0))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(reading, 5)

    asyncio.run(main())


def test_a_subscription_has_one_reader_at_a_time():
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        first = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        for stream in (subscription, subscription.items(), subscription.batches()):
            with pytest.raises(RuntimeError):
                await anext(stream)
        bus.publish(number(1))
        assert (await first).data == 1
        bus.publish(number(2))
        assert (await anext(subscription)).data == 2

    asyncio.run(main())


def test_a_dropped_reader_leaves_nothing_even_while_it_waits():
    async def main():
        bus = EventBus()

        async def read():
            async for _ in bus.subscribe():
                pass

        reader = asyncio.create_task(read())
        await settle()
        reader.cancel()
        await asyncio.wait([reader])
        del reader
        assert bus.statistics().subscriptions == ()
        subscription = bus.subscribe()
        gone = weakref.ref(subscription)
        async for _ in bus.subscribe(last=1):  # abandoned in the middle of a slice
            break
        bus.publish(number(1))
        await anext(subscription)
        del subscription
        assert gone() is None
        assert bus.statistics().subscriptions == ()

    async def silent_main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: pytest.fail(str(context)))
        bus = EventBus()
        bus.publish(number(0))
        del bus
        await main_with_one()

    async def main_with_one():
        bus = EventBus()
        bus.publish(number(0))
        async for event in bus.subscribe(last=1):
            assert event.data == 0
            break
        assert bus.statistics().subscriptions == ()
        await settle()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(silent_main())


def test_waiting_on_a_subscription_that_nobody_holds_says_so():
    async def main():
        bus = EventBus()
        with pytest.raises(RuntimeError, match="hold it"):
            await anext(bus.subscribe())

    asyncio.run(main())


def test_a_bus_and_its_readers_are_freed_without_the_garbage_collector():
    async def main():
        bus = EventBus()
        subscription = bus.subscribe()
        bus.publish(number(1))
        await anext(subscription)
        gone = weakref.ref(bus), weakref.ref(subscription)
        del bus, subscription
        assert [ref() for ref in gone] == [None, None]

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_a_loop_that_ended_with_a_reader_parked_does_not_disturb_the_bus():
    bus = EventBus()
    loop = asyncio.new_event_loop()
    subscription = bus.subscribe()
    reading = loop.create_task(anext(subscription))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    bus.publish(number(1))
    bus.publish(number(2))
    assert bus._hub.parked == {}
    reading.get_coro().close() if hasattr(reading.get_coro(), "close") else None
    reading._log_destroy_pending = False
    assert subscription.unread == 2


def test_a_subscription_may_be_read_in_one_loop_after_another():
    bus = EventBus()
    subscription = bus.subscribe()

    async def wait_in_vain():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(subscription), 0.001)

    async def read():
        return (await asyncio.wait_for(anext(subscription), 5)).data

    for value in range(3):
        asyncio.run(wait_in_vain())
        bus.publish(number(value))
        assert asyncio.run(read()) == value


def test_a_finaliser_may_publish():
    bus = EventBus(4)
    subscription = bus.subscribe()

    class Farewell:
        def __del__(self):
            bus.publish(Event.new("farewell", None))

    for _ in range(500):
        bus.publish(Event.new("n", [Farewell()]))
    subscription.drain()
    gc.collect()
    published = bus.statistics().published
    assert published > 900
    subscription.drain(10_000)
    assert subscription.received + subscription.missed + subscription.unread == bus.statistics().published


def test_a_finaliser_may_drop_a_subscription_while_the_bus_is_locked():
    async def main():
        bus = EventBus(2)
        held = {"reader": bus.subscribe(overflow="block")}
        bus.publish(number(0))
        bus.publish(number(1))
        sender = asyncio.create_task(bus.send(number(2)))
        await settle()
        with bus._hub.lock:
            held.clear()
        await asyncio.wait_for(sender, 5)

    asyncio.run(main())


def test_an_idle_reader_costs_less_than_two_kilobytes():
    async def main():
        bus = EventBus()

        async def read():
            async with bus.subscribe() as subscription:
                async for _ in subscription:
                    pass

        await settle()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        readers = [asyncio.create_task(read()) for _ in range(1000)]
        await settle()
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / 1000
        tracemalloc.stop()
        bus.close()
        await asyncio.gather(*readers)
        return each

    assert asyncio.run(main()) <= 2048


def test_development_mode_has_nothing_to_say():
    program = """
        import asyncio, gc
        from opsml_eventbus import AuditEvent, EventBus, Priority

        async def main():
            bus = EventBus(8)
            async def read(subscription):
                async for _ in subscription:
                    pass
            tasks = [asyncio.create_task(read(bus.subscribe(order=order))) for order in ("priority", "published") * 3]
            lossless = bus.subscribe(overflow="block")
            sender = asyncio.create_task(bus.send(AuditEvent()))
            for number in range(7):
                bus.publish(AuditEvent(), priority=Priority(number % 4))
                await asyncio.sleep(0)
            tasks[0].cancel()
            del lossless
            await sender
            parked = asyncio.create_task(read(bus.subscribe()))
            await asyncio.sleep(0)
            # The loop is shut down with readers parked.

        asyncio.run(main())
        gc.collect()
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_waiting_reader_in_another_thread_ends_when_the_bus_is_closed():
    bus = EventBus()
    ready, seen = threading.Event(), []

    def run():
        async def main():
            subscription = bus.subscribe()
            reading = asyncio.ensure_future(anext(subscription, "end"))
            await asyncio.sleep(0)
            ready.set()
            seen.append(await reading)

        asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    bus.close()
    thread.join(10)
    assert seen == ["end"]


def test_subscribing_to_what_was_closed_is_refused_and_leaves_nothing():
    bus = EventBus()
    bus.close()
    with pytest.raises(BusClosed):
        bus.subscribe()
    assert bus._hub.readers == {}


def test_a_gap_that_waits_is_not_delivered_after_the_end():
    bus = EventBus()
    subscription = bus.subscribe(after="unknown")
    subscription.close()
    assert_nothing(subscription)
    other = bus.subscribe()
    bus.pass_gap(Gap.new(1, None, "source"))
    bus.close()
    assert [item.missed for item in other.drain()] == [1]
    assert_nothing(other)


def test_payloads_are_shared_and_never_copied():
    bus = EventBus()
    one, other = bus.subscribe(), bus.subscribe()
    payload = AuditEvent()
    bus.publish(payload)
    first, second = one.drain()[0], other.drain()[0]
    assert first is second
    assert first.data is payload
