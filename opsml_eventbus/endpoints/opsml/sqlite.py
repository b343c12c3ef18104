"""OpsML's table in a SQLite file, read beside the running server without disturbing it.

- The file is opened `mode=ro`; nothing is written, created or rolled back.
- A look is one read transaction of a millisecond (`BEGIN … COMMIT` round two or three small selects), then the shared
  lock is let go: with `journal_mode=delete`, which OpsML uses, a reader that stays blocks the writer's commit.
- Whether something was written is seen from the file's size and times, which takes no lock at all.
- The file is watched by its name too: when another one takes its place, that one is opened.

Never in the process of the server: SQLite's locks are the process's, so closing the file in one library takes them from
the other, and the database is corrupted. A file is therefore looked at with `stat`, and opened by SQLite alone.

Ids become visible in their order: SQLite has one writer, and `AUTOINCREMENT` never uses an id again. The greatest id
ever given out is in `sqlite_sequence`; a transaction that is rolled back gives it back there too.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ...errors import Broken, EndError, Refused, Unencodable, Unreachable, reason
from ...flow import Notify, no_notice
from ...timestamps import format_time
from .cursor import Page
from .rows import NEEDED, TABLE, Row
from .table import Table, TableSource, TryAgain
from .url import parse_url, sqlite_url

BUSY_SECONDS = 2.0  # how long SQLite itself waits for a lock before it says busy
SKIP_ROWS = 10_000  # passed over in one statement: a few milliseconds of the lock
PAGE_BYTES = 4 << 20  # of text in one page: bounds what is held when rows are large

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_PROTOCOL}
_LATER = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_FOREIGN = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}

_AFTER = f"SELECT * FROM {TABLE} WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608 - a constant
_BEFORE = f"SELECT * FROM {TABLE} WHERE id < ? ORDER BY id DESC LIMIT ?"  # noqa: S608
_LATEST = f"SELECT * FROM {TABLE} ORDER BY id DESC LIMIT ?"  # noqa: S608
_ONE = f"SELECT * FROM {TABLE} WHERE id = ?"  # noqa: S608
_SKIP = f"""
    SELECT min(id) FILTER (WHERE created_at IS NULL OR typeof(created_at) <> 'text' OR created_at NOT GLOB
               '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]' OR created_at >= ?),
           max(id), count(*)
    FROM (SELECT id, created_at FROM {TABLE} WHERE id > ? ORDER BY id LIMIT ?)
"""  # noqa: S608
_GREATEST = f"SELECT max(id) FROM {TABLE}"  # noqa: S608
_GIVEN_OUT = "SELECT seq FROM sqlite_sequence WHERE name = ?"

# Text that is no UTF-8 must cost its own row, not the page: it becomes surrogates, which the codec refuses by name.
_text = partial(str, encoding="utf-8", errors="surrogateescape")


class SqliteSource(TableSource):
    """OpsML's audit table in a SQLite file, as a source."""

    def __init__(self, path: str | Path, *, notify: Notify = no_notice) -> None:
        """path: a path, or `sqlite:///relative.db`, `sqlite:////absolute.db`; relative to the working directory now.

        Raises Unreachable: there is no such file. Refused: it is no file. UnknownEnd: the URL is none of these.
        """
        text = os.fspath(path)
        name = text
        if text.startswith("sqlite:"):
            url = parse_url(text)
            text, name = url.path, url.name
        table = SqliteTable(text, name)
        super().__init__(name, table, notify=notify)


