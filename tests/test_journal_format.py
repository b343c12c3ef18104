"""The format as documented: its numbers, its one spelling, and that a stranger can check it from the document."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from journal_support import (
    audit,
    event,
    example_verifier,
    ids,
    independent_verifier,
    line_ends,
    lines,
    make,
    open_plain,
    restore,
    snapshot,
    write,
)

from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.event import Event, Gap
from opsml_eventbus.journal import verify_journal
from opsml_eventbus.journal.compress import compress_segment
from opsml_eventbus.journal.format import (
    ZERO,
    Checkpoint,
    Head,
    Open,
    Tally,
    control_line,
    is_control,
    link,
    read_control,
    read_place,
    write_lines,
)
from opsml_eventbus.journal.segments import list_log, parse_segment, segment_path

ROOT = Path(__file__).parent.parent


pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


@pytest.fixture(scope="module", params=[independent_verifier, example_verifier])
def independent(request):
    return request.param()


def test_the_chain_value_of_the_document():
    text = (ROOT / "docs" / "journal-format.md").read_text()
    assert link(ZERO, b'{"a').hex() in text
    assert link(ZERO, b'{"a') == hashlib.sha256(b"eventbus/journal/v1\0" + bytes(32) + b'{"a').digest()


def test_a_line_is_the_event_s_own_and_its_place():
    line = encode_line(event(1))
    head, data = write_lines(Head(), 0, [line])
    body = line[:-1] + b',"seq":1,"durable":0'
    assert data == body + b',"chain":"' + link(ZERO, body).hex().encode() + b'"}\n'
    assert head == Head(1, link(ZERO, body))
    place = read_place(data[:-1])
    assert (place.seq, place.durable, place.chain) == (1, 0, head.chain)
    assert decode_line(data) == event(1)
    assert encode_line(decode_line(data)) == line


@pytest.mark.parametrize(
    "tail",
    [
        b',"seq":01,"durable":0,"chain":"' + b"a" * 64 + b'"}',
        b',"seq":0,"durable":0,"chain":"' + b"a" * 64 + b'"}',
        b',"seq":1,"durable":00,"chain":"' + b"a" * 64 + b'"}',
        b',"seq":1,"durable":0,"chain":"' + b"A" * 64 + b'"}',
        b',"seq":1,"durable":0,"chain":"' + b"a" * 63 + b'"}',
        b',"seq":1, "durable":0,"chain":"' + b"a" * 64 + b'"}',
        b',"seq":-1,"durable":0,"chain":"' + b"a" * 64 + b'"}',
        b',"seq":' + b"1" * 20 + b',"durable":0,"chain":"' + b"a" * 64 + b'"}',
        b',"seq":1,"durable":0,"chain":"' + b"a" * 64 + b'"} ',
        b"",
    ],
)
def test_a_place_has_one_spelling(tail):
    assert read_place(b'{"id":"x"' + tail) is None


def test_control_records_begin_as_documented_and_read_back():
    for record in (
        Open(1, "log", 7, "0" * 64, "always", Tally(3, "a", "b")),
        Checkpoint(Tally()),
    ):
        line = control_line(record, 1_763_934_539_747_576_123)
        name = type(record).__name__.lower().encode()
        assert re.match(
            rb'\{"specversion":"1\.0","id":"[0-9a-f-]{36}","source":"eventbus\.journal",'
            rb'"type":"eventbus\.journal\.' + name + rb'","time":"2025-11-23T21:48:59\.747576123Z","data":\{',
            line,
        )
        assert is_control(line)
        assert read_control(line) == record


def test_an_event_that_quotes_a_control_record_is_none():
    control = control_line(Checkpoint(Tally()), 0)
    for item in (Event.new("t", control.decode(), source="s"), Event.new("t", {"x": 1}, source=control.decode())):
        assert not is_control(encode_line(item))


def test_a_tally_knows_least_and_greatest_in_any_order():
    times = [5, 3, 9, 4]
    tally = Tally()
    for number in times:
        tally += Tally.of([encode_line(event(number, time=number))])
    assert (tally.events, tally.least[-4:], tally.greatest[-4:]) == (4, "003Z", "009Z")
    assert tally.reaches(9)
    assert not tally.reaches(10)


def test_names_of_segments_round_trip(tmp_path):
    for live in (tmp_path / "audit.jsonl", tmp_path / "a.b.jsonl", tmp_path / "log.txt"):
        for first in (1, 4711, 10**19):
            path = segment_path(live, first)
            assert parse_segment(path) == (live, first)
            assert parse_segment(path.with_name(path.name + ".gz")) == (live, first)
        assert parse_segment(live) is None


# ── the stranger ──


def test_the_independent_verifier_is_short_and_shares_nothing():
    source = (ROOT / "examples" / "verify_independently.py").read_text()
    code = [line.strip() for line in source.partition('"""\n\n')[2].splitlines()]
    assert len([line for line in code if line and not line.startswith(("import ", "#"))]) <= 60
    assert "opsml_eventbus" not in source.replace("examples/verify", "")


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_the_independent_verifier_agrees_on_sound_torn_and_tampered(tmp_path, independent, step):
    log = make(tmp_path / "log" / "audit.jsonl", [[1, 2], [3], [4, 5, 6], [7]], rotate_after=(2,))
    assert independent(log) == verify_journal(log).exit == 0
    files = snapshot(log.parent)
    for name in ("audit.00000000000000000001.jsonl", "audit.jsonl"):
        data = files[name]
        for position in range(0, len(data), step):
            changed = bytearray(data)
            changed[position] ^= 1 << position % 8
            for damaged in (bytes(changed), data[:position]):
                restore(log.parent, {**files, name: damaged})
                ours = verify_journal(log).exit
                assert independent(log) == ours, (name, position, len(damaged))


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_the_independent_verifier_agrees_where_nothing_was_synced(tmp_path, independent, damaged):
    file = open_plain(tmp_path / "audit.jsonl", "never")
    for numbers in ([1, 2], [3, 4]):
        file.append(lines(numbers))
        file.rotate()
    file.append(lines([5]))
    file.close()
    target = list_log(file.path).segments[damaged].path
    data = target.read_bytes()
    rows, ends = data.splitlines(keepends=True), line_ends(data)
    without_end = [data[:cut] for end in ends[:-1] for cut in (end, end + 10, end - 10)]
    without_beginning = [row + b"".join(rows[1:]) for row in (b"x\n", b"\0" * 40 + b"\n", b"")]
    found = set()
    for changed in (data, *without_end, *without_beginning):
        target.write_bytes(changed)
        ours = verify_journal(file.path).exit
        assert independent(file.path) == ours, changed
        found.add(ours)
    assert found == {0, 3, 5}


