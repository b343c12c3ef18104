"""The demo's traffic: a story that is the same for the same seed, and shaped as OpsML's table is."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby, islice

import pytest

from cli.traffic import BURST, KEPT, Emission, Traffic
from opsml_eventbus.audit import DOMAINS, EMITTED_STATUSES, AuditEvent, SpaceNameEvent
from opsml_eventbus.codec import decode_line, encode_line
from opsml_eventbus.event import Event, Priority

SEEDS = [0, 1, 2, 7, 10**9]


def story(seed: int, length: int = 4000) -> list[Emission]:
    return list(islice(Traffic(seed).events(), length))


def audits(emissions: list[Emission]) -> list[AuditEvent]:
    return [made.payload for made in emissions if isinstance(made.payload, AuditEvent)]


def test_the_same_seed_tells_the_same_story() -> None:
    traffic = Traffic(3)
    first = list(islice(traffic.events(), 500))
    assert list(islice(traffic.events(), 500)) == first
    assert story(3, 500) == first
    assert story(4, 500) != first


def test_the_story_does_not_change_between_pythons() -> None:
    """What the seed 1 begins with: recorded once, on 3.11."""
    beginning = [
        (round(made.delay, 2), made.payload.operation if isinstance(made.payload, AuditEvent) else "space_name")
        for made in story(1, 4)
    ]
    assert beginning == [(0.0, "space_name"), (0.17, "Create"), (1.16, "List"), (1.45, "Update")]


@pytest.mark.parametrize("seed", SEEDS)
def test_at_rate_one_an_event_comes_once_a_second_on_average(seed: int) -> None:
    delays = [made.delay for made in story(seed, 20_000)]
    assert sum(delays) / len(delays) == pytest.approx(1, abs=0.08)
    assert min(delays) >= 0
    assert max(delays) < 30


@pytest.mark.parametrize("seed", SEEDS)
def test_there_are_bursts_and_quiet_spells(seed: int) -> None:
    delays = sorted(made.delay for made in story(seed))
    assert delays[len(delays) // 4] < 0.3
    assert delays[-len(delays) // 50] > 4


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_minute_shows_everything_worth_filtering(seed: int) -> None:
    made = story(seed, 120)
    events = audits(made)
    assert {event.operation for event in events} >= {"Create", "Read", "List", "Update", "Delete"}
    assert {event.status for event in events} == {"Success", "Failed", "Denied"}
    assert {one.priority for one in made} >= {Priority.LOW, Priority.NORMAL, Priority.HIGH}
    assert any(isinstance(one.payload, SpaceNameEvent) for one in made)
    assert len({event.username for event in events}) >= 6


@pytest.mark.parametrize("seed", SEEDS)
def test_every_value_is_in_opsmls_domains(seed: int) -> None:
    for event in audits(story(seed)):
        for member, domain in DOMAINS.items():
            assert getattr(event, member) in domain, event


@pytest.mark.parametrize("seed", SEEDS)
def test_metadata_is_as_large_as_the_real_one(seed: int) -> None:
    """opsml.md and rows of the real server, ± a name's length."""
    sizes: dict[str, list[int]] = {}
    for event in audits(story(seed)):
        if event.route.startswith(("/opsml/api/card/", "/opsml/api/files/artifact")):
            json.loads(event.metadata)
            sizes.setdefault(f"{event.operation} {event.route.removeprefix('/opsml/api')}", []).append(
                len(event.metadata)
            )
    expected = {
        "Create /card/create": (310, 540),
        "Update /card/update": (310, 540),
        "Delete /card/delete": (80, 96),
        "List /card/list": (125, 205),
        "Create /files/artifact": (220, 345),
        "List /files/artifact": (40, 80),
    }
    assert sizes.keys() == expected.keys()
    for name, (least, most) in expected.items():
        assert least <= min(sizes[name]), name
        assert max(sizes[name]) <= most, name


@pytest.mark.parametrize("seed", SEEDS)
def test_the_column_is_lower_case_and_the_metadata_capitalised(seed: int) -> None:
    for event in audits(story(seed, 500)):
        if event.route == "/opsml/api/card/create":
            assert json.loads(event.metadata)["registry_type"] == str(event.registry_type).capitalize()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_updated_or_deleted_had_been_created_and_is_deleted_once(seed: int) -> None:
    alive: set[str] = set()
    for event in audits(story(seed)):
        if event.route.startswith("/opsml/api/card/") and event.status == "Success":
            if event.operation == "Create":
                assert event.resource_id not in alive
                alive.add(event.resource_id)
            elif event.operation == "Update":
                assert event.resource_id in alive
            elif event.operation == "Delete":
                alive.remove(event.resource_id)


def test_old_cards_are_forgotten() -> None:
    """The story is endless; what it remembers is not."""
    known: dict[str, list[str]] = {}
    for event in audits(story(1, 30_000)):
        cards = known.setdefault(str(event.registry_type), [])
        if event.route == "/opsml/api/card/update":
            cards.append(event.resource_id)
            del cards[:-KEPT]
        elif event.route == "/opsml/api/card/delete":
            cards.remove(event.resource_id)
    assert max(map(len, known.values())) == KEPT


@pytest.mark.parametrize("seed", SEEDS)
def test_priorities_say_what_somebody_should_look_at(seed: int) -> None:
    made = story(seed)
    for one in made:
        if isinstance(one.payload, AuditEvent) and one.payload.status == "Denied":
            assert one.priority is Priority.HIGH
        if one.priority is Priority.CRITICAL:
            assert isinstance(one.payload, AuditEvent)
            assert one.payload.operation == "Delete"
    cleaning = [one for one in made if isinstance(one.payload, AuditEvent) and one.payload.username == "ci-release"]
    for is_delete, run in groupby(cleaning, lambda one: one.payload.operation == "Delete"):  # type: ignore[attr-defined]
        if is_delete:
            steps = list(run)
            assert [one.priority for one in steps[: BURST - 1]].count(Priority.NORMAL) == min(len(steps), BURST - 1)
    assert sum(one.priority is Priority.CRITICAL for one in made) > 0


def test_only_the_demo_has_failures_and_they_are_its_few() -> None:
    count = Counter(event.status for event in audits(story(1)))
    assert {"Success"} == EMITTED_STATUSES  # the day OpsML emits more, this docstring and the README change
    assert 0.02 < count["Denied"] / count.total() < 0.2
    assert 0.005 < count["Failed"] / count.total() < 0.1


def test_one_user_never_succeeds() -> None:
    assert {event.status for event in audits(story(1)) if event.username == "etl-legacy"} == {"Failed", "Denied"}


def test_every_event_can_be_written_and_read_back() -> None:
    for made in story(1, 1000):
        event = Event.new(made.payload.__event_type__, made.payload, priority=made.priority)
        assert decode_line(encode_line(event), foreign=True) == event
