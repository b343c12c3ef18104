"""Removing a whole log, to begin another under its name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import JournalRefused
from .disk import Lock, hold, open_file, sync_folder
from .segments import list_log
from .succession import begins_as_journal


def discard_log(path: str | Path) -> list[Path]:
    """Remove the live file and every finished file of the log at `path`; what was removed. What recoveries and repairs
    kept aside stays.

    Raises OSError; JournalBusy: someone writes it. JournalRefused: a file among them is no journal's, and nothing was
    removed.
    """
    live = Path(path)
    log = list_log(live)
    if not log.segments:
        return []
    with contextlib.ExitStack() as held:
        lock = Lock(live)
        held.callback(lock.release)
        with contextlib.suppress(FileNotFoundError):
            descriptor = open_file(live, os.O_RDONLY)
            held.callback(os.close, descriptor)
            hold(live, descriptor)
        log = list_log(live)
        for segment in log.segments:
            if segment.path.stat().st_size and not begins_as_journal(segment):
                raise JournalRefused(str(segment.path), "it is no journal: its first line is no open record")
        # The newest first: what is left by a kill is the beginning of a log, not a log without one.
        removed = [*log.stale, *(segment.path for segment in reversed(log.segments))]
        for file in removed:
            file.unlink()
        sync_folder(live.parent)
    return removed
