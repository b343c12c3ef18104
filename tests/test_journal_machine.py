"""A log that is appended to, synced, rotated, compressed, crashed, recovered, repaired and tampered with in any order,
beside a model that knows what was acknowledged."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from journal_support import ids, lines, open_plain, prune

from opsml_eventbus.errors import JournalDamaged
from opsml_eventbus.journal import repair, verify_journal
from opsml_eventbus.journal.compress import compress_segment
from opsml_eventbus.journal.recovery import open_live
from opsml_eventbus.journal.segments import list_log

# Places are drawn as fractions: sizes differ from run to run, since ids and chains do.
FRACTION = st.floats(0, 1)


class Log(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="log-"))
        self.path = self.folder / "audit.jsonl"
        self.file = None
        self.number = 0
        self.acknowledged: list[str] = []  # on disk, said the journal
        self.written: list[str] = []  # in the file, not synced
        self.synced = 0  # bytes of the live file that are on disk

    @initialize()
    def begin(self):
        self.file = open_plain(self.path)
        self.synced = self.file.state.size

    def teardown(self):
        if self.file is not None:
            self.file.close()
        shutil.rmtree(self.folder)

    @property
    def is_open(self):
        return self.file is not None

    def _all_durable(self):
        self.acknowledged += self.written
        self.written = []
        self.synced = self.file.state.size

    # ── a writer ──

    @precondition(lambda self: self.is_open)
    @rule(count=st.integers(1, 5), sync=st.booleans())
    def append(self, count, sync):
        numbers = range(self.number, self.number + count)
        self.number += count
        self.file.append(lines(numbers))
        self.written += [f"e{number}" for number in numbers]
        if sync:
            self.file.sync()
            self._all_durable()

    @precondition(lambda self: self.is_open)
    @rule()
    def checkpoint(self):
        self.file.checkpoint()
        self._all_durable()

    @precondition(lambda self: self.is_open and self.file.state.tally.events)
    @rule()
    def rotate(self):
        self.file.rotate()
        self._all_durable()

    @precondition(lambda self: self.is_open and len(list_log(self.path).sealed) > 2)
    @rule()
    def prune(self):
        before = ids(self.path)
        prune(self.file, 2)
        gone = set(before) - set(ids(self.path))
        self._all_durable()
        self.acknowledged = [name for name in self.acknowledged if name not in gone]

    @rule(kind=st.sampled_from(["gzip"]))
    def compress(self, kind):
        for segment in list_log(self.path).sealed:
            if not segment.packed:
                compress_segment(segment, kind)
                break

    # ── what happens to it ──

    @precondition(lambda self: self.is_open)
    @rule(cut=FRACTION, hole=st.booleans(), begin=FRACTION, end=FRACTION)
    def crash_and_recover(self, cut, hole, begin, end):
        """The process dies and the power with it: what was not synced is cut anywhere, or has a hole anywhere."""
        self.file.close()
        self.file = None
        content = self.path.read_bytes()
        tail = len(content) - self.synced
        if tail:
            content = content[: self.synced + round(tail * cut)]
            if hole:
                first, last = sorted(
                    self.synced + round((len(content) - self.synced) * place) for place in (begin, end)
                )
                content = content[:first] + bytes(last - first) + content[last:]
            self.path.write_bytes(content)
        assert verify_journal(self.path).exit in (0, 3)
        self.file, _ = open_live(self.path, "always")
        found = [name for name in ids(self.path) if re.fullmatch(r"e\d+", name)]
        everything = self.acknowledged + self.written
        assert found == everything[: len(found)]
        assert found[: len(self.acknowledged)] == self.acknowledged
        self.acknowledged, self.written = found, []
        self.synced = self.file.state.size

    @precondition(lambda self: self.is_open)
    @rule()
    def close_and_open(self):
        if not self.file.state.settled:
            self.file.checkpoint()
        self.file.close()
        self._all_durable()
        self.file, recovery = open_live(self.path, "always")
        assert not recovery.renewed
        assert recovery.cut == 0
        self.synced = self.file.state.size

    @precondition(lambda self: self.is_open and self.acknowledged)
    @rule(which=FRACTION, where=FRACTION, bit=st.integers(0, 7))
    def tamper(self, which, where, bit):
        """Someone changes a bit of what was durable before the last record; it is found, and put back."""
        self.file.checkpoint()
        self._all_durable()
        segments = list_log(self.path).segments
        segment = segments[int(which * len(segments) * 0.999)]
        before = segment.path.read_bytes()
        last = before[:-1].rfind(b"\n") + 1 if segment.first is None else len(before)
        if last == 0:
            return  # nothing but the line that is not known to be durable
        changed = bytearray(before)
        changed[int(where * last * 0.999)] ^= 1 << bit
        segment.path.write_bytes(changed)
        report = verify_journal(self.path)
        # gzip's header has bytes that mean nothing (its time): what unpacks to the same is the same.
        assert report.exit == 5 or (segment.packed and report.exit == 0)
        segment.path.write_bytes(before)

    @precondition(lambda self: self.is_open and self.acknowledged)
    @rule(which=FRACTION)
    def damage_and_repair(self, which):
        """A durable line of the live file is damaged for good: opening refuses, a repair keeps all the others."""
        rows = self.path.read_bytes().splitlines(keepends=True)
        here = [index for index, row in enumerate(rows) if b'"id":"e' in row]
        if not here:
            return
        self.file.checkpoint()
        self._all_durable()
        self.file.append(lines([self.number]))  # so that it is no clean end
        self.written = [f"e{self.number}"]
        self.number += 1
        rows = self.path.read_bytes().splitlines(keepends=True)
        index = here[int(which * len(here) * 0.999)]
        name = _name(rows[index])
        rows[index] = rows[index].replace(b'"source":"s"', b'"source":"X"')
        self.path.write_bytes(b"".join(rows))
        self.file.close()
        with pytest.raises(JournalDamaged):
            open_live(self.path, "always")
        repair(self.path)
        self.file = open_plain(self.path)
        self.acknowledged += self.written
        self.acknowledged.remove(name)
        self.written = []
        self.synced = self.file.state.size

    # ── always ──

    @invariant()
    def what_was_acknowledged_is_read(self):
        if self.is_open:
            found = [name for name in ids(self.path) if re.fullmatch(r"e\d+", name)]  # a repair leaves a Gap
            assert found == self.acknowledged + self.written

    @invariant()
    def it_verifies(self):
        if self.is_open:
            report = verify_journal(self.path)
            assert report.exit == 0, report.findings


def _name(row):
    return "e" + row.split(b'"id":"e', 1)[1].split(b'"', 1)[0].decode()


pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


def run(examples, steps):
    Log.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case = Log.TestCase()
    case.runTest()


def test_any_life_of_a_log():
    run(15, 20)


@pytest.mark.slow
def test_many_lives_of_a_log():
    run(200, 40)
