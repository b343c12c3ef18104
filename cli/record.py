"""`eventbus record`: a source into a file that keeps what it acknowledged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import options, places, runner
from .options import Ending, Journaling, Output, Selection, Window, takes


@takes(Ending, Selection, Window, Journaling, Output)
def record(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The JSONL file to write.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="SOURCE", help="A bus, a file, sqlite:///opsml.db, or -.")
    ] = None,
    n: Annotated[
        str | None,
        typer.Option("-n", metavar="N|all", help="Events of what is there already. [of a bus 0, else all]"),
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Go on behind the file's last event.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin the file anew.")] = False,
    record_replays: Annotated[
        bool, typer.Option("--record-replays", help="Also record what a replay puts on the bus.")
    ] = False,
    *,
    ending: Ending,
    selection: Selection,
    window: Window,
    journaling: Journaling,
    output: Output,
) -> int:
    """Write a bus, a table or another file to a JSONL file. Ctrl-C ends it; everything seen is then on disk.

    The file is a journal: plain JSONL whose lines are chained, so that `eventbus verify` finds what was altered.
    """
    from opsml_eventbus.endpoints import FILE, TAP, open_source, scheme_of
    from opsml_eventbus.endpoints.recorder import JournalSink
    from opsml_eventbus.flow import Report, Source, Start, pump
    from opsml_eventbus.stages import Limited, Originals

    if append and overwrite:
        raise typer.BadParameter("--append and --overwrite exclude each other", param_hint="--append")
    mode: Literal["create", "append", "overwrite"] = "append" if append else "overwrite" if overwrite else "create"
    notes = output.notes()
    where = selection.filter(notes)
    bounds = window.bounds(notes)
    seconds = ending.seconds
    if scheme_of(file) is not FILE:
        raise typer.BadParameter(f"{file!r} names no file; a log is called like audit.jsonl", param_hint="FILE")
    journal = journaling.journal()
    name = places.source(from_, notes)
    if name != "-" and Path(name).exists() and places.is_of_log(Path(name), Path(file)):
        raise typer.BadParameter("a file cannot be recorded into itself", param_hint="--from")
    position = window.position(name)
    if append and position is not None:
        reason = "--append goes on behind the last event of FILE, --from-seq begins at a line: give one"
        raise typer.BadParameter(reason, param_hint=options.FROM_SEQ)
    report = Report()

    async def work() -> None:
        context = places.context(wait=not ending.no_wait, notify=runner.notices(notes), foreign=True)
        # The source first: a file that is made for nothing would be in the way of the next try.
        written = JournalSink(file, mode=mode, notify=runner.notices(notes), **journal)
        async with open_source(name, **context) as opened, written as sink:
            source: Source = opened
            originals = None
            if not (record_replays or opened.finite):
                source = originals = Originals(source)
            if ending.count is not None:
                source = Limited(source, ending.count)
            default: Literal[0, "all"] = 0 if scheme_of(name) is TAP else "all"
            start = options.start(n, bounds, position, default=default, follow=not opened.finite)
            last = sink.last_id() if append else None
            if last is not None:
                start = Start(after=last, since=start.since, until=start.until, follow=start.follow)
            try:
                with runner.Watch(notes, title=f"recording {name} to {file}") as watch:
                    await pump(source, sink, where=where, start=start, report=report, watch=watch)
            finally:
                if originals is not None:
                    report.skipped["replayed and left out"] = originals.skipped

    with runner.summed_up(report, lambda: notes.say(runner.summary(report, "recorded", f" ({file})"))):
        runner.run(work, seconds=seconds)
    return runner.exit_code(report, fail_on_loss=ending.fail_on_loss)
