"""Every event to every reader: the bus against one `asyncio.Queue` per subscriber, its peers, and a bare list.

Every reader touches every event. What arrives, and in which order, is checked in an untimed pass; nothing may be
missed. Times are the least of several rounds in which all take turns.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from pathlib import Path

from opsml_eventbus import Event

from . import _contestants as c
from ._plot import bars
from ._publishing import audit, four_threads, least, memory, parked, publishing, waking

READERS = (1, 10, 100)
COUNTS = {1: 20_000, 10: 10_000, 100: 6_000}
ROUNDS = {1: 40, 10: 20, 100: 12}  # the shorter a run, the more of them: one must be undisturbed
BOUNDS = {c.OURS.name: (2.0, 3.3, 3.5), c.OURS_BATCHES.name: (3.0, 9.5, 12.5)}
PLOT = Path(__file__).parent.parent / "docs" / "fanout.svg"


def check(entry: c.Entry, readers: int) -> None:
    """Raise unless every reader gets every event in order."""
    events = [Event.new("audit", audit()) for _ in range(1500)]
    kept: list[list[Event]] = []
    asyncio.run(entry.run(events, readers, kept))
    assert len(kept) == readers
    for seen in kept:
        assert [one.id for one in seen] == [one.id for one in events], f"{entry.name} gave something else"


def measure(entries: list[c.Entry], readers: int, count: int, rounds: int, tiny: bool) -> dict[str, float]:
    """Deliveries per second of each."""
    count, rounds = (min(count, 600), 1) if tiny else (count, rounds)
    events = [Event.new("audit", audit()) for _ in range(count)]
    best = least({one.name: timing(one, events, readers) for one in entries}, rounds)
    return {name: count * readers / seconds for name, seconds in best.items()}


def timing(entry: c.Entry, events: list[Event], readers: int) -> Callable[[], float]:
    return lambda: asyncio.run(entry.run(events, readers, None))


def main(tiny: bool) -> str:
    entries = [c.QUEUES, c.OURS, c.OURS_BATCHES, c.BARE, c.BARE_BATCHES, *[one for one in c.PEERS if one.installed]]
    missing = [one.name for one in c.PEERS if not one.installed]
    rates: dict[int, dict[str, float]] = {}
    for readers in READERS:
        for entry in entries:
            check(entry, min(readers, 3))
        # The peers are up to a hundred times slower: fewer events and fewer rounds for them.
        ours = measure([one for one in entries if one not in c.PEERS], readers, COUNTS[readers], ROUNDS[readers], tiny)
        theirs = measure([one for one in entries if one in c.PEERS], readers, COUNTS[readers] // 10, 3, tiny)
        rates[readers] = ours | theirs
    lines = ["| deliveries per second, M (× a Queue each) | S=1 | S=10 | S=100 | what it loses, blocks or hides |"]
    lines.append("|---|---|---|---|---|")
    for entry in entries:
        cells = []
        for place, readers in enumerate(READERS):
            rate = rates[readers][entry.name]
            ratio = rate / rates[readers][c.QUEUES.name]
            bound = f", at least {BOUNDS[entry.name][place]}" if entry.name in BOUNDS else ""
            cells.append(f"{rate / 1e6:.2f} ({ratio:.2f} ×{bound})")
        lines.append(f"| {entry.name} | {' | '.join(cells)} | {entry.hides} |")
    if missing:
        lines += ["", f"Not installed here and left out: {', '.join(missing)}."]
    rounds = 2 if tiny else 60
    figures = [
        *publishing(200 if tiny else 4000, rounds),
        *parked(5 if tiny else 300),
        *four_threads(200 if tiny else 20_000, 1 if tiny else 5),
        *waking(50 if tiny else 2000, 1 if tiny else 5),
        *memory(5000 if tiny else 1_000_000, 20 if tiny else 1000),
    ]
    lines += ["", "| figure | here | bound |", "|---|---|---|"]
    lines += [f"| {what} | {value:.2f} | {bound} |" for what, value, bound in figures]
    lines += ["", f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}."]
    text = "\n".join(lines)
    print(text)
    if not tiny:
        PLOT.write_text(bars("Deliveries per second, 100 readers (millions)", _in_millions(rates[100])))
        text += f"\n\n![deliveries per second with 100 readers]({PLOT.name})"
    return text


def _in_millions(rates: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(((name.replace("`", ""), rate / 1e6) for name, rate in rates.items()), key=lambda pair: -pair[1])
