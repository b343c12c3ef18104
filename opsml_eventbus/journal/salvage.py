"""What is still whole behind the damage of a log: its events, each once, in their order, and a Gap where some are
missing.

It is told from the chain, not from where lines stand. The runs of all damaged files are joined to each other and to
what is sound. What joins the log, or has an open record of it, is of it; what joins another log is not. A run that
joins nothing is taken for the log's own where it fills a hole of the log, or stands where its seqs say. Two runs of the
log with the same seqs and other events are both kept: somebody went on behind a copy, and both were acknowledged.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ..codec import decode_line, encode_line, strip_place
from ..errors import InvalidEvent
from ..event import Gap
from .diagnosis import Diagnosis
from .format import Pruned, Recovered, control_line, is_control, peek_control
from .lines import Block
from .runs import Groups, Run, Seqs, agreed, blocks_of, read_runs
from .segments import Segment

_NEAR = 16  # runs on each side that have a say in where one belongs: enough, and no more when there are thousands


class Salvage:
    """The lines behind the damage that are to be written anew. Iterate as often as needed; it counts the last time.

    salvaged: events and Gaps. lost: Gaps put where something is missing or not whole. left: events that are another
    log's, stand in this one already, or are of unknown origin.
    """

    def __init__(self, found: Diagnosis, now: int) -> None:
        self._found = found
        self._now = now
        self.pieces = [Piece(found.sound if index == 0 else 0) for index in range(len(found.segments))]
        self.lost = self._spoilt = 0
        files = [
            list(read_runs(segment, piece.blocks_of(segment), found.behind if piece.offset else None))
            for segment, piece in zip(found.segments, self.pieces, strict=True)
        ]
        groups = Groups(found.had, list(itertools.chain(*files)), found.log)
        self._parts = _parts(found, files, groups)
        self._ends_unknown = not found.sealed and (
            _ends_unknown(files[-1], self.pieces[-1], {part.run for part in self._parts}, groups.own)
            or _reaches_further(found, self._parts, itertools.chain(*files), groups)
            or _lacks_more(found, self._parts, files)
        )
        declared = (part.run.pruned[seq] for part in self._parts for seq in part.run.pruned if seq >= part.start)
        self._pruned = {*found.pruned, *declared}
        self._events = sum(run.events for runs in files for run in runs)

    @property
    def precedes(self) -> bool:
        """Does any of it belong before everything that is sound, be it the Gap of a beginning that nobody declared?"""
        first = self._found.had[0].first if self._found.had else 1
        return first > 1 and (first not in self._pruned or any(part.start < first for part in self._parts[:1]))

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
        # Between two files stand a seal and an open record: where only one of them is missing, no event is.
        at, sealed = found.behind.seq, found.sound == 0 and bool(found.had)
        for part in self._parts:
            missing = part.start - at - 1
            sealed = sealed or at == 0  # a log begins with an open record
            only_a_record = missing == 1 and (sealed or (part.start == part.run.first and part.run.proved))
            # Where two ways go on from one line the other has these seqs, and a hole in this one does not show.
            unseen = missing <= 0 and part.spoilt
            if unseen or (missing > 0 and not only_a_record and part.start not in self._pruned):
                yield self._gap()
            self._spoilt += part.spoilt and not is_control(part.run.body)
            for _, _, line in part.run.places(part.start):
                control = peek_control(line) if is_control(line) else None
                if isinstance(control, Pruned | Recovered):  # what they say of the log is still true
                    yield control_line(control, self._now)
                elif not is_control(line) or _whole(line) is None:  # what begins as a record may be half of one
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

    def blocks_of(self, segment: Segment) -> Iterator[Block]:
        """Measured while they are read."""
        return blocks_of(segment, self.offset, note=self._measure)

    def _measure(self, data: bytes) -> None:
        self.bytes += len(data)
        self._digest.update(data)

    def record(self, kept: Path) -> Recovered:
        return Recovered(self.bytes, self.offset, kept.name, self._digest.hexdigest(), self.salvaged)


# ── what ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Part(NamedTuple):
    """A run, of which the lines from the seq `start` on are written. spoilt: its first line is not what was chained."""

    run: Run
    start: int
    spoilt: bool = False


def _parts(found: Diagnosis, files: Sequence[Sequence[Run]], groups: Groups) -> list[_Part]:
    """What is written, in its order."""
    own = _each_once(found.had, files, groups, groups.own)
    fitting = itertools.chain(_fitting(found, files, own, groups), _on_other_ways(found, files, groups))
    return _each_once(found.had, files, groups, groups.own | groups.of(fitting))


def _each_once(
    had: Sequence[Run], files: Sequence[Sequence[Run]], groups: Groups, wanted: AbstractSet[Run]
) -> list[_Part]:
    """The runs that are wanted, without what stands in another too, and without a first line that is not as it was."""
    parts: list[_Part] = []
    active = list(had)
    runs = [run for file in reversed(files) for run in reversed(file) if run in wanted]
    # Where several begin alike: one that is whole, the longest, the one in the file of that name, the last.
    for run in sorted(
        runs, key=lambda run: (run.first, run not in groups.joined, -run.last.seq, run.segment.first != run.first)
    ):
        active = [other for other in active if other.last.seq >= run.first - 1]
        start = max([run.first, *(agreed(other, run) + 1 for other in active)])
        if start > run.last.seq:
            continue
        doubted = start == run.first and run not in groups.joined
        disproved = doubted and any(other.first < start for other in active)
        # Behind a line that can be read and that it does not join, and where a file begins with no open record, nothing
        # shows that its first line is whole. (Of the log it may be where lines are missing between the two.) The first
        # of all shows that by itself.
        at_its_word = run.first > 1 and (run.bare or (run in groups.own and run.offset > 0 and not run.contradicts))
        spoilt = disproved or (doubted and not at_its_word)
        if disproved or start + spoilt <= run.last.seq:
            parts.append(_Part(run, start + spoilt, spoilt))
            active.append(run)
    return parts


def _fitting(found: Diagnosis, files: Sequence[Sequence[Run]], own: Sequence[_Part], groups: Groups) -> Iterator[Run]:
    """The runs that join nothing of the log and fit: into a hole of it, wherever they stand, or before or behind all of
    it, unless more lines in their file say otherwise by where they stand."""
    kept = {part.run: part.start for part in own}
    taken = Seqs([*((run.first, run.last.seq) for run in found.had), *((kept[run], run.last.seq) for run in kept)])
    least, most = taken.bounds
    twice = _in_two_files([*found.had, *groups.own])
    loose = list[tuple[int, int, Run]]()  # in which file, at which place
    places = [[(at, run) for at, run in enumerate(file) if run in kept] for file in files]
    for number, file in enumerate(files):
        strange = False  # what stands before it in this file is another log's
        for at, run in enumerate(file):
            alone = run.first == run.last.seq and run.contradicted  # one line's word against another's
            if run not in groups.own and run not in groups.foreign and not strange and not alone:
                loose.append((number, at, run))
            strange = run in groups.foreign or (strange and run not in groups.own)
    # The longest first: of two that contradict each other it is the less likely to have been put there.
    for number, at, run in sorted(loose, key=lambda found: (found[2].first - found[2].last.seq, found[2].first)):
        if taken.any(run.first, run.last.seq) or (found.had and run.first < least):
            continue
        continues = at > 0 and files[number][at - 1] in groups.own and _continues(files[number][at - 1], run, taken)
        if not (least < run.first < most or continues) and _misplaced(run, at, places[number], twice):
            continue
        taken.add(run.first, run.last.seq)
        insort(places[number], (at, run), key=lambda place: place[0])
        yield run


def _on_other_ways(found: Diagnosis, files: Sequence[Sequence[Run]], groups: Groups) -> Iterator[Run]:
    """The runs that join nothing of the log and stand, with greater seqs, behind a run of it that another one has
    parted from: what is behind a hole in one of two ways. Their seqs say nothing, since the other way has them too."""
    own = {*found.had, *groups.own}
    before = next((run for run in found.had if found.sound and run.segment == found.segments[0]), None)
    for file in files:
        end, before = before, None  # what such a run would go on from; the first file may be sound up to there
        for run in file:
            if run in own:
                end = run
            elif run in groups.foreign:
                end = None
            elif end is not None and end.last.seq < run.first and not (run.contradicted and run.first == run.last.seq):
                if end in own and not _ends_a_way(end, own):
                    continue
                yield run
                end = run


def _ends_a_way(run: Run, own: Iterable[Run]) -> bool:
    """Has the log gone on otherwise from a line of this run, and nothing from its last one?"""
    end, parted = run.last, False
    for other in own:
        if other.first <= end.seq < other.last.seq:
            if other.chain_at(end.seq) == end.chain:
                return False
            parted = True
        elif other.first == end.seq + 1 and other.follows(end.chain):
            return False
    return parted


def _continues(before: Run, run: Run, taken: Seqs) -> bool:
    """Does a hole of the log begin with the end of the run before it, and this one stand behind that?"""
    end = before.last.seq
    return end < run.first and not taken.any(end + 1, end + 1)


def _in_two_files(runs: Iterable[Run]) -> Seqs:
    """The seqs that more than one file holds. (A file and its compressed form are one.)"""
    files: dict[int | None, list[Run]] = {}
    for run in runs:
        files.setdefault(run.segment.first, []).append(run)
    spans = sorted(span for found in files.values() for span in Seqs.of(found).spans)
    twice, end = list[tuple[int, int]](), 0
    for first, last in spans:
        if first <= end:
            twice.append((first, min(last, end)))
        end = max(end, last)
    return Seqs(twice)


def _misplaced(run: Run, at: int, places: Sequence[tuple[int, Run]], twice: Seqs) -> bool:
    """Do the runs near it in its file that have lower seqs and stand behind it, or the other way round, hold as many
    lines as it has? Those that another file holds have no say: whole files are copied behind others."""
    index = bisect_left(places, at, key=lambda place: place[0])
    near = places[max(0, index - _NEAR) : index + _NEAR]
    wrong = (other for place, other in near if (place < at) != (other.first < run.first))
    return sum(other.height - twice.within(other.first, other.last.seq) for other in wrong) >= run.height


def _ends_unknown(runs: Sequence[Run], piece: Piece, parts: AbstractSet[Run], own: AbstractSet[Run]) -> bool:
    """May a line have stood at the log's end of which nothing is left? runs, piece: of its last file."""
    if parts.isdisjoint(runs):
        return True
    last = next(run for run in reversed(runs) if run in own or run in parts)
    return not last.sealed and last.end < piece.offset + piece.bytes


