"""The console script: what must hold before anything else is loaded.

Until a command's loop listens (`runner`), Ctrl-C ends the process as it ends `cat`. As an exception it would come out
of whatever is being imported: a traceback, or swallowed by a callback of the import system.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    _let_ctrl_c_end_us()
    _fill_what_is_closed()
    from .main import run

    code = run(sys.argv[1:])
    _let_ctrl_c_end_us()  # the loop has put the exception back, and the interpreter's end is no better place for it
    sys.exit(code)


def _let_ctrl_c_end_us() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where `nohup` or `&` have it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _fill_what_is_closed() -> None:
    """Of the descriptors 0 to 2, those that are closed: what is opened next would be a standard stream otherwise.

    That they were closed is still known: `sys.stdin`, `sys.stdout` or `sys.stderr` is None.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free: this one
