"""Reading a log in order, its files as one, live across rotation, compression and removal of old files. Readers never
write, and never check the chain: that is `verify`'s. They look at it where one file joins another, to notice that the
log was cut or repaired under them; then all of it comes again, and that is told.

What is not a sound line comes as a `Damage` in its place, and reading goes on behind it. A line that is missing is
noticed, because every line says its seq. What the writer undid (a batch that was refused after readers had seen it) is
noticed too, and what was written in its stead is read.
"""

from __future__ import annotations

import re
import time
from binascii import unhexlify
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from ..codec import MAX_EVENT_BYTES
from .beginning import last_unwanted, offset_before
from .files import PackedFile, PlainFile, open_segment
from .format import (
    CONTROL_AT,
    CONTROL_MARK,
    PLACE_BYTES,
    Control,
    Head,
    Open,
    Place,
    Seal,
    is_control,
    peek_control,
    read_chain,
)
from .lines import Block, last_place, look_sound, place_in, strange
from .segments import Log, Segment, find_log, list_log
from .succession import NOT_THE_FILES, Succession, peek_open

NO_SEAL = "a finished file without its seal"
_GROWING_SECONDS = 0.25
_GROWING_STEP = 0.01


class Line(NamedTuple):
    """An event or a Gap. line: canonical, its place taken off. file: name; number: of the line in it, from 1.
    chain: its chain value, 64 hex digits."""

    seq: int
    line: bytes
    file: str
    number: int
    chain: bytes

    @property
    def head(self) -> Head:
        """Where the log stands behind it."""
        return Head(self.seq, unhexlify(self.chain))


class Damage(NamedTuple):
    """Something that is no sound line. seq: the first that should have stood here. missed: how many lines (control
    records too) are missing, None where that cannot be known. byte: in the decompressed file."""

    file: str
    number: int
    byte: int
    seq: int
    missed: int | None
    reason: str


@dataclass(slots=True)
class Portion:
    """Some of the log. passed: events that a sieve ruled out unread. end: nothing more is there now."""

    items: list[Line | Damage] = field(default_factory=list)
    passed: int = 0
    end: bool = False


