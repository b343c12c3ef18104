"""Is this log as it was written? `verify_journal` reads every byte of it and says so; it never writes.

What hashing can show: any line edited, deleted, repeated, swapped or moved, any file missing or from elsewhere. What
it cannot: a log that was rewritten as a whole, and one whose end was cut off at a line. For these, keep a head
(`Report.head`, written `SEQ:CHAIN`) somewhere else and pass it as `expect`, or sign the heads and pass the
`public_key`.

A log that is being written may be verified: a last line that is still growing is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, cast

from ..errors import JournalRefused
from .disk import check_kind
from .format import START, Head, holds_place
from .lines import Block, read_blocks
from .segments import Log, Segment, Stream, find_log, list_log, printable
from .sign import Verifier
from .succession import NOT_THE_FILES, Succession
from .walk import TAMPERED, Finding, SignedHead, Walk

MAX_FINDINGS = 1000  # kept in a report, unless more are asked for; `on_finding` is told all of them
_GROWING_SECONDS = 0.25  # a writer's single write takes micro-seconds; this long without growth is a torn line
_GROWING_STEP = 0.01
_CHAIN_MARK = b',"chain":"'


@dataclass(slots=True)
class Report:
    """What was found. exit: 0 sound, 3 torn or without a chain, 5 tampered.

    findings: the first thousand; count: all of them. head: the last line that joined. durable: the last seq known to be
    on disk. events: events and Gaps; lines: control records too. settled: the last line says that all before it is on
    disk. signed: seq of the last signed head that holds, None without a key. unsigned: first and last seq of lines
    that were not signed by who wrote them, or are gone as only such a line says, with a key. first: seq the log
    begins with. recovered: how often something was cut out of it and kept aside, by a recovery or a repair.
    """

    path: str
    files: Sequence[str] = ()
    log: str = ""
    first: int = 0
    head: Head = START
    durable: int = 0
    events: int = 0
    lines: int = 0
    settled: bool = False
    signed: int | None = None
    unsigned: Sequence[tuple[int, int]] = ()
    recovered: int = 0
    findings: list[Finding] = field(default_factory=list)
    count: int = 0
    exit: int = 0

    @property
    def sound(self) -> bool:
        return self.exit == 0

    @property
    def verdict(self) -> str:
        """One word: sound, torn, unchained, unsigned or tampered."""
        if self.exit == 5:
            return "tampered"
        if self.exit == 0:
            return "sound"
        kinds = {finding.kind for finding in self.findings}
        return next((kind for kind in ("unchained", "torn", "unsigned") if kind in kinds), "torn")

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values, the head as `SEQ:CHAIN`."""
        members = {name: getattr(self, name) for name in self.__slots__}
        findings = [asdict(finding) for finding in self.findings]
        return {
            **members,
            "files": list(self.files),
            "head": str(self.head),
            "verdict": self.verdict,
            "findings": findings,
        }


