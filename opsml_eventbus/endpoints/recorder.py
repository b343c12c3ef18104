"""A journal as a sink: every file that the command line writes is one (`journal/`).

Acknowledged means what the fsync policy says: with `always`, on disk. A last line that a crash cut off is kept beside
the file and taken out of it when the journal is opened; damage that no crash explains is refused. A write that fails is
undone and refused; an fsync that fails is final.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from ..errors import AlreadyThere, UnknownEnd, Unreachable
from ..flow import Ack, Batch, Notice, Notify, Sink, no_notice
from ..journal import Journal, Recovery, discard_log, last_id
from ..journal import Notice as JournalNotice
from ..journal.segments import list_log
from ..journal.succession import peek_open

Mode = Literal["create", "append", "overwrite"]


class JournalSink(Sink):
    """A journal that is written.

    mode: `create` (nothing of this log may be there), `append` (go on behind its end), `overwrite` (remove what there
    is of it, finished files too). A missing folder is made, 0700. options: as `Journal`'s.

    Entering raises AlreadyThere, UnknownEnd, Unreachable, and what `Journal` raises.
    """

    def __init__(self, path: str | Path, *, mode: Mode = "create", notify: Notify = no_notice, **options: Any) -> None:
        self._path = Path(path)
        self.name = str(path)
        if self._path.suffix in (".gz", ".zst"):
            raise UnknownEnd(self.name, "compressed files are read, not written; record to a .jsonl file")
        self._mode = mode
        self._always = options.get("fsync", "always") == "always"
        self._journal = Journal(self._path, on_notice=_forward(notify, self.name), **options)

    @property
    def recovery(self) -> Recovery:
        """What had to be mended when it was opened."""
        return self._journal.recovery

    async def __aenter__(self) -> Self:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unreachable(self.name, (error.strerror or str(error)).lower()) from error
        log = list_log(self._path)
        if log.segments and self._mode == "create":
            raise AlreadyThere(self.name, "exists already")
        if self._mode == "overwrite":
            _remove(self._path)
        try:
            await self._journal.__aenter__()
        except OSError as error:
            raise Unreachable(self.name, (error.strerror or str(error)).lower()) from error
        return self

    async def write(self, batch: Batch) -> Ack:
        """See Sink. Raises WriteRefused (this batch is not in the file), JournalFailed (nothing more is written)."""
        lines, refusals = batch.encode()
        work = asyncio.ensure_future(self._journal.append(lines))
        cancelled = False
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                cancelled = True  # it is written all the same: so it is waited for, and counted
        work.result()
        if cancelled and (task := asyncio.current_task()) is not None:
            task.cancel()  # felt at the next wait, when the batch has been acknowledged
        return Ack(len(lines), self._always, refusals)

    def last_id(self) -> str | None:
        """The id of the last event in the log, to go on behind it."""
        return last_id(self._path)

    async def close(self) -> None:
        """Write what is queued, sync, leave a checkpoint."""
        await self._journal.close()


def _remove(live: Path) -> None:
    """Remove what stands at this name: a log with its finished files, or a plain file. Raises as `discard_log`."""
    log = list_log(live)
    alone = [segment.path for segment in log.segments] == [live]
    if alone and live.is_file() and not live.is_symlink() and peek_open(log.segments[0]) is None:
        live.unlink()
    else:
        discard_log(live)


def _forward(notify: Notify, name: str) -> Callable[[JournalNotice], None]:
    def tell(notice: JournalNotice) -> None:
        notify(Notice(notice.kind, name, notice.detail))

    return tell
