"""`eventbus`: finds the command, runs it, and turns errors into exit codes, here and nowhere else.

    0 done · 1 failed · 2 usage · 3 input torn or malformed · 4 events lost · 5 tampered

A command is one file, imported when it is called; to add one, write the file and its line in COMMANDS.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Command(NamedTuple):
    """One line of the overview. loop: it has one, which listens for Ctrl-C; another is interrupted by an exception."""

    panel: str
    help: str
    loop: bool = True


COMMANDS = {
    "tail": Command("Live", "the last events, then live ones, filtered"),
    "record": Command("Live", "write a bus or a table to a file"),
    "publish": Command("Live", "put events on a bus"),
    "serve": Command("Live", "a bus for others to publish to and tail"),
    "ls": Command("Live", "the live buses of this machine"),
    "replay": Command("Files", "a recording back onto a bus"),
    "verify": Command("Files", "is a log what was written? finds what was altered", loop=False),
    "repair": Command("Files", "mend a log that recovery refuses, keeping what it was", loop=False),
    "demo": Command("Learn", "a bus with realistic OpsML traffic"),
}

# What a command can do about a file that is there already; one that is not named can only write another.
THERE = {
    "record": "--append goes on behind its end, --overwrite begins it anew; else name another file",
    "serve": "--append goes on behind its end; else name another file",
    "replay": "--resume goes on with a replay that was stopped; else name another file",
}

# How Typer's parser begins a sentence that we end.
PARSER_WORDS = {"Value error, ": "", "Input should be": "it should be"}

EXAMPLES = (
    ("eventbus demo", "something alive, in this terminal"),
    ("eventbus tail --type audit --status denied", "watch it from another"),
    ("eventbus replay audit.jsonl --speed 10x", "see a recording again, faster"),
)


def run(arguments: Sequence[str]) -> int:
    """Run one command line. Returns the exit code; nothing below it may end in a traceback."""
    try:
        return _dispatch(list(arguments))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _quiet_stdout()
        return 0
    except OSError as error:  # standard output is full
        from opsml_eventbus.errors import reason

        _quiet_stdout()
        return _complain(f"{error.filename or 'standard output'}: {reason(error)}", code=1)


def _dispatch(arguments: list[str]) -> int:
    if "_EVENTBUS_COMPLETE" in os.environ or arguments[:1] in (
        ["--install-completion"],
        ["--show-completion"],
    ):
        return _invoke(whole(), arguments, "eventbus")
    if arguments[:1] == ["help"] and len(arguments) > 1:
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        from .overview import show

        show(COMMANDS, EXAMPLES)
        return 0
    if arguments[0] in ("--version", "-V"):
        from importlib.metadata import version

        from .terminal import answer

        answer(f"eventbus {version('opsml-eventbus')}\n")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1)
        return _complain(
            f"there is no command {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            f"commands: {', '.join(COMMANDS)}",
            code=2,
        )
    app = _app(name)
    if not COMMANDS[name].loop and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return _invoke(app, arguments[1:], f"eventbus {name}")


def _app(*names: str) -> Any:
    import typer
    from rich.markup import escape

    app = typer.Typer(add_completion=len(names) > 1, pretty_exceptions_enable=False, rich_markup_mode="rich")
    for name in names:
        module = importlib.import_module(f".{name}", __package__)
        app.command(name)(getattr(module, name))
    made: Any = typer.main.get_command(app)
    for command in made.commands.values() if len(names) > 1 else [made]:
        for parameter in command.params:
            # Our help is text: `[default]` is a default, not Rich's markup.
            parameter.help = parameter.help and escape(parameter.help)
    return made


def whole() -> Any:
    """Every command in one application: what shell completion asks."""
    return _app(*COMMANDS)


def _invoke(app: Callable[..., Any], arguments: list[str], program: str) -> int:
    import typer

    from opsml_eventbus import errors

    # Typer brings its own copy of click in some versions, click itself in others.
    usage_error = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "UsageError")
    try:
        result = app(args=arguments, prog_name=program, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.Abort:
        return 128 + signal.SIGINT
    except usage_error as error:  # type: ignore[misc]
        return _complain(_clause(error), f"{program} --help tells more", code=2)
    except errors.ReaderGone:
        _quiet_stdout()
        return 0
    except errors.EventError as error:
        hint, code = _advice(error, program.rpartition(" ")[2])
        return _complain(str(error), hint, code=code)
    except OSError as error:
        return _complain(f"{error.filename or program}: {errors.reason(error)}", code=1)


def _clause(error: Any) -> str:
    text = str(error.format_message()).strip().rstrip(".")
    for theirs, ours in PARSER_WORDS.items():
        text = text.replace(f": {theirs}", f": {ours}")
    return text[0].lower() + text[1:] if text else "wrong usage"


def _advice(error: Exception, command: str) -> tuple[str, int]:
    """What to do next with this command, and the exit code."""
    from opsml_eventbus import errors

    match error:
        case errors.AlreadyThere():
            return THERE.get(command, "name another file"), 2
        case errors.UnknownEnd():
            return ("known: " + " · ".join(error.known) if error.known else ""), 2
        case errors.InvalidFilter():
            return "`=value` takes a value as it is; `^value` means not", 2
        case errors.TypeRefused():
            return "", 2
        case errors.Unreachable():
            hint = "`eventbus ls` lists the live buses, `eventbus serve` starts one"
            return hint if _is_bus(error.end) else "", 1
        case errors.InvalidEvent():
            return "", 3
        case errors.JournalBusy():
            return "one writer a log: wait for it, or record to another file", 1
        case errors.JournalDamaged():
            hint = "`eventbus verify` says what is damaged, `eventbus repair` mends it and keeps what it was"
            return hint, 3 if error.torn else 5
        case errors.JournalTaken():
            return "what was acknowledged is only where that file is now; `eventbus verify` says what is left here", 1
        case errors.WriteRefused() | errors.JournalFailed():
            return "what was acknowledged is in the file; the rest can be sent again, ids make a repetition harmless", 1
        case _:
            return "", 1


def _is_bus(end: str) -> bool:
    from opsml_eventbus.endpoints import TAP, scheme_of
    from opsml_eventbus.errors import UnknownEnd

    try:
        return scheme_of(end) is TAP
    except UnknownEnd:
        return False


def _complain(sentence: str, hint: str = "", *, code: int) -> int:
    from .terminal import Notes

    Notes().complain(sentence, hint)
    return code


def _quiet_stdout() -> None:
    # The interpreter flushes standard output at exit; with no reader that would be one more complaint.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