def verify_journal(
    path: str | Path,
    *,
    expect: Head | None = None,
    public_key: bytes | str | Path | None = None,
    on_finding: Callable[[Finding], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
    keep: int = MAX_FINDINGS,
) -> Report:
    """Check a whole log (live path or folder) or one segment.

    expect: a line that must be there with that chain value. public_key: Ed25519, PEM or OpenSSH text, or a file.
    on_finding: told every finding as it comes; `Finding.judged(report.durable)` is what it turned out to be.
    on_progress: told the decompressed bytes read so far, about every MiB. keep: findings that the report keeps.
    Raises FileNotFoundError; OSError: a file may not be read; JournalRefused: a folder with several logs, a pipe, a
    device, or a missing extra.
    """
    log, report = find_log(path), Report(printable(str(path)))
    named = Path(path)
    try:
        check_kind(named, named.stat())
    except JournalRefused:
        if not named.is_dir():
            raise
    except FileNotFoundError:
        if len(log.segments) == 1 and named.is_symlink():
            raise  # a link that leads nowhere, and nothing beside it
    _Check(log, report, expect, public_key, on_finding, on_progress, keep).run()
    return report


class _Check:
    def __init__(
        self,
        log: Log,
        report: Report,
        expect: Head | None,
        public_key: bytes | str | Path | None,
        on_finding: Callable[[Finding], None] | None,
        on_progress: Callable[[int], None] | None,
        keep: int,
    ) -> None:
        self._log = log
        self._keep = keep
        self._report = report
        self._expect = expect
        self._verifier = Verifier(public_key) if public_key is not None else None
        self._on_finding = on_finding
        self._on_progress = on_progress
        self._read = 0
        self._names: list[str] = []
        self._kinds: set[str] = set()
        self._walk = Walk(self._tell, whole=log.whole, expect=expect)
        if self._verifier is not None:
            self._walk = Walk(
                self._tell, whole=log.whole, expect=expect, signed=self._signed, proven=self._verifier.proves
            )

    def run(self) -> None:
        walk, report = self._walk, self._report
        plain = _plain(self._log)
        if plain is not None:
            self._names.append(plain.file)
            self._tell(plain)
        elif self._log.whole:
            self._files()
            now = list_log(self._log.live).segments
            if now and now[0].first is not None:
                walk.begins_with(now[0].first)
        else:
            segment = self._log.segments[0]
            self._file(_Reading(segment, segment.open()))
        walk.finish()
        report.files = self._names
        report.log, report.head, report.first = walk.log, walk.head, walk.first
        report.durable, report.settled, report.recovered = walk.durable, walk.settled, walk.recovered
        report.events, report.lines = walk.events, walk.lines
        if self._expect is not None and not walk.expected_found:
            reason = f"the line {self._expect.seq} with chain {self._expect.chain.hex()} is not there"
            if self._expect.seq < walk.first:
                reason = f"what the line {self._expect.seq} was cannot be told: what is here begins with {walk.first}"
            self._end_finding("unexpected", reason)
        if self._verifier is not None:
            self._judge_signatures(self._verifier, plain=plain is not None)
        report.findings = [finding.judged(walk.durable) for finding in report.findings]
        least = walk.least_damage
        if self._kinds & TAMPERED or (least is not None and least <= walk.durable):
            report.exit = 5
        elif report.count:
            report.exit = 3

    def _judge_signatures(self, verifier: Verifier, *, plain: bool) -> None:
        walk, report = self._walk, self._report
        report.signed = verifier.through
        if report.signed is None and (walk.events or plain):
            # A writer that signs does so before its first event; those that were killed before leave records only.
            self._end_finding("signature", "no head is signed with this key")
        if verifier.pass_over(walk.first, walk.head.seq):
            first, last = verifier.unsigned[-1]
            self._end_finding("unsigned", f"no signature covers seq {first} to {last}")
        elif verifier.through is None and walk.lines:
            # An open record alone: of a writer that was killed at once, or of a log that somebody has emptied.
            verifier.unsigned.append((walk.first, walk.head.seq))
            self._end_finding("unsigned", "nothing in it is signed yet")
        for first, records, finding in walk.declared:
            if not any(map(verifier.proves_writer, records)):
                verifier.unsigned.insert(0, (1, first - 1))
                reason = f"{finding.reason}; the record that says so was not signed by who wrote it"
                self._tell(replace(finding, kind="unsigned", reason=reason))
        report.unsigned = verifier.unsigned
        if 0 < walk.changed <= (verifier.through or 0):
            self._end_finding("altered", f"seq {walk.changed} was signed, and its bytes are others now")

    def _files(self) -> None:
        """Every file of the log in order, those that are finished while we read among them."""
        files = Succession(self._log.live)
        live: _Reading | None = None
        try:
            while True:
                following: tuple[Segment, Stream] | OSError | None
                try:
                    following = files.following(Segment.open)
                except OSError as error:
                    if error.errno in NOT_THE_FILES:
                        raise
                    following = error
                if live is not None:
                    # A file follows the live one, so that was finished meanwhile: its seal at least was added.
                    if self._read_on(live, live.rest() if following is not None else ()):
                        self._walk.end()
                    live.stream.close()
                    live = None
                if following is None:
                    return
                if isinstance(following, OSError):
                    assert files.segment is not None
                    self._begin(files.segment)
                    self._walk.unreadable(0, 1, _reason(following))
                    continue
                reading = _Reading(*following)
                live = reading if reading.segment.first is None else None
                self._file(reading)
                if live is not None:
                    files.begun(self._walk.file_first)
        finally:
            if live is not None:
                live.stream.close()

    def _begin(self, segment: Segment) -> None:
        self._names.append(segment.name)
        self._walk.begin(segment.name, segment.first)

    def _file(self, reading: _Reading) -> None:
        """All that is in it now. The live file is left open: it may go on."""
        self._begin(reading.segment)
        sound = self._read_on(reading, reading.grown())
        if reading.segment.first is not None:
            reading.stream.close()
            if sound:
                self._walk.end()

    def _read_on(self, reading: _Reading, blocks: Iterable[Block]) -> bool:
        """Some more of it. False where it cannot be read."""
        before = reading.end
        try:
            for block in blocks:
                self._walk.feed(block)
                reading.end, reading.number = block.end, block.number + block.height
                self._progress(reading.end - before)
        except (OSError, EOFError, ValueError) as error:
            self._walk.unreadable(reading.end, reading.number, _reason(error))
            return False
        finally:
            self._read += reading.end - before
        return True

    def _progress(self, end: int) -> None:
        if self._on_progress is not None:
            self._on_progress(self._read + end)

    def _tell(self, finding: Finding) -> None:
        self._kinds.add(finding.kind)
        self._report.count += 1
        if len(self._report.findings) < self._keep:
            self._report.findings.append(finding)
        if self._on_finding is not None:
            self._on_finding(finding)

    def _end_finding(self, kind: str, reason: str) -> None:
        name = self._log.segments[-1].name
        self._tell(Finding(kind, name, 0, self._walk.sound_end, self._walk.head.seq, reason))  # type: ignore[arg-type]

    def _signed(self, head: SignedHead) -> None:
        verifier, place = self._verifier, (head.file, head.line, head.byte)
        assert verifier is not None
        if head.signature is None:
            if verifier.pass_over(self._walk.first, head.actual.seq):
                first, last = verifier.unsigned[-1]
                reason = f"seq {first} to {last} were not signed by who wrote them: a later writer found them there"
                self._tell(Finding("unsigned", *place, first, reason))
        elif reason := verifier.check(head):
            self._tell(Finding("signature", *place, head.actual.seq, reason))


class _Reading:
    """A file being read. end, number: of what was read, a line that was waited for not among it."""

    def __init__(self, segment: Segment, stream: Stream) -> None:
        self.segment = segment
        self.stream = stream
        self.end, self.number = 0, 1

    def rest(self) -> Iterator[Block]:
        """What has been added to it."""
        yield from read_blocks(self.stream.read, self.end, self.number)

    def grown(self) -> Iterator[Block]:
        """All of it. A writer may be at the live one: there a line without a newline is given a moment to grow."""
        offset, number = 0, 1
        waited = 0.0
        while True:
            partial: Block | None = None
            for block in read_blocks(self.stream.read, offset, number):
                if block.whole or block.oversize or self.segment.packed:
                    yield block
                else:
                    partial = block
                if block.whole:
                    waited, offset, number = 0.0, block.end, block.number + block.height
            if partial is None:
                return
            if waited >= _GROWING_SECONDS or self.segment.first is not None:
                yield partial
                return
            time.sleep(_GROWING_STEP)
            waited += _GROWING_STEP
            cast("FileIO", self.stream).seek(offset)


def _plain(log: Log) -> Finding | None:
    """A file that is no journal at all; saying so once is better than calling each line damaged.

    All of it is looked at: plain lines in front of chained ones are damage.
    """
    (segment, *more) = log.segments
    if more or segment.first is not None:  # what has the name of a finished file ends with a seal
        return None
    ends, begins = False, b""
    try:
        with closing(segment.open()) as stream:
            for block in read_blocks(stream.read):
                begins = begins or block.data[:1]
                ends = ends or block.whole
                if any(_CHAIN_MARK in data and holds_place(data) for data in (block.data, block.ending)):
                    return None
    except (OSError, EOFError, ValueError):
        return None
    if not ends and begins:
        return None  # a first line that was cut off
    reason = "no chain: plain JSON lines, nothing to check"
    if begins != b"{":
        reason = "no journal: it has no line of one" if begins else "no journal: it is empty"
    return Finding("unchained", segment.name, 1, 0, 0, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or error.__class__.__name__
    return text[0].lower() + text[1:]
