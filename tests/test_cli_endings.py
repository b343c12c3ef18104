"""How a command ends: what one Ctrl-C is enough for, and what is said then."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys

import pytest
from commandline import EVENTBUS, CommandLine, Terminal, until
from test_cli_live import audit_lines


@pytest.mark.skipif(sys.platform != "linux", reason="another process's limits can be set on Linux only")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_served_bus_that_waits_for_a_full_disk_ends_at_the_first_signal(cli: CommandLine, number: int) -> None:
    serve = cli.start("serve", "--record", "log.jsonl", "--on-error", "block").says("served on")
    resource.prlimit(serve.process.pid, resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(60), b""]))
    cli.start("replay", "in.jsonl", "--speed", "max", "--to", "default")
    serve.says("tried again each 1 s")
    done = serve.stop(number, check=1)
    assert "recorded to log.jsonl" in done.err
    assert "log.jsonl: File too large\n  what was acknowledged is in the file" in done.err
    cli.run("verify", "log.jsonl")


@pytest.mark.skipif(sys.platform != "linux", reason="another process's limits can be set on Linux only")
@pytest.mark.parametrize("live", [False, True], ids=["a bus of its own", "a live bus"])
def test_a_demo_whose_disk_is_full_says_how_much_is_on_it(cli: CommandLine, live: bool) -> None:
    if live:
        cli.start("serve").says("served on")
    demo = cli.start("demo", "--record", "log.jsonl", "--rate", "50")
    until(lambda: len(cli.recorded("log.jsonl")) > 2, "the first events")
    resource.prlimit(demo.process.pid, resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))
    said = demo.end(check=1).err
    assert f"{len(cli.recorded('log.jsonl'))} recorded to log.jsonl" in said
    assert "File too large" in said


def test_an_event_that_is_published_but_not_shown_yet_is_counted(cli: CommandLine) -> None:
    read, write = os.pipe()
    try:
        demo = cli.start("demo", "--record", "log.jsonl", "--rate", "2000", stdout=write)
        until(lambda: select.select([], [write], [], 0)[1] == [], "a reader that does not read")
        done = demo.stop()
        recorded = len(cli.recorded("log.jsonl"))
        assert f"{recorded:,} published, 0 lost, {recorded:,} recorded" in done.err
    finally:
        os.close(read)
        os.close(write)


def test_what_a_full_pipe_has_taken_is_counted_and_not_sent_again(cli: CommandLine) -> None:
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(2000), b""]))
    read, write = os.pipe()
    replay = cli.start("replay", "in.jsonl", "--to", "-", "--speed", "max", stdout=write)
    until(lambda: select.select([], [write], [], 0)[1] == [], "a reader that does not read")
    os.close(write)
    replay.process.send_signal(signal.SIGINT)
    with open(read, "rb") as stream:
        first = [json.loads(line)["id"] for line in stream]
    said = replay.end(check=128 + signal.SIGINT).err
    assert 0 < len(first) < 2000
    assert f"{len(first):,} replayed" in said
    again = cli.run("replay", "in.jsonl", "--to", "-", "--speed", "max", "--resume")
    assert [*first, *again.ids] == [json.loads(line)["id"] for line in audit_lines(2000)]


KILLED_AT_ITS_END = """
import os, signal, sys
from opsml_eventbus_cli import entry, runner

runner.summary = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["eventbus", "replay", "in.jsonl", "--to", "out.jsonl", "--speed", "max"]
entry.main()
"""


def test_a_replay_that_is_killed_when_all_was_sent_repeats_nothing(cli: CommandLine) -> None:
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(100), b""]))
    done = subprocess.run([EVENTBUS[0], "-c", KILLED_AT_ITS_END], cwd=cli.folder, env=cli.env, timeout=60)
    assert done.returncode == -signal.SIGKILL
    cli.run("replay", "in.jsonl", "--to", "out.jsonl", "--speed", "max", "--resume")
    assert len(cli.recorded("out.jsonl")) == 100


KILLED_BEFORE_ITS_PLACE = """
import os, signal, sys
from opsml_eventbus_cli import bookmark, entry

