"""What verification finds: every cut, every flipped bit, every rearrangement of the lines and files of a log."""

from __future__ import annotations

import time

import pytest
from journal_support import (
    damages,
    event,
    ids,
    independent_verifier,
    line_ends,
    lines,
    make,
    open_plain,
    restore,
    rewrite,
    snapshot,
    walk_bytes,
    write,
)

from opsml_eventbus.errors import JournalDamaged, JournalRefused
from opsml_eventbus.journal import (
    Head,
    parse_head,
    recover,
    repair,
    verify_journal,
)
from opsml_eventbus.journal.format import control_line, write_lines
from opsml_eventbus.journal.live import open_record
from opsml_eventbus.journal.segments import list_log
from opsml_eventbus.journal.succession import peek_open

BATCHES = [[1, 2], [3], [4, 5, 6], [7], [8, 9]]


pytestmark = pytest.mark.usefixtures("no_writer_is_at_it")


@pytest.fixture
def log(tmp_path):
    """Five batches, a rotation after the second, closed in good order."""
    return make(tmp_path / "audit.jsonl", BATCHES, rotate_after=(2,))


@pytest.fixture
def files(log):
    """Its two files as (first seq, bytes)."""
    segment = log.with_name("audit.00000000000000000001.jsonl")
    return [(1, segment.read_bytes()), (None, log.read_bytes())]


def test_a_closed_log_is_sound_and_durable_to_its_last_event(log):
    report = verify_journal(log)
    assert (report.exit, report.verdict, report.events, report.settled) == (0, "sound", 9, True)
    assert report.durable == report.head.seq - 1
    assert report.lines == report.head.seq == 9 + 4  # two open records, a seal, a checkpoint


def test_each_segment_verifies_alone(log):
    for path in (log.with_name("audit.00000000000000000001.jsonl"), log):
        assert verify_journal(path).exit == 0


def test_every_cut_of_the_live_file_leaves_the_whole_records_before_it(log, tmp_path):
    data = log.read_bytes()
    before = ids(log.with_name("audit.00000000000000000001.jsonl"))
    ends = line_ends(data)
    everything = ids(log)
    for cut in range(0, len(data), 7 if len(data) > 4000 else 1):
        log.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        expected = before + everything[len(before) :][: max(0, whole - 1)]  # the first is the open record
        assert walk_bytes(
            [(1, log.with_name("audit.00000000000000000001.jsonl").read_bytes()), (None, data[:cut])]
        ) == (0 if cut in ends else 3)
        if cut % 49 == 0 or cut in ends:
            assert ids(log) == expected


def test_every_cut_of_a_finished_file_is_tampering(files):
    (first, sealed), live = files
    for cut in range(len(sealed)):
        assert walk_bytes([(first, sealed[:cut]), live]) == 5


