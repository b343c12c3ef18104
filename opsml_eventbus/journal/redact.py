"""Fields that must not reach the file: removed, or replaced by a keyed hash so that equal values can still be matched.

A removed string becomes `"[redacted]"` and anything else null, because a member that is simply gone would read back as
its type's default (an absent username as `guest`), which is a statement about someone. With a key every value becomes
`"hmac-sha256:<32 hex digits>"` over its compact JSON text.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

import msgspec

from ..codec import decode_line, encode_data, encode_line
from ..event import Event, Gap

REDACTED = "[redacted]"
_HMAC_DIGITS = 32


class Redaction:
    """fields: members of `data`, dotted for those inside others (`card.owner`). key: for matching; None removes."""

    def __init__(self, fields: Sequence[str], key: bytes | None = None) -> None:
        self.fields = tuple(tuple(field.split(".")) for field in fields)
        self._key = key

    def __call__(self, item: Event | Gap | bytes) -> Event | Gap | bytes:
        """The same event with the fields replaced; a Gap, or an event without them, as it is."""
        event = decode_line(item) if isinstance(item, bytes) else item
        if isinstance(event, Gap):
            return item
        raw = encode_data(event.type, event.content)
        if not raw.startswith(b"{"):
            return item
        data = msgspec.json.decode(raw)
        changed = [self._replace(data, path) for path in self.fields]
        return encode_line(event.replace(content=data)) if any(changed) else item

    def _replace(self, data: Any, path: Sequence[str]) -> bool:
        *parents, name = path
        for parent in parents:
            data = data.get(parent) if isinstance(data, dict) else None
        if not isinstance(data, dict) or data.get(name) is None:
            return False
        data[name] = self._stand_in(data[name])
        return True

    def _stand_in(self, value: Any) -> str | None:
        if self._key is None:
            return REDACTED if isinstance(value, str) else None
        digest = hmac.digest(self._key, msgspec.json.encode(value), "sha256").hex()
        return f"hmac-sha256:{digest[:_HMAC_DIGITS]}"
