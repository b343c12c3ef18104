"""`eventbus serve`: a bus for others to publish to and tail."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from . import places, runner
from .hosting import CAPACITY, hosted_bus
from .options import Journaling, Output, takes


@takes(Journaling, Output)
def serve(
    on: Annotated[str | None, typer.Option("--on", metavar="NAME", help="Name, or unix:/path.sock. [default]")] = None,
    capacity: Annotated[int, typer.Option(min=1, help="Events the ring holds, per priority.")] = CAPACITY,
    record: Annotated[
        str | None,
        typer.Option("--record", metavar="FILE", help="Also write every event to FILE; acknowledged means on disk."),
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="FILE may exist: go on behind its end.")] = False,
    *,
    journaling: Journaling,
    output: Output,
) -> int:
    """Serve a bus on this machine until Ctrl-C."""
    from opsml_eventbus.flow import Report

    idle = ["--append"] * append + journaling.given()
    if record is None and idle:
        raise typer.BadParameter("nothing is written without --record FILE", param_hint=idle[0])
    notes = output.notes()
    recorded = Report()
    published = 0

    async def work() -> None:
        nonlocal published
        async with hosted_bus(
            places.endpoint(on),
            notes,
            capacity=capacity,
            record=record,
            append=append,
            journal=journaling.journal(),
            alone=True,
            report=recorded,
        ) as bus:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                published = bus.statistics().published

    def say() -> None:
        tail = f", {recorded.shown:,} recorded to {record}, {recorded.lost:,} lost" if record else ""
        notes.say(f"{published:,} published{tail}")

    with runner.summed_up(recorded, say):
        runner.run(work)
    return runner.exit_code(recorded)
