"""`eventbus verify`: is a log what was written?"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import options
from .options import Output, takes

SHOWN = 100  # findings drawn one by one; `-o json` has every one


@takes(Output)
def verify(
    file: Annotated[str, typer.Argument(metavar="FILE|DIR", help="A log by its live path, one file of it, a folder.")],
    expect: Annotated[
        str | None, typer.Option(metavar="SEQ:CHAIN", help="A line that must be there, noted down earlier.")
    ] = None,
    public_key: Annotated[
        str | None, typer.Option("--public-key", metavar="FILE", help="Check the signed heads with this Ed25519 key.")
    ] = None,
    *,
    output: Output,
) -> int:
    """Check a log's chain: 0 sound, 3 torn at its end (or no chain), 5 altered.

    Hashing alone cannot show that a whole log was rewritten or its end cut off: --expect and --public-key can.
    """
    from opsml_eventbus.errors import JournalRefused, UnknownEnd, Unreachable, reason
    from opsml_eventbus.journal import parse_head, verify_journal

    from .terminal import Progress

    notes = output.notes()
    head = options.parsed("--expect", parse_head, expect)
    key = None if public_key is None else options.readable("--public-key", public_key)
    keep = SHOWN if output.pretty else sys.maxsize
    try:
        with Progress(notes, f"verifying {file}") as progress:
            report = verify_journal(file, expect=head, public_key=key, on_progress=progress, keep=keep)
    except JournalRefused as error:
        raise UnknownEnd(file, error.reason) from error
    except OSError as error:
        raise Unreachable(file, reason(error)) from error
    if not output.pretty:
        import msgspec

        sys.stdout.write(msgspec.json.encode(report.as_dict()).decode() + "\n")
        return report.exit
    from .render import counted, say, verdict

    lines = [str(finding) for finding in report.findings]
    if report.count > SHOWN:
        lines.append(f"… and {report.count - SHOWN:,} more (-o json lists them)")
    size = f"{counted(report.events, 'event')} in {counted(len(report.files), 'file')}"
    lines.append(verdict(report.verdict, f"{file}: {size}"))
    if report.lines:
        lines.append(f"head {report.head} · durable to seq {report.durable:,}")
    say(lines, output.color)
    return report.exit
