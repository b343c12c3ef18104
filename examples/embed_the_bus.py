"""Embed the bus: publish from a thread, read in asyncio, and see what a slow reader misses."""

from __future__ import annotations

import asyncio

from opsml_eventbus import AuditEvent, Event, EventBus


async def main() -> None:
    bus = EventBus(capacity=8)

    async with bus.subscribe(AuditEvent) as fast, bus.subscribe(AuditEvent) as slow:
        # Any thread may publish, and never waits for a reader.
        await asyncio.to_thread(lambda: [bus.publish(AuditEvent(resource_id=str(n))) for n in range(5)])
        for _ in range(5):
            event = await anext(fast)
            print("fast:", event.data.resource_id)

        for n in range(5, 20):
            bus.publish(AuditEvent(resource_id=str(n)))
        bus.close()

        # The ring holds 8: what is older is gone for this reader, and the stream says so.
        async for item in slow.items():
            if isinstance(item, Event):
                print("slow:", item.data.resource_id)
            else:
                print(f"slow: {item.missed} missed ({item.reason})")
        print(f"slow in all: {slow.received} received, {slow.missed} missed")


if __name__ == "__main__":
    asyncio.run(main())