def _reaches_further(found: Diagnosis, parts: Sequence[_Part], runs: Iterable[Run], groups: Groups) -> bool:
    """Is there a line, perhaps of the log, that was not taken and has a greater seq than all that were?"""
    end = max([found.behind.seq, *(part.run.last.seq for part in parts)])
    return any(run.last.seq > end for run in runs if run not in groups.foreign)


def _lacks_more(found: Diagnosis, parts: Sequence[_Part], files: Sequence[Sequence[Run]]) -> bool:
    """Are there more lines in a file that cannot be read than lines missing at the holes in it and beside it? One may
    be the log's last, which then stood elsewhere. (What stands behind a seal was never the log's.)"""
    holes = Counter[Segment | None]()
    at, before = found.behind.seq, found.segments[0] if found.sound else None
    for part in parts:
        missing = max(0, part.start - at - 1)
        holes[part.run.segment] += missing
        if before != part.run.segment:
            holes[before] += missing
        at, before = max(at, part.run.last.seq), part.run.segment
    for file in files:
        unreadable = sum(
            run.unreadable for before, run in zip((None, *file), file, strict=False) if not (before and before.sealed)
        )
        if file and unreadable > holes[file[0].segment]:
            return True
    return False


def _whole(line: bytes) -> bytes | None:
    try:
        return encode_line(decode_line(strip_place(line)))
    except InvalidEvent:
        return None
