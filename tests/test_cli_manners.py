"""What a command does when it is used wrongly, cut short, piped, squeezed or hung up on."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
from inspect import signature
from pathlib import Path

import pytest
from commandline import EVENTBUS, CommandLine, until
from test_cli_live import audit_lines

from cli.main import COMMANDS


@pytest.fixture
def file(cli: CommandLine) -> str:
    lines = audit_lines(30) + audit_lines(5, 30, status="Denied", operation="Delete")
    (cli.folder / "a.jsonl").write_bytes(b"\n".join([*lines, b""]))
    return "a.jsonl"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["tial"], 2, "did you mean 'tail'?"),
        (["tail", "--frobnicate"], 2, "--frobnicate"),
        (["tail", "missing.jsonl"], 1, "missing.jsonl: no such file"),
        (["tail", "nosuch://x"], 2, "nosuch"),
        (["tail", "a b"], 2, "neither a path nor a name"),
        (["tail", "-n", "few", "a.jsonl"], 2, "'few' is neither a number of events nor 'all'"),
        (["tail", "--status", "dennied", "a.jsonl"], 2, "did you mean"),
        (["tail", "--ip", "300.1.1.1", "a.jsonl"], 2, "300.1.1.1"),
        (["tail", "--since", "5", "a.jsonl"], 2, "--since"),
        (["tail", "--for", "soon"], 2, "--for"),
        (["tail", "--for", "0s"], 2, "over before anything can come"),
        (["tail", ""], 2, "an empty text names no bus"),
        (["tail", "a.jsonl", ""], 2, "an empty text names no bus"),
        (["record", "x.jsonl", "--from", ""], 2, "an empty text names no bus"),
        (["replay", ""], 2, "an empty text names no bus"),
        (["replay", "a.jsonl", "--to", ""], 2, "an empty text names no bus"),
        (["publish", "audit", "--to", ""], 2, "an empty text names no bus"),
        (["serve", "--on", ""], 2, "an empty text names no bus"),
        (["demo", "--on", ""], 2, "an empty text names no bus"),
        (["serve", "--record", ""], 2, "an empty text names no bus"),
        (["repair", ""], 2, "an empty text names no bus"),
        (["tail", "--no-wait"], 1, "eventbus serve"),
        (["record", "a.jsonl", "--from", "a.jsonl"], 2, "recorded into itself"),
        (["record", "a.jsonl", "--from", "-"], 2, "--append"),
        (["record", "", "--from", "a.jsonl"], 2, "names no file"),
        (["record", "-", "--from", "a.jsonl"], 2, "names no file"),
        (["record", "unix:/x", "--from", "a.jsonl"], 2, "names no file"),
        (["record", "sqlite:///x.db", "--from", "a.jsonl"], 2, "names no file"),
        (["record", "x.jsonl", "--append", "--overwrite"], 2, "exclude each other"),
        (["record", "x.jsonl.gz", "--from", "-"], 2, "compressed files are read, not written"),
        (["record", "x.jsonl", "--from", "missing.jsonl"], 1, "no such file"),
        (["replay", "missing.jsonl"], 1, "no such file"),
        (["replay", "a.jsonl", "--speed", "fast"], 2, "--speed"),
        (["replay", "a.jsonl", "--to", "nobody"], 1, "nobody"),
        (["replay", "a.jsonl", "--to", "sqlite:///x.db"], 2, "can be read, not written"),
        (["publish", "audit", "usrname=x"], 2, "did you mean username?"),
        (["publish", "audit", "username:=7"], 2, "username"),
        (["publish", "audit", "novalue"], 2, "neither member=text nor member:=json"),
        (["publish", "eventbus.gap"], 2, "bus's own"),
        (["publish", "audit"], 1, "eventbus serve"),
        (["serve", "--on", "a/b.jsonl"], 2, "socket"),
        (["serve", "--on", "/tmp/x.sock"], 2, "known: unix:/tmp/x.sock"),
        (["tail", "--count", "0"], 2, "'--count': it should be greater than or equal to 1"),
        (["record", "x.jsonl", "--from", "-", "--compress", "bzip2"], 2, "'--compress': 'bzip2' is not one of"),
        (["help", "tial"], 2, "did you mean 'tail'?"),
        (["serve", "--append"], 2, "--append: nothing is written without --record FILE"),
        (["serve", "--fsync", "always"], 2, "--fsync: nothing is written without --record FILE"),
        (["serve", "--rotate-size", "5MB"], 2, "--rotate-size: nothing is written without --record FILE"),
    ],
)
def test_a_wrong_word_gets_one_clear_sentence(
    cli: CommandLine, file: str, words: list[str], code: int, says: str
) -> None:
    done = cli.run(*words, check=code)
    assert says in done.err
    assert done.out == b""
    assert done.err.startswith("eventbus: ")
    assert len(done.err.splitlines()) <= 2
    assert not (cli.folder / "x.jsonl").exists(), "a file was made for nothing"


def test_malformed_lines_are_named_and_the_rest_goes_on(cli: CommandLine, file: str) -> None:
    with (cli.folder / file).open("ab") as out:
        out.write(b"{broken\n" + audit_lines(1)[0] + b"\n12\n")
    done = cli.run("tail", file, "-n", "all", check=3)
    assert len(done.ids) == 36
    assert "a.jsonl:36: " in done.err
    assert "a.jsonl:38: " in done.err
    assert "2 refused" in done.err
    assert cli.run("record", "b.jsonl", "--from", file, check=3).err.count("a.jsonl:3") == 2
    assert len(cli.run("tail", "b.jsonl", "-n", "all").ids) == 36


def test_a_file_of_nothing_but_rubbish_does_not_flood_the_screen(cli: CommandLine) -> None:
    (cli.folder / "r.jsonl").write_bytes(b"rubbish\n" * 1000)
    done = cli.run("tail", "r.jsonl", "-n", "all", check=3)
    assert "and 980 more lines were refused" in done.err
    assert len(done.err.splitlines()) < 30


def test_publish_refuses_a_bad_line_by_number_and_goes_on(cli: CommandLine) -> None:
    cli.start("serve").says("served on")
    lines = [
        *audit_lines(2),
        b'{"type":"audit","data":{"username":1}}',
        b'{"type":"audit","data":{"a":1,"a":2}}',
        *audit_lines(1),
    ]
    done = cli.run("publish", stdin=b"\n".join(lines), check=3)
    assert "line 3: data.username: expected str, got int" in done.err
    assert "line 4: the key 'a' stands twice" in done.err
    assert "3 published" in done.err


def test_a_record_is_never_overwritten_unasked_and_appends_behind_its_last_event(cli: CommandLine, file: str) -> None:
    cli.run("record", "b.jsonl", "--from", file)
    assert "--append goes on" in cli.run("record", "b.jsonl", "--from", file, check=2).err
    with (cli.folder / file).open("ab") as out:
        out.write(audit_lines(1)[0].replace(b'"e0"', b'"new"') + b"\n")
    cli.run("record", "b.jsonl", "--from", file, "--append")
    assert cli.recorded("b.jsonl") == (cli.folder / file).read_bytes().splitlines()
    cli.run("record", "b.jsonl", "--from", file, "--overwrite", "--op", "delete")
    assert len(cli.run("tail", "b.jsonl", "-n", "all").ids) == 5


def test_filters_windows_and_counts_work_on_files(cli: CommandLine, file: str) -> None:
    assert len(cli.run("tail", file).ids) == 10
    assert len(cli.run("tail", file, "--status", "denied", "-n", "all").ids) == 5
    assert len(cli.run("tail", file, "--status", "^denied", "-n", "all").ids) == 30
    assert len(cli.run("tail", file, "--since", "1h").ids) == 35
    assert len(cli.run("tail", file, "--until", "1h", "-n", "all").ids) == 0
    assert cli.run("tail", file, "-n", "all", "--count", "3").ids == ["e0", "e1", "e2"]
    done = cli.run("tail", file, "--status", "failed", "-n", "all")
    assert "OpsML itself emits only Success today" in done.err
    assert "35 seen, 0 shown, 0 lost" in done.err


def test_several_sources_are_one_stream(cli: CommandLine, file: str) -> None:
    (cli.folder / "b.jsonl").write_bytes(b"\n".join([*audit_lines(3, 100), b""]))
    done = cli.run("tail", file, "b.jsonl", "-n", "all")
    assert set(done.ids) == {f"e{n}" for n in [*range(35), 100, 101, 102]}
    assert "38 seen, 38 shown, 0 lost" in done.err
    assert "no such file" in cli.run("tail", file, "missing.jsonl", check=1).err


def test_for_ends_a_live_tail(cli: CommandLine) -> None:
    cli.start("demo", "--no-tail", "--rate", "100").says("served on")
    assert len(cli.run("tail", "-n", "0", "--for", "500ms").ids) > 5


def test_a_dry_run_sends_nothing_and_says_how_long_it_takes(cli: CommandLine, file: str) -> None:
    done = cli.run("replay", file, "--dry-run", "--rate", "10/s")
    assert done.out == b""
    assert "35 would be replayed" in done.err
    assert "takes 3.4 s at this pace" in done.err


def test_loops_are_told_apart(cli: CommandLine, file: str) -> None:
    done = cli.run("replay", file, "--to", "-", "--loop", "3", "--speed", "max", "--name", "n")
    assert [event["replay"] for event in done.events] == ["n"] * 35 + ["n#2"] * 35 + ["n#3"] * 35


def test_an_interrupted_replay_says_130_and_143(cli: CommandLine, file: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        running = cli.start("replay", file, "--rate", "5/s")
        until(lambda running=running: running.ids, "its first event")
        running.stop(number, check=128 + number)
        assert cli.sockets() == []


# ── pipes and terminals ──────────────────────────────────────────────────────────────────────────────────────────


def shell(cli: CommandLine, text: str) -> subprocess.CompletedProcess[str]:
    text = text.replace("eventbus", " ".join(EVENTBUS))
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {text}"],
        cwd=cli.folder,
        env=cli.env,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_closed_pipe_is_quiet(cli: CommandLine, file: str) -> None:
    done = shell(cli, f"eventbus tail -n all {file} | head -1")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "Traceback" not in done.stderr
    assert "rror" not in done.stderr


def test_a_live_tail_ends_when_its_reader_goes_even_on_a_silent_bus(cli: CommandLine) -> None:
    cli.start("serve").says("served on")
    cli.run("publish", "audit")
    done = shell(cli, "eventbus tail | head -1")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)


def test_json_when_piped_pretty_on_a_terminal(cli: CommandLine, file: str) -> None:
    assert len(cli.run("tail", file).events) == 10
    terminal = cli.terminal("tail", file)
    terminal.end()
    assert "Success" in terminal.text
    assert "specversion" not in terminal.text
    assert b"\x1b[32m" in terminal.raw
    assert b'"specversion"' in cli.run("tail", file, "-o", "json").out
    assert b"Success" in cli.run("tail", file, "-o", "pretty").out


def test_no_color_is_obeyed(cli: CommandLine, file: str) -> None:
    terminal = cli.terminal("tail", file, NO_COLOR="1")
    terminal.end()
    assert b"\x1b[3" not in terminal.raw
    terminal = cli.terminal("tail", file, "--color", "never")
    terminal.end()
    assert b"\x1b[3" not in terminal.raw
    assert b"\x1b[3" in cli.run("tail", file, "-o", "pretty", "--color", "always").out


def test_json_on_a_terminal_is_harmless_and_the_same(cli: CommandLine) -> None:
    import json

    line = audit_lines(1, username="\x9b2J\x7f\u202e\U000e0041")[0]
    (cli.folder / "h.jsonl").write_bytes(line + b"\n")
    terminal = cli.terminal("tail", "h.jsonl", "-o", "json", "-q", columns=2000)
    terminal.end()
    assert json.loads(terminal.raw) == json.loads(line)
    assert "\\u202e" in terminal.raw.decode()
    assert not any(character in terminal.raw.decode() for character in "\x9b\x7f\u202e\U000e0041")


def test_an_overwrite_that_has_no_source_keeps_what_there_is(cli: CommandLine, file: str) -> None:
    cli.run("record", "b.jsonl", "--from", file)
    cli.run("record", "b.jsonl", "--overwrite", "--no-wait", check=1)
    assert len(cli.recorded("b.jsonl")) == 35


def test_a_window_that_has_passed_ends_at_once_with_what_there_is(cli: CommandLine, file: str) -> None:
    assert len(cli.run("tail", file, "-n", "all", "--until", "0m", "--for", "10s").ids) == 35


def test_a_demo_faster_than_the_machine_can_be_stopped(cli: CommandLine) -> None:
    demo = cli.start("demo", "--rate", "100000", "--no-tail").says("served on")
    until(lambda: cli.sockets(), "its socket")
    demo.stop()


def test_standard_streams_may_be_closed(cli: CommandLine, file: str) -> None:
    for text, code, said in (
        ("eventbus publish <&-", 2, "name a type"),
        (f"eventbus tail {file} >&-", 1, "standard output is closed"),
        (f"eventbus tail {file} -o pretty >&-", 1, "standard output is closed"),
        (f"eventbus replay {file} --speed max >&-", 1, "standard output is closed"),
        (f"eventbus replay {file} --to - >&-", 1, "standard output is closed"),
        ("eventbus tail - <&-", 1, "standard input is closed"),
        ("eventbus record z.jsonl --from - <&-", 1, "standard input is closed"),
        (f"eventbus record y.jsonl --from {file} <&- >&-", 0, "35 recorded"),
    ):
        done = shell(cli, text)
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (cli.folder / "z.jsonl").exists()
    assert len(cli.recorded("y.jsonl")) == 35


def test_forty_columns_are_enough(cli: CommandLine, file: str) -> None:
    for words in (["tail", file], ["ls"], ["--help"], ["tail", "--help"], []):
        terminal = cli.terminal(*words, columns=40, rows=50)
        terminal.end()
        assert terminal.lines
    terminal = cli.terminal("tail", file, "-q", columns=40)
    terminal.end()
    assert len(terminal.lines) == 11  # a date and ten events, one line each
    assert all("Success" in line or "Denied" in line for line in terminal.lines[1:])


def test_ctrl_c_ends_a_tail_with_a_summary(cli: CommandLine) -> None:
    cli.start("demo", "--no-tail", "--rate", "50").says("served on")
    terminal = cli.terminal("tail")
    until(lambda: len(terminal.lines) > 5, "events")
    terminal.press(b"\x03")
    terminal.end()
    assert "seen" in terminal.lines[-1]
    assert "0 lost" in terminal.lines[-1]


def test_a_closed_terminal_ends_a_command(cli: CommandLine) -> None:
    cli.start("demo", "--no-tail", "--rate", "50").says("served on")
    for words in (["tail"], ["record", "r.jsonl"], ["demo", "--on", "other"]):
        terminal = cli.terminal(*words)
        until(lambda terminal=terminal: terminal.lines, "something")
        terminal.hang_up()
        until(lambda terminal=terminal: terminal.process.poll() is not None, "its end")
    assert cli.sockets() == ["default.sock"]
    record = (cli.folder / "r.jsonl").read_bytes()
    assert record == b"" or record.endswith(b"\n")


def test_a_full_disk_behind_standard_output_is_one_sentence(cli: CommandLine) -> None:
    for words in ("", "--help", "--version"):
        done = shell(cli, f"eventbus {words} > /dev/full")
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("eventbus: ")
        assert "Traceback" not in done.stderr


def test_hanging_up_twice_is_hanging_up_once(cli: CommandLine) -> None:
    demo = cli.start("demo", "--no-tail", "--rate", "200", "--record", "h.jsonl").says("served on")
    until(lambda: len(cli.recorded("h.jsonl")) > 5, "events")
    for _ in range(2):
        demo.process.send_signal(signal.SIGHUP)
    assert "published" in demo.end().err
    assert cli.sockets() == []
    cli.run("verify", "h.jsonl")


def test_nohup_protects(cli: CommandLine) -> None:
    import time

    demo = subprocess.Popen(
        ["bash", "-c", f"trap '' HUP; exec {' '.join(EVENTBUS)} demo --no-tail --count 60 --rate 30"],
        cwd=cli.folder,
        env=cli.env,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(cli.sockets, "its socket")
    demo.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert demo.poll() is None
    _, err = demo.communicate(timeout=45)
    assert "60 published" in err


def test_ctrl_c_works_without_a_standard_error(cli: CommandLine) -> None:
    done = shell(cli, "timeout -k 10 -s INT 2 eventbus serve 2>&-; echo $?")
    assert done.stdout.split() == ["124"]  # timeout's own word for: it ended when it was told


def test_what_a_reader_that_has_gone_was_shown_is_not_told(cli: CommandLine, file: str) -> None:
    with (cli.folder / file).open("ab") as out:
        out.writelines(line + b"\n" for line in audit_lines(2000, 100))
    done = shell(cli, f"eventbus tail {file} -n all | head -3")
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == ""


def test_a_run_that_fails_half_way_says_how_far_it_came(cli: CommandLine, file: str) -> None:
    done = shell(cli, f"eventbus tail {file} -n all > /dev/full")
    assert done.returncode == 1
    serve = cli.start("serve").says("served on")
    publish = cli.start("publish", stdin=subprocess.PIPE)
    assert publish.process.stdin is not None
    publish.process.stdin.write(b"\n".join([*audit_lines(50), b""]))
    publish.process.stdin.flush()
    until(lambda: b'"published":50' in cli.run("ls", "-o", "json").out, "all of it")
    serve.process.kill()
    serve.process.wait()
    publish.process.stdin.write(audit_lines(1)[0] + b"\n")
    publish.process.stdin.close()
    ended = publish.end(check=1)
    assert "51 seen, 50 published" in ended.err


def test_a_pretty_tail_notices_that_nobody_reads(cli: CommandLine) -> None:
    cli.start("serve").says("served on")
    done = shell(cli, "eventbus tail -o pretty | true")
    assert done.returncode == 0


def test_a_member_named_twice_is_refused(cli: CommandLine) -> None:
    for words in (["audit", "username=a", "username=b"], ["foo", 'a:={"x":1,"x":2}']):
        assert "stands twice" in cli.run("publish", *words, check=2).err


def test_a_file_beside_a_bus_ends_as_it_would_alone(cli: CommandLine, file: str) -> None:
    cli.start("serve").says("served on")
    tail = cli.start("tail", file, "default", "-n", "1")
    until(lambda: tail.ids == ["e34"], "the file's last event")
    until(lambda: b'"clients":1' in cli.run("ls", "-o", "json").out, "the bus")
    with (cli.folder / file).open("ab") as out:
        out.write(audit_lines(1, 99)[0] + b"\n")
    cli.run("publish", "audit", "username=live")
    until(lambda: len(tail.ids) == 2, "the live event")
    assert "e99" not in tail.ids
    tail.stop()


def test_eventbus_alone_shows_panels_and_examples(cli: CommandLine) -> None:
    done = cli.run()
    text = done.out.decode()
    assert all(word in text for word in ("Live", "Files", "Learn", "eventbus demo", "tail", "replay"))
    assert cli.run("--version").out.startswith(b"eventbus ")


@pytest.mark.parametrize("command", ["tail", "record", "replay", "publish", "serve", "demo", "ls"])
def test_every_command_explains_itself(cli: CommandLine, command: str) -> None:
    text = cli.run(command, "--help").out.decode()
    assert f"eventbus {command}" in text
    assert "Usage" in text
    assert cli.run("help", command).out.decode() == text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_bracket_of_a_help_text_is_printed(cli: CommandLine, command: str) -> None:
    function = getattr(importlib.import_module(f"cli.{command}"), command)
    infos = [
        info for parameter in signature(function).parameters.values() for info in parameter.annotation.__metadata__
    ]
    brackets = [bracket for info in infos for bracket in re.findall(r"\[[^]]*\]", info.help or "")]
    text = cli.run(command, "--help", COLUMNS="200").out.decode()
    assert [bracket for bracket in brackets if bracket not in text] == []


@pytest.mark.parametrize(
    "words", [["serve", "--record"], ["demo", "--record"], ["replay", "a.jsonl", "--to"], ["record"]]
)
def test_about_a_file_that_is_there_only_flags_are_named_that_the_command_has(
    cli: CommandLine, file: str, words: list[str]
) -> None:
    said = cli.run(*words, file, *(["--from", "-"] if words == ["record"] else []), check=2).err
    assert "exists already" in said
    assert "name another file" in said
    text = cli.run(words[0], "--help", COLUMNS="200").out.decode()
    assert all(flag in text for flag in re.findall("--[a-z]+", said))


def test_help_costs_little(cli: CommandLine) -> None:
    """No command is loaded, and no asyncio, to say what there is."""
    program = "import sys; from opsml_eventbus_cli.main import run; run([]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([EVENTBUS[0], "-c", program], capture_output=True, text=True, env=cli.env)
    loaded = set(done.stderr.split())
    assert done.returncode == 0
    assert not loaded & {"asyncio", "aiofiles", "typer", "orjson", "sqlite3"}, loaded & {"asyncio", "typer"}


def test_the_environment_names_the_endpoint_and_flags_win(cli: CommandLine, file: str) -> None:
    cli.start("serve", "--on", "web").says("served on")
    cli.run("publish", "audit", EVENTBUS_ENDPOINT="web")
    assert len(cli.run("tail", "--no-follow", EVENTBUS_ENDPOINT="web").ids) == 1
    assert len(cli.run("tail", file, EVENTBUS_ENDPOINT="web").ids) == 10


def test_a_folder_of_taps_that_others_can_enter_is_refused(cli: CommandLine) -> None:
    folder = cli.folder / "eventbus"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    assert "0700" in cli.run("serve", check=1).err
    folder.rmdir()
    folder.symlink_to(Path(os.sep) / "tmp")
    assert "symlink" in cli.run("serve", check=1).err
