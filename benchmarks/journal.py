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


def best(run: Callable[[], float]) -> float:
    """The median of a few runs, events per second."""
    return median(run() for _ in range(ROUNDS))


def append_batches(count: int, fsync: str = "interval") -> float:
    events = [event(number) for number in range(count)]

    async def run(path: Path) -> float:
        async with Journal(path, fsync=fsync) as journal:
            begun = time.perf_counter()
            pending: set[asyncio.Task[object]] = set()
            for start in range(0, count, BATCH):
                # Two batches under way, as a pump has them: the next is encoded while the last is written.
                pending.add(asyncio.ensure_future(journal.append(events[start : start + BATCH])))
                if len(pending) > 1:
                    _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*pending)
            return count / (time.perf_counter() - begun)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(Path(folder) / "a.jsonl"))


def raw_limit(count: int) -> float:
    """Encode and write, and nothing else."""
    events = [event(number) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        descriptor = os.open(Path(folder) / "a.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        begun = time.perf_counter()
        for start in range(0, count, BATCH):
            os.write(descriptor, b"\n".join([encode_line(item) for item in events[start : start + BATCH]]) + b"\n")
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


def group_commit(rounds: int) -> tuple[float, float]:
    """64 producers with fsync=always; and a loop that writes 64 lines and syncs, the most one sync per batch allows."""

    async def producer(journal: Journal, events: list[Event]) -> None:
        for item in events:
            await journal.append([item])

    async def run(path: Path) -> float:
        events = [[event(number) for number in range(rounds)] for _ in range(PRODUCERS)]
        async with Journal(path, fsync="always") as journal:
            begun = time.perf_counter()
            await asyncio.gather(*(producer(journal, mine) for mine in events))
            return rounds * PRODUCERS / (time.perf_counter() - begun)

    with tempfile.TemporaryDirectory() as folder:
        ours = asyncio.run(run(Path(folder) / "a.jsonl"))
        lines = [encode_line(event(number)) + b"x" * 120 + b"\n" for number in range(PRODUCERS)]
        descriptor = os.open(Path(folder) / "b.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        begun = time.perf_counter()
        for _ in range(rounds):
            os.write(descriptor, b"".join(lines))
            os.fdatasync(descriptor)
        limit = rounds * PRODUCERS / (time.perf_counter() - begun)
        os.close(descriptor)
    return ours, limit


def verification(path: Path, count: int) -> tuple[float, float]:
    def limit() -> float:
        begun = time.perf_counter()
        with path.open("rb") as stream:
            for line in stream:
                hashlib.sha256(line).digest()
        return count / (time.perf_counter() - begun)

    def ours() -> float:
        begun = time.perf_counter()
        assert verify_journal(path).exit == 0
        return count / (time.perf_counter() - begun)

    return best(ours), best(limit)


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
    count = 2 * BATCH if tiny else 200 * BATCH
    print(f"journal, {count:,} events a run, batches of {BATCH}")
    ours = best(lambda: append_batches(count))
    raw = best(lambda: raw_limit(count))
    print(f"  append, interval         {ours:>12,.0f} /s")
    print(f"  encode and write alone   {raw:>12,.0f} /s   ours ÷ that {ours / raw:.2f}   (target ≥ 0.25)")
    peer = structlog_orjson(count // 4)
    if peer is None:
        print("  structlog + orjson       not installed: left out")
    else:
        print(f"  structlog + orjson       {peer:>12,.0f} /s   ours ÷ that {ours / peer:.1f}    (target ≥ 4)")
    pairs = [group_commit(5 if tiny else 200) for _ in range(ROUNDS)]
    always, limit = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    print(f"  fsync=always, {PRODUCERS} callers {always:>12,.0f} /s")
    print(f"  one fsync a batch        {limit:>12,.0f} /s   ours ÷ that {always / limit:.2f}   (target ≥ 0.8)")
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "a.jsonl"
        fill(path, count)
        verified, hashed = verification(path, count)
        print(f"  verify                   {verified:>12,.0f} /s")
        print(f"  read and SHA-256 alone   {hashed:>12,.0f} /s   ours ÷ that {verified / hashed:.2f}   (target ≥ 0.4)")
        begun = time.perf_counter()
        total = sum(1 for _ in read_journal(path))
        print(f"  read                     {total / (time.perf_counter() - begun):>12,.0f} /s")
        size = path.stat().st_size / 1e6
        print(f"  verify, peak memory      {peak_memory(path):>12,.0f} MB  (target ≤ 80; a file of {size:,.0f} MB)")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(tiny="--tiny" in sys.argv)
