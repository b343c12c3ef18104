"""Events, Gaps and tables as a terminal shows them. With `terminal`, the only module that draws.

One line an event, cut at the terminal's edge, the important first; `-o json` shows everything. What a client merely
claims (`username`, `client_ip`, `user_agent`) is marked with `~`. Times are UTC. Whatever comes from data goes through
`safe` at the point of drawing.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from rich.table import Table
from rich.text import Text

from opsml_eventbus.audit import AuditEvent
from opsml_eventbus.endpoints.stdio import StdoutSink
from opsml_eventbus.errors import Broken, InvalidEvent, ReaderGone, reason
from opsml_eventbus.event import Event, Gap, Payload, Priority, payload_fields
from opsml_eventbus.flow import Ack, Batch, Record, Sink

from .terminal import console, safe, safe_json

DRAWN = 50  # events drawn at once
MAX_VALUE = 400  # characters of one value on the screen; the line is cut at the terminal's edge anyway

STATUS_STYLES = {"Success": "green", "Failed": "bold red", "Denied": "bold magenta"}
PRIORITY_MARKS = {Priority.LOW: ("·", "dim"), Priority.HIGH: ("!", "yellow"), Priority.CRITICAL: ("‼", "bold red")}
GAP_REASONS = {
    "lag": "this reader was too slow",
    "disconnect": "the connection was lost",
    "source": "the source itself has lost them",
    "invalid": "refused: not an event",
}


class Screen(Sink):
    """Events on standard output, drawn. Raises ReaderGone when the terminal or the pipe is gone."""

    name = "-"

    def __init__(self, color: str = "auto", fd: int = 1) -> None:
        self._console = console(color=color)
        # A file or a pipe has no edge to cut at.
        self._cut = os.isatty(fd)
        self._painter = Painter()
        self._fd = fd

    async def write(self, batch: Batch) -> Ack:
        """Draw a batch. A terminal that is stopped (Ctrl-S) holds this pump up, never the bus."""
        # Some at a time: drawing a thousand events at once would hold everything else up for half a second.
        for at in range(0, len(batch.records), DRAWN):
            lines = [line for record in batch.records[at : at + DRAWN] for line in self._painter.paint(record)]
            text = self.draw(lines).encode("utf-8", "backslashreplace")
            await asyncio.to_thread(self._write, text)
        return Ack(len(batch.records))

    async def gone(self) -> None:
        """Return when the reader of a pipe has gone; of anything else, never."""
        await StdoutSink(self._fd).gone()

    def draw(self, lines: Iterable[Text]) -> str:
        """The lines as the console's escape codes."""
        with self._console.capture() as captured:
            for line in lines:
                if self._cut:
                    self._console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
                else:
                    self._console.print(line, soft_wrap=True)
        return captured.get()

    def _write(self, text: bytes) -> None:
        view = memoryview(text)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except BrokenPipeError:
            raise ReaderGone(self.name, "the reader has gone") from None
        except OSError as error:
            raise Broken(self.name, reason(error)) from error


class JsonScreen(Screen):
    """JSON lines on a terminal: the same JSON, hidden code points escaped."""

    async def write(self, batch: Batch) -> Ack:
        """As lines."""
        lines, refusals = batch.encode()
        text = "".join(f"{safe_json(line.decode())}\n" for line in lines)
        await asyncio.to_thread(self._write, text.encode())
        return Ack(len(lines), refusals=refusals)


class Painter:
    """Events and Gaps as lines of styled text. Remembers only the day and the replay it last wrote."""

    def __init__(self) -> None:
        self._day = ""
        self._replay: str | None = None

    def paint(self, record: Record) -> list[Text]:
        """The line of a record, after lines with the date and the replay where they have changed."""
        item = record.item
        moment = _moment(item.time)
        day, clock = moment[:10], moment[11:]
        lines = []
        if day != self._day:
            self._day = day
            lines.append(Text(f"── {day} UTC ──", style="dim"))
        replay = item.replay if isinstance(item, Event) else None
        if replay is not None and replay != self._replay:
            self._replay = replay
            lines.append(Text(f"── ↻ {_value(replay)} ──", style="cyan"))
        lines.append(gap_line(item, clock) if isinstance(item, Gap) else event_line(item, clock))
        return lines


def event_line(event: Event, clock: str) -> Text:
    """One event on one line, the important first."""
    line = Text()
    line.append(clock, "dim")
    mark, style = PRIORITY_MARKS.get(event.priority, (" ", ""))
    line.append(f" {mark} ", style)
    line.append("↻ " if event.replay is not None else "", "cyan")
    try:
        data = event.data
    except InvalidEvent as error:
        _type(line, event)
        _field(line, f"does not fit its type: {error}", "red")
        return line
    if isinstance(data, AuditEvent):
        _audit(line, data)
    else:
        _type(line, event)
        _members(line, data)
    if event.source != "opsml":
        _field(line, event.source, "dim")
    return line


