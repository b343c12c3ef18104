"""A terminal, made safe: what is written to it, and what is said on it beside the data.

Every code point of the categories Cc, Cf, Cs, Co, Cn, Zl and Zp becomes a visible escape (`\\x1b`, `\\u202e`), and no
Rich markup, emoji code or link is ever read from data. (`rich.Text` alone passes ESC, OSC 52, C1 and bidi through.)
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from contextlib import suppress
from functools import lru_cache
from typing import Any, Self

from rich.console import Console
from rich.text import Text

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

# str.isprintable() is false for exactly the hidden categories and for spaces other than U+0020.
_UNPRINTABLE = re.compile(r"[^ -~]")


def safe(text: str) -> str:
    """The text with everything that could move a cursor, hide or reorder it spelled out."""
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: _visible(match[0]), text)


def safe_json(line: str) -> str:
    """A JSON line that says the same with every hidden code point as JSON's own escape."""
    if line.isprintable():
        return line
    return _UNPRINTABLE.sub(lambda match: match[0] if _visible(match[0]) == match[0] else _escape(match[0]), line)


def _escape(character: str) -> str:
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[at]:02x}{data[at + 1]:02x}" for at in range(0, len(data), 2))


@lru_cache(maxsize=4096)
def _visible(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def console(*, stderr: bool = False, color: str = "auto", width: int | None = None) -> Console:
    """A console that reads nothing from what it prints: no markup, no emoji codes, no highlighting, no links."""
    return Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
        width=width,
        force_terminal={"always": True, "never": None, "auto": None}[color],
        no_color=True if color == "never" else None,
    )


def _in_foreground() -> bool:
    """Is the terminal ours? A job in the background (`&`) does not draw over what is typed."""
    try:
        return os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return False


def answer(text: str) -> None:
    """Text on standard output. Where there is none (`>&-`), what was asked for is the exit code."""
    if sys.stdout is not None:
        sys.stdout.write(text)


class Notes:
    """What is said beside the data, on standard error. Silent with `quiet`, complaints excepted."""

    def __init__(self, *, quiet: bool = False, color: str = "auto") -> None:
        self._quiet = quiet
        self.console = console(stderr=True, color=color)

    @property
    def lively(self) -> bool:
        """May a progress line move about?"""
        return not self._quiet and self.console.is_terminal and _in_foreground()

    def say(self, text: str, style: str = "dim") -> None:
        """A note; nothing depends on it."""
        if not self._quiet:
            self._print(Text(safe(text), style=style))

    def tell(self, text: str) -> None:
        """One line of what was asked for, where it is no data."""
        self._print(Text(safe(text)))

    def warn(self, text: str) -> None:
        """Something the user would want to know even with `--quiet`."""
        self._print(Text(safe(text), style="yellow"))

    def complain(self, sentence: str, hint: str = "") -> None:
        """An error: one sentence, and what to do next."""
        line = Text.assemble(("eventbus: ", "bold red"), safe(sentence))
        if hint:
            line.append(f"\n  {safe(hint)}", "dim")
        self._print(line)

    def _print(self, text: Text) -> None:
        with suppress(OSError):  # standard error is gone: there is nobody left to tell
            self.console.print(text, soft_wrap=True)


class Progress:
    """A line that says how many bytes have been read, while work goes on that has no pump.

    with Progress(notes, "verifying audit.jsonl") as progress:
        progress(1_000_000)
    """

    def __init__(self, notes: Notes, title: str) -> None:
        self._notes = notes
        self._title = safe(title)
        self._live: Any = None

    def __enter__(self) -> Self:
        if self._notes.lively:
            from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = [TextColumn("{task.description}", markup=False), DownloadColumn(), TransferSpeedColumn()]
            self._live = Progress(*columns, console=self._notes.console, transient=True)
            try:
                self._live.start()
                self._task = self._live.add_task(self._title, total=None)
            except BaseException:  # Ctrl-C right behind the first drawing: it has hidden the cursor
                self._live.stop()
                raise
        return self

    def __call__(self, done: int) -> None:
        """So many bytes by now."""
        if self._live is not None:
            self._live.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
