"""Runs: lines of one file, one behind the other, each of which joins the one before. What damage leaves of a chain.

Nothing can have been put into a run, taken out of it or changed in it: only its first line is as good as whatever it
joins elsewhere. (Whoever forges a whole chain is found out by signatures, not here.)
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from io import FileIO

from .format import (
    BLANKS,
    CHAIN_BYTES,
    Head,
    Open,
    Place,
    Pruned,
    Seal,
    is_control,
    link,
    peek_control,
    read_chain,
    read_place,
)
from .lines import BLOCK_BYTES, HELD_BYTES, LINE_BYTES, Block, place_in, read_blocks
from .segments import Segment

_TOGETHER = re.compile(rb'"\}[' + BLANKS + rb']*(?=\{"specversion":)')
_LOGS = 16  # of which lines are counted: enough, and no more when somebody has put in thousands
_EVERY = 256  # lines of a run: so many chain values are kept, and every so many-th of a long one that is looked into


@dataclass(slots=True, eq=False)
class Run:
    """Lines of a file from the byte `offset` to `end`, the first of which is `first`; last: where the chain stands
    behind them. log: as an open record among them says. pruned: the beginnings that they declare, by the seq of the
    record. sealed: the last one is a seal. proved: the first one is an open record, which says itself what it follows.
    bare: what stands before them cannot be read; unreadable: so many lines of it. contradicted: the next line has the
    next seq and does not join them; contradicts: so it is with the first and the one before."""

    segment: Segment
    offset: int
    first: int
    body: bytes = b""  # of the first line
    end: int = 0
    last: Head = field(default_factory=Head)
    events: int = 0
    log: str = ""
    pruned: dict[int, int] = field(default_factory=dict)
    sealed: bool = False
    proved: bool = False
    bare: bool = False
    unreadable: int = 0
    contradicted: bool = False
    contradicts: bool = False
    _chains: list[bytes] = field(default_factory=list)
    _marks: list[tuple[int, bytes]] = field(default_factory=list)
    _window: tuple[int, list[bytes]] = (-1, [])  # what was looked into last: who asks, asks on from there

    @property
    def height(self) -> int:
        """How many lines."""
        return self.last.seq - self.first + 1

    def follows(self, chain: bytes) -> bool:
        """Does the first line join a line of this chain value?"""
        return link(chain, self.body) == self.chain_at(self.first)

    def chain_at(self, seq: int) -> bytes:
        """Where the chain stands behind one of its lines."""
        at = seq - self.first
        if at < len(self._chains):
            return self._chains[at]
        if seq == self.last.seq:
            return self.last.chain
        if self._window[0] != at // _EVERY:
            places = itertools.islice(self.places(seq - at % _EVERY), _EVERY)
            self._window = at // _EVERY, [chain for _, chain, _ in places]
        return self._window[1][at % _EVERY]

    def places(self, seq: int = 0) -> Iterator[tuple[int, bytes, bytes]]:
        """Each line, with its seq and chain value, from a seq on."""
        at = max(0, seq - self.first)
        if at >= _EVERY and not self._marks:
            lines = self._read(0, self.offset)
            self._marks = [(offset, chain) for index, offset, chain, _ in lines if index % _EVERY == 0]
        offset, chain = self._marks[at // _EVERY] if at >= _EVERY else (self.offset, b"")
        for index, _, value, line in self._read(at - at % _EVERY, offset, chain):
            if index >= at:
                yield self.first + index, value, line

    def _read(self, index: int, offset: int, chain: bytes = b"") -> Iterator[tuple[int, int, bytes, bytes]]:
        """Each line from the one of that index on, which begins at `offset` and leaves the chain at `chain`, where that
        is known: index, offset, chain value, bytes."""
        blocks = blocks_of(self.segment, offset, self.end)
        lines = (found for block in blocks for found in _lines_of(self.segment, block))
        before, value = b"", chain or (self._chains[0] if self._chains else b"")
        for at, (line, end) in enumerate(lines, index):
            if before:
                value = link(before, line[:-CHAIN_BYTES])
            elif not value and (place := read_place(line)) is not None:
                value = place.chain
            yield at, offset, value, line
            before, offset = value, end

    def add(self, line: bytes, head: Head, end: int) -> None:
        """The next line, which leaves the chain at `head`; the next byte behind it."""
        self.last, self.end, self.sealed = head, end, False
        self._remember(head.chain)
        if not is_control(line):
            self.events += 1
            return
        control = peek_control(line)
        self.sealed = isinstance(control, Seal)
        if isinstance(control, Open):
            self.proved |= head.seq == self.first and self.follows(read_chain(control.previous))
            if self.proved or head.seq > self.first:
                self.log = self.log or control.log
        elif isinstance(control, Pruned):
            self.pruned[head.seq] = control.before

    def correct(self, chain: bytes, line: bytes) -> None:
        """The chain value of its only line, whatever that states."""
        self.events, self._chains = 0, []
        self.add(line, Head(self.first, chain), self.end)

    def take(self, more: Run) -> None:
        """What follows is one line, which joins."""
        self.last, self.end, self.sealed = more.last, more.end, more.sealed
        self._remember(more.last.chain)
        self.events += more.events
        self.log = self.log or more.log
        self.pruned |= more.pruned

    def _remember(self, chain: bytes) -> None:
        if len(self._chains) < _EVERY:
            self._chains.append(chain)


def agreed(one: Run, other: Run) -> int:
    """The last seq of which both hold the same line; 0 when there is none."""
    first, last = max(one.first, other.first), min(one.last.seq, other.last.seq)
    if first > last or one.chain_at(first) != other.chain_at(first):
        return 0
    if one.chain_at(last) == other.chain_at(last):
        return last  # a chain value stands for all that is before it
    both = zip(one.places(first), other.places(first), strict=False)
    return first + sum(1 for _ in itertools.takewhile(lambda pair: pair[0][1] == pair[1][1], both)) - 1


# ── which belong together ────────────────────────────────────────────────────────────────────────────────────────────


class Groups:
    """Runs that join each other, directly or through others: one chain, or one that divides.

    had: runs that are sound, all of one log. runs: the others, in the order of their files. log: the id of the log of
    which `own` are; "" for the one that most lines tell of.
    """

    def __init__(self, had: Sequence[Run], runs: Sequence[Run], log: str = "") -> None:
        self._runs = runs
        self.joined: set[Run] = set(had)  # the first line of which is proved
        self._above: dict[Run, Run] = {}
        active: list[Run] = []
        for run in sorted((*had, *runs), key=lambda run: run.first):
            active = [other for other in active if other.last.seq >= run.first - 1]
            for other in active:
                if other.first < run.first and run.body and run.follows(other.chain_at(run.first - 1)):
                    self.joined.add(run)
                    self._unite(run, other)
                elif other.last.seq >= run.first and other.chain_at(run.first) == run.chain_at(run.first):
                    self._unite(run, other)
            active.append(run)
            if run.proved:
                self.joined.add(run)
        self.log = log or self._most_told((*had, *runs))
        own = {self.root(run) for run in (*had, *(run for run in runs if run.log == self.log))}
        foreign = {self.root(run) for run in runs if run.log not in ("", self.log)} - own
        self.own = {run for run in runs if self.root(run) in own}
        self.foreign = {run for run in runs if self.root(run) in foreign}

    def of(self, runs: Iterable[Run]) -> set[Run]:
        """All that is joined to these."""
        roots = {self.root(run) for run in runs}
        return {run for run in self._runs if self.root(run) in roots}

    def root(self, run: Run) -> Run:
        """The same one for all that are joined."""
        while (above := self._above.get(run, run)) is not run:
            run = above
        return run

    def _unite(self, one: Run, other: Run) -> None:
        self._above[self.root(one)] = self.root(other)

    def _most_told(self, runs: Sequence[Run]) -> str:
        """The log of which the most lines could be written: its own, and those that join nothing and find room among
        them. Of two with as many the one with more of its own, then the one that the last file tells of last."""
        told: dict[Run, Counter[str]] = {}
        for run in reversed(runs):
            told.setdefault(self.root(run), Counter())[run.log] += run.height if run.log else 0
        lines: dict[str, list[Run]] = {}
        for run in reversed(runs):
            ((name, _),) = told[self.root(run)].most_common(1)
            lines.setdefault(name, []).append(run)
        loose = lines.pop("", [])
        own = {name: Seqs.of(found) for name, found in lines.items()}
        heaviest = sorted(own, key=lambda name: -own[name].count)[:_LOGS]
        return max(heaviest, key=lambda name: own[name].count_with(loose), default="")


class Seqs:
    """Seqs that are taken."""

    def __init__(self, taken: Iterable[tuple[int, int]]) -> None:
        self._firsts, self._lasts = list[int](), list[int]()
        for first, last in sorted(taken):
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Seqs:
        return cls((run.first, run.last.seq) for run in runs)

    @property
    def spans(self) -> Iterable[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def within(self, first: int, last: int) -> int:
        """How many from `first` to `last` are taken."""
        at, found = bisect_left(self._lasts, first), 0
        while at < len(self._firsts) and self._firsts[at] <= last:
            found += min(last, self._lasts[at]) - max(first, self._firsts[at]) + 1
            at += 1
        return found

    @property
    def count(self) -> int:
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def count_with(self, runs: Iterable[Run]) -> int:
        """How many there were with those runs that take none of these."""
        free = Seqs.of(run for run in runs if not self.any(run.first, run.last.seq))
        return self.count + free.count

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest."""
        return (self._firsts[0], self._lasts[-1]) if self._firsts else (0, 0)

    def add(self, first: int, last: int) -> None:
        """Seqs none of which is taken yet."""
        at = bisect_left(self._firsts, first)
        self._firsts.insert(at, first)
        self._lasts.insert(at, last)

    def any(self, first: int, last: int) -> bool:
        """Is any from `first` to `last` taken?"""
        at = bisect_left(self._lasts, first)
        return at < len(self._firsts) and self._firsts[at] <= last


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_runs(segment: Segment, blocks: Iterable[Block], behind: Head | None = None) -> Iterator[Run]:
    """The runs of a file, in order; `blocks` are its own, from where the chain stands `behind` something, else from its
    beginning on."""
    run: Run | None = None
    doubted: Run | None = None  # the one before a line that does not join it, which perhaps only states a wrong chain
    instead = first = b""  # the chain value that the bytes of its first line give, and these
    bare, unreadable = False, 0
    for line, place, offset, end, ended in _lines(segment, blocks):
        before = run.last if run is not None else behind
        # A crash may have cut a line right behind what its payload spells.
        if place is None or not (ended or (before is not None and _joins(before, line, place))):
            yield from filter(None, (doubted, run))
            run, doubted, behind, bare = None, None, None, True
            unreadable += end - offset > 1  # no line is empty
            continue
        body, head = line[:-CHAIN_BYTES], Head(place.seq, place.chain)
        comes_next = run is not None and place.seq == run.last.seq + 1
        if run is not None and comes_next and link(run.last.chain, body) == place.chain:
            if doubted is not None:
                yield doubted
                doubted = None
        elif run is not None and comes_next and run.first == run.last.seq and link(instead, body) == place.chain:
            run.correct(instead, first)
            if doubted is not None:
                doubted.take(run)
                run, doubted = doubted, None
                run.contradicted = False
        else:
            if doubted is not None:
                yield doubted
            if run is not None and not comes_next:
                yield run
            doubted = run if comes_next else None
            if doubted is not None:
                doubted.contradicted = True
            run = Run(segment, offset, place.seq, body, bare=bare, unreadable=unreadable)
            run.contradicts = doubted is not None
            comes_next = before is not None and before.seq == place.seq - 1
            instead = link(before.chain, body) if before and comes_next else _as_opened(line, body, run)
            first = line
        run.add(line, head, end)
        bare, unreadable, behind = False, 0, None
    yield from filter(None, (doubted, run))


