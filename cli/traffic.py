"""The demo's traffic: what a small team does to an OpsML server in a day, endless and the same for the same seed.

Routes, operations, registry types and metadata have the shape that the server 3.0.0rc16 writes into its audit table.
The people and their cards are made up, and so is one thing more: **status is Failed or Denied here where today's OpsML
emits nothing at all**, because a demo in which nothing goes wrong shows nobody what filters and priorities are for.
Ids and times *inside* the metadata belong to the made-up day; the events' own are the bus's to stamp.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from random import Random
from typing import Any, NamedTuple, TypeVar

from opsml_eventbus.audit import AuditEvent, SpaceNameEvent
from opsml_eventbus.event import Payload, Priority

MORNING = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)  # when the made-up day begins
TEMPO = 3.3  # stretches the team's seconds so that events come once a second on average; found by counting
QUIET = 0.025  # of events are followed by a quiet spell
BURST = 4  # deletes in a row from which on somebody should look: CRITICAL
KEPT = 40  # cards of a registry that anyone remembers

T = TypeVar("T")


class Emission(NamedTuple):
    """One event of the demo. delay: seconds after the one before it, at one event a second on average."""

    delay: float
    payload: Payload
    priority: Priority


class Traffic:
    """The traffic of one seed. Every call of `events` tells the same story from its beginning."""

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed

    def events(self) -> Iterator[Emission]:
        """Without end."""
        world = _World(Random(self._seed))  # noqa: S311 - a story, not a secret
        agenda: list[tuple[float, int, Iterator[_Step]]] = []
        for number, (begins, person) in enumerate(_TEAM):
            heappush(agenda, (begins, number, person(world)))
        last = 0.0
        pause = 0.0
        while True:
            world.clock, number, person_steps = heappop(agenda)
            step = next(person_steps)
            heappush(agenda, (world.clock + step.pause, number, person_steps))
            yield Emission((world.clock - last) * TEMPO + pause, step.payload, step.priority)
            last = world.clock
            pause = 4 + 8 * world.random.random() if world.random.random() < QUIET else 0.0


# ── the world ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Step(NamedTuple):
    payload: Payload
    pause: float = 1.0  # seconds until this person does something again
    priority: Priority = Priority.NORMAL


class _Card(NamedTuple):
    uid: str
    registry: str  # as the metadata spells it; the column has it in lower case
    space: str
    name: str
    version: str
    created: str


@dataclass
class _World:
    random: Random
    clock: float = 0.0  # seconds since the morning
    cards: dict[str, list[_Card]] = field(default_factory=dict)

    # Random.choice and its kin draw differently in different Pythons; random() does not.
    def pick(self, things: Sequence[T]) -> T:
        return things[int(self.random.random() * len(things))]

    def between(self, low: int, high: int) -> int:
        return low + int(self.random.random() * (high - low + 1))

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def soon(self, seconds: float) -> float:
        return seconds * (0.5 + self.random.random())

    def now(self, digits: int = 9) -> str:
        moment = MORNING + timedelta(seconds=self.clock)
        fraction = f"{moment.microsecond:06d}{self.between(0, 999):03d}"[:digits]
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction}Z"

    def uid(self) -> str:
        milliseconds = int((MORNING.timestamp() + self.clock) * 1000)
        number = milliseconds << 80 | self.random.getrandbits(80)
        number = number & ~(0xF << 76) & ~(0x3 << 62) | 7 << 76 | 2 << 62
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def known(self, registry: str) -> _Card | None:
        cards = self.cards.get(registry)
        return self.pick(cards) if cards else None

    def remember(self, card: _Card) -> None:
        cards = self.cards.setdefault(card.registry, [])
        cards.append(card)
        del cards[:-KEPT]

    def forget(self, card: _Card) -> None:
        self.cards[card.registry].remove(card)


@dataclass(frozen=True)
class _Client:
    username: str
    client_ip: str
    user_agent: str

    def did(
        self, operation: str, route: str, *, registry: str, resource_id: str, metadata: Any, **more: Any
    ) -> AuditEvent:
        """What the server's middleware would have recorded."""
        return AuditEvent(
            username=self.username,
            client_ip=self.client_ip,
            user_agent=self.user_agent,
            operation=operation,
            resource_type=more.pop("resource_type", "Database"),
            resource_id=resource_id,
            metadata=metadata if isinstance(metadata, str) else json.dumps(metadata, separators=(",", ":")),
            registry_type=registry.lower(),
            route=route,
            **more,
        )


