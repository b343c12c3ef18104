"""Journals through the command line: recorded, verified, rotated, repaired, replayed and gone on with."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import CommandLine, until
from test_cli_live import audit_lines

from cli.main import run
from opsml_eventbus.codec import encode_line
from opsml_eventbus.event import Event
from opsml_eventbus.journal import Segment


@pytest.fixture
def log(cli: CommandLine) -> Path:
    """Sixty events in several files of one log."""
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(60), b""]))
    cli.run("record", "log.jsonl", "--from", "in.jsonl", "--rotate-count", "25", "--compress", "gzip", "--count", "30")
    cli.run("record", "log.jsonl", "--from", "in.jsonl", "--append", "--rotate-count", "20")
    return cli.folder / "log.jsonl"


def test_a_recording_is_sound_and_says_its_head(cli: CommandLine, log: Path) -> None:
    done = cli.run("verify", "log.jsonl", "-o", "pretty")
    assert b"sound: nothing was altered" in done.out
    assert b"60 events" in done.out
    report = json.loads(cli.run("verify", "log.jsonl").out)
    assert (report["verdict"], report["events"], report["findings"]) == ("sound", 60, [])
    cli.run("verify", "log.jsonl", "--expect", report["head"])
    cli.run("verify", "log.jsonl", "--expect", report["head"].replace(":", ":0", 1)[:-1], check=5)


def test_the_whole_log_is_read_across_its_files(cli: CommandLine, log: Path) -> None:
    assert list(cli.folder.glob("log.0*"))  # a batch is never divided, so how many depends on how it came
    assert cli.run("tail", "log.jsonl", "-n", "all").ids == [f"e{n}" for n in range(60)]
    assert cli.run("tail", "log.jsonl", "-n", "3").ids == ["e57", "e58", "e59"]
    assert all("seq" not in event for event in cli.run("tail", "log.jsonl", "-n", "1").events)


def seq_of(log: Path, id_: str) -> str:
    """As it stands in the live file."""
    [line] = [line for line in log.read_bytes().splitlines() if b'"id":"%b"' % id_.encode() in line]
    return str(json.loads(line)["seq"])


def test_reading_begins_at_a_line_of_the_log(cli: CommandLine, log: Path) -> None:
    seq = seq_of(log, "e58")
    assert cli.run("tail", "log.jsonl", "--from-seq", seq).ids == ["e58", "e59"]
    assert cli.run("tail", "log.jsonl", "--from-seq", "1").ids == [f"e{n}" for n in range(60)]
    assert cli.run("replay", "log.jsonl", "--from-seq", seq, "--loop", "2", "--to", "-").ids == ["e58", "e59"] * 2
    assert b"2 would be replayed" in cli.run("replay", "log.jsonl", "--from-seq", seq, "--dry-run").err.encode()
    cli.run("record", "part.jsonl", "--from", "log.jsonl", "--from-seq", seq)
    assert cli.run("tail", "part.jsonl").ids == ["e58", "e59"]


def test_a_replay_from_a_line_goes_on_where_it_was_stopped(cli: CommandLine, log: Path) -> None:
    seq = seq_of(log, "e50")
    words = ["replay", "log.jsonl", "--from-seq", seq, "--speed", "max", "--to", "out.jsonl"]
    state = {"XDG_STATE_HOME": str(cli.folder / "state")}
    replay = cli.start(*words, "--rate", "10/s", **state)
    until(lambda: len(cli.recorded("out.jsonl")) > 2, "the first events")
    replay.process.kill()
    replay.end(check=-signal.SIGKILL)
    assert "going on" in cli.run(*words, "--resume", **state).err
    ids = cli.run("tail", "out.jsonl", "-n", "all").ids
    assert list(dict.fromkeys(ids)) == [f"e{n}" for n in range(50, 60)]


def test_a_line_to_begin_at_that_retention_has_removed_is_missed(cli: CommandLine, log: Path) -> None:
    cli.run("record", "kept.jsonl", "--from", "log.jsonl", "--rotate-count", "10", "--keep", "1")
    done = cli.run("tail", "kept.jsonl", "--from-seq", "5", check=3)
    assert "seq 5 to" in done.err


@pytest.mark.parametrize(
    "command",
    [
        ["tail", "in.jsonl"],
        ["tail", "-"],
        ["tail", "a-bus"],
        ["tail", "log.jsonl", "log.jsonl"],
        ["tail", "log.jsonl", "-n", "3"],
        ["replay", "in.jsonl"],
        ["record", "new.jsonl", "--from", "sqlite:///opsml.db"],
        ["record", "log.jsonl", "--append", "--from", "log2.jsonl"],
    ],
)
def test_a_seq_is_a_place_in_one_journal(cli: CommandLine, log: Path, command: list[str]) -> None:
    assert "--from-seq" in cli.run(*command, "--from-seq", "2", check=2).err
    assert not (cli.folder / "new.jsonl").exists()


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
    assert b"TAMPERED" in done.out


def test_a_torn_end_is_three_and_appending_mends_it(cli: CommandLine, log: Path) -> None:
    with log.open("ab") as file:
        file.write(b'{"specversion":"1.0","id":"half')
    assert json.loads(cli.run("verify", "log.jsonl", check=3).out)["verdict"] == "torn"
    assert len(cli.run("tail", "log.jsonl", "-n", "all", check=3).ids) == 60
    done = cli.run("record", "log.jsonl", "--from", "in.jsonl", "--append")
    assert "0 recorded" in done.err
    cli.run("verify", "log.jsonl")


def test_plain_lines_have_no_chain(cli: CommandLine, log: Path) -> None:
    assert b"no chain" in cli.run("verify", "in.jsonl", "-o", "pretty", check=3).out
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
    assert b"would mend" in cli.run("repair", "log.jsonl", "--dry-run", "-o", "pretty", check=3).out
    assert json.loads(cli.run("repair", "log.jsonl", "--dry-run", check=3).out)["done"]["finding"]["line"] == 4
    assert log.read_bytes() == before
    done = cli.run("repair", "log.jsonl")
    kept = [Path(name) for name in json.loads(done.out)["done"]["kept"]]
    assert any((cli.folder / path.name).read_bytes() == before for path in kept)
    ids = cli.run("tail", "log.jsonl", "-n", "all", check=None).ids
    assert len(ids) == 64  # the line that was overwritten is gone; everything else is there
    assert b"nothing to mend" in cli.run("repair", "log.jsonl", "-o", "pretty").out


def test_members_can_be_kept_out_of_the_file(cli: CommandLine) -> None:
    (cli.folder / "in.jsonl").write_bytes(b"\n".join(audit_lines(3, username="zebedee")))
    cli.run("record", "r.jsonl", "--from", "in.jsonl", "--redact", "username")
    assert b"zebedee" not in (cli.folder / "r.jsonl").read_bytes()
    (cli.folder / "key").write_bytes(b"k" * 32)
    cli.run("record", "h.jsonl", "--from", "in.jsonl", "--redact", "username", "--redact-key", "key")
    names = {event["data"]["username"] for event in cli.run("tail", "h.jsonl").events}
    assert len(names) == 1
    assert names.pop().startswith("hmac-sha256:")


def test_an_event_that_grows_too_large_when_it_is_redacted_is_counted_and_the_rest_recorded(cli: CommandLine) -> None:
    (cli.folder / "key").write_bytes(b"k")
    events = [Event.new("t", {"p": [{"q": 1}] * count}, id=f"e{count}") for count in (1, 100_000, 2)]
    (cli.folder / "in.jsonl").write_bytes(b"\n".join(map(encode_line, events)))
    done = cli.run("record", "r.jsonl", "--from", "in.jsonl", "--redact", "p.q", "--redact-key", "key", check=3)
    assert "3 seen, 2 recorded, 1 lost, 1 refused" in done.err
    assert [event["id"] for event in cli.run("tail", "r.jsonl").events if event["type"] == "t"] == ["e1", "e2"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--fsync", "sometimes"], "--fsync"),
        (["--rotate-size", "big"], "--rotate-size"),
        (["--rotate-count", "0"], "--rotate-count"),
        (["--redact-key", "in.jsonl"], "--redact-key"),
        (["--sign-key", "missing.pem"], "no such file"),
        (["--sign-key", "in.jsonl"], "not an Ed25519 private key"),
        (["--redact", "username", "--redact-key", "/dev/null"], "no such file"),
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


def test_a_replay_that_was_killed_goes_on_behind_what_its_file_holds(cli: CommandLine, log: Path) -> None:
    state = {"XDG_STATE_HOME": str(cli.folder / "state")}
    words = ("replay", "log.jsonl", "--to", "out.jsonl")
    first = cli.start(*words, "--rate", "20/s", **state)
    until(lambda: len(cli.recorded("out.jsonl")) > 15, "some of it")
    first.process.kill()
    first.process.wait()
    cli.run(*words, "--resume", "--speed", "max", **state)
    events = [json.loads(line) for line in cli.recorded("out.jsonl")]
    assert list(dict.fromkeys(event["id"] for event in events)) == [f"e{n}" for n in range(60)]
    assert len({event["replay"] for event in events}) == 1
    assert len(events) <= 70
    cli.run("verify", "out.jsonl")


def test_a_replay_whose_place_a_power_cut_took_begins_at_the_beginning_and_says_so(cli: CommandLine, log: Path) -> None:
    state = {"XDG_STATE_HOME": str(cli.folder / "state")}
    cli.run("record", "one.jsonl", "--from", "in.jsonl", "--fsync", "interval=1h")
    first = cli.start("replay", "one.jsonl", "--to", "out.jsonl", "--rate", "20/s", **state)
    until(lambda: len(cli.recorded("out.jsonl")) > 15, "some of it")
    first.stop(signal.SIGINT, check=130)
    one = cli.folder / "one.jsonl"
    one.write_bytes(b"".join(one.read_bytes().splitlines(keepends=True)[:11]))
    cli.run("record", "one.jsonl", "--append", "--from", "in.jsonl")
    done = cli.run("replay", "one.jsonl", "--to", "new.jsonl", "--resume", "--speed", "max", check=3, **state)
    assert "cut or repaired" in done.err
    ids = [json.loads(line)["id"] for line in cli.recorded("new.jsonl") if b"eventbus.gap" not in line]
    assert ids == [f"e{n}" for n in range(60)]


def test_a_finished_replay_is_not_resumed_into_its_own_file(cli: CommandLine, log: Path) -> None:
    state = {"XDG_STATE_HOME": str(cli.folder / "state")}
    words = ("replay", "log.jsonl", "--to", "out.jsonl", "--speed", "max")
    cli.run(*words, **state)
    assert "exists already" in cli.run(*words, "--resume", check=2, **state).err
    assert len(cli.recorded("out.jsonl")) == 60


def test_a_replay_begun_anew_forgets_where_the_one_before_was(cli: CommandLine, log: Path) -> None:
    state = {"XDG_STATE_HOME": str(cli.folder / "state")}
    first = cli.start("replay", "log.jsonl", "--to", "out.jsonl", "--rate", "20/s", **state)
    until(lambda: len(cli.recorded("out.jsonl")) > 15, "some of it")
    first.stop(signal.SIGINT, check=130)
    # Nothing of it comes to its file: it has no place to go on from.
    cli.run("replay", "log.jsonl", "--to", "new.jsonl", "--type", "nothing-is-called-so", **state)
    cli.run("replay", "log.jsonl", "--to", "new.jsonl", "--resume", "--speed", "max", **state)
    assert len(cli.recorded("new.jsonl")) == 60


def test_another_recording_under_the_name_is_replayed_from_its_beginning(cli: CommandLine, log: Path) -> None:
    state = {"XDG_STATE_HOME": str(cli.folder / "state")}
    first = cli.start("replay", "log.jsonl", "--to", "out.jsonl", "--rate", "20/s", **state)
    until(lambda: len(cli.recorded("out.jsonl")) > 15, "some of it")
    first.stop(signal.SIGINT, check=130)
    cli.run("record", "log.jsonl", "--from", "in.jsonl", "--overwrite", "--count", "20")
    done = cli.run("replay", "log.jsonl", "--to", "new.jsonl", "--resume", "--speed", "max", **state)
    assert "no replay was stopped" in done.err
    assert len(cli.recorded("new.jsonl")) == 20


@pytest.mark.parametrize("source", [".", "log.jsonl", "finished"])
def test_a_log_is_never_recorded_into_itself(cli: CommandLine, log: Path, source: str) -> None:
    (cli.folder / "in.jsonl").unlink()
    finished = min(cli.folder.glob("log.0*"))
    before = {path.name: path.read_bytes() for path in cli.folder.glob("log.*")}
    name = finished.name if source == "finished" else source
    for flag in ("--overwrite", "--append"):
        assert "into itself" in cli.run("record", "log.jsonl", flag, "--from", name, check=2).err
    assert {path.name: path.read_bytes() for path in cli.folder.glob("log.*")} == before


def test_a_finished_file_is_not_written_into(cli: CommandLine) -> None:
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(60), b""]))
    cli.run("record", "log.jsonl", "--from", "in.jsonl", "--rotate-count", "25")
    finished = min(cli.folder.glob("log.0*"))
    for flag in ("--append", "--overwrite"):
        refused = cli.run("record", finished.name, flag, "--from", "in.jsonl", check=2)
        assert "a finished file of log.jsonl" in refused.err
    assert "a finished file of log.jsonl" in cli.run("publish", "audit", "--to", f"./{finished.name}", check=2).err
    assert "an ending" in cli.run("record", "./log", "--from", "in.jsonl", check=2).err
    cli.run("verify", "log.jsonl")


def test_a_file_holds_no_more_than_was_asked_for(cli: CommandLine) -> None:
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(60), b""]))
    cli.run("record", "log.jsonl", "--from", "in.jsonl", "--rotate-count", "25")
    held = [json.loads(cli.run("verify", path.name).out)["events"] for path in sorted(cli.folder.glob("log.0*"))]
    assert held == [25, 25]
    assert cli.run("tail", "log.jsonl", "-n", "all").ids == [f"e{n}" for n in range(60)]


@pytest.mark.parametrize("output", ["json", "pretty"])
def test_a_changed_inside_is_never_silent(cli: CommandLine, log: Path, output: str) -> None:
    """The line's place is as it was, what it holds is no event any more."""
    lines = log.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"data":{', b'"data":[')
    log.write_bytes(b"".join(lines))
    done = cli.run("tail", "log.jsonl", "-n", "all", "-o", output, check=3)
    assert "59 shown, 1 lost, 1 refused" in done.err
    assert f"{log.name}:4: " in done.err
    if output == "json":
        assert len(done.ids) == 59
        assert len(done.events) == 60


def test_what_fsync_never_cannot_tell_is_torn_and_what_was_on_disk_is_altered(cli: CommandLine, log: Path) -> None:
    cli.run("record", "never.jsonl", "--from", "in.jsonl", "--fsync", "never")
    never = cli.folder / "never.jsonl"
    never.write_bytes(never.read_bytes()[:-30])
    cli.run("verify", "never.jsonl", check=3)
    assert "eventbus repair" in cli.run("record", "never.jsonl", "--append", "--from", "in.jsonl", check=3).err
    cli.run("repair", ".", check=2)  # several logs here: which one is meant?
    cli.run("repair", "never.jsonl")
    cli.run("record", "never.jsonl", "--append", "--from", "in.jsonl")
    cli.run("verify", "never.jsonl")


def test_every_finding_is_listed(cli: CommandLine) -> None:
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(3_000), b""]))
    cli.run("record", "log.jsonl", "--from", "in.jsonl")
    log = cli.folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(b"rubbish\n" if number % 2 else line for number, line in enumerate(lines)))
    report = json.loads(cli.run("verify", "log.jsonl", check=5).out)
    assert len(report["findings"]) == report["count"] == 1_501
    assert set(report["findings"][0]) == {"kind", "file", "line", "byte", "seq", "reason"}
    drawn = cli.run("verify", "log.jsonl", "-o", "pretty", check=5).out.decode().splitlines()
    assert "1,401 more" in drawn[100]


