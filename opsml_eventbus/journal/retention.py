"""Which finished files of a log have to go so that `keep` of them stay.

A folder is not believed: a file counts among those that stay only when it is one of this log, and begins where its
name says. With a key its seal has to be signed with it, too, and to stand right before the next file: as many files as
this key has sealed can be made to count, and no more, whatever somebody without it puts there.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

from .format import Open, Pruned, Seal, Tally, peek_control, read_place
from .segments import Segment, last_line, list_log
from .sign import Signer
from .succession import peek_open


class Going(NamedTuple):
    """A file that has to go, and the record that says so first."""

    segment: Segment
    record: Pruned


class Retention:
    """live: of a log whose id is `log`. Used by one thread; remembers what counted, so that no file is read twice."""

    def __init__(self, live: Path, keep: int, log: str, signer: Signer | None) -> None:
        self._live = live
        self._keep = keep
        self._log = log
        self._signer = signer
        self._sealed: set[int] = set()  # the seqs that stand behind files which are sealed with the key

    def going(self) -> list[Going]:
        """The oldest ones, in their order: whatever stands before as many files as stay.

        Raises ValueError: among them is one that is none of this log, or nothing says what would be missing then.
        """
        files = list_log(self._live).segments
        if not files or files[-1].first is not None:
            return []  # somebody has taken the live file away, and the writer says so
        following, counted, oldest = self._beginning(files[-1]).first, 0, len(files) - 1
        while oldest > 0 and counted < self._keep:
            oldest -= 1
            if (opened := self._opened(files[oldest])) is not None:
                counted += self._counts(files[oldest], following)
                following = opened.first
        going = []
        for segment, behind in itertools.pairwise(files[: oldest + 1]):
            self._beginning(segment)  # what is none of this log is nobody's to remove
            begun = self._beginning(behind)
            record = Pruned(segment.first or 0, begun.first, begun.previous, begun.sealed or Tally())
            going.append(Going(segment, record))
        return going

    def _counts(self, segment: Segment, following: int) -> bool:
        if self._signer is None or following in self._sealed:
            return True
        try:
            line = last_line(segment)
        except (OSError, EOFError, ValueError):
            return False  # one more stays, and `verify` says what is wrong with it
        place = read_place(line)
        if place is None or place.seq != following - 1 or not isinstance(peek_control(line), Seal):
            return False
        if not self._signer.has_signed(self._log, line):
            return False
        self._sealed.add(following)
        return True

    def _beginning(self, segment: Segment) -> Open:
        if (opened := self._opened(segment)) is None:
            raise ValueError(
                f"{segment.name} is no file of this log that begins where its name says (see `eventbus verify`)"
            )
        return opened

    def _opened(self, segment: Segment) -> Open | None:
        """Its open record, when it is a file of this log and begins where its name says."""
        opened = peek_open(segment)
        ours = opened is not None and opened.log == self._log and segment.first in (None, opened.first)
        return opened if ours else None
