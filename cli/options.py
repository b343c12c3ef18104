"""Flags that several commands share, declared once.

A group of flags is a dataclass; `@takes(Selection, Output)` gives a command those flags and hands it the filled-in
groups. So a flag is named, typed and explained in one place, and reads the same in every command.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import typer

from . import places, values

if TYPE_CHECKING:
    from opsml_eventbus.filter import Filter
    from opsml_eventbus.flow import Sink, Start

    from .terminal import Notes

FILTERS = "Filters (several values of one flag: any of them; different flags: all of them; ^value: not)"
WINDOW = "Which part"
FROM_SEQ = "--from-seq"
OUTPUT = "Output"


def _many(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text, rich_help_panel=FILTERS, show_default=False)


@dataclass
class Selection:
    """Which events."""

    type: Annotated[list[str], _many("--type", "Event type, or a glob: audit, 'billing.*'.")] = field(
        default_factory=list
    )
    user: Annotated[list[str], _many("--user", "User name, as the client claims it.")] = field(default_factory=list)
    op: Annotated[list[str], _many("--op", "Operation: create, read, delete, list, update …")] = field(
        default_factory=list
    )
    status: Annotated[list[str], _many("--status", "Status: success, failed, denied.")] = field(default_factory=list)
    resource: Annotated[list[str], _many("--resource", "Resource type: file, database, card, drift.")] = field(
        default_factory=list
    )
    id: Annotated[list[str], _many("--id", "Resource id, or a glob.")] = field(default_factory=list)
    registry: Annotated[list[str], _many("--registry", "Registry type: model, prompt, experiment …")] = field(
        default_factory=list
    )
    route: Annotated[list[str], _many("--route", "Route, or a glob: '/opsml/api/card/*'.")] = field(
        default_factory=list
    )
    ip: Annotated[list[str], _many("--ip", "Client address or CIDR, as claimed: 10.0.0.0/8.")] = field(
        default_factory=list
    )
    source: Annotated[list[str], _many("--source", "Who emitted it (CloudEvents source).")] = field(
        default_factory=list
    )
    priority: Annotated[list[str], _many("--priority", "At least this: low, normal, high, critical.")] = field(
        default_factory=list
    )
    grep: Annotated[list[str], _many("--grep", "Text anywhere in the payload, literal, without case.")] = field(
        default_factory=list
    )

    def filter(self, notes: Notes) -> Filter | None:
        """The filter these flags make; None when everything passes. Raises InvalidFilter."""
        given = {item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name)}
        if not given:
            return None
        from opsml_eventbus.filter import Filter

        where = Filter.of(**given)
        for note in where.notes:
            notes.say(note)
        return where


@dataclass
class Window:
    """Which part of what is there."""

    since: Annotated[
        str | None,
        typer.Option(
            help="From here on: 10m, '2 hours ago', yesterday, 10:15, 2026-11-24T09:00Z.", rich_help_panel=WINDOW
        ),
    ] = None
    until: Annotated[
        str | None, typer.Option(help="Up to here, not included; the same forms.", rich_help_panel=WINDOW)
    ] = None
    from_seq: Annotated[
        int | None,
        typer.Option(min=1, metavar="SEQ", help="From this line of a journal on.", rich_help_panel=WINDOW),
    ] = None

    def position(self, *names: str) -> int | None:
        """The seq of the line to begin behind, None when none was given. names: of the sources that are read."""
        if self.from_seq is None:
            return None
        from opsml_eventbus.endpoints import FILE, scheme_of
        from opsml_eventbus.endpoints.journal import is_journal

        for name in names:
            if scheme_of(name) is not FILE or (Path(name).exists() and not is_journal(name)):
                # (Not named: an address may hold a password.)
                raise typer.BadParameter("only a journal's lines have a seq; name a journal", param_hint=FROM_SEQ)
        if len(names) > 1:
            raise typer.BadParameter("a seq is a place in one journal, not in several", param_hint=FROM_SEQ)
        return self.from_seq - 1

    def bounds(self, notes: Notes) -> tuple[int | None, int | None]:
        """(since, until) in ns since the epoch; what was understood is echoed."""
        now = datetime.now().astimezone()
        bounds: list[int | None] = []
        for flag, text in (("--since", self.since), ("--until", self.until)):
            if text is None:
                bounds.append(None)
                continue
            try:
                moment = values.moment(text, now)
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint=flag) from error
            bounds.append(moment)
            notes.say(f"{flag} {text}: {values.format_moment(moment)}")
        return bounds[0], bounds[1]


@dataclass
class Ending:
    """When a live command ends by itself, and what it says of loss."""

    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None
    for_: Annotated[str | None, typer.Option("--for", metavar="TIME", help="End after 10s, 5m …")] = None
    fail_on_loss: Annotated[bool, typer.Option(help="Exit with 4 when events were lost.")] = False
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Exit with 1 when there is no bus yet.")] = False

    @property
    def seconds(self) -> float | None:
        """What `--for` says. Raises the usage error that names it."""
        seconds = cast("float | None", parsed("--for", values.duration, self.for_))
        if seconds == 0:
            raise typer.BadParameter(f"{self.for_} is over before anything can come", param_hint="--for")
        return seconds


@dataclass
class Output:
    """How it is shown."""

    output: Annotated[
        Literal["pretty", "json"] | None,
        typer.Option("--output", "-o", help="Default: pretty on a terminal, json when piped.", rich_help_panel=OUTPUT),
    ] = None
    color: Annotated[
        Literal["auto", "always", "never"], typer.Option(help="NO_COLOR is obeyed.", rich_help_panel=OUTPUT)
    ] = "auto"
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no summary.", rich_help_panel=OUTPUT)] = (
        False
    )

    def notes(self) -> Notes:
        """What is said on standard error."""
        from .terminal import Notes

        return Notes(quiet=self.quiet, color=self.color)

    def sink(self) -> Sink:
        """Standard output: drawn, or as JSON lines. Raises Broken: it is closed."""
        places.named("-", "stdout")
        if self.pretty:
            from .render import Screen

            return Screen(self.color)
        if sys.stdout is not None and sys.stdout.isatty():
            from .render import JsonScreen

            return JsonScreen(self.color)
        from opsml_eventbus.endpoints.stdio import StdoutSink

        return StdoutSink()

    @property
    def pretty(self) -> bool:
        """Drawn, or JSON lines?"""
        return self.output == "pretty" or (self.output is None and sys.stdout is not None and sys.stdout.isatty())


def _file(flag: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(flag, help=text, metavar=metavar, rich_help_panel="The file")


@dataclass
class Journaling:
    """How the file is written; None: as `Journal` does it when it is not told."""

    fsync: Annotated[
        str | None,
        _file("--fsync", "When a batch is on disk: always, interval[=1s], never. [always]", "always|interval|never"),
    ] = None
    rotate_size: Annotated[str | None, _file("--rotate-size", "Finish a file before this size: 1GB.", "SIZE")] = None
    rotate_count: Annotated[int | None, _file("--rotate-count", "… before so many events.", "N")] = None
    rotate_every: Annotated[str | None, _file("--rotate-every", "… at this time of the clock: 1h, 24h.", "TIME")] = None
    compress: Annotated[
        Literal["gzip", "zstd"] | None, _file("--compress", "Compress finished files (zstd: an extra).")
    ] = None
    keep: Annotated[int | None, _file("--keep", "Keep so many finished files; older ones are removed.", "N")] = None
    on_error: Annotated[
        Literal["halt", "block"] | None, _file("--on-error", "A write that fails: end, or wait and try again. [halt]")
    ] = None
    min_free: Annotated[str | None, _file("--min-free", "Warn when the disk has less: 1GB.", "SIZE")] = None
    redact: Annotated[
        str | None, _file("--redact", "Members of data that must not reach the file: username,card.owner.", "FIELD[,…]")
    ] = None
    redact_key: Annotated[
        str | None,
        _file("--redact-key", "A file whose bytes key an HMAC: equal values stay equal, unreadable.", "FILE"),
    ] = None
    sign_key: Annotated[
        str | None, _file("--sign-key", "Ed25519 private key (PEM): sign the file's heads. An extra.", "FILE")
    ] = None

    def journal(self) -> dict[str, Any]:
        """The options of the Journal that these flags ask for. Raises the usage error that names the flag."""
        from opsml_eventbus.journal import Redaction, parse_fsync

        parsed("--fsync", parse_fsync, self.fsync)  # said now, not when the file is opened
        options: dict[str, Any] = {
            "fsync": self.fsync,
            "rotate_size": parsed("--rotate-size", values.size, self.rotate_size),
            "rotate_count": self.rotate_count,
            "rotate_every": parsed("--rotate-every", values.duration, self.rotate_every),
            "keep": self.keep,
            "compress": self.compress,
            "on_error": self.on_error,
            "min_free": parsed("--min-free", values.size, self.min_free),
            "sign_key": None if self.sign_key is None else _signing(self.sign_key),
        }
        for flag, text, value in (
            ("--rotate-size", self.rotate_size, options["rotate_size"]),
            ("--rotate-every", self.rotate_every, options["rotate_every"]),
            ("--rotate-count", self.rotate_count, self.rotate_count),
        ):
            if value is not None and value <= 0:
                raise typer.BadParameter(f"{text} leaves no room for an event", param_hint=flag)
        if self.keep is not None and self.keep < 0:
            raise typer.BadParameter(f"{self.keep} is less than none", param_hint="--keep")
        if self.redact_key is not None and self.redact is None:
            raise typer.BadParameter("a key without --redact FIELD hides nothing", param_hint="--redact-key")
        if self.redact is not None:
            members = [name.strip() for name in self.redact.split(",") if name.strip()]
            if not members:
                raise typer.BadParameter("names no member of data", param_hint="--redact")
            key = None if self.redact_key is None else readable("--redact-key", self.redact_key).read_bytes()
            if key is not None and not key:
                raise typer.BadParameter(f"{self.redact_key} is empty", param_hint="--redact-key")
            options["redact"] = Redaction(members, key)
        return {name: value for name, value in options.items() if value is not None}

    def given(self) -> list[str]:
        """Those of these flags that were given."""
        return [f"--{item.name.replace('_', '-')}" for item in fields(self) if getattr(self, item.name) is not None]


def _signing(text: str) -> Path:
    from opsml_eventbus.errors import JournalRefused
    from opsml_eventbus.journal.sign import Signer

    path = readable("--sign-key", text)
    try:
        Signer(path)
    except JournalRefused as error:
        raise typer.BadParameter(str(error), param_hint="--sign-key") from error
    return path


def readable(flag: str, text: str) -> Path:
    """A file that a flag names. Raises the usage error that names the flag."""
    path = Path(text)
    if not path.is_file():
        raise typer.BadParameter(f"{text}: no such file", param_hint=flag)
    return path


def takes(*groups: type) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command the flags of these groups. It receives each group under its name in lower case."""

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(command).parameters.items()
            if hints.get(name) not in groups
        ]
        shared: dict[str, tuple[str, str]] = {}
        added = []
        for group in groups:
            types = get_type_hints(group, include_extras=True)
            for item in fields(group):
                shared[item.name] = (group.__name__.lower(), item.name)
                default = item.default if item.default_factory is MISSING else item.default_factory()
                added.append(
                    inspect.Parameter(
                        item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[item.name]
                    )
                )

        @functools.wraps(command)
        def wrapper(**given: Any) -> int:
            filled: dict[str, dict[str, Any]] = {group.__name__.lower(): {} for group in groups}
            for name in list(given):
                if name in shared:
                    group, member = shared[name]
                    filled[group][member] = given.pop(name)
            made = {group.__name__.lower(): group(**filled[group.__name__.lower()]) for group in groups}
            return command(**given, **made)

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + added
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def parsed(flag: str, parse: Callable[[str], Any], text: str | None) -> Any:
    """A flag's text as a value. Raises the usage error that names the flag."""
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=flag) from error


def last(text: str) -> int | Literal["all"]:
    """The value of `-n`: a number of events, or all."""
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise ValueError(f"{text!r} is neither a number of events nor 'all'")
    return int(text)


def start(
    n: str | None,
    window: tuple[int | None, int | None],
    position: int | None = None,
    *,
    default: int | Literal["all"],
    follow: bool,
) -> Start:
    """Where a stream begins: `--since` implies all from there, unless `-n` says how many. position: see Window."""
    from opsml_eventbus.flow import Start

    since, until = window
    count = parsed("-n", last, n)
    if count is None:
        count = "all" if since is not None else default
    elif position is not None:
        raise typer.BadParameter("-n counts from the end, --from-seq from a line: give one", param_hint=FROM_SEQ)
    return Start(last=count, position=position, since=since, until=until, follow=follow)
