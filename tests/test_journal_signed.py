"""Signed heads."""

from __future__ import annotations

import asyncio

import pytest
from journal_support import START, KillAt, event, lines, make, prune, write

from opsml_eventbus.errors import JournalRefused
from opsml_eventbus.journal import Journal, verify_journal
from opsml_eventbus.journal.compress import remove_segment
from opsml_eventbus.journal.format import (
    Checkpoint,
    Head,
    Open,
    Pruned,
    Seal,
    Tally,
    control_line,
    read_control,
    read_place,
    write_lines,
)
from opsml_eventbus.journal.recovery import open_live
from opsml_eventbus.journal.segments import list_log, segment_path
from opsml_eventbus.journal.sign import Signer
from opsml_eventbus.journal.succession import peek_open

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization", reason="needs the extra [sign]")
ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def private(key, form="PKCS8"):
    return key.private_bytes(
        serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), serialization.NoEncryption()
    )


def public(key, encoding="PEM", form="SubjectPublicKeyInfo"):
    return key.public_key().public_bytes(
        getattr(serialization.Encoding, encoding), getattr(serialization.PublicFormat, form)
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "audit.jsonl"

    async def run():
        async with Journal(path, rotate_count=3, sign_key=private(KEY)) as journal:
            for number in range(8):
                await journal.append([event(number)])

    asyncio.run(run())
    return path


def test_a_closed_signed_log_is_signed_to_its_last_event(path):
    report = verify_journal(path, public_key=public(KEY))
    assert (report.exit, report.signed) == (0, report.head.seq - 1)
    assert verify_journal(path).exit == 0  # and without the key it is a log like any other


@pytest.mark.parametrize("form", ["PKCS8", "OpenSSH"])
def test_keys_come_in_pem_and_in_openssh_form_and_in_files(tmp_path, form):
    key = tmp_path / "key"
    key.write_bytes(private(KEY, form))
    path = tmp_path / "a.jsonl"
    write(path, [event(1)], sign_key=key)
    assert verify_journal(path, public_key=public(KEY, "OpenSSH", "OpenSSH").decode()).exit == 0


def test_a_log_rewritten_as_a_whole_is_found_by_its_signature(path, tmp_path):
    rewritten = make(tmp_path / "new" / "audit.jsonl", [[1, 2], [3]], rotate_after=(1,))
    assert verify_journal(rewritten).exit == 0
    report = verify_journal(rewritten, public_key=public(KEY))
    assert (report.exit, report.findings[0].kind) == (5, "signature")
    forged = tmp_path / "forged.jsonl"
    write(forged, [event(1)], sign_key=private(OTHER))
    assert verify_journal(forged, public_key=public(KEY)).exit == 5


def test_a_signature_moved_to_another_log_does_not_hold(path, tmp_path):
    other = tmp_path / "other.jsonl"
    write(other, [event(1)], sign_key=private(KEY))
    signature = path.read_bytes().split(b'"signature":')[-1].split(b"}")[0]
    wrong = other.read_bytes().split(b'"signature":')[-1].split(b"}")[0]
    rows = other.read_bytes().splitlines()
    # Chained again by someone who knows the format, but has no key.
    from opsml_eventbus.journal.format import Head, write_lines

    bodies = [row[: row.rindex(b',"seq":')] + b"}" for row in rows]
    _, data = write_lines(Head(), 0, [body.replace(wrong, signature) for body in bodies])
    other.write_bytes(data)
    assert verify_journal(other).exit == 0
    assert verify_journal(other, public_key=public(KEY)).exit == 5


def test_a_cut_off_end_leaves_lines_no_signature_covers(path):
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[:-1]))
    report = verify_journal(path, public_key=public(KEY))
    assert (report.exit, report.verdict) == (3, "unsigned")
    assert verify_journal(path).exit == 0


def test_what_is_no_ed25519_key_is_refused(tmp_path):
    for key in (b"", b"hello", public(KEY)):
        with pytest.raises(JournalRefused):
            Journal(tmp_path / "a.jsonl", sign_key=key)


# ── what stands behind the last signed head when a writer begins ──


def put_behind(path, added, events=0):
    """Lines and a checkpoint that fit, by someone who knows the format and has no key."""
    data = path.read_bytes()
    last = data.splitlines()[-1]
    place, tally = read_place(last), read_control(last).tally
    head, more = write_lines(Head(place.seq, place.chain), place.seq, added)
    tally = Tally(tally.events + events, tally.least, tally.greatest)
    _, end = write_lines(head, head.seq, [control_line(Checkpoint(tally), 1)])
    path.write_bytes(data + more + end)
    return place.seq + 1


