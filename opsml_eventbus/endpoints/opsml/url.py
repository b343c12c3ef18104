"""Where OpsML's table is, as text: our own URLs, and the forms OpsML reads from OPSML_TRACKING_URI.

| written | as a SOURCE (SQLAlchemy's reading) | in OPSML_TRACKING_URI (OpsML's, that is sqlx's) |
|---|---|---|
| `sqlite:///lab.db` | `lab.db` in the working directory | `/lab.db` |
| `sqlite:////srv/lab.db` | `/srv/lab.db` | `/srv/lab.db` |
| `sqlite://lab.db`, `sqlite:lab.db` | refused: two slashes name a host, and there is none | `lab.db` |

The two readings of three slashes differ, so the text does not say by itself which one is meant: whoever took it from
the environment calls `from_tracking_uri`, which answers in the first form. In both a path is percent-decoded (`%20`)
and what follows `?` is an option of the driver, not of the path.

No password ever leaves this module except in `TableUrl.text`, which is for a driver to connect with.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from ...errors import UnknownEnd

Dialect = Literal["sqlite", "postgresql", "mysql"]

FORMS = ("sqlite:///relative.db", "sqlite:////absolute.db", "postgresql://user@host/database", "mysql://…")
_DIALECTS: dict[str, Dialect] = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}


@dataclass(frozen=True, slots=True)
class TableUrl:
    """A database that is said to hold OpsML's table.

    name: how it is written where people and logs see it: no password, no options.
    path: the file, for SQLite; relative to the working directory or absolute.
    text: the whole URL in our own form, password included: what `open_table` or a driver is given.
    """

    dialect: Dialect
    name: str
    path: str = ""
    text: str = field(default="", repr=False)


def parse_url(text: str) -> TableUrl:
    """One of FORMS. Raises UnknownEnd, naming what could have been written."""
    scheme, separator, rest = text.partition(":")
    dialect = _DIALECTS.get(scheme.lower()) if separator else None
    if dialect is None:
        raise UnknownEnd(without_password(text), "no database we know", FORMS)
    if dialect != "sqlite":
        return TableUrl(dialect, without_password(text), text=text)
    if not rest.startswith("///"):
        raise UnknownEnd(text, "a SQLite file is written sqlite:///relative.db or sqlite:////absolute.db", FORMS)
    return _sqlite(_decoded(rest[3:]), text)


def from_tracking_uri(text: str) -> TableUrl:
    """What OpsML's server would open for this OPSML_TRACKING_URI: `postgres…`, `mysql…`, anything else SQLite.

    Raises UnknownEnd: `http…` (that is a server's address, for a client), a database in memory, no path at all.
    """
    if text.startswith(("postgres", "mysql")):
        return parse_url(text)
    if text.startswith("http"):
        reason = "the address of a server; its table can be read where its database is"
        raise UnknownEnd(without_password(text), reason, FORMS)
    path = text
    for prefix in ("sqlite://", "sqlite:"):
        if text.startswith(prefix):
            path = text[len(prefix) :]
            break
    if ":memory:" in path:
        raise UnknownEnd(text, "a database in memory can be read by its own process alone", FORMS)
    return _sqlite(_decoded(path), text)


def sqlite_url(path: str) -> str:
    """The URL of a SQLite file in our own form: text that `parse_url` reads back, any bytes in the path included."""
    return "sqlite:///" + quote(os.fsencode(path), safe="/~+,=@:()!$'*;&")


def without_password(text: str) -> str:
    """A URL as it may be shown: `scheme://user@host/database`, neither password nor options."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    rest = rest.partition("?")[0]
    # A password may hold any character that its writer forgot to escape, an @ and a / too: look from the right.
    account, at, place = rest.rpartition("@")
    return f"{scheme}://{account.partition(':')[0]}{at}{place}"


def _sqlite(path: str, text: str) -> TableUrl:
    if not path or path.endswith("/"):
        raise UnknownEnd(text, "no file is named", FORMS)
    if "\0" in path:
        raise UnknownEnd(text, "a path holds no NUL", FORMS)
    if path.startswith("//"):
        path = "/" + path.lstrip("/")
    url = sqlite_url(path)
    return TableUrl("sqlite", url, path, url)


def _decoded(path: str) -> str:
    return os.fsdecode(unquote_to_bytes(path.partition("?")[0]))
