"""The command line as its users have it: real processes, real pipes, a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyte

from opsml_eventbus.journal import Line, read_journal

EVENTBUS = [sys.executable, "-m", "opsml_eventbus_cli"]
PATIENCE = 45.0  # seconds for what takes a fraction of one; the machines are shared


class CommandLine:
    """`eventbus` on a machine of its own: its sockets and files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[Running | Terminal] = []
        cut = {"EVENTBUS_ENDPOINT", "OPSML_TRACKING_URI", "NO_COLOR", "FORCE_COLOR", "COLUMNS"}
        self.env = {name: value for name, value in os.environ.items() if name not in cut}
        self.env.update(XDG_RUNTIME_DIR=str(folder), XDG_STATE_HOME=str(folder / "state"), TMPDIR=str(folder))
        self.env.update(TERM="xterm-256color", PYTHONWARNINGS="error")

    def run(self, *words: str, stdin: bytes | None = b"", check: int | None = 0, **env: str) -> Finished:
        """Run a command to its end. check: the exit code it must have."""
        done = subprocess.run(
            [*EVENTBUS, *words], input=stdin, capture_output=True, cwd=self.folder, env={**self.env, **env}, timeout=60
        )
        finished = Finished(done.returncode, done.stdout, done.stderr.decode())
        assert "Traceback" not in finished.err, finished.err
        if check is not None:
            assert finished.code == check, (finished.code, finished.err)
        return finished

    def shell(self, words: str) -> Finished:
        """Run a command line that a shell reads, with its redirections."""
        command = " ".join(shlex.quote(word) for word in EVENTBUS)
        done = subprocess.run(
            f"{command} {words}", shell=True, capture_output=True, cwd=self.folder, env=self.env, timeout=60
        )
        return Finished(done.returncode, done.stdout, done.stderr.decode())

    def start(self, *words: str, stdin: Any = subprocess.DEVNULL, stdout: Any = subprocess.PIPE, **env: str) -> Running:
        """Start a command that goes on."""
        running = Running([*EVENTBUS, *words], self.folder, {**self.env, **env}, stdin, stdout)
        self._running.append(running)
        return running

    def terminal(self, *words: str, columns: int = 100, rows: int = 30, **env: str) -> Terminal:
        """Start a command in a terminal of this size."""
        terminal = Terminal([*EVENTBUS, *words], self.folder, {**self.env, **env}, columns, rows)
        self._running.append(terminal)
        return terminal

    def recorded(self, file: str) -> list[bytes]:
        """The canonical lines of a journal, Gaps included."""
        path = self.folder / file
        return [item.line for item in read_journal(path) if isinstance(item, Line)] if path.exists() else []

    def sockets(self) -> list[str]:
        """The names in the folder of taps."""
        folder = self.folder / "eventbus"
        return sorted(path.name for path in folder.iterdir() if path.suffix == ".sock") if folder.exists() else []

    def close(self) -> None:
        """Kill what is still running."""
        for running in self._running:
            running.kill()


class Finished:
    """A command that has ended."""

    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def ids(self) -> list[str]:
        """The ids of the events on standard output, Gaps left out."""
        return [event["id"] for event in self.events if event["type"] != "eventbus.gap"]


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait for something to become true; fail, saying what, when it does not."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE} s for {what or condition}")
        time.sleep(0.01)


class Running:
    """A command that is going on. Its output is collected in files, so that nothing it does waits for us."""

    def __init__(self, words: list[str], folder: Path, env: dict[str, str], stdin: Any, stdout: Any) -> None:
        number = len(list(folder.glob("*.err")))
        self._out = folder / f"{number}.out"
        self._err = folder / f"{number}.err"
        out = self._out.open("wb") if stdout is subprocess.PIPE else stdout
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(words, cwd=folder, env=env, stdin=stdin, stdout=out, stderr=err)
        if stdout is subprocess.PIPE:
            out.close()

    @property
    def out(self) -> bytes:
        """Standard output so far."""
        return self._out.read_bytes()

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._err.read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard output so far as JSON lines; a line that is being written is left out."""
        return [json.loads(line) for line in self.out.split(b"\n")[:-1]]

    @property
    def ids(self) -> list[str]:
        """The ids of the events so far, Gaps left out."""
        return [event["id"] for event in self.events if event["type"] != "eventbus.gap"]

    def says(self, text: str) -> Running:
        """Wait until it has said this on standard error."""
        until(lambda: text in self.err or self._ended(), f"{text!r} in {self.err!r}")
        assert text in self.err, self.err
        return self

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self, number: int = signal.SIGINT, check: int | None = 0) -> Finished:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.end(check)

    def end(self, check: int | None = 0) -> Finished:
        """Wait for the end."""
        code = self.process.wait(PATIENCE)
        assert "Traceback" not in self.err, self.err
        if check is not None:
            assert code == check, (code, self.err)
        return Finished(code, self.out if self._out.exists() else b"", self.err)

    def kill(self) -> None:
        """Kill it, if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Terminal:
    """A command in a terminal, and what is on its screen."""

    def __init__(self, words: list[str], folder: Path, env: dict[str, str], columns: int, rows: int) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._fd, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            words, cwd=folder, env=env, stdin=child, stdout=child, stderr=child, preexec_fn=_own_terminal
        )
        os.close(child)

    def read(self) -> bool:
        """Draw what has come. False when the terminal's other side is closed."""
        while select.select([self._fd], [], [], 0)[0]:
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                return False
            if not data:
                return False
            self.raw += data
            self._stream.feed(data)
        return True

    @property
    def lines(self) -> list[str]:
        """What is on the screen, its history included, without trailing blanks."""
        self.read()
        history = ["".join(row[x].data for x in range(self.screen.columns)) for row in self.screen.history.top]
        return [line.rstrip() for line in [*history, *self.screen.display] if line.strip()]

    @property
    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines)

    def shows(self, text: str) -> Terminal:
        """Wait until this is on the screen."""
        until(lambda: text in self.text, f"{text!r} on the screen")
        return self

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._fd, keys)

    def end(self, check: int | None = 0) -> int:
        """Wait for the end."""
        until(lambda: (self.read(), self.process.poll() is not None)[1], "the command's end")
        self.read()
        code = self.process.wait()
        assert "Traceback" not in self.text, self.text
        if check is not None:
            assert code == check, (code, self.text)
        return code

    def hang_up(self) -> None:
        """Close the terminal's window."""
        os.close(self._fd)
        self._fd = -1

    def kill(self) -> None:
        """Kill it, if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _own_terminal() -> None:
    """In the child: a session whose terminal standard input is, so that Ctrl-C and hanging up reach it."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def command_line(folder: Path) -> Iterator[CommandLine]:
    """A command line for a test."""
    machine = CommandLine(folder)
    try:
        yield machine
    finally:
        with suppress(ProcessLookupError):
            machine.close()
