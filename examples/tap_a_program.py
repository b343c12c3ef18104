"""Make a program visible: while it runs, `eventbus tail worker` shows what happens inside it.

python examples/tap_a_program.py            # until Ctrl-C
eventbus tail worker --op delete            # in another terminal
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile

from opsml_eventbus import AuditEvent, EventBus
from opsml_eventbus.endpoints.tap import serve_tap, socket_path, tap_folder


async def work(bus: EventBus, jobs: int | None) -> None:
    """The program's own work; it says what it does and waits for nobody who watches."""
    number = 0
    while jobs is None or number < jobs:
        bus.publish(
            AuditEvent(username="worker", operation="Delete" if number % 3 == 0 else "Read", resource_id=str(number))
        )
        number += 1
        await asyncio.sleep(0.05)


async def main(jobs: int | None = None) -> None:
    bus = EventBus(capacity=1024, source="worker")
    folder = tap_folder(os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), os.getuid())
    # Read-only: who watches cannot publish here unless `allow_publish=True` says so.
    async with serve_tap(bus, socket_path(folder, "worker")) as tap:
        print(f"watch it: eventbus tail {tap.path.name.removesuffix('.sock')}", flush=True)
        await work(bus, jobs)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else None))
