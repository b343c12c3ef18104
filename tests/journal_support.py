"""Journals made to order for the tests, and ways to break them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import second_verifier

from opsml_eventbus.audit import AuditEvent
from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.journal import Damage, Journal, Line, read_journal
from opsml_eventbus.journal.compress import compress_segment, remove_segment
from opsml_eventbus.journal.format import Head, Open, read_chain, read_control, read_place, write_lines
from opsml_eventbus.journal.lines import read_blocks
from opsml_eventbus.journal.live import LiveFile
from opsml_eventbus.journal.recovery import open_live
from opsml_eventbus.journal.retention import Retention
from opsml_eventbus.journal.segments import Segment, list_log
from opsml_eventbus.journal.sign import Signer
from opsml_eventbus.journal.walk import TAMPERED, Finding, Walk

EXAMPLES = Path(__file__).parent.parent / "examples"
START = 1_763_934_539_747_576_123


def event(number: int, **members: Any) -> Event:
    """A small event that is told apart by its id, `e<number>`."""
    members.setdefault("time", START + number * 1_000_000)
    return Event.new("t", {"n": number}, id=f"e{number}", source="s", **members)


def audit(number: int) -> Event:
    """An event of the size OpsML writes."""
    return Event.new(
        "audit",
        AuditEvent(username=f"user{number % 7}", resource_id=f"card-{number}", metadata='{"a":"' + "x" * 80 + '"}'),
        time=START + number * 1_000,
    )


def lines(numbers: Iterable[int]) -> list[bytes]:
    return [encode_line(event(number)) for number in numbers]


def pack(path: Path) -> None:
    """Compress the finished files."""
    for segment in list_log(path).sealed:
        compress_segment(segment, "gzip")


def prune(file: LiveFile, keep: int, signer: Signer | None = None) -> list[Segment]:
    """Declare what is too old, then remove it."""
    going = Retention(file.path, keep, file.state.log, signer).going()
    if going:
        file.declare_pruned([gone.record for gone in going])
    for gone in going:
        remove_segment(gone.segment)
    return [gone.segment for gone in going]


def open_plain(path: Path, fsync: Any = "always") -> LiveFile:
    """The file without its thread: every step is ours to take."""
    return open_live(path, fsync)[0]


def make(path: Path, batches: Sequence[Sequence[int]], *, rotate_after: Sequence[int] = (), close: bool = True) -> Path:
    """A journal of these batches, each synced, with a rotation after those counted in `rotate_after` (from 1)."""
    file = open_plain(path)
    for count, numbers in enumerate(batches, 1):
        file.append(lines(numbers))
        file.sync()
        if count in rotate_after:
            file.rotate()
    if close:
        file.checkpoint()
    file.close()
    return path


def ids(path: Path, **options: Any) -> list[str]:
    """The ids of what a reader is shown."""
    return [decode_line(item.line).id for item in read_journal(path, **options) if isinstance(item, Line)]


def damages(path: Path) -> list[Damage]:
    return [item for item in read_journal(path) if isinstance(item, Damage)]


def write(path: Path, items: Sequence[Event | Gap | bytes], **options: Any) -> None:
    async def run() -> None:
        async with Journal(path, **options) as journal:
            await journal.append(items)

    asyncio.run(run())


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def restore(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def line_ends(data: bytes) -> list[int]:
    """The offsets behind each newline."""
    return [index + 1 for index, byte in enumerate(data) if byte == 0x0A]


def walk_bytes(files: Sequence[tuple[int | None, bytes]]) -> int:
    """The exit code of a log that is these bytes: `verify` without a file system, for exhaustive tests."""
    kinds: set[str] = set()
    findings: list[Finding] = []
    walk = Walk(findings.append)
    for first, data in files:
        walk.begin("f", first)
        rest = [data]
        for block in read_blocks(lambda _, rest=rest: rest.pop() if rest else b""):
            walk.feed(block)
        walk.end()
    walk.finish()
    kinds = {finding.judged(walk.durable).kind for finding in findings}
    least = walk.least_damage
    if kinds & TAMPERED or (least is not None and least <= walk.durable):
        return 5
    return 3 if findings else 0


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    """Some bytes changed and every chain value behind them computed anew, as someone would who knows the format."""
    rows = path.read_bytes().splitlines()
    places = [place for row in rows if (place := read_place(row)) is not None]
    opened = read_control(rows[0])
    assert isinstance(opened, Open)
    head, data = Head(places[0].seq - 1, read_chain(opened.previous)), b""
    for row, place in zip(rows, places, strict=True):
        head, line = write_lines(head, place.durable, [row[: place.start].replace(old, new) + b"}"])
        data += line
    assert data != path.read_bytes()
    path.write_bytes(data)


def independent_verifier() -> Callable[[Path], int]:
    """Written from the document alone, too; it shares nothing with ours, and goes into damaged bytes as the document
    says, which the example does not."""
    return second_verifier.verify


def example_verifier() -> Callable[[Path], int]:
    """The program of the example."""
    spec = importlib.util.spec_from_file_location("independent", EXAMPLES / "verify_independently.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def verify(live: Path) -> int:
        try:
            return int(module.verify(live))
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError):
            return 5  # as it says itself

    return verify


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Killed(BaseException):
    """As if by SIGKILL: no handler may do anything more to the disk."""


class KillAt:
    """Within it, the process `dies` at its n-th call that changes the disk (`half`: a write then writes half)."""

    CALLS = ("write", "pwrite", "fdatasync", "fsync", "ftruncate", "rename", "unlink")

    def __init__(self, count: int, *, half: bool = False) -> None:
        self._left = count
        self._half = half
        self._real = {name: getattr(os, name) for name in self.CALLS}
        self.killed = False
        self._open, self._close = os.open, os.close
        self._descriptors: set[int] = set()

    def __enter__(self) -> Self:
        for name in self.CALLS:
            setattr(os, name, self._hook(name))
        os.open, os.close = self._opening, self._closing
        return self

    def _opening(self, *arguments: Any, **options: Any) -> int:
        descriptor = self._open(*arguments, **options)
        self._descriptors.add(descriptor)
        return descriptor

    def _closing(self, descriptor: int) -> None:
        self._descriptors.discard(descriptor)
        self._close(descriptor)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        for name, function in self._real.items():
            setattr(os, name, function)
        os.open, os.close = self._open, self._close
        for descriptor in self._descriptors:  # a process that is gone holds none, and no lock
            with contextlib.suppress(OSError):  # closed by the file object it was handed to
                os.close(descriptor)
        return self.killed and kind is Killed

    def _hook(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.killed:
                raise Killed
            self._left -= 1
            if self._left < 0:
                self.killed = True
                if self._half and name in ("write", "pwrite"):
                    descriptor, data, *rest = arguments
                    self._real[name](descriptor, bytes(data)[: len(data) // 2], *rest)
                raise Killed
            return self._real[name](*arguments, **options)

        return call