def _joins(before: Head, line: bytes, place: Place) -> bool:
    return before.seq + 1 == place.seq and link(before.chain, line[:-CHAIN_BYTES]) == place.chain


def _as_opened(line: bytes, body: bytes, run: Run) -> bytes:
    """The chain value that an open record's own bytes give, where it is a file's first line."""
    control = peek_control(line) if run.offset == 0 and is_control(line) else None
    return link(read_chain(control.previous), body) if isinstance(control, Open) else b""


def _lines(segment: Segment, blocks: Iterable[Block]) -> Iterator[tuple[bytes, Place | None, int, int, bool]]:
    """Each line, its place if it has one, where it begins, where the next one does, and whether it has its end: a
    newline, or the line behind it."""
    for block in blocks:
        offset = block.offset
        for line, end in _lines_of(segment, block):
            yield line, place_in(line), offset, end, end < block.end or block.whole
            offset = end


def _lines_of(segment: Segment, block: Block) -> Iterator[tuple[bytes, int]]:
    """Each line, and where the next one begins. No JSON text holds what stands between two that have run together; what
    stands behind one is of whoever copied the file, or of a disk. Of a line that is too long nothing is given."""
    if block.oversize:
        yield from _parted(chunks_of(segment, block.offset, block.end), block.offset)
        return
    base = block.offset
    for index, row in enumerate(block.lines):
        start = 0
        for joint in _TOGETHER.finditer(row) if b'{"specversion":' in row[1:] else ():
            yield row[start : joint.start() + 2], base + joint.end()
            start = joint.end()
        base = block.offset_of(index + 1)
        yield row[start:].rstrip(BLANKS), base


