"""The journal: an audit log in plain JSON lines that can prove what it holds.

    async with Journal("audit.jsonl", fsync="always") as journal:
        ack = await journal.append(events)          # on disk when this returns

    for line in read_journal("audit.jsonl", since=…):   # Line | Damage
        …
    report = verify_journal("audit.jsonl")          # report.exit: 0 sound, 3 torn, 5 tampered

The format stands in `format.py` and, for other languages, in docs/journal-format.md.
"""

from .backwards import last_id, read_backwards
from .discard import discard_log
from .format import Head, parse_head
from .jobs import Ack
from .live import Notice
from .reader import Damage, JournalReader, Line, Portion, read_journal
from .recovery import Recovery, recover
from .redact import Redaction
from .repair import Repair, find_damage, repair
from .segments import Log, Segment, find_log
from .verify import Report, verify_journal
from .walk import Finding
from .writer import Journal, parse_fsync

__all__ = [
    "Ack",
    "Damage",
    "Finding",
    "Head",
    "Journal",
    "JournalReader",
    "Line",
    "Log",
    "Notice",
    "Portion",
    "Recovery",
    "Redaction",
    "Repair",
    "Report",
    "Segment",
    "discard_log",
    "find_damage",
    "find_log",
    "last_id",
    "parse_fsync",
    "parse_head",
    "read_backwards",
    "read_journal",
    "recover",
    "repair",
    "verify_journal",
]
