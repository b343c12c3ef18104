"""examples/follow_opsml.py does what it says, on a table of ours and on the genuine server's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from audit_table import Server
from opsml_server import OpsmlServer

ROOT = Path(__file__).parent.parent


def run(url: str, count: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "follow_opsml.py"), url, str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_example_shows_deletions_and_holes_and_lets_nothing_act_on_the_terminal(tmp_path: Path) -> None:
    server = Server(tmp_path / "opsml.db")
    server.insert(username="\x1b]0;pwned\x07")
    server.insert(3)
    server.insert(operation="Delete", resource_id="01a2")
    server.delete("id IN (2, 3)")
    first, hole, fourth, deleted = run(server.url, 4)
    server.close()
    assert first == r"    '\x1b]0;pwned\x07' 'List' 'prompt' via '/opsml/api/card/list'"
    assert "2 rows are missing" in hole
    assert "user4" in fourth
    assert deleted == "!!! 'user5' deleted 'prompt' '01a2'"


@pytest.mark.opsml
def test_the_example_follows_the_genuine_server(opsml_server: OpsmlServer) -> None:
    opsml_server.work("example")
    rows = opsml_server.settle()
    lines = run(opsml_server.url, len(rows))
    assert len(lines) == len(rows)
    assert [line.startswith("!!!") for line in lines] == [row["operation"] == "Delete" for row in rows]
