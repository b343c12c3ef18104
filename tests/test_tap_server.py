"""A bus on a socket, spoken to by hand: what docs/tap-protocol.md promises."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from contextlib import AsyncExitStack

import pytest
from tapping import DESCRIBE, PUBLISH, SUBSCRIBE, ByHand, descriptors, numbered, tap_folder, until

from opsml_eventbus.audit import AuditEvent
from opsml_eventbus.bus import EventBus
from opsml_eventbus.codec import encode_line
from opsml_eventbus.endpoints.tap import serve_tap
from opsml_eventbus.endpoints.tap import sessions as sessions_module
from opsml_eventbus.endpoints.tap.protocol import Greeting, Request
from opsml_eventbus.endpoints.tap.server import DESCRIBERS
from opsml_eventbus.endpoints.tap.sessions import Watch
from opsml_eventbus.errors import Broken, Refused
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.filter import Filter


def ids(lines: list[dict]) -> list[str]:
    return [line["id"] for line in lines if "specversion" in line]


def subscribe(**members: object) -> bytes:
    return json.dumps({"eventbus": 1, "do": "subscribe", **members}).encode()


# ── subscribing ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_subscriber_is_greeted_then_reads_the_canonical_lines():
    async def main():
        bus = EventBus(8, source="here")
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap, ByHand.to(tap.path, SUBSCRIBE) as client:
                greeting = await client.told()
                assert greeting.pop("bus")
                assert greeting == {"eventbus": 1, "source": "here", "capacity": 8, "publish": False, "at": ""}
                event = bus.publish(AuditEvent(username="é\n"))
                assert await client.line() == encode_line(event) + b"\n"
                gap = Gap.new(3, event.id, "source")
                bus.pass_gap(gap)
                assert await client.line() == encode_line(gap) + b"\n"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, []),
        ({"last": 0}, []),
        ({"last": 2}, ["n-4", "n-5"]),
        ({"last": "all"}, ["n-2", "n-3", "n-4", "n-5"]),
        ({"last": 99}, ["n-2", "n-3", "n-4", "n-5"]),
        ({"after": "n-3"}, ["n-4", "n-5"]),
        ({"after": "n-5"}, []),
        ({"after": "n-3", "last": 1}, ["n-4", "n-5"]),
        ({"last": 1, "filter": {"type": ["m"]}}, []),
        ({"last": "all", "since": "1970-01-01T00:00:04Z"}, ["n-4", "n-5"]),
        ({"last": "all", "until": "1970-01-01T00:00:04Z"}, ["n-2", "n-3"]),
        ({"last": 1, "until": "1970-01-01T00:00:04Z"}, ["n-3"]),
        ({"last": "all", "since": "1970-01-01T00:00:03Z", "until": "1970-01-01T00:00:05+00:00"}, ["n-3", "n-4"]),
    ],
)
def test_history_is_what_was_asked_for(members: dict, expected: list[str]):
    async def main():
        bus = EventBus(4)
        for event in numbered(6):
            bus.publish(event.replace(time=int(event.data["n"]) * 1_000_000_000))
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                async with ByHand.to(tap.path, subscribe(follow=False, **members)) as client:
                    client.finish()
                    await client.told()
                    *events, note = await client.rest()
                    assert ids(events) == expected
                    assert len(events) == len(expected)
                    assert note["end"] == "history"

    asyncio.run(main())


def test_the_greeting_names_the_place_where_the_stream_begins():
    async def main():
        bus = EventBus(4)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                places = []
                for members in ({}, {"last": 2}, {"after": "n-3"}, {"after": ""}, {"last": "all"}):
                    for event in numbered(6) if members else ():
                        bus.publish(event)
                    async with ByHand.to(tap.path, subscribe(**members)) as client:
                        places.append((await client.told()).get("at"))
                assert places == ["", "n-3", "n-3", None, None]

    asyncio.run(main())


def test_a_place_that_is_gone_begins_with_a_gap_and_all_there_is():
    async def main():
        bus = EventBus(4)
        for event in numbered(6):
            bus.publish(event)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                for members in ({"after": "n-1"}, {"after": "other"}, {"after": "n-4", "bus": "another"}):
                    async with ByHand.to(tap.path, subscribe(follow=False, **members)) as client:
                        _, gap, *events, _ = await client.rest()
                        assert gap["data"] == {"missed": None, "after": members["after"], "reason": "disconnect"}
                        assert ids(events) == ["n-2", "n-3", "n-4", "n-5"]

    asyncio.run(main())


def test_from_the_beginning_counts_what_the_ring_no_longer_holds():
    async def main():
        bus = EventBus(4)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                for event in numbered(3):
                    bus.publish(event)
                async with ByHand.to(tap.path, subscribe(follow=False, after="")) as client:
                    greeting, *events, _ = await client.rest()
                    assert ids(events) == ["n-0", "n-1", "n-2"]
                for event in numbered(3, 3):
                    bus.publish(event)
                async with ByHand.to(tap.path, subscribe(follow=False, after="", bus=greeting["bus"])) as client:
                    _, gap, *events, _ = await client.rest()
                    assert gap["data"] == {"missed": 2, "after": None, "reason": "lag"}
                    assert ids(events) == ["n-2", "n-3", "n-4", "n-5"]

    asyncio.run(main())


def test_a_filter_is_evaluated_at_the_server_and_notes_tell_what_it_looked_at():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                asked = subscribe(filter=Filter.of(type="m").to_json())
                async with ByHand.to(tap.path, asked) as client:
                    await client.told()
                    for event in numbered(5):
                        bus.publish(event)
                    assert await client.told() == {"seen": 5, "at": "n-4"}
                    [matching] = numbered(1, kind="m")
                    bus.publish(matching)
                    assert (await client.told())["id"] == "m-0"
                    bus.close()
                    assert await client.rest() == [{"seen": 6, "at": "m-0", "end": "closed"}]

    asyncio.run(main())


def test_nothing_is_said_on_a_silent_bus():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap, ByHand.to(tap.path, SUBSCRIBE) as client:
                await client.told()
                with pytest.raises(TimeoutError):
                    await client.told(seconds=1.5)

    asyncio.run(main())


def test_an_event_is_encoded_once_however_many_watch(monkeypatch: pytest.MonkeyPatch):
    async def main():
        lines: dict[str, set[int]] = {}
        original = sessions_module.encode_line

        def spy(item: Event | Gap) -> bytes:
            line = original(item)
            lines.setdefault(item.id, set()).add(id(line))
            return line

        monkeypatch.setattr(sessions_module, "encode_line", spy)
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                async with ByHand.to(tap.path, SUBSCRIBE) as one, ByHand.to(tap.path, SUBSCRIBE) as two:
                    await one.told()
                    await two.told()
                    bus.publish(AuditEvent())
                    assert await one.line() == await two.line()
        assert [len(seen) for seen in lines.values()] == [1]

    asyncio.run(main())


def test_an_event_that_cannot_be_written_is_a_gap_in_its_place():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap, ByHand.to(tap.path, SUBSCRIBE) as client:
                await client.told()
                good = bus.publish(AuditEvent())
                bus.publish(Event.new("bad", float("nan")))
                after = bus.publish(AuditEvent())
                assert (await client.told())["id"] == good.id
                assert (await client.told())["data"] == {"missed": 1, "after": good.id, "reason": "invalid"}
                assert (await client.told())["id"] == after.id

    asyncio.run(main())


def test_a_client_that_never_reads_gets_a_gap_and_slows_nobody():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                async with ByHand.to(tap.path, SUBSCRIBE) as stalled, ByHand.to(tap.path, SUBSCRIBE) as quick:
                    stalled.reader._transport.pause_reading()
                    await quick.told()
                    padding = "x" * 1000
                    got = 0
                    for n in range(3000):
                        bus.publish(Event.new("n", {"n": n, "padding": padding}))
                        if n % 32 == 31:
                            for _ in range(32):
                                assert (await quick.told())["data"]["n"] == got
                                got += 1
                    got = 3000 - 3000 % 32
                    stalled.reader._transport.resume_reading()
                    received = missed = 0
                    while received + missed < 3000:
                        line = await stalled.told()
                        if line.get("type") == "n":
                            received += 1
                        elif line.get("type") == "eventbus.gap":
                            assert line["data"]["reason"] == "lag"
                            missed += line["data"]["missed"]
                    assert received + missed == 3000
                    assert missed > 1000
                    async with ByHand.to(tap.path, DESCRIBE) as asking:
                        assert (await asking.told())["lost"] == missed
                await until(lambda: tap.clients == 0, "both have left")
                async with ByHand.to(tap.path, DESCRIBE) as asking:
                    assert (await asking.told())["lost"] == missed

    asyncio.run(main())


# ── leaving, closing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_client_that_leaves_is_noticed_on_a_silent_bus():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                before = descriptors()
                for _ in range(20):
                    async with ByHand.to(tap.path, SUBSCRIBE) as client:
                        await client.told()
                        assert tap.clients == 1
                    await until(lambda: tap.clients == 0, "the client is forgotten")
                await until(lambda: descriptors() <= before, "no descriptor is left open")

    asyncio.run(main())


def test_what_is_in_the_ring_when_the_tap_closes_is_still_sent():
    async def main():
        bus = EventBus(8192)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                reader, writer = await asyncio.open_unix_connection(str(tap.path), limit=1 << 20)
                client = ByHand(reader, writer)
                client.say(SUBSCRIBE)
                await client.told()
                for event in numbered(5000):
                    bus.publish(event)
            *events, note = await client.rest()
            assert ids(events) == [f"n-{n}" for n in range(5000)]
            assert note == {"seen": 5000, "at": "n-4999", "end": "closed"}
            writer.close()
            assert os.listdir(folder) == []
            bus.publish(AuditEvent())  # the bus is none of the tap's

    asyncio.run(main())


def test_the_block_s_own_error_comes_out_as_it_is():
    async def main():
        with tap_folder() as folder:
            with pytest.raises(KeyError):
                async with serve_tap(EventBus(4), folder / "a.sock"):
                    raise KeyError
            assert os.listdir(folder) == []

    asyncio.run(main())


def test_a_stalled_client_delays_the_close_by_a_second_at_most():
    async def main():
        bus = EventBus(8192)
        loop = asyncio.get_running_loop()
        with tap_folder() as folder:
            tap = serve_tap(bus, folder / "a.sock")
            async with tap:
                reader, writer = await asyncio.open_unix_connection(str(tap.path))
                writer.write(SUBSCRIBE + b"\n")
                await reader.readline()
                reader._transport.pause_reading()
                _, silent = await asyncio.open_unix_connection(str(tap.path))
                for n in range(8000):
                    bus.publish(Event.new("n", {"n": n, "padding": "x" * 500}))
                await until(lambda: tap.clients == 1, "it is let in")
                closing = loop.time()
            assert loop.time() - closing < 2
            for end in (writer, silent):
                end.transport.abort()

    asyncio.run(main())


def test_who_has_not_said_what_he_wants_does_not_delay_the_close():
    async def main():
        loop = asyncio.get_running_loop()
        with tap_folder() as folder:
            tap = await serve_tap(EventBus(4), folder / "a.sock").__aenter__()
            async with ByHand.to(tap.path) as silent:
                await until(lambda: tap._strangers, "it is being waited for")
                closing = loop.time()
                await tap.__aexit__(None, None, None)
                assert loop.time() - closing < 0.5
                assert await silent.told() is None

    asyncio.run(main())


def test_a_stalled_client_that_is_turned_away_is_let_go():
    async def main():
        bus = EventBus(4096)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                before = descriptors()
                async with ByHand.to(tap.path, SUBSCRIBE) as client:
                    await client.told()
                    client.reader._transport.pause_reading()
                    for n in range(4000):
                        bus.publish(Event.new("n", {"n": n, "padding": "x" * 500}))
                    client.say(b"more")
                    await until(lambda: not tap._tasks, "its session has ended")
                    assert descriptors() <= before + 1  # the client's own

    asyncio.run(main())


class Sponge:
    """A connection that takes everything at once, so that nothing in a session ever has to wait for it."""

    idle = True

    def __init__(self, on_flush):
        self.sent = []
        self.on_flush = on_flush

    def send(self, lines: bytes) -> None:
        self.sent += lines.splitlines()

    async def flush(self) -> None:
        self.on_flush()

    async def gone(self) -> None:
        await asyncio.get_running_loop().create_future()


def test_a_session_that_never_waits_lets_others_run_and_notes_only_what_was_sent():
    async def main():
        bus = EventBus(50_000)
        where = Filter.of(type="n").to_json()
        request = Request(eventbus=1, do="subscribe", last="all", filter=where)
        for n in range(30_000):
            bus.publish(Event.new("n" if n % 2 else "m", {"padding": "x" * 3000}, id=str(n)))
        sponge = Sponge(lambda: watch.tick())
        watch = Watch(bus, sponge, request, bus.id)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.ensure_future(others())
        closing = asyncio.Event()
        closing.set()
        await watch.run(Greeting(eventbus=1, bus="b", source="s", capacity=1, publish=False), closing)
        running.cancel()
        assert turns > 50
        told = -1
        for line in map(json.loads, sponge.sent[1:]):
            if "seen" in line:
                told = int(line["at"])
                assert line["seen"] == told + 1
            else:
                assert int(line["id"]) > told
        notes = [json.loads(line) for line in sponge.sent if line.startswith(b'{"seen"')]
        assert notes[-1]["seen"] == 30_000
        assert notes[-1]["end"] == "closed"

    asyncio.run(main())


# ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_are_published_in_order_and_acknowledged():
    async def main():
        bus = EventBus(64, source="here")
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                async with ByHand.to(tap.path, SUBSCRIBE) as reader, ByHand.to(tap.path, PUBLISH) as client:
                    await reader.told()
                    assert (await client.told())["publish"] is True
                    first, second = numbered(2)
                    gap = Gap.new(None, "x", "disconnect")
                    client.say(encode_line(first), encode_line(gap), b"", b'{"type":"m","data":[1]}', b"no")
                    client.say(b'{"type":"eventbus.journal.seal"}', b'{"type":"audit","data":{"username":3}}')
                    client.writer.write(encode_line(second))  # no newline: it ends with the stream
                    client.finish()
                    told = await client.rest()
                    refused = [(line["refused"], line["error"]) for line in told if "refused" in line]
                    assert refused == [(5, "malformed"), (6, "type"), (7, "invalid")]
                    assert told[-1] == {"acked": 8}
                    assert await reader.line() == encode_line(first) + b"\n"
                    assert await reader.line() == encode_line(gap) + b"\n"
                    filled = await reader.told()
                    assert (filled["type"], filled["source"], filled["data"]) == ("m", "here", [1])
                    assert await reader.line() == encode_line(second) + b"\n"

    asyncio.run(main())


def test_members_nobody_knows_survive():
    async def main():
        bus = EventBus(64)
        line = encode_line(numbered(1)[0])
        foreign = line[:-1].replace(b',"data":', b',"traceparent":"00-1","data":') + b"}"
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                async with ByHand.to(tap.path, SUBSCRIBE) as reader, ByHand.to(tap.path, PUBLISH, foreign) as client:
                    await reader.told()
                    await client.told()
                    assert await client.told() == {"acked": 1}
                    assert await reader.line() == foreign + b"\n"

    asyncio.run(main())


def test_nothing_is_acknowledged_before_it_is_recorded():
    async def main():
        bus = EventBus(64)
        recorded = asyncio.Event()
        asked = 0

        async def confirm() -> None:
            nonlocal asked
            asked += 1
            assert bus.statistics().published >= 1
            await recorded.wait()

        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True, confirm=confirm) as tap:
                async with ByHand.to(tap.path, PUBLISH, encode_line(numbered(1)[0])) as client:
                    assert (await client.told())["recorded"] is True
                    await until(lambda: asked, "the recorder is asked")
                    with pytest.raises(TimeoutError):
                        await client.told(0.2)
                    recorded.set()
                    assert await client.told() == {"acked": 1}

    asyncio.run(main())


def test_a_recorder_that_failed_ends_every_acknowledgement():
    async def main():
        async def confirm() -> None:
            raise Broken("audit.jsonl", "no space left on device")

        with tap_folder() as folder:
            async with serve_tap(EventBus(64), folder / "a.sock", allow_publish=True, confirm=confirm) as tap:
                async with ByHand.to(tap.path, PUBLISH, encode_line(numbered(1)[0])) as client:
                    _, *answers = await client.rest()
                    assert answers == [{"error": "unsafe", "message": "audit.jsonl: no space left on device"}]

    asyncio.run(main())


def test_a_closed_bus_ends_a_publisher_after_what_it_could_take():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                async with ByHand.to(tap.path, PUBLISH, encode_line(numbered(1)[0])) as client:
                    await client.told()
                    assert await client.told() == {"acked": 1}
                    bus.close()
                    client.say(encode_line(numbered(1)[0]))
                    assert [line["error"] for line in await client.rest()] == ["closed"]
                for request in (SUBSCRIBE, PUBLISH):
                    async with ByHand.to(tap.path, request, encode_line(numbered(1)[0])) as client:
                        assert (await client.rest())[-1]["error"] == "closed"

    asyncio.run(main())


def test_lines_before_the_bus_closed_in_the_middle_of_a_batch_are_acknowledged():
    async def main():
        bus = EventBus(4)
        async with bus.subscribe(overflow="block"):
            with tap_folder() as folder:
                async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                    async with ByHand.to(tap.path, PUBLISH, *map(encode_line, numbered(10))) as client:
                        await client.told()
                        await until(lambda: bus.statistics().waiting_senders, "the fifth waits")
                        bus.close()
                        told = await client.rest()
                        assert told[0] == {"acked": 4}
                        assert told[1]["error"] == "closed"

    asyncio.run(main())


def test_closing_the_tap_tells_a_publisher():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                reader, writer = await asyncio.open_unix_connection(str(tap.path))
                client = ByHand(reader, writer)
                client.say(PUBLISH, encode_line(numbered(1)[0]))
                await client.told()
                assert await client.told() == {"acked": 1}
            assert [line["error"] for line in await client.rest()] == ["closed"]
            writer.close()

    asyncio.run(main())


# ── who is let in ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tap_is_read_only_unless_it_says_otherwise():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap, ByHand.to(tap.path, PUBLISH) as client:
                assert [line["error"] for line in await client.rest()] == ["read_only"]
            assert bus.statistics().published == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"GET / HTTP/1.1", "request"),
        (b'{"eventbus":2,"do":"subscribe"}', "version"),
        (subscribe(filter={"colour": ["red"]}), "filter"),
        (b"x" * 200_000, "request"),
    ],
)
def test_who_does_not_speak_the_protocol_is_told_why(said: bytes, code: str):
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock") as tap, ByHand.to(tap.path, said) as client:
                [error] = await client.rest()
                assert error["error"] == code
                assert error["message"]

    asyncio.run(main())


def test_who_says_nothing_is_gone_after_two_seconds():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock") as tap, ByHand.to(tap.path) as client:
                assert await client.told(3) == {"error": "timeout", "message": "no request within 2 seconds"}
                assert await client.told() is None

    asyncio.run(main())


def test_a_subscriber_that_goes_on_talking_is_cut_off():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock") as tap, ByHand.to(tap.path, SUBSCRIBE) as client:
                await client.told()
                client.say(b"", b" ")
                client.say(b"more")
                assert [line["error"] for line in await client.rest()] == ["unexpected"]

    asyncio.run(main())


def test_the_last_place_is_the_last_and_asking_who_you_are_needs_none():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock", max_clients=2) as tap:
                async with ByHand.to(tap.path, SUBSCRIBE) as one, ByHand.to(tap.path, SUBSCRIBE) as two:
                    await one.told()
                    await two.told()
                    async with ByHand.to(tap.path, SUBSCRIBE) as three:
                        assert [line["error"] for line in await three.rest()] == ["full"]
                    async with ByHand.to(tap.path, DESCRIBE) as asking:
                        [said] = await asking.rest()
                        assert said["clients"] == 2
                        assert said["pid"] == os.getpid()
                await until(lambda: tap.clients == 0, "they left")
                async with ByHand.to(tap.path, SUBSCRIBE) as one:
                    assert (await one.told())["eventbus"] == 1

    asyncio.run(main())


def test_connections_that_have_not_said_anything_are_limited_too():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock", max_clients=2) as tap, AsyncExitStack() as stack:
                for _ in range(2 + DESCRIBERS):
                    await stack.enter_async_context(ByHand.to(tap.path))
                await until(lambda: len(tap._tasks) == 2 + DESCRIBERS, "they are let in")
                async with ByHand.to(tap.path) as late:
                    assert [line["error"] for line in await late.rest(seconds=0.5)] == ["full"]

    asyncio.run(main())


def test_another_user_is_turned_away(monkeypatch: pytest.MonkeyPatch):
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock") as tap:
                monkeypatch.setattr("opsml_eventbus.endpoints.tap.connection.peer_uid", lambda sock: 12345)
                async with ByHand.to(tap.path) as client:
                    assert [line["error"] for line in await client.rest()] == ["peer"]

    asyncio.run(main())


def test_a_socket_is_private_and_a_second_bus_stands_beside_it():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock") as one:
                assert stat.S_IMODE(one.path.stat().st_mode) == 0o600
                with pytest.raises(Refused, match="already there"):
                    async with serve_tap(EventBus(4), folder / "a.sock", alone=True):
                        pass
                async with serve_tap(EventBus(4), folder / "a.sock") as two:
                    assert two.path.name == f"a.{os.getpid()}.sock"
                async with ByHand.to(one.path, DESCRIBE) as client:
                    assert (await client.told())["eventbus"] == 1

    asyncio.run(main())


def test_the_folder_is_made_when_it_is_not_there():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "new" / "a.sock"):
                assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o700

    asyncio.run(main())
