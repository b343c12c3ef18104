"""The writer: `async with Journal(path) as journal: ack = await journal.append(events)`.

One thread owns the file. Whatever was queued while it wrote and synced the last batch is the next one (group commit):
strictly write, sync, acknowledge, next. So an acknowledgement means

    fsync="always"        on disk
    fsync="interval=1s"   in the file; on disk within a second, and `Ack.durable` says how far it is already
    fsync="never"         handed to the operating system

A batch that is refused (`WriteRefused`) is not in the file; after `JournalFailed` it may or may not be. In both cases
send the same events again: an event's id makes a repetition harmless. A cancelled `append` is still written.

When nothing has come for a second, what was written is synced and a checkpoint says so; closing does the same.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ..codec import MAX_EVENT_BYTES, decode_line, encode_line, strip_place
from ..errors import EventError, InvalidEvent, JournalFailed, JournalRefused, TypeRefused
from ..event import GAP_TYPE, OWN_PREFIX, Event, Gap
from .committer import Committer, Policy
from .compress import check_compression
from .format import CHAIN_BYTES, Head, format_bound
from .jobs import Ack, Append, Rotate
from .lines import is_text
from .live import Fsync, Notify
from .recovery import Recovery
from .redact import Redaction
from .segments import check_live
from .sign import Signer

Item = Event | Gap | bytes
LONGEST_SECONDS = 100 * 365.25 * 86400  # nothing is due later: a thread can wait for three times that
# How a canonical line begins: no quote is escaped in its first members, and its type is not one of our own.
_canonical = re.compile(
    rb'\{"specversion":"1\.0","id":"[^"\\]++","source":"[^"\\]++","type":"(?!eventbus\.(?!gap"))[^"\\]++",'
    # A leap second is not: as text it stands before the moment that it means, and a search by time compares texts.
    rb'"time":"([0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{9}Z)"'
).match
_OWN_TYPE = b'"type":"%b' % OWN_PREFIX.encode()


def parse_fsync(policy: str) -> tuple[Fsync, float]:
    """`always`, `never`, `interval`, `interval=500ms`, `interval=2s` … `1h` as (policy, seconds). Raises ValueError."""
    name, _, duration = policy.partition("=")
    if name == "interval":
        for unit, scale in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)):
            number = duration.removesuffix(unit) if unit else duration
            plain = number.isascii() and number.replace(".", "", 1).isdecimal()
            if duration.endswith(unit) and plain and 0 < float(number) * scale <= LONGEST_SECONDS:
                return "interval", float(number) * scale
        if policy == "interval":
            return "interval", 1.0
    elif not duration and name == "always":
        return "always", 0.0
    elif not duration and name == "never":
        return "never", 0.0
    raise ValueError(f"fsync {policy!r} is none of always, interval[=1s], never")


class Journal:
    """A log being written. Entering opens and, if need be, recovers it; leaving closes it in good order.

    path: the live file. fsync: see above. rotate_size: bytes, rotate_count: events and Gaps, rotate_every: seconds of
    wall clock (from midnight UTC); a file is finished before the batch that would go beyond one. keep: finished files
    that stay, older ones are removed and declared. compress: `gzip` or `zstd`, for finished files.
    on_error: what a failed write does: `halt` refuses the batch, `block` tries again each second while producers wait.
    min_free: bytes; a notice is given when the file system has less. redact: what must not reach the file.
    sign_key: Ed25519 private key (PEM, OpenSSH, or a file): checkpoints and seals carry signed heads.
    on_notice: told, in the loop's thread, what the operator should know.

    Raises ValueError: an argument without sense. JournalRefused: a name no log can have. Entering raises JournalBusy,
    JournalRefused, JournalDamaged, JournalFailed, OSError.
    """

    def __init__(
        self,
        path: str | Path,
        fsync: str = "always",
        *,
        rotate_size: int | None = None,
        rotate_count: int | None = None,
        rotate_every: float | None = None,
        keep: int | None = None,
        compress: Literal["gzip", "zstd"] | None = None,
        on_error: Literal["halt", "block"] = "halt",
        min_free: int = 0,
        redact: Redaction | None = None,
        sign_key: bytes | str | Path | None = None,
        on_notice: Notify | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = Path(path)
        for name, value in (
            ("rotate_size", rotate_size),
            ("rotate_count", rotate_count),
            ("rotate_every", rotate_every),
        ):
            if value is not None and not 1e-9 <= value < math.inf:
                raise ValueError(f"{name}: {value} is not above nothing")
        if rotate_every is not None and rotate_every > LONGEST_SECONDS:
            raise ValueError(f"rotate_every: {rotate_every} s are more than a hundred years")
        if keep is not None and keep < 0:
            raise ValueError(f"keep: {keep} is less than nothing")
        if on_error not in ("halt", "block"):
            raise ValueError(f"on_error {on_error!r} is none of halt, block")
        check_live(self.path)
        check_compression(self.path, compress)
        self._policy = Policy(
            *parse_fsync(fsync), rotate_size, rotate_count, rotate_every, keep, compress, on_error, min_free
        )
        self._redact = redact
        self._signer = Signer(sign_key) if sign_key is not None else None
        self._on_notice = on_notice
        self._clock = clock
        self.recovery = Recovery()
        self._committer: Committer | None = None
        self._leaving: Committer | None = None  # while it is being closed
        self._failed: EventError | None = None  # once it is closed
        self._pid = 0
        self._waiting: dict[asyncio.AbstractEventLoop, list[Append]] = {}  # each loop touches its own only

    async def __aenter__(self) -> Self:
        committer = Committer(
            self.path.absolute(), self._policy, signer=self._signer, clock=self._clock, notify=self._on_notice
        )
        self.recovery = await committer.open()
        self._committer, self._pid = committer, os.getpid()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def append(self, events: Iterable[Item]) -> Ack:
        """Write events, Gaps, or their canonical lines, in order and together; done when the policy says so.

        An event that JSON cannot carry, or not once it is redacted, becomes a Gap (`invalid`); the others are written.
        No events: nothing is written. Raises WriteRefused, JournalFailed, TypeRefused (one of the journal's own
        records), InvalidEvent (bytes that are no event). Of bytes that begin as a canonical line does, what stands
        behind `time` is taken on trust, but for NULs and what is no UTF-8.
        """
        committer = self._check_open()
        if committer.failure is not None:
            raise committer.failure
        lines, times, texts, refused = self._encode(events)
        if not lines:
            return Ack(committer.head.seq, committer.durable)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ack] = loop.create_future()
        append = Append(lines, times, texts, sum(map(len, lines)), refused, loop, future)
        waiting = self._waiting.get(loop)
        if waiting is None:
            # Everyone whose turn it is in this round of the loop gets into the same batch: without this the thread
            # would start with whoever came first, and the others would wait for a sync of their own.
            self._waiting[loop] = [append]
            loop.call_soon(self._hand_over, committer, loop)
        else:
            waiting.append(append)
        return await future

    async def rotate(self) -> Ack:
        """Finish the current file now, whatever its size. Raises WriteRefused (put off), JournalFailed."""
        committer = self._check_open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ack] = loop.create_future()
        self._hand_over(committer, loop)
        committer.put(Rotate(loop, future))
        return await future

    async def close(self) -> None:
        """Write what is queued, sync, leave a checkpoint; in any loop. A second call waits for a first one that is not
        done, and else does nothing.

        Raises JournalFailed: something failed in doing so. What failed before was told to whoever waited for it.
        """
        if self._pid != os.getpid():
            return
        committer, self._committer = self._committer, None
        if committer is not None:
            self._leaving = committer
            self._hand_over(committer, asyncio.get_running_loop())
        if self._leaving is not None:
            leaving = self._leaving
            error = await leaving.stop()
            self._leaving = None
            self._failed = leaving.failure if isinstance(leaving.failure, JournalFailed) else None
            if error is not None:
                raise error

    def _hand_over(self, committer: Committer, loop: asyncio.AbstractEventLoop) -> None:
        """What was appended in this loop since the last time, to the thread."""
        waiting = self._waiting.pop(loop, None)
        if waiting is None:
            return
        try:
            committer.put(waiting)
        except EventError as error:
            for append in waiting:
                if not append.future.done():
                    append.future.set_exception(error)

    def stop_blocking(self) -> None:
        """From now on a failed write is refused, as with `on_error="halt"`; who waits for one is told now."""
        self._check_open().stop_blocking()

    @property
    def head(self) -> Head:
        """The last line written. Kept elsewhere, it lets `verify --expect` see that a log was cut or rewritten."""
        return self._check_open().head

    @property
    def durable(self) -> int:
        """The last seq known to be on disk."""
        return self._check_open().durable

    @property
    def failed(self) -> EventError | None:
        """Why the journal is finished, None while it is not. Of one that is closed: why it had failed."""
        return self._committer.failure if self._committer is not None else self._failed

    def _check_open(self) -> Committer:
        if self._committer is None:
            raise JournalRefused(str(self.path), "the journal is not open")
        if self._pid != os.getpid():
            raise JournalRefused(
                str(self.path), f"it is open in the process {self._pid}; a forked child cannot write it"
            )
        return self._committer

    def _encode(self, events: Iterable[Item]) -> tuple[list[bytes], list[int], list[bytes], int]:
        lines: list[bytes] = []
        times: list[int] = []  # of values
        texts: list[bytes] = []  # of lines
        allowed = {GAP_TYPE}
        redact, refused = self._redact, 0
        after: str | None = None
        for item in events:
            if isinstance(item, bytes) and redact is None:
                line, text = _check_line(item)
                lines.append(line)
                texts.append(text)
                after = None
                continue
            ready = decode_line(item) if isinstance(item, bytes) else item
            try:
                type_ = ready.type
            except AttributeError:
                raise TypeError(f"{ready!r:.60} is no Event, Gap or line") from None
            if type_ not in allowed:
                if type_.startswith(OWN_PREFIX):
                    raise TypeRefused(type_, f"types that start with {OWN_PREFIX!r} are the bus's own")
                allowed.add(type_)
            try:
                if redact is not None:
                    ready = redact(ready)
                lines.append(encode_line(ready))
            except InvalidEvent:
                refused += 1
                ready = Gap.new(1, after, "invalid")
                lines.append(encode_line(ready))
            times.append(ready.time)
            after = ready.id
        return lines, times, texts, refused


def _check_line(line: bytes) -> tuple[bytes, bytes]:
    """A line and its time, as they are when the line is canonical on the face of it; made canonical when it is not.

    On the face of it: its beginning up to `time` is spelled as ours is, it is UTF-8 without NUL, and it ends with a
    brace. What stands between is taken on trust. Raises InvalidEvent, TypeRefused.
    """
    beginning = _canonical(line)
    placed = line[-CHAIN_BYTES:-66] == b',"chain":"'
    whole = line.endswith(b"}") and b"\n" not in line and len(line) <= MAX_EVENT_BYTES
    # To a recovery a NUL is what a crash left: it would cut it, and all that was acknowledged behind it.
    text = is_text(line)
    # A second type of our own would count to a reader, unless a payload only spells it: the long way tells.
    if beginning is not None and whole and text and not placed and line.find(_OWN_TYPE, beginning.end()) < 0:
        return line, beginning[1]
    item = decode_line(strip_place(line))
    if item.type.startswith(OWN_PREFIX) and item.type != GAP_TYPE:
        raise TypeRefused(item.type, f"types that start with {OWN_PREFIX!r} are the bus's own")
    return encode_line(item), format_bound(item.time)
