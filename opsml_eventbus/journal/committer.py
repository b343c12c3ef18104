"""The thread that owns a log's file. Group commit: whatever was queued while the last batch was written and synced is
the next batch; strictly write, sync, acknowledge, next.

However this thread ends, everyone who waits for it is answered.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..errors import EventError, JournalFailed, JournalRefused, WriteRefused
from .compress import remove_leftovers
from .disk import Lock, make_folder
from .format import Head
from .jobs import Ack, Append, Close, Job, Prune, Rotate, tally_of
from .live import Fsync, LiveFile, Notice, Notify, State
from .recovery import Recovery, open_live
from .sign import Signer
from .tidying import Tidy

logger = logging.getLogger("opsml_eventbus")

BATCH_BYTES = 4 << 20  # of a group commit: bounds memory, and how long a batch's first event waits for its last
IDLE_SECONDS = 1.0  # without events, before a checkpoint is left
RETRY_SECONDS = 1.0  # between two tries of what failed: a blocked write, a rotation put off
_ROUTINE = frozenset({"rotated", "pruned", "resumed"})
SEAL_BYTES = 1024  # what a file's last line takes, signed
SPACE_SECONDS = 5.0  # between two looks at the space that is left


@dataclass(frozen=True, slots=True)
class Policy:
    """How a journal is kept; `Journal` says what each means. interval, rotate_every: seconds."""

    fsync: Fsync = "always"
    interval: float = 0.0
    rotate_size: int | None = None
    rotate_count: int | None = None
    rotate_every: float | None = None
    keep: int | None = None
    compress: Literal["gzip", "zstd"] | None = None
    on_error: Literal["halt", "block"] = "halt"
    min_free: int = 0


class Committer:
    """Made in the loop that opens the journal. `open`, then `put`s from any thread, then `stop`."""

    def __init__(
        self,
        path: Path,
        policy: Policy,
        *,
        signer: Signer | None,
        clock: Callable[[], int],
        notify: Notify | None,
    ) -> None:
        self.path = path
        self._policy = policy
        self._signer = signer
        self._clock = clock
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self._finished: concurrent.futures.Future[EventError | None] = concurrent.futures.Future()
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._next: Job | None = None  # taken out of the queue already, to be done before what is in it
        self._gate = threading.Lock()  # between a `put` and the end: no job may be queued behind the last answer
        self._closing = threading.Event()
        self._lock: Lock | None = None
        self._tidy = Tidy(path, policy.keep, policy.compress, signer, self._note, partial(self._jobs.put, Prune()))
        self.failure: EventError | None = None
        self.head = Head()
        self.durable = 0
        self._last_write = 0.0  # monotonic
        self._unsynced_since = 0.0  # monotonic time of the oldest write that is not synced; 0 when there is none
        self._retry_at = 0.0  # a rotation or checkpoint that was put off is not tried again before
        self._space_at = 0.0
        self._short = False

    # ── called by others ──

    async def open(self) -> Recovery:
        """Start the thread, which opens the log. Raises as `Journal` says."""
        opening: concurrent.futures.Future[Recovery] = concurrent.futures.Future()
        opening.set_running_or_notify_cancel()  # the thread goes on when whoever opens is cancelled
        name = f"journal {self.path.name}"
        self._thread = threading.Thread(target=self._run, args=(opening,), name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise JournalFailed(str(self.path), str(error)) from error
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            self._ask_to_stop()  # what it opens must not stay open
            raise

    def put(self, job: list[Append] | Rotate) -> None:
        """Queue a job; its futures are resolved in their loops. Raises the error that ended the journal."""
        with self._gate:
            if self.failure is not None:
                raise self.failure
            self._jobs.put(job)

    def stop_blocking(self) -> None:
        """A write that fails is tried no more."""
        self._closing.set()

    async def stop(self) -> EventError | None:
        """Write what is queued, leave a checkpoint, give everything back. In any loop, and as often as one likes; what
        went wrong in doing so, which nobody else was told."""
        self._ask_to_stop()
        finished = asyncio.wrap_future(self._finished)
        await asyncio.wait([finished])  # a caller that is cancelled does not cancel what the others wait for
        self._thread.join()  # it has said its last word
        return finished.result()

    def _ask_to_stop(self) -> None:
        self.stop_blocking()
        self._jobs.put(Close())

    # ── the thread ──

    def _run(self, opening: concurrent.futures.Future[Recovery]) -> None:
        try:
            file, recovery = self._open()
        except BaseException as error:  # noqa: BLE001 - whoever opens waits for it
            opening.set_exception(error)
            return
        opening.set_result(recovery)
        ending = self._ends(partial(self._serve, file))
        untold = None
        if ending is None:
            ending = untold = self._ends(partial(self._leave, file))
        with self._gate:
            self.failure = ending or JournalRefused(str(self.path), "the journal is closed")
        while (job := self._take()) is not None:
            if isinstance(job, list | Rotate):
                self._refuse(job if isinstance(job, list) else [job], self.failure)
        self._tidy.stop()
        at_last = self._ends(partial(self._let_go, file))
        if ending is None and at_last is not None:
            self.failure = untold = at_last
        self._finished.set_result(untold)

    def _open(self) -> tuple[LiveFile, Recovery]:
        """Take the lock, recover, open. Raises as `Journal` says."""
        make_folder(self.path.parent)
        self._lock = Lock(self.path)
        try:
            remove_leftovers(self.path)
            file, recovery = open_live(self.path, self._policy.fsync, signer=self._signer, clock=self._clock)
        except BaseException:
            self._lock.release()
            raise
        self._publish(file)
        if recovery.kept is not None:
            size = f" of {recovery.cut:,} bytes" if recovery.cut else ""
            self._note("recovered", f"a torn tail{size} was cut and is kept as {recovery.kept.name}")
        if recovery.unsigned:
            reason = f"what stands up to seq {recovery.unsigned} was not signed with this key when it was written"
            self._note("unsigned", f"{reason}; the log says so, and is signed from there on")
        return file, recovery

    def _let_go(self, file: LiveFile) -> None:
        """Give back what is held, without a word to the file. Raises JournalFailed: see `LiveFile.close`."""
        try:
            file.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    def _ends(self, step: Callable[[], None]) -> EventError | None:
        """Do it; the error that ends the journal, as told to the operator, when there was one."""
        try:
            step()
        except EventError as error:
            ending = error
        except BaseException as error:  # noqa: BLE001 - whoever waits has to be answered
            self._log(logging.ERROR, "its writer ended", error)
            ending = JournalFailed(str(self.path), f"{type(error).__name__}: {error}")
        else:
            return None
        with self._gate:
            self.failure = self.failure or ending  # first: whoever hears of it asks why
        if isinstance(ending, JournalFailed):
            self._note("failed", ending.reason)
        return ending

    def _serve(self, file: LiveFile) -> None:
        self._tidy.look(file.state.log)
        while True:
            job = self._take(self._patience(file))
            if isinstance(job, list):
                self._commit_all(file, self._gather(job))
            elif isinstance(job, Rotate):
                self._rotate_for(file, job)
            elif isinstance(job, Prune):
                self._prune(file)
            elif isinstance(job, Close):
                break
            self._due(file)

    def _take(self, patience: float | None = 0.0) -> Job | None:
        """The next job, None when there is none for so many seconds."""
        job, self._next = self._next, None
        if job is None:
            with contextlib.suppress(queue.Empty):
                job = self._jobs.get(timeout=patience)
        return job

    def _gather(self, batch: list[Append]) -> list[Append]:
        """The batch that begins with this one, up to a batch's size; what must come after it is the next job."""
        size = sum(append.size for append in batch)
        while isinstance(job := self._take(), list) and size <= BATCH_BYTES:
            batch += job
            size += sum(append.size for append in job)
        self._next = job
        return batch

    def _commit_all(self, file: LiveFile, batch: list[Append]) -> None:
        """What was gathered, in parts that fit into one file each."""
        rest = batch
        try:
            while rest:
                part, rest = self._part(file, rest)
                self._commit(file, part)
        except BaseException as error:
            self._refuse(rest, _failure(self.path, error))
            raise

    def _part(self, file: LiveFile, batch: list[Append]) -> tuple[list[Append], list[Append]]:
        """As much of the batch as fits into this file, or into the next where not even its first append does; an append
        itself is never divided. And the rest."""
        if self._policy.rotate_count is None and self._policy.rotate_size is None:
            return batch, []
        lines, size = len(batch[0].lines), batch[0].size_in_file
        fresh = not self._fits(file.state, lines, size)
        for index, job in enumerate(batch[1:], 1):
            lines, size = lines + len(job.lines), size + job.size_in_file
            if not self._fits(None if fresh else file.state, lines, size):
                return batch[:index], batch[index:]
        return batch, []

    def _fits(self, state: State | None, lines: int, size: int) -> bool:
        """Do these lines and bytes fit behind what stands in a file (None: in a new one), its seal included?"""
        count, most = self._policy.rotate_count, self._policy.rotate_size
        events, there = (0, 0) if state is None else (state.tally.events, state.size)
        return (count is None or events + lines <= count) and (most is None or there + size + SEAL_BYTES <= most)

    def _commit(self, file: LiveFile, batch: list[Append]) -> None:
        lines = batch[0].lines if len(batch) == 1 else [line for job in batch for line in job.lines]
        try:
            file.check_place()
            self._rotate_if_due(file, len(lines), sum(job.size_in_file for job in batch))
            self._write(file, lines, batch)
            self._last_write = time.monotonic()
            if self._policy.fsync == "always":
                file.sync()
                # Nobody is told "on disk" of a file that has no name any more.
                file.check_place()
            elif not self._unsynced_since:
                self._unsynced_since = self._last_write
        except WriteRefused as error:
            self._refuse(batch, error)
            return
        except BaseException as error:
            self._refuse(batch, _failure(self.path, error))
            raise
        self._publish(file)
        self._acknowledge(batch)

    def _write(self, file: LiveFile, lines: Sequence[bytes], batch: Sequence[Append]) -> None:
        tally = tally_of(batch)
        blocked = False
        while True:
            try:
                file.append(lines, tally)
                break
            except WriteRefused as error:
                if self._policy.on_error == "halt" or self._closing.is_set():
                    raise
                if not blocked:
                    self._note("blocked", f"{error.reason}; tried again each {RETRY_SECONDS:g} s")
                blocked = True
                if self._unsynced_since:
                    self._sync(file)  # what was acknowledged does not wait for room too
                self._closing.wait(RETRY_SECONDS)
                file.check_place()
        if blocked:
            self._note("resumed", "the write succeeded")

    def _acknowledge(self, batch: Iterable[Append]) -> None:
        durable = self.durable
        seq = self.head.seq - sum(len(job.lines) for job in batch)
        answers: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Ack], Ack]]] = {}
        for job in batch:
            seq += len(job.lines)
            answers.setdefault(job.loop, []).append((job.future, Ack(seq, durable, job.refused)))
        for loop, results in answers.items():
            self._call(loop, _resolve, results)

    def _refuse(self, jobs: Iterable[Append | Rotate], error: EventError) -> None:
        for job in jobs:
            self._call(job.loop, _reject, job.future, error)

    # ── what is due without being asked for ──

    def _patience(self, file: LiveFile) -> float | None:
        """Seconds until something is due; None while nothing is."""
        now = time.monotonic()
        due = []
        if self._unsynced_since:
            due.append(self._unsynced_since + self._policy.interval)
        if not file.state.settled and self._policy.fsync != "never":
            due.append(max(self._last_write + IDLE_SECONDS, self._retry_at))
        every = self._policy.rotate_every
        if every is not None and file.state.tally.events:
            due.append(max(now + every - self._clock() / 1e9 % every, self._retry_at))
        return max(0.0, min(due) - now) if due else None

    def _due(self, file: LiveFile) -> None:
        now = time.monotonic()
        if self._unsynced_since and now >= self._unsynced_since + self._policy.interval:
            self._sync(file)
        idle = now >= self._last_write + IDLE_SECONDS and now >= self._retry_at
        if idle and not file.state.settled and self._policy.fsync != "never":
            file.check_place()
            self._try(file.checkpoint, "space", "no checkpoint")
            self._unsynced_since = 0.0
            self._publish(file)
        if self._policy.rotate_every is not None:
            self._rotate_if_due(file)
        if self._policy.min_free and now >= self._space_at:
            self._space_at = now + SPACE_SECONDS
            self._look_for_space(file)

    def _sync(self, file: LiveFile) -> None:
        file.sync()
        file.check_place()
        self._unsynced_since = 0.0
        self._publish(file)

    def _leave(self, file: LiveFile) -> None:
        """In good order: what was asked for is done, all is synced, and a checkpoint says so."""
        if self._unsynced_since:
            self._sync(file)  # not only when all is tidied
        self._tidy.wait()
        self._prune(file)
        if not file.state.settled:
            file.check_place()
            if not self._try(file.checkpoint, "space", "closed without a checkpoint"):
                file.sync()  # the events themselves are on disk all the same
            self._publish(file)

    def _look_for_space(self, file: LiveFile) -> None:
        free = file.free_bytes()
        if free < self._policy.min_free and not self._short:
            self._note("space", f"{free:,} bytes are free, less than {self._policy.min_free:,}")
        self._short = free < self._policy.min_free

    def _try(self, action: Callable[[], Any], kind: str, consequence: str) -> bool:
        """Something that may be put off when there is no room for it."""
        try:
            action()
        except WriteRefused as error:
            if not self._retry_at or time.monotonic() >= self._retry_at + RETRY_SECONDS:
                self._note(kind, f"{consequence}: {error.reason}")
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False
        return True

    # ── rotation ──

    def _rotate_if_due(self, file: LiveFile, lines: int = 0, size: int = 0) -> None:
        """lines, size: of what is about to be written."""
        policy, state = self._policy, file.state
        if not state.tally.events or time.monotonic() < self._retry_at:
            return
        every = None if policy.rotate_every is None else int(policy.rotate_every * 1e9)
        if not self._fits(state, lines, size) or (every is not None and self._clock() // every != state.begun // every):
            self._try(lambda: self._rotate(file), "rotation", "put off, the old file goes on")

    def _rotate_for(self, file: LiveFile, job: Rotate) -> None:
        try:
            if file.state.tally.events:
                file.check_place()
                self._rotate(file)
        except WriteRefused as error:
            self._refuse([job], error)
        except BaseException as error:
            self._refuse([job], _failure(self.path, error))
            raise
        else:
            self._call(job.loop, _resolve, [(job.future, Ack(self.head.seq, self.durable))])

    def _rotate(self, file: LiveFile) -> None:
        finished = file.rotate()
        self._unsynced_since = 0.0
        self._publish(file)
        self._note("rotated", f"finished {finished.name}")
        self._tidy.look(file.state.log)

    # ── what is finished ──

    def _prune(self, file: LiveFile) -> None:
        """Declare what was found to be too old, and have it removed."""
        while (going := self._tidy.found()) is not None:
            try:
                if going:
                    file.check_place()
                    file.declare_pruned([gone.record for gone in going])
            except WriteRefused as error:
                self._note("pruning", f"put off: {error.reason}")
                going = []
            self._tidy.clear(going)
            self._publish(file)

    # ── telling ──

    def _publish(self, file: LiveFile) -> None:
        self.head, self.durable = file.state.head, file.state.durable

    def _note(self, kind: str, detail: str) -> None:
        self._log(logging.DEBUG if kind in _ROUTINE else logging.WARNING, f"{kind}: {detail}")
        if self._notify is not None:
            self._call(self._loop, self._notify, Notice(kind, str(self.path), detail))

    def _call(self, loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
        try:
            loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # That loop is closed: nobody is left in it to be told.
            self._log(logging.DEBUG, "a loop that waited for it is closed")

    def _log(self, level: int, said: str, error: BaseException | None = None) -> None:
        with contextlib.suppress(Exception):  # a handler that fails must not end the writing
            logger.log(level, "journal %s: %s", self.path, said, exc_info=error)


def _failure(path: Path, error: BaseException) -> EventError:
    return error if isinstance(error, EventError) else JournalFailed(str(path), str(error))


def _resolve(results: Iterable[tuple[asyncio.Future[Ack], Ack]]) -> None:
    for future, ack in results:
        if not future.done():  # cancelled; it was written all the same
            future.set_result(ack)


def _reject(future: asyncio.Future[Ack], error: EventError) -> None:
    if not future.done():
        future.set_exception(error)