def go_on(path, number=500, key=KEY, **options):
    """The next writer, with a key or none: one event."""
    told = []
    options = {"sign_key": private(key) if key else None, **options}
    write(path, [event(number)], on_notice=told.append, **options)
    return [notice.kind for notice in told if notice.kind in ("unsigned", "pruned")]


def test_a_writer_that_goes_on_does_not_vouch_for_what_it_found(path):
    forged = put_behind(path, lines([666]), 1)
    assert verify_journal(path, public_key=public(KEY)).exit == 3
    assert go_on(path) == ["unsigned"]
    report = verify_journal(path, public_key=public(KEY))
    assert (report.exit, report.verdict, report.unsigned) == (3, "unsigned", [(forged - 1, forged + 1)])
    assert report.signed == report.head.seq - 1  # what came after is signed as ever
    assert verify_journal(path).exit == 0


def test_a_writer_that_was_killed_leaves_lines_that_are_told_and_kept(tmp_path):
    path = tmp_path / "audit.jsonl"
    file, _ = open_live(path, "always", signer=Signer(private(KEY)))
    file.append(lines(range(3)))
    file.sync()
    file.close()
    assert go_on(path) == ["unsigned"]
    report = verify_journal(path, public_key=public(KEY))
    assert (report.exit, report.events, report.unsigned) == (3, 4, [(2, 5)])


def test_the_mark_cannot_be_cut_out_again(path):
    put_behind(path, lines([666]), 1)
    file, recovery = open_live(path, "always", signer=Signer(private(KEY)))
    file.close()  # killed before its first event
    assert recovery.unsigned
    assert verify_journal(path, public_key=public(KEY)).signed == verify_journal(path).head.seq - 1


def test_a_start_that_is_killed_again_and_again_marks_once(path, monkeypatch):
    put_behind(path, lines([666]), 1)
    with monkeypatch.context() as patch:
        patch.setattr("opsml_eventbus.journal.live.LiveFile.checkpoint", lambda self: 1 / 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                open_live(path, "always", signer=Signer(private(KEY)))
    go_on(path)
    assert path.read_bytes().count(b'"type":"eventbus.journal.unsigned"') == 1


def test_writers_that_leave_well_or_only_rotate_leave_nothing_unsigned(tmp_path):
    path = tmp_path / "audit.jsonl"

    async def rotated():
        async with Journal(path, sign_key=private(KEY)) as journal:
            await journal.append([event(1)])
            await journal.rotate()

    for _ in range(3):
        assert go_on(path) == []
        asyncio.run(rotated())
        report = verify_journal(path, public_key=public(KEY))
        assert (report.exit, report.unsigned) == (0, [])


def test_a_log_begun_without_a_key_is_unsigned_up_to_there(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1], [2], [3]], rotate_after=(1, 2))
    assert go_on(path, 4, key=None, keep=1, rotate_count=1) == ["pruned"] * 2
    found = verify_journal(path).head.seq
    assert go_on(path) == ["unsigned"]
    report = verify_journal(path, public_key=public(KEY))
    # What was removed before anybody signed is as unproven as the rest, and no more suspect.
    assert (report.exit, report.unsigned) == (3, [(1, report.first - 1), (report.first, found)])
    assert go_on(path, keep=0, rotate_count=1) == ["pruned"] * 2
    assert verify_journal(path, public_key=public(KEY)).unsigned == []  # who signs has said so itself


def test_each_key_proves_what_was_written_with_it(path):
    before = verify_journal(path).head.seq
    assert go_on(path, key=OTHER) == ["unsigned"]
    first = verify_journal(path, public_key=public(KEY))
    assert (first.signed, first.unsigned) == (before - 1, [(before, first.head.seq)])
    second = verify_journal(path, public_key=public(OTHER))
    assert (second.signed, second.unsigned) == (second.head.seq - 1, [(1, before)])


# ── what a record that is signed says ──

LONG_AGO = "1999-01-01T00:00:00.000000000Z"


def change_last_tally(path):
    """Of the last checkpoint or seal, chained again by someone who has no key: how late its events are."""
    *rows, before, last = path.read_bytes().splitlines()
    place, previous, control = read_place(last), read_place(before), read_control(last)
    changed = type(control)(Tally(control.tally.events, LONG_AGO, LONG_AGO), control.signature)
    _, end = write_lines(Head(previous.seq, previous.chain), place.durable, [control_line(changed, 1)])
    path.write_bytes(b"".join(row + b"\n" for row in (*rows, before)) + end)


