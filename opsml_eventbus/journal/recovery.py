"""Making a log fit to be written again after whatever ended its last writer. Needs the lock; idempotent.

- A torn tail (damage behind the last durable record) is copied aside to `<name>.torn-<time>`, cut, and recorded.
- Damage at or before the last durable record is refused (`JournalDamaged`), and nothing is changed. So is any damage
  in a file written with `fsync=never`: nothing tells torn from altered there. `eventbus repair` is for these.
- What stands behind the last durable record is written over itself and synced before anything is built on it: after a
  failed fsync the page cache shows bytes the disk never got. The log then goes on in a new file.
- A rotation that was interrupted is finished.
- A writer that signs begins behind a signed head: where the log does not end with one of its own, it says in the log
  that what it found there was not signed (`unsigned`), and signs from there on. A crash leaves such lines, and so does
  whoever can write the file and has no key: nothing tells the two apart. Nor does it believe a tally that it has not
  signed: it reads the live file and counts, and says nothing of what a finished file holds.

A recovery that is itself interrupted is begun again by the next and comes to the same log.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidEvent, JournalDamaged, JournalFailed, JournalRefused, WriteRefused
from ..event import new_id
from .aside import final_name, keep_aside, measure, pending_copies
from .disk import Lock, closed_on_error, hold, is_there, make_folder, open_file, pread_all, renew, sync, sync_folder
from .format import (
    CHAIN_BYTES,
    CONTROL_AT,
    CONTROL_MARK,
    Checkpoint,
    Head,
    Open,
    Recovered,
    Seal,
    Tally,
    Unsigned,
    is_control,
    link,
    peek_control,
    read_chain,
    read_control,
    read_place,
)
from .lines import BEGINNING, LINE_BYTES, read_blocks
from .live import NEXT_SUFFIX, Fsync, LiveFile, State, open_record, start_file
from .segments import Log, Segment, check_live, last_line, list_log, segment_path
from .sign import Signer
from .succession import NOT_THE_FILES, peek_open, read_opened
from .walk import Finding, Walk

REPAIR_SUFFIX = ".repairing"  # what a repair writes in place of a file
REPAIR_NEW_SUFFIX = ".repairing-new"  # as a live file where there is none; an empty one stands in for it meanwhile
_TAIL_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Recovery:
    """What had to be done. cut: bytes of a torn tail; kept: where they are now. renewed: the log goes on in a new file
    because its last writer did not leave in good order. finished: an interrupted rotation was finished. unsigned: the
    last seq that was there, unless it carries a signature of ours; 0 without a key."""

    cut: int = 0
    kept: Path | None = None
    renewed: bool = False
    finished: bool = False
    unsigned: int = 0


def recover(path: str | Path, *, fsync: Fsync = "always") -> Recovery:
    """Recover the log at the live path `path` and leave it closed in good order.

    Raises FileNotFoundError, JournalBusy, JournalRefused, JournalDamaged, JournalFailed.
    """
    live = Path(path)
    check_live(live)
    if not list_log(live).segments:
        raise FileNotFoundError(2, "no such file", str(live))
    lock = Lock(live)
    try:
        file, recovery = open_live(live, fsync)
        try:
            if not file.state.settled:
                file.checkpoint()
        finally:
            file.close()
    finally:
        lock.release()
    return recovery


def open_live(
    live: Path, fsync: Fsync, *, signer: Signer | None = None, clock: Callable[[], int] = time.time_ns
) -> tuple[LiveFile, Recovery]:
    """The live file, recovered or begun, ready to be appended to. The caller holds the lock.

    Raises JournalRefused, JournalDamaged; JournalFailed: the disk cannot be read, or has no room for what must be said;
    OSError: a file may not be opened, or no more can be.
    """
    make_folder(live.parent)
    try:
        live.with_name(live.name + NEXT_SUFFIX).unlink(missing_ok=True)
        return _Opening(live, fsync, signer, clock).run()
    except WriteRefused as error:  # there is no batch yet that could be sent again
        raise JournalFailed(error.path, f"it cannot be gone on with: {error.reason}") from error
    except OSError as error:
        if error.errno in NOT_THE_FILES:
            raise
        raise JournalFailed(
            str(error.filename or live), f"it cannot be gone on with: {error.strerror or error}"
        ) from error


def discard_repair(live: Path) -> bool:
    """Remove what a repair that was killed was writing, and the empty live file that stood in for it: was there one?
    The caller holds it. (Whoever puts both there could have removed the live file, and left no more traces.)"""
    live.with_name(live.name + REPAIR_SUFFIX).unlink(missing_ok=True)
    new = live.with_name(live.name + REPAIR_NEW_SUFFIX)
    stood_in = is_there(new) and is_there(live) and live.stat().st_size == 0
    if stood_in:
        live.unlink()  # first: alone it would be a live file that somebody has emptied
        sync_folder(live.parent)
    new.unlink(missing_ok=True)
    return stood_in


class _Opening:
    def __init__(self, live: Path, fsync: Fsync, signer: Signer | None, clock: Callable[[], int]) -> None:
        self.live = live
        self.fsync: Fsync = fsync
        self.signer = signer
        self.clock = clock
        self.cut = 0
        self.cut_at: int | None = None  # where in the file; None when an earlier recovery did it
        self.kept: Path | None = None
        self.finished = False
        self.unsigned = 0

    def run(self) -> tuple[LiveFile, Recovery]:
        log = list_log(self.live)
        if not is_there(self.live):
            discard_repair(self.live)
            return self._begun(log)
        descriptor = open_file(self.live, os.O_RDWR | os.O_APPEND)
        with closed_on_error(descriptor):
            hold(self.live, descriptor)
            state, opened = (None, None) if discard_repair(self.live) else self._examine(descriptor, log)
        if state is None or opened is None:  # nothing whole in it, or sealed
            os.close(descriptor)
            return self._begun(list_log(self.live))
        file = self._file(descriptor, state)
        try:
            renewed = self._settle(file, opened)
            self._sign(file)
        except BaseException:
            file.close()
            raise
        return file, self._report(renewed=renewed)

    def _begun(self, log: Log) -> tuple[LiveFile, Recovery]:
        descriptor, state, last = self._begin(log)
        file = self._file(descriptor, state)
        try:
            self._mark(file, last, state.head.seq - 1)
            self._record(file)
            self._sign(file)
        except BaseException:
            file.close()
            raise
        return file, self._report()

    def _file(self, descriptor: int, state: State) -> LiveFile:
        with closed_on_error(descriptor):
            folder = os.open(self.live.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return LiveFile(self.live, descriptor, folder, state, self.fsync, signer=self.signer, clock=self.clock)

    def _report(self, *, renewed: bool = False) -> Recovery:
        return Recovery(self.cut, self.kept, renewed, self.finished, self.unsigned)

    # ── a new file ──

    def _begin(self, log: Log) -> tuple[int, State, bytes]:
        """A live file where there is none: the log's first, or the one behind its last segment. And the line before."""
        sealed = log.sealed
        if not sealed:
            behind, durable, name, tally, last = Head(), 0, new_id(self.clock()), None, b""
        else:
            walk, seal, last = _read_newest(sealed)
            behind, name = walk.head, walk.log
            tally = seal.tally if self._believes(name, last) else None
            durable = walk.durable if walk.fsync == "never" else walk.head.seq
        opened = open_record(name, behind, self.fsync, tally)
        temporary = self.live.with_name(self.live.name + NEXT_SUFFIX)
        try:
            descriptor, state = start_file(temporary, opened, behind, durable, self.clock(), self.fsync)
            with closed_on_error(descriptor):
                temporary.rename(self.live)
                sync_folder(self.live.parent)
        except OSError as error:
            raise JournalFailed(str(self.live), f"it cannot be begun: {error.strerror}") from error
        return descriptor, state, last

    # ── a file that is there ──

    def _examine(self, descriptor: int, log: Log) -> tuple[State | None, Open | None]:
        """Where the file stands after a torn tail was cut, an interrupted rotation finished."""
        size = os.fstat(descriptor).st_size
        opened, begun = _first_line(self.live)
        findings: list[Finding] = []
        walk = Walk(findings.append, whole=False)
        if log.sealed:
            # Before anything is changed: what is refused stays as it is.
            if opened is not None:
                _check_joins(self.live, opened, log.sealed[-1])
            else:
                walk.head = _read_newest(log.sealed)[0].head  # its own first line does not say where it begins
        left = _closed_well(descriptor, size, opened, begun)
        if left is not None and self._believes(left[0].log, left[1]):
            return left[0], opened
        walk.begin(self.live.name, None)
        tally, last = Tally(), b""
        os.lseek(descriptor, 0, os.SEEK_SET)
        sound, broken = 0, False
        for block in read_blocks(lambda count: os.read(descriptor, count)):
            walk.feed(block)
            if not findings and block.whole:
                lines = block.lines
                tally += Tally.of([line for line in lines if not is_control(line)])
                last, sound = lines[-1], walk.sound_end
            elif not broken and walk.sound_end > block.offset:
                good = pread_all(descriptor, block.offset, walk.sound_end - block.offset).split(b"\n")[:-1]
                tally += Tally.of([line for line in good if not is_control(line)])
                last, sound = good[-1], walk.sound_end
            broken = bool(findings)
        walk.end()
        if findings:
            self._judge(walk, findings, opened)
        if findings or (size == 0 and log.sealed):
            # A live file behind finished ones never was empty: somebody has emptied it, which the log has to say.
            self._cut(descriptor, sound, size)
        if sound == 0:
            self.live.unlink()  # nothing whole was in it; what there was is kept aside
            return None, None
        if opened is None:  # `walk` and `read_opened` read the same record, so this cannot be; and nothing may be lost
            raise JournalRefused(str(self.live), "its first line is no open record, and whole lines stand in it")
        control = read_control(last)
        if isinstance(control, Seal):
            self._finish_rotation(descriptor, opened)
            return None, None
        place = read_place(last)
        assert place is not None
        head = Head(place.seq, place.chain)
        settled = isinstance(control, Checkpoint | Open)
        state = State(opened.log, opened.first, head, walk.durable, sound, tally, settled, begun)
        return state, opened

    def _judge(self, walk: Walk, findings: list[Finding], opened: Open | None) -> None:
        """Raise unless all that was found is a torn tail."""
        if opened is None and walk.lines == 0 and not walk.stands and not _may_be_torn_open(self.live):
            raise JournalRefused(str(self.live), "it is there and is no journal: its first line is no open record")
        judged = [finding.judged(walk.durable) for finding in findings]
        worst = next((finding for finding in judged if finding.kind != "torn"), None)
        finding = worst or judged[0]
        reason = finding.reason
        if worst is None and opened is None and walk.stands:
            # Under any policy but `never` the first line was on disk before the second was written.
            reason += "; whole lines stand behind it, so no crash of a writer that syncs did this"
        elif worst is None:
            if opened is None or opened.fsync != "never":
                return
            reason += "; written with fsync=never, so nothing tells a torn tail from an altered one"
        raise JournalDamaged(
            str(self.live),
            reason,
            line=finding.line,
            offset=finding.byte,
            seq=finding.seq,
            durable=walk.durable,
            torn=worst is None,
        )

    def _cut(self, descriptor: int, sound: int, size: int) -> None:
        """Copy what stands behind the byte `sound` aside, on disk; only then cut it."""
        for earlier in pending_copies(self.live, "torn"):
            # Of a recovery that was interrupted. If it had not cut yet, its bytes are still here and are copied again.
            copied = earlier.stat().st_size
            if pread_all(descriptor, sound, copied) == earlier.read_bytes():
                earlier.unlink()
        kept = keep_aside(self.live, "torn", lambda offset, count: os.pread(descriptor, count, offset), sound, size)
        os.ftruncate(descriptor, sound)
        if self.fsync != "never":
            sync(descriptor)
        self.cut, self.kept, self.cut_at = size - sound, kept, sound

    def _finish_rotation(self, descriptor: int, opened: Open) -> None:
        if self.fsync != "never":
            renew(descriptor, self.live, 0)
        self.live.rename(segment_path(self.live, opened.first))
        sync_folder(self.live.parent)
        self.finished = True

    # ── fit to go on ──

    def _settle(self, file: LiveFile, opened: Open) -> bool:
        """Make sure of what stands there, record what was cut, and begin a new file unless this was left well."""
        state = file.state
        unsure = state.head.seq - state.durable
        left_well = unsure <= 1 and state.settled
        if opened.fsync != "never" and self.fsync == "never":
            file.fsync = "always"  # what this file has promised holds to its end
        if file.fsync != "never" and unsure > 0:
            file.renew()
        self._mark(file, file.tail(_TAIL_BYTES)[:-1].rpartition(b"\n")[2], state.head.seq)
        recorded = self._record(file)
        changed = (opened.fsync == "never") != (self.fsync == "never")
        events = state.tally.events > 0
        if changed or recorded or (self.fsync != "never" and events and not left_well):
            file.rotate(self.fsync)
            return True
        return False

    def _mark(self, file: LiveFile, last: bytes, seq: int) -> None:
        """Say in the log that its last line as it was found, `last` of this seq, carries no signature of ours.

        Before anything is signed: a head that is signed next covers this, so nobody can take it out again.
        """
        if self.signer is None or seq == 0 or self.signer.has_signed(file.state.log, last):
            return
        self.unsigned = seq
        if not isinstance(peek_control(last), Unsigned):  # of a start that was interrupted
            file.record(Unsigned(self.signer.key_id))

    def _believes(self, log: str, last: bytes) -> bool:
        """Is the tally that this line states to be gone on from? With a key, one that it has signed."""
        return self.signer is None or self.signer.has_signed(log, last)

    def _sign(self, file: LiveFile) -> None:
        """No event is written before a signed head: a log whose events have none in front was never signed."""
        if self.signer is not None and not file.state.settled:
            file.checkpoint()

    def _record(self, file: LiveFile) -> bool:
        """The `recovered` record of every tail that was copied aside and has none yet."""
        pending = pending_copies(self.live, "torn")
        if not pending:
            return False
        for path in pending:
            final = final_name(path)
            if not any(record.kept == final.name for record in _recovered(file.tail(_TAIL_BYTES))):
                size, digest = measure(path)
                offset = file.state.size if self.cut_at is None else self.cut_at
                file.record(Recovered(size, offset, final.name, digest))
            path.rename(final)
            self.kept = final
        sync_folder(self.live.parent)
        return True


