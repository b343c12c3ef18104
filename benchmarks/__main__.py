"""`python -m benchmarks [--tiny] [NAME…]`: run every benchmark, or those named.

--tiny: a run of a few seconds, so that a benchmark cannot rot; its figures mean nothing.
A whole run of all of them writes docs/performance.md.

A benchmark is a module here with `main(tiny: bool) -> str | None`. It prints what it finds, and raises when what it
measured was not also right. What it returns is its part of the page, in Markdown; where it returns nothing, what it
printed is.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import sys
from pathlib import Path
from typing import TextIO

BENCHMARKS = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
HEAD = """# Performance

Written by `make bench` on the machine it ran on. Only the ratios mean anything: both sides of each were measured in
the same run, in turn, and the least time of each was kept.
"""


class Tee(io.StringIO):
    """Keeps what is printed, and shows it."""

    def __init__(self, shown: TextIO) -> None:
        super().__init__()
        self.shown = shown

    def write(self, text: str) -> int:
        self.shown.write(text)
        self.shown.flush()
        return super().write(text)


def run(name: str, tiny: bool) -> str:
    """One benchmark's part of the page."""
    module = importlib.import_module(f"benchmarks.{name}")
    printed = Tee(sys.stdout)
    with contextlib.redirect_stdout(printed):
        print(f"── {name} ──")
        text = module.main(tiny)
    body = text or f"```\n{printed.getvalue().partition(chr(10))[2].rstrip()}\n```"
    return f"## {name}\n\n{(module.__doc__ or '').strip()}\n\n{body}\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--tiny", action="store_true", help="a few seconds; the figures mean nothing")
    given = parser.parse_args()
    unknown = set(given.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    parts = [run(name, given.tiny) for name in given.names or BENCHMARKS]
    if not given.tiny and not given.names:
        PAGE.write_text("\n".join([HEAD, *parts]))


main()