@pytest.mark.parametrize("bits", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_flip_of_any_bit_before_the_last_durable_record_is_tampering(files, bits):
    (_, sealed), (_, live) = files
    last = line_ends(live)[-2]  # the closing checkpoint is the one line not known to be durable
    for position in range(len(sealed)):
        for bit in _bits(position, bits):
            assert walk_bytes([(1, _flip(sealed, position, bit)), (None, live)]) == 5, (position, bit)
    for position in range(last):
        for bit in _bits(position, bits):
            assert walk_bytes([(1, sealed), (None, _flip(live, position, bit))]) == 5, (position, bit)


def test_a_flip_in_the_last_record_is_never_sound(files):
    (_, sealed), (_, live) = files
    for position in range(line_ends(live)[-2], len(live)):
        for bit in range(8):
            assert walk_bytes([(1, sealed), (None, _flip(live, position, bit))]) in (3, 5)


def test_a_flip_in_an_unsynced_batch_is_torn_unless_lines_are_rearranged(tmp_path):
    path = make(tmp_path / "a.jsonl", [[1, 2], [3, 4]], close=False)
    data = path.read_bytes()
    start = line_ends(data)[2]
    found = {
        walk_bytes([(None, _flip(data, position, bit))]) for position in range(start, len(data)) for bit in range(8)
    }
    assert found <= {3, 5}
    assert 3 in found


def _bits(position: int, count: int) -> list[int]:
    return [(position + bit) % 8 for bit in range(count)]


def _flip(data: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize("which", range(3, 7))
def test_a_line_deleted_swapped_repeated_or_edited_is_tampering(log, which):
    # Seqs of the live file: 6 open, 7 8 9, 10, 11 12, 13 checkpoint.
    rows = log.read_bytes().splitlines(keepends=True)
    index = which - 2
    deleted = rows[:index] + rows[index + 1 :]
    swapped = [*rows[:index], rows[index + 1], rows[index], *rows[index + 2 :]]
    repeated = [*rows[:index], rows[index], rows[index], *rows[index + 1 :]]
    edited = [*rows[:index], rows[index].replace(b'"source":"s"', b'"source":"z"'), *rows[index + 1 :]]
    for changed in (deleted, swapped, repeated, edited):
        assert changed != rows
        log.write_bytes(b"".join(changed))
        assert verify_journal(log).exit == 5
        assert verify_journal(log.parent).exit == 5


def test_a_report_is_json(log):
    import json

    log.write_bytes(log.read_bytes().replace(b'"n":5', b'"n":6'))
    report = verify_journal(log)
    members = json.loads(json.dumps(report.as_dict()))
    assert members["exit"] == 5
    assert members["verdict"] == "tampered"
    assert members["head"] == str(report.head)
    assert members["findings"][0]["seq"] == 8


def test_one_altered_line_is_one_finding_with_its_place(log):
    rows = log.read_bytes().splitlines(keepends=True)
    rows[2] = rows[2].replace(b'"n":5', b'"n":6')
    log.write_bytes(b"".join(rows))
    (finding,) = verify_journal(log).findings
    assert (finding.kind, finding.file, finding.line, finding.seq) == ("altered", "audit.jsonl", 3, 8)
    assert finding.byte == len(rows[0]) + len(rows[1])


@pytest.mark.parametrize("fsync", ["always", "never"])
def test_a_copy_with_crlf_is_tampering_where_no_later_line_says_what_was_durable(tmp_path, fsync):
    """No crash writes a CR, so no watermark is needed to tell."""
    path = tmp_path / "audit.jsonl"
    file = open_plain(path, fsync)
    file.append(lines(range(3)))
    file.close()
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    before = path.read_bytes()
    report = verify_journal(path)
    assert report.exit == independent_verifier()(path) == 5
    assert "CR LF" in report.findings[0].reason
    with pytest.raises(JournalDamaged):
        recover(path)
    assert path.read_bytes() == before
    repair(path)
    assert verify_journal(path).exit == 0
    assert ids(path) == ["e0", "e1", "e2"]


def test_a_copy_with_crlf_is_tampering(log):
    log.write_bytes(log.read_bytes().replace(b"\n", b"\r\n"))
    assert verify_journal(log).exit == 5


def test_every_line_rewritten_by_a_json_tool_is_tampering(log):
    log.write_bytes(log.read_bytes().replace(b'","', b'", "'))
    assert verify_journal(log).exit == 5


def test_a_format_that_is_not_ours_is_not_called_sound(log):
    path = make(log.with_name("one.jsonl"), BATCHES)
    rewrite(path, b'"format":1', b'"format":2')
    assert verify_journal(path).exit == 5


def test_an_open_record_inside_a_file_is_tampering(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2]])
    head = verify_journal(path).head
    opened = open_record(peek_open(list_log(path).segments[0]).log, head, "always", None)
    with path.open("ab") as stream:
        stream.write(write_lines(head, head.seq, [control_line(opened, 0)])[1])
    assert verify_journal(path).exit == 5


def test_a_line_of_another_log_is_tampering(log, tmp_path):
    other = make(tmp_path / "other" / "audit.jsonl", BATCHES, rotate_after=(2,))
    rows, others = (path.read_bytes().splitlines(keepends=True) for path in (log, other))
    log.write_bytes(b"".join([*rows[:3], others[3], *rows[4:]]))
    assert verify_journal(log).exit == 5


