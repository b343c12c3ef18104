"""What is still whole behind the damage of a log: its events, each once, in their order, and a Gap where some are
missing.

It is told from the chain, not from where lines stand. The runs of all damaged files are joined to each other and to
what is sound. What joins the log, or has an open record of it, is of it; what joins another log is not. A run that
joins nothing is taken for the log's own only where the seqs of its neighbours leave room for it. Two runs of the log
with the same seqs and other events are both kept: somebody went on behind a copy, and both were acknowledged.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ..codec import decode_line, encode_line, strip_place
from ..errors import InvalidEvent
from ..event import Gap
from .diagnosis import Diagnosis
from .format import MAX_SEQ, Pruned, Recovered, control_line, is_control, peek_control
from .lines import Block
from .runs import Run, agreed, blocks_of, read_runs


class Salvage:
    """The lines behind the damage that are to be written anew. Iterate as often as needed; it counts the last time.

    salvaged: events and Gaps. lost: Gaps put where something is missing or not whole. left: events that are another
    log's, or stand in this one already.
    """

    def __init__(self, found: Diagnosis, now: int) -> None:
        self._found = found
        self._now = now
        self.pieces = [Piece(found.sound if index == 0 else 0) for index in range(len(found.segments))]
        self.lost = self._spoilt = 0
        files = [
            list(
                read_runs(
                    segment, piece.measured(blocks_of(segment, piece.offset)), found.behind if piece.offset else None
                )
            )
            for segment, piece in zip(found.segments, self.pieces, strict=True)
        ]
        groups = _Groups(found, list(itertools.chain(*files)))
        self._parts = _parts(found, files, groups)
        self._ends_unknown = not found.sealed and _ends_unknown(
            files[-1], self.pieces[-1], {part.run for part in self._parts}, groups.own
        )
        declared = (part.run.pruned[seq] for part in self._parts for seq in part.run.pruned if seq >= part.start)
        self._pruned = {*found.pruned, *declared}
        self._events = sum(run.events for runs in files for run in runs)

    @property
    def cut(self) -> int:
        return sum(piece.bytes for piece in self.pieces)

    @property
    def salvaged(self) -> int:
        return sum(piece.salvaged for piece in self.pieces)

    @property
    def left(self) -> int:
        return self._events - self.salvaged - self._spoilt

    def __iter__(self) -> Iterator[bytes]:
        found = self._found
        pieces = dict(zip(found.segments, self.pieces, strict=True))
        self.lost = self._spoilt = 0
        for piece in self.pieces:
            piece.salvaged = 0
        if found.beginning is not None and found.beginning.before not in self._pruned:
            # Who declared it is not known; perhaps nobody.
            yield control_line(found.beginning, self._now)
            yield self._gap()
        # Between two files stand a seal and an open record: where only one of them is missing, no event is.
        at, sealed = found.behind.seq, found.sound == 0 and bool(found.had)
        for part in self._parts:
            missing = part.start - at - 1
            only_a_record = missing == 1 and (sealed or (part.start == part.run.first and part.run.proved))
            if missing > 0 and not only_a_record and part.start not in self._pruned:
                yield self._gap()
            self._spoilt += part.spoilt and not is_control(part.run.body)
            for seq, _, line in part.run.places():
                if seq < part.start:
                    continue
                control = peek_control(line) if is_control(line) else None
                if isinstance(control, Pruned | Recovered):  # what they say of the log is still true
                    yield control_line(control, self._now)
                elif not is_control(line):
                    event = _whole(line)
                    pieces[part.run.segment].salvaged += event is not None
                    self._spoilt += event is None
                    yield event or self._gap()
            at, sealed = max(at, part.run.last.seq), part.run.sealed
        if self._ends_unknown:
            yield self._gap()

    def _gap(self) -> bytes:
        self.lost += 1
        return encode_line(Gap.new(None, None, "invalid"))


class Piece:
    """What was cut of one file, from the byte `offset` on."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.bytes = self.salvaged = 0
        self._digest = sha256()

    def measured(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The same blocks."""
        for block in blocks:
            self.bytes += block.end - block.offset
            self._digest.update(block.data + (b"\n" if block.whole else b""))
            yield block

    def record(self, kept: Path) -> Recovered:
        return Recovered(self.bytes, self.offset, kept.name, self._digest.hexdigest(), self.salvaged)


# ── whose ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Groups:
    """Runs that join each other, directly or through others: one chain, or one that divides."""

    def __init__(self, found: Diagnosis, runs: Sequence[Run]) -> None:
        self.joined: set[Run] = set(found.had)  # the first line of which is proved
        self._above: dict[Run, Run] = {}
        active: list[Run] = []
        for run in sorted((*found.had, *runs), key=lambda run: run.first):
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
        logs = {self._root(run): run.log for run in runs if run.log}
        name = found.log or next(iter(logs.values()), "")
        own = {self._root(run) for run in found.had} | {root for root, log in logs.items() if log == name}
        self.own = {run for run in (*found.had, *runs) if self._root(run) in own}
        self.foreign = {run for run in runs if self._root(run) in logs.keys() - own}

    def _root(self, run: Run) -> Run:
        while (above := self._above.get(run, run)) is not run:
            run = above
        return run

    def _unite(self, one: Run, other: Run) -> None:
        self._above[self._root(one)] = self._root(other)


# ── what ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Part(NamedTuple):
    """A run, of which the lines from the seq `start` on are written. spoilt: its first line is not what was chained."""

    run: Run
    start: int
    spoilt: bool = False


def _parts(found: Diagnosis, files: Sequence[Sequence[Run]], groups: _Groups) -> list[_Part]:
    """What is written, in its order."""
    runs = list(itertools.chain(*files))
    own = _each_once(found.had, [run for run in reversed(runs) if run in groups.own], groups)
    taken = _Seqs(
        [*((run.first, run.last.seq) for run in found.had), *((part.start, part.run.last.seq) for part in own)]
    )
    return sorted([*own, *_fitting(found, files, own, taken, groups)], key=lambda part: part.start)


def _each_once(had: Sequence[Run], runs: Sequence[Run], groups: _Groups) -> list[_Part]:
    """The runs of the log, without what stands in another too, and without a first line that is not as it was."""
    parts: list[_Part] = []
    active = list(had)
    # Where several begin alike: one that is whole, then the longest, then the one that stands last.
    for run in sorted(runs, key=lambda run: (run.first, run not in groups.joined, -run.last.seq)):
        active = [other for other in active if other.last.seq >= run.first - 1]
        start = max([run.first, *(agreed(other, run) + 1 for other in active)])
        if start > run.last.seq:
            continue
        spoilt = start == run.first and run not in groups.joined and any(other.first < start for other in active)
        parts.append(_Part(run, start + spoilt, spoilt))
        active.append(run)
    return parts


def _fitting(
    found: Diagnosis, files: Sequence[Sequence[Run]], own: Sequence[_Part], taken: _Seqs, groups: _Groups
) -> Iterator[_Part]:
    """The runs that join nothing, where what stands before and behind them leaves room for their seqs."""
    starts = {part.run: part.start for part in own}
    runs = list(itertools.chain(*files))
    limits, limit = dict[Run, int](), MAX_SEQ + 1
    for run in reversed(runs):
        limits[run] = limit
        limit = min(limit, starts.get(run, limit))
    at = found.behind.seq
    for file in files:
        strange = False  # what stands before it in this file is another log's
        for run in file:
            if run in groups.own:
                strange = False
                at = max(at, run.last.seq) if run in starts else at
            elif run in groups.foreign:
                strange = True
            elif (
                not strange and at < run.first and run.last.seq < limits[run] and not taken.any(run.first, run.last.seq)
            ):
                # Behind a line that can be read and that it does not join, nothing shows that its first line is whole.
                disproved = at == run.first - 1 or taken.any(run.first - 1, run.first - 1)
                spoilt = disproved or not run.bare
                if disproved or run.first + spoilt <= run.last.seq:
                    yield _Part(run, run.first + spoilt, spoilt)
                    at = run.last.seq


def _ends_unknown(runs: Sequence[Run], piece: Piece, parts: AbstractSet[Run], own: AbstractSet[Run]) -> bool:
    """May a line have stood at the log's end of which nothing is left? runs, piece: of its last file."""
    if parts.isdisjoint(runs):
        return True
    last = next(run for run in reversed(runs) if run in own or run in parts)
    return not last.sealed and last.end < piece.offset + piece.bytes


class _Seqs:
    """Seqs that are taken, as runs that do not follow each other."""

    def __init__(self, taken: Iterable[tuple[int, int]]) -> None:
        self._firsts, self._lasts = list[int](), list[int]()
        for first, last in sorted(taken):
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def any(self, first: int, last: int) -> bool:
        """Is any from `first` to `last` taken?"""
        at = bisect_left(self._lasts, first)
        return at < len(self._firsts) and self._firsts[at] <= last


def _whole(line: bytes) -> bytes | None:
    try:
        return encode_line(decode_line(strip_place(line)))
    except InvalidEvent:
        return None
