"""A journal as a sink: every file that the command line writes is one (`journal/`).

Acknowledged means what the fsync policy says: with `always`, on disk. A last line that a crash cut off is kept beside
the file and taken out of it when the journal is opened; damage that no crash explains is refused. A write that fails is
undone and refused; an fsync that fails is final.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from ..errors import (
    AlreadyThere,
    InvalidEvent,
    JournalFailed,
    JournalRefused,
    JournalTaken,
    Unencodable,
    UnknownEnd,
    Unreachable,
    reason,
)
from ..flow import Ack, Batch, Notice, Notify, Record, Refusal, Sink, no_notice
from ..journal import Journal, Recovery, discard_log, last_id
from ..journal import Notice as JournalNotice
from ..journal.disk import make_folder
from ..journal.format import PLACE_BYTES
from ..journal.segments import check_live, list_log
from ..journal.succession import begins_as_journal

OWN_BYTES = 2048  # of a file, at least: what its own first and last line take
Mode = Literal["create", "append", "overwrite"]


class JournalSink(Sink):
    """A journal that is written.

    mode: `create` (nothing of this log may be there), `append` (go on behind its end), `overwrite` (remove what there
    is of it, finished files too). A missing folder is made, 0700. options: as `Journal`'s.

    Raises UnknownEnd: a name no log can have. Entering raises AlreadyThere, Unreachable, and what `Journal` raises.
    """

    def __init__(self, path: str | Path, *, mode: Mode = "create", notify: Notify = no_notice, **options: Any) -> None:
        self._path = Path(path)
        self.name = str(path)
        try:
            check_live(self._path)
        except JournalRefused as error:
            raise UnknownEnd(self.name, error.reason) from error
        self._mode = mode
        self._most_lines = options.get("rotate_count") or sys.maxsize
        self._most_bytes = max(1, (options.get("rotate_size") or sys.maxsize) - OWN_BYTES)
        self._notify = notify
        self._failure: str | None = None  # why the journal is finished, as long as nobody was told
        self._always = options.get("fsync", "always") == "always"
        self._journal = Journal(self._path, on_notice=self._told, **options)

    @property
    def recovery(self) -> Recovery:
        """What had to be mended when it was opened."""
        return self._journal.recovery

    async def __aenter__(self) -> Self:
        try:
            make_folder(self._path.parent)
        except OSError as error:
            raise Unreachable(self.name, reason(error)) from error
        log = list_log(self._path)
        if log.segments and self._mode == "create":
            raise AlreadyThere(self.name, "exists already")
        try:
            if self._mode == "overwrite":
                _remove(self._path)
            await self._journal.__aenter__()
        except OSError as error:
            raise Unreachable(str(error.filename or self.name), reason(error)) from error
        return self

    def pieces(self, batch: Batch) -> Iterable[Batch]:
        """Pieces that fit into one file each: a file is finished only between two of them."""
        seen, refusals, begin, size = batch.seen, batch.refusals, 0, 0
        limited = self._most_lines < len(batch.records) or self._most_bytes < sys.maxsize - OWN_BYTES
        for index, record in enumerate(batch.records if limited else ()):
            length = _length(record)
            size += length
            if index > begin and (index - begin >= self._most_lines or size > self._most_bytes):
                yield Batch(batch.records[begin:index], None, seen, refusals)
                seen, refusals, begin, size = 0, [], index, length
        yield Batch(batch.records[begin:], batch.position, seen, refusals)

    async def write(self, batch: Batch) -> Ack:
        """See Sink. Raises WriteRefused (this batch is not in the file), JournalFailed (nothing more is written)."""
        lines, refusals = batch.encode()
        work = asyncio.ensure_future(self._journal.append(lines))
        cancelled = False
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                cancelled = True  # it is written all the same, if it can be: so it is waited for, and counted
                self.hasten()
        if isinstance(work.exception(), JournalFailed):
            self._failure = None
        written = work.result()
        if cancelled and (task := asyncio.current_task()) is not None:
            task.uncancel()  # the one that was caught, so that whoever counts them (a timeout) sees one
            task.cancel()  # felt at the next wait, when the batch has been acknowledged
        # What came here could be written: it was redacting that made it what cannot be.
        refusals += [Refusal(self.name, Unencodable("an event that cannot be redacted"))] * written.refused
        return Ack(len(lines), self._always, refusals)

    def hasten(self) -> None:
        """See Sink: a full disk is not waited for any more."""
        self._journal.stop_blocking()

    def last_id(self) -> str | None:
        """The id of the last event in the log, to go on behind it."""
        return last_id(self._path)

    async def close(self) -> None:
        """Write what is queued, sync, leave a checkpoint. Raises JournalFailed: it had failed, untold."""
        try:
            await self._journal.close()
        except JournalFailed as error:
            self._failure = error.reason
        failure, self._failure = self._failure, None
        if failure is not None:
            # (Asked when it is closed: its thread may be about to say why when the closing begins.)
            kind = JournalTaken if isinstance(self._journal.failed, JournalTaken) else JournalFailed
            raise kind(self.name, failure)

    def _told(self, notice: JournalNotice) -> None:
        if notice.kind == "failed":
            self._failure = notice.detail  # an error's to say: of the write that is waiting, or of `close`
        else:
            self._notify(Notice(notice.kind, self.name, notice.detail))


def _length(record: Record) -> int:
    try:
        return len(record.line) + PLACE_BYTES
    except InvalidEvent:  # a Gap stands for it
        return PLACE_BYTES


def _remove(live: Path) -> None:
    """Remove what stands at this name: a log with its finished files, or a plain file. Raises as `discard_log`."""
    log = list_log(live)
    alone = [segment.path for segment in log.segments] == [live]
    if alone and live.is_file() and not live.is_symlink() and not begins_as_journal(log.segments[0]):
        live.unlink()
    else:
        discard_log(live)
