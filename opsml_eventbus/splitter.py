"""Bytes in, lines out. A line that is too long is counted, not kept."""

from __future__ import annotations

from collections.abc import Iterator

from .codec import MAX_EVENT_BYTES, PLACE_BYTES
from .errors import MalformedLine


class LineSplitter:
    """Chunks of bytes in, whole lines out. A line over `limit` bytes comes out once, as a MalformedLine."""

    def __init__(self, limit: int = MAX_EVENT_BYTES + PLACE_BYTES) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._pending = 0  # bytes of the line begun, those already thrown away included

    @property
    def pending(self) -> int:
        """Bytes of a line that has begun and not ended."""
        return self._pending

    def feed(self, chunk: bytes) -> Iterator[bytes | MalformedLine]:
        """The lines that end in this chunk, each without its newline."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._add(chunk[start:end])
            yield self._take()
            start = end + 1
        self._add(chunk[start:])

    def end(self) -> bytes | MalformedLine | None:
        """What is left when the stream ends: a line without a newline, or None."""
        return self._take() if self._pending else None

    def _add(self, part: bytes) -> None:
        if part:
            self._pending += len(part)
            if self._pending <= self._limit:
                self._parts.append(part)
            else:
                self._parts.clear()  # too long: only its length is of interest now

    def _take(self) -> bytes | MalformedLine:
        pending, self._pending = self._pending, 0
        line = b"".join(self._parts)
        self._parts.clear()
        if pending > self._limit:
            return MalformedLine(f"{pending:,} bytes; a line may have {MAX_EVENT_BYTES:,}", length=pending)
        return line
