"""What of a log is damaged first, and what stands where: the look that a repair takes before it touches anything."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..errors import JournalRefused
from .format import CHAIN_BYTES, Head, Open, Seal, link, peek_control, read_place
from .lines import Block, read_blocks
from .segments import Log, Segment, parse_segment
from .succession import peek_open
from .walk import Finding, Walk


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """finding: the first. segments: the file it is in and all behind it. sound: bytes of that file before it, which
    are all of it when they are `sealed`. behind: where the chain stands there, `durable` with it; log: its id. had:
    first and last seq of what is sound in each file. beginning: seq and chain value of a beginning that no sound line
    declares any more. twins: the compressed forms of those files that a crash left beside them."""

    finding: Finding
    segments: tuple[Segment, ...]
    sound: int
    behind: Head
    durable: int
    log: str
    had: tuple[tuple[int, int], ...]
    beginning: tuple[tuple[int, bytes], ...] = ()
    sealed: bool = False
    twins: tuple[Path, ...] = ()


def diagnose(log: Log) -> Diagnosis | None:
    segments, name = _in_order(log)
    findings: list[Finding] = []
    walk = Walk(findings.append, log=name)
    befores = []
    had: list[tuple[int, int]] = []
    for index, segment in enumerate(segments):
        before = (walk.head, walk.durable, walk.log)
        befores.append(before)
        _feed(walk, segment)
        if segment.first is None and index < len(segments) - 1 and not findings:
            # Everything from it on is written anew at its name, so it counts as the first that is damaged.
            reason = f"the live file begins with seq {walk.file_first}, and others follow it"
            findings.append(Finding("sequence", segment.name, 1, 0, walk.file_first, reason))
            walk.sound_end = 0
        if findings and not walk.lines and not name:
            raise JournalRefused(str(segment.path), "nothing in it is a line of a journal")
        if findings:
            sound = walk.sound_end
            sealed = False
            if sound:
                before, sealed = _sound_part(segment, sound)
                had.append((walk.file_first, before[0].seq))
            for later in segments[index + 1 :]:
                _feed(walk, later)
            # What declared a beginning may be among what is damaged.
            beginning = [(first, chain) for first, chain, gone in walk.undeclared if gone.seq == 1]
            if sealed and beginning:
                # That has to be said in the log, so all of this file is written anew, not only what is behind its end.
                sound, sealed, before = 0, False, befores[index]
                had.pop()
            broken = segments[index : index + 1] if sealed else segments[index:]
            twins = _twins(log, broken)
            finding = findings[0].judged(walk.durable)
            return Diagnosis(finding, broken, sound, *before, tuple(had), tuple(beginning), sealed, twins)
        had.append((walk.file_first, walk.head.seq))
    walk.finish()  # tells of files that are missing and not declared pruned
    if not findings:
        return None
    index = [segment.name for segment in segments].index(findings[0].file)
    if index == 0:
        raise JournalRefused(str(log.live), f"{findings[0].reason}, undeclared: nothing that is there can mend it")
    broken = segments[index:]
    return Diagnosis(findings[0], broken, 0, *befores[index], tuple(had[:index]), twins=_twins(log, broken))


def _in_order(log: Log) -> tuple[tuple[Segment, ...], str]:
    """The files as they follow each other, whatever their names, and the id of their log: the one most of them tell.

    A file of another log, or one that does not say where it begins, stands where its name says.
    """
    opened = {segment: _begins(segment) for segment in log.segments}
    ids = Counter(record.log for record in reversed(opened.values()) if record is not None)
    name = ids.most_common(1)[0][0] if ids else ""

    finished = {record.first for segment, record in opened.items() if record is not None and segment.first is not None}

    def place(segment: Segment) -> tuple[bool, int]:
        record = opened[segment]
        if record is None or record.log != name or (segment.first is None and record.first in finished):
            return segment.first is None, segment.first or 0
        return False, record.first

    return tuple(sorted(log.segments, key=place)), name


def _begins(segment: Segment) -> Open | None:
    """Its open record, unless the line behind that does not join it: then it was put there."""
    if (opened := peek_open(segment)) is None:
        return None
    lines = list(itertools.islice((line for block in blocks_of(segment, 0) for line in block.lines), 2))
    first, second = [*map(read_place, lines), None, None][:2]
    if first is None or second is None or link(first.chain, lines[1][:-CHAIN_BYTES]) == second.chain:
        return opened
    return None


def _twins(log: Log, segments: Sequence[Segment]) -> tuple[Path, ...]:
    firsts = {segment.first for segment in segments}
    return tuple(path for path in log.stale if (parsed := parse_segment(path)) is not None and parsed[1] in firsts)


def _feed(walk: Walk, segment: Segment) -> None:
    walk.begin(segment.name, segment.first)
    end, number = 0, 1
    try:
        with closing(segment.open()) as stream:
            for block in read_blocks(stream.read):
                walk.feed(block)
                end, number = block.end, block.number + block.height
        walk.end()
    except (OSError, EOFError, ValueError) as error:
        walk.unreadable(end, number, str(error))


def _sound_part(segment: Segment, sound: int) -> tuple[tuple[Head, int, str], bool]:
    """Where the chain stands behind it, how far that is durable and whose it is; and does it end with a seal?"""
    walk, last = Walk(lambda _: None, whole=False), b""
    walk.begin(segment.name, None)
    for block in blocks_of(segment, 0, sound):
        walk.feed(block)
        last = block.lines[-1]
    return (walk.head, walk.durable, walk.log), isinstance(peek_control(last), Seal)


def blocks_of(segment: Segment, start: int, end: int | None = None) -> Iterator[Block]:
    """The blocks of a part of a file, as far as it can be read. (A compressed one is read from its beginning.)"""
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        size = size if end is None else min(size, end - position)
        try:
            data = stream.read(size) if size > 0 else b""
        except (OSError, EOFError, ValueError):
            return b""  # what lies behind is in the copy
        position += len(data)
        return data

    with closing(segment.open()) as stream:
        while position < start and read(min(1 << 20, start - position)):
            pass
        yield from read_blocks(read, start)