def test_a_line_chained_on_behind_a_seal_is_tampering(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2]], rotate_after=(1,))
    path.unlink()
    (segment,) = list_log(path).sealed
    head = verify_journal(path).head
    assert verify_journal(path).exit == 0
    with segment.path.open("ab") as stream:
        stream.write(write_lines(head, head.seq, lines([3]))[1])
    assert verify_journal(path).exit == 5


def test_a_chained_line_with_a_wrong_number_or_a_falling_mark_is_tampering(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1, 2], [3]])
    head = verify_journal(path).head
    data = path.read_bytes()
    for wrong, durable in ((head._replace(seq=head.seq + 1), head.seq), (head, 1), (head, head.seq + 1)):
        path.write_bytes(data + write_lines(wrong, durable, lines([4]))[1])
        assert verify_journal(path).exit == 5


def test_a_file_that_begins_without_its_open_record_is_tampering(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1]], rotate_after=(1,))
    path.unlink()
    head = verify_journal(path).head
    path.write_bytes(write_lines(head, head.seq, lines([2, 3]))[1])
    assert verify_journal(path).exit == 5


def test_a_garbled_line_put_in_is_tampering(log):
    rows = log.read_bytes().splitlines(keepends=True)
    for garbage in (b"\n", b"{}\n", b"\0\n", b"x" * 3_000_000 + b"\n"):
        log.write_bytes(b"".join([*rows[:2], garbage, *rows[2:]]))
        assert verify_journal(log).exit == 5


# ── what hashing alone cannot show, and what can ──


def test_a_cut_at_a_line_looks_sound_but_not_to_who_kept_a_head(log):
    head = verify_journal(log).head
    rows = log.read_bytes().splitlines(keepends=True)
    assert verify_journal(log, expect=head).exit == 0
    log.write_bytes(b"".join(rows[:3]))
    assert verify_journal(log).exit == 0  # documented: a log that ends here is a log
    report = verify_journal(log, expect=head)
    assert (report.exit, report.findings[0].kind) == (5, "unexpected")


def test_a_rewritten_log_looks_sound_but_not_to_who_kept_a_head(log, tmp_path):
    head = verify_journal(log).head
    other = make(tmp_path / "other" / "audit.jsonl", BATCHES, rotate_after=(2,))
    assert verify_journal(other).exit == 0
    assert verify_journal(other, expect=head).exit == 5


def test_a_head_in_the_middle_may_be_expected(log):
    middle = verify_journal(log.with_name("audit.00000000000000000001.jsonl")).head
    assert verify_journal(log, expect=middle).exit == 0
    assert verify_journal(log, expect=middle._replace(chain=bytes(32))).exit == 5


def test_of_a_line_before_the_beginning_nobody_can_say_what_it_was(log):
    segment = log.with_name("audit.00000000000000000001.jsonl")
    middle = verify_journal(segment).head
    for alone in (log, segment):
        report = verify_journal(alone, expect=Head(0, bytes(32)))
        assert (report.exit, report.findings[-1].kind) == (5, "unexpected")
        assert "cannot be told: what is here begins with 1" in report.findings[-1].reason
    segment.unlink()
    assert "begins with 6" in verify_journal(log, expect=middle).findings[-1].reason
    assert "is not there" in verify_journal(log, expect=middle._replace(seq=99)).findings[-1].reason


def test_a_head_is_written_and_read_as_seq_and_chain():
    head = Head(42, bytes(range(32)))
    assert parse_head(str(head)) == head
    for text in ("", "42", "42:ab", "x:" + "0" * 64, "42:" + "G" * 64, "\N{ARABIC-INDIC DIGIT SEVEN}:" + "0" * 64):
        with pytest.raises(ValueError, match="SEQ:CHAIN"):
            parse_head(text)


# ── files that are no sound journal ──


