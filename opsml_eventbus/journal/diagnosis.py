"""What of a log is damaged first, and what stands where: the look that a repair takes before it touches anything."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..errors import JournalRefused
from .format import CHAIN_BYTES, Head, Seal, peek_control
from .lines import read_blocks
from .runs import Groups, Run, blocks_of, read_runs
from .segments import Log, Segment, parse_segment
from .walk import Finding, Walk


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """finding: the first. segments: the file it is in and all behind it, each with the compressed form that was left
    beside it. sound: bytes of the first one before the damage. behind: where the chain stands there, `durable` with it;
    log: its id. had: what is sound in each file. pruned: the beginnings that are declared in what is sound.

    sealed: the damage is behind a file's seal, `sound` is all up to there, and the rest of the log is sound (`had`, it
    too). unsealed: the same damage as one that is mended by writing everything anew from there on.
    """

    finding: Finding
    segments: tuple[Segment, ...]
    sound: int
    behind: Head
    durable: int
    log: str
    had: tuple[Run, ...]
    pruned: frozenset[int] = frozenset()
    unsealed: Diagnosis | None = None

    @property
    def sealed(self) -> bool:
        return self.unsealed is not None


def diagnose(log: Log, *, whole: bool = False) -> Diagnosis | None:
    """None: there is no damage. whole: count all of the log as damaged, if any of it is.

    Raises JournalRefused: nothing of it is a journal, or only its beginning is gone, and nothing can mend that.
    """
    begun = {segment: _begun(segment) for segment in log.segments}
    name = _guess(begun)
    segments = _in_order(begun, name)
    look = _Look(segments, name)
    if look.damage is not None and (told := _most_told(log, segments, look)) != name:
        segments = _in_order(begun, told)
        look = _Look(segments, told)
    damage = look.damage
    if damage is None and look.beheaded is not None:
        raise JournalRefused(str(log.live), f"{look.beheaded.reason}, undeclared: nothing that is there can mend it")
    if damage is None:
        return None
    index, sound = (0, 0) if whole else (damage.at, damage.sound)
    before = look.before[index]
    start = Diagnosis(
        damage.finding.judged(look.walk.durable),
        _with_twins(log, segments[index:]),
        0,
        before.head,
        before.durable,
        before.log,
        tuple(look.had[:index]),
        look.walk.pruned(before.head.seq),
    )
    if index == 0 and look.beheaded is not None:
        return start  # all of it anew, with a Gap in front
    return _behind(start, segments, segments[index], sound) if sound else start


class _Before(NamedTuple):
    """What is known before a file."""

    head: Head
    durable: int
    log: str


class _Damage(NamedTuple):
    """at: of the files, which. sound: bytes of it before the damage."""

    at: int
    finding: Finding
    sound: int = 0


class _Look:
    """A walk through all files. before: of each, up to the first damaged one. had: the sound ones before that.
    damage: the first, a file that is missing undeclared too. beheaded: so is what stood before the first file."""

    def __init__(self, segments: Sequence[Segment], log: str) -> None:
        self._findings: list[Finding] = []
        self.walk = Walk(self._findings.append, log=log)
        self.before, self.had = list[_Before](), list[Run]()
        found = self._find(segments, log)
        for later in segments[len(self.before) :]:
            _feed(self.walk, later)  # how far it was durable decides what the damage is called
        names = [segment.name for segment in segments]
        missing = [_Damage(names.index(gone.file), gone) for _, _, gone in self.walk.undeclared]
        self.beheaded = next((gone.finding for gone in missing if gone.at == 0), None)
        earlier = (gone for gone in missing if 0 < gone.at < len(self.before))
        self.damage = next(earlier, found)

    def _find(self, segments: Sequence[Segment], log: str) -> _Damage | None:
        """Raises JournalRefused: the first file that is damaged is no journal, and none is before it."""
        walk = self.walk
        for index, segment in enumerate(segments):
            self.before.append(_Before(walk.head, walk.durable, walk.log))
            _feed(walk, segment)
            if self._findings and not walk.lines and not log:
                raise JournalRefused(str(segment.path), "nothing in it is a line of a journal")
            if self._findings:
                return _Damage(index, self._findings[0], walk.sound_end)
            if segment.first is None and segment != segments[-1]:
                # Everything from it on is written anew at its name, so it counts as the first that is damaged.
                reason = f"the live file begins with seq {walk.file_first}, and others follow it"
                return _Damage(index, Finding("sequence", segment.name, 1, 0, walk.file_first, reason))
            self.had.append(_run(segment, walk))
        return None


def _behind(start: Diagnosis, segments: Sequence[Segment], segment: Segment, sound: int) -> Diagnosis:
    """The same damage, in that file, which is sound up to there."""
    last = b""
    for block in blocks_of(segment, 0, sound):
        last = block.lines[-1]
    if not isinstance(peek_control(last), Seal):
        return _cut_at(start, segment, sound)
    unsealed = _cut_at(start, segment, sound - len(last) - 1)
    if segment.first is None or len(segments) < segments.index(segment) + 3:
        return unsealed  # no writer opens a log when its last files do not join, so none could say what was cut
    findings: list[Finding] = []
    walk, had = Walk(findings.append, log=start.log), list[Run]()
    for other in segments:
        _feed(walk, other, sound if other == segment else None)
        had.append(_run(other, walk))
    walk.finish()
    if findings:
        return unsealed
    same = tuple(other for other in start.segments if other.first == segment.first)
    found = _cut_at(start, segment, sound)
    return replace(found, segments=same, had=tuple(had), unsealed=unsealed)


def _cut_at(start: Diagnosis, segment: Segment, sound: int) -> Diagnosis:
    walk = Walk(lambda _: None, whole=False)
    walk.begin(segment.name, None)
    for block in blocks_of(segment, 0, sound):
        walk.feed(block)
    return replace(
        start,
        sound=sound,
        behind=walk.head,
        durable=walk.durable,
        log=walk.log,
        had=(*start.had, _run(segment, walk)),
        pruned=start.pruned | walk.pruned(walk.head.seq),
    )


def _run(segment: Segment, walk: Walk) -> Run:
    """The sound part of the file that was walked last."""
    first = next((block.lines[0] for block in blocks_of(segment, 0, walk.sound_end)), b"")
    body = first[:-CHAIN_BYTES]
    return Run(segment, 0, walk.file_first, body, end=walk.sound_end, last=walk.head, log=walk.log)


# ── the order of the files ───────────────────────────────────────────────────────────────────────────────────────────


def _begun(segment: Segment) -> list[Run]:
    """The runs at a file's beginning, as far as they are read at once."""
    try:
        return list(read_runs(segment, itertools.islice(blocks_of(segment, 0), 1)))
    except (OSError, EOFError, ValueError):
        return []


