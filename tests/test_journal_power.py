"""Power cuts on real file systems: ext4 and XFS on loop devices, shut down by the kernel without flushing anything.

Needs root, loop devices and mkfs; left out aloud where the machine has none. `make faults` runs these.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import pytest
from journal_support import event, ids, write

from opsml_eventbus.journal import verify_journal
from opsml_eventbus.journal.segments import list_log

pytestmark = pytest.mark.slow

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN
WITHOUT_FLUSHING = (2).to_bytes(4, sys.byteorder)

SYSTEMS = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
}

LOAD = """
import asyncio, sys, os, time
from pathlib import Path
from opsml_eventbus.event import Event
from opsml_eventbus.journal import Journal

async def producer(journal, name):
    number = 0
    while True:
        await journal.append([Event.new("t", "x" * (number * 37 % 900), id=f"{name}-{number}")])
        os.write(1, f"{name}-{number} {time.monotonic_ns()}\\n".encode())
        number += 1

async def run():
    options = eval(sys.argv[2])
    async with Journal(Path(sys.argv[1]), **options) as journal:
        await asyncio.gather(*(producer(journal, name) for name in "abcd"))

asyncio.run(run())
"""


class Disk:
    """A file system in a file, that can lose its power."""

    def __init__(self, folder, kind):
        self.image, self.mount = folder / "image", folder / "mnt"
        self.mount.mkdir()
        with self.image.open("wb") as stream:
            stream.truncate(400 << 20)
        subprocess.run([*SYSTEMS[kind], str(self.image)], check=True, capture_output=True)

    def start(self):
        done = subprocess.run(["mount", "-o", "loop", self.image, self.mount], check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"cannot be mounted here: {done.stderr.decode().strip()}")

    def cut_power(self):
        """Returns when it began and when it was over (`time.monotonic_ns`, the same in every process)."""
        descriptor = os.open(self.mount, os.O_RDONLY)
        try:
            begun = time.monotonic_ns()
            fcntl.ioctl(descriptor, SHUTDOWN, WITHOUT_FLUSHING)
            return begun, time.monotonic_ns()
        finally:
            os.close(descriptor)

    def stop(self):
        subprocess.run(["umount", self.mount], check=True, capture_output=True)


@pytest.fixture(params=SYSTEMS)
def disk(request, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if shutil.which(SYSTEMS[request.param][0]) is None:
        pytest.skip(f"{SYSTEMS[request.param][0]} is not installed")
    disk = Disk(tmp_path, request.param)
    disk.start()
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk.mount], check=False, capture_output=True)


@contextmanager
def load(path, **options):
    """Four producers, until killed; yields a function that waits for so many acknowledgements and returns all.

    What it returns is `{id: when it was acknowledged}`, and grows until the end.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LOAD), str(path), repr(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    seen = {}

    def take(lines):
        seen.update((name, int(when)) for name, when in map(str.split, lines))

    def acknowledged(count):
        while len(seen) < count:
            line = process.stdout.readline()
            if not line:
                break
            take([line.decode()])
        return seen

    try:
        yield acknowledged
    finally:
        process.kill()
        take(process.stdout.read().decode().splitlines())
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("count", [1, 7, 60, 300])
@pytest.mark.parametrize("options", [{}, {"rotate_size": 20_000}, {"rotate_size": 20_000, "compress": "gzip"}])
def test_what_was_acknowledged_survives_a_power_cut(disk, count, options):
    path = disk.mount / "log" / "audit.jsonl"
    with load(path, fsync="always", **options) as acknowledged:
        seen = acknowledged(count)
        begun, over = disk.cut_power()
    disk.stop()
    disk.start()
    if list_log(path).segments:
        assert verify_journal(path).exit in (0, 3)
    write(path, [event(1)])
    found = ids(path)
    assert {name for name, when in seen.items() if when < begun} <= set(found)
    # A sync that was under way when the power was cut is reported as done by ext4 (its commit is aborted, and the
    # waiter finds nothing left to wait for): with real power nobody is there to hear it. It is the last one.
    late = [name.partition("-")[0] for name, when in seen.items() if when > over]
    assert len(late) == len(set(late)), "a second event of one producer was acknowledged after the power was gone"
    assert len(found) == len(set(found))
    assert verify_journal(path).exit == 0


@pytest.mark.parametrize("policy", ["interval=50ms", "never"])
def test_a_power_cut_never_looks_like_tampering_whatever_the_policy(disk, policy):
    path = disk.mount / "log" / "audit.jsonl"
    with load(path, fsync=policy) as acknowledged:
        acknowledged(2000)
        disk.cut_power()
    disk.stop()
    disk.start()
    if list_log(path).segments:
        assert verify_journal(path).exit in (0, 3)


def test_a_second_power_cut_during_recovery_changes_nothing(disk):
    path = disk.mount / "log" / "audit.jsonl"
    with load(path, fsync="always") as acknowledged:
        before = list(acknowledged(100))
        disk.cut_power()
    disk.stop()
    for _ in range(3):
        disk.start()
        with load(path, fsync="always", rotate_count=1) as acknowledged:
            acknowledged(1)
            disk.cut_power()
        disk.stop()
    disk.start()
    write(path, [event(1)])
    assert set(before) <= set(ids(path))
    assert verify_journal(path).exit == 0
