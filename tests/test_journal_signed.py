"""Signed heads."""

from __future__ import annotations

import asyncio

import pytest
from journal_support import event, make, write

from opsml_eventbus.errors import JournalRefused
from opsml_eventbus.journal import Journal, verify_journal

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
