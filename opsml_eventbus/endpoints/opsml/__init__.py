"""OpsML's audit table as a source: what a running OpsML server did, row by row, as Events.

    async with open_table("sqlite:///opsml.db") as source:
        async for batch in source.batches(start=Start(follow=True)): …

One file per dialect (`sqlite`; PostgreSQL and MySQL are to come), over what they share: `url` (where the table is),
`rows` (row → Event), `cursor` (place and holes), `table` (following). docs/adr/0010-opsml-rows.md says why it is so.
"""

from __future__ import annotations

from ...errors import UnknownEnd
from ...flow import Notify, Source, no_notice
from .sqlite import SqliteSource
from .url import FORMS, TableUrl, from_tracking_uri, parse_url, without_password

__all__ = [
    "FORMS",
    "SqliteSource",
    "TableUrl",
    "from_tracking_uri",
    "open_table",
    "parse_url",
    "without_password",
]


def open_table(text: str, *, notify: Notify = no_notice) -> Source:
    """The source a database URL means. Raises UnknownEnd, Unreachable, Refused."""
    url = parse_url(text)
    if url.dialect == "sqlite":
        return SqliteSource(url.name, notify=notify)
    raise UnknownEnd(url.name, f"{url.dialect} is not read yet", FORMS[:2])
