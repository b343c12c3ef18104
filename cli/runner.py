"""Running a pump for a person: until it ends, a signal, a duration, or nobody reads any more.

Ctrl-C and SIGTERM are how a live command ends: it flushes, sums up and exits with 0. Elsewhere they interrupt: 130 and
143. A second one does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Self

from opsml_eventbus.errors import ReaderGone

if TYPE_CHECKING:
    from opsml_eventbus.flow import Ack, Batch, Notice, Report

    from .terminal import Notes

DONE, FAILED, USAGE, MALFORMED, LOST, TAMPERED = range(6)
SHOWN_REFUSALS = 20  # refused lines named one by one; a file full of them would scroll everything else away


def run(
    work: Callable[[], Coroutine[Any, Any, None]],
    *,
    seconds: float | None = None,
    gone: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Run `work` to its end, for `seconds` at most, or until stopped. Returns the signal that stopped it, else 0."""
    return asyncio.run(_run(work, seconds, gone))


async def _run(
    work: Callable[[], Coroutine[Any, Any, None]],
    seconds: float | None,
    gone: Callable[[], Awaitable[None]] | None,
) -> int:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()

    def on_signal(number: int) -> None:
        if stop.done():
            if number == signal.SIGHUP:
                return  # a terminal that closes says so twice, through the shell and by itself
            os._exit(128 + number)  # asked twice: whatever still hangs is not worth waiting for
        if number == signal.SIGINT and sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write("\n")  # the terminal has just echoed ^C; what is said now gets a line of its own
        stop.set_result(number)

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is signal.SIG_IGN:
            continue  # `nohup`: whoever started us said that this one is not for us
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(name, on_signal, int(name))
    task = asyncio.ensure_future(work())
    watchers: list[asyncio.Future[Any]] = [stop]
    if seconds is not None:
        watchers.append(asyncio.ensure_future(asyncio.sleep(seconds)))
    if gone is not None:
        watchers.append(asyncio.ensure_future(gone()))
    try:
        await asyncio.wait([task, *watchers], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        number = stop.result() if stop.done() else 0
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    return number


@contextlib.contextmanager
def summed_up(report: Report, say: Callable[[], None]) -> Iterator[None]:
    """Sum up at the end of the block, also when it fails after something was done: how far did it come?

    Not when our reader has gone in the middle of a batch: how much of it was shown is nothing we know.
    """
    try:
        yield
    except ReaderGone:
        raise
    except Exception:
        if report.seen or report.shown:
            say()
        raise
    say()


NOTICES = {
    "waiting": "{end}: waiting for a bus{detail} (Ctrl-C ends, --no-wait does not wait)",
    "connected": "{end}: connected{detail}",
    "disconnected": "{end}: the connection was lost; trying again{detail}",
    "closed": "{end}: the bus was closed",
    "moved": "{end}{detail}",
    "error": "{end}{detail}",
    "recovered": "{end}: its writer was interrupted{detail}",
    "pause": "{end}: nothing is due for{detail} s (--max-gap 2s shortens such pauses, --speed max skips them)",
}


# Of a log that is being written: what its operator must know even with `--quiet`.
WARNINGS = {"recovered", "unsigned", "space", "blocked", "resumed", "rotation", "compression", "pruning"}


def notices(notes: Notes) -> Callable[[Notice], None]:
    """What an end has to say while it goes on, as notes and warnings."""

    def say(notice: Notice) -> None:
        joint = " " if notice.kind == "pause" else ": "
        detail = f"{joint}{notice.detail}" if notice.detail else ""
        text = NOTICES.get(notice.kind, "{end}{detail}").format(end=notice.end, detail=detail)
        if notice.kind in WARNINGS:
            notes.warn(text)
        else:
            notes.say(text)

    return say


def interrupted(number: int) -> int:
    """The exit code of a command that a signal interrupted: 128 and the signal's number."""
    return 128 + number


class Watch:
    """Follows a pump for its user, for the length of a `with` block: names refused lines, moves the progress line."""

    def __init__(self, notes: Notes, *, title: str = "") -> None:
        """title: shown in the progress line; empty for none."""
        self._notes = notes
        self._refused = 0
        self._progress: Any = None
        self._began = asyncio.get_running_loop().time() if title else 0.0
        if title and notes.lively:
            from rich.progress import Progress, TextColumn, TimeElapsedColumn

            from .terminal import safe

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                console=notes.console,
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task(safe(title), total=None, figures="")

    def __call__(self, batch: Batch, ack: Ack, report: Report) -> None:
        """After each batch."""
        for refusal in (*batch.refusals, *ack.refusals):
            self._refused += 1
            if self._refused <= SHOWN_REFUSALS:
                self._notes.warn(f"{refusal.place}: {refusal.error}")
        if self._progress is not None:
            rate = report.shown / max(asyncio.get_running_loop().time() - self._began, 1e-3)
            lost = "unknown" if report.unknown else f"{report.lost:,}"
            figures = f"{report.shown:,} events · {rate:,.0f}/s · {lost} lost"
            self._progress.update(self._task, completed=report.shown, figures=figures)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Take the progress line away; say how many refusals were not named."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if self._refused > SHOWN_REFUSALS:
            self._notes.warn(f"… and {self._refused - SHOWN_REFUSALS:,} more lines were refused")


def summary(report: Report, verb: str, extra: str = "") -> str:
    """`1,204 seen, 38 shown, 0 lost`: how every run ends."""
    lost = f"{report.lost:,}" + (" and an unknown number more" if report.unknown else "")
    parts = [f"{report.seen:,} seen", f"{report.shown:,} {verb}", f"{lost} lost"]
    if report.refused:
        parts.append(f"{report.refused:,} refused")
    parts += [f"{number:,} {reason}" for reason, number in report.skipped.items() if number]
    return ", ".join(parts) + extra


def exit_code(report: Report, *, fail_on_loss: bool = False) -> int:
    """What the report says of the run: malformed input before loss."""
    if report.refused:
        return MALFORMED
    return LOST if fail_on_loss and not report.complete else DONE
