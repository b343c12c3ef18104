"""`eventbus ls`: the live buses of this machine."""

from __future__ import annotations

import asyncio
import time

from . import places, runner
from .options import Output, takes


@takes(Output)
def ls(*, output: Output) -> int:
    """List the live buses: name, process, since when, clients, events a second, lost."""
    from opsml_eventbus.endpoints.tap import live_taps

    notes = output.notes()
    folder = places.folder()
    taps = asyncio.run(live_taps(folder))
    if not output.pretty:
        import msgspec

        from .terminal import answer

        for tap in taps:
            answer(msgspec.json.encode(tap, enc_hook=str).decode() + "\n")
        return runner.DONE
    if not taps:
        notes.say(f"no live bus in {folder} (`eventbus demo` starts one)")
        return runner.DONE
    from .render import table
    from .terminal import console

    now = time.time_ns()
    console(color=output.color).print(table(taps, now))
    return runner.DONE
