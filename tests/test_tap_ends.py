"""TapSource and TapSink: what tail, record, publish and replay see of a bus."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time

import pytest
from tapping import (
    DESCRIBE,
    HISTORY,
    LIVE,
    SUBSCRIBE,
    ByHand,
    descriptors,
    following,
    numbered,
    tap_folder,
    until,
)

from opsml_eventbus.bus import EventBus
from opsml_eventbus.codec import encode_line
from opsml_eventbus.endpoints.tap import TapSink, TapSource, live_taps, serve_tap, socket_path
from opsml_eventbus.endpoints.tap.client import Conversation
from opsml_eventbus.errors import Broken, Refused, UnknownEnd, Unreachable
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.filter import Filter
from opsml_eventbus.flow import Ack, Batch, Notice, Record, Sink, Start, pump


class ListSink(Sink):
    def __init__(self):
        self.lines = []

    async def write(self, batch):
        self.lines += [record.line for record in batch.records]
        return Ack(len(batch.records))


def batch(*items: Event | Gap) -> Batch:
    return Batch([Record(item) for item in items])


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_history_is_pumped_line_by_line_and_ends():
    async def main():
        bus = EventBus(8192)
        events = numbered(3000)
        for event in events:
            bus.publish(event)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                for target in ("a", f"unix:{tap.path}", str(tap.path), tap.path):
                    sink = ListSink()
                    async with TapSource(target, folder) as source:
                        report = await pump(source, sink, start=HISTORY)
                    assert sink.lines == [encode_line(event) for event in events]
                    assert (report.seen, report.shown, report.complete) == (3000, 3000, True)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (Start(last=0), []),
        (Start(last=2), [8, 9]),
        (Start(last=2, until=5_000_000_000), [3, 4]),
        (Start(last=2, since=7_000_000_000), [7, 8, 9]),
        (Start(after="n-6"), [7, 8, 9]),
        (Start(since=2_000_000_000, until=4_000_000_000), [2, 3]),
    ],
)
def test_a_start_means_what_it_means_everywhere(start: Start, expected: list[int]):
    async def main():
        bus = EventBus(16)
        for event in numbered(10):
            bus.publish(event.replace(time=int(event.data["n"]) * 1_000_000_000))
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock"):
                async with following(TapSource("a", folder), start) as found:
                    await found.ended
                    assert found.ids == [f"n-{n}" for n in expected]

    asyncio.run(main())


def test_what_a_filter_removed_is_counted_as_seen():
    async def main():
        bus = EventBus(64)
        for event in numbered(9) + numbered(2, kind="m"):
            bus.publish(event)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock"):
                where = Filter.of(type="m")
                async with following(TapSource("a", folder), HISTORY, where) as found:
                    await found.ended
                    assert (found.ids, found.seen) == (["m-0", "m-1"], 11)
                async with following(TapSource("a", folder), LIVE, where) as found:
                    async with ByHand.to(folder / "a.sock", DESCRIBE) as asking:
                        await asking.told()
                    await until(lambda: found.connected, "it is connected")
                    for event in numbered(5, 20) + numbered(1, 20, kind="m"):
                        bus.publish(event)
                    await until(lambda: found.seen == 6, "all is accounted for")
                    assert found.ids == ["m-20"]
                    assert all(batch.records or batch.seen for batch in found.batches)

    asyncio.run(main())


def test_an_event_arrives_within_50_ms_of_its_own_time():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock"), following(TapSource("a", folder), LIVE) as found:
                await until(lambda: found.connected, "it is connected")
                late = []
                for n in range(50):
                    event = bus.publish(Event.new("n", n))
                    while not found.items or found.items[-1].id != event.id:
                        await asyncio.sleep(0)
                    late.append(time.time_ns() - event.time)
                # The median: a machine that is busy with something else may be late once, the tap may not be.
                assert sorted(late)[25] < 50_000_000

    asyncio.run(main())


def test_a_slow_consumer_holds_the_server_back_and_learns_what_it_missed():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                stream = TapSource("a", folder).batches(None, LIVE)
                first = asyncio.create_task(anext(stream))
                await until(lambda: tap.clients, "it is connected")
                for n in range(20_000):
                    bus.publish(Event.new("n", {"n": n, "padding": "x" * 300}))
                    if n % 16 == 0:
                        await asyncio.sleep(0)
                received = missed = 0
                batch = await first
                while True:
                    for record in batch.records:
                        received += record.gap is None
                        missed += (record.gap and record.gap.missed) or 0
                    if received + missed == 20_000:
                        break
                    batch = await anext(stream)
                assert missed
                await stream.aclose()
                await until(lambda: tap.clients == 0, "it has left")

    asyncio.run(main())


# ── waiting, coming back ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_bus_that_is_not_there_is_waited_for_and_nothing_of_it_is_missed():
    async def main():
        notices: list[Notice] = []
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), socket_path(folder, "other")):
                source = TapSource("a", folder, notify=notices.append)
                async with following(source, LIVE) as found:
                    await until(lambda: notices, "it says that it waits")
                    assert notices == [Notice("waiting", "a", "no bus there; live: other")]
                    bus = EventBus(64)
                    for event in numbered(3):
                        bus.publish(event)
                    async with serve_tap(bus, socket_path(folder, "a")):
                        await until(lambda: len(found.ids) == 3, "what was there before we came")
                        bus.publish(numbered(1, 3)[0])
                        await until(lambda: len(found.ids) == 4, "what came then")
                    await until(lambda: len(notices) == 4, "it waits again")
        assert [notice.kind for notice in notices] == ["waiting", "connected", "closed", "waiting"]
        assert found.gaps == []

    asyncio.run(main())


def test_a_ring_that_forgot_before_we_came_says_how_much():
    async def main():
        notices: list[Notice] = []
        with tap_folder() as folder:
            async with following(TapSource("a", folder, notify=notices.append), LIVE) as found:
                await until(lambda: notices, "it waits")
                bus = EventBus(4)
                for event in numbered(10):
                    bus.publish(event)
                async with serve_tap(bus, socket_path(folder, "a")):
                    await until(lambda: len(found.ids) == 4, "what the ring holds")
                    assert [(gap.missed, gap.reason) for gap in found.gaps] == [(6, "lag")]

    asyncio.run(main())


def test_who_does_not_want_to_wait_is_told_that_nobody_is_there():
    async def main():
        with tap_folder() as folder:
            for target in ("a", folder / "a.sock"):
                async with following(TapSource(target, folder, wait=False)) as found:
                    with pytest.raises(Unreachable, match="no bus there"):
                        await found.ended
            async with serve_tap(EventBus(4), folder / "a.sock"):
                found_ = following(TapSource("a", folder, wait=False))
                found = await found_.__aenter__()
                await until(lambda: found.connected, "it is connected")
            with pytest.raises(Unreachable, match="the bus has gone"):
                await found.ended
            await found_.__aexit__(None, None, None)

    asyncio.run(main())


def test_after_a_broken_connection_the_stream_goes_on_without_loss_or_duplicate():
    async def main():
        bus = EventBus(1024)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock"), following(TapSource("a", folder), LIVE) as found:
                await until(lambda: found.connected, "it is connected")
                for round_ in range(4):
                    for event in numbered(5, round_ * 10):
                        bus.publish(event)
                    await until(lambda: len(found.ids) == round_ * 10 + 5, "half of them")  # noqa: B023
                    found.cut()
                    for event in numbered(5, round_ * 10 + 5):
                        bus.publish(event)
                    await until(lambda: len(found.ids) == round_ * 10 + 10, "the other half")  # noqa: B023
                assert found.ids == [f"n-{n}" for n in range(40)]
                assert found.gaps == []

    asyncio.run(main())


def test_a_place_is_known_before_anything_was_seen():
    async def main():
        bus = EventBus(64)
        old, new = numbered(2), numbered(2, 2)
        for event in old:
            bus.publish(event)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock"), following(TapSource("a", folder), LIVE) as found:
                await until(lambda: found.connected, "it is connected")
                found.cut()
                for event in new:
                    bus.publish(event)
                await until(lambda: found.ids, "what came meanwhile")
                assert found.ids == ["n-2", "n-3"]
                assert found.gaps == []

    asyncio.run(main())


def test_events_the_filter_removed_are_not_looked_at_twice():
    async def main():
        bus = EventBus(4)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock"):
                source = TapSource("a", folder)
                async with following(source, LIVE, Filter.of(type="m")) as found:
                    await until(lambda: found.connected, "it is connected")
                    for event in numbered(1, kind="m") + numbered(3):
                        bus.publish(event)
                    await until(lambda: found.seen == 4, "a note came")
                    for event in numbered(1, 3):  # pushes m-0 out of the ring; the note's place is still there
                        bus.publish(event)
                    await until(lambda: found.seen == 5, "another note came")
                    found.cut()
                    await until(lambda: found.connections == 2, "it came back")
                    bus.publish(numbered(1, 1, kind="m")[0])
                    await until(lambda: found.ids == ["m-0", "m-1"], "it goes on")
                    assert found.gaps == []

    asyncio.run(main())


def test_another_bus_in_its_place_is_a_gap_even_if_it_knows_the_same_ids():
    async def main():
        [event] = numbered(1)  # a replay keeps ids
        with tap_folder() as folder:
            async with following(TapSource("a", folder), LIVE) as found:
                await until(lambda: found.notices, "it waits")
                for generation in range(3):
                    bus = EventBus(64)
                    bus.publish(event)
                    async with serve_tap(bus, folder / "a.sock"):
                        await until(lambda: len(found.ids) == generation + 1, "it goes on")  # noqa: B023
                assert [(gap.missed, gap.reason) for gap in found.gaps] == [(None, "disconnect")] * 2
                assert [type(item) for item in found.items] == [Event, Gap, Event, Gap, Event]

    asyncio.run(main())


def greeting(bus: str, at: str) -> bytes:
    return json.dumps({"eventbus": 1, "bus": bus, "source": "s", "capacity": 1, "publish": False, "at": at}).encode()


def test_a_place_is_given_up_only_when_something_has_come_in_its_stead():
    event = [encode_line(one) for one in numbered(5)]
    gap = encode_line(Gap.new(None, "n-0", "disconnect"))
    # What a server says before each time it hangs up, and the place it must be asked for the next time.
    script = [
        ([greeting("b", "before")], ("b", "before")),
        ([greeting("b", "later")], ("b", "before")),  # no line came: what was published in between is still to come
        ([greeting("b", "before"), event[0]], ("b", "n-0")),
        ([greeting("c", "newest")], ("b", "n-0")),  # nor did the Gap
        ([greeting("c", "newest"), gap], ("c", None)),
        ([greeting("c", "newest"), b'{"seen":9,"at":"n-1"}'], ("c", "n-1")),
        ([greeting("c", "newest"), event[2], event[3][:30]], ("c", "n-2")),
        ([greeting("c", "newest"), event[3], b'{"seen":7,"at":"n-9"}', b'{"later":"version"}'], ("c", "n-9")),
    ]

    async def main():
        asked = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = await reader.readline()
            if not line:  # it was let go before it asked
                writer.close()
                return
            request = json.loads(line)
            asked.append((request.get("bus"), request.get("after")))
            said = script[len(asked) - 1][0] if len(asked) <= len(script) else []
            writer.write(b"\n".join(said) + b"\n" * (len(said) > 0 and not said[-1].endswith(event[3][:30])))
            await writer.drain()
            writer.close()

        with tap_folder() as folder:
            async with await asyncio.start_unix_server(serve, folder / "a.sock"):
                async with following(TapSource("a", folder), LIVE) as found:
                    await until(lambda: len(asked) > len(script), "it was asked often enough")
                    assert asked[0] == (None, None)
                    assert asked[1 : len(script) + 1] == [place for _, place in script]
                    assert found.ids == ["n-0", "n-2", "n-3"]

    asyncio.run(main())


def test_all_buses_of_one_name_are_followed_and_those_that_join():
    async def main():
        with tap_folder() as folder:
            one, two, three = EventBus(16), EventBus(16), EventBus(16)
            async with serve_tap(one, folder / "a.sock"), serve_tap(two, folder / "a.sock") as second:
                assert second.path.name == f"a.{os.getpid()}.sock"
                async with following(TapSource("a", folder), LIVE) as found:
                    await until(lambda: found.connections == 2, "both are connected")
                    one.publish(numbered(1, 1)[0])
                    two.publish(numbered(1, 2)[0])
                    for event in numbered(2, 3):
                        three.publish(event)
                    async with serve_tap(three, folder / "a.1.sock"):
                        await until(lambda: len(found.ids) == 4, "the third was found")
                        assert sorted(found.ids) == ["n-1", "n-2", "n-3", "n-4"]
                    one.publish(numbered(1, 5)[0])
                    await until(lambda: len(found.ids) == 5, "the others go on")
                assert found.gaps == []

    asyncio.run(main())


def test_the_history_of_several_buses_is_read_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("opsml_eventbus.endpoints.tap.source.LOOK_SECONDS", 0.02)

    async def main():
        quick, large = EventBus(16), EventBus(1 << 14)
        for event in numbered(3, kind="quick"):
            quick.publish(event)
        for event in numbered(9000):
            large.publish(event)
        with tap_folder() as folder:
            async with serve_tap(quick, folder / "a.sock"), serve_tap(large, folder / "a.sock"):
                async with following(TapSource("a", folder), HISTORY) as found:
                    await until(lambda: len(found.ids) > 3, "it reads")
                    quick.publish(numbered(1, 3, kind="quick")[0])
                    await found.ended
                assert found.connections == 2
                assert len(found.ids) == 9003

    asyncio.run(main())


def test_a_refusal_reaches_whoever_reads():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock", max_clients=1) as tap:
                async with ByHand.to(tap.path, SUBSCRIBE) as first:
                    await first.told()
                    async with following(TapSource("a", folder)) as found:
                        with pytest.raises(Refused, match="as many as this tap takes"):
                            await found.ended
            folder.chmod(0o755)
            async with following(TapSource("a", folder)) as found:
                with pytest.raises(Refused, match="open to others"):
                    await found.ended

    asyncio.run(main())


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n", b'{"eventbus":9,"bus":"b"}\n', b"[]\n"])
def test_what_is_no_tap_is_named(answer: bytes):
    async def main():
        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            writer.close()

        with tap_folder() as folder:
            async with await asyncio.start_unix_server(serve, folder / "a.sock"):
                async with following(TapSource("a", folder)) as found:
                    with pytest.raises(Broken):
                        await found.ended

    asyncio.run(main())


def test_a_history_that_breaks_off_is_an_error_not_an_end():
    async def main():
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b'{"eventbus":1,"bus":"b","source":"s","capacity":1,"publish":false}\n')
            writer.write(encode_line(numbered(1)[0]) + b"\n" + encode_line(numbered(2)[1])[:20])
            writer.close()

        with tap_folder() as folder:
            async with await asyncio.start_unix_server(serve, folder / "a.sock"):
                async with following(TapSource("a", folder), HISTORY) as found:
                    with pytest.raises(Broken, match="middle of its history"):
                        await found.ended
                    assert found.ids == ["n-0"]

    asyncio.run(main())


def test_a_stream_that_is_left_leaves_nothing_behind():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock") as tap:
                before, tasks = descriptors(), len(asyncio.all_tasks())
                for _ in range(10):
                    async with following(TapSource("a", folder), LIVE) as found:
                        await until(lambda: found.connected, "it is connected")
                await until(lambda: tap.clients == 0 and descriptors() == before, "everything is closed")
                await until(lambda: len(asyncio.all_tasks()) == tasks, "no task is left")

    asyncio.run(main())


def test_a_stream_that_has_an_end_ends_when_its_time_has_passed():
    async def main():
        bus = EventBus(16)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock"):
                end = time.time_ns() + 500_000_000
                async with following(TapSource("a", folder), Start(last=0, until=end, follow=True)) as found:
                    await until(lambda: found.connected, "it is connected")
                    [early, late] = numbered(2)
                    bus.publish(early.replace(time=end - 1))
                    bus.publish(late.replace(time=end))
                    await asyncio.wait_for(found.ended, 5)
                    assert found.ids == ["n-0"]
                async with following(TapSource("a", folder), Start(until=end, follow=True)) as found:
                    await asyncio.wait_for(found.ended, 5)
                    assert found.ids == ["n-0"]

    asyncio.run(main())


def test_what_came_before_the_end_reaches_a_consumer_that_is_late():
    async def main():
        bus = EventBus(1 << 14)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock"):
                end = time.time_ns() + 300_000_000
                for event in numbered(9000):
                    bus.publish(event.replace(time=end - 1))
                stream = TapSource("a", folder).batches(None, Start(until=end, follow=True))
                ids = [record.item.id for record in (await anext(stream)).records]
                await until(lambda: time.time_ns() > end + 1_500_000_000, "its time has passed")
                async for batch in stream:
                    ids += [record.item.id for record in batch.records]
                assert ids == [f"n-{n}" for n in range(9000)]

    asyncio.run(main())


def test_dead_sockets_beside_a_live_one_are_not_tried_all_the_time(monkeypatch: pytest.MonkeyPatch):
    tries = 0
    original = Conversation.open

    async def counted(path, request):
        nonlocal tries
        tries += 1
        return await original(path, request)

    monkeypatch.setattr(Conversation, "open", counted)

    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock"):
                with socket.socket(socket.AF_UNIX) as dead:
                    dead.bind(str(folder / "a.1.sock"))
                async with following(TapSource("a", folder), LIVE) as found:
                    await until(lambda: found.connected, "it is connected")
                    await asyncio.sleep(1.2)
                    assert tries <= 5

    asyncio.run(main())


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_sink_acknowledged_is_on_the_bus_in_its_order():
    async def main():
        bus = EventBus(4096)
        events = numbered(3000)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                for target in ("a", f"unix:{tap.path}"):
                    async with bus.subscribe(order="published") as reader, TapSink(target, folder) as sink:
                        for n in range(0, 3000, 1000):
                            ack = await sink.write(batch(*events[n : n + 1000]))
                            assert (ack.written, ack.durable, list(ack.refusals)) == (1000, False, [])
                        assert [event.id for event in reader.drain(5000)] == [event.id for event in events]

    asyncio.run(main())


def test_a_gap_is_passed_on_and_an_event_that_cannot_be_written_becomes_one():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True):
                async with bus.subscribe(order="published") as reader, TapSink("a", folder) as sink:
                    gap = Gap.new(7, "x", "source")
                    bad = Event.new("n", float("inf"))
                    ack = await sink.write(batch(gap, bad, *numbered(1)))
                    assert [refusal.place for refusal in ack.refusals] == [f"event {bad.id}"]
                    first, second, event = reader.drain(10)
                    assert (first.id, first.missed) == (gap.id, 7)
                    assert (second.missed, second.reason) == (1, "invalid")
                    assert event.id == "n-0"

    asyncio.run(main())


def test_a_line_the_bus_refuses_is_named_and_the_rest_goes_on():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True):
                async with TapSink("a", folder) as sink:
                    await sink.write(batch(*numbered(2)))
                    lines = [encode_line(numbered(3)[2]), b'{"no":1}', encode_line(numbered(4)[3])]
                    ack = await sink.write(Batch([Record(line=line) for line in lines]))
                    assert [refusal.place for refusal in ack.refusals] == ["line 4"]
                    assert "missing" in str(ack.refusals[0].error)
                    assert ack.written == 2
            assert bus.statistics().published == 4

    asyncio.run(main())


def test_a_thousand_refusals_in_a_batch_do_not_jam_the_line():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(64), folder / "a.sock", allow_publish=True):
                async with TapSink("a", folder) as sink:
                    bad = Batch([Record(line=b'{"x":"' + b"y" * 2000 + b'"}') for _ in range(1024)])
                    async with asyncio.timeout(20):
                        for _ in range(3):
                            assert len((await sink.write(bad)).refusals) == 1024

    asyncio.run(main())


def test_where_one_may_not_publish_opening_says_so():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(64), folder / "a.sock"):
                with pytest.raises(Refused, match="does not take events"):
                    async with TapSink("a", folder):
                        pass
            for target in ("a", folder / "a.sock"):
                with pytest.raises(Unreachable, match="no bus there"):
                    async with TapSink(target, folder):
                        pass

    asyncio.run(main())


def test_of_several_buses_of_one_name_one_must_be_chosen():
    async def main():
        with tap_folder() as folder:
            async with (
                serve_tap(EventBus(4), folder / "a.sock", allow_publish=True) as one,
                serve_tap(EventBus(4), folder / "a.sock", allow_publish=True) as two,
            ):
                with pytest.raises(UnknownEnd, match="several") as error:
                    async with TapSink("a", folder):
                        pass
                assert set(error.value.known) == {f"unix:{one.path}", f"unix:{two.path}"}
                async with TapSink(error.value.known[0], folder) as sink:
                    await sink.write(batch(*numbered(1)))

    asyncio.run(main())


def test_a_bus_that_goes_away_in_the_middle_is_broken_not_silence():
    async def main():
        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock", allow_publish=True):
                sink = TapSink("a", folder)
                await sink.__aenter__()
                await sink.write(batch(*numbered(1)))
            with pytest.raises(Broken):
                await sink.write(batch(*numbered(1)))
            await sink.close()
            await sink.close()

    asyncio.run(main())


def test_acknowledged_is_durable_only_where_a_recorder_says_so():
    async def main():
        async def confirm() -> None:
            pass

        with tap_folder() as folder:
            async with serve_tap(EventBus(4), folder / "a.sock", allow_publish=True, confirm=confirm):
                async with TapSink("a", folder) as sink:
                    assert (await sink.write(batch(*numbered(1)))).durable

    asyncio.run(main())


def test_a_hundred_thousand_lines_are_delivered_or_counted():
    async def main(count: int, capacity: int) -> tuple[int, int]:
        bus = EventBus(capacity)
        lines = [encode_line(event) for event in numbered(count)]
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True):
                async with following(TapSource("a", folder), LIVE) as found, TapSink("a", folder) as sink:
                    await until(lambda: found.connected, "it is connected")
                    for n in range(0, count, 1024):
                        await sink.write(Batch([Record(line=line) for line in lines[n : n + 1024]]))
                    lost = lambda: sum(gap.missed or 0 for gap in found.gaps)  # noqa: E731
                    await until(lambda: len(found.ids) + lost() == count, "all is accounted for", 30)
                    return len(found.ids), lost()

    assert asyncio.run(main(100_000, 100_000)) == (100_000, 0)
    received, lost = asyncio.run(main(10_000, 8))
    assert lost > 0
    assert received + lost == 10_000


# ── who is there ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_live_taps_tell_of_themselves():
    async def main():
        with tap_folder() as folder:
            assert await live_taps(folder / "nowhere") == []
            bus = EventBus(4, source="here")
            before = time.time_ns()
            async with serve_tap(bus, folder / "a.sock", allow_publish=True), serve_tap(bus, folder / "b.sock"):
                (folder / "dead.sock").touch()
                for event in numbered(7):
                    bus.publish(event)
                first, second = await live_taps(folder)
                assert (first.name, second.name) == ("a", "b")
                assert (first.path, first.pid, first.source, first.capacity) == (
                    folder / "a.sock",
                    os.getpid(),
                    "here",
                    4,
                )
                assert (first.publish, second.publish) == (True, False)
                assert (first.published, first.clients, first.lost, first.problem) == (7, 0, 0, "")
                assert before <= first.since <= time.time_ns()
                await until(lambda: True, "")
                assert first.bus == second.bus

    asyncio.run(main())


def test_a_tap_that_does_not_answer_is_listed_with_its_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("opsml_eventbus.endpoints.tap.client.GREETING_SECONDS", 0.2)

    async def main():
        with tap_folder() as folder, socket.socket(socket.AF_UNIX) as deaf:
            deaf.bind(str(folder / "a.42.sock"))
            deaf.listen()
            [info] = await live_taps(folder)
            assert (info.name, info.pid, info.bus) == ("a", 42, None)
            assert info.problem == "it listens, but does not answer"

    asyncio.run(main())


def test_only_what_was_asked_for_is_kept_waiting(monkeypatch: pytest.MonkeyPatch):
    async def main():
        with tap_folder() as folder:
            with pytest.raises(Refused, match="needs the folder"):
                TapSource("a")
            with pytest.raises(Refused, match="letters"):
                TapSource("a b", folder)

    asyncio.run(main())
