"""`eventbus publish`: one event from the command line, or many from standard input."""

from __future__ import annotations

import difflib
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import places, runner
from .options import Output, takes

if TYPE_CHECKING:
    from opsml_eventbus.event import Event

_MEMBER = re.compile(r"([^=:]+)(:?=)(.*)", re.DOTALL)


@takes(Output)
def publish(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TYPE [k=v | k:=json]…]",
            help="The event's type and the members of its data; without a type, lines are read from standard input.",
        ),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="SINK", help="A live bus, a file, or -. [default]")] = None,
    priority: Annotated[
        Literal["low", "normal", "high", "critical"], typer.Option(help="What survives a flood.")
    ] = "normal",
    source: Annotated[str, typer.Option(help="Who emits it; filled in where a line does not say.")] = "opsml",
    *,
    output: Output,
) -> int:
    """Put events on a bus: eventbus publish audit username=guest operation=Delete."""
    from opsml_eventbus.endpoints import open_sink
    from opsml_eventbus.endpoints.memory import ItemSource
    from opsml_eventbus.endpoints.stdio import StdinSource
    from opsml_eventbus.flow import Report, Source, pump

    notes = output.notes()
    if not words and (sys.stdin is None or sys.stdin.isatty()):
        raise typer.BadParameter("name a type, or pipe lines into it", param_hint="TYPE")
    report = Report()
    target = places.endpoint(to)
    if words:
        one_event(words[0], words[1:], priority, source)  # a mistake is told before anything is connected

    async def work() -> None:
        async with open_sink(target, **places.context(mode="append")) as sink:
            # Made now that the bus is there: its `time` should be the time it happened.
            reading: Source = (
                ItemSource([one_event(words[0], words[1:], priority, source)]) if words else StdinSource(source=source)
            )
            with runner.Watch(notes, title="" if words else f"publishing to {target}") as watch:
                await pump(reading, sink, report=report, watch=watch)

    with runner.summed_up(report, lambda: notes.say(runner.summary(report, f"published to {target}"))):
        stopped = runner.run(work)
    return runner.interrupted(stopped) if stopped else runner.exit_code(report)


def one_event(type: str, members: list[str], priority: str, source: str) -> Event:  # noqa: A002
    """The event that the words of a command line describe. Raises the usage error that names the word."""
    import msgspec

    from opsml_eventbus.codec import encode_line
    from opsml_eventbus.errors import InvalidEvent, MalformedLine, TypeRefused
    from opsml_eventbus.event import Event, Priority, payload_fields, payload_type
    from opsml_eventbus.scrutiny import scrutinise

    cls = payload_type(type)
    fields = {} if cls is None else payload_fields(cls)
    data: dict[str, Any] = {}
    for word in members:
        match = _MEMBER.fullmatch(word)
        if match is None:
            raise typer.BadParameter(f"{word!r} is neither member=text nor member:=json", param_hint="k=v")
        name, sign, text = match.groups()
        if name in data:
            raise typer.BadParameter(f"{name!r} stands twice", param_hint=word)
        if fields and name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}"
            raise typer.BadParameter(f"{type} has no member {name!r}; {hint}", param_hint=word)
        try:
            if sign == ":=":
                scrutinise(text.encode("utf-8", "surrogateescape"), duplicates=True)
                data[name] = msgspec.json.decode(text)
            else:
                data[name] = msgspec.convert(text, fields[name], strict=False) if fields else text
        except (msgspec.MsgspecError, MalformedLine) as error:
            raise typer.BadParameter(str(error), param_hint=word) from error
    try:
        payload = data if cls is None else msgspec.convert(data, cls)
        event = Event.new(type, payload, source=source, priority=Priority[priority.upper()])
        encode_line(event)
    except (msgspec.ValidationError, InvalidEvent, TypeRefused) as error:
        raise typer.BadParameter(str(error), param_hint=type) from error
    return event
