"""What `bus.statistics()` says, and the same as Prometheus text. Pure.

All of it is worked out when asked for; counting costs a publisher nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .event import Priority


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """One subscription at one moment. received + filtered + missed + unread == published since it began.

    unread: its lag now, in events; those it has lost and not been told of yet included. high_water: the largest lag it
    had when it came to read. oldest_unread: age in seconds of the oldest event it has not read, by the event's own
    time; None when it has read everything. waiting: its reader sleeps until something comes.
    """

    overflow: str
    order: str
    received: int
    filtered: int
    missed: int
    unread: int
    high_water: int
    oldest_unread: float | None
    waiting: bool


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """A bus at one moment.

    published: events ever published, by priority. subscriptions: those that live. departed_missed: events missed by
    those that have ended, what they left unread included. waiting_senders: `send` calls that wait for a place.
    """

    id: str
    source: str
    capacity: int
    closed: bool
    published_by_priority: Mapping[Priority, int]
    subscriptions: tuple[SubscriptionStatistics, ...]
    departed_missed: int
    waiting_senders: int

    @property
    def published(self) -> int:
        """Events ever published."""
        return sum(self.published_by_priority.values())

    @property
    def delivered(self) -> int:
        """Events handed to the subscriptions that live, all together."""
        return sum(one.received for one in self.subscriptions)

    @property
    def missed(self) -> int:
        """Events missed by the subscriptions that live, all together."""
        return sum(one.missed for one in self.subscriptions)

    @property
    def waiting_readers(self) -> int:
        """Subscriptions whose reader sleeps until something comes."""
        return sum(one.waiting for one in self.subscriptions)

    def prometheus(self) -> str:
        """Format: Prometheus text exposition 0.0.4. Subscriptions are numbered from the oldest."""
        bus = f'source="{_escape(self.source)}"'
        lines: list[str] = []

        def metric(name: str, kind: str, text: str, samples: list[tuple[str, float]]) -> None:
            lines.append(f"# HELP eventbus_{name} {text}")
            lines.append(f"# TYPE eventbus_{name} {kind}")
            lines.extend(f"eventbus_{name}{{{bus}{labels}}} {value}" for labels, value in samples)

        def each(member: str) -> list[tuple[str, float]]:
            return [
                (f',subscription="{number}",overflow="{one.overflow}"', getattr(one, member) or 0)
                for number, one in enumerate(self.subscriptions)
            ]

        metric(
            "published_total",
            "counter",
            "Events published.",
            [(f',priority="{priority.name.lower()}"', count) for priority, count in self.published_by_priority.items()],
        )
        metric("capacity", "gauge", "Events kept per priority.", [("", self.capacity)])
        metric("closed", "gauge", "1 once the bus is closed.", [("", int(self.closed))])
        metric("subscriptions", "gauge", "Subscriptions that live.", [("", len(self.subscriptions))])
        metric("waiting_senders", "gauge", "Senders waiting for a place.", [("", self.waiting_senders)])
        metric(
            "departed_missed_total", "counter", "Events missed by ended subscriptions.", [("", self.departed_missed)]
        )
        metric("received_total", "counter", "Events handed to a subscription.", each("received"))
        metric("filtered_total", "counter", "Events a subscription's filter removed.", each("filtered"))
        metric("missed_total", "counter", "Events a subscription missed.", each("missed"))
        metric("unread", "gauge", "Events a subscription has not read.", each("unread"))
        metric("unread_high_water", "gauge", "The largest lag seen when reading.", each("high_water"))
        metric("oldest_unread_seconds", "gauge", "Age of the oldest unread event.", each("oldest_unread"))
        return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
