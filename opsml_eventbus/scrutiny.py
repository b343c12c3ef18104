"""What a JSON text may not hold, and where it stands.

msgspec and orjson let pass what a log must not keep, since it could not be read back the same: integers beyond 64 bits,
numbers beyond a double, nesting that one can read and the other cannot write, duplicate keys, bytes that are no UTF-8.
`suspicious` asks quickly and is never wrong in saying no; `scrutinise` is exact, says at which byte, and is an order
of magnitude slower than decoding.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

import msgspec
import orjson

from .errors import MalformedLine

MAX_DEPTH = 128  # arrays and objects inside one another in `data`; orjson could read 1,024 but write only 253
MAX_INTEGER = (1 << 64) - 1
MIN_INTEGER = -(1 << 63)

# One pass marks what matters: a digit as 0, an opening bracket as {.
_MARKS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x7B if byte in b"[{" else 0x20 for byte in range(256))
_LONG_NUMBER = b"0" * 19  # 2**63 has nineteen digits
# A string that does not end is one token too: tried anew from each of its quotes, it would cost its length squared.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]')


def suspicious(line: bytes) -> bool:
    """Might this line hold what a decoder lets pass? Quick, and never wrong in saying no.

    (An exponent beyond a double, `1e999`, is not looked for here: it is refused when the value is asked for.)
    """
    if not line.isascii():
        return True
    marks = line.translate(_MARKS)
    return _LONG_NUMBER in marks or marks.count(b"{") > MAX_DEPTH


def scrutinise(line: bytes, *, duplicates: bool = False) -> None:
    """Raise MalformedLine with the reason and the byte; exact, and an order of magnitude slower than decoding."""
    if _comes_back(line):
        return
    if line.startswith(b"\xef\xbb\xbf"):
        raise MalformedLine("a byte order mark", "byte 0")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise MalformedLine("not UTF-8", f"byte {error.start}") from None
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH:
        _refuse_depth(line)

    def refuse(reason: str, token: str) -> NoReturn:
        raise MalformedLine(reason, f"byte {max(line.find(token.encode()), 0)}")

    def integer(token: str) -> int:
        # A number of thousands of digits must not even be converted.
        if len(token) > 20 or not MIN_INTEGER <= (value := int(token)) <= MAX_INTEGER:
            refuse("an integer beyond 64 bits", token)
        return value

    def real(token: str) -> float:
        value = float(token)
        if not math.isfinite(value):
            refuse("a number beyond a double", token)
        return value

    def constant(token: str) -> NoReturn:
        refuse(f"{token} is no JSON", token)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if duplicates and len(found) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise MalformedLine(f"the key {twice[:64]!r} stands twice")
        return found

    try:
        value = json.loads(
            text, parse_int=integer, parse_float=real, parse_constant=constant, object_pairs_hook=members
        )
    except json.JSONDecodeError as error:
        place = len(text[: error.pos].encode())
        reason = error.msg[0].lower() + error.msg[1:] if line else "empty"
        raise MalformedLine(reason, f"byte {place}") from None
    if b"\\u" in line:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise MalformedLine("a lone surrogate", _surrogate_place(line)) from None


def _comes_back(line: bytes) -> bool:
    """Does a text come back byte for byte when it is read and written again? Then nothing in it got lost.

    A duplicate key, a number that a double cannot hold, a lone surrogate, bytes that are no UTF-8: each either comes
    back different or not at all. (So do `1.50` and `\\u00e9`, which is why a no only means: look closely.)
    """
    try:
        compact = msgspec.json.format(line, indent=-1)
        return orjson.dumps(orjson.loads(compact)) == compact and line.count(b"{") + line.count(b"[") <= MAX_DEPTH
    except (ValueError, TypeError, RecursionError):
        return False


def _refuse_depth(line: bytes) -> None:
    depth = 0
    for token in _TOKENS.finditer(line):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth > MAX_DEPTH + 1:  # the envelope itself is one
                raise MalformedLine(f"nested deeper than {MAX_DEPTH}", f"byte {token.start()}")
        elif token[0] in (b"}", b"]"):
            depth -= 1


def _surrogate_place(line: bytes) -> str:
    match = re.search(rb"\\u[dD][89a-fA-F]", line)
    return f"byte {match.start()}" if match else ""
