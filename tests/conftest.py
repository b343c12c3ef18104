"""Fixtures of the whole suite."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import CommandLine, command_line
from opsml_server import opsml_server

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
