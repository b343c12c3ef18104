"""Ten minutes at full rate, readers coming and going: memory and descriptors stay flat, the law holds throughout.

Seconds: EVENTBUS_SOAK_SECONDS, 600 by default. Run by `make soak`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from opsml_eventbus import EventBus
from opsml_eventbus.errors import Lagged, WouldBlock
from opsml_eventbus.event import Event, Gap, Priority

SECONDS = float(os.environ.get("EVENTBUS_SOAK_SECONDS", "600"))


def resident() -> int:
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_soak_memory_and_descriptors_stay_flat_while_readers_come_and_go() -> None:
    bus = EventBus(512)
    over = threading.Event()
    published = [0, 0]
    refused = [0, 0]
    errors: list[BaseException] = []

    def publish(number: int) -> None:
        dice = random.Random(number)
        while not over.is_set():
            for _ in range(200):
                try:
                    bus.publish(Event.new("n", published[number], priority=Priority(dice.choice([1, 1, 1, 0, 2, 3]))))
                    published[number] += 1
                except WouldBlock:
                    refused[number] += 1
            time.sleep(0.002)  # or the readers' threads would hardly run at all

    async def visit(dice: random.Random) -> None:
        """One reader's life."""
        options: dict[str, Any] = {
            "order": dice.choice(["priority", "published"]),
            "overflow": dice.choice(["drop_oldest", "drop_oldest", "block", "disconnect"]),
            "last": dice.choice([None, 10]),
        }
        if dice.random() < 0.3:
            options["where"] = lambda event: event.data % 7 == 0
        subscription = bus.subscribe(**options)
        gaps = 0
        until = time.monotonic() + dice.random() * 0.3
        try:
            while time.monotonic() < until:
                try:
                    batch = await asyncio.wait_for(anext(subscription.item_batches(64)), dice.choice([0.001, 0.1]))
                except TimeoutError:
                    continue
                gaps += sum(item.missed or 0 for item in batch if isinstance(item, Gap))
            if options["overflow"] == "drop_oldest":
                assert gaps == subscription.missed
        except Lagged:
            pass
        if dice.random() < 0.7:
            subscription.close()
            total = subscription.received + subscription.filtered + subscription.missed
            assert total == subscription._cursor.passed

    def read(number: int) -> None:
        async def main() -> None:
            dice = random.Random(number)
            while not over.is_set():
                async with asyncio.TaskGroup() as group:
                    for _ in range(6):
                        group.create_task(visit(dice))

        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=publish, args=(number,)) for number in range(2)]
    workers += [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    began = time.monotonic()
    settled = min(20.0, SECONDS / 4)
    time.sleep(settled)
    gc.collect()
    memory, files = resident(), descriptors()
    while time.monotonic() - began < SECONDS and not errors:
        time.sleep(min(1.0, SECONDS / 10))
    gc.collect()
    grown, opened = resident() - memory, descriptors() - files
    over.set()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert not errors
    books = bus.statistics()
    assert books.published == sum(published)
    bus.close()
    gc.collect()
    assert bus.statistics().subscriptions == ()
    assert bus._hub.parked == {}
    assert not bus._hub.senders
    assert opened <= 4
    assert grown < 16 << 20, f"{grown / 1e6:.1f} MB more after {sum(published):,} events"
    assert sum(published) > 1000 * SECONDS / 10
