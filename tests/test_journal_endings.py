"""However a journal ends, everyone who waits for it is answered, and everything it held is given back."""

from __future__ import annotations

import asyncio
import errno
import os
import threading

import pytest
from journal_support import event

from opsml_eventbus.errors import JournalFailed
from opsml_eventbus.journal import Journal, committer, live


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.mark.parametrize("behind", ["a rotation", "a batch that is too large to go along"])
def test_what_was_taken_out_of_the_queue_is_answered_when_the_batch_before_it_fails(path, monkeypatch, behind):
    go, syncs = threading.Event(), []

    def sync(descriptor):
        """The first is a slow one, during which others queue; the second fails."""
        syncs.append(descriptor)
        if len(syncs) > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        go.wait(10)

    async def run():
        async with Journal(path) as journal:
            monkeypatch.setattr(live, "sync", sync)
            monkeypatch.setattr(committer, "BATCH_BYTES", 0)
            calls = [journal.append([event(1)]), journal.append([event(2)])]
            calls.append(journal.rotate() if behind == "a rotation" else journal.append([event(3)]))
            tasks = []
            for call in calls:
                tasks.append(asyncio.create_task(call))
                await asyncio.sleep(0.01)
            assert len(syncs) == 1
            go.set()
            async with asyncio.timeout(5):
                return await asyncio.gather(*tasks, return_exceptions=True)

    _, *failed = asyncio.run(run())
    assert [type(error) for error in failed] == [JournalFailed, JournalFailed]
