"""The main job, as a user does it: processes that publish, tail, record and replay over real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from commandline import CommandLine, until

from opsml_eventbus import AuditEvent, Event
from opsml_eventbus.codec import encode_line


def audit_lines(count: int, first: int = 0, **members: str) -> list[bytes]:
    return [
        encode_line(Event.new("audit", AuditEvent(resource_id=str(n), **members), id=f"e{n}"))
        for n in range(first, first + count)
    ]


def test_demo_tail_record_replay_in_three_terminals(cli: CommandLine) -> None:
    demo = cli.start("demo", "--rate", "200", "--no-tail").says("served on")
    tail = cli.start("tail", "--type", "audit", "--op", "delete", "-n", "0")
    record = cli.start("record", "audit.jsonl")
    log = cli.folder / "audit.jsonl"
    until(lambda: len(tail.ids) > 3 and log.exists() and b'"Delete"' in log.read_bytes(), "deletions")
    recorded = record.stop()
    assert "0 lost" in recorded.err
    replay = cli.run("replay", "audit.jsonl", "--speed", "10x")
    assert "replayed" in replay.err
    deletions = {
        event["id"]
        for event in map(json.loads, cli.recorded("audit.jsonl"))
        if event["data"].get("operation") == "Delete"
    }
    assert deletions
    until(lambda: deletions <= {event["id"] for event in tail.events if event.get("replay")}, "the replay in the tail")
    seen = Counter(event["id"] for event in tail.events if event.get("replay"))
    assert set(seen.values()) == {1}
    assert {event["data"]["operation"] for event in tail.events} == {"Delete"}
    assert "0 lost" in tail.stop().err
    demo.stop()
    assert cli.sockets() == []


def test_a_published_event_is_written_by_a_tail_within_50_ms(cli: CommandLine) -> None:
    cli.start("serve").says("served on")
    reader, writer = os.pipe()
    cli.start("tail", "-n", "0", stdout=writer)
    os.close(writer)
    until(lambda: json.loads(cli.run("ls", "-o", "json").out or b"{}").get("clients"), "the tail's connection")
    delays: list[float] = []

    def watch() -> None:
        # At the moment it arrives, not when the publishing process has ended.
        while data := os.read(reader, 65536):
            now = time.time()
            written = datetime.fromisoformat(json.loads(data)["time"][:26] + "+00:00").timestamp()
            delays.append(now - written)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    for number in range(5):
        cli.run("publish", "audit", "username=guest", "operation=Delete")
        until(lambda number=number: len(delays) > number, "the event")
    assert min(delays) < 0.05, delays


def test_100_000_lines_arrive_or_are_counted(cli: CommandLine) -> None:
    count = 100_000
    (cli.folder / "events.jsonl").write_bytes(b"\n".join([*audit_lines(count), b""]))
    cli.start("serve", "--capacity", str(count)).says("served on")
    large = cli.start("tail", "-n", "all")
    stalled = cli.start("tail", "-n", "all")
    until(lambda: json.loads(cli.run("ls", "-o", "json").out).get("clients") == 2, "both tails")
    stalled.process.send_signal(signal.SIGSTOP)
    with (cli.folder / "events.jsonl").open("rb") as lines:
        publish = cli.start("publish", stdin=lines)
        done = publish.end()
    assert f"{count:,} seen, {count:,} published" in done.err
    until(lambda: len(large.ids) == count, "every event")
    assert large.ids == [f"e{n}" for n in range(count)]
    assert f"{count:,} shown, 0 lost" in large.stop().err
    stalled.process.send_signal(signal.SIGCONT)
    until(lambda: stalled.ids[-1:] == [f"e{count - 1}"], "the end of the stalled tail")
    missed = sum(event["data"]["missed"] for event in stalled.events if event["type"] == "eventbus.gap")
    assert len(stalled.ids) + missed == count


def test_a_small_ring_counts_what_a_slow_reader_missed(cli: CommandLine) -> None:
    count = 20_000
    cli.start("serve", "--capacity", "64").says("served on")
    tail = cli.start("tail", "-n", "0", "--fail-on-loss")
    until(lambda: json.loads(cli.run("ls", "-o", "json").out).get("clients") == 1, "the tail")
    tail.process.send_signal(signal.SIGSTOP)
    cli.run("publish", stdin=b"\n".join(audit_lines(count)))
    tail.process.send_signal(signal.SIGCONT)
    until(lambda: tail.ids[-1:] == [f"e{count - 1}"], "the last event")
    missed = sum(event["data"]["missed"] for event in tail.events if event["type"] == "eventbus.gap")
    assert missed > 0
    assert len(tail.ids) + missed == count
    ended = tail.stop(check=4)
    assert f"{missed:,} lost" in ended.err


def test_unknown_members_survive_publish_tap_record_replay_tail(cli: CommandLine) -> None:
    line = (
        b'{"specversion":"1.0","id":"x1","source":"elsewhere","type":"audit","time":"2026-01-01T00:00:00.000000001Z",'
        b'"subject":"s","ext":[1,2.50],"data":{"username":"u","tomorrow":{"a":[1e5,"\\u00e9"]},"seq":7}}'
    )
    cli.start("serve").says("served on")
    record = cli.start("record", "a.jsonl")
    tail = cli.start("tail", "-n", "0")
    until(lambda: json.loads(cli.run("ls", "-o", "json").out).get("clients") == 2, "both")
    cli.run("publish", stdin=line)
    until(lambda: tail.out.strip() == line, "the line")
    until(lambda: cli.recorded("a.jsonl") == [line], "the record")
    record.stop()
    cli.run("replay", "a.jsonl", "--to", "default", "--name", "again", "--speed", "max")
    stamped = line.replace(b'01Z",', b'01Z","replay":"again",', 1)
    until(lambda: tail.out.split() == [line, stamped], "the replayed line")
    assert cli.run("tail", "a.jsonl").out.strip() == line


def test_hostile_strings_survive_record_and_replay_byte_for_byte(cli: CommandLine) -> None:
    from test_render import HOSTILE

    hostile = [text for text in HOSTILE if text != "\ud800"]
    fields = AuditEvent.__struct_fields__  # type: ignore[attr-defined]
    events = [
        Event.new("audit", AuditEvent(**{name: hostile[(n + at) % len(hostile)] for at, name in enumerate(fields)}))
        for n in range(10_000)
    ]
    data = b"".join(encode_line(event) + b"\n" for event in events)
    (cli.folder / "in.jsonl").write_bytes(data)
    cli.run("record", "out.jsonl", "--from", "in.jsonl")
    lines = data.splitlines()
    assert cli.recorded("out.jsonl") == lines
    cli.run("replay", "out.jsonl", "--to", "again.jsonl", "--speed", "max", "--name", "r")
    assert [line.replace(b'"replay":"r",', b"") for line in cli.recorded("again.jsonl")] == lines
    cli.run("verify", "again.jsonl")
    terminal = cli.terminal("tail", "out.jsonl", "-n", "200", columns=80)
    terminal.end()
    screen = terminal.lines
    # A date, 200 events, a summary: nothing has moved the cursor, cleared the screen or hidden itself.
    assert len(screen) == 202
    assert screen[0].startswith("──")
    assert screen[-1] == "200 seen, 200 shown, 0 lost"
    assert all(line[2] == line[5] == ":" and line[8] == "." for line in screen[1:-1])
    assert b"\x1b]" not in terminal.raw
    assert b"\x1b[2J" not in terminal.raw


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_serve_acknowledged_is_in_the_file(cli: CommandLine, number: int) -> None:
    serve = cli.start("serve", "--record", "a.jsonl").says("recorded to")
    cli.run("publish", stdin=b"\n".join(audit_lines(500)))
    assert len(cli.recorded("a.jsonl")) == 500
    ended = serve.stop(number)
    assert "500 recorded" in ended.err
    assert cli.sockets() == []


def test_killing_serve_loses_nothing_that_was_acknowledged(cli: CommandLine) -> None:
    for round_ in range(3):
        serve = cli.start("serve", "--record", "a.jsonl", "--append").says("recorded to")
        lines = [line.replace(b'"e', f'"r{round_}-'.encode(), 1) for line in audit_lines(20_000)]
        publish = cli.start("publish", stdin=subprocess.PIPE)
        assert publish.process.stdin is not None
        for line in lines[:2000]:
            publish.process.stdin.write(line + b"\n")
        publish.process.stdin.flush()
        until(lambda: Path(cli.folder / "a.jsonl").stat().st_size > 0, "some of it")
        serve.process.kill()
        serve.process.wait()
        publish.process.stdin.close()
        ended = publish.end(check=None)
        assert ended.code in (0, 1)
        data = (cli.folder / "a.jsonl").read_bytes()
        assert data.count(f'"id":"r{round_}-'.encode()) > 0
        # The socket it left behind stops nobody.
        assert cli.sockets() == ["default.sock"]
    serve = cli.start("serve", "--record", "a.jsonl", "--append").says("recorded to")
    serve.stop()
    tail = cli.run("tail", "a.jsonl", "-n", "all")
    assert len(tail.ids) == len(set(tail.ids))


def test_a_tail_goes_on_with_a_gap_when_the_bus_comes_back(cli: CommandLine) -> None:
    serve = cli.start("serve").says("served on")
    tail = cli.start("tail", "-n", "0")
    until(lambda: json.loads(cli.run("ls", "-o", "json").out).get("clients") == 1, "the tail")
    cli.run("publish", "audit", "username=before")
    until(lambda: len(tail.ids) == 1, "the first event")
    serve.process.kill()
    serve.process.wait()
    tail.says("connection was lost")
    cli.start("serve").says("served on")
    until(lambda: any(event["type"] == "eventbus.gap" for event in tail.events), "the gap")
    cli.run("publish", "audit", "username=after")
    until(lambda: len(tail.ids) == 2, "the second event")
    [gap] = [event for event in tail.events if event["type"] == "eventbus.gap"]
    assert gap["data"] == {"missed": None, "after": tail.ids[0], "reason": "disconnect"}
    assert "an unknown number" in tail.stop().err


def test_a_bus_that_was_closed_is_no_connection_that_was_lost(cli: CommandLine) -> None:
    serve = cli.start("serve").says("served on")
    tail = cli.start("tail").says("connected")
    serve.stop()
    tail.says("the bus was closed")
    assert "lost; trying" not in tail.stop().err


def test_a_tail_waits_for_a_bus_and_says_so(cli: CommandLine) -> None:
    assert "no bus there" in cli.run("tail", "--no-wait", check=1).err
    tail = cli.start("tail", "-n", "all").says("waiting for a bus")
    cli.start("serve", "--on", "other").says("served on")
    cli.start("serve").says("served on")
    cli.run("publish", "audit", "username=x")
    until(lambda: len(tail.ids) == 1, "the event")
    tail.stop()


def test_several_workers_of_one_name_are_followed_together(cli: CommandLine) -> None:
    first = cli.start("demo", "--rate", "50", "--no-tail", "--on", "web").says("served on")
    program = (
        "import asyncio,sys;from opsml_eventbus import *;from opsml_eventbus.endpoints.tap import serve_tap\n"
        "async def main():\n"
        "    bus = EventBus(16, source='second')\n"
        "    async with serve_tap(bus, sys.argv[1]):\n"
        "        while True:\n"
        "            bus.publish(AuditEvent()); await asyncio.sleep(0.02)\n"
        "asyncio.run(main())"
    )
    import sys

    second = subprocess.Popen([sys.executable, "-c", program, str(cli.folder / "eventbus" / "web.sock")])
    try:
        until(lambda: len(cli.sockets()) == 2, "two sockets")
        tail = cli.start("tail", "web", "-n", "0")
        until(lambda: {event["source"] for event in tail.events} == {"opsml", "second"}, "both sources")
        refused = cli.run("publish", "--to", "web", "audit", check=2)
        assert "web.sock" in refused.err
        tail.stop()
    finally:
        second.kill()
        second.wait()
    first.stop()


def test_a_second_serve_on_a_live_endpoint_is_refused(cli: CommandLine) -> None:
    cli.start("serve").says("served on")
    refused = cli.run("serve", check=1)
    assert "live" in refused.err


def test_demo_publishes_into_a_live_bus(cli: CommandLine) -> None:
    cli.start("serve").says("served on")
    tail = cli.start("tail", "-n", "all")
    until(lambda: json.loads(cli.run("ls", "-o", "json").out).get("clients") == 1, "the tail")
    shown = cli.run("demo", "--count", "20", "--rate", "1000", "--seed", "7")
    assert "publishing to the live bus" in shown.err
    until(lambda: tail.ids == shown.ids, "the same events")
    assert len(shown.ids) == 20


def test_the_demo_is_the_same_for_the_same_seed(cli: CommandLine) -> None:
    def data(seed: str) -> list[object]:
        return [event["data"] for event in cli.run("demo", "--count", "50", "--rate", "100000", "--seed", seed).events]

    assert data("3") == data("3") != data("4")


def test_a_replay_into_a_recorded_bus_does_not_loop(cli: CommandLine) -> None:
    (cli.folder / "in.jsonl").write_bytes(b"\n".join([*audit_lines(20), b""]))
    cli.start("serve").says("served on")
    record = cli.start("record", "out.jsonl")
    all_of_it = cli.start("record", "all.jsonl", "--record-replays")
    until(lambda: json.loads(cli.run("ls", "-o", "json").out).get("clients") == 2, "both recorders")
    cli.run("replay", "in.jsonl", "--to", "default", "--speed", "max")
    cli.run("publish", "audit", "username=fresh")
    until(lambda: len(cli.recorded("all.jsonl")) == 21, "all of it")
    until(lambda: len(cli.recorded("out.jsonl")) == 1, "the fresh one")
    assert "20 replayed and left out" in record.stop().err
    all_of_it.stop()


def test_ls_lists_the_live_buses(cli: CommandLine) -> None:
    assert "no live bus" in cli.run("ls", "-o", "pretty").err
    serve = cli.start("serve", "--on", "web").says("served on")
    cli.run("publish", "--to", "web", "audit")
    [bus] = cli.run("ls", "-o", "json").events
    assert (bus["name"], bus["pid"], bus["published"]) == ("web", serve.process.pid, 1)
    assert "web" in cli.run("ls", "-o", "pretty").out.decode()