def _recovered(tail: bytes) -> Iterator[Recovered]:
    """The records of what was cut, among these lines. (A payload may spell a file's name.)"""
    for line in tail.split(b"\n"):
        if isinstance(record := peek_control(line), Recovered):
            yield record


def _may_be_torn_open(path: Path) -> bool:
    """Could this be a file whose very first line never came to disk? Nothing, NULs, or the beginning of one."""
    with path.open("rb") as stream:
        beginning = stream.read(LINE_BYTES)
    start = beginning.rstrip(b"\0")
    if b"\n" in start or not (BEGINNING.startswith(start[:27]) or start.startswith(b'{"spec')):
        return False
    return b"\0" in start or CONTROL_MARK.startswith(start[CONTROL_AT:][: len(CONTROL_MARK)])  # no other event's line


def _first_line(live: Path) -> tuple[Open | None, int]:
    try:
        return read_opened(Segment(live, None)) or (None, 0)
    except InvalidEvent:
        return None, 0


def _check_joins(path: Path, opened: Open, newest: Segment) -> None:
    """Raise unless the file at `path` can come after that finished one: a copy of an older file, or one of another log,
    would be gone on with in its place."""
    before = peek_open(newest)
    if before is not None and before.log != opened.log:
        reason = f"a file of the log {opened.log}; the finished files beside it are of {before.log}"
    elif opened.first <= (newest.first or 0):
        reason = f"it begins with seq {opened.first}, and so does, or later, {newest.name}"
    elif (last := _last_place(newest)) is None:
        reason = f"{newest.name}, which it follows, does not end with a line of a journal"
    elif last != Head(opened.first - 1, read_chain(opened.previous)):
        reason = f"it does not join {newest.name}, which ends with seq {last.seq}"
    else:
        return
    raise JournalDamaged(str(path), reason, line=1, offset=0, seq=opened.first, durable=opened.first - 1)


