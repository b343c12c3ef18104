"""The place of a replay, kept outside the recording so that a replay that was killed can go on: `--resume`.

Written before the first event, when it is a fifth of a second old, and at the end, so that after a kill -9 at most that
much is replayed again; ids tell a reader which. It is of one recording: where another has taken its name, there is
nothing to go on with.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from opsml_eventbus.journal.disk import make_folder
from opsml_eventbus.journal.format import Head, parse_head

SAVE_SECONDS = 0.2


def identity(file: str) -> str:
    """What tells a recording from another that took its name: a log's id, a plain file's first line, hashed."""
    from opsml_eventbus.endpoints.journal import log_id

    log = log_id(file)
    if log:
        return log
    try:
        with Path(file).open("rb") as stream:
            return sha256(stream.readline(1 << 20)).hexdigest()
    except OSError:
        return ""


class Bookmark:
    """path: where it is kept, None for nowhere. name: of the replay, when it is a new one. recording: its identity."""

    def __init__(self, path: Path | None, name: str, recording: str = "") -> None:
        self._recording = recording
        self._path = path
        self.name = name
        self.round = 1
        self._position: Any = None
        self._saved = 0.0

    @property
    def stamp(self) -> str:
        """What events of this round are stamped with."""
        return self.name if self.round == 1 else f"{self.name}#{self.round}"

    def open(self, name: str | None) -> str | None:
        """Go on where the last replay was. name: what it is to be called now. Returns a note; None: there is none."""
        if self._path is None:
            return None
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._path.read_bytes())
            position, round_ = kept["position"], int(kept["round"])
            if position is not None:
                position = parse_head(position) if isinstance(position, str) else int(position)
            if kept["recording"] != self._recording:
                return None
            self.name, self._position, self.round = name or str(kept["name"]), position, round_
            if position is None:  # it was stopped before anything was acknowledged, or written down
                return f"going on with {self.stamp!r} from its beginning"
            place = position.seq if isinstance(position, Head) else position
            return f"going on with {self.name!r} behind position {place:,}"
        return None

    def forget(self) -> None:
        """The replay has ended: there is no place to go on from any more."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()

    @property
    def kept(self) -> bool:
        """Is there a place to go on from?"""
        return self._position is not None

    def begin(self, round_: int) -> Any:
        """A round begins: the position it begins at, None for the beginning."""
        position = self._position if round_ == self.round else None
        self.round, self._position = round_, position
        return position

    def put(self, position: Any) -> None:
        """Everything up to here has been acknowledged."""
        if not isinstance(position, int | Head):
            return  # an end whose place is neither (a table): it cannot be gone on with from a file
        self._position = position
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write it down. Where that cannot be done, the replay goes on all the same."""
        if self._path is None:
            return
        self._saved = time.monotonic()
        with suppress(OSError):
            make_folder(self._path.parent)
            fresh = self._path.with_suffix(".new")
            position = str(self._position) if isinstance(self._position, Head) else self._position
            kept = {"recording": self._recording, "name": self.name, "position": position, "round": self.round}
            fresh.write_text(json.dumps(kept))
            fresh.replace(self._path)
