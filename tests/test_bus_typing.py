"""What a type checker makes of the bus: the samples below are given to mypy, strict, as a user's code would be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SAMPLE = """
from opsml_eventbus import AuditEvent, Event, EventBus, Gap, Payload, SpaceNameEvent, event_type

@event_type("billing.invoice_paid")
class InvoicePaid(Payload):
    invoice: str
    cents: int

async def sample(bus: EventBus) -> None:
    async with bus.subscribe(AuditEvent) as audits:
        async for event in audits:
            reveal_type(event)  #: Event[AuditEvent]
            reveal_type(event.data.username)  #: str
            event.data.cents  #! "AuditEvent" has no attribute "cents"
        async for batch in audits.batches():
            reveal_type(batch)  #: list[Event[AuditEvent]]
        async for item in audits.items():
            reveal_type(item)  #: Event[AuditEvent] | Gap
        reveal_type(await anext(audits))  #: Event[AuditEvent]
    async for either in bus.subscribe((AuditEvent, InvoicePaid)):
        match either.data:
            case AuditEvent(status="Denied", username=name):
                reveal_type(name)  #: str
            case InvoicePaid(cents=cents):
                reveal_type(cents)  #: int
    reveal_type(bus.subscribe((AuditEvent, InvoicePaid, SpaceNameEvent)))  #: Subscription[Payload]
    reveal_type(bus.subscribe())  #: Subscription[Any]
    reveal_type(bus.subscribe(lambda event: event.type == "x"))  #: Subscription[Any]
    reveal_type(bus.publish(AuditEvent()))  #: Event[AuditEvent]
    reveal_type(bus.publish(Event.new("x", 1)))  #: Event[Any]
    bus.publish({"a": 1})  #! No overload variant of "publish"
    bus.subscribe(overflow="drop")  #! No overload variant of "subscribe"
    bus.subscribe(int)  #! Value of type variable "PayloadT"

def plain(event: Event, gap: Gap) -> int:
    reveal_type(event.data)  #: Any
    InvoicePaid("7", 100).cents = 1  #! Property "cents" defined
    gap.missed + 1  #! Unsupported operand types
    return InvoicePaid("7", 100).cents
"""


def test_the_samples_mean_to_mypy_what_they_say(tmp_path: Path):
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-color-output",
            "--config-file=",
            f"--cache-dir={tmp_path}",
            str(sample),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MYPYPATH": str(root), "PATH": "/usr/bin:/bin"},
        timeout=110,
    )
    said: dict[int, list[str]] = {}
    for number, kind, text in re.findall(r"sample\.py:(\d+): (note|error): (.*)", done.stdout):
        said.setdefault(int(number), []).append(f"{kind}: {text}")
    for number, line in enumerate(SAMPLE.splitlines(), 1):
        found = "\n".join(said.pop(number, []))
        if "#:" in line:
            # Names without the modules they come from.
            revealed = re.sub(r"[a-z_]+\.(?:[a-z_]+\.)*", "", found.partition('"')[2].rpartition('"')[0])
            assert revealed.replace(" | None", "?") == line.partition("#: ")[2], f"line {number}: {found}"
        elif "#!" in line:
            assert f"error: {line.partition('#! ')[2]}"[:30] in found, f"line {number}: {found or 'nothing was found'}"
        else:
            assert not found, f"line {number}: {found}"
    assert not said