def _guess(begun: dict[Segment, list[Run]]) -> str:
    """The id of the log, as most lines at the beginnings of the files tell it. In a sound log there is no other."""
    votes = Counter[str]()
    for run in itertools.chain(*begun.values()):
        votes[run.log] += run.height if run.log else 0
    return max(votes, key=lambda name: votes[name], default="")


def _most_told(log: Log, segments: Sequence[Segment], look: _Look) -> str:
    """The id of the log, as most lines of all its files tell it."""
    at = 0 if look.damage is None else look.damage.at
    files = _with_twins(log, segments[at:])
    return Groups(look.had[:at], [run for file in files for run in read_runs(file, blocks_of(file, 0))]).log


def _in_order(begun: dict[Segment, list[Run]], name: str) -> tuple[Segment, ...]:
    """The files of the log of that id as they follow each other, whatever they are called.

    A file of another log, or one that does not say where it begins, stands where it is called to.
    """
    own = {segment: seq for segment, runs in begun.items() if (seq := _begins(runs, name))}
    finished = {seq for segment, seq in own.items() if segment.first is not None}

    def place(segment: Segment) -> tuple[bool, int]:
        seq = own.get(segment)
        if seq is None or (segment.first is None and seq in finished):
            return segment.first is None, segment.first or 0
        return False, seq

    return tuple(sorted(begun, key=place))


def _begins(runs: Sequence[Run], name: str) -> int:
    """Where a file begins that holds these runs: as most lines say that can be the log's; 0 where none tells of it."""
    groups = Groups((), runs, name)
    if not groups.own:
        return 0
    lines, first = Counter[Run](), dict[Run, int]()
    for run in runs:
        if run not in groups.foreign:
            root = groups.root(run)
            lines[root] += run.height
            first[root] = min(run.first, first.get(root, run.first))
    return first[max(lines, key=lambda root: lines[root])]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _with_twins(log: Log, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Behind each file its compressed form, where a crash left it beside it."""
    stale = [Segment(path, parsed[1]) for path in log.stale if (parsed := parse_segment(path)) is not None]
    return tuple(
        found for segment in segments for found in (segment, *(twin for twin in stale if twin.first == segment.first))
    )


def _feed(walk: Walk, segment: Segment, size: int | None = None) -> None:
    """A file, or as many bytes of it."""
    walk.begin(segment.name, segment.first)
    end, number = 0, 1
    try:
        with closing(segment.open()) as stream:
            for block in read_blocks(stream.read) if size is None else blocks_of(segment, 0, size):
                walk.feed(block)
                end, number = block.end, block.number + block.height
        walk.end()
    except (OSError, EOFError, ValueError) as error:
        walk.unreadable(end, number, str(error))
