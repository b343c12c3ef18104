"""Mending what recovery refuses: damage before a durable record, or a torn file written with `fsync=never`.

A repair never guesses and never works without a copy. It keeps every file it replaces (`*.damaged-<time>`), keeps the
log as far as it is sound, says in a `recovered` record what was cut and where it was kept, puts a Gap where events are
lost, and writes those that are still whole behind the damage anew, in their order, with new places. A line whose bytes
are not those that were chained is not whole: it stays in the copy. So does what is another log's, and what stood in
this one already (a file that was copied under another name).

The repaired log verifies. A head from behind the damage that was kept elsewhere no longer matches, as it should.
"""

from __future__ import annotations

import filecmp
import itertools
import os
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import msgspec

from ..codec import decode_line, encode_line, strip_place
from ..errors import InvalidEvent, JournalFailed, JournalRefused
from ..event import Gap, new_id
from .disk import Lock, open_file, sync, sync_folder, write_all
from .format import (
    CHAIN_BYTES,
    Head,
    Open,
    Pruned,
    Recovered,
    Seal,
    Tally,
    control_line,
    is_control,
    link,
    read_chain,
    read_control,
    read_place,
    write_lines,
)
from .lines import Block, read_blocks
from .live import open_record
from .recovery import keep_aside, open_live
from .segments import COMPRESSIONS, Log, Segment, check_name, list_log, open_regular, parse_segment, segment_path
from .succession import peek_open
from .walk import Finding, Walk

REPAIR_SUFFIX = ".repairing"
_LINES = 1024  # written at once


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done. finding: the first damage, None when there was nothing to mend. kept: copies of what was replaced.
    cut: bytes behind the damage; salvaged: events and Gaps among them that were written anew; lost: pieces among them
    that are not whole; left: events that are another log's, or stood in this one already."""

    finding: Finding | None = None
    kept: tuple[Path, ...] = ()
    cut: int = 0
    salvaged: int = 0
    lost: int = 0
    left: int = 0

    def and_then(self, more: Repair) -> Repair:
        return Repair(
            self.finding or more.finding,
            self.kept + more.kept,
            self.cut + more.cut,
            self.salvaged + more.salvaged,
            self.lost + more.lost,
            self.left + more.left,
        )


def find_damage(path: str | Path) -> Finding | None:
    """The first thing a repair would mend, None when there is nothing. Changes nothing."""
    check_name(Path(path))
    damage = _find(list_log(Path(path)))
    return None if damage is None else damage.finding


def repair(path: str | Path, *, clock: Callable[[], int] = time.time_ns) -> Repair:
    """Mend the log at the live path `path`.

    Raises FileNotFoundError, JournalBusy; JournalRefused: nothing of it is a journal; JournalFailed: no room for the
    copies, and then nothing was replaced.
    """
    live = Path(path)
    if parse_segment(live) is not None:
        raise JournalRefused(str(live), "a finished file is repaired through its log's live path")
    check_name(live)
    if not list_log(live).segments:
        raise FileNotFoundError(2, "no such file", str(live))
    lock = Lock(live)
    try:
        _remove_superseded(live)
        done, cut = Repair(), list[Recovered]()
        # What follows a file that was only shortened may be damaged too.
        for _ in range(len(list_log(live).segments) + 1):
            damage = _find(list_log(live))
            if damage is None:
                break
            more, records = _Mending(live, damage, clock).run()
            done, cut = done.and_then(more), cut + records
    except OSError as error:
        name = Path(error.filename or live).name
        raise JournalFailed(str(live), f"repair: {name}: {error.strerror}") from error
    else:
        if done.finding is not None:
            _leave(live, cut)
    finally:
        lock.release()
    return done


def _leave(live: Path, cut: Sequence[Recovered]) -> None:
    """In good order: fit to be written again, and with a record of what was cut outside the live file."""
    file, _ = open_live(live, "always")
    try:
        for record in cut:
            file.record(record)
        if not file.state.settled:
            file.checkpoint()
    finally:
        file.close()


@dataclass(frozen=True, slots=True)
class _Damage:
    """finding: the first. segments: the file it is in and all behind it. sound: bytes of that file before it, which
    are all of it when they are `sealed`. behind: where the chain stands there, `durable` with it; log: its id.
    beginning: seq and chain value of a beginning that no sound line declares any more. twins: the compressed forms of
    those files that a crash left beside them."""

    finding: Finding
    segments: tuple[Segment, ...]
    sound: int
    behind: Head
    durable: int
    log: str
    beginning: tuple[tuple[int, bytes], ...] = ()
    sealed: bool = False
    twins: tuple[Path, ...] = ()


