"""A SQLite file with OpsML's table in it, and the writing side of it."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from opsml_eventbus.event import Event, Gap

SCHEMA = """
CREATE TABLE opsml_audit_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    username TEXT NOT NULL, client_ip TEXT NOT NULL, user_agent TEXT, operation TEXT NOT NULL,
    resource_type TEXT NOT NULL, resource_id TEXT NOT NULL, access_location TEXT, status TEXT NOT NULL,
    error_message TEXT, metadata TEXT, registry_type TEXT, route TEXT)
"""


class Server:
    """The writing side: what OpsML does to its file, done here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        self.sql = sqlite3.connect(path, isolation_level=None, timeout=0.5, check_same_thread=False).execute
        self.sql(SCHEMA)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def insert(self, count: int = 1, **columns: Any) -> None:
        """Rows named user1, user2, …, in one transaction."""
        self.sql("BEGIN IMMEDIATE")
        for _ in range(count):
            self._count += 1
            row = {
                "username": f"user{self._count}", "client_ip": "127.0.0.1", "user_agent": "opsml-client/",
                "operation": "List", "resource_type": "Database", "resource_id": "list_cards", "status": "Success",
                "metadata": "{}", "registry_type": "prompt", "route": "/opsml/api/card/list", **columns,
            }  # fmt: skip
            names, places = ", ".join(row), ", ".join("?" * len(row))
            self.sql(f"INSERT INTO opsml_audit_event ({names}) VALUES ({places})", tuple(row.values()))
        self.sql("COMMIT")

    def delete(self, where: str) -> None:
        self.sql(f"DELETE FROM opsml_audit_event WHERE {where}")

    def close(self) -> None:
        self.sql.__self__.close()


def names(items: list[Event | Gap]) -> list[str | int | None]:
    """Users for events, `missed` for Gaps."""
    return [item.missed if isinstance(item, Gap) else item.data.username for item in items]


def users(first: int, last: int) -> list[str | int | None]:
    return [f"user{number}" for number in range(first, last + 1)]


def assert_no_thread_is_left() -> None:
    """The worker threads of every source have ended, or do so now."""
    for thread in threading.enumerate():
        if thread.name.startswith("opsml-table"):
            thread.join(5)
            assert not thread.is_alive()


def assert_no_other_has_it_open(path: Path) -> None:
    """The writing side has the file open, and nobody else in this process. (Where /proc shows it.)"""
    found = [link for link in Path("/proc/self/fd").glob("*") if os.path.realpath(link) == os.path.realpath(path)]
    assert len(found) <= 1
