"""Clients that mean no good: the bus is unaffected, memory and descriptors stay flat, and they are told why."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import textwrap
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tapping import DESCRIBE, PUBLISH, SUBSCRIBE, ByHand, descriptors, numbered, tap_folder, until

from opsml_eventbus.bus import EventBus
from opsml_eventbus.codec import encode_line
from opsml_eventbus.endpoints.tap import serve_tap
from opsml_eventbus.event import Event


def memory() -> int:
    """Resident bytes of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


async def works(bus: EventBus, path: Path) -> bool:
    """Does an honest subscriber get the next event?"""
    async with ByHand.to(path, SUBSCRIBE) as client:
        await client.told()
        event = bus.publish(Event.new("n", 1))
        while True:
            line = await client.told()
            if line.get("id") == event.id:
                return True


def test_one_byte_a_second_is_not_enough():
    async def main():
        bus = EventBus(16)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap, ByHand.to(tap.path) as slow:
                answer = asyncio.ensure_future(slow.rest(seconds=4))
                for byte in SUBSCRIBE[:3]:
                    slow.writer.write(bytes([byte]))
                    await asyncio.sleep(0.9)
                assert [line["error"] for line in await answer] == ["timeout"]
                assert await works(bus, tap.path)

    asyncio.run(main())


def test_a_hundred_thousand_random_frames_are_refused_one_by_one():
    async def main():
        bus = EventBus(16)
        random.seed(11)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                async with ByHand.to(tap.path, PUBLISH) as client:
                    await client.told()
                    frames = 100_000
                    refused = turns = 0

                    def frame() -> bytes:
                        return random.randbytes(random.randrange(1, 30)).replace(b"\n", b"x") + b"\n"

                    async def flood() -> None:
                        for _ in range(100):
                            client.writer.write(b"".join(frame() for _ in range(1000)))
                            await client.writer.drain()
                        client.finish()

                    async def honest() -> None:
                        nonlocal turns
                        while True:
                            assert await works(bus, tap.path)
                            turns += 1

                    flooding, working = asyncio.ensure_future(flood()), asyncio.ensure_future(honest())
                    last = None
                    while (line := await client.told()) is not None:
                        refused += "refused" in line
                        last = line
                    working.cancel()
                    await asyncio.gather(flooding, working, return_exceptions=True)
                    assert last == {"acked": frames}
                    # A frame of white space is an empty line: counted, not refused.
                    assert frames - 2000 < refused <= frames
                    assert turns > 20
                assert bus.statistics().published == turns or bus.statistics().published == turns + 1

    asyncio.run(main())


@needs_proc
def test_strangers_with_garbage_leave_nothing_behind():
    async def main():
        bus = EventBus(16)
        random.seed(12)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap:
                await works(bus, tap.path)
                before, tasks = descriptors(), len(asyncio.all_tasks())
                for _ in range(300):
                    async with ByHand.to(tap.path) as stranger:
                        stranger.writer.write(random.randbytes(random.randrange(2000)))
                        if random.random() < 0.5:
                            stranger.say(b"")
                            await stranger.line()
                await until(lambda: descriptors() <= before, "all descriptors are closed")
                await until(lambda: len(asyncio.all_tasks()) <= tasks, "no task is left")
                assert await works(bus, tap.path)

    asyncio.run(main())


@needs_proc
def test_a_thousand_connects_and_disconnects_leave_nothing_behind():
    async def main():
        bus = EventBus(16)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                await works(bus, tap.path)
                before, tasks = descriptors(), len(asyncio.all_tasks())

                async def come_and_go(said: bytes) -> None:
                    for n in range(250):
                        async with ByHand.to(tap.path, said) as client:
                            if n % 3 == 0:
                                await client.line()

                first = 0
                for round_ in range(3):
                    await asyncio.gather(*(come_and_go(said) for said in (SUBSCRIBE, PUBLISH, DESCRIBE, b"{}")))
                    await until(lambda: descriptors() <= before, "all descriptors are closed")
                    await until(lambda: len(asyncio.all_tasks()) <= tasks and tap.clients == 0, "nobody is left")
                    if round_ == 0:
                        first = memory()
                assert memory() - first < 2 << 20
                assert await works(bus, tap.path)

    asyncio.run(main())


@needs_proc
def test_sixty_four_clients_that_never_read_cost_a_bounded_amount():
    async def main():
        bus = EventBus(256)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap, AsyncExitStack() as stack:
                for _ in range(64):
                    client = await stack.enter_async_context(ByHand.to(tap.path, SUBSCRIBE))
                    await client.told()
                    client.reader._transport.pause_reading()
                padding = "x" * 500
                measured = []
                for n in range(40_000):
                    bus.publish(Event.new("n", {"n": n, "padding": padding}))
                    if n % 100 == 99:
                        await asyncio.sleep(0)
                    if n in (5_000, 39_999):
                        measured.append(memory())
                assert measured[1] - measured[0] < 4 << 20
                # 64 clients, each at most a piece in our hands and 256 events that have left the ring.
                asking = await stack.enter_async_context(ByHand.to(tap.path, DESCRIBE))
                assert (await asking.told())["clients"] == 64

    asyncio.run(main())


