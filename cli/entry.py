"""The console script: what must hold before anything else is loaded.

Until a command's loop listens (`runner`), Ctrl-C ends the process as it ends `cat`. As an exception it would come out
of whatever is being imported: a traceback, or swallowed by a callback of the import system.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    _let_ctrl_c_end_us()
    from .main import run

    code = run(sys.argv[1:])
    _let_ctrl_c_end_us()  # the loop has put the exception back, and the interpreter's end is no better place for it
    sys.exit(code)


def _let_ctrl_c_end_us() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where `nohup` or `&` have it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