PEAK = """
import sys
from opsml_eventbus_cli.entry import main
try:
    main()
except SystemExit:
    pass
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_as_many_findings_as_lines_take_no_memory(cli: CommandLine, log: Path) -> None:
    def peak(count: int) -> int:
        damaged = cli.folder / f"damaged{count}.jsonl"
        damaged.write_bytes(log.read_bytes() + b"rubbish\n" * count + log.read_bytes())
        command = [sys.executable, "-c", PEAK, "verify", str(damaged), "-o", "json"]
        done = subprocess.run(command, capture_output=True, check=True)
        assert len(json.loads(done.stdout)["findings"]) > count
        return int(done.stderr.splitlines()[-1])

    assert peak(120_000) - peak(1_000) < 16_000, "kB; it was 65,000 when they were kept"


def test_a_signed_log_cannot_be_cut_back_unseen(cli: CommandLine, log: Path) -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    key = ed25519.Ed25519PrivateKey.generate()
    pem, openssl, none = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (cli.folder / "key.pem").write_bytes(key.private_bytes(pem, openssl, none))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (cli.folder / "key.pub").write_bytes(public)
    cli.run("record", "signed.jsonl", "--from", "in.jsonl", "--sign-key", "key.pem")
    assert (
        json.loads(cli.run("verify", "signed.jsonl", "--public-key", "key.pub").out)["signed"] == 62
    )  # two control records in front
    signed = cli.folder / "signed.jsonl"
    signed.write_bytes(b"".join(signed.read_bytes().splitlines(keepends=True)[:40]))
    cli.run("verify", "signed.jsonl")  # hashing alone cannot see it
    assert (
        json.loads(cli.run("verify", "signed.jsonl", "--public-key", "key.pub", check=3).out)["verdict"] == "unsigned"
    )


@pytest.mark.parametrize("limit", [("--rotate-every", "0s"), ("--rotate-size", "0B"), ("--rotate-count", "0")])
def test_a_limit_that_leaves_no_room_is_wrong_usage(cli: CommandLine, limit: tuple[str, str]) -> None:
    done = cli.run("record", "log.jsonl", "--from", "in.jsonl", *limit, check=2)
    assert limit[0] in done.err
    assert "leaves no room" in done.err


NOT_TEXT = os.fsdecode(b"a\xff.jsonl")


def test_a_log_whose_name_is_not_text_is_verified_and_read_but_not_written(cli: CommandLine, log: Path) -> None:
    for path in cli.folder.glob("log.*"):
        path.rename(path.with_name(path.name.replace("log", NOT_TEXT.removesuffix(".jsonl"), 1)))
    report = json.loads(cli.run("verify", NOT_TEXT).out)
    assert (report["verdict"], report["events"]) == ("sound", 60)
    assert cli.run("verify", NOT_TEXT, "-o", "pretty").out.startswith(b"a\\udcff.jsonl")
    assert cli.run("tail", NOT_TEXT, "-n", "1").ids == ["e59"]
    assert cli.run("replay", NOT_TEXT, "--to", "-", "--speed", "max").ids == [f"e{n}" for n in range(60)]
    (cli.folder / NOT_TEXT).write_bytes((cli.folder / NOT_TEXT).read_bytes() + b"torn")
    before = sorted(cli.folder.iterdir())
    for words in (("record", NOT_TEXT, "--from", "in.jsonl", "--append"), ("repair", NOT_TEXT)):
        assert "its name is not UTF-8" in cli.run(*words, check=None).err
    assert sorted(cli.folder.iterdir()) == before
    cli.run("verify", NOT_TEXT, check=3)


def test_without_a_standard_output_the_exit_code_answers(cli: CommandLine, log: Path) -> None:
    for word in ("verify", "repair"):
        for how in ("json", "pretty"):
            done = cli.shell(f"{word} log.jsonl -o {how} >&-")
            assert (done.code, done.err) == (0, "")


def test_a_file_that_may_not_be_read_is_neither_sound_nor_altered(
    cli: CommandLine, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished, opened = min(cli.folder.glob("log.0*")), Segment.open

    def open_(segment: Segment) -> object:
        if segment.path == finished:  # root may read everything
            raise PermissionError(errno.EACCES, "Permission denied", str(finished))
        return opened(segment)

    monkeypatch.setattr(Segment, "open", open_)
    assert run(["verify", str(log)]) == 1
    assert f"{finished.name}: permission denied" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize("packed", ["gzip", "zstd"])
def test_a_truncated_file_of_a_log_is_five_for_verify_and_three_for_who_reads_it(cli: CommandLine, packed: str) -> None:
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(60), b""]))
    cli.run("record", "log.jsonl", "--from", "in.jsonl", "--rotate-count", "25", "--compress", packed)
    finished = min(cli.folder.glob("log.0*"))
    finished.write_bytes(finished.read_bytes()[:-9])
    cli.run("verify", "log.jsonl", check=5)
    assert "refused" in cli.run("tail", "log.jsonl", "-n", "all", check=3).err
    cli.run("tail", finished.name, "-n", "all", check=3)
    cli.run("replay", "log.jsonl", "--to", "-", "--speed", "max", check=3)