class JournalReader:
    """A place in a log that moves forward. Not thread-safe; every call may block on the disk.

    path: the live path, a folder, or one segment. from_seq: begin with this line. behind: begin behind this one; where
    it is not there any more (a power cut or a refused batch took it, a repair changed it) the log is `cut`, and all of
    it comes behind a Damage that says so. since: begin where events of this time (ns) may be; everything from there on
    comes, earlier events among them.
    sieve: told the raw lines of a block at once; False says that nothing in them is wanted, and spares their splitting.
    Damage and Gaps come all the same.

    Raises FileNotFoundError; JournalRefused: a folder with several logs.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        from_seq: int = 1,
        behind: Head | None = None,
        since: int | None = None,
        sieve: Callable[[bytes], bool] | None = None,
    ) -> None:
        log = find_log(path)
        self._live = log.live
        self._files = Succession(log.live)
        self._log = ""  # its id, when an open record told it
        self._whole = log.whole
        self._sieve = sieve
        self._from_seq = max(1, from_seq if behind is None else behind.seq + 1)
        self._head = behind
        self._next = 0  # seq of the next line; 0 before the first
        self._finished = False  # the file being read, or read last, has ended
        self._sealed = False  # its seal was read
        self._file: PlainFile | PackedFile | None = None
        self.moved = False  # the live file was taken away under us, and nothing follows it
        self._torn = 0  # pieces of damage that were told since the last line: before the next one, lines are missing
        self._unjoined: set[Head] = set()  # lines behind which the log was begun with anew
        self._ahead = Portion()
        self._begin(log, since)
        self.cut = behind is not None and not self._follows(behind)
        if self.cut:
            self._ahead.items.append(self._begin_anew(log))

    @property
    def head(self) -> Head | None:
        """The last line that has been read; resume `behind` it. None where there is none yet."""
        return self._head

    @property
    def next_seq(self) -> int:
        """The seq of the next line that has not been read."""
        return max(self._next, self._from_seq)

    def read(self) -> Portion:
        """The next few hundred lines; `end` and no items where the log ends now. Call again when it has grown."""
        portion, self._ahead = self._ahead, Portion()
        while not portion.items and not portion.passed:
            if self._file is None or self._finished:
                if not self._advance(portion):
                    portion.end = not portion.items
                    break
                continue
            if not self._read_file(portion):
                portion.end = not portion.items and not portion.passed
                break
        return portion

    def torn_end(self) -> Damage | None:
        """What stands behind the last whole line, as Damage. A live writer may be about to complete it."""
        file = self._file
        block = file.partial() if file is not None and not self._finished else None
        if file is not None and block is None and self._next and not file.offset and not self._finished:
            return Damage(file.name, 1, 0, self.next_seq, None, "an empty file")
        if file is None or block is None:
            return None
        reason = "NUL bytes" if b"\0" in block.data else "a line that was cut off"
        return Damage(file.name, block.number, block.offset, self.next_seq, None, reason)

    def close(self) -> None:
        """Give back what is held. A second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── files ──

    def _begin(self, log: Log, since: int | None) -> None:
        """Open the first file that can hold what is wanted, at a place before it. Raises OSError."""
        if log.whole:
            behind = last_unwanted(log, self._from_seq, since)
            self._files = Succession(log.live, behind)
            try:
                following = self._files.following(open_segment)
            except OSError as error:
                if error.errno in NOT_THE_FILES:
                    raise
                self._files = Succession(log.live, behind)  # the first read tells of it, and goes on
                return
            if following is None:
                raise FileNotFoundError(2, "no such file", str(log.live))
            self._file = following[1]
        else:
            self._file = open_segment(log.segments[0])
        if isinstance(self._file, PlainFile):
            offset = offset_before(self._file, self._from_seq, since)
            if offset:
                record = self._file.opened()
                if record is not None:
                    self._opened(record)
                before = self._file.seek(offset, 0 if record is None else record.first)
                if before is not None:
                    self._next = before + 1
                else:
                    self._torn = 1  # we come from nowhere: the first line tells its seq
                return
        # The log begins here, or what came before is not wanted.
        record = peek_open(self._files.segment if log.whole and self._files.segment else log.segments[0])
        if record is not None and record.first > self._from_seq > 1:
            self._next = self._from_seq  # from there on lines are missed

    def _follows(self, head: Head) -> bool:
        """Does what is read now come behind this very line?"""
        file = self._file
        if file is None:
            return True  # it cannot be opened, which the first read tells
        opened = file.opened()
        if opened is not None and opened.first > head.seq:
            # It ended a file that is not wanted; or files are missing, which is told of their seqs.
            return joins(opened, head)
        place = file.place_of(head.seq)
        return place is not None and (place.seq, place.chain) == head

    def _begin_anew(self, log: Log) -> Damage:
        """Read all of the log, because nobody can say from where on it is another."""
        seq = 0 if self._head is None else self._head.seq
        self._from_seq, self._next, self._head, self._torn, self._log = 1, 0, None, 0, ""
        self.close()
        self._finished = self._sealed = self.moved = False
        self._begin(log, None)
        name = log.segments[0].name
        reason = f"the line {seq} is not the one that was read: the log was cut or repaired; from its beginning again"
        return Damage(name, 1, 0, 1, None, reason)

    def _take(self, file: PlainFile | PackedFile) -> None:
        self.close()
        self._file = file
        self._finished = self._sealed = self.moved = False

    def _advance(self, portion: Portion) -> bool:
        """Go on to the next file. False when there is none yet."""
        if not self._whole:
            return False
        try:
            following = self._files.following(open_segment, log=self._log if self.moved else "")
        except OSError as error:
            assert self._files.segment is not None
            name, why = self._files.segment.name, error.strerror or str(error)
            portion.items.append(Damage(name, 1, 0, self.next_seq, None, why[:1].lower() + why[1:]))
            self._torn += 1
            return True
        if following is None:
            return False
        segment, file = following
        self._take(file)
        self._check_joins(segment, file.opened(), portion)
        return True

    def _check_joins(self, segment: Segment, opened: Open | None, portion: Portion) -> None:
        head = self._head
        if opened is not None and head is not None and not joins(opened, head):
            log = list_log(self._live)
            if log.segments and head not in self._unjoined and not _holds(log, head):
                self._unjoined.add(head)  # once: damage that stays there would be met again and again
                portion.items.append(self._begin_anew(log))
                return
            reason = f"it does not join the line {head.seq} before it"
            portion.items.append(Damage(segment.name, 1, 0, opened.first, None, reason))
        if self._next and segment.first is not None and segment.first > self._next and not self._torn:
            missed = segment.first - self._next
            gone = f"seq {self._next} to {segment.first - 1} are not there"
            reason = f"{gone}: removed by retention or missing (`eventbus verify` tells)"
            portion.items.append(Damage(segment.name, 1, 0, self._next, missed, reason))
            self._next, self._torn = segment.first, 1

    # ── lines ──

    def _read_file(self, portion: Portion) -> bool:
        """One block of the open file into the portion. False when there is nothing more in it now."""
        file = self._file
        assert file is not None
        try:
            block = self._block(file, portion)
            if block is None and not file.sealed_name and file.moved():
                # Renamed: by a rotation after we looked (then its seal is there now), or by someone else.
                block = self._block(file, portion)
                if block is None and not self._sealed:
                    self._finished = self.moved = True
                    return True
        except (OSError, EOFError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._damage(portion, file.number, file.offset, reason[:1].lower() + reason[1:])
            self._finished = True
            return True
        if block is None and self._sealed:
            torn = file.partial() if file.sealed_name else None
            if torn is not None:
                self._damage(portion, torn.number, torn.offset, "a line that was cut off, behind the seal")
            self._finished = True
            return True
        if block is None:
            if file.sealed_name:  # a finished file without its seal
                torn = file.partial()
                if torn is not None:
                    self._damage(portion, torn.number, torn.offset, "a line that was cut off")
                elif not self._torn and self._whole:
                    self._damage(portion, file.number, file.offset, NO_SEAL)
                self._finished = True
                return True
            return False
        if block.oversize:
            self._damage(portion, block.number, block.offset, f"a line of over {MAX_EVENT_BYTES:,} bytes")
        elif self._sieve is None or not self._pass(block, portion):
            self._split(block, portion)
        place = None if block.oversize else last_place(block.data)
        if place is not None and place.seq + 1 >= self._from_seq:
            self._head = Head(place.seq, place.chain)
        file.keep(block)
        return True

    def _block(self, file: PlainFile | PackedFile, portion: Portion) -> Block | None:
        """The next lines of the file, behind what it still holds of those before."""
        block = file.block()
        while (following := file.check_undone()) is not None:
            self._next, self._head = following, None
            self._from_seq = min(self._from_seq, max(1, following))  # nobody has seen what comes in their stead
            if not following:
                reason = "what was read of it is not there any more: it was cut or replaced; from its beginning again"
                self._damage(portion, 1, 0, reason)
            block = file.block()
        return block

    def _pass(self, block: Block, portion: Portion) -> bool:
        """Skip a block that the sieve rules out, if nothing else in it can matter."""
        assert self._sieve is not None
        data = block.data
        if self._torn or not self._next or b'"type":"eventbus.' in data or self._sieve(data):
            return False
        following = self._next + block.height
        # A filter must not hide that a line is damaged.
        seqs = _SEQS.findall(data) if look_sound(data, block.height) else ()
        if list(map(int, seqs)) != list(range(self._next, following)):
            return False
        self._next = following
        portion.passed += block.height
        return True

    def _split(self, block: Block, portion: Portion) -> None:
        items, expected, number, find = portion.items, self._next, block.number, _PLACE.search
        assert self._file is not None
        name, wanted, line_from = self._file.name, self._from_seq, tuple.__new__  # half the price of calling Line
        broken = b"\0" in block.data or not _are_hex(block.lines)
        controls = CONTROL_MARK in block.data
        for line in block.lines:
            place = find(line, len(line) - PLACE_BYTES)  # (a search begins at 0 when told to begin before)
            if (
                not place
                or int(place[1]) != expected
                or (controls and line.startswith(CONTROL_MARK, CONTROL_AT))
                or broken
                or self._torn
            ):
                self._next = expected
                self._odd(line, number, block, portion)
                expected = self._next
            else:
                if expected >= wanted:
                    items.append(line_from(Line, (expected, line[: place.start()] + b"}", name, number, line[_DIGITS])))
                expected += 1
            number += 1
        self._next = expected

    def _odd(self, line: bytes, number: int, block: Block, portion: Portion) -> None:
        """A line that is not simply the next event."""
        assert self._file is not None
        place = place_in(line)
        if place is None:
            byte = block.offset_of(number - block.number)
            self._damage(portion, number, byte, strange(line))
            return
        control = peek_control(line)
        reason, missed = "", None
        if isinstance(control, Open) and self._log not in ("", control.log):
            reason = f"a file of the log {control.log}; this is {self._log}"
        elif self._next and place.seq < self._next:  # no damage takes a reader back behind what it has read
            reason = f"seq {place.seq} where {self._next} follows"
        elif self._next and place.seq > self._next and not self._explained(place.seq, control):
            reason, missed = f"seq {self._next} to {place.seq - 1} are not there", place.seq - self._next
        if reason:
            byte = block.offset_of(number - block.number)
            portion.items.append(Damage(self._file.name, number, byte, self._next, missed, reason))
        self._torn = 0
        self._next = place.seq + 1
        match control:
            case Open():
                self._opened(control)
            case Seal():
                self._sealed = True  # the end, when nothing stands behind it
            case None if place.seq >= self._from_seq and not is_control(line):
                portion.items.append(line_of(line, place, self._file.name, number))

    def _explained(self, seq: int, control: Control | None) -> bool:
        """Are lines missing here because of damage that was told? Within a file nobody can say how many it took. At the
        beginning of another it is one for each: where more are missing, this may not be the file that was next."""
        return seq - self._next <= self._torn if isinstance(control, Open) else self._torn > 0

    def _opened(self, record: Open) -> None:
        assert self._file is not None
        self._log = record.log
        if not self._file.sealed_name:
            self._files.begun(record.first)

    def _damage(self, portion: Portion, number: int, byte: int, reason: str) -> None:
        assert self._file is not None
        portion.items.append(Damage(self._file.name, number, byte, self.next_seq, None, reason))
        self._torn += 1


def joins(opened: Open, head: Head) -> bool:
    """Does the file that begins so stand behind this line, as far as their seqs tell that it should?"""
    return opened.first != head.seq + 1 or read_chain(opened.previous) == head.chain


def _holds(log: Log, head: Head) -> bool:
    """Is this line, which ended a file, in the log still? Where it cannot be read, it is."""
    ended = next((segment for segment in reversed(log.sealed) if (segment.first or 0) <= head.seq), None)
    if ended is None:
        return False
    try:
        with closing(open_segment(ended)) as file:
            place = file.place_of(head.seq)
    except OSError:
        return True
    return place is not None and (place.seq, place.chain) == head


def line_of(line: bytes, place: Place, file: str, number: int) -> Line:
    """A line as it stands in a file, with its place."""
    return Line(place.seq, line[: place.start] + b"}", file, number, line[_DIGITS])


_DIGITS = slice(-66, -2)  # of the chain value, at the end of every line with a place
# The place of a line, its chain value left to `_are_hex`: looked at digit by digit, it would cost a fifth of reading.
_PLACE = re.compile(rb',"seq":([1-9]\d{0,18}),"durable":(?:0|[1-9]\d{0,18}),"chain":".{64}"\}\Z', re.DOTALL)
# The seqs of whole lines. A payload may spell a place too, but not at the end of a line.
_SEQS = re.compile(rb',"seq":([1-9]\d{0,18}),"durable":(?:0|[1-9]\d{0,18}),"chain":"[0-9a-f]{64}"\}$', re.MULTILINE)


def _are_hex(lines: list[bytes]) -> bool:
    """Are the chain values of these lines of hex digits, as far as they have one?"""
    return not b"".join([line[_DIGITS] for line in lines]).translate(None, b"0123456789abcdef")


def read_journal(
    path: str | Path,
    *,
    from_seq: int = 1,
    behind: Head | None = None,
    since: int | None = None,
    sieve: Callable[[bytes], bool] | None = None,
) -> Iterator[Line | Damage]:
    """Everything from a place on to where the log ends now, in order. As JournalReader; ends instead of waiting.

    A last line that is cut off comes as Damage, unless it grows while it is looked at.
    """
    with JournalReader(path, from_seq=from_seq, behind=behind, since=since, sieve=sieve) as reader:
        waited = 0.0
        while True:
            portion = reader.read()
            yield from portion.items
            if not portion.end:
                waited = 0.0
                continue
            torn = reader.torn_end()
            if torn is None:
                return
            if waited >= _GROWING_SECONDS:
                yield torn
                return
            time.sleep(_GROWING_STEP)
            waited += _GROWING_STEP
