"""Every example runs, and shows what it says it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import CommandLine, until

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_embed_the_bus() -> None:
    out = run("embed_the_bus.py").splitlines()
    assert out[:5] == [f"fast: {n}" for n in range(5)]
    assert out[5] == "slow: 12 missed (lag)"
    assert out[-1] == "slow in all: 8 received, 12 missed"


def test_own_event_type() -> None:
    out = run("own_event_type.py")
    assert "invoice 2026-117: 42.00 paid" in out
    assert '"type":"billing.invoice_paid"' in out
    assert '"data":{"invoice":"2026-117","cents":4200}}' in out
    assert "denied: mira" in out


def test_tap_a_program(cli: CommandLine) -> None:
    program = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "tap_a_program.py")], env=cli.env, stdout=subprocess.DEVNULL
    )
    try:
        tail = cli.start("tail", "worker", "--op", "delete")
        until(lambda: len(tail.events) > 3, "its deletions")
        assert {event["source"] for event in tail.events} == {"worker"}
        refused = cli.run("publish", "--to", "worker", "audit", check=1)
        assert "does not take events" in refused.err
        tail.stop()
    finally:
        program.kill()
        program.wait()


def test_first_minute_ends_by_itself_without_a_terminal(cli: CommandLine) -> None:
    env = {**cli.env, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{cli.env['PATH']}"}
    del env["XDG_STATE_HOME"]
    out = run("first_minute.py", cwd=cli.folder, env={**env, "HOME": str(cli.folder / "home")})
    assert not (cli.folder / "home").exists(), "something outside its folder was touched"
    assert out.count("$ eventbus") == 3
    assert "↻" in out
    [recording] = (cli.folder / "demo").glob("*.jsonl")
    assert len(cli.recorded(f"demo/{recording.name}")) == 60


def test_the_readme_example_is_true() -> None:
    text = (EXAMPLES.parent / "README.md").read_text()
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["Delete", "0"]


def test_every_example_has_a_test() -> None:
    mentioned = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    missing = [path.name for path in EXAMPLES.glob("*.py") if path.name not in mentioned and path.stem not in mentioned]
    assert missing == ["picture.py"] or not missing


@pytest.mark.skipif(not Path("/usr/bin/script").exists(), reason="`script` (util-linux) draws the README's picture")
def test_the_picture_can_be_drawn_again(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    run("picture.py", cwd=tmp_path)
    svg = (tmp_path / "docs" / "terminal.svg").read_text()
    assert "Denied" in svg
    assert "font-face" not in svg
