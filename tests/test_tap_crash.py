"""Processes that are killed: nothing blocks the next start, nobody hangs, and what is missing is a Gap."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tapping import HISTORY, LIVE, SUBSCRIBE, ByHand, following, numbered, tap_folder, until

from opsml_eventbus.bus import EventBus
from opsml_eventbus.endpoints.tap import TapSink, TapSource, live_taps, serve_tap, socket_path
from opsml_eventbus.errors import Broken, Unreachable
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.flow import Batch, Record

SERVER = """
    import asyncio, sys
    from pathlib import Path
    from opsml_eventbus.bus import EventBus
    from opsml_eventbus.endpoints.tap import serve_tap
    from opsml_eventbus.event import Event

    async def main(path, name, count):
        bus = EventBus(4096)
        async with serve_tap(bus, Path(path), allow_publish=True) as tap:
            for n in range(int(count)):
                bus.publish(Event.new(name, n, id=f"{name}-{n}"))
            print(tap.path, flush=True)
            n = int(count)
            while True:
                await asyncio.sleep(0.002)
                bus.publish(Event.new(name, n, id=f"{name}-{n}"))
                n += 1

    asyncio.run(main(*sys.argv[1:]))
"""


class Server:
    """A bus in a process of its own that publishes 500 events a second, each with its number."""

    def __init__(self, process: asyncio.subprocess.Process, path: Path) -> None:
        self.process = process
        self.path = path

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def server(path: Path, name: str, count: int = 0) -> AsyncGenerator[Server, None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(SERVER), str(path), name, str(count), stdout=subprocess.PIPE
    )
    assert process.stdout
    served = Server(process, Path(os.fsdecode((await process.stdout.readline()).strip())))
    try:
        yield served
    finally:
        await served.kill()


def runs(items: list[Event | Gap]) -> list[list[int]]:
    """The numbers of the events, split where Gaps stand."""
    found: list[list[int]] = [[]]
    for item in items:
        if isinstance(item, Gap):
            found.append([])
        else:
            found[-1].append(item.data)
    return found


def consecutive(numbers: list[int]) -> bool:
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_tail_goes_on_when_a_killed_bus_is_back_with_a_gap():
    async def main():
        with tap_folder() as folder:
            path = socket_path(folder, "a")
            async with following(TapSource("a", folder), LIVE) as found:
                for generation in range(4):
                    async with server(path, f"g{generation}") as one:
                        assert one.path == path  # a dead socket blocks nobody
                        want = len(found.items) + 50
                        await until(lambda: len(found.items) > want, "it reads")  # noqa: B023
                generations = runs(found.items)
                assert len(generations) == 4
                assert all(consecutive(numbers) for numbers in generations)
                assert [gap.missed for gap in found.gaps] == [None] * 3
                assert len(found.ids) == len(set(found.ids))

    asyncio.run(main())


def test_workers_of_one_name_come_and_are_killed():
    async def main():
        with tap_folder() as folder:
            path = socket_path(folder, "a")
            async with server(path, "one") as one, server(path, "two") as two:
                assert one.path == path
                assert two.path == folder / f"a.{two.process.pid}.sock"
                assert [tap.pid for tap in await live_taps(folder)] == [two.process.pid, one.process.pid]
                async with following(TapSource("a", folder), LIVE) as found:
                    await until(lambda: found.connections == 2, "both")
                    await one.kill()
                    async with server(path, "three") as three:
                        assert three.path == path
                        await until(lambda: any(id_.startswith("three") for id_ in found.ids), "the third is found")
                        count = len(found.ids)
                        await until(lambda: len(found.ids) > count + 100, "both go on")
                    two_ = [int(id_.split("-")[1]) for id_ in found.ids if id_.startswith("two")]
                    three_ = [int(id_.split("-")[1]) for id_ in found.ids if id_.startswith("three")]
                    assert consecutive(two_)
                    assert consecutive(three_)
                    assert three_[0] == 0
                    assert [gap.reason for gap in found.gaps] == ["disconnect"]

    asyncio.run(main())


def test_a_bus_killed_in_the_middle_of_a_batch_is_broken_not_silence():
    async def main():
        with tap_folder() as folder:
            async with server(socket_path(folder, "a"), "n") as one, TapSink("a", folder) as sink:
                await sink.write(Batch([Record(event) for event in numbered(100)]))
                one.process.send_signal(signal.SIGSTOP)
                writing = asyncio.ensure_future(sink.write(Batch([Record(event) for event in numbered(1000)])))
                await asyncio.sleep(0.05)
                assert not writing.done()
                await one.kill()
                with pytest.raises(Broken, match="may be on the bus or not"):
                    await writing

    asyncio.run(main())


def test_a_publisher_that_is_killed_leaves_whole_events_only():
    script = """
        import socket, sys, time
        from opsml_eventbus.codec import encode_line
        from opsml_eventbus.event import Event
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(sys.argv[1])
            sock.sendall(b'{"eventbus":1,"do":"publish"}\\n')
            n = 0
            while True:
                line = encode_line(Event.new("n", n)) + b"\\n"
                sock.sendall(line[:100]); sock.sendall(line[100:])
                n += 1
    """

    async def main():
        bus = EventBus(1 << 16)
        reader = bus.subscribe(order="published")
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                for _ in range(5):
                    child = await asyncio.create_subprocess_exec(
                        sys.executable, "-c", textwrap.dedent(script), str(tap.path)
                    )
                    want = bus.statistics().published + 200
                    await until(lambda: bus.statistics().published > want, "it publishes")  # noqa: B023
                    child.kill()
                    await child.wait()
                    await until(lambda: tap.clients == 0, "it is gone")
                    assert consecutive([item.data for item in reader.drain(1 << 16)])

    asyncio.run(main())


def test_a_bus_that_is_stopped_is_named_and_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("opsml_eventbus.endpoints.tap.client.GREETING_SECONDS", 0.3)

    async def main():
        with tap_folder() as folder:
            async with server(socket_path(folder, "a"), "n", 10) as one:
                one.process.send_signal(signal.SIGSTOP)
                [info] = await live_taps(folder)
                assert info.problem == "it listens, but does not answer"
                with pytest.raises(Unreachable, match="does not answer"):
                    async with TapSink("a", folder):
                        pass
                async with following(TapSource("a", folder), LIVE) as found:
                    await until(lambda: found.notices, "it says that it waits")
                    one.process.send_signal(signal.SIGCONT)
                    await until(lambda: found.ids, "it reads")

    asyncio.run(main())


def test_a_forked_child_of_a_killed_server_keeps_nothing_alive():
    script = """
        import asyncio, os, sys, time
        from pathlib import Path
        from opsml_eventbus.bus import EventBus
        from opsml_eventbus.endpoints.tap import serve_tap

        async def main():
            async with serve_tap(EventBus(4), Path(sys.argv[1])) as tap:
                print("ready", flush=True)
                while not tap.clients:
                    await asyncio.sleep(0.01)
                child = os.fork()
                if not child:
                    os.close(1)
                    time.sleep(60)
                    os._exit(0)
                print(child, flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
    """

    async def main():
        with tap_folder() as folder:
            path = folder / "a.sock"
            parent = await asyncio.create_subprocess_exec(
                sys.executable, "-c", textwrap.dedent(script), str(path), stdout=subprocess.PIPE
            )
            assert parent.stdout
            assert await parent.stdout.readline() == b"ready\n"
            async with ByHand.to(path, SUBSCRIBE) as client:
                await client.told()
                child = int(await parent.stdout.readline())
                try:
                    parent.kill()
                    await parent.wait()
                    assert await client.told() is None
                    async with serve_tap(EventBus(4), path, alone=True):
                        pass
                    os.kill(child, 0)  # it was there all the time
                finally:
                    os.kill(child, signal.SIGKILL)

    asyncio.run(main())


def test_a_child_of_the_server_does_not_keep_its_socket_alive():
    async def main():
        with tap_folder() as folder:
            path = socket_path(folder, "a")
            async with serve_tap(EventBus(4), path):
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
            try:
                assert os.listdir(folder) == []
                async with (
                    serve_tap(EventBus(4), path, alone=True),
                    following(TapSource("a", folder), HISTORY) as found,
                ):
                    await found.ended
            finally:
                child.kill()
                child.wait()

    asyncio.run(main())