def _find(log: Log) -> _Damage | None:
    segments, name = _in_order(log)
    findings: list[Finding] = []
    walk = Walk(findings.append, log=name)
    befores = []
    for index, segment in enumerate(segments):
        before = (walk.head, walk.durable, walk.log)
        befores.append(before)
        _feed(walk, segment)
        if findings and not walk.lines and not name:
            raise JournalRefused(str(segment.path), "nothing in it is a line of a journal")
        if findings:
            sound = walk.sound_end
            sealed = False
            if sound:
                before, sealed = _sound_part(segment, sound)
            for later in segments[index + 1 :]:
                _feed(walk, later)
            # What declared a beginning may be among what is damaged.
            beginning = [(first, chain) for first, chain, gone in walk.undeclared if gone.seq == 1]
            broken = segments[index : index + 1] if sealed else segments[index:]
            twins = _twins(log, broken)
            finding = findings[0].judged(walk.durable)
            return _Damage(finding, broken, sound, *before, tuple(beginning), sealed, twins)
    walk.finish()  # tells of files that are missing and not declared pruned
    if not findings:
        return None
    index = [segment.name for segment in segments].index(findings[0].file)
    if index == 0:
        raise JournalRefused(str(log.live), f"{findings[0].reason}, undeclared: nothing that is there can mend it")
    return _Damage(findings[0], segments[index:], 0, *befores[index], twins=_twins(log, segments[index:]))


def _in_order(log: Log) -> tuple[tuple[Segment, ...], str]:
    """The files as they follow each other, whatever their names, and the id of their log: the one most of them tell.

    A file of another log, or one that does not say where it begins, stands where its name says.
    """
    opened = {segment: peek_open(segment) for segment in log.segments}
    ids = Counter(record.log for record in reversed(opened.values()) if record is not None)
    name = ids.most_common(1)[0][0] if ids else ""

    def place(segment: Segment) -> tuple[bool, int]:
        record = opened[segment]
        own = record is not None and record.log == name
        return segment.first is None, record.first if own and record is not None else segment.first or 0

    return tuple(sorted(log.segments, key=place)), name


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
    for block in _blocks(segment, 0, sound):
        walk.feed(block)
        last = block.lines[-1]
    return (walk.head, walk.durable, walk.log), isinstance(_control(last), Seal)


def _blocks(segment: Segment, start: int, end: int | None = None) -> Iterator[Block]:
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


class _Salvage:
    """The events behind the damage that are whole, of this log, and not in it already. After it ran: how much there
    was."""

    def __init__(self, damage: _Damage, now: int) -> None:
        self._damage = damage
        self._now = now
        self._log = damage.log
        self._had = _Seqs(damage.behind.seq)
        self.pieces: list[_Piece] = []
        self.lost = 0
        self.left = 0

    @property
    def cut(self) -> int:
        return sum(piece.bytes for piece in self.pieces)

    @property
    def salvaged(self) -> int:
        return sum(piece.salvaged for piece in self.pieces)

    def __iter__(self) -> Iterator[bytes]:
        start = self._damage.sound
        chain: bytes | None = self._damage.behind.chain  # of the last line that was of this log and new to it
        for segment in self._damage.segments:
            ours, new = True, 0
            piece = _Piece(start)
            self.pieces.append(piece)
            before = chain  # of the line before, in this file
            for block in _blocks(segment, start):
                piece.bytes += block.end - block.offset
                piece.digest.update(block.data + (b"\n" if block.whole else b""))
                for line in block.lines:
                    place = read_place(line) if block.whole and b"\0" not in line else None
                    if place is None:
                        chain = before = None
                        self.lost += 1
                        continue
                    control = _control(line)
                    if isinstance(control, Open):
                        before = read_chain(control.previous)
                        self._log = self._log or control.log
                        ours = control.log == self._log
                        if ours and control.first not in self._had:
                            self.lost += chain not in (None, before)  # a file is missing before this one
                    # Behind what cannot be read nothing says what the chain was: a whole line is taken at its word.
                    joins = before is None or link(before, line[:-CHAIN_BYTES]) == place.chain
                    before = place.chain
                    if not ours or (joins and place.seq in self._had):
                        self.left += not is_control(line)
                        continue
                    chain, new = place.chain, new + 1
                    if joins:
                        self._had.add(place.seq)
                    if is_control(line):
                        if joins and isinstance(control, Pruned | Recovered):  # what they say of the log is still true
                            yield control_line(control, self._now)
                        continue
                    event = _whole(line) if joins else None
                    if event is None:
                        self.lost += 1
                    else:
                        piece.salvaged += 1
                        yield event
            # Something else stands where the log was being written: what stood there is not known.
            self.lost += segment.first is None and start == 0 and new == 0
            start = 0