def gap_line(gap: Gap, clock: str) -> Text:
    """A hole in the stream: how many, and why."""
    many = "an unknown number of events" if gap.missed is None else counted(gap.missed, "event")
    reason = GAP_REASONS.get(gap.reason, safe(str(gap.reason)))
    return Text.assemble((clock, "dim"), " ", (f"━━ {many} missing: {reason} ({safe(gap.reason)}) ━━", "bold red"))


def counted(number: int, noun: str) -> str:
    """`1 event`, `1,204 events`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _audit(line: Text, data: AuditEvent) -> None:
    line.append(f"{_value(data.status):<7} ", STATUS_STYLES.get(data.status, "yellow"))
    line.append(f"{_value(data.operation):<7}", "bold")
    _field(line, f"{_value(data.registry_type or data.resource_type):<12}", "cyan")
    _field(line, f"~{data.username}", "yellow")  # before the route, which may be long: who did it is not cut off
    _field(line, data.route)
    if data.error_message is not None:
        _field(line, f"— {data.error_message}", "red")
    _field(line, f"~{data.client_ip}", "dim yellow")
    if data.resource_id not in data.route:
        _field(line, data.resource_id, "dim")
    _field(line, f"~{data.user_agent}", "dim yellow")


def _type(line: Text, event: Event) -> None:
    line.append(f"{_value(event.type)}", "bold cyan")


def _members(line: Text, data: Any) -> None:
    if isinstance(data, Payload):
        members = {name: getattr(data, name) for name in payload_fields(type(data))}
    elif isinstance(data, dict):
        members = data
    else:
        members = {} if data is None else {"": data}
    for name, value in members.items():
        line.append(f" {_value(name)}=" if name else " ", "dim")
        line.append(_value(value if isinstance(value, str) else _json(value)))


def _json(value: Any) -> str:
    # The lenient encoder: an event that could not be written (a lone surrogate) is still shown.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=repr)


def _field(line: Text, text: str, style: str = "") -> None:
    line.append(" ")
    line.append(_value(text), style)


def _value(text: str) -> str:
    text = str(text)
    return safe(text[:MAX_VALUE] + "…" if len(text) > MAX_VALUE else text)


def _moment(time: int) -> str:
    second, fraction = divmod(time, 1_000_000_000)
    return f"{_second(second)}.{fraction // 1_000_000:03d}"


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    try:
        return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "????-??-?? ??:??:??"


def table(taps: Iterable[Any], now: int) -> Table:
    """The live buses as a table. now: ns since the epoch."""
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("NAME", "PID", "UP", "CLIENTS", "EVENTS", "RATE", "LOST"):
        drawn.add_column(column, justify="left" if column == "NAME" else "right")
    for tap in taps:
        up = "" if tap.since is None else _age(now - tap.since)
        lost = "" if tap.lost is None else Text(f"{tap.lost:,}", "bold red" if tap.lost else "")
        rate = "" if tap.rate is None else f"{tap.rate:,.1f}/s"
        drawn.add_row(safe(tap.name), f"{tap.pid or ''}", up, _number(tap.clients), _number(tap.published), rate, lost)
    return drawn


def say(lines: Iterable[str], color: str) -> None:
    """What was asked for, where it is no event: on standard output."""
    if sys.stdout is None:
        return
    out = console(color=color)
    for line in lines:
        out.print(Text(safe(line)), soft_wrap=True)


def verdict(word: str, of: str) -> str:
    """One sentence for a log that was checked."""
    meaning = {
        "sound": "sound: nothing was altered",
        "torn": "torn: its end was cut off by a crash; nothing that was known to be on disk is touched",
        "unchained": "no chain: nothing can be said about it",
        "unsigned": "not all signed: no signature of this key covers some of it",
        "tampered": "TAMPERED: it is not what was written",
    }
    return f"{of}: {meaning.get(word, word)}"


def mended(log: str, repair: Any, *, dry_run: bool) -> list[str]:
    """What a repair did, or would do: what was wrong, what of it is whole, what is kept where."""
    if repair.finding is None:
        return [f"{log}: nothing to mend"]
    if dry_run:
        return [f"would mend: {repair.finding}"]
    pieces = f"{counted(repair.salvaged, 'event')} of them written anew, {counted(repair.lost, 'piece')} not whole"
    if repair.left:
        pieces += (
            f", {counted(repair.left, 'event')} left out: another log's, in this one already, or of unknown origin"
        )
    return [
        f"mended: {repair.finding}",
        f"{repair.cut:,} bytes cut, {pieces}",
        *(f"kept: {copy}" for copy in repair.kept),
    ]


def duration(nanoseconds: int) -> str:
    """`850 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = nanoseconds / 1e9
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _age(nanoseconds: int) -> str:
    seconds = max(nanoseconds, 0) // 1_000_000_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
