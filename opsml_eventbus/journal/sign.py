"""Signed heads (extra `[sign]`): Ed25519 over where the chain stands, kept in checkpoint and seal records.

A signature proves every line up to the one it names, against anyone who has the file but not the key. What it signs:

    "eventbus/journal/head/v1" NUL log-id NUL seq NUL chain        (seq in decimal, chain as 64 hex digits; ASCII)

A log cut back to an earlier signed head still verifies up to there: keep a head elsewhere (`--expect`) to see that.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import JournalRefused
from .format import Head, Signature, read_chain
from .walk import SignedHead

_DOMAIN = b"eventbus/journal/head/v1"
_KEY_DIGITS = 16


def signed_bytes(log: str, head: Head) -> bytes:
    """The bytes a signature is made over."""
    return b"\0".join((_DOMAIN, log.encode(), b"%d" % head.seq, head.chain.hex().encode()))


class Signer:
    """Signs heads. key: an Ed25519 private key in PEM or OpenSSH form (bytes or text), or a file with one.

    Raises JournalRefused: the extra is missing, or it is no such key.
    """

    def __init__(self, key: bytes | str | Path) -> None:
        self._key: Any = _load(key, private=True)
        self.key_id = _key_id(self._key.public_key())

    def sign(self, log: str, head: Head) -> Signature:
        value = self._key.sign(signed_bytes(log, head))
        return Signature(head.seq, head.chain.hex(), self.key_id, value.hex())


class Verifier:
    """Checks signed heads. key: an Ed25519 public key in PEM or OpenSSH form, or a file with one.

    through: the seq of the last head that holds.
    """

    def __init__(self, key: bytes | str | Path) -> None:
        self._key: Any = _load(key, private=False)
        self._key_id = _key_id(self._key)
        self.through: int | None = None

    def check(self, head: SignedHead) -> str:
        """Why this signature does not hold; empty when it does. A signature by another key is passed over."""
        signature = head.signature
        if signature.key != self._key_id:
            return ""
        if Head(signature.seq, read_chain(signature.chain)) != head.actual:
            return f"it signs {signature.seq}:{signature.chain[:8]}…, the chain stands at {str(head.actual)[:20]}…"
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(bytes.fromhex(signature.value), signed_bytes(head.log, head.actual))
        except (InvalidSignature, ValueError):
            return "the signature does not hold"
        self.through = head.actual.seq
        return ""


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
