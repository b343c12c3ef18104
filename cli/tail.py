"""`eventbus tail`: the last events, then live ones."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from . import options, places, runner
from .options import Ending, Output, Selection, Window, takes


@takes(Ending, Selection, Window, Output)
def tail(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]…", help="A bus by name or unix:/path.sock, a file, sqlite:///opsml.db, or -."),
    ] = None,
    n: Annotated[str | None, typer.Option("-n", metavar="N|all", help="Events of what is there already. [10]")] = None,
    follow: Annotated[
        bool | None,
        typer.Option("--follow/--no-follow", "-f", help="Go on with new events. Default: not for files and pipes."),
    ] = None,
    *,
    ending: Ending,
    selection: Selection,
    window: Window,
    output: Output,
) -> int:
    """Show the last 10 matching events, then live ones. A file ends there, unless -f."""
    from opsml_eventbus.endpoints import open_source
    from opsml_eventbus.flow import Report, pump
    from opsml_eventbus.stages import Limited, Merged

    notes = output.notes()
    where = selection.filter(notes)
    bounds = window.bounds(notes)
    seconds = ending.seconds
    if bounds[1] is not None:
        # Nothing that is still to come can be before a moment that has passed.
        left = (bounds[1] - time.time_ns()) / 1e9
        follow = False if left <= 0 else follow
        if left > 0:
            seconds = left if seconds is None else min(left, seconds)
    report = Report()
    sink = output.sink()

    async def work() -> None:
        async with AsyncExitStack() as stack:
            context = places.context(wait=not ending.no_wait, notify=runner.notices(notes))
            names = [places.named(name) for name in sources or []] or [places.source(None, notes)]
            opened = [await stack.enter_async_context(open_source(name, **context)) for name in names]
            # Asked for nothing else, a file beside a bus ends as it would alone.
            source = opened[0] if len(opened) == 1 else Merged(opened, follow_finite=follow is True)
            live = not source.finite if follow is None else follow
            start = options.start(n, bounds, window.position(*names), default=10, follow=live)
            if ending.count is not None:
                source = Limited(source, ending.count)
            with runner.Watch(notes) as watch:
                await pump(source, sink, where=where, start=start, report=report, watch=watch)

    gone = getattr(sink, "gone", None)
    with runner.summed_up(report, lambda: notes.say(runner.summary(report, "shown"))):
        runner.run(work, seconds=seconds, gone=gone)
    return runner.exit_code(report, fail_on_loss=ending.fail_on_loss)
