"""How fast the journal is, beside what people use instead and beside what the machine allows. Ratios, one run.

python -m benchmarks.journal [--tiny]
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from opsml_eventbus.audit import AuditEvent
from opsml_eventbus.codec import encode_line
from opsml_eventbus.event import Event
from opsml_eventbus.journal import Journal, read_journal, verify_journal

BATCH = 1024
PRODUCERS = 64
ROUNDS = 3


def event(number: int) -> Event:
    """One of OpsML's `card/list` audits, with its metadata."""
    return Event.new(
        "audit",
        AuditEvent(
            username=f"user{number % 50}",
            client_ip="10.0.0.7",
            user_agent="opsml-client/",
            operation="List",
            resource_type="Database",
            resource_id="list_cards",
            metadata=f'{{"registry_type":"prompt","limit":10,"space":"s{number % 9}"}}',
            registry_type="prompt",
            route="/opsml/api/card/list",
        ),
    )


def side_by_side(*runs: Callable[[], float]) -> list[tuple[float, float]]:
    """Each run's median figure, and the median of its ratios to the first run's: they take turns, so that whatever
    else the machine does falls on all of them."""
    rounds = [[run() for run in runs] for _ in range(ROUNDS)]
    return [(median(row[i] for row in rounds), median(row[0] / row[i] for row in rounds)) for i in range(len(runs))]


def batches_of(count: int) -> list[list[Event]]:
    """To be taken from: nobody keeps an event that was written, and the line that it keeps."""
    return [[event(number) for number in range(start, start + BATCH)] for start in range(0, count, BATCH)]


def append_batches(count: int, *, lines: bool = False) -> float:
    """lines: the events were encoded before, as those are that a tap has sent."""
    batches = batches_of(count)
    if lines:
        for batch in batches:
            for item in batch:
                encode_line(item)

    async def run(path: Path) -> float:
        async with Journal(path, fsync="interval") as journal:
            begun = time.perf_counter()
            pending: set[asyncio.Task[object]] = set()
            while batches:
                # Two batches under way, as a pump has them: the next is encoded while the last is written.
                pending.add(asyncio.ensure_future(journal.append(batches.pop())))
                if len(pending) > 1:
                    _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*pending)
            return count / (time.perf_counter() - begun)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(Path(folder) / "a.jsonl"))


def raw_limit(count: int) -> float:
    """Encode and write, and nothing else."""
    batches = batches_of(count)
    with tempfile.TemporaryDirectory() as folder:
        descriptor = os.open(Path(folder) / "a.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        begun = time.perf_counter()
        while batches:
            os.write(descriptor, b"\n".join([encode_line(item) for item in batches.pop()]) + b"\n")
        elapsed = time.perf_counter() - begun
        os.close(descriptor)
    return count / elapsed


def structlog_orjson(count: int) -> float | None:
    """The same fields with structlog and orjson to a file: no chain, no sync, no acknowledgement."""
    try:
        import orjson
        import structlog
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "a.jsonl").open("wb", buffering=1 << 16) as stream:
        log = structlog.wrap_logger(
            structlog.BytesLogger(stream),
            processors=[structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer(orjson.dumps)],
        )
        fields = [
            {name: getattr(event(number).data, name) for name in AuditEvent.__struct_fields__}
            for number in range(count)
        ]
        begun = time.perf_counter()
        for number, members in enumerate(fields):
            log.info("audit", id=str(number), **members)
        stream.flush()
        return count / (time.perf_counter() - begun)