@pytest.mark.parametrize("index", range(2, 8))
def test_the_independent_verifier_agrees_on_rearranged_lines(tmp_path, independent, index):
    log = make(tmp_path / "log" / "audit.jsonl", [list(range(10))])
    rows = log.read_bytes().splitlines(keepends=True)
    for changed in (
        rows[:index] + rows[index + 1 :],
        [*rows[:index], rows[index + 1], rows[index], *rows[index + 2 :]],
        [*rows[:index], rows[index], *rows[index:]],
    ):
        log.write_bytes(b"".join(changed))
        assert independent(log) == verify_journal(log).exit == 5


def test_the_independent_verifier_knows_compression_and_pruning(tmp_path, independent):
    import asyncio

    from opsml_eventbus.journal import Journal

    path = tmp_path / "audit.jsonl"

    async def run():
        async with Journal(path, rotate_count=2, compress="gzip", keep=2) as journal:
            for number in range(12):
                await journal.append([event(number)])

    asyncio.run(run())
    assert independent(path) == verify_journal(path).exit == 0
    list_log(path).sealed[0].path.unlink()
    assert independent(path) == verify_journal(path).exit == 5


def _crlf(log):
    log.write_bytes(log.read_bytes().replace(b"\n", b"\r\n"))


def _junk_in_front(log):
    log.write_bytes(b"junk\n" + log.read_bytes())


def _wrong_tally(log):
    """A checkpoint that counts wrongly, its chain computed anew."""
    rows = log.read_bytes().splitlines(keepends=True)
    places = [read_place(row[:-1]) for row in rows]
    wrong = rows[-1][: places[-1].start].replace(b'"events":4', b'"events":5') + b"}"
    assert wrong != rows[-1][: places[-1].start] + b"}"
    head = Head(places[-2].seq, places[-2].chain)
    log.write_bytes(b"".join(rows[:-1]) + write_lines(head, places[-1].durable, [wrong])[1])


def _sealed_gone(log):
    log.unlink()
    segment = list_log(log).sealed[-1].path
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:-1]))


def _cut_gzip(log):
    packed = compress_segment(list_log(log).sealed[0], "gzip")
    packed.write_bytes(packed.read_bytes()[:-20])


def _older_live(log):
    log.write_bytes(list_log(log).sealed[0].path.read_bytes())


def _other_live(log):
    make(log.with_name("other.jsonl"), [[1], [2]]).rename(log)


@pytest.mark.parametrize(
    "damage", [_crlf, _junk_in_front, _wrong_tally, _sealed_gone, _cut_gzip, _older_live, _other_live]
)
def test_the_independent_verifier_agrees_on_what_was_done_to_the_files(tmp_path, independent, damage):
    log = make(tmp_path / "log" / "audit.jsonl", [[1, 2], [3], [4, 5, 6], [7]], rotate_after=(2,))
    damage(log)
    assert independent(log) == verify_journal(log).exit == 5


def test_the_independent_verifier_agrees_on_a_copy_of_one_file(tmp_path):
    independent = independent_verifier()  # nothing is a line there: the example looks no further
    log = make(tmp_path / "audit.jsonl", [[1, 2], [3]])
    for damage in (_crlf, _junk_in_front):
        kept = log.read_bytes()
        damage(log)
        assert independent(log) == verify_journal(log).exit == 5
        log.write_bytes(kept)
    log.write_bytes(b"")
    assert independent(log) == verify_journal(log).exit == 3


# ── others read it as it is ──


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, [*(audit(number) for number in range(20)), Gap.new(2, None, "lag")])
    return path


def test_jq_reads_it(written):
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    program = 'select(.type == "audit") | [.seq, .data.resource_id] | @csv'
    done = subprocess.run(["jq", "-r", program, written], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == '2,"card-0"'
    assert len(done.stdout.splitlines()) == 20


def test_duckdb_reads_it(written):
    import duckdb

    query = f"select count(*), max(seq) from read_json_auto('{written}') where type = 'audit'"
    assert duckdb.sql(query).fetchall() == [(20, 21)]


def test_pandas_reads_it(written):
    import pandas as pd

    frame = pd.read_json(written, lines=True)
    assert list(frame.seq) == list(range(1, len(frame) + 1))
    assert (frame.type == "audit").sum() == 20


def test_the_official_sdk_parses_its_lines(written):
    from cloudevents.v1.http import from_json

    for line in written.read_bytes().splitlines():
        parsed = from_json(line)
        assert parsed["id"] == json.loads(line)["id"]
        assert parsed["specversion"] == "1.0"


def test_plain_python_reads_it(written):
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["id"] for row in rows if row["type"] == "audit"] == ids(written)[:20]
    assert len(line_ends(written.read_bytes())) == len(rows)