class _Piece:
    """What was cut of one file, from the byte `offset` on."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.bytes = self.salvaged = 0
        self.digest = sha256()

    def record(self, kept: Path) -> Recovered:
        return Recovered(self.bytes, self.offset, kept.name, self.digest.hexdigest(), self.salvaged)


class _Seqs:
    """Seqs that were met, as runs: they mostly follow each other."""

    def __init__(self, through: int) -> None:
        self._firsts, self._lasts = [0], [through]

    def __contains__(self, seq: int) -> bool:
        return seq <= self._lasts[bisect_right(self._firsts, seq) - 1]

    def add(self, seq: int) -> None:
        """A seq that is not among them."""
        index = bisect_right(self._firsts, seq)
        if self._lasts[index - 1] == seq - 1:
            self._lasts[index - 1] = seq
        else:
            self._firsts.insert(index, seq)
            self._lasts.insert(index, seq)


def _control(line: bytes) -> object:
    try:
        return read_control(line)
    except InvalidEvent:
        return None


def _whole(line: bytes) -> bytes | None:
    try:
        return encode_line(decode_line(strip_place(line)))
    except InvalidEvent:
        return None


class _Mending:
    def __init__(self, live: Path, damage: _Damage, clock: Callable[[], int]) -> None:
        self.live = live
        self.damage = damage
        self.clock = clock

    def run(self) -> tuple[Repair, list[Recovered]]:
        """What was done, and the records of it that are in no file yet."""
        damage = self.damage
        kept = tuple(self._keep(path) for path in (*(segment.path for segment in damage.segments), *damage.twins))
        counted = _Salvage(damage, self.clock())
        for _ in counted:
            pass
        counted.lost += len(damage.beginning)  # who declared it is not known; perhaps nobody
        done = Repair(damage.finding, kept, counted.cut, counted.salvaged, counted.lost, counted.left)
        if damage.sealed:
            # A finished file and something behind its end: all of it that is of the log is before that.
            return self._shorten(done, counted.pieces[0].record(kept[0]))
        self._replace(self.live, lambda descriptor: self._write(descriptor, counted, kept))
        _remove_superseded(self.live)
        return done, []

    def _shorten(self, done: Repair, record: Recovered) -> tuple[Repair, list[Recovered]]:
        """Cut a finished file behind its seal; a compressed one becomes plain."""
        (segment,) = self.damage.segments
        self._replace(self.live if segment.first is None else segment_path(self.live, segment.first), self._write_sound)
        for path in (segment.path, *self.damage.twins):
            if path.suffix in COMPRESSIONS.values():
                path.unlink()
        sync_folder(self.live.parent)
        left = done.left + done.salvaged
        return replace(done, salvaged=0, lost=0, left=left), [msgspec.structs.replace(record, salvaged=0)]

    def _replace(self, path: Path, write: Callable[[int], None]) -> None:
        temporary = self.live.with_name(self.live.name + REPAIR_SUFFIX)
        temporary.unlink(missing_ok=True)
        descriptor = open_file(temporary, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        try:
            write(descriptor)
            sync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
        sync_folder(path.parent)

    def _write_sound(self, descriptor: int) -> None:
        for block in _blocks(self.damage.segments[0], 0, self.damage.sound):
            write_all(descriptor, block.data + b"\n")

    def _keep(self, path: Path) -> Path:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size

            def read(offset: int, count: int) -> bytes:
                return os.pread(stream.fileno(), count, offset)

            return keep_aside(path, "damaged", read, 0, size, pending="")

    def _write(self, descriptor: int, counted: _Salvage, kept: Sequence[Path]) -> None:
        damage = self.damage
        head, now = damage.behind, self.clock()
        lines: list[bytes] = []
        self._write_sound(descriptor)
        if not damage.sound:
            opened = open_record(damage.log or new_id(now), head, "always", None)
            lines.append(control_line(opened, now))
        for piece, copy in zip(counted.pieces, kept, strict=False):
            lines.append(control_line(piece.record(copy), now))
        for copy in kept[len(counted.pieces) :]:
            data = copy.read_bytes()
            lines.append(control_line(Recovered(len(data), 0, copy.name, sha256(data).hexdigest()), now))
        for first, chain in damage.beginning:
            lines.append(control_line(Pruned(1, first, chain.hex(), Tally()), now))
        if counted.lost:
            lines.append(encode_line(Gap.new(None, None, "invalid")))
        for more in itertools.chain((lines,), _batches(_Salvage(damage, now))):
            head, data = write_lines(head, damage.durable, more)
            write_all(descriptor, data)


def _batches(lines: _Salvage) -> Iterator[list[bytes]]:
    source = iter(lines)
    while batch := list(itertools.islice(source, _LINES)):
        yield batch


def _remove_superseded(live: Path) -> None:
    """Finished files that a repair has taken into the live file, which names the copy of each."""
    log = list_log(live)
    copies = {path: _copies(path) for path in (*(segment.path for segment in log.sealed), *log.stale)}
    named = _named(live) if any(copies.values()) else set()
    superseded = [path for path, names in copies.items() if names & named]
    for path in superseded:
        path.unlink()
    if superseded:
        sync_folder(live.parent)


def _copies(path: Path) -> set[str]:
    """The names of equal copies that repairs have made of a file."""
    names = os.listdir(path.parent)  # noqa: PTH208 - a name may look like a pattern
    mine = [name for name in names if name.startswith(f"{path.name}.damaged-")]
    return {name for name in mine if filecmp.cmp(path, path.with_name(name), shallow=False)}


def _named(live: Path) -> set[str]:
    """The copies that the live file says were made."""
    if not live.exists():
        return set()
    blocks = _blocks(Segment(live, None), 0)
    controls = [_control(line) for block in blocks for line in block.lines if is_control(line)]
    return {control.kept for control in controls if isinstance(control, Recovered)}
