"""What the thread that owns a log's file is asked to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from .format import PLACE_BYTES, Tally, format_bound


class Ack(NamedTuple):
    """seq: of the last line written by this append. durable: the last seq on disk. refused: events that could not be
    written at all; a Gap (`invalid`) stands for each."""

    seq: int
    durable: int
    refused: int = 0


class Append(msgspec.Struct, frozen=True):
    """Lines to be written together. times: of some of them, in ns; texts: of the others, as they stand there.
    size: their bytes. future: of `loop`, to be resolved with an Ack."""

    lines: Sequence[bytes]
    times: Sequence[int]
    texts: Sequence[bytes]
    size: int
    refused: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Ack]

    @property
    def size_in_file(self) -> int:
        """Bytes that its lines take there."""
        return self.size + PLACE_BYTES * len(self.lines)


class Rotate(NamedTuple):
    """Finish the current file now."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Ack]


class Close(NamedTuple):
    """Write what is queued, and end."""


class Prune(NamedTuple):
    """What is too old was looked for."""


Job = list[Append] | Rotate | Close | Prune


def tally_of(batch: Sequence[Append]) -> Tally:
    """Of all their lines."""
    times = [time for job in batch for time in job.times]
    texts = [text for job in batch for text in job.texts]
    if times:
        texts += format_bound(min(times)), format_bound(max(times))
    return Tally(sum(len(job.lines) for job in batch), min(texts).decode(), max(texts).decode())
