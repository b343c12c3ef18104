"""A thread beside the one that writes: what is finished is compressed and removed there, so that nobody's
acknowledgement waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

from ..errors import EventError
from .compress import compress_segment, remove_segment
from .segments import Segment


class Tidy:
    """Compressing and removing finished files, in order, in a thread that is started when there is something to do.

    What fails is told and left: the plain file is still there, and the next rotation or start tries again.
    """

    def __init__(self, path: Path, compression: str | None, note: Callable[[str, str], None]) -> None:
        self._path = path
        self._compression = compression
        self._note = note
        self._jobs: queue.SimpleQueue[tuple[str, Segment] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._queued: set[Path] = set()

    def compress(self, segment: Segment) -> None:
        if segment.path not in self._queued:
            self._queued.add(segment.path)
            self._put("compression", segment)

    def remove(self, segment: Segment) -> None:
        self._put("pruning", segment)

    def stop(self) -> None:
        """Finish what was asked for. The log stays locked until then."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _put(self, kind: str, segment: Segment) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"journal {self._path.name}: tidy", daemon=True)
            self._thread.start()
        self._jobs.put((kind, segment))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            kind, segment = job
            try:
                if kind == "pruning":
                    remove_segment(segment)
                    self._note("pruned", f"removed {segment.path.name}")
                elif self._compression is not None and segment.path.exists():
                    compress_segment(segment, self._compression)
            except (OSError, ValueError, EOFError, EventError) as error:
                self._note(kind, f"{segment.path.name} is left as it is: {why(error)}")
            finally:
                self._queued.discard(segment.path)


def why(error: Exception) -> str:
    """One clause."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