def _parted(chunks: Iterable[bytes], offset: int) -> Iterator[tuple[bytes, int]]:
    """The lines that have run together to one that is too long, as `_lines_of` gives them."""
    rest, long = b"", False
    for chunk in chunks:
        rest += chunk
        start = 0
        for joint in _TOGETHER.finditer(rest):
            line = rest[start : joint.start() + 2]
            yield b"" if long or len(line) > LINE_BYTES else line, offset + joint.end()
            start, long = joint.end(), False
        rest, offset = rest[start:], offset + start
        if len(rest) > LINE_BYTES + HELD_BYTES:
            rest, offset, long = rest[-HELD_BYTES:], offset + len(rest) - HELD_BYTES, True
    line = rest.rstrip(BLANKS + b"\n")
    yield b"" if long or len(line) > LINE_BYTES else line, offset + len(rest)


def blocks_of(
    segment: Segment, start: int, end: int | None = None, note: Callable[[bytes], object] | None = None
) -> Iterator[Block]:
    """The blocks of a part of a file, as far as it can be read. note: is given all that is read of it."""
    chunks = chunks_of(segment, start, end)

    def read(_: int) -> bytes:
        chunk = next(chunks, b"")
        if note is not None:
            note(chunk)
        return chunk

    yield from read_blocks(read, start)


def chunks_of(segment: Segment, start: int, end: int | None = None) -> Iterator[bytes]:
    """The bytes of a part of a file, as far as it can be read. (A compressed one is read from its beginning.)"""
    with closing(segment.open()) as stream:
        position = stream.seek(start) if isinstance(stream, FileIO) else 0
        while end is None or position < end:
            size = BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - position)
            try:
                data = stream.read(size if position >= start else min(size, start - position))
            except (OSError, EOFError, ValueError):
                return  # what lies behind is in the copy
            if not data:
                return
            if position >= start:
                yield data
            position += len(data)
