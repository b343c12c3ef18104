"""`eventbus repair`: mend a log that recovery refuses."""

from __future__ import annotations

from typing import Annotated

import typer

from . import runner
from .options import Output, takes


@takes(Output)
def repair(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A log by its live path.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is damaged, change nothing.")] = False,
    *,
    output: Output,
) -> int:
    """Cut a log behind its last sound line, and write anew what can be saved. What is replaced is kept beside it.

    A repaired log says that it was: `eventbus verify` shows where.
    """
    from opsml_eventbus import journal
    from opsml_eventbus.errors import Unreachable

    from .render import counted

    notes = output.notes()
    try:
        if dry_run:
            finding = journal.find_damage(file)
            notes.tell(f"{file}: nothing to mend" if finding is None else f"would mend: {finding}")
            return runner.DONE if finding is None else runner.MALFORMED
        done = journal.repair(file)
    except OSError as error:
        raise Unreachable(file, (error.strerror or str(error)).lower()) from error
    if done.finding is None:
        notes.tell(f"{file}: nothing to mend")
        return runner.DONE
    notes.tell(f"mended: {done.finding}")
    notes.tell(
        f"{done.cut:,} bytes cut, {counted(done.salvaged, 'event')} of them written anew, "
        f"{counted(done.lost, 'piece')} not whole"
    )
    for copy in done.kept:
        notes.tell(f"kept: {copy}")
    return runner.DONE
