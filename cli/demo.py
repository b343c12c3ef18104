"""`eventbus demo`: realistic OpsML traffic, to look at and to try the other commands on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from opsml_eventbus.event import Event
from opsml_eventbus.flow import MAX_BATCH, Batch, Record, Sink, Source, Start

from . import places, runner
from .hosting import hosted_bus, socket
from .options import Output, takes
from .traffic import Traffic

if TYPE_CHECKING:
    from opsml_eventbus.filter import Filter
    from opsml_eventbus.flow import Report

    from .terminal import Notes


@takes(Output)
def demo(
    rate: Annotated[float, typer.Option(min=0.01, max=100_000, help="Events a second, on average.")] = 10.0,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed, the same traffic.")] = 1,
    record: Annotated[
        str | None, typer.Option("--record", metavar="FILE", help="Also write every event to FILE.")
    ] = None,
    no_tail: Annotated[bool, typer.Option("--no-tail", help="Do not show the events here.")] = False,
    on: Annotated[str | None, typer.Option("--on", metavar="NAME", help="Name, or unix:/path.sock. [default]")] = None,
    *,
    output: Output,
) -> int:
    """A bus with made-up but realistic OpsML traffic; into a live bus when there is one."""
    from opsml_eventbus.flow import Report, pump
    from opsml_eventbus.stages import Tee

    notes = output.notes()
    published, recorded = Report(), Report()
    shown = () if no_tail else (output.sink(),)

    async def work() -> None:
        async with stage(places.endpoint(on), record, notes, published, recorded) as sink:
            with runner.Watch(notes, title="demo" if no_tail else "") as watch:
                await pump(TrafficSource(seed, rate, count), Tee(sink, *shown), watch=watch)

    def say() -> None:
        kept = f", {recorded.shown:,} recorded to {record}" if record else ""
        notes.say(runner.summary(published, "published", f"{kept} (seed {seed})"))

    with runner.summed_up(published, say):
        runner.run(work)
    return runner.exit_code(published)


@asynccontextmanager
async def stage(
    endpoint: str, record: str | None, notes: Notes, published: Report, recorded: Report
) -> AsyncIterator[Sink]:
    """The live bus on this endpoint, or a bus of our own; recorded in either case when asked. Both are counted."""
    from opsml_eventbus.endpoints.memory import BusSink
    from opsml_eventbus.endpoints.recorder import JournalSink
    from opsml_eventbus.endpoints.tap import TapSink, is_live
    from opsml_eventbus.stages import Counted, Tee

    path = socket(endpoint)
    if not is_live(path):
        async with hosted_bus(endpoint, notes, record=record, report=recorded) as bus:
            yield Counted(BusSink(bus), published)
        return
    notes.say(f"publishing to the live bus on {path}")
    async with TapSink(f"unix:{path}", places.folder()) as live:
        sink = Counted(live, published)
        if record is None:
            yield sink
        else:
            async with JournalSink(places.named(record), notify=runner.notices(notes)) as file:
                yield Tee(sink, Counted(file, recorded))


class TrafficSource(Source):
    """The demo's traffic as a source, at a rate."""

    name = "demo"

    def __init__(self, seed: int, rate: float, count: int | None) -> None:
        self._traffic = Traffic(seed)
        self._rate = rate
        self._count = count

    async def batches(self, where: Filter | None = None, start: Start = Start()) -> AsyncGenerator[Batch, None]:
        """Events when they are due; those that fell due together come together."""
        due = time.monotonic()
        records: list[Record] = []
        for number, made in enumerate(self._traffic.events()):
            if self._count is not None and number >= self._count:
                break
            due += made.delay / self._rate
            wait = due - time.monotonic()
            if wait > 0:
                if records:
                    yield Batch(records, None, len(records))
                    records = []
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            elif len(records) >= MAX_BATCH:  # behind its time: others have their turn all the same
                yield Batch(records, None, len(records))
                records = []
                await asyncio.sleep(0)
            event = Event.new(made.payload.__event_type__, made.payload, priority=made.priority)
            if start.admits(event) and (where is None or where.matches(event)):
                records.append(Record(event))
        if records:
            yield Batch(records, None, len(records))