def rotated(path):
    """The next writer, with the key: it finishes the file it finds."""
    file, _ = open_live(path, "always", signer=Signer(private(KEY)))
    finished = file.rotate()
    file.close()
    return read_control(finished.read_bytes().splitlines()[-1]).tally, read_control(lines_of(path)[0]).sealed


def lines_of(path):
    return path.read_bytes().splitlines()


def test_a_tally_that_was_changed_behind_the_last_event_is_found_by_its_signature(path):
    change_last_tally(path)
    assert verify_journal(path).exit == 0
    report = verify_journal(path, public_key=public(KEY))
    assert (report.exit, report.findings[0].kind) == (5, "signature")


@pytest.mark.parametrize("key", [KEY, None])
def test_a_writer_counts_for_itself_what_it_has_not_signed(tmp_path, key):
    path = tmp_path / "audit.jsonl"
    write(path, [event(number) for number in range(4)], sign_key=private(key) if key else None)
    told = read_control(lines_of(path)[-1]).tally
    change_last_tally(path)
    assert rotated(path) == (told, told)
    # So a reader that passes over files passes over none that it should read.
    assert verify_journal(path).exit == 0


def test_a_writer_passes_on_no_tally_of_a_finished_file_that_it_has_not_signed(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1], [2]], rotate_after=(1,))
    path.unlink()
    (finished,) = list_log(path).sealed
    change_last_tally(finished.path)
    open_live(path, "always", signer=Signer(private(KEY)))[0].close()
    assert read_control(lines_of(path)[0]).sealed is None  # nobody knows, so nobody passes over it
    assert verify_journal(path).exit == 0


def test_a_writer_passes_on_the_tally_of_a_finished_file_that_it_has_signed(path):
    path.unlink()
    seal = read_control(lines_of(list_log(path).sealed[-1].path)[-1])
    open_live(path, "always", signer=Signer(private(KEY)))[0].close()
    assert read_control(lines_of(path)[0]).sealed == seal.tally


# ── which beginning may be missing ──


def remove_beginning(path):
    """The first file, and the record that would declare it."""
    first, second = sorted(path.parent.glob("audit.0*"))[:2]
    opened = read_control(second.read_bytes().splitlines()[0])
    first.unlink()
    return control_line(Pruned(1, opened.first, opened.previous, Tally()), 1)


def test_a_beginning_is_missing_until_who_declares_it_has_signed_that(path):
    forged = remove_beginning(path)
    assert verify_journal(path, public_key=public(KEY)).exit == 5
    put_behind(path, [forged])
    assert verify_journal(path).exit == 0
    for _ in range(2):
        report = verify_journal(path, public_key=public(KEY))
        assert (report.exit, {finding.kind for finding in report.findings}) == (5, {"missing", "unsigned"})
        go_on(path)


def test_a_signed_history_that_was_removed_as_a_whole_is_told_although_a_writer_has_gone_on(path):
    for segment in list_log(path).sealed:
        remove_segment(segment)
    opening = lines_of(path)[0]
    place, opened = read_place(opening), read_control(opening)
    forged = control_line(Pruned(1, opened.first, opened.previous, Tally()), 1)
    path.write_bytes(opening + b"\n" + write_lines(Head(place.seq, place.chain), place.seq, [forged])[1])
    assert verify_journal(path, public_key=public(KEY)).exit == 5
    assert go_on(path) == ["unsigned"]
    report = verify_journal(path, public_key=public(KEY))
    first = place.seq
    assert (report.exit, report.verdict) == (3, "unsigned")
    assert report.unsigned == [(1, first - 1), (first, first + 1)]
    reason = f"seq 1 to {first - 1} are gone; the record that says so was not signed by who wrote it"
    assert reason in [finding.reason for finding in report.findings]


def test_retention_signs_its_declaration_before_it_removes(path):
    assert go_on(path, keep=1) == ["pruned"]
    assert verify_journal(path, public_key=public(KEY)).exit == 0