def _last_place(segment: Segment) -> Head | None:
    """Where the chain stands behind a finished file, by its last line."""
    try:
        place = read_place(last_line(segment))
    except (OSError, EOFError, ValueError) as error:
        _raise_if_ours(error)
        return None
    return None if place is None else Head(place.seq, place.chain)


def _raise_if_ours(error: Exception) -> None:
    """Not damage: the file may not be read, or no more can be opened."""
    if isinstance(error, OSError) and error.errno in NOT_THE_FILES:
        raise error


def _closed_well(descriptor: int, size: int, opened: Open | None, begun: int) -> tuple[State, bytes] | None:
    """Where the file stands if its last line is a checkpoint that joins and says all before it is on disk; that line.

    Only its end is looked at: a writer that left well left nothing to recover, and `verify` is for the rest.
    """
    if opened is None:
        return None
    start = max(0, size - _TAIL_BYTES)
    *_, before, last, rest = [b"", b"", *pread_all(descriptor, start, size - start).split(b"\n")]
    place, previous = read_place(last), read_place(before)
    if rest or place is None or previous is None or link(previous.chain, last[:-CHAIN_BYTES]) != place.chain:
        return None
    try:
        control = read_control(last)
    except InvalidEvent:
        return None
    if not isinstance(control, Checkpoint) or not place.durable == previous.seq == place.seq - 1:
        return None
    head = Head(place.seq, place.chain)
    return State(opened.log, opened.first, head, place.durable, size, control.tally, True, begun, marked=size), last


