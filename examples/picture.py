"""The picture in the README, from a real run: `make picture` writes docs/terminal.svg.

A demo is recorded, tailed and replayed by the real commands; what they wrote to a terminal is what is drawn.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 118
STEPS = (
    "eventbus demo --count 14 --rate 400 --seed 9 --record audit.jsonl",
    "eventbus tail audit.jsonl --status ^success -n 3",
    "eventbus replay audit.jsonl --op delete --op update --speed max --name monday",
    "cat audit.jsonl | eventbus tail - --op create -n all -o json | jq -r .data.route | sort | uniq -c",
)
# Rich's own template fetches a font from elsewhere; a picture should not call home.
FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)


def main() -> None:
    out = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder, "COLUMNS": str(WIDTH)}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        for step in STEPS:
            out.print(Text.assemble(("$ ", "bold green"), (step, "bold")))
            command = f"script -qec {step!r} /dev/null"  # a terminal of its own
            done = subprocess.run(command, shell=True, cwd=folder, env=env, capture_output=True, text=True, check=True)
            for line in done.stdout.replace("\r", "").replace(f"{folder}/eventbus/", "").splitlines():
                out.print(Text.from_ansi(line), no_wrap=True, overflow="crop", crop=True)
            out.print()
    svg = out.export_svg(title="eventbus")
    Path("docs/terminal.svg").write_text(FONT.sub("", svg))


if __name__ == "__main__":
    main()
