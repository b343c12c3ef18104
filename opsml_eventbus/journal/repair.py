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
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

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
from .recovery import keep_aside, recover
from .segments import Log, Segment, check_name, list_log, open_regular, parse_segment
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
        damage = _find(list_log(live))
        if damage is None:
            return Repair()
        done = _Mending(live, damage, clock).run()
    except OSError as error:
        raise JournalFailed(str(live), f"repair: {error.strerror}; nothing was replaced") from error
    finally:
        lock.release()
    recover(live)
    return done


@dataclass(frozen=True, slots=True)
class _Damage:
    """finding: the first. segments: the file it is in and all behind it. sound: bytes of that file before it.
    behind: where the chain stands there, `durable` with it; log: its id. beginning: seq and chain value of a beginning
    that no sound line declares any more."""

    finding: Finding
    segments: tuple[Segment, ...]
    sound: int
    behind: Head
    durable: int
    log: str
    beginning: tuple[tuple[int, bytes], ...] = ()


def _find(log: Log) -> _Damage | None:
    findings: list[Finding] = []
    walk = Walk(findings.append)
    befores = []
    for index, segment in enumerate(log.segments):
        before = (walk.head, walk.durable, walk.log)
        befores.append(before)
        _feed(walk, segment)
        if findings and not walk.lines and not walk.log:
            raise JournalRefused(str(segment.path), "nothing in it is a line of a journal")
        if findings:
            sound = walk.sound_end
            if sound:
                before = _sound_part(segment, sound)
            for later in log.segments[index + 1 :]:
                _feed(walk, later)
            # What declared a beginning may be among what is damaged.
            beginning = [(first, chain) for first, chain, gone in walk.undeclared if gone.seq == 1]
            return _Damage(findings[0].judged(walk.durable), log.segments[index:], sound, *before, tuple(beginning))
    walk.finish()  # tells of files that are missing and not declared pruned
    if not findings:
        return None
    index = [segment.name for segment in log.segments].index(findings[0].file)
    if index == 0:
        raise JournalRefused(str(log.live), f"{findings[0].reason}, undeclared: nothing that is there can mend it")
    return _Damage(findings[0], log.segments[index:], 0, *befores[index])


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


def _sound_part(segment: Segment, sound: int) -> tuple[Head, int, str]:
    walk = Walk(lambda _: None, whole=False)
    walk.begin(segment.name, None)
    for block in _blocks(segment, 0, sound):
        walk.feed(block)
    return walk.head, walk.durable, walk.log


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

    def run(self) -> Repair:
        damage, live = self.damage, self.live
        kept = tuple(self._keep(segment.path) for segment in damage.segments)
        counted = _Salvage(damage, self.clock())
        for _ in counted:
            pass
        temporary = live.with_name(live.name + REPAIR_SUFFIX)
        temporary.unlink(missing_ok=True)
        descriptor = open_file(temporary, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        try:
            self._write(descriptor, counted, kept)
            sync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(live)
        sync_folder(live.parent)
        _remove_superseded(live)
        return Repair(damage.finding, kept, counted.cut, counted.salvaged, counted.lost, counted.left)

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
        if damage.sound:
            for block in _blocks(damage.segments[0], 0, damage.sound):
                write_all(descriptor, block.data + b"\n")
                last = block.lines[-1]
            if isinstance(_control(last), Seal):
                # A finished file goes on: its seal counted what it held, which is still true of what stands before it.
                raise JournalRefused(str(self.live), "damage behind a seal: remove what follows it, the copy has it")
        else:
            opened = open_record(damage.log or new_id(now), head, "always", None)
            lines.append(control_line(opened, now))
        for piece, copy in zip(counted.pieces, kept, strict=True):
            lines.append(control_line(piece.record(copy), now))
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
    copies = {segment.path: _copies(segment.path) for segment in list_log(live).sealed}
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
