"""Pages of rows in, batches out: what of a table matches, and what is missing from it. Pure; no database, no clock.

A row id that was given out and has no row is a loss, and stands as a Gap (`source`) with its exact number: OpsML only
ever inserts, and a transaction that is rolled back gives its id back (SQLite). Somebody deleted those rows. Three rules
keep that from crying wolf:
- What lies before the first row that is read is not missing: a table may be pruned from its beginning, and a reader
  may begin in the middle.
- Rows deleted after they were read are not missing from the stream; that they are gone is said, once.
- With `since` or `until`, a hole counts where the rows beside it say it could lie within.

The place in the table is remembered with the row that stood there (`mark`). When that row is another one, or ids are
given out again that had been used, this is not the table that was read: how much was missed cannot be known (Gap with
`missed` None), and the table is read from its beginning. What had been read before keeps its ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import InvalidEvent
from ...event import Event, Gap
from ...filter import Filter
from ...flow import Batch, Record, Refusal, Start
from .rows import Row, event_from_row, row_event_id

BEFORE_ALL = -(1 << 63)  # below every id: 64 bits, signed


@dataclass(frozen=True, slots=True)
class Page:
    """What a table had at one moment, in one snapshot.

    rows: those behind the place asked for, by id, at most `limit`. full: there may be more.
    given_out: the greatest id that was ever given out. mark: the row that stands at the remembered place, if any.
    replaced: the database was opened anew since the last page; it may be another one.
    """

    rows: Sequence[Row]
    full: bool
    given_out: int
    mark: Row | None = None
    replaced: bool = False


@dataclass(slots=True)
class Cursor:
    """A place in the table, and the way from rows to records.

    at: everything up to this id has been dealt with. known: nothing before it is unaccounted for.
    mark: the row that was last read, as it was. last: the id of its event.
    """

    name: str
    source: str
    where: Filter | None
    start: Start
    at: int = BEFORE_ALL
    known: bool = False
    mark: Row | None = None
    last: str | None = None
    time: int | None = field(default=None, init=False)  # of the event that was last read

    def stand_at(self, row: Row) -> None:
        """Everything up to this row has been had."""
        self.at, self.mark, self.last, self.known = row["id"], row, self.identify(row), True

    def stand_at_end(self, newest: Row | None, given_out: int) -> None:
        """Begin with what is written from now on. newest: the last row there is, looked up after `given_out`."""
        if newest is not None:
            self.stand_at(newest)
        # Rows given out before and gone now are no news.
        self.at, self.known = max(self.at, given_out), True

    def stand_behind(self, key: int) -> None:
        """Begin with the first row behind this id; what lies before that one is nobody's loss."""
        self.at, self.mark, self.last, self.known = key, None, None, False

    def identify(self, row: Row) -> str | None:
        """The id of the event this row is, None when it cannot be one."""
        try:
            return row_event_id(row, self.source)
        except InvalidEvent:
            return None

    def matches(self, row: Row) -> bool:
        """Would this row be shown? A row that cannot be an event would: as a Gap."""
        try:
            event = event_from_row(row, self.source)
        except InvalidEvent:
            return True
        return self._admits(event)

    def displaced(self, page: Page) -> str | None:
        """Why the place is not where it was, one clause; None when it is. A mark that is merely gone: see `gone`."""
        if self.mark is not None and page.mark is not None:
            old, new = self.mark, page.mark
            # A migration may have added or dropped a column: what both know decides.
            if any(old[column] != new[column] for column in old.keys() & new.keys()):
                return f"row {old['id']} is not the one that was read"
            return None
        if self.at != BEFORE_ALL and page.given_out < self.at:
            return f"ids up to {self.at} had been given out, and now only up to {page.given_out}"
        if page.replaced and self.at > 0:
            return "another database has taken its place"
        return None

    def gone(self, page: Page) -> int | None:
        """The id of the row that was last read, if it has been deleted since. Said once."""
        if self.mark is None or page.mark is not None:
            return None
        key: int = self.mark["id"]
        self.mark = None
        return key

    def begin_again(self) -> Batch:
        """Go to the beginning of what is now another table; the Gap that says so."""
        gap = Gap.new(None, self.last, "source", source=self.source)
        self.at, self.mark, self.last, self.known, self.time = BEFORE_ALL, None, None, False, None
        return Batch([Record(gap)])

    def take(self, page: Page) -> Batch | None:
        """The batch a page makes, and move behind it; None when there is nothing in it."""
        batch = Batch([])
        for row in page.rows:
            self._take_row(row, batch)
        if not page.full:
            if page.given_out > self.at:
                if self.known:  # rows that came and went, or the last ones of all, deleted
                    self._hole(page.given_out - self.at, None, batch)
                self.at = page.given_out
            self.known = True
        batch.position = self.at
        batch.seen = len(page.rows)
        return batch if batch.records or batch.seen else None

    def _take_row(self, row: Row, batch: Batch) -> None:
        key: int = row["id"]
        event: Event | None = None
        try:
            event = event_from_row(row, self.source)
        except InvalidEvent as error:
            batch.refusals.append(Refusal(f"{self.name}: row {key}", error))
        if self.known and key > self.at + 1:
            self._hole(key - self.at - 1, event, batch)
        if event is None:
            batch.records.append(Record(Gap.new(1, self.last, "invalid", source=self.source)))
        else:
            if self._admits(event):
                batch.records.append(Record(event))
            self.last, self.time = event.id, event.time
        self.at, self.mark, self.known = key, row, True

    def _admits(self, event: Event) -> bool:
        return self.start.admits(event) and (self.where is None or self.where.matches(event))

    def _hole(self, missed: int, behind: Event | None, batch: Batch) -> None:
        since, until = self.start.since, self.start.until
        outside = (until is not None and self.time is not None and self.time >= until) or (
            since is not None and behind is not None and behind.time < since
        )
        if not outside:
            batch.records.append(Record(Gap.new(missed, self.last, "source", source=self.source)))