def group_commit(rounds: int, latency: float = 0.0) -> tuple[float, float]:
    """64 callers with fsync=always; and a loop that writes 64 lines and syncs, the most one sync per batch allows.

    latency: seconds added to every sync, to see the same on a disk that is slower than a virtual one.
    """
    real = os.fdatasync

    def slower(descriptor: int) -> None:
        real(descriptor)
        time.sleep(latency)

    async def producer(journal: Journal, events: list[Event]) -> None:
        for item in events:
            await journal.append([item])

    async def run(path: Path) -> float:
        events = [[event(number) for number in range(rounds)] for _ in range(PRODUCERS)]
        async with Journal(path, fsync="always") as journal:
            begun = time.perf_counter()
            await asyncio.gather(*(producer(journal, mine) for mine in events))
            return rounds * PRODUCERS / (time.perf_counter() - begun)

    if latency:
        os.fdatasync = slower
    try:
        with tempfile.TemporaryDirectory() as folder:
            ours = asyncio.run(run(Path(folder) / "a.jsonl"))
            data = b"".join(encode_line(event(number)) + b"x" * 120 + b"\n" for number in range(PRODUCERS))
            descriptor = os.open(Path(folder) / "b.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            begun = time.perf_counter()
            for _ in range(rounds):
                os.write(descriptor, data)
                os.fdatasync(descriptor)
            limit = rounds * PRODUCERS / (time.perf_counter() - begun)
            os.close(descriptor)
    finally:
        os.fdatasync = real
    return ours, limit


def verified(path: Path, count: int) -> float:
    begun = time.perf_counter()
    assert verify_journal(path).exit == 0
    return count / (time.perf_counter() - begun)


def hashed(path: Path, count: int) -> float:
    """Read the lines and compute SHA-256 of each."""
    begun = time.perf_counter()
    with path.open("rb") as stream:
        for line in stream:
            hashlib.sha256(line).digest()
    return count / (time.perf_counter() - begun)


def reading(path: Path, count: int) -> float:
    begun = time.perf_counter()
    assert sum(1 for _ in read_journal(path)) == count
    return count / (time.perf_counter() - begun)


def peak_memory(path: Path) -> float:
    """MB a process needs to verify this file, interpreter included."""
    code = (
        "import sys\nfrom opsml_eventbus.journal import verify_journal\n"
        "assert verify_journal(sys.argv[1]).exit == 0\n"
        "status = open('/proc/self/status').read()\n"
        "print(status.split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def fill(path: Path, count: int) -> None:
    async def run() -> None:
        async with Journal(path, fsync="interval") as journal:
            for start in range(0, count, BATCH):
                await journal.append([event(number) for number in range(start, min(count, start + BATCH))])

    asyncio.run(run())


def main(tiny: bool = False) -> None:
    """Print every ratio of the journal with its target."""
    count = 2 * BATCH if tiny else 100 * BATCH
    print(f"journal, {count:,} events a run, batches of {BATCH}, medians of {ROUNDS}")
    runs = [lambda: append_batches(count), lambda: raw_limit(count)]
    peer = structlog_orjson(BATCH) is not None
    if peer:
        runs.append(lambda: structlog_orjson(count // 4) or 0.0)
    figures = side_by_side(*runs)
    print(f"  append, interval         {figures[0][0]:>12,.0f} /s")
    show("encode and write alone", figures[1], "≥ 0.25")
    if peer:
        show("structlog + orjson", figures[2], "≥ 4")
        encoded = side_by_side(lambda: append_batches(count, lines=True), runs[2])
        print(f"  append, encoded before   {encoded[0][0]:>12,.0f} /s")
        show("structlog + orjson", encoded[1])
    else:
        print("  structlog + orjson       not installed: left out")
    for latency in (0.0, 0.005):
        pairs = [group_commit(5 if tiny else 100, latency) for _ in range(ROUNDS)]
        disk = f"a sync of +{latency * 1000:.0f} ms" if latency else "this disk's sync"
        print(f"  always, {PRODUCERS} callers       {median(pair[0] for pair in pairs):>12,.0f} /s   with {disk}")
        figure = median(pair[1] for pair in pairs), median(pair[0] / pair[1] for pair in pairs)
        show("one sync a batch", figure, "≥ 0.8" if latency else "")
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "a.jsonl"
        fill(path, count)
        figures = side_by_side(lambda: verified(path, count), lambda: hashed(path, count), lambda: reading(path, count))
        print(f"  verify                   {figures[0][0]:>12,.0f} /s")
        show("read and SHA-256 alone", figures[1], "≥ 0.4")
        print(f"  read                     {figures[2][0]:>12,.0f} /s")
        size = path.stat().st_size / 1e6
        print(f"  verify, peak memory      {peak_memory(path):>12,.0f} MB  (target ≤ 80; a file of {size:,.0f} MB)")
    finally:
        shutil.rmtree(folder)


def show(name: str, figure: tuple[float, float], target: str = "") -> None:
    rate, ratio = figure
    print(f"  {name:<24} {rate:>12,.0f} /s   ours ÷ that {ratio:.2f}" + (f"   (target {target})" if target else ""))


if __name__ == "__main__":
    main(tiny="--tiny" in sys.argv)
