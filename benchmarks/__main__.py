"""`python -m benchmarks [--tiny] [NAME…]`: run every benchmark, or those named.

--tiny: a run of a few seconds, so that a benchmark cannot rot; its figures mean nothing.
A benchmark is a module here with `main(tiny: bool) -> None`, which prints its table, and raises when what it measured
was not also right.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

BENCHMARKS = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--tiny", action="store_true", help="a few seconds; the figures mean nothing")
    given = parser.parse_args()
    unknown = set(given.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    for name in given.names or BENCHMARKS:
        print(f"── {name} ──", flush=True)
        importlib.import_module(f"benchmarks.{name}").main(given.tiny)


main()