def test_plain_json_lines_have_no_chain(tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":2}\n')
    report = verify_journal(path)
    assert (report.exit, report.verdict, report.count) == (3, "unchained", 1)


@pytest.mark.parametrize(("content", "reason"), [(b"", "it is empty"), (b"root:x:0:0\nbin:x:1:1\n", "no line of one")])
def test_a_file_that_is_no_journal_is_neither_sound_nor_torn(tmp_path, content, reason):
    path = tmp_path / "passwd"
    path.write_bytes(content)
    report = verify_journal(path)
    assert (report.exit, report.verdict) == (3, "unchained")
    assert reason in report.findings[0].reason


def test_plain_lines_in_front_of_a_log_are_tampering_however_many(log):
    log.with_name("audit.00000000000000000001.jsonl").unlink()
    path = make(log.with_name("one.jsonl"), BATCHES)
    path.write_bytes(b'{"a":1}\n' * 10_000 + path.read_bytes())
    assert verify_journal(path).exit == 5


def test_a_log_without_its_chain_has_neither_the_expected_line_nor_a_signature(tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":2}\n')
    report = verify_journal(path, expect=Head(3, bytes(32)))
    assert (report.exit, [finding.kind for finding in report.findings]) == (5, ["unchained", "unexpected"])


def test_a_last_line_without_its_newline_is_torn_even_where_it_parses(log):
    data = log.read_bytes()
    log.write_bytes(data[:-1])
    assert verify_journal(log).verdict == "torn"
    log.write_bytes(data + b"12")
    assert verify_journal(log).verdict == "torn"


def test_a_tail_of_nuls_is_torn(log):
    log.write_bytes(log.read_bytes() + bytes(3000))
    report = verify_journal(log)
    assert (report.exit, report.findings[0].reason) == (3, "NUL bytes")


def test_a_hole_in_the_last_batch_is_torn_and_one_before_it_tampering(tmp_path):
    path = make(tmp_path / "a.jsonl", [[1, 2], list(range(10, 30))], close=False)
    data = path.read_bytes()
    ends = line_ends(data)
    for start, stop, exit_code in ((ends[5], ends[9] + 20, 3), (ends[0] + 5, ends[1] + 5, 5)):
        path.write_bytes(data[:start] + bytes(stop - start) + data[stop:])
        assert verify_journal(path).exit == exit_code


def test_findings_are_counted_beyond_what_is_kept(tmp_path):
    path = make(tmp_path / "a.jsonl", [list(range(3000))])
    path.write_bytes(path.read_bytes().replace(b'"source":"s"', b'"source":"z"'))
    seen = []
    report = verify_journal(path, on_finding=seen.append)
    assert len(report.findings) == 1000
    assert report.count == len(seen) == 3000


def test_many_short_lines_that_are_none_cost_no_more_than_their_number(log):
    """Their places were counted anew for each: 130,000 in one block took minutes."""
    with log.open("ab") as stream:
        stream.write(b"x\n" * 130_000)
    before = time.process_time()
    assert verify_journal(log).count == len(damages(log)) == 130_000
    assert time.process_time() - before < 30


def test_a_folder_means_the_one_log_in_it(log):
    assert verify_journal(log.parent).exit == 0
    make(log.with_name("other.jsonl"), [[1]])
    with pytest.raises(JournalRefused) as caught:
        verify_journal(log.parent)
    assert caught.value.found == ("audit.jsonl", "other.jsonl")


def test_a_payload_that_looks_like_a_journal_line_confuses_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    hostile = [
        {"seq": 1, "durable": 9, "chain": "0" * 64},
        {"type": "eventbus.journal.seal", "x": '"type":"eventbus.journal.seal"'},
        {"s": ',"seq":7,"durable":6,"chain":"' + "a" * 64 + '"}'},
        {"id": "no", "type": "eventbus.gap", "specversion": "2"},
    ]
    write(path, [event(number).replace(content=data) for number, data in enumerate(hostile)])
    report = verify_journal(path)
    assert (report.exit, report.events) == (0, 4)
    assert ids(path) == ["e0", "e1", "e2", "e3"]


def test_verification_changes_nothing(log):
    before = snapshot(log.parent)
    log.write_bytes(before["audit.jsonl"] + bytes(100))
    damaged = snapshot(log.parent)
    verify_journal(log)
    ids(log)
    assert snapshot(log.parent) == damaged
    restore(log.parent, before)
    assert verify_journal(log).exit == 0
