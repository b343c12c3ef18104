"""The wrong way to broadcast in asyncio, which everyone writes first, beside the right one.

Three readers, one of them slow, ten thousand events. By hand it is a queue for each subscriber. Without a bound, the
slow one's queue grows for as long as it is slow. With a bound, what does not fit is dropped, and nothing in the
program knows. The bus keeps the same few events for all of them, and its slow reader is told what it missed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from opsml_eventbus import Event, EventBus, Gap

EVENTS = 10_000
BOUND = 64


@dataclass
class ByHand:
    """A queue for each subscriber. `bound=0`: none."""

    bound: int
    queues: list[asyncio.Queue[int | None]] = field(default_factory=list)
    longest: int = 0

    def subscribe(self) -> asyncio.Queue[int | None]:
        queue: asyncio.Queue[int | None] = asyncio.Queue(self.bound)
        self.queues.append(queue)
        return queue

    def publish(self, value: int | None) -> None:
        for queue in self.queues:
            # What else? To wait would stop every other reader, to raise would stop the publisher.
            with suppress(asyncio.QueueFull):
                queue.put_nowait(value)
            self.longest = max(self.longest, queue.qsize())


async def wrong(bound: int) -> tuple[list[int], int]:
    """(events each reader got, events held at most by one queue)."""
    hub = ByHand(bound)

    async def read(queue: asyncio.Queue[int | None], every: int) -> int:
        got = 0
        while await queue.get() is not None:
            got += 1
            if got % every == 0:
                await asyncio.sleep(0)  # a slow reader gives way after each event
        return got

    readers = [asyncio.create_task(read(hub.subscribe(), every)) for every in (1000, 1000, 1)]
    for value in range(EVENTS):
        hub.publish(value)
        if value % 32 == 0:
            await asyncio.sleep(0)
    for queue in hub.queues:
        await queue.put(None)
    return list(await asyncio.gather(*readers)), hub.longest


async def right() -> tuple[list[tuple[int, int]], int]:
    """([received, missed] of each reader, events the bus holds)."""
    bus = EventBus(BOUND)

    async def read(every: int) -> tuple[int, int]:
        told = 0
        async with bus.subscribe() as subscription:
            async for item in subscription.items():
                if isinstance(item, Gap):
                    told += item.missed or 0
                elif subscription.received % every == 0:
                    await asyncio.sleep(0)
            assert told == subscription.missed
            return subscription.received, subscription.missed

    readers = [asyncio.create_task(read(every)) for every in (1000, 1000, 1)]
    await asyncio.sleep(0)
    for value in range(EVENTS):
        bus.publish(Event.new("n", value))
        if value % 32 == 0:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    bus.close()
    return list(await asyncio.gather(*readers)), bus.capacity


def main() -> None:
    got, longest = asyncio.run(wrong(bound=0))
    print(f"queues without a bound: readers got {got}, and one queue held {longest:,} events")
    got, longest = asyncio.run(wrong(bound=BOUND))
    print(f"queues of {BOUND}: readers got {got} of {EVENTS:,}, and nobody knows what is missing")
    accounts, held = asyncio.run(right())
    print(f"one bus of {held}: (received, missed) {accounts}; each sums to {EVENTS:,}, and each reader knows")


if __name__ == "__main__":
    main()
