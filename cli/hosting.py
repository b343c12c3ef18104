"""A bus of our own on an endpoint, for the commands that host one: `serve`, `demo`, `replay`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import places
from .runner import notices

if TYPE_CHECKING:
    from opsml_eventbus.bus import EventBus
    from opsml_eventbus.flow import Report

    from .terminal import Notes

JOIN_SECONDS = 0.7  # who follows a name looks for new buses of it twice a second
CAPACITY = 4096  # events a lane: some seconds of a busy server; 40 MB when all four lanes are full


def socket(endpoint: str) -> Path:
    """The socket that an endpoint's text names. Raises UnknownEnd, Refused."""
    from opsml_eventbus.endpoints import FILE, TAP, scheme_of
    from opsml_eventbus.endpoints.tap import ensure_folder, socket_path
    from opsml_eventbus.errors import UnknownEnd

    scheme = scheme_of(endpoint)
    if scheme is not TAP:
        forms = (f"unix:{endpoint}",) if scheme is FILE else (TAP.form,)
        raise UnknownEnd(endpoint.partition("://")[0], "a bus is served on a socket:", forms)
    if endpoint.startswith("unix:"):
        return Path(endpoint.removeprefix("unix:"))
    folder = places.folder()
    ensure_folder(folder)
    return socket_path(folder, endpoint)


@asynccontextmanager
async def hosted_bus(
    endpoint: str,
    notes: Notes,
    *,
    capacity: int = CAPACITY,
    record: str | None = None,
    append: bool = False,
    alone: bool = False,
    journal: dict[str, Any] | None = None,
    report: Report | None = None,
    patient: bool = False,
) -> AsyncIterator[EventBus]:
    """A bus that others can publish to and tail.

    record: also write it to this file, lossless: a publisher is told `acked` only when its events are on disk, and a
        recorder that fails ends the bus. append: go on behind that file's last event. journal: as `Journal`'s options.
    alone: refuse where a live bus is already served there. patient: give those who watch this name the time to join.
    """
    from opsml_eventbus.bus import EventBus
    from opsml_eventbus.endpoints.memory import Recording
    from opsml_eventbus.endpoints.recorder import JournalSink
    from opsml_eventbus.endpoints.tap import serve_tap

    bus = EventBus(capacity=capacity)
    path = socket(endpoint)
    async with AsyncExitStack() as stack:
        stack.callback(bus.close)
        confirm: Any = None
        if record is not None:
            mode: Literal["create", "append"] = "append" if append else "create"
            sink = await stack.enter_async_context(
                JournalSink(places.named(record), mode=mode, notify=notices(notes), **(journal or {}))
            )
            recording = await stack.enter_async_context(Recording(bus, sink, report))
            confirm = recording.confirm
        tap = await stack.enter_async_context(serve_tap(bus, path, allow_publish=True, confirm=confirm, alone=alone))
        notes.say(f"a bus is served on {tap.path}" + (f", recorded to {record}" if record else ""))
        if patient:
            await asyncio.sleep(JOIN_SECONDS)
        yield bus
        bus.close()
