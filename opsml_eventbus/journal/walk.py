"""Walking a log line by line and saying what is not as it was written. Pure: blocks in, findings out.

The walk knows the chain, so it trusts a line only behind a line it trusts. After damage it goes on: it takes the
chain value that the damaged line states (or the one its bytes give) and sees whether the next line joins. So one
altered line is one finding, and the greatest `durable` that any whole line states is known, before and after the
damage. That number decides what damage means: behind it a crash may have torn the end of the log; at or before it the
bytes were on disk and have been changed since.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

from ..errors import InvalidEvent
from .format import (
    CHAIN_BYTES,
    CONTROL_AT,
    CONTROL_SOURCE,
    DOMAIN,
    FORMAT,
    ZERO,
    Checkpoint,
    Control,
    Head,
    Open,
    Place,
    Pruned,
    Recovered,
    Seal,
    Signature,
    Tally,
    Unsigned,
    holds_place,
    is_control,
    lines_within,
    link,
    read_chain,
    read_control,
    read_place,
)
from .lines import Block, place_in

Kind = Literal[
    "torn",  # damage behind the last durable record
    "altered",  # damage at or before it, or a change no crash can make
    "sequence",  # lines deleted, repeated or swapped
    "missing",  # a file of the log is not there, or its beginning is gone undeclared
    "foreign",  # a file of another log
    "unreadable",  # a file that cannot be read or decompressed to its end
    "unchained",  # plain JSONL: nothing to check
    "unexpected",  # not the head that was expected
    "unsigned",  # lines that were not signed by who wrote them
    "signature",  # a signature that does not hold
]
TAMPERED = frozenset({"altered", "sequence", "missing", "foreign", "unreadable", "unexpected", "signature"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written. file: name. line: from 1; byte: of the line's beginning in the
    decompressed file; seq: the first record that is not sound. reason: one clause."""

    kind: Kind
    file: str
    line: int
    byte: int
    seq: int
    reason: str

    def judged(self, durable: int) -> Finding:
        """In the light of all that was read: torn is only what lies behind `durable`, the last seq known to be on
        disk."""
        return replace(self, kind="altered") if self.kind == "torn" and self.seq <= durable else self

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file  # what is not there stands in no line
        return f"{place}: byte {self.byte}: {self.kind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A signature that stood in the log, for whoever holds the public key.

    signature: None where a writer that signs says that it found the lines up to this head unsigned. tally: what the
    record that carries the signature states.
    """

    file: str
    line: int
    byte: int
    log: str
    actual: Head  # where the chain stood when it was read
    signature: Signature | None
    tally: Tally | None = None


class Walk:
    """Feed it every file of a log in order; `findings` are told as they come, torn or altered decided at the end.

    whole: the log's beginning must be there or be declared pruned; False for one segment alone.
    log: its id, where that is known; else the first file tells it.
    proven: with a key, does what the line of this seq declares count? Asked when everything was read. Then only a
    beginning can be declared, no hole: what stands before a hole joins nothing that was signed.
    """

    def __init__(
        self,
        tell: Callable[[Finding], None],
        *,
        whole: bool = True,
        signed: Callable[[SignedHead], None] | None = None,
        proven: Callable[[int], bool] | None = None,
        expect: Head | None = None,
        log: str = "",
    ) -> None:
        self._tell = tell
        self._whole = whole
        self._signed = signed
        self._proven = proven
        self._expect = expect
        self.head = Head()
        self.durable = 0  # the greatest that a line has stated
        self._stated = 0  # the greatest in what joins: it never falls, unless a file begins that is none of this log
        self.log = log
        self.events = 0
        self.lines = 0  # those that joined
        self.first = 0  # seq of the first line seen
        self.settled = False  # the last line says that everything before it is on disk
        self.fsync = ""
        self.expected_found = False
        self.sound_end = 0  # byte behind the last line of this file before the first finding in it
        self.changed = 0  # least seq of a whole line whose bytes are not those that were chained
        self.recovered = 0  # records of something that was cut
        self._other: bytes | None = None  # the chain value that a damaged line's bytes give
        self._lost = False  # the bytes before this line could not be read as lines
        self._file = ""
        self._name_first: int | None = None
        self._at_start = True
        self.stands = False  # a whole line of a journal stands in this file
        self._placed = False  # or a part of a line has a place
        self._whole_lines = False  # lines without a place stand in it, with their newlines
        self._seal: Tally | None = None  # what the seal of this file says that it holds
        self._before: Tally | None = None  # the same of the file before
        self._file_events = 0
        self._clean = True  # every line of this file has joined so far, and nothing was found in it
        self._gone: list[tuple[int, bytes, Finding]] = []  # what is missing before a file, unless declared pruned
        self.file_first = 0  # seq of the open record of this file, 0 before it
        self._pruned: list[tuple[int, str, int]] = []  # before, chain, seq of the record
        self._damage: list[int] = []  # least seq only; a list of one, or none
        self._deepest = 0  # greatest seq of damage in this file

    # ── files ──

    def begin(self, name: str, first: int | None) -> None:
        """The next file. first: the seq its name promises, None for the live file."""
        self._file, self._name_first = name, first
        self._at_start, self._file_events, self.file_first = True, 0, 0
        self._before, self._seal = self._seal, None
        self._clean = True
        self._placed = self.stands = self._whole_lines = False
        self.sound_end = self._deepest = 0

    def end(self) -> None:
        """The file has ended."""
        if not self._placed and self.lines:  # beside other files
            if self._at_start:
                self._damaged(1, 0, "an empty file: its open record is gone")
            elif self._whole_lines and self.fsync not in ("", "never"):
                # A crash leaves no more of a new one than a part of its first line.
                self._found("altered", 1, 0, "no line of a journal is in it")
        if self._name_first is None:
            return
        if self._seal is None and self._clean:
            self._damaged(0, self.sound_end, "a finished file without its seal: its end is gone")
            self._lost = True  # with whatever else stood there
        if self.fsync != "never" or not self.file_first:
            # It got its name when all of it was on disk, the seal too: no crash can have spoiled it since. Where no
            # open record could be read, nothing says that this one was written otherwise.
            self.durable = max(self.durable, self.head.seq, self._deepest)

    def unreadable(self, block_end: int, number: int, reason: str) -> None:
        """The file could not be read to its end."""
        self._found("unreadable", number, block_end, reason)
        self._lost = True

    def finish(self) -> None:
        """The log has ended."""
        for _, _, finding in self.undeclared:
            self._tell(finding)

    def begins_with(self, first: int) -> None:
        """The log begins with the file of this seq by now. When that is declared, so is all that is missing before it:
        what declared a hole there may have been removed with it. And what was a hole when it was read, with a file
        before it that is gone since, is the log's beginning."""
        if any(first == before for before, _ in self._declared):
            self._gone = [
                (at, chain, replace(finding, seq=1, reason=f"seq 1 to {at - 1} are gone") if at == first else finding)
                for at, chain, finding in self._gone
                if at >= first
            ]

    def pruned(self, seq: int) -> frozenset[int]:
        """The beginnings of the log that were declared up to there."""
        return frozenset(before for before, _, at in self._pruned if at <= seq)

    @property
    def undeclared(self) -> list[tuple[int, bytes, Finding]]:
        """What is missing before a file and was not declared pruned: the seq it begins with, the chain before it."""
        declared = self._declared
        return [
            (first, chain, _without_what_is_declared(finding, first, declared))
            for first, chain, finding in self._gone
            if (first, chain.hex()) not in declared or (self._proven is not None and finding.seq > 1)
        ]

    @property
    def declared(self) -> list[tuple[int, list[int], Finding]]:
        """What is missing before a file and was declared pruned: the seq it begins with, and those of the records."""
        missing = self.undeclared
        return [
            (first, [at for before, by, at in self._pruned if (before, by) == (first, chain.hex())], finding)
            for first, chain, finding in self._gone
            if (first, chain, finding) not in missing
        ]

    @property
    def _declared(self) -> set[tuple[int, str]]:
        proven = self._proven
        return {(before, chain) for before, chain, seq in self._pruned if proven is None or proven(seq)}

    @property
    def least_damage(self) -> int | None:
        """The least seq of what was told as torn: at or before `durable` it was altered."""
        return self._damage[0] if self._damage else None

    # ── lines ──

    def feed(self, block: Block) -> None:
        """Some lines of the file."""
        if not block.whole or block.oversize:
            self._examine(block.data, block.offset, block.number, block)
            if not block.whole:
                self._lost = True
            return
        lines = block.lines
        index, count = 0, len(lines)
        quick = b"\0" not in block.data  # no line holds one, whatever it is chained to
        expect = self._expect.seq if self._expect is not None else 0
        while index < count:
            seq, chain = self.head
            durable, stated = self._stated, self._stated
            begun = index
            # The quick way, for lines that are as expected: hash, compare, go on.
            if quick and self._other is None and not self._lost and not self._at_start and self._seal is None:
                while index < count:
                    line = lines[index]
                    digest = sha256(DOMAIN + chain + line[:-76]).digest()
                    if not line.endswith(_PLACE % (seq + 1, stated, hexlify(digest))):
                        # Within a batch `durable` stays; the first line of one often says all before it is durable.
                        stated = seq if stated == durable else durable
                        if not line.endswith(_PLACE % (seq + 1, stated, hexlify(digest))):
                            break
                    if line[_SOURCE_AT] == _SOURCE:
                        break  # a control record, most likely
                    durable = stated
                    seq += 1
                    chain = digest
                    index += 1
                    if seq == expect:
                        self._check_expected(Head(seq, chain))
            passed = index - begun
            if passed:
                self.head, self._stated = Head(seq, chain), durable
                self.durable = max(self.durable, durable)
                self.events += passed
                self._file_events += passed
                self.lines += passed
                self.settled = False
                if self._clean:
                    self.sound_end = block.offset_of(index)
            if index < count:
                self._examine(lines[index], block.offset_of(index), block.number + index, block)
                if self._clean:
                    self.sound_end = block.offset_of(index + 1)
                index += 1

    def _examine(self, line: bytes, offset: int, number: int, block: Block) -> None:
        """One line that is not simply the next one."""
        at_start, self._at_start = self._at_start, False
        place = place_in(line) if block.whole and not block.oversize else None
        wrong = ""
        if place is None:
            control = None
        else:
            try:
                control = read_control(line)
            except InvalidEvent as error:
                control, wrong = None, f"a control record with wrong members ({error})"
        if at_start and isinstance(control, Open):
            self._start_file(control, number, offset)
        if place is None:
            self._unreadable_line(line, offset, number, block)
            return
        self._placed = self.stands = True
        body = line[:-CHAIN_BYTES]
        given = [link(chain, body) for chain in (self.head.chain, self._other) if chain is not None]
        if place.chain not in given:
            self._disjointed(place, given[0], number, offset)
            return
        if place.seq != self.head.seq + 1:
            self._found("sequence", number, offset, f"seq {place.seq} where {self.head.seq + 1} follows")
        if not self._stated <= place.durable < place.seq:
            self._found("altered", number, offset, f"durable {place.durable} after {self._stated}, at seq {place.seq}")
        if at_start and not isinstance(control, Open):
            self._found("altered", number, offset, "no open record: the beginning of the file is gone")
        if wrong:
            self._found("altered", number, offset, wrong)
        if self._seal is not None:
            self._found("altered", number, offset, "a line behind the seal")
        previous = self.head
        self.head, self._other, self._lost = Head(place.seq, place.chain), None, False
        self._states(place.durable)
        self.lines += 1
        self.first = self.first or place.seq
        self.settled = False
        if self._expect is not None and self._expect.seq == place.seq:
            self._check_expected(self.head)
        if control is not None:
            self._control(control, previous, number, offset)
        elif not is_control(line):
            self.events += 1
            self._file_events += 1

    def _start_file(self, control: Open, number: int, offset: int) -> None:
        """The open record of a file, which also says what stands before it."""
        joined = self.lines > 0
        previous = read_chain(control.previous)
        if control.format != FORMAT:
            self._found("altered", number, offset, f"format {control.format}; this is {FORMAT}")
        if self.log not in ("", control.log):
            self._found("foreign", number, offset, f"a file of the log {control.log}; this is {self.log}")
        elif self._name_first not in (None, control.first):
            self._found(
                "sequence", number, offset, f"the file begins with seq {control.first}, its name says otherwise"
            )
        elif not joined and control.first > 1 and self._whole:
            finding = Finding("missing", self._file, number, offset, 1, f"seq 1 to {control.first - 1} are gone")
            self._gone.append((control.first, previous, finding))
        elif joined and control.first > self.head.seq + 1 and not self._lost:
            reason = f"seq {self.head.seq + 1} to {control.first - 1} are not there: a file is missing"
            finding = Finding("missing", self._file, number, offset, self.head.seq + 1, reason)
            self._gone.append((control.first, previous, finding))
        elif joined and control.first <= self.head.seq:
            self._found("sequence", number, offset, f"seq {control.first} again, after {self.head.seq}")
        elif not joined and control.first == 1 and (previous != ZERO or control.sealed is not None):
            self._found("altered", number, offset, "it begins a log, and says that something stands before it")
        elif joined and previous not in (self.head.chain, self._other) and not self._lost:
            self._found("altered", number, offset, "it does not join the file before it")
        elif joined and control.sealed and self._before not in (None, control.sealed) and not self._lost:
            self._found("altered", number, offset, "it does not say of the file before it what its seal does")
        if self.log not in ("", control.log) or (joined and control.first <= self.head.seq):
            self._stated = 0
        self.log, self.fsync, self.file_first = control.log, control.fsync, control.first
        self.head, self._other, self._lost = Head(control.first - 1, previous), None, False

    def _disjointed(self, place: Place, computed: bytes, number: int, offset: int) -> None:
        """A line that is whole and does not join the one before it."""
        expected = self.head.seq + 1
        if place.seq == expected:
            if not self._lost:
                self.changed = self.changed or expected
                self._damaged(number, offset, "its bytes are not those that were chained")
        elif self._lost and place.seq > expected:
            pass  # what lies between was told already
        else:
            # A crash leaves holes, it does not close them: whole lines that skip a number were arranged.
            self._found("sequence", number, offset, f"seq {place.seq} where {expected} follows")
        self._clean = self._lost = False
        self._take(place)
        self._other = computed if place.seq == expected else None
        self.settled = False

    def _take(self, place: Place) -> None:
        """A line that may be altered is there: the next one is to join it.

        What it states counts although it does not join: a batch never calls its own lines durable, so a torn one
        cannot raise the mark, and a log of which every line was changed is not taken for a torn one.
        """
        if place.durable < place.seq:
            self._states(place.durable)
        self.head, self._other = Head(place.seq, place.chain), None

    def _unreadable_line(self, line: bytes, offset: int, number: int, block: Block) -> None:
        if block.oversize:
            reason = "a line of more than an event may have"
        elif b"\0" in line:
            reason = "NUL bytes"
        elif not block.whole:
            reason = "a line that was cut off"
        else:
            reason = "not a line of a journal"
        if block.whole and not block.oversize and line.endswith(b"}\r") and place_in(line[:-1]):
            self._found("altered", number, offset, "it ends with CR LF, which no writer and no crash has written")
        else:
            self._damaged(number, offset, reason)
        self._lost = True
        self.settled = False
        self._whole_lines |= block.whole
        self._placed |= holds_place(line) or holds_place(block.ending)
        nul = block.nul or b"\0" in line
        self._look_within(line, nul=nul, ended=block.whole and not block.oversize)
        self._look_within(block.ending, nul=nul, ended=block.whole)

    def _look_within(self, data: bytes, *, nul: bool, ended: bool) -> None:
        """Newlines may be all that was lost: whole lines inside still say what had been durable. nul: there is a NUL in
        the same piece. ended: `data` ends where that does, with a newline."""
        for inner, followed in lines_within(data):
            place = read_place(inner)
            assert place is not None
            follows = place.seq == self.head.seq + 1 and link(self.head.chain, inner[:-CHAIN_BYTES]) == place.chain
            # Whoever spells a place in a payload cannot know what it has to join. One that does not is believed as a
            # whole line is, where no crash can have cut a payload behind it.
            if not follows and (nul or not (followed or ended)):
                return
            self.lines += follows
            self._take(place)

    def _control(self, control: Control, previous: Head, number: int, offset: int) -> None:
        match control:
            case Seal(tally=tally) | Checkpoint(tally=tally):
                if self._clean and tally.events != self._file_events:
                    reason = f"it counts {tally.events} events, the file holds {self._file_events}"
                    self._found("altered", number, offset, reason)
                self._seal = tally if isinstance(control, Seal) else self._seal
                self.settled = self.durable == previous.seq
                if control.signature is not None and self._signed is not None:
                    self._signed(SignedHead(self._file, number, offset, self.log, previous, control.signature, tally))
            case Recovered():
                self.recovered += 1
            case Pruned(before=before, chain=chain):
                self._pruned.append((before, chain, previous.seq + 1))
            case Unsigned() if self._signed is not None:
                self._signed(SignedHead(self._file, number, offset, self.log, previous, None))
            case Open() if offset > 0:
                self._found("altered", number, offset, "an open record inside a file")

    def _states(self, durable: int) -> None:
        self._stated = max(self._stated, durable)
        self.durable = max(self.durable, durable)

    # ── findings ──

    def _check_expected(self, head: Head) -> None:
        self.expected_found = head == self._expect

    def _damaged(self, number: int, offset: int, reason: str) -> None:
        """Torn or altered: that is known when everything has been read."""
        seq = self.head.seq + 1
        self._damage = [min(seq, *self._damage)] if self._damage else [seq]
        self._deepest = max(self._deepest, seq)
        self._found("torn", number, offset, reason)

    def _found(self, kind: Kind, number: int, offset: int, reason: str) -> None:
        self._clean = False
        self._tell(Finding(kind, self._file, number, offset, self.head.seq + 1, reason))


def _without_what_is_declared(finding: Finding, first: int, declared: set[tuple[int, str]]) -> Finding:
    """Of a beginning that is missing before the line `first`, the part that was not declared pruned."""
    known = max((before for before, _ in declared if before < first), default=1)
    if finding.seq > 1 or known == 1:
        return finding
    return replace(finding, seq=known, reason=f"seq {known} to {first - 1} are gone")


# Where a control record's source stands: a look at sixteen bytes, sure only of its no.
_SOURCE_AT = slice(CONTROL_AT + 12, CONTROL_AT + 12 + len(CONTROL_SOURCE))
_SOURCE = CONTROL_SOURCE.encode()
_PLACE = b',"seq":%d,"durable":%d,"chain":"%b"}'