def test_retention_that_was_killed_before_it_signed_declares_again(path, monkeypatch):
    files = sorted(path.parent.glob("audit.0*"))
    file, _ = open_live(path, "always", signer=Signer(private(KEY)))
    with monkeypatch.context() as patch:
        patch.setattr("opsml_eventbus.journal.live.LiveFile.checkpoint", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prune(file, 1, Signer(private(KEY)))
    file.close()
    assert all(file.exists() for file in files)
    assert set(go_on(path, keep=1)) == {"unsigned", "pruned"}
    assert not files[0].exists()
    report = verify_journal(path, public_key=public(KEY))
    assert (report.exit, {finding.kind for finding in report.findings}) == (3, {"unsigned"})


# ── what a signature tells of damage ──


@pytest.mark.parametrize("fsync", ["never", "interval=1h", "always"])
def test_a_line_that_was_changed_after_it_was_signed_is_altered_whatever_was_synced(tmp_path, fsync):
    path = tmp_path / "audit.jsonl"
    write(path, [event(number) for number in range(6)], fsync=fsync, sign_key=private(KEY))
    path.write_bytes(path.read_bytes().replace(b'"n":3', b'"n":9'))
    report = verify_journal(path, public_key=public(KEY))
    assert (report.exit, report.findings[-1].kind) == (5, "altered")


def test_a_hole_is_torn_without_syncs_although_a_signed_head_came_to_disk_behind_it(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, [event(number) for number in range(6)], fsync="never", sign_key=private(KEY))
    row = path.read_bytes().splitlines()[4]
    path.write_bytes(path.read_bytes().replace(row, bytes(len(row))))
    assert verify_journal(path, public_key=public(KEY)).exit == 3


def test_a_log_without_a_signed_head_is_not_the_one_that_was_signed(tmp_path):
    path = make(tmp_path / "audit.jsonl", [[1], [2]], close=False)  # nor has it any checkpoint
    report = verify_journal(path, public_key=public(KEY))
    assert (report.exit, report.signed, report.findings[0].kind) == (5, None, "signature")


@pytest.mark.parametrize("declared", [False, True])
def test_nothing_can_be_put_before_a_log_whose_beginning_was_pruned(tmp_path, declared):
    path = tmp_path / "audit.jsonl"
    for first in range(0, 40, 10):
        events = [event(first + number) for number in range(10)]
        write(path, events, rotate_count=5, keep=1, sign_key=private(KEY))
    assert verify_journal(path, public_key=public(KEY)).exit == 0
    opened = peek_open(list_log(path).segments[0])
    own = [Pruned(1, opened.first, opened.previous, Tally())] if declared else []
    records = [Open(1, opened.log, 1, bytes(32).hex(), "always", None), *own]
    forged = [*(control_line(record, START) for record in records), *lines([900, 901])]
    forged.append(control_line(Seal(Tally.of(lines([900, 901]))), START))
    segment_path(path, 1).write_bytes(write_lines(Head(), 0, forged)[1])
    assert verify_journal(path, public_key=public(KEY)).exit == 5


@pytest.mark.parametrize("own", [True, False])
def test_a_log_of_nothing_but_an_open_record_has_nothing_signed(tmp_path, own):
    path = tmp_path / "audit.jsonl"
    write(path, [event(1)], sign_key=private(KEY) if own else None)
    path.write_bytes(lines_of(path)[0] + b"\n")
    assert verify_journal(path).exit == 0
    report = verify_journal(path, public_key=public(KEY))
    assert (report.exit, report.verdict, report.signed, report.unsigned) == (3, "unsigned", None, [(1, 1)])


def test_a_writer_that_was_killed_at_once_leaves_nothing_to_suspect(tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("opsml_eventbus.journal.live.LiveFile.checkpoint", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            open_live(path, "always", signer=Signer(private(KEY)))
    assert verify_journal(path, public_key=public(KEY)).exit == 3  # until the next one
    go_on(path)
    assert verify_journal(path, public_key=public(KEY)).exit == 0


def test_a_signed_log_whose_writers_are_killed_anywhere_is_never_taken_for_tampered(tmp_path):
    signer = Signer(private(KEY))

    def life(path):
        file, _ = open_live(path, "always", signer=signer)
        for number in range(3):
            file.append(lines([number]))
            file.rotate()
            prune(file, 1, signer)
        file.append(lines([9]))
        file.close()

    count, killed = 0, True
    while killed:
        path = tmp_path / str(count) / "audit.jsonl"
        with KillAt(count, half=True) as life_ends:
            life(path)
        killed, count = life_ends.killed, count + 1
        for later in (count % 7, 5):  # and so are those that recover it
            with KillAt(later):
                open_live(path, "always", signer=signer)[0].close()
        go_on(path)
        report = verify_journal(path, public_key=public(KEY))
        assert report.exit in (0, 3), report.findings
        assert report.signed == report.head.seq - 1
    assert count > 30