def _read_newest(sealed: Sequence[Segment]) -> tuple[Walk, Seal, bytes]:
    """The last finished file, which also has to follow the one before it."""
    found = _read_sealed(sealed[-1])
    opened = peek_open(sealed[-1])
    if opened is not None and len(sealed) > 1:
        _check_joins(sealed[-1].path, opened, sealed[-2])
    return found


def _read_sealed(segment: Segment) -> tuple[Walk, Seal, bytes]:
    """The last finished file, whole: its head is what the next one joins. And its last line."""
    findings: list[Finding] = []
    walk, last, end, number = Walk(findings.append, whole=False), b"", 0, 1
    try:
        with closing(segment.open()) as stream:
            walk.begin(segment.name, segment.first)
            for block in read_blocks(stream.read):
                walk.feed(block)
                last, end, number = block.lines[-1], block.end, block.number + block.height
        walk.end()
    except (OSError, EOFError, ValueError) as error:
        _raise_if_ours(error)
        walk.unreadable(end, number, str(error))
    control = read_control(last) if not findings else None
    if not isinstance(control, Seal):
        finding = findings[0] if findings else Finding("torn", segment.name, number, end, walk.head.seq, "no seal")
        raise JournalDamaged(
            str(segment.path),
            finding.reason,
            line=finding.line,
            offset=finding.byte,
            seq=finding.seq,
            durable=walk.durable,
        )
    return walk, control, last
