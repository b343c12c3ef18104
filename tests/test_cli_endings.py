"""How a command ends: what one Ctrl-C is enough for, and what is said then."""

from __future__ import annotations

import resource
import signal
import sys

import pytest
from commandline import CommandLine
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
