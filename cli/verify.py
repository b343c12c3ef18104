"""`eventbus verify`: is a log what was written?"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Annotated

import typer

from . import options, places
from .options import Output, takes

if TYPE_CHECKING:
    from opsml_eventbus.journal import Finding, Report

SHOWN = 100  # findings drawn one by one; `-o json` has every one
SPOOL_BYTES = 4 << 20  # of findings held in memory: a log whose line ends were changed has one a line


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
    from tempfile import SpooledTemporaryFile

    import msgspec

    from opsml_eventbus.errors import JournalRefused, UnknownEnd, Unreachable, reason
    from opsml_eventbus.journal import parse_head, verify_journal

    from .terminal import Progress

    notes = output.notes()
    places.named(file)
    head = options.parsed("--expect", parse_head, expect)
    key = None if public_key is None else options.readable("--public-key", public_key)
    with SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:

        def put_aside(finding: Finding) -> None:
            spool.write(msgspec.json.encode(finding) + b"\n")

        found = None if output.pretty else put_aside
        try:
            with Progress(notes, f"verifying {file}") as progress:
                report = verify_journal(
                    file, expect=head, public_key=key, on_progress=progress, on_finding=found, keep=SHOWN
                )
        except JournalRefused as error:
            raise UnknownEnd(error.path, error.reason) from error
        except OSError as error:
            raise Unreachable(str(error.filename or file), reason(error)) from error
        if not output.pretty:
            _write_json(report, spool)
            return report.exit
    from .render import counted, say, verdict

    lines = [str(finding) for finding in report.findings]
    if report.count > SHOWN:
        lines.append(f"… and {report.count - SHOWN:,} more (-o json lists them)")
    size = f"{counted(report.events, 'event')} in {counted(len(report.files), 'file')}"
    lines.append(verdict(report.verdict, f"{file}: {size}"))
    if report.lines:
        signed = f" · signed to seq {report.signed:,}" if report.signed is not None else ""
        lines.append(f"head {report.head} · durable to seq {report.durable:,}{signed}")
    if report.recovered:
        times = counted(report.recovered, "time")
        lines.append(f"cut {times} by a recovery or a repair; its `recovered` records name the copies")
    say(lines, output.color)
    return report.exit


def _write_json(report: Report, spool: IO[bytes]) -> None:
    """The report as one JSON document, every finding in it: only now is it known what was torn and what altered."""
    import msgspec

    from opsml_eventbus.journal import Finding

    from .terminal import answer

    decode = msgspec.json.Decoder(Finding).decode
    members = {name: value for name, value in report.as_dict().items() if name != "findings"}
    answer(msgspec.json.encode(members).decode()[:-1] + ',"findings":[')
    separator = ""
    spool.seek(0)
    for line in spool:
        answer(separator + msgspec.json.encode(decode(line).judged(report.durable)).decode())
        separator = ","
    answer("]}\n")
