"""`eventbus replay`: a recording back onto a bus, at its own pace or another."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options, places, runner, values
from .options import Output, Selection, Window, takes

if TYPE_CHECKING:
    from opsml_eventbus.flow import Report, Sink

    from .render import Notes


@takes(Selection, Window, Output)
def replay(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A recording: .jsonl, .jsonl.gz, or -.")],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="SINK", help="A live bus, a file, or -. Default: a bus of its own, shown here."),
    ] = None,
    speed: Annotated[str, typer.Option(metavar="N|max", help="2x, 0.5x, or max: as fast as it goes.")] = "1x",
    rate: Annotated[
        str | None, typer.Option(metavar="N/s", help="So many events a second, whatever their times.")
    ] = None,
    max_gap: Annotated[str | None, typer.Option(metavar="TIME", help="Shorten longer pauses to this.")] = None,
    loop: Annotated[int, typer.Option(min=1, metavar="N", help="So many times.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read everything, send nothing, say how long it takes.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of this replay, stamped on its events. [file and time]")
    ] = None,
    *,
    selection: Selection,
    window: Window,
    output: Output,
) -> int:
    """Put a recording back onto a bus. Ids and times stay; every event is stamped with the replay's name."""
    from opsml_eventbus.pacing import Pacer

    from opsml_eventbus.endpoints import open_source
    from opsml_eventbus.flow import Report, Start, pump
    from opsml_eventbus.stages import Paced, Stamped

    notes = output.notes()
    where = selection.filter(notes)
    since, until = window.bounds(notes)
    pace = {
        "speed": options.parsed("--speed", values.speed, speed),
        "rate": options.parsed("--rate", values.rate, rate),
        "max_gap": options.parsed("--max-gap", values.duration_ns, max_gap),
    }
    stamp = name or f"{Path(file).name.split('.')[0] or 'stdin'}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    start = Start(since=since, until=until)
    if loop > 1 and file == "-":
        raise typer.BadParameter("standard input can be read only once", param_hint="--loop")
    report = Report()

    async def once(round_: int, sink: Sink, watch: runner.Watch) -> None:
        async with open_source(file, **places.context()) as source:
            paced = Paced(source, Pacer(**pace), clock=time.monotonic_ns, notify=runner.notices(notes))
            stamped = Stamped(paced, stamp if round_ == 1 else f"{stamp}#{round_}")
            await pump(stamped, sink, where=where, start=start, report=report, watch=watch)

    async def work() -> None:
        if dry_run:
            await rehearse(file, where, start, pace, notes, report)
            return
        async with destination(to, output, notes) as sink:
            watch = runner.Watch(notes, report, title=f"replaying {file}" if to not in (None, "-") else "")
            try:
                for round_ in range(1, loop + 1):
                    await once(round_, sink, watch)
            finally:
                watch.close()

    began = time.monotonic()
    stopped = runner.run(work)
    if not dry_run:
        took = max(time.monotonic() - began, 1e-9)
        actual = f" as {stamp!r} in {took:.1f} s ({report.shown / took:,.0f}/s)"
        notes.say(runner.summary(report, "replayed", actual))
    return runner.interrupted(stopped) if stopped else runner.exit_code(report)


@asynccontextmanager
async def destination(to: str | None, output: Output, notes: Notes) -> AsyncIterator[Sink]:
    """Where a replay goes: an end that is there, or a bus of its own, shown here as `tail` would."""
    from opsml_eventbus.endpoints import open_sink

    if to is not None:
        async with open_sink(to, **places.context()) as sink:
            yield sink
        return
    from opsml_eventbus.endpoints.memory import BusSink
    from opsml_eventbus.endpoints.stdio import StdoutSink
    from opsml_eventbus.stages import Tee

    from .hosting import hosted_bus

    async with hosted_bus(places.endpoint(), notes) as bus:
        if output.pretty:
            from .render import Screen

            yield Tee(BusSink(bus), Screen(output.color))
        else:
            yield Tee(BusSink(bus), StdoutSink())


async def rehearse(
    file: str, where: object, start: object, pace: dict[str, object], notes: Notes, report: Report
) -> None:
    """Read what would be replayed; say how much, how long, and what is out of order or no event."""