# ── what clients do, as the server records it ────────────────────────────────────────────────────────────────────

_API = "/opsml/api"
_NAMES = {
    "Prompt": ("greeting", "triage", "summarise-ticket", "rewrite-query", "judge-answer"),
    "Data": ("transactions", "tickets-2026q3", "embeddings", "holdout"),
    "Model": ("churn", "fraud-scorer", "ticket-router", "price-elasticity"),
    "Experiment": ("trial", "sweep-lr", "ablation", "distil"),
    "Service": ("scoring", "support-desk"),
}
_SPACES = ("lab", "risk", "support", "pricing")
_LISTS = ("datacard_uids", "modelcard_uids", "promptcard_uids", "service_card_uids", "experimentcard_uids")
_OWN: dict[str, tuple[tuple[str, str], ...]] = {
    "Data": (("data_type", "Polars"), ("interface_type", "Polars")),
    "Model": (("model_type", "LightGbm"), ("interface_type", "LightGbm"), ("task_type", "Classification")),
}
_FILES = (
    ("loss.png", "image/png"), ("confusion.png", "image/png"), ("config.yaml", "application/yaml"),
    ("notes.txt", "text/plain"), ("predictions.parquet", "application/octet-stream"),
)  # fmt: skip


def _record(card: _Card, client: _Client, **changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "uid": card.uid,
        "created_at": card.created,
        "app_env": "production" if client.username.startswith("ci-") else "dev_client",
        "name": card.name,
        "space": card.space,
        "version": card.version,
        "tags": [],
        **dict(_OWN.get(card.registry, ())),
    }
    if card.registry == "Experiment":
        data.update({name: [] for name in _LISTS})
    elif card.registry != "Service":
        data.update(experimentcard_uid=None, auditcard_uid=None)
    data.update(opsml_version="3.0.0-rc.16", username=client.username)
    return {"type": card.registry, "data": {**data, **changes}}


def _new_card(world: _World, registry: str) -> _Card:
    name = world.pick(_NAMES[registry])
    version = f"{world.between(0, 3)}.{world.between(1, 12)}.0"
    return _Card(world.uid(), registry, world.pick(_SPACES), name, version, world.now(6))


def _creation(
    world: _World, client: _Client, card: _Card, own: dict[str, Any] | None = None, **outcome: Any
) -> AuditEvent:
    asked = card._replace(uid="undefined", version="0.0.0", created=world.now())
    request = {
        "registry_type": card.registry,
        "card": _record(asked, client, **(own or {})),
        "version_request": {
            "name": card.name,
            "space": card.space,
            "version": None,
            "version_type": "Minor",
            "pre_tag": None,
            "build_tag": None,
        },
    }
    return client.did(
        "Create", f"{_API}/card/create", registry=card.registry, resource_id=card.uid, metadata=request, **outcome
    )


def _listing(client: _Client, registry: str, card: _Card | None = None, **outcome: Any) -> AuditEvent:
    query: dict[str, Any] = dict.fromkeys(("uid", "name", "space", "version", "max_date", "tags"))
    if card is not None:
        query.update(uid=card.uid, name=card.name, space=card.space, version=card.version)
    query.update(limit=None if card else 25, sort_by_timestamp=False if card else None, registry_type=registry)
    return client.did(
        "List", f"{_API}/card/list", registry=registry, resource_id="list_cards", metadata=query, **outcome
    )


def _register(world: _World, client: _Client, registry: str) -> Iterator[_Step]:
    card = _new_card(world, registry)
    yield _Step(SpaceNameEvent(space=card.space, name=card.name, registry_type=registry.lower()), 0.05)
    own: dict[str, Any] = {}
    if registry == "Service" and (part := world.known("Model")):
        own["cards"] = [{"registry_type": "Model", "uid": part.uid, "version": part.version, "alias": part.name}]
    yield _Step(_creation(world, client, card, own), world.soon(0.8))
    world.remember(card)
    own["tags"] = ["reviewed"] if world.chance(0.3) else []
    yield _Step(_update(client, card, **own), world.soon(2))


