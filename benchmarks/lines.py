"""Lines ⇄ events, against the same JSON through orjson and a dataclass: what most people would write."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from opsml_eventbus import AuditEvent, Event
from opsml_eventbus.codec import decode_line, encode_line

METADATA = '{"registry_type":"Prompt","card":{"name":"greeting","space":"support","version":"1.2.3"}}' * 3


@dataclass(frozen=True, slots=True)
class Plain:
    """The envelope as a dataclass; `data` stays a dict, unchecked."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    data: dict[str, Any]


def cost(work: Callable[[], object], number: int) -> float:
    """The least time of one call over five rounds, in seconds: noise only ever adds."""
    return min(timeit.repeat(work, number=number, repeat=5)) / number


def main(tiny: bool) -> None:
    number = 200 if tiny else 20_000
    event = Event.new("audit", AuditEvent(username="mira", metadata=METADATA, route="/opsml/api/card/create"))
    line = encode_line(event)
    plain = orjson.loads(line)
    assert encode_line(decode_line(line)) == line
    read = decode_line(line)
    assert isinstance(read, Event)
    assert read.data == event.data
    base_write = cost(lambda: orjson.dumps(plain), number)
    base_read = cost(lambda: Plain(**orjson.loads(line)), number)
    rows = [
        ("write an event", cost(lambda: encode_line(event.replace()), number), base_write),
        (
            "write one that was read (kept bytes)",
            cost(lambda: encode_line(read.replace(replay="r")), number),
            base_write,
        ),
        ("write one a second time (kept line)", cost(lambda: encode_line(event), number), base_write),
        ("read a line", cost(lambda: decode_line(line), number), base_read),
        ("read a line, foreign", cost(lambda: decode_line(line, foreign=True), number), base_read),
    ]
    print(f"{len(line)} bytes; ratio to orjson (and a dataclass, unchecked) doing the same")
    for what, seconds, base in rows:
        print(f"{what:<40} {seconds * 1e6:7.2f} µs  {seconds / base:5.2f} ×")