bookmark.Bookmark.put = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["eventbus", "replay", "in.jsonl", "--to", "out.jsonl", "--rate", "50/s"]
entry.main()
"""


def test_a_replay_that_is_killed_before_it_wrote_down_a_place_goes_on(cli: CommandLine) -> None:
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(100), b""]))
    done = subprocess.run([EVENTBUS[0], "-c", KILLED_BEFORE_ITS_PLACE], cwd=cli.folder, env=cli.env, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert 0 < len(cli.recorded("out.jsonl")) < 100
    assert (
        "from its beginning" in cli.run(*["replay", "in.jsonl", "--to", "out.jsonl", "--speed", "max", "--resume"]).err
    )
    events = [json.loads(line) for line in cli.recorded("out.jsonl")]
    assert list(dict.fromkeys(event["id"] for event in events)) == [f"e{n}" for n in range(100)]
    assert len({event["replay"] for event in events}) == 1


SLOW_IMPORT = """
import os, signal, sys, weakref
from opsml_eventbus_cli import entry

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            sys.meta_path.remove(self)
            class Object: pass
            thing = Object()
            weakref.finalize(thing, os.kill, os.getpid(), signal.SIGINT)  # as in a callback of the import system
            del thing

sys.meta_path.insert(0, Finder())
sys.argv = ["eventbus", "serve"]
entry.main()
"""


@pytest.mark.parametrize("module", ["opsml_eventbus_cli.main", "typer", "opsml_eventbus.bus"])
def test_ctrl_c_while_a_command_is_being_loaded_ends_it_without_a_traceback(cli: CommandLine, module: str) -> None:
    program = SLOW_IMPORT.replace("{module}", module)
    done = subprocess.run([EVENTBUS[0], "-c", program], capture_output=True, text=True, env=cli.env, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_ctrl_c_lets_a_command_without_a_loop_tidy_up(cli: CommandLine) -> None:
    with (cli.folder / "big.jsonl").open("wb") as out:
        out.writelines(line + b"\n" for line in audit_lines(1000) * 400)
    verify = cli.terminal("verify", "big.jsonl").shows("verifying")
    verify.press(b"\x03")
    verify.end(130)
    assert verify.raw.rfind(b"\x1b[?25h") > verify.raw.rfind(b"\x1b[?25l"), "the cursor is still hidden"


STOPPED_AS_IT_IS_DRAWN = """
import rich.progress
from opsml_eventbus_cli.terminal import Notes, Progress

def stop(*_, **__):
    raise KeyboardInterrupt

rich.progress.Progress.add_task = stop
try:
    with Progress(Notes(), "verifying"):
        pass
except KeyboardInterrupt:
    print("stopped")
"""


def test_ctrl_c_right_behind_the_first_drawing_shows_the_cursor_again(cli: CommandLine) -> None:
    program = Terminal([EVENTBUS[0], "-c", STOPPED_AS_IT_IS_DRAWN], cli.folder, cli.env, 80, 24).shows("stopped")
    program.end(0)
    assert b"\x1b[?25l" in program.raw
    assert program.raw.rfind(b"\x1b[?25h") > program.raw.rfind(b"\x1b[?25l"), "the cursor is still hidden"


def test_whoever_removes_what_is_recorded_is_told_that_it_is_not_there(cli: CommandLine) -> None:
    demo = cli.start("demo", "--record", "log.jsonl", "--rate", "50")
    until(lambda: len(cli.recorded("log.jsonl")) > 2, "the first events")
    (cli.folder / "log.jsonl").unlink()
    said = demo.end(check=1).err
    assert "log.jsonl: the file was moved or removed from outside" in said
    assert "is in the file" not in said
    assert "what was acknowledged is only where that file is now" in said