def _update(client: _Client, card: _Card, **changes: Any) -> AuditEvent:
    request = {"card": _record(card, client, **changes), "registry_type": card.registry}
    return client.did("Update", f"{_API}/card/update", registry=card.registry, resource_id=card.uid, metadata=request)


def _delete(client: _Client, card: _Card) -> AuditEvent:
    request = {"uid": card.uid, "space": card.space, "registry_type": card.registry}
    return client.did("Delete", f"{_API}/card/delete", registry=card.registry, resource_id=card.uid, metadata=request)


def _experiment(world: _World, client: _Client) -> Iterator[_Step]:
    """A run: its card, a burst of artifacts, its card again."""
    card = _new_card(world, "Experiment")
    yield _Step(SpaceNameEvent(space=card.space, name=card.name, registry_type="experiment"), 0.05)
    yield _Step(_creation(world, client, card), world.soon(3))
    for _ in range(world.between(3, 9)):
        uid = world.uid()
        name, kind = world.pick(_FILES)
        artifact = {
            "app_env": "dev_client",
            "artifact_type": "figure" if kind == "image/png" else "generic",
            "created_at": world.now(),
            "filename": f"opsml_experiment_registry/{card.space}/{card.name}/v{card.version}/artifacts/{name}",
            "media_type": kind,
            "space": card.uid,
            "uid": uid,
            "version": "0.0.0",
        }
        yield _Step(
            client.did("Create", f"{_API}/files/artifact", registry="artifact", resource_id=uid, metadata=artifact),
            world.soon(0.15),
        )
    world.remember(card)
    model = world.known("Model")
    yield _Step(_update(client, card, modelcard_uids=[model.uid] if model else []), world.soon(4))


def _clean_up(world: _World, client: _Client) -> Iterator[_Step]:
    """One card after another is deleted, faster than anyone reads."""
    deleted = 0
    for _ in range(world.between(2, 10)):
        card = world.known(world.pick(("Prompt", "Data", "Experiment", "Model")))
        if card is not None:
            world.forget(card)
            deleted += 1
            priority = Priority.CRITICAL if deleted >= BURST else Priority.NORMAL
            yield _Step(_delete(client, card), world.soon(0.2), priority)


def _fetch(world: _World, client: _Client, kind: str, name: str) -> AuditEvent:
    space = world.pick(_SPACES)
    version = f"/1.{world.between(0, 4)}.0" if world.chance(0.5) else ""
    return client.did(
        "Read",
        f"{_API}/v1/{kind}/{space}/{name}{version}",
        registry=kind,
        resource_type="Card",
        resource_id=world.uid(),
        metadata=f"space={space} name={name}",
    )


def _invoke(world: _World, client: _Client) -> Iterator[_Step]:
    """An agent is asked, and its job looked at until it is done."""
    agent = world.pick(("refund-clerk", "log-reader"))
    job = world.uid()
    route = f"{_API}/v1/agent/{agent}"
    common = {"registry": "subagent", "resource_type": "Card", "resource_id": agent}
    yield _Step(client.did("Create", f"{route}/invoke", metadata=f"agent={agent} job={job}", **common), world.soon(1))
    for _ in range(world.between(1, 5)):
        polled = client.did("Read", f"{route}/jobs/{job}", metadata=f"agent={agent} job={job}", **common)
        yield _Step(polled, world.soon(1), Priority.LOW)


# ── the people ───────────────────────────────────────────────────────────────────────────────────────────────────

_PYTHON = "opsml-client/"
_FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_MIRA = _Client("mira", "10.20.4.31", _PYTHON)
_JONAS = _Client("jonas", "10.20.4.32", _PYTHON)
_AOKI = _Client("aoki", "10.20.7.118", _FIREFOX)
_CI = _Client("ci-release", "10.20.0.17", _PYTHON)
_AGENT = _Client("support-agent", "10.20.9.5", "support-desk/1.4 python-httpx/0.28.1")
_LEGACY = _Client("etl-legacy", "10.20.9.77", "python-requests/2.25.1")
_STRANGER = _Client("admin", "203.0.113.66", "curl/8.5.0")
_GUEST = _Client("guest", "127.0.0.1", _PYTHON)


