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
    Open,
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
        chain: bytes | None = self._found.behind.chain  # of the last line that was of this log and new to it
        foreign = False  # another log's file stands where nothing has shown yet that none of ours is missing
        for segment in self._found.segments:
            ours, new, ended = True, 0, False
            piece = Piece(start)
            self.pieces.append(piece)
            before = chain  # of the line before, in this file
            for block in blocks_of(segment, start):
                piece.bytes += block.end - block.offset
                piece.digest.update(block.data + (b"\n" if block.whole else b""))
                for line in block.lines:
                    place = read_place(line) if block.whole and b"\0" not in line else None
                    if place is None:
                        chain = before = None
                        self.lost += 1
                        continue
                    control = peek_control(line)
                    if isinstance(control, Open):
                        before = read_chain(control.previous)
                        self._log = self._log or control.log
                        ours = control.log == self._log
                        foreign |= not ours
                        if ours and control.first not in self._had:
                            foreign = False
                            self.lost += chain not in (None, before)  # a file is missing before this one
                    ended |= isinstance(control, Seal)
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
