"""A thread beside the one that writes: what is finished is looked through, compressed and removed there, so that
nobody's acknowledgement waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import EventError
from .compress import compress_segment, remove_segment
from .segments import Segment


class Tidy:
    """Looking for what is too old, removing and compressing, in order, in a thread that is started when there is
    something to do.

    What fails is told and left: the next rotation or start tries again.
    """

    def __init__(self, path: Path, note: Callable[[str, str], None]) -> None:
        self._path = path
        self._note = note
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._queued: set[tuple[str, Path | None]] = set()

    def look(self, action: Callable[[], None]) -> None:
        """Do what decides which files are to be removed."""
        self._put(_Job("pruning", "put off", action))

    def remove(self, segment: Segment) -> None:
        def action() -> None:
            remove_segment(segment)
            self._note("pruned", f"removed {segment.path.name}")

        self._put_once("pruning", segment, action)

    def compress(self, segment: Segment, compression: str) -> None:
        def action() -> None:
            if segment.path.exists():
                compress_segment(segment, compression)

        self._put_once("compression", segment, action)

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

    def _put_once(self, kind: str, segment: Segment, action: Callable[[], None]) -> None:
        job = _Job(kind, f"{segment.path.name} is left as it is", action, segment.path)
        if (kind, segment.path) not in self._queued:
            self._queued.add((kind, segment.path))
            self._put(job)

    def _put(self, job: _Job) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"journal {self._path.name}: tidy", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.action()
            except (OSError, ValueError, EOFError, EventError) as error:
                self._note(job.kind, f"{job.failing}: {why(error)}")
            finally:
                self._queued.discard((job.kind, job.path))


class _Job(NamedTuple):
    """failing: what is said when the action fails."""

    kind: str
    failing: str
    action: Callable[[], None]
    path: Path | None = None


def why(error: Exception) -> str:
    """One clause."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