def _scientist(world: _World) -> Iterator[_Step]:
    while True:
        yield _Step(_listing(_MIRA, world.pick(("Data", "Model"))), world.soon(2))
        yield from _register(world, _MIRA, world.pick(("Data", "Model", "Model")))
        if world.chance(0.6):
            yield from _experiment(world, _MIRA)


def _prompt_writer(world: _World) -> Iterator[_Step]:
    while True:
        yield from _register(world, _JONAS, "Prompt")
        for _ in range(world.between(1, 3)):
            yield _Step(_listing(_JONAS, "Prompt", world.known("Prompt")), world.soon(1.5))
        if world.chance(0.4) and (card := world.known("Prompt")):
            world.forget(card)
            yield _Step(_delete(_JONAS, card), world.soon(6))


def _reader(world: _World) -> Iterator[_Step]:
    """Somebody looks around in a browser."""
    while True:
        for _ in range(world.between(2, 5)):
            yield _Step(_listing(_AOKI, world.pick(("Model", "Experiment", "Service"))), world.soon(1.2))
        query = {"name": None, "space": world.pick(_SPACES), "version": None, "uid": None, "limit": 50}
        yield _Step(
            _AOKI.did(
                "List", f"{_API}/files/artifact", registry="artifact", resource_id="list_artifacts", metadata=query
            ),
            world.soon(3),
        )
        servers = {"space": None, "name": None, "tags": None, "service_type": "Mcp"}
        yield _Step(
            _AOKI.did(
                "List",
                f"{_API}/agent/mcp/servers",
                registry="service",
                resource_id="list_mcp_servers",
                metadata=servers,
            ),
            world.soon(9),
        )


def _release(world: _World) -> Iterator[_Step]:
    while True:
        yield from _register(world, _CI, world.pick(("Service", "Model")))
        yield _Step(_listing(_CI, "Service", world.known("Service")), world.soon(6))
        yield from _clean_up(world, _CI)
        yield _Step(_listing(_GUEST, "Prompt"), world.soon(12))


def _assistant(world: _World) -> Iterator[_Step]:
    while True:
        yield _Step(_fetch(world, _AGENT, "skill", world.pick(("sql-review", "tone"))), world.soon(0.5))
        yield _Step(_fetch(world, _AGENT, "tool", world.pick(("search", "calculator"))), world.soon(0.5))
        if world.chance(0.3):
            yield _Step(_fetch(world, _AGENT, "subagent", "refund-clerk"), world.soon(0.5))
        yield from _invoke(world, _AGENT)


def _forgotten_job(world: _World) -> Iterator[_Step]:
    """It keeps failing, and tries again and again: first too late for its token, then too late for its version."""
    denied: dict[str, Any] = {"status": "Denied", "error_message": "token expired"}
    while True:
        for attempt in range(world.between(2, 4)):
            yield _Step(_listing(_LEGACY, "Data", **denied), 0.5 * 2**attempt, Priority.HIGH)
        card = _new_card(world, "Data")
        reason = f"version {card.version} of {card.space}/{card.name} exists"
        failed = _creation(world, _LEGACY, card, status="Failed", error_message=reason)
        yield _Step(failed, world.soon(8))


def _stranger(world: _World) -> Iterator[_Step]:
    """Somebody who says to be admin, from outside."""
    while True:
        for _ in range(world.between(1, 6)):
            refused = _listing(_STRANGER, "Users", status="Denied", error_message="invalid credentials")
            yield _Step(refused, world.soon(0.3), Priority.HIGH)
        probe = _STRANGER.did(
            "Read",
            f"{_API}/files/content",
            registry="artifact_key",
            resource_type="File",
            resource_id="../../etc/passwd",
            metadata="unknown",
            status="Denied",
            error_message="path outside the store",
        )
        yield _Step(probe, world.soon(40), Priority.HIGH)


# Who begins when, in seconds; early enough that a first minute shows everybody.
_TEAM: tuple[tuple[float, Callable[[_World], Iterator[_Step]]], ...] = (
    (0.0, _prompt_writer),
    (0.4, _scientist),
    (0.9, _assistant),
    (1.5, _forgotten_job),
    (2.0, _reader),
    (3.0, _release),
    (6.0, _stranger),
)
