"""Kill -9 under load, again and again: is every event that was acknowledged there?

    python -m benchmarks.crash [--tiny]

Prints what was acknowledged, what was found, and how often the end was torn. Fails when anything acknowledged is
missing or anything is there twice.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from opsml_eventbus.codec import decode_line
from opsml_eventbus.journal import Line, read_journal, recover, verify_journal

ROUNDS = 200
LOAD = """
import asyncio, itertools, os, sys
from opsml_eventbus.event import Event
from opsml_eventbus.journal import Journal

async def producer(journal, name):
    for number in itertools.count():
        await journal.append([Event.new("t", "x" * (number * 37 % 900), id=f"{name}-{number}")])
        os.write(1, f"{name}-{number}\\n".encode())

async def main():
    async with Journal(sys.argv[1], fsync="always", rotate_size=100_000, compress="gzip") as journal:
        os.write(1, b"ready\\n")
        await asyncio.gather(*(producer(journal, f"{sys.argv[2]}-{n}") for n in range(16)))

asyncio.run(main())
"""


def one_life(path: Path, name: int, seconds: float) -> list[str]:
    """Write under load, be killed; what was acknowledged."""
    process = subprocess.Popen([sys.executable, "-c", LOAD, str(path), str(name)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    rest, _ = process.communicate()
    # The last line may have been cut off; it was acknowledged, but not by a name we could look for.
    return rest.decode().split("\n")[:-1]


def main(tiny: bool = False) -> None:
    """Print the figures; raise when an acknowledged event is missing, or one is there twice."""
    rounds = 5 if tiny else ROUNDS
    chance = random.Random(4711)
    acknowledged: list[str] = []
    torn = cut = unsound = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        begun = time.perf_counter()
        for life in range(rounds):
            acknowledged += one_life(path, life, chance.uniform(0.0, 0.1))
            verdict = verify_journal(path)
            torn += verdict.exit == 3
            unsound += verdict.exit == 5
            recovery = recover(path)
            cut += recovery.cut
        elapsed = time.perf_counter() - begun
        found = [decode_line(item.line).id for item in read_journal(path) if isinstance(item, Line)]
        report = verify_journal(path)
        missing, doubled = len(set(acknowledged) - set(found)), len(found) - len(set(found))
        print(f"kill -9 under load, {rounds} times in {elapsed:,.0f} s, fsync=always")
        print(
            f"  acknowledged {len(acknowledged):,}   recovered {len(found):,}   missing {missing}   doubled {doubled}"
        )
        print(
            f"  torn {torn} times ({cut:,} bytes cut)   called tampered {unsound} times   at the end {report.verdict}"
        )
    if missing or doubled or unsound or report.exit:
        raise AssertionError("what was acknowledged is not what is there")


if __name__ == "__main__":
    main(tiny="--tiny" in sys.argv)
