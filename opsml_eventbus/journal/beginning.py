"""Where reading a log begins when not all of it is wanted: the first file that can hold it, and a byte in that file.

What is passed over is not read, so what is relied on is little: names, open records that join, and places before the
wanted one. Where these say something odd, more is read.
"""

from __future__ import annotations

import itertools
from contextlib import closing, suppress

from .files import PlainFile, open_segment
from .format import Open, format_bound, read_chain
from .seek import begin_of_line, offset_behind, offset_of_time
from .segments import Log, Segment
from .succession import peek_open


def last_unwanted(log: Log, seq: int, since: int | None) -> int:
    """The name of the last finished file in which nothing is wanted: no line from `seq` on, or of `since` (ns)."""
    behind, before = -1, None
    for segment, following in itertools.pairwise(log.segments):
        # A name says where a file begins; the live one has to be opened for it.
        opened = peek_open(following) if following.first is None or since is not None else None
        first = following.first or (0 if opened is None else opened.first)
        name = segment.first or 0
        if opened is not None:
            before = before or peek_open(segment)
            if before is None or before.log != opened.log or not name == before.first < first == opened.first:
                break  # no file that joins: what it says of the one before is not to be trusted
        skipped = since is not None and opened is not None and _is_before(segment, opened, since)
        # (No line has the number 0: what such a name promises cannot be relied on.)
        if (first == 0 or name == 0 or first > seq) and not skipped:
            break
        behind, before = name, opened
    return behind


def _is_before(segment: Segment, following: Open, since: int) -> bool:
    """Has the file no event of `since` or later, by what the open record behind it says?"""
    if following.sealed is None or following.sealed.reaches(since):
        return False
    if segment.packed:
        return True  # taken at its word: a look at the end of a compressed file costs all of it
    # It speaks of the file whose last line it joins; that one may be gone, and this the one before.
    with suppress(OSError), closing(open_segment(segment)) as file:
        place = file.place_of(following.first - 1)
        return place is not None and place.chain == read_chain(following.previous)
    return False


def offset_before(file: PlainFile, seq: int, since: int | None) -> int:
    """A byte of the file before what is wanted, at the beginning of a line: `seq`, or what is of `since` (ns)."""
    offset = 0
    if seq > 1:
        offset = offset_behind(file.descriptor, seq - 1)
        before = file.place_before(offset)
        if before is not None and file.ends_at(offset):
            offset = begin_of_line(file.descriptor, offset)  # its last line tells whether it is finished
        elif before is not None and before.seq != seq - 1:
            offset = 0  # a seq is missing or wrong: who reads it all is told what
    if since is not None:
        offset = max(offset, offset_of_time(file.descriptor, format_bound(since)))
    return offset
