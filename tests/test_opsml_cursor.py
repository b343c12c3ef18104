"""Laws of the place in a table: nothing twice, nothing missing that is not counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from opsml_eventbus.endpoints.opsml.cursor import Cursor, Page
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.filter import Filter
from opsml_eventbus.flow import Batch, Start

SOURCE = "sqlite:////srv/opsml.db"


class Model:
    """A table with AUTOINCREMENT, in memory."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.given_out = 0

    def insert(self, count: int) -> None:
        for _ in range(count):
            self.given_out += 1
            values = {"id": self.given_out, "created_at": f"2026-11-23 21:48:{self.given_out % 60:02}"}
            self.rows[self.given_out] = {**values, "username": f"user{self.given_out}", "operation": "List"}

    def page(self, cursor: Cursor, limit: int) -> Page:
        behind = sorted(key for key in self.rows if key > cursor.at)[:limit]
        mark = None if cursor.mark is None else self.rows.get(cursor.mark["id"])
        return Page([self.rows[key] for key in behind], len(behind) == limit, self.given_out, mark)


def cursor_over(start: Start = Start(), where: Filter | None = None) -> Cursor:
    return Cursor("opsml.db", SOURCE, where, start)


def items(batches: list[Batch]) -> list[Event | Gap]:
    return [record.item for batch in batches for record in batch.records]


def poll(model: Model, cursor: Cursor, limit: int) -> list[Batch]:
    """Look until there is nothing more."""
    batches = []
    while True:
        page = model.page(cursor, limit)
        assert cursor.displaced(page) is None
        cursor.gone(page)
        batch = cursor.take(page)
        if batch is not None:
            batches.append(batch)
        if not page.full:
            return batches


steps = st.lists(
    st.tuples(st.just("insert"), st.integers(1, 9))
    | st.tuples(st.just("delete"), st.integers(0, 60))
    | st.tuples(st.just("poll"), st.integers(1, 7)),
    max_size=40,
)


@given(steps)
@example([("insert", 2), ("delete", 1)])  # a row that came and went before the first look
def test_shown_plus_missed_is_every_id_given_out(script: list[tuple[str, int]]) -> None:
    model, cursor = Model(), cursor_over()
    batches = poll(model, cursor, 3)  # the table is empty: what comes from now on is all there is
    for step, number in (*script, ("poll", 5)):
        if step == "insert":
            model.insert(number)
        elif step == "delete":
            model.rows.pop(number, None)
        else:
            batches += poll(model, cursor, number)
    shown = [
        item.data["username"] if isinstance(item.data, dict) else item.data.username
        for item in items(batches)
        if isinstance(item, Event)
    ]
    missed = sum(item.missed or 0 for item in items(batches) if isinstance(item, Gap))
    assert shown == sorted(set(shown), key=lambda name: int(name[4:])), "once each, in their order"
    assert len(shown) + missed == model.given_out
    assert sum(batch.seen for batch in batches) == len(shown)


@given(st.sets(st.integers(1, 30)), st.integers(1, 7))
def test_each_hole_stands_where_it_is_with_its_size(deleted: set[int], limit: int) -> None:
    model = Model()
    model.insert(30)
    for key in deleted:
        del model.rows[key]
    expected: list[str | int] = []
    for key in range(1, 31):
        if key not in deleted:
            expected.append(f"user{key}")
        elif expected:  # what is missing before the first row is not counted
            if isinstance(expected[-1], int):
                expected[-1] += 1
            else:
                expected.append(1)
    found = [
        item.missed if isinstance(item, Gap) else item.data.username
        for item in items(poll(model, cursor_over(), limit))
    ]
    assert found == expected


def test_a_filter_does_not_make_holes_and_does_not_hide_them() -> None:
    model = Model()
    model.insert(6)
    del model.rows[4]
    where = Filter.of(user=["user6"])
    gap, event = items(poll(model, cursor_over(where=where), 10))
    assert isinstance(gap, Gap)
    assert isinstance(event, Event)
    assert (gap.missed, gap.reason) == (1, "source")
    before = items(poll(model, cursor_over(), 10))[2]
    assert gap.after == before.id, "the row before the hole, shown or not"


def test_holes_outside_the_times_asked_for_do_not_count() -> None:
    model = Model()
    model.insert(12)
    for key in (2, 6, 11):
        del model.rows[key]
    time = {item.data.username: item.time for item in items(poll(model, cursor_over(), 20)) if isinstance(item, Event)}
    start = Start(since=time["user4"], until=time["user9"])
    found = [
        item.missed if isinstance(item, Gap) else item.data.username
        for item in items(poll(model, cursor_over(start), 20))
    ]
    assert found == ["user4", "user5", 1, "user7", "user8"]


def test_a_row_that_is_no_event_costs_itself() -> None:
    model = Model()
    model.insert(3)
    model.rows[2]["created_at"] = None
    (batch,) = poll(model, cursor_over(), 10)
    first, gap, third = items([batch])
    assert isinstance(gap, Gap)
    assert (gap.missed, gap.reason, gap.after) == (1, "invalid", first.id)
    assert third.data.username == "user3"
    (refusal,) = batch.refusals
    assert (refusal.place, refusal.error.place) == ("opsml.db: row 2", "created_at")


def test_a_row_changed_at_the_place_means_another_table() -> None:
    model, cursor = Model(), cursor_over()
    model.insert(5)
    poll(model, cursor, 10)
    model.rows[5] = {**model.rows[5], "username": "someone else"}
    assert "row 5" in str(cursor.displaced(model.page(cursor, 10)))
    (gap,) = items([cursor.begin_again()])
    assert isinstance(gap, Gap)
    assert (gap.missed, gap.reason) == (None, "source")
    assert len(items(poll(model, cursor, 10))) == 5


def test_a_migration_is_not_another_table() -> None:
    model, cursor = Model(), cursor_over()
    model.insert(5)
    poll(model, cursor, 10)
    model.rows = {key: {**row, "tenant": "default"} for key, row in model.rows.items()}
    del model.rows[5]["operation"]
    assert cursor.displaced(model.page(cursor, 10)) is None


def test_ids_given_out_again_mean_another_table() -> None:
    model, cursor = Model(), cursor_over()
    model.insert(5)
    poll(model, cursor, 10)
    model.rows.clear()
    model.given_out = 0
    assert "now only up to 0" in str(cursor.displaced(model.page(cursor, 10)))


def test_another_database_is_another_table_also_when_no_row_is_left_to_compare() -> None:
    model, cursor = Model(), cursor_over()
    model.insert(5)
    poll(model, cursor, 10)
    del model.rows[5]
    poll(model, cursor, 10)
    model.insert(2)
    page = model.page(cursor, 10)
    assert cursor.displaced(page) is None
    assert cursor.displaced(replace(page, replaced=True)) is not None


def test_another_database_is_no_loss_when_nothing_had_been_written() -> None:
    model, cursor = Model(), cursor_over()
    poll(model, cursor, 10)
    model.insert(2)
    assert cursor.displaced(replace(model.page(cursor, 10), replaced=True)) is None


def test_rows_deleted_after_they_were_read_are_said_once_and_are_not_missing() -> None:
    model, cursor = Model(), cursor_over()
    model.insert(5)
    poll(model, cursor, 10)
    model.rows.clear()
    page = model.page(cursor, 10)
    assert cursor.displaced(page) is None
    assert cursor.gone(page) == 5
    assert cursor.gone(page) is None
    model.insert(1)
    (event,) = items(poll(model, cursor, 10))
    assert event.data.username == "user6"
