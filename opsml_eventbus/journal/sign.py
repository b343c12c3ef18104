"""Signed heads (extra `[sign]`): Ed25519 over where the chain stands, kept in checkpoint and seal records.

A signature proves that its writer's chain stood there. Of the lines before it, it proves those that this writer wrote:
what a writer finds behind the last signed head when it begins may be anybody's, and it says so in the log before it
signs (an `unsigned` record). What is signed is where the chain stands and the tally that the record states, since the
next writer goes on from that and readers pass over files by it:

    "eventbus/journal/head/v1" NUL log-id NUL seq NUL chain NUL events NUL least NUL greatest

(seq and events in decimal, chain as 64 hex digits, least and greatest as the record spells them, nothing for null.)

A log cut back to an earlier signed head still verifies up to there: keep a head elsewhere (`--expect`) to see that.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import JournalRefused
from .format import CHAIN_BYTES, Checkpoint, Head, Seal, Signature, Tally, link, peek_control, read_chain, read_place
from .walk import SignedHead

_DOMAIN = b"eventbus/journal/head/v1"
_KEY_DIGITS = 16


def signed_bytes(log: str, head: Head, tally: Tally) -> bytes:
    """The bytes a signature is made over."""
    stands = (log, f"{head.seq}", head.chain.hex(), f"{tally.events}", tally.least or "", tally.greatest or "")
    return b"\0".join((_DOMAIN, *(text.encode() for text in stands)))


class Signer:
    """Signs heads. key: an Ed25519 private key in PEM or OpenSSH form (bytes or text), or a file with one.

    Raises JournalRefused: the extra is missing, or it is no such key.
    """

    def __init__(self, key: bytes | str | Path) -> None:
        self._key: Any = _load(key, private=True)
        self.key_id = _key_id(self._key.public_key())

    def sign(self, log: str, head: Head, tally: Tally) -> Signature:
        value = self._key.sign(signed_bytes(log, head, tally))
        return Signature(head.seq, head.chain.hex(), self.key_id, value.hex())

    def has_signed(self, log: str, line: bytes) -> bool:
        """Does this line carry our signature of the line before it, and of its own tally?"""
        place, control = read_place(line), peek_control(line)
        if place is None or not isinstance(control, Checkpoint | Seal) or control.signature is None:
            return False
        signed = Head(place.seq - 1, read_chain(control.signature.chain))
        joins = link(signed.chain, line[:-CHAIN_BYTES]) == place.chain
        # Ed25519 signs the same twice alike.
        return joins and control.signature == self.sign(log, signed, control.tally)


class Verifier:
    """Checks signed heads. key: an Ed25519 public key in PEM or OpenSSH form, or a file with one.

    through: the seq of the last head that holds. unsigned: the first and last seq of lines that were not signed by
    who wrote them: a signature covers them afterwards at most; or of lines that are gone, as only such a line says.
    """

    def __init__(self, key: bytes | str | Path) -> None:
        self._key: Any = _load(key, private=False)
        self._key_id = _key_id(self._key)
        self.through: int | None = None
        self.unsigned: list[tuple[int, int]] = []
        self._since = 0  # the first head that holds; a log may have been begun without a key

    def check(self, head: SignedHead) -> str:
        """Why this signature does not hold; empty when it does. A signature by another key is passed over."""
        signature = head.signature
        assert signature is not None
        assert head.tally is not None
        if signature.key != self._key_id:
            return ""
        if Head(signature.seq, read_chain(signature.chain)) != head.actual:
            return f"it signs {signature.seq}:{signature.chain[:8]}…, the chain stands at {str(head.actual)[:20]}…"
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(bytes.fromhex(signature.value), signed_bytes(head.log, head.actual, head.tally))
        except (InvalidSignature, ValueError):
            return "the signature does not hold"
        self.through = head.actual.seq
        self._since = self._since or self.through
        return ""

    def pass_over(self, first: int, last: int) -> bool:
        """No head was signed between the last one and the line `last`: are there lines that nobody has signed?

        first: where the log begins. A record with a signature stands behind what that signs, and is no such line.
        """
        first = max(first, (self.through or 0) + 1)
        if first >= last:
            return False
        self.unsigned.append((first, last))
        return True

    def proves(self, seq: int) -> bool:
        """Was the line `seq` signed by who wrote it, or written before anybody signed?"""
        return seq < self._since or self.proves_writer(seq)

    def proves_writer(self, seq: int) -> bool:
        """Was the line `seq` signed by who wrote it?"""
        return seq <= (self.through or 0) and not any(first <= seq <= last for first, last in self.unsigned)


def _load(key: bytes | str | Path, *, private: bool) -> Any:
    name = str(key) if isinstance(key, Path) else "the key"
    data = key.read_bytes() if isinstance(key, Path) else key.encode() if isinstance(key, str) else key
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise JournalRefused(name, "signatures need the extra opsml-eventbus[sign]") from None
    loaded: Any
    try:
        if private:
            ssh = b"OPENSSH PRIVATE KEY" in data
            load = serialization.load_ssh_private_key if ssh else serialization.load_pem_private_key
            loaded = load(data, password=None)
        else:
            ssh = data.startswith((b"ssh-", b"ecdsa-", b"sk-"))
            loaded = (serialization.load_ssh_public_key if ssh else serialization.load_pem_public_key)(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        kind = (
            "private key in PEM or OpenSSH form, without a passphrase"
            if private
            else "public key in PEM or OpenSSH form"
        )
        raise JournalRefused(name, f"not an Ed25519 {kind}") from error
    wanted = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    if not isinstance(loaded, wanted):
        raise JournalRefused(name, "not an Ed25519 key")
    return loaded


def _key_id(public: Any) -> str:
    return sha256(public.public_bytes_raw()).hexdigest()[:_KEY_DIGITS]