def test_large_events_for_a_client_that_never_reads_are_not_copied_ahead():
    async def main():
        bus = EventBus(64)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock") as tap, ByHand.to(tap.path, SUBSCRIBE) as client:
                await client.told()
                client.reader._transport.pause_reading()
                for n in range(200):
                    bus.publish(Event.new("n", {"n": n, "padding": "x" * 500_000}))
                [watch] = tap._watches
                await until(lambda: not watch._connection.idle, "the kernel takes no more")
                held = watch._connection._writer.transport.get_write_buffer_size()
                assert held <= 2 * 500_200

    asyncio.run(main())


def test_a_flood_of_tiny_lines_lets_others_run():
    async def main():
        bus = EventBus(16)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 0 < bus.statistics().published < 5000
                await asyncio.sleep(0)

        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                async with ByHand.to(tap.path, PUBLISH) as client:
                    await client.told()
                    running = asyncio.ensure_future(others())
                    client.writer.write(b'{"type":"n"}\n' * 5000)
                    client.finish()
                    assert (await client.rest())[-1] == {"acked": 5000}
                    running.cancel()
                    assert turns > 40

    asyncio.run(main())


def test_a_publisher_that_never_reads_its_answers_is_not_read_from():
    async def main():
        bus = EventBus(16)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                async with ByHand.to(tap.path, PUBLISH) as client:
                    await client.told()
                    client.reader._transport.pause_reading()
                    client.writer.transport.set_write_buffer_limits(high=0)
                    sent = 0
                    while True:
                        client.writer.write((b"x" * 200 + b"\n") * 1000)
                        sent += 1000
                        try:
                            await asyncio.wait_for(client.writer.drain(), 1)
                        except TimeoutError:
                            break
                        assert sent < 40_000
                    assert await works(bus, tap.path)
                    client.reader._transport.resume_reading()
                    client.finish()
                    answers = await client.rest()
                    assert answers[-1] == {"acked": sent}
                    assert len(answers) > sent

    asyncio.run(main())


def test_a_half_line_of_a_publisher_that_died_stops_nobody():
    async def main():
        bus = EventBus(16)
        with tap_folder() as folder:
            async with serve_tap(bus, folder / "a.sock", allow_publish=True) as tap:
                async with ByHand.to(tap.path, PUBLISH) as client:
                    await client.told()
                    line = encode_line(numbered(1)[0])
                    client.writer.write(line + b"\n" + line[:50])
                    await until(lambda: bus.statistics().published == 1, "the whole line is published")
                await until(lambda: tap.clients == 0, "it is gone")
                assert bus.statistics().published == 1
                assert await works(bus, tap.path)

    asyncio.run(main())


def test_without_descriptors_accepting_pauses_and_the_bus_lives():
    script = """
        import asyncio, os, resource, sys, time
        from pathlib import Path
        from opsml_eventbus.bus import EventBus
        from opsml_eventbus.endpoints.tap import serve_tap
        from opsml_eventbus.event import Event

        async def main():
            bus = EventBus(64)
            reader = bus.subscribe()
            async with serve_tap(bus, Path(sys.argv[1])) as tap:
                limit = len(os.listdir("/proc/self/fd")) + 3
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
                print("ready", flush=True)
                loop = asyncio.get_running_loop()
                turns, cpu, end = 0, time.process_time(), loop.time() + 1.2
                while loop.time() < end:
                    bus.publish(Event.new("n", turns))
                    await anext(reader)
                    turns += 1
                    await asyncio.sleep(0.005)
                print(turns, time.process_time() - cpu, flush=True)
                await asyncio.sleep(2.5)

        asyncio.run(main())
    """

    async def main(path: Path) -> None:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(script), str(path),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout
        assert await child.stdout.readline() == b"ready\n"
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(ByHand.to(path, SUBSCRIBE)) for _ in range(20)]
            assert (await clients[0].told())["eventbus"] == 1
            turns, cpu = (await child.stdout.readline()).split()
            assert int(turns) > 60
            assert float(cpu) < 0.6
        async with ByHand.to(path, DESCRIBE) as late:  # those that waited have gone: there is room again
            assert (await late.told())["eventbus"] == 1
        _, complaints = await child.communicate()
        assert complaints == b""
        assert child.returncode == 0

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    with tap_folder() as folder:
        asyncio.run(main(folder / "a.sock"))
