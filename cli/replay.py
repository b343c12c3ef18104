"""`eventbus replay`: a recording back onto a bus, at its own pace or another."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options, places, runner, values
from .options import Output, Selection, Window, takes

if TYPE_CHECKING:
    from opsml_eventbus.flow import Sink
    from opsml_eventbus.pacing import Pacer
    from opsml_eventbus.stages import Rehearsal

    from .terminal import Notes

PACE = "Pace"


@takes(Selection, Window, Output)
def replay(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A recording: .jsonl, .jsonl.gz, or -.")],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="SINK", help="A live bus, a file, or -. Default: a bus of its own, shown here."),
    ] = None,
    speed: Annotated[
        str | None,
        typer.Option(metavar="2x|max", help="Faster or slower than recorded. [1x]", rich_help_panel=PACE),
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="50/s", help="At most so many a second.", rich_help_panel=PACE)
    ] = None,
    max_gap: Annotated[
        str | None, typer.Option(metavar="TIME", help="Shorten longer pauses to this.", rich_help_panel=PACE)
    ] = None,
    loop: Annotated[int, typer.Option(min=1, metavar="N", help="So many times.", rich_help_panel=PACE)] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the last replay of FILE was stopped.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read it all, send nothing, say what would happen.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Stamped on every event. [the file and the time]")] = None,
    *,
    selection: Selection,
    window: Window,
    output: Output,
) -> int:
    """Put a recording back onto a bus. Ids and times stay; every event is stamped with the replay's name."""
    from opsml_eventbus.endpoints import open_source
    from opsml_eventbus.flow import Report, Start, pump
    from opsml_eventbus.journal.segments import printable
    from opsml_eventbus.pacing import Pacer
    from opsml_eventbus.stages import Committing, Paced, Rehearsal, Stamped

    from .bookmark import Bookmark, identity

    notes = output.notes()
    where = selection.filter(notes)
    since, until = window.bounds(notes)
    places.named(file)
    position = window.position(file)
    start = Start(position=position, since=since, until=until)
    if loop > 1 and file == "-":
        raise typer.BadParameter("standard input can be read only once", param_hint="--loop")
    stem = printable(Path(file).name.split(".")[0].strip("-")) or "stdin"
    stamp = name or f"{stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    bookmark = Bookmark(None, stamp) if file == "-" else Bookmark(places.bookmark(file), stamp, identity(file))
    if resume:
        if file == "-":
            raise typer.BadParameter("standard input cannot be read again", param_hint="--resume")
        gone_on = bookmark.open(name)
        notes.say(gone_on or f"{file}: no replay was stopped; beginning at the beginning")
        resume = gone_on is not None or _is_empty(to)
    pacer = Pacer(
        speed=options.parsed("--speed", values.speed, speed),
        rate=options.parsed("--rate", values.rate, rate),
        max_gap=options.parsed("--max-gap", values.duration_ns, max_gap),
    )
    report = Report()

    async def rehearse() -> None:
        rehearsal = Rehearsal(pacer)
        with runner.Watch(notes) as watch:
            for _ in range(loop):
                async with open_source(file, **places.context()) as source:
                    await pump(source, rehearsal, where=where, start=start, report=report, watch=watch)
                pacer.rewind()
        for line in (runner.summary(report, "would be replayed"), *forecast(rehearsal, pacer)):
            notes.tell(line)

    async def work() -> None:
        # The recording first: a bus that is hosted for nothing would make others connect to it.
        open_source(file, **places.context())
        async with destination(to, output, notes, append=resume) as sink:
            bookmark.save()  # whoever is killed from here on may have sent something, and can go on
            title = f"replaying {file}" if to not in (None, "-") else ""
            try:
                with runner.Watch(notes, title=title) as watch:
                    for round_ in range(bookmark.round, loop + 1):
                        stopped_at = bookmark.begin(round_)
                        begin = start if stopped_at is None else replace(start, position=stopped_at)
                        async with open_source(file, **places.context()) as source:
                            paced = Paced(source, pacer, clock=time.monotonic_ns, notify=runner.notices(notes))
                            committing = Committing(Stamped(paced, bookmark.stamp), bookmark.put)
                            await pump(committing, sink, where=where, start=begin, report=report, watch=watch)
                        pacer.rewind()
            finally:
                bookmark.save()

    def say() -> None:
        from .render import duration

        pace = pacer.pace(time.monotonic_ns())
        timed = pace.requested_rate is not None and pacer.speed != math.inf
        wanted = f" of {pace.requested_rate:,.1f}/s asked for" if timed else ""
        actual = "" if pace.actual_rate is None else f", {pace.actual_rate:,.1f}/s{wanted}"
        notes.say(runner.summary(report, "replayed", f" as {bookmark.name!r} in {duration(pace.taken)}{actual}"))

    if dry_run:
        stopped = runner.run(rehearse)
    else:
        with runner.summed_up(report, say):
            stopped = runner.run(work)
        if not stopped:
            bookmark.forget()  # last: whoever is killed before it goes on behind everything, and repeats nothing
        elif bookmark.kept:
            notes.say("the same command with --resume goes on from here")
    return runner.interrupted(stopped) if stopped else runner.exit_code(report)


def _is_empty(to: str | None) -> bool:
    """Is it a log without an event? A replay that was stopped before its first one has made it."""
    from opsml_eventbus.errors import JournalError
    from opsml_eventbus.journal import last_id

    try:
        return to is not None and last_id(to) is None
    except (OSError, JournalError):
        return False


@asynccontextmanager
async def destination(to: str | None, output: Output, notes: Notes, *, append: bool) -> AsyncIterator[Sink]:
    """Where a replay goes: an end that is there, or a bus of its own, shown here as `tail` would."""
    from opsml_eventbus.endpoints import open_sink
    from opsml_eventbus.endpoints.memory import BusSink
    from opsml_eventbus.stages import Tee

    from .hosting import hosted_bus

    if to is not None:
        # What was killed while it wrote to a file goes on behind what is there.
        mode = "append" if append else "create"
        async with open_sink(
            places.named(to, "stdout"), **places.context(mode=mode, notify=runner.notices(notes))
        ) as sink:
            yield sink
    else:
        async with hosted_bus(places.endpoint(), notes, patient=True) as bus:
            yield Tee(BusSink(bus), output.sink())


def forecast(rehearsal: Rehearsal, pacer: Pacer) -> list[str]:
    """What a dry run found: from when to when, how long at this pace, how much of it out of order."""
    if rehearsal.first is None or rehearsal.last is None:
        return []
    from opsml_eventbus.timestamps import format_time

    from .render import duration

    return [
        f"from {format_time(rehearsal.first)} to {format_time(rehearsal.last)}",
        f"takes {duration(pacer.planned)} at this pace; {pacer.backwards:,} out of order",
    ]
