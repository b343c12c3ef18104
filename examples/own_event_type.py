"""An event type of your own: typed in this program, plain CloudEvents JSON everywhere else."""

from __future__ import annotations

import asyncio

from opsml_eventbus import AuditEvent, EventBus, Payload, event_type
from opsml_eventbus.codec import encode_line


@event_type("billing.invoice_paid")
class InvoicePaid(Payload):
    """An invoice was paid."""

    invoice: str
    cents: int


async def main() -> None:
    bus = EventBus(source="billing")
    async with bus.subscribe((InvoicePaid, AuditEvent)) as events:
        bus.publish(InvoicePaid(invoice="2026-117", cents=4200))
        bus.publish(AuditEvent(username="mira", status="Denied"))
        bus.close()
        async for event in events:
            match event.data:
                case InvoicePaid(invoice=number, cents=cents):
                    print(f"invoice {number}: {cents / 100:.2f} paid")
                case AuditEvent(status="Denied", username=name):
                    print(f"denied: {name}")
            print(encode_line(event).decode())


if __name__ == "__main__":
    asyncio.run(main())
