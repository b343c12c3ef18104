"""Follow OpsML's audit table: who does what, as it happens, and what is missing.

    python examples/follow_opsml.py sqlite:///opsml.db        # every row there is, then each new one; Ctrl-C ends it
    python examples/follow_opsml.py sqlite:///opsml.db 20     # the first 20, then stop

The server is not disturbed: its file is opened read-only and no lock is held between two looks.
"""

import asyncio
import sys
from contextlib import aclosing, suppress

from opsml_eventbus import AuditEvent, Event, Gap
from opsml_eventbus.endpoints import open_source
from opsml_eventbus.flow import Notice, Start


async def follow(url: str, count: int | None = None) -> None:
    """Print `count` lines (None: for ever)."""
    async with (
        open_source(url, notify=say) as source,
        aclosing(source.batches(start=Start(follow=True))) as batches,
    ):
        async for batch in batches:
            for record in batch.records:
                print(describe(record.item), flush=True)
                if count is not None and (count := count - 1) == 0:
                    return


def describe(item: Event | Gap) -> str:
    """One line. The user name is what the client claimed: `!a` keeps whatever it holds from acting on a terminal."""
    match item:
        case Gap(missed=missed):
            return f"--- {'an unknown number of' if missed is None else missed} rows are missing here ---"
        case Event(data=AuditEvent(operation="Delete") as audit):
            return f"!!! {audit.username!a} deleted {audit.registry_type!a} {audit.resource_id!a}"
        case Event(data=AuditEvent() as audit):
            return f"    {audit.username!a} {audit.operation!a} {audit.registry_type!a} via {audit.route!a}"
    return f"    {item.type!a}"


def say(notice: Notice) -> None:
    """What the source wants known: the database is busy, or another one has taken its place."""
    print(f"{notice.kind}: {notice.end} {notice.detail}", file=sys.stderr)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(follow(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None))
