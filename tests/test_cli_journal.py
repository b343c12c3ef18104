"""Journals through the command line: recorded, verified, rotated, repaired, replayed and gone on with."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from commandline import CommandLine, until
from test_cli_live import audit_lines


@pytest.fixture
def log(cli: CommandLine) -> Path:
    """Sixty events in several files of one log."""
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(60), b""]))
    cli.run("record", "log.jsonl", "--from", "in.jsonl", "--rotate-count", "25", "--compress", "gzip", "--count", "30")
    cli.run("record", "log.jsonl", "--from", "in.jsonl", "--append", "--rotate-count", "20")
    return cli.folder / "log.jsonl"


def test_a_recording_is_sound_and_says_its_head(cli: CommandLine, log: Path) -> None:
    done = cli.run("verify", "log.jsonl", "-o", "pretty")
    assert "sound: nothing was altered" in done.err
    assert "60 events" in done.err
    report = json.loads(cli.run("verify", "log.jsonl").out)
    assert (report["verdict"], report["events"], report["findings"]) == ("sound", 60, [])
    cli.run("verify", "log.jsonl", "--expect", report["head"])
    cli.run("verify", "log.jsonl", "--expect", report["head"].replace(":", ":0", 1)[:-1], check=5)


def test_the_whole_log_is_read_across_its_files(cli: CommandLine, log: Path) -> None:
    assert list(cli.folder.glob("log.0*"))  # a batch is never divided, so how many depends on how it came
    assert cli.run("tail", "log.jsonl", "-n", "all").ids == [f"e{n}" for n in range(60)]
    assert cli.run("tail", "log.jsonl", "-n", "3").ids == ["e57", "e58", "e59"]
    assert all("seq" not in event for event in cli.run("tail", "log.jsonl", "-n", "1").events)


@pytest.mark.parametrize("how", ["edit", "delete", "swap", "crlf"])
def test_an_altered_log_is_found(cli: CommandLine, log: Path, how: str) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    match how:
        case "edit":
            lines[2] = lines[2].replace(b"guest", b"quest")
        case "delete":
            del lines[2]
        case "swap":
            lines[2], lines[3] = lines[3], lines[2]
        case "crlf":
            lines = [line.replace(b"\n", b"\r\n") for line in lines]
    log.write_bytes(b"".join(lines))
    done = cli.run("verify", "log.jsonl", "-o", "pretty", check=5)
    assert "TAMPERED" in done.err


def test_a_torn_end_is_three_and_appending_mends_it(cli: CommandLine, log: Path) -> None:
    with log.open("ab") as file:
        file.write(b'{"specversion":"1.0","id":"half')
    assert json.loads(cli.run("verify", "log.jsonl", check=3).out)["verdict"] == "torn"
    assert len(cli.run("tail", "log.jsonl", "-n", "all", check=3).ids) == 60
    done = cli.run("record", "log.jsonl", "--from", "in.jsonl", "--append")
    assert "0 recorded" in done.err
    cli.run("verify", "log.jsonl")


def test_plain_lines_have_no_chain(cli: CommandLine, log: Path) -> None:
    assert "no chain" in cli.run("verify", "in.jsonl", "-o", "pretty", check=3).err
    assert "no such file" in cli.run("verify", "missing.jsonl", check=1).err


def test_damage_is_refused_repaired_and_kept(cli: CommandLine, log: Path) -> None:
    with (cli.folder / "in.jsonl").open("ab") as file:
        file.write(b"\n".join([*audit_lines(5, 60), b""]))
    cli.run("record", "log.jsonl", "--from", "in.jsonl", "--append")
    # Damage within what a later line knows to be on disk; a crash cannot have done that.
    lines = log.read_bytes().splitlines(keepends=True)
    lines[3] = b"rubbish\n"
    # Without the checkpoint that closed it: a log that was left in good order is not read through when it is opened.
    log.write_bytes(b"".join(lines[:-1]))
    before = log.read_bytes()
    refused = cli.run("record", "log.jsonl", "--from", "in.jsonl", "--append", check=5)
    assert "eventbus repair" in refused.err
    assert log.read_bytes() == before
    assert "would mend" in cli.run("repair", "log.jsonl", "--dry-run", check=3).err
    assert log.read_bytes() == before
    done = cli.run("repair", "log.jsonl")
    assert "mended" in done.err
    kept = [Path(line.split("kept: ", 1)[1]) for line in done.err.splitlines() if line.startswith("kept: ")]
    assert any((cli.folder / path.name).read_bytes() == before for path in kept)
    ids = cli.run("tail", "log.jsonl", "-n", "all", check=None).ids
    assert len(ids) == 64  # the line that was overwritten is gone; everything else is there
    assert "nothing to mend" in cli.run("repair", "log.jsonl").err


def test_members_can_be_kept_out_of_the_file(cli: CommandLine) -> None:
    (cli.folder / "in.jsonl").write_bytes(b"\n".join(audit_lines(3, username="zebedee")))
    cli.run("record", "r.jsonl", "--from", "in.jsonl", "--redact", "username")
    assert b"zebedee" not in (cli.folder / "r.jsonl").read_bytes()
    (cli.folder / "key").write_bytes(b"k" * 32)
    cli.run("record", "h.jsonl", "--from", "in.jsonl", "--redact", "username", "--redact-key", "key")
    names = {event["data"]["username"] for event in cli.run("tail", "h.jsonl").events}
    assert len(names) == 1
    assert names.pop().startswith("hmac-sha256:")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--fsync", "sometimes"], "--fsync"),
        (["--rotate-size", "big"], "--rotate-size"),
        (["--rotate-count", "0"], "--rotate-count"),
        (["--redact-key", "in.jsonl"], "--redact-key"),
        (["--sign-key", "missing.pem"], "no such file"),
    ],
)
def test_wrong_flags_are_named(cli: CommandLine, log: Path, words: list[str], says: str) -> None:
    done = cli.run("record", "x.jsonl", "--from", "in.jsonl", *words, check=2)
    assert says in done.err
    assert not (cli.folder / "x.jsonl").exists()


def test_a_second_recorder_is_told_who_holds_the_log(cli: CommandLine) -> None:
    serve = cli.start("serve", "--record", "s.jsonl").says("recorded to")
    refused = cli.run("record", "s.jsonl", "--append", "--from", "default", check=1)
    assert str(serve.process.pid) in refused.err
    serve.stop()
    cli.run("verify", "s.jsonl")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_replay_that_was_stopped_goes_on(cli: CommandLine, log: Path, number: int) -> None:
    state = {"XDG_STATE_HOME": str(cli.folder / "state")}
    first = cli.start("replay", "log.jsonl", "--to", "out.jsonl", "--rate", "20/s", "--name", "monday", **state)
    until(lambda: len(cli.recorded("out.jsonl")) > 15, "some of it")
    first.process.send_signal(number)
    first.process.wait()
    part = [json.loads(line)["id"] for line in cli.recorded("out.jsonl")]
    assert 15 < len(part) < 60
    cli.run("replay", "log.jsonl", "--to", "rest.jsonl", "--resume", "--speed", "max", **state)
    rest = [json.loads(line) for line in cli.recorded("rest.jsonl")]
    assert {event["replay"] for event in rest} == {"monday"}
    ids = [event["id"] for event in rest]
    assert ids == [f"e{n}" for n in range(60 - len(ids), 60)]
    again = len(part) + len(ids) - 60
    # Stopped by a signal: exactly once. Killed: what was acknowledged in the last fifth of a second may come again.
    assert again == 0 if number == signal.SIGINT else 0 <= again <= 10
    done = cli.run("replay", "log.jsonl", "--to", "third.jsonl", "--resume", "--speed", "max", **state)
    assert "no replay was stopped" in done.err
