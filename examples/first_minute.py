"""The first minute, as `make demo` shows it: a live bus that is recorded, then the recording replayed.

Each step is a command line that can be typed as it stands. At a terminal a last bus stays alive, to try the other
commands on, until Ctrl-C; without one it ends by itself.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

EVENTS = 60
BUS = "first-minute"  # a name of its own: a bus that somebody works with is left alone


def run(*words: str) -> int:
    """Show a command, run it, and return its exit code."""
    print(f"\n$ {shlex.join(words)}", flush=True)
    try:
        return subprocess.run(words, check=False).returncode
    except KeyboardInterrupt:
        return 0  # the command had the Ctrl-C too, and has ended


@contextmanager
def foreground() -> Iterator[None]:
    """Ctrl-C is for the commands shown here, not for the `make` that started them."""
    shell = os.getpgrp()
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # changing the foreground from the background would stop us
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(0, shell)


def main() -> int:
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with foreground() if terminal else nullcontext():
        return steps(terminal)


def steps(terminal: bool) -> int:
    folder = Path("demo")
    folder.mkdir(exist_ok=True)
    os.environ["XDG_STATE_HOME"] = str(folder.absolute())  # a replay's bookmark; the bus is where other terminals look
    recording = str(folder / f"audit-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl")
    pretty = ["-o", "pretty"]
    failed = run(
        "eventbus", "demo", "--on", BUS, "--rate", "20", "--count", str(EVENTS), "--record", recording, *pretty
    )
    failed = failed or run("eventbus", "tail", recording, "--status", "^success", "-n", "all", *pretty)
    os.environ["EVENTBUS_ENDPOINT"] = BUS
    failed = failed or run("eventbus", "replay", recording, "--speed", "10x", *pretty)
    if failed or not terminal:
        return failed
    print("\nThe next bus stays alive until Ctrl-C. In another terminal:")
    print("  . .venv/bin/activate")
    print("  eventbus tail --type audit --op delete")
    print("  eventbus record audit.jsonl      (Ctrl-C ends it)")
    print("  eventbus replay audit.jsonl --speed 10x")
    del os.environ["EVENTBUS_ENDPOINT"]
    return run("eventbus", "demo", "--rate", "5")


if __name__ == "__main__":
    sys.exit(main())
