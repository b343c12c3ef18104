"""What is still whole behind the damage of a log: its events, in their order, and how much of it is not."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from ..codec import decode_line, encode_line, strip_place
from ..errors import InvalidEvent
from .diagnosis import Diagnosis, blocks_of
from .format import (
    CHAIN_BYTES,
    Head,
    Open,
    Place,
    Pruned,
    Recovered,
    Seal,
    control_line,
    is_control,
    link,
    peek_control,
    read_chain,
    read_place,
)
from .segments import Segment


class Salvage:
    """The events behind the damage that are whole, of this log, and not in it already. After it ran: how much there
    was."""

    def __init__(self, found: Diagnosis, now: int) -> None:
        self._found = found
        self._now = now
        self._log = found.log
        self._had = _Seqs(found.had)
        self.pieces: list[Piece] = []
        self.lost = 0
        self.left = 0

    @property
    def cut(self) -> int:
        return sum(piece.bytes for piece in self.pieces)

    @property
    def salvaged(self) -> int:
        return sum(piece.salvaged for piece in self.pieces)

    def __iter__(self) -> Iterator[bytes]:
        start = self._found.sound
        held = self._found.behind  # the last line that was of this log and new to it
        chain: bytes | None = held.chain  # the same, None when something that cannot be read stood behind it
        foreign = False  # another log's file stands where nothing has shown yet that none of ours is missing
        for segment in self._found.segments:
            ours, new, ended, at_start = True, 0, False, start == 0
            piece = Piece(start)
            self.pieces.append(piece)
            before = chain  # of the line before, in this file
            for line, place, followed in _lines(segment, start, piece):
                first, at_start = at_start, False
                if place is None:
                    chain = before = None
                    self.lost += 1
                    continue
                control = peek_control(line)
                # One inside a file, or one that the next line does not join, was put there.
                if isinstance(control, Open) and first and followed:
                    before = read_chain(control.previous)
                    self._log = self._log or control.log
                    ours = control.log == self._log
                    foreign |= not ours
                    if ours and control.first not in self._had:
                        foreign = False
                        self.lost += chain not in (None, before)  # a file is missing before this one
                ended |= isinstance(control, Seal)
                joins = _joins(line, place, before, held, followed=followed)
                before = place.chain
                if not ours or (joins and place.seq in self._had):
                    self.left += not is_control(line)
                    continue
                chain, new = place.chain, new + 1
                if joins:
                    held = Head(place.seq, place.chain)
                    self._had.add(place.seq)
                if is_control(line):
                    self.lost += not joins  # what stood before it is not there
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
            self.lost += start == 0 and new == 0 and segment.first is None
            self.lost += ours and not ended and segment.first is not None  # its end is gone
            start = 0
        self.lost += foreign


def _lines(segment: Segment, start: int, piece: Piece) -> Iterator[tuple[bytes, Place | None, bool]]:
    """Each line of a file, its place if it has one, and whether the next one joins it, or cannot tell."""
    last: tuple[bytes, Place | None] | None = None
    for block in blocks_of(segment, start):
        piece.bytes += block.end - block.offset
        piece.digest.update(block.data + (b"\n" if block.whole else b""))
        for line in block.lines:
            place = read_place(line) if block.whole and b"\0" not in line else None
            if last is not None:
                yield *last, last[1] is None or place is None or link(last[1].chain, line[:-CHAIN_BYTES]) == place.chain
            last = line, place
    if last is not None:
        yield *last, True


def _joins(line: bytes, place: Place, before: bytes | None, held: Head, *, followed: bool) -> bool:
    """Is this the line that was chained? before: the chain value of the line that stands before it, None where that
    cannot be read. held: the last line that was ours, with perhaps something foreign between. followed: by a line that
    says nothing against it."""
    body = line[:-CHAIN_BYTES]
    if before is not None and link(before, body) == place.chain:
        return True
    if place.seq == held.seq + 1:
        return link(held.chain, body) == place.chain
    # Behind what cannot be read nothing says what the chain was: a whole line is taken at its word, unless the next
    # one contradicts it.
    return before is None and place.seq > held.seq and followed


class Piece:
    """What was cut of one file, from the byte `offset` on."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.bytes = self.salvaged = 0
        self.digest = sha256()

    def record(self, kept: Path) -> Recovered:
        return Recovered(self.bytes, self.offset, kept.name, self.digest.hexdigest(), self.salvaged)


class _Seqs:
    """Seqs that were met, as runs: they mostly follow each other."""

    def __init__(self, had: Sequence[tuple[int, int]]) -> None:
        self._firsts, self._lasts = [0, *(first for first, _ in had)], [0, *(last for _, last in had)]

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


def _whole(line: bytes) -> bytes | None:
    try:
        return encode_line(decode_line(strip_place(line)))
    except InvalidEvent:
        return None
