"""Fixtures of the whole suite."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import CommandLine, command_line
from opsml_server import opsml_server

from opsml_eventbus.journal import reader, verify

__all__ = ["cli", "opsml_server"]


@pytest.fixture
def cli() -> Iterator[CommandLine]:
    """`eventbus` with sockets and files of its own. (Not tmp_path: a socket's path has to be short.)"""
    folder = Path(tempfile.mkdtemp(prefix="eb-"))
    try:
        with command_line(folder) as machine:
            yield machine
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def no_writer_is_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torn line is looked at once, not waited for: nobody is writing here."""
    monkeypatch.setattr(reader, "_GROWING_SECONDS", 0.0)
    monkeypatch.setattr(verify, "_GROWING_SECONDS", 0.0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud what was not tested here: a skip must not pass for a pass."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        reasons = sorted({str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)})
        terminalreporter.write_line(f"NOT TESTED HERE: {len(skipped)} tests were skipped", yellow=True, bold=True)
        for reason in reasons:
            terminalreporter.write_line(f"  {reason.removeprefix('Skipped: ')}", yellow=True)
