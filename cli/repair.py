"""`eventbus repair`: mend a log that recovery refuses."""

from __future__ import annotations

from typing import Annotated

import typer

from . import places, runner
from .options import Output, takes


@takes(Output)
def repair(
    file: Annotated[str, typer.Argument(metavar="FILE|DIR", help="A log by its live path, or the folder it is in.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is damaged, change nothing.")] = False,
    *,
    output: Output,
) -> int:
    """Cut a log behind its last sound line, and write anew what can be saved. What is replaced is kept beside it.

    A repaired log says that it was: `eventbus verify` counts how often, the log's `recovered` records name the copies.
    """
    from opsml_eventbus import journal
    from opsml_eventbus.errors import Unreachable, reason

    from .render import mended, say

    path = places.log(file)
    try:
        done = journal.Repair(journal.find_damage(path)) if dry_run else journal.repair(path)
    except OSError as error:
        raise Unreachable(file, reason(error)) from error
    if output.pretty:
        say(mended(file, done, dry_run=dry_run), output.color)
    else:
        import msgspec

        from .terminal import answer

        answer(msgspec.json.encode({"file": file, "done": done}, enc_hook=str).decode() + "\n")
    return runner.MALFORMED if dry_run and done.finding is not None else runner.DONE
