"""A thread beside the one that writes: what is finished is looked through, compressed and removed there, so that
nobody's acknowledgement waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .compress import compress_segment, remove_segment
from .retention import Going, Retention
from .segments import Segment, list_log
from .sign import Signer


class Tidy:
    """Looks for what is too old, removes and compresses, in order, in a thread that is started when there is something
    to do. The writing thread asks it to look, is told by a call of `ready`, declares what was found, has it cleared.

    What fails is told and left: the next rotation or start tries again.
    """

    def __init__(
        self,
        path: Path,
        keep: int | None,
        compression: str | None,
        signer: Signer | None,
        note: Callable[[str, str], None],
        ready: Callable[[], None],
    ) -> None:
        self._path = path
        self._keep = keep
        self._compression = compression
        self._signer = signer
        self._note = note
        self._ready = ready
        self._retention: Retention | None = None
        self._found: queue.SimpleQueue[list[Going]] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._leaving: set[int | None] = set()  # files that are to be removed; a look may still have found them there

    def look(self, log: str) -> None:
        """See which of the finished files of the log with this id have to go. It may have to read some."""
        if self._keep is None:
            self.clear([])
            return
        if self._retention is None:
            self._retention = Retention(self._path, self._keep, log, self._signer)
        self._put(_Job("pruning", "put off", partial(self._look, self._retention)))

    def found(self) -> list[Going] | None:
        """What a look has found and is not cleared already, None when no look has ended since."""
        try:
            going = self._found.get_nowait()
        except queue.Empty:
            return None
        return [gone for gone in going if gone.segment.first not in self._leaving]

    def clear(self, going: Iterable[Going]) -> None:
        """Remove these, the oldest first; compress the others."""
        if leaving := [gone.segment for gone in going]:
            self._leaving.update(segment.first for segment in leaving)
            self._put(_Job("pruning", "put off", partial(self._remove, leaving)))
        if self._compression is not None:
            self._put(_Job("compression", "put off", partial(self._compress, self._compression)))

    def wait(self) -> None:
        """Until what was asked for is done."""
        if self._thread is not None:
            done = threading.Event()
            self._put(_Job("", "", done.set))
            done.wait()

    def stop(self) -> None:
        """Finish what was asked for. The log stays locked until then."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _look(self, retention: Retention) -> None:
        going: list[Going] = []
        try:
            going = retention.going()
        finally:
            self._found.put(going)
            self._ready()

    def _remove(self, segments: Sequence[Segment]) -> None:
        """One that cannot be removed keeps those behind it: a log has a beginning that is declared, and no hole."""
        for index, segment in enumerate(segments):
            try:
                self._remove_oldest(segment)
            except (OSError, ValueError) as error:
                self._leaving.difference_update(left.first for left in segments[index:])
                raise ValueError(f"{segment.path.name} cannot be removed: {_why(error)}") from error
            self._note("pruned", f"removed {segment.path.name}")

    def _remove_oldest(self, segment: Segment) -> None:
        """What could not be removed by an earlier job may stand before it."""
        oldest = list_log(self._path).sealed[:1]
        if oldest and (oldest[0].first or 0) < (segment.first or 0):
            raise ValueError(f"{oldest[0].name} is there before it")
        remove_segment(segment)

    def _compress(self, compression: str) -> None:
        """Whatever is finished and plain by now."""
        for segment in list_log(self._path).sealed:
            if not segment.packed:
                try:
                    compress_segment(segment, compression)
                except Exception as error:  # noqa: BLE001 - the others can be compressed even so
                    self._note("compression", f"{segment.path.name} is left as it is: {_why(error)}")

    def _put(self, job: _Job) -> None:
        self._jobs.put(job)
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name=f"journal {self._path.name}: tidy", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has none left: what is queued waits for the next one to be asked for
            self._note(job.kind, f"{job.failing}: {error}")
        else:
            self._thread = thread

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.action()
            except Exception as error:  # noqa: BLE001 - whatever it is, the writing thread waits for this one
                self._note(job.kind, f"{job.failing}: {_why(error)}")


class _Job(NamedTuple):
    """failing: what is said when the action fails."""

    kind: str
    failing: str
    action: Callable[[], None]


def _why(error: Exception) -> str:
    """One clause."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
