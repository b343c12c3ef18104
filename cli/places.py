"""Where things are on this machine: the one module that reads the environment, and hands on what it found."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .terminal import Notes

DEFAULT_NAME = "default"
CLOSED = {"stdin": "standard input is closed", "stdout": "standard output is closed"}


def named(given: str, dash: Literal["stdin", "stdout"] = "stdin") -> str:
    """What was named. dash: what `-` stands for.

    Raises UnknownEnd where nothing was: a script's variable that is not set. Raises Broken: `-`, and that is closed.
    """
    from opsml_eventbus.errors import Broken, UnknownEnd

    if not given:
        raise UnknownEnd("''", "an empty text names no bus and no file")
    if given == "-" and getattr(sys, dash) is None:
        raise Broken("", CLOSED[dash])
    return given


def endpoint(given: str | None = None) -> str:
    """The bus that is meant: the one given (see `named`), $EVENTBUS_ENDPOINT, the default bus."""
    return os.environ.get("EVENTBUS_ENDPOINT") or DEFAULT_NAME if given is None else named(given, "stdout")


def source(given: str | None, notes: Notes) -> str:
    """The source that is meant: the one given (see `named`), $EVENTBUS_ENDPOINT, OpsML's table, the default bus."""
    if given is not None:
        return named(given)
    if os.environ.get("EVENTBUS_ENDPOINT"):
        return os.environ["EVENTBUS_ENDPOINT"]
    uri = os.environ.get("OPSML_TRACKING_URI", "")
    # `http…` makes OpsML a client of another machine's server: there is no table here to read.
    if uri and not uri.startswith("http"):
        from opsml_eventbus.endpoints.opsml import from_tracking_uri

        url = from_tracking_uri(uri).text
        notes.say("reading OpsML's audit table, as OPSML_TRACKING_URI says (EVENTBUS_ENDPOINT wins over it)")
        return url
    return DEFAULT_NAME


def folder() -> Path:
    """Where the sockets of live buses are."""
    if sys.platform == "win32":
        from opsml_eventbus.errors import Unreachable

        raise Unreachable("tap", "Windows has no tap: files, pipes and tables work there, live buses do not")
    from opsml_eventbus.endpoints.tap import tap_folder

    return tap_folder(os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), os.getuid())


def bookmark(recording: str) -> Path:
    """Where the place of a replay of this recording is kept, for `--resume`."""
    import hashlib

    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    name = hashlib.sha256(os.fsencode(Path(recording).absolute())).hexdigest()[:32]
    return folder / "eventbus" / f"replay-{name}.json"


def is_of_log(path: Path, log: Path) -> bool:
    """Is `path`, which is there, the log at `log`, one of its files, or the folder it is in?"""
    from opsml_eventbus.errors import JournalRefused
    from opsml_eventbus.journal import find_log

    try:
        live = find_log(path).live
    except (OSError, JournalRefused):
        live = path
    return live.resolve() == log.resolve() or (live.exists() and log.exists() and live.samefile(log))


def log(text: str) -> Path:
    """The live path of the log that a path or a folder means. Raises UnknownEnd, Unreachable."""
    named(text)
    from opsml_eventbus.errors import JournalRefused, UnknownEnd, Unreachable, reason
    from opsml_eventbus.journal import find_log

    try:
        return find_log(text).live if Path(text).is_dir() else Path(text)
    except JournalRefused as error:
        raise UnknownEnd(text, error.reason) from error
    except OSError as error:
        raise Unreachable(text, reason(error)) from error


def context(**more: Any) -> dict[str, Any]:
    """What an end is told of this place."""
    return {"folder": None if sys.platform == "win32" else folder(), **more}
