"""A bus written to a sink, losslessly: what holds when the sink fails, the bus closes, or somebody is impatient."""

from __future__ import annotations

import asyncio

import pytest

from opsml_eventbus import AuditEvent, Event, EventBus
from opsml_eventbus.endpoints.memory import Recording
from opsml_eventbus.errors import Broken
from opsml_eventbus.flow import Ack, Batch, Sink


class Slow(Sink):
    """Keeps what it is given, after a moment; fails with the batch that holds `fails_at`."""

    def __init__(self, fails_at: str = "", error: Exception | None = None) -> None:
        self.ids: list[str] = []
        self.closed = False
        self._fails_at = fails_at
        self._error = error or Broken("disk", "full")

    async def write(self, batch: Batch) -> Ack:
        await asyncio.sleep(0.001)
        ids = [record.item.id for record in batch.records]
        if self._fails_at in ids:
            raise self._error
        self.ids += ids
        return Ack(len(ids), durable=True)

    async def close(self) -> None:
        self.closed = True


def numbered(count: int) -> list[Event]:
    return [Event.new("audit", AuditEvent(), id=f"e{n}") for n in range(count)]


def test_what_is_confirmed_has_been_written() -> None:
    async def main() -> None:
        bus, sink = EventBus(16), Slow()
        bus.publish(AuditEvent())  # before it begins: not its business
        async with Recording(bus, sink) as recording:
            for event in numbered(100):
                await bus.send(event)
                if event.id in ("e10", "e99"):
                    await recording.confirm()
                    assert sink.ids[-1] == event.id
        assert sink.ids == [event.id for event in numbered(100)]
        assert sink.closed

    asyncio.run(main())


@pytest.mark.parametrize("error", [Broken("disk", "full"), ValueError("a bug")])
def test_a_sink_that_fails_ends_the_block_with_its_error(error: Exception) -> None:
    async def main() -> None:
        bus, sink = EventBus(16), Slow("e20", error)
        with pytest.raises(type(error)):
            async with Recording(bus, sink):
                for event in numbered(1000):
                    await bus.send(event)
                await asyncio.sleep(60)
        assert "e20" not in sink.ids
        assert sink.closed
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    asyncio.run(main())


def test_a_confirmation_never_waits_for_a_recording_that_has_ended() -> None:
    async def main() -> None:
        bus, sink = EventBus(64), Slow("e5")
        confirmed = []

        async def confirm(recording: Recording) -> None:
            try:
                await recording.confirm()
            except Broken as error:
                confirmed.append(error)

        with pytest.raises(Broken):
            async with Recording(bus, sink) as recording:
                for event in numbered(10):
                    await bus.send(event)
                waiting = asyncio.create_task(confirm(recording))
                await asyncio.sleep(60)
        await waiting
        assert len(confirmed) == 1

    asyncio.run(asyncio.wait_for(main(), 10))


def test_cancelled_while_the_rest_is_written_it_is_written_first() -> None:
    async def main() -> None:
        bus, sink = EventBus(4096), Slow()

        async def record() -> None:
            async with Recording(bus, sink):
                for event in numbered(3000):
                    await bus.send(event)

        task = asyncio.create_task(record())
        while not bus.closed:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(sink.ids) == 3000
        assert sink.closed

    asyncio.run(main())


class Stuck(Slow):
    """Waits for room that does not come, until it is told to make haste."""

    def __init__(self) -> None:
        super().__init__()
        self._haste = asyncio.Event()

    def hasten(self) -> None:
        self._haste.set()

    async def write(self, batch: Batch) -> Ack:
        await self._haste.wait()
        raise Broken("disk", "full")


@pytest.mark.parametrize("late", [False, True], ids=["in the block", "when it is being left"])
def test_cancelled_it_does_not_wait_for_a_sink_that_cannot_write(late: bool) -> None:
    async def main() -> None:
        bus, sink = EventBus(64), Stuck()

        async def record() -> None:
            async with Recording(bus, sink):
                bus.publish(AuditEvent())
                if not late:
                    await asyncio.sleep(60)

        task = asyncio.create_task(record())
        await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        with pytest.raises(Broken):
            await task
        assert sink.closed

    asyncio.run(asyncio.wait_for(main(), 10))
