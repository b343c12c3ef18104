"""What `eventbus` alone shows: the commands in panels, and three examples to begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .terminal import console

if TYPE_CHECKING:
    from .main import Command


def show(commands: Mapping[str, Command], examples: Sequence[tuple[str, str]]) -> None:
    """Print it. commands: by name."""
    out = console()
    out.print(Text("eventbus: see what happens inside a running system. Nothing is lost in silence.\n"))
    panels: dict[str, Table] = {}
    for name, command in commands.items():
        table = panels.setdefault(command.panel, _grid())
        table.add_row(Text(name, "bold cyan"), command.help)
    for title, table in panels.items():
        out.print(Panel(table, title=title, title_align="left", border_style="dim"))
    table = _grid()
    for line, meaning in examples:
        table.add_row(Text(line, "bold"), Text(meaning, "dim"))
    out.print(Group(Text(""), table, Text("\nEach command has --help.", "dim")))


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    return table
