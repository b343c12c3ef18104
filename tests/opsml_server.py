"""The genuine OpsML server as a fixture.

    def test_it(opsml_server):
        opsml_server.work("lab")            # real work through OpsML's own client: a dozen rows, several kinds
        rows = opsml_server.rows()          # the table, read with sqlite3
        … opsml_server.url …                # sqlite:////tmp/…/opsml.db

One server for the whole run, in a child process and a folder of its own. It can listen on one port only, so two runs on
one machine take turns. Where there is no server to be had, the tests that ask for it are skipped, saying why.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("opsml_child.py")
TURN = Path(tempfile.gettempdir()) / f"opsml-server-test-{os.getuid()}.lock"
TURN_SECONDS = 90  # how long another run is waited for; a session that uses the server lasts about a minute


class OpsmlServer:
    """A running server, and the means to make it work. Every method waits until the work is done."""

    def __init__(self, process: subprocess.Popen[str], log: Path, answer: dict[str, Any]) -> None:
        self._process = process
        self.log = log  # what the server printed
        self.db_path = Path(answer["db_path"])
        self.base_url: str = answer["base_url"]

    @property
    def url(self) -> str:
        """The database, as a SOURCE."""
        return f"sqlite:///{self.db_path}"

    def rows(self) -> list[dict[str, Any]]:
        """The table as it is now, by id. (Safe: the server lives in another process.)"""
        connection = sqlite3.connect(f"{self.db_path.as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM opsml_audit_event ORDER BY id")]
        finally:
            connection.close()

    def settle(self) -> list[dict[str, Any]]:
        """The table, once the server has nothing more to write into it (it writes after it has answered)."""
        before, quiet = self.rows(), 0
        while quiet < 3:
            time.sleep(0.2)
            now = self.rows()
            quiet = quiet + 1 if len(now) == len(before) else 0
            before = now
        return before

    def work(self, space: str = "lab") -> int:
        """Register, list, update and delete cards of several kinds; an experiment with an artifact."""
        return self.ask("work", space=space)

    def flood(self, clients: int, requests: int) -> dict[str, int]:
        """`card/list` over HTTP from so many clients at once: how many answers of which status."""
        return self.ask("flood", clients=clients, requests=requests)

    def register(self, clients: int, cards: int) -> list[str]:
        """Cards registered by so many clients at once: the errors they met."""
        return self.ask("register", clients=clients, cards=cards)

    def list_cards(self, **headers: str) -> int:
        """One `card/list` with these request headers; when it was answered, ns since the epoch."""
        return self.ask("list_cards", headers=headers)

    def timed_list(self, requests: int) -> list[float]:
        """Seconds each of so many `card/list` took."""
        return self.ask("timed_list", requests=requests)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have the child do something (a method of `Tasks`) and wait for what comes of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the server is gone"}')
        if "error" in answer:
            raise AssertionError(f"OpsML failed to {do}: {answer['error']}\n{self.log.read_text()[-2000:]}")
        return answer["result"]


@pytest.fixture(scope="session")
def opsml_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpsmlServer]:
    """The genuine OpsML server 3.0.0rc16, running; see OpsmlServer."""
    if importlib.util.find_spec("opsml") is None:
        pytest.skip("opsml==3.0.0rc16 is not installed (a Linux x86-64 wheel: extra `opsml`)")
    folder = tmp_path_factory.mktemp("opsml")
    log = folder / "server.log"
    with TURN.open("w") as turn:
        _take_turn(turn.fileno())
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPSML_", "SCOUTER_"))}
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", str(CHILD)],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        try:
            assert process.stdout is not None
            answer = json.loads(process.stdout.readline() or "{}")
            if "skip" in answer:
                pytest.skip(f"no OpsML server: {answer['skip']}")
            if "db_path" not in answer:
                pytest.fail(f"the OpsML server did not start:\n{log.read_text()[-2000:]}")
            yield OpsmlServer(process, log, answer)
        finally:
            _end(process)


def _take_turn(descriptor: int) -> None:
    end = time.monotonic() + TURN_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                pytest.skip(f"no OpsML server: another run has had its port for {TURN_SECONDS} s")
            time.sleep(0.5)


def _end(process: subprocess.Popen[str]) -> None:
    """The child and whatever it started, politely, then not."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(subprocess.TimeoutExpired, BrokenPipeError):
        process.stdin.close()
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