class SqliteTable(Table):
    """One SQLite file; see Table."""

    def __init__(self, path: str, name: str) -> None:
        self._path = os.path.abspath(path)  # noqa: PTH100 - a Path would fold `//` and resolve nothing else
        self._name = name
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of the file that is open
        self._seen: object = None  # its size and times when it was last looked at
        self._sequence = False
        self._identify()
        self.source = _source(self._path)

    def open(self) -> None:
        """See Table. Raises Unreachable, Refused, TryAgain."""
        self.close()
        self._file = self._identify()
        self.source = _source(self._path)
        uri = f"{Path(self._path).as_uri()}?mode=ro"
        with self._errors(opening=True):
            # Autocommit: between BEGIN and COMMIT of a look, and never else, there is a transaction.
            connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
            self._connection = connection
            connection.text_factory = _text
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({TABLE})")]
            if not columns:
                raise Refused(self._name, f"has no table {TABLE}")
            lacking = [name for name in NEEDED if name not in columns]
            if lacking:
                raise Refused(self._name, f"its table {TABLE} has no column {' and no '.join(lacking)}")
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").fetchone()
            self._sequence = found is not None

    def look(self, after: int, mark: int | None, limit: int) -> Page:
        """See Table."""
        replaced = self._follow_name()
        seen = self._state()
        with self._snapshot() as connection:
            rows, full = _rows(connection.execute(_AFTER, (after, limit)), limit)
            marked = None
            if mark is not None:
                marked = next(iter(_rows(connection.execute(_ONE, (mark,)), 1)[0]), None)
            given_out = connection.execute(_GREATEST).fetchone()[0] or 0
            if self._sequence:
                sequence = connection.execute(_GIVEN_OUT, (TABLE,)).fetchone()
                given_out = max(given_out, sequence[0] if sequence else 0)
        self._seen = seen
        return Page(rows, full, given_out, marked, replaced)

    def look_back(self, before: int | None, limit: int) -> Sequence[Row]:
        """See Table."""
        with self._snapshot() as connection:
            found = (
                connection.execute(_LATEST, (limit,))
                if before is None
                else connection.execute(_BEFORE, (before, limit))
            )
            return _rows(found, limit)[0]

    def skip(self, after: int, since: int) -> tuple[int, bool]:
        """See Table. Exact: a time in OpsML's form sorts as text, and a row in any other form is not passed over."""
        try:
            text = format_time(since)[:19].replace("T", " ")
        except Unencodable:
            return after, True
        with self._snapshot() as connection:
            first, last, count = connection.execute(_SKIP, (text, after, SKIP_ROWS)).fetchone()
        if first is not None:
            return first - 1, True
        return (after if last is None else last), count < SKIP_ROWS

    def changed(self) -> bool:
        """See Table. The write-ahead log is looked at too, should the server use one."""
        return self._state() != self._seen

    def close(self) -> None:
        """See Table."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _identify(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)  # noqa: PTH116
        except OSError as error:
            raise Unreachable(self._name, reason(error)) from error
        if not stat.S_ISREG(found.st_mode):
            raise Refused(self._name, "is no file")
        return found.st_dev, found.st_ino

    def _state(self) -> object:
        return _stamp(self._path), _stamp(f"{self._path}-wal")

    def _follow_name(self) -> bool:
        """Open the file that has this name now, if it is not the one that is open."""
        try:
            if self._connection is not None and self._identify() == self._file:
                return False
            self.open()
        except (Unreachable, Refused) as error:
            self.close()
            raise TryAgain(error.reason, gone=True) from error
        return True

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        if connection is None:
            raise TryAgain("is not open", gone=True)
        with self._errors():
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _errors(self, *, opening: bool = False) -> Iterator[None]:
        """SQLite's errors as ours: what may pass, and what will not."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if opening or code not in _BUSY:
                self.close()  # the next look opens it again
            if code in _BUSY:
                raise TryAgain("the database is busy", busy=True) from error
            if code in _FOREIGN:
                kind: type[EndError] = Refused if opening else Broken
                reason = "is no SQLite database" if code == sqlite3.SQLITE_NOTADB else str(error)
                raise kind(self._name, reason) from error
            if code in _LATER:
                if opening and not os.access(self._path, os.R_OK):
                    raise Refused(self._name, "may not be read") from error
                # A reader may write only when a writer died halfway: its journal must be rolled back first.
                left = code == sqlite3.SQLITE_READONLY
                reason = "a server that died left a transaction, which a server must roll back" if left else str(error)
                raise TryAgain(reason) from error
            if "no such table" in str(error):
                raise TryAgain(f"has no table {TABLE} any more", gone=True) from error
            raise Broken(self._name, str(error)) from error


def _rows(found: sqlite3.Cursor, limit: int) -> tuple[list[Row], bool]:
    """Rows by column name, as many as PAGE_BYTES allow (one at least), and whether there may be more."""
    names = [column[0] for column in found.description]
    rows: list[Row] = []
    size = 0
    for values in found:
        rows.append(dict(zip(names, values, strict=True)))
        size += sum(len(value) for value in values if isinstance(value, str | bytes))
        if size > PAGE_BYTES:
            found.close()
            return rows, True
    return rows, len(rows) >= limit


def _stamp(path: str) -> object:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _source(path: str) -> str:
    """Who emitted these events: the file, by the one name that all its names lead to."""
    return sqlite_url(os.path.realpath(path))
