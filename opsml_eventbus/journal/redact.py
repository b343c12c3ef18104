"""Fields that must not reach the file: removed, or replaced by a keyed hash so that equal values can still be matched.

A removed string becomes `"[redacted]"` and anything else null, because a member that is simply gone would read back as
its type's default (an absent username as `guest`), which is a statement about someone. With a key every value becomes
`"hmac-sha256:<32 hex digits>"` over its compact JSON text. Every other value stays as it is, to the byte.

Only what was looked at is kept: of a member that stands twice where a field is looked for, the last, which is the one
that readers see. An earlier one could hide what it says from us and not from the file.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import msgspec

from ..codec import encode_data, from_text
from ..errors import Unencodable
from ..event import Event, Gap

REDACTED = "[redacted]"
_HMAC_DIGITS = 32

Path = tuple[str, ...]
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Redaction:
    """fields: members of `data`, dotted for those inside others (`card.owner`), in every element where a list stands
    between; a member whose own name has dots is met too. key: for matching; None removes.

    Raises ValueError: an empty key, which would hide nothing.
    """

    def __init__(self, fields: Sequence[str], key: bytes | None = None) -> None:
        if key is not None and not key:
            raise ValueError("the key is empty")
        self.fields = tuple(tuple(field.split(".")) for field in fields)
        self._key = key

    def __call__(self, item: Event | Gap) -> Event | Gap:
        """The same event with the fields replaced; a Gap, or an event without them, as it is.

        Raises Unencodable: what is in it cannot be looked through, or cannot be written at all.
        """
        if isinstance(item, Gap):
            return item
        try:
            redacted = self._within(encode_data(item.type, item.content), self.fields)
        except msgspec.DecodeError as error:
            raise Unencodable(str(error), "data") from error
        return item if redacted is None else item.replace(content=from_text(redacted))

    def _within(self, text: bytes, paths: Sequence[Path]) -> bytes | None:
        """JSON text with what the paths name in it replaced; None where that changes nothing."""
        if text.startswith(b"["):
            elements = [bytes(element) for element in _elements(text)]
            redacted = [self._within(element, paths) for element in elements]
            if not any(redacted):
                return None
            return b"[%b]" % b",".join(new or old for new, old in zip(redacted, elements, strict=True))
        if not text.startswith(b"{"):
            return None
        members = []
        for name, raw in _members(text).items():
            old = bytes(raw)
            members.append(b"%b:%b" % (msgspec.json.encode(name), self._member(name, old, paths) or old))
        # Compared as a whole, because members that stand twice have become one without a trace.
        whole = b"{%b}" % b",".join(members)
        return None if whole == text else whole

    def _member(self, name: str, text: bytes, paths: Sequence[Path]) -> bytes | None:
        inside = []
        for path in paths:
            for length in range(1, len(path) + 1):
                if ".".join(path[:length]) == name:
                    if length == len(path):
                        return None if text == b"null" else self._stand_in(text)
                    inside.append(path[length:])
        return self._within(text, inside) if inside else None

    def _stand_in(self, text: bytes) -> bytes:
        if self._key is None:
            return msgspec.json.encode(REDACTED) if text.startswith(b'"') else b"null"
        # Two ways to write one value have one stand-in.
        value = msgspec.json.encode(msgspec.json.decode(text))
        return b'"hmac-sha256:%b"' % hmac.digest(self._key, value, "sha256").hex()[:_HMAC_DIGITS].encode()
