"""The ends: one file each, one shared contract, one table of schemes.

    async with open_source("unix:/run/user/1000/eventbus/default.sock") as source: …
    async with open_sink("audit.jsonl") as sink: …

| written as                                  | means                                   | source | sink              |
|---------------------------------------------|-----------------------------------------|--------|-------------------|
| nothing, a bare name, `unix:/path.sock`     | the tap of a running bus                | ✓      | where it is allowed |
| a path: contains `/` or `.`, or exists      | a JSONL file, `.gz`, a directory        | ✓      | ✓                 |
| `-`                                         | standard input, standard output         | ✓      | ✓                 |
| `sqlite:///…`                               | OpsML's audit table                     | ✓      |                   |

To add an end: one file in this folder, one line in SCHEMES.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import UnknownEnd
from ..flow import Notify, Sink, Source, no_notice

DEFAULT_NAME = "default"
_BARE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(frozen=True, slots=True)
class Context:
    """What an end needs to know of the place it is opened in; the library reads no environment itself.

    folder: where bare names of buses are looked for. wait: a bus that is not there is waited for.
    foreign: files are looked at as closely as if they came from outside. fill: the `source` that lines from standard
    input are given when they have none (None: they must have one). mode: what is done with a file that exists.
    journal: how files are written, as `Journal`'s options.
    """

    folder: Path | None = None
    wait: bool = False
    foreign: bool = False
    fill: str | None = None
    mode: Literal["create", "append", "overwrite"] = "create"
    notify: Notify = no_notice
    journal: dict[str, Any] = field(default_factory=dict)


# Each end is imported where it is opened: a tail of a file needs no socket, and start-up is felt.


def _tap_source(text: str, context: Context) -> Source:
    from .tap import TapSource

    return TapSource(text, context.folder, notify=context.notify, wait=context.wait)


def _tap_sink(text: str, context: Context) -> Sink:
    from .tap import TapSink

    return TapSink(text, context.folder)


def _file_source(text: str, context: Context) -> Source:
    from .journal import JournalSource, is_journal

    if is_journal(text):
        return JournalSource(text, notify=context.notify)
    from .files import FileSource

    return FileSource(text, notify=context.notify, foreign=context.foreign)


def _file_sink(text: str, context: Context) -> Sink:
    from .recorder import JournalSink

    return JournalSink(text, mode=context.mode, notify=context.notify, **context.journal)


def _stdin(text: str, context: Context) -> Source:
    from .stdio import StdinSource

    return StdinSource(source=context.fill)


def _stdout(text: str, context: Context) -> Sink:
    from .stdio import StdoutSink

    return StdoutSink()


def _opsml_source(text: str, context: Context) -> Source:
    from .opsml import open_table

    return open_table(text, notify=context.notify)


@dataclass(frozen=True, slots=True)
class Scheme:
    """One line of the table: how an end is opened, and how it is written."""

    form: str
    source: Callable[[str, Context], Source] | None = None
    sink: Callable[[str, Context], Sink] | None = None


TAP = Scheme("unix:/path.sock, or the name of a live bus", _tap_source, _tap_sink)
FILE = Scheme("a path that contains / or .", _file_source, _file_sink)
PIPE = Scheme("-", _stdin, _stdout)
TABLE = Scheme("sqlite:///relative.db, sqlite:////absolute.db", _opsml_source)

SCHEMES: dict[str, Scheme] = {
    "unix": TAP,
    "sqlite": TABLE,
    "postgresql": TABLE,
    "postgres": TABLE,
    "mysql": TABLE,
}


def scheme_of(text: str) -> Scheme:
    """Which end a text means. Raises UnknownEnd with the forms that are known."""
    if text == "-":
        return PIPE
    match = _SCHEME.match(text)
    if match and not Path(text).exists():
        scheme = SCHEMES.get(match[1].lower())
        if scheme is not None:
            return scheme
        if "/" not in text[: match.end()] and (text[match.end() :].startswith("//") or "." not in text):
            forms = sorted({known.form for known in (TAP, FILE, PIPE, *SCHEMES.values())})
            # What follows the scheme may hold a password.
            raise UnknownEnd(f"{match[1]}:…", f"there is no end {match[1]!r}:", forms)
    if "/" in text or "." in text or (text and Path(text).exists()):
        return FILE
    if not text or _BARE_NAME.fullmatch(text):
        return TAP
    raise UnknownEnd(text, "neither a path nor a name (letters, digits, - and _)")


def _named(text: str) -> str:
    """An end as an error names it: what follows `scheme://` may hold a password."""
    scheme, separator, _ = text.partition("://")
    return f"{scheme}://…" if separator else text


def open_source(text: str = "", **context: Any) -> Source:
    """The source a text means, to be used with `async with`. Context: see Context.

    Raises UnknownEnd, Unreachable, Refused.
    """
    scheme = scheme_of(text)
    if scheme.source is None:
        raise UnknownEnd(_named(text), "can be written to, not read from")
    return scheme.source(text or DEFAULT_NAME, Context(**context))


def open_sink(text: str = "", **context: Any) -> Sink:
    """The sink a text means, to be used with `async with`. Context: see Context.

    Raises UnknownEnd, Unreachable, Refused, AlreadyThere.
    """
    scheme = scheme_of(text)
    if scheme.sink is None:
        raise UnknownEnd(_named(text), "can be read, not written to")
    return scheme.sink(text or DEFAULT_NAME, Context(**context))
