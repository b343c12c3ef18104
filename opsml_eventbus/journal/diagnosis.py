"""What of a log is damaged first, and what stands where: the look that a repair takes before it touches anything."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..errors import JournalRefused
from .format import Head, Pruned, Seal, Tally, peek_control
from .lines import read_blocks
from .runs import Run, blocks_of, read_runs
from .segments import Log, Segment, parse_segment
from .succession import peek_open
from .walk import Finding, Walk


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """finding: the first. segments: the file it is in and all behind it. sound: bytes of that file before it. behind:
    where the chain stands there, `durable` with it; log: its id. had: what is sound in each file. beginning: what would
    declare that the log begins where it does, None where it begins with seq 1; pruned: the beginnings that are declared
    in what is sound. twins: the compressed forms of those files that a crash left beside them.

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
    beginning: Pruned | None = None
    pruned: frozenset[int] = frozenset()
    twins: tuple[Path, ...] = ()
    unsealed: Diagnosis | None = None

    @property
    def sealed(self) -> bool:
        return self.unsealed is not None


def diagnose(log: Log) -> Diagnosis | None:
    """None: there is no damage. Raises JournalRefused: nothing of it is a journal, or only its beginning is gone, and
    nothing can mend that."""
    segments, name = _in_order(log)
    findings: list[Finding] = []
    walk = Walk(findings.append, log=name)
    befores, had, sound = list[_Before](), list[Run](), 0
    for segment in segments:
        befores.append(_Before(walk.head, walk.durable, walk.log, walk.pruned))
        _feed(walk, segment)
        if findings:
            sound = walk.sound_end
        elif segment.first is None and segment != segments[-1]:
            # Everything from it on is written anew at its name, so it counts as the first that is damaged.
            reason = f"the live file begins with seq {walk.file_first}, and others follow it"
            findings.append(Finding("sequence", segment.name, 1, 0, walk.file_first, reason))
        if findings and not walk.lines and not name:
            raise JournalRefused(str(segment.path), "nothing in it is a line of a journal")
        if findings:
            break
        had.append(_run(segment, walk))
    index = len(had)
    for later in segments[index + 1 :]:
        _feed(walk, later)  # how far it was durable decides what the damage is called
    if not findings:
        walk.finish()  # tells of files that are missing and not declared pruned
        if not findings:
            return None
        index = [segment.name for segment in segments].index(findings[0].file)
        if index == 0:
            raise JournalRefused(str(log.live), f"{findings[0].reason}, undeclared: nothing that is there can mend it")
    broken, before = segments[index:], befores[index]
    start = Diagnosis(
        findings[0].judged(walk.durable),
        broken,
        0,
        before.head,
        before.durable,
        before.log,
        tuple(had[:index]),
        _beginning(segments[0]) if index else None,
        before.pruned,
        _twins(log, broken),
    )
    if index == 0 and any(gone.seq == 1 for _, _, gone in walk.undeclared):
        return start  # all of it anew, with a Gap in front
    return _behind(start, segments, sound) if sound else start


class _Before(NamedTuple):
    """What is known before a file."""

    head: Head
    durable: int
    log: str
    pruned: frozenset[int]


def _behind(start: Diagnosis, segments: Sequence[Segment], sound: int) -> Diagnosis:
    """The same damage, of a file that is sound up to there."""
    segment, last = start.segments[0], b""
    for block in blocks_of(segment, 0, sound):
        last = block.lines[-1]
    found = _cut_at(start, segments, sound)
    if not isinstance(peek_control(last), Seal):
        return found
    unsealed = _cut_at(start, segments, sound - len(last) - 1)
    if not any(other.first is not None for other in start.segments[1:]):
        return unsealed  # no writer opens a log whose newest finished file is damaged, so none could say what was cut
    findings: list[Finding] = []
    walk, had = Walk(findings.append, log=start.log), list[Run]()
    for other in segments:
        _feed(walk, other, sound if other == segment else None)
        had.append(_run(other, walk))
    walk.finish()
    if findings:
        return unsealed
    twins = tuple(path for path in start.twins if parse_segment(path) == parse_segment(segment.path))
    return replace(found, segments=(segment,), had=tuple(had), twins=twins, unsealed=unsealed)


def _cut_at(start: Diagnosis, segments: Sequence[Segment], sound: int) -> Diagnosis:
    walk = Walk(lambda _: None, whole=False)
    walk.begin(start.segments[0].name, None)
    for block in blocks_of(start.segments[0], 0, sound):
        walk.feed(block)
    return replace(
        start,
        sound=sound,
        behind=walk.head,
        durable=walk.durable,
        log=walk.log,
        had=(*start.had, _run(start.segments[0], walk)),
        beginning=_beginning(segments[0]),
        pruned=start.pruned | walk.pruned,
    )


def _run(segment: Segment, walk: Walk) -> Run:
    """The sound part of the file that was walked last."""
    return Run(segment, 0, walk.file_first, end=walk.sound_end, last=walk.head)


def _beginning(segment: Segment) -> Pruned | None:
    opened = peek_open(segment)
    return Pruned(1, opened.first, opened.previous, Tally()) if opened is not None and opened.first > 1 else None


# ── the order of the files ───────────────────────────────────────────────────────────────────────────────────────────


def _in_order(log: Log) -> tuple[tuple[Segment, ...], str]:
    """The files as they follow each other, whatever their names, and the id of their log: the one most of them tell.

    A file of another log, or one that does not say where it begins, stands where its name says.
    """
    begun = {segment: _begins(segment) for segment in log.segments}
    votes = Counter[str]()
    for begins in reversed(begun.values()):
        if begins is not None:
            votes[begins.log] += 1 + begins.joined
    name = votes.most_common(1)[0][0] if votes else ""
    own = {segment: begins.seq for segment, begins in begun.items() if begins is not None and begins.log == name}
    finished = {seq for segment, seq in own.items() if segment.first is not None}

    def place(segment: Segment) -> tuple[bool, int]:
        seq = own.get(segment)
        if seq is None or (segment.first is None and seq in finished):
            return segment.first is None, segment.first or 0
        return False, seq

    return tuple(sorted(log.segments, key=place)), name


class _Begins(NamedTuple):
    """What a file says of its beginning. seq: of the first line in it that the next one joins. joined: that is the open
    record; else it was perhaps put there, or what follows it was changed."""

    log: str
    seq: int
    joined: bool


def _begins(segment: Segment) -> _Begins | None:
    try:
        runs = list(read_runs(segment, itertools.islice(blocks_of(segment, 0), 1)))
    except (OSError, EOFError, ValueError):
        return None
    opened = next((run for run in runs if run.proved), None)
    longer = next((run for run in runs if run.last.seq > run.first), opened)
    if longer is None or (opened is None and not longer.log):
        return None
    if longer.proved or opened is None:
        return _Begins(longer.log, longer.first, longer.proved)
    return _Begins(opened.log, longer.first, joined=False)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _twins(log: Log, segments: Sequence[Segment]) -> tuple[Path, ...]:
    firsts = {segment.first for segment in segments}
    return tuple(path for path in log.stale if (parsed := parse_segment(path)) is not None and parsed[1] in firsts)


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
