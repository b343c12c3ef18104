"""A second verifier, written from docs/journal-format.md alone: it shares no code with the library.

python examples/verify_independently.py audit.jsonl      # exit 0 sound, 3 torn, 5 tampered
"""

import contextlib
import gzip
import hashlib
import json
import pathlib
import re
import sys

PLACE = re.compile(rb',"seq":([1-9]\d{0,18}),"durable":(0|[1-9]\d{0,18}),"chain":"([0-9a-f]{64})"\}\Z')


def files(live):
    name = re.compile(re.escape(live.stem) + r"\.(\d{20})" + re.escape(live.suffix) + r"(\.gz)?")
    paths = sorted(live.parent.iterdir(), reverse=True)  # so that the plain file wins over its .gz
    found = {int(match[1]): path for path in paths if (match := name.fullmatch(path.name))}
    return [*sorted(found.items()), *([(0, live)] if live.exists() else [])]


def verify(live):
    chain, seq, durable, log, beginning, pruned, torn, tampered = bytes(32), 0, 0, "", None, set(), [], False
    for first, path in files(live):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines, name, sealed, events, disturbed = data.split(b"\n"), "", False, 0, False
        for number, line in enumerate(lines):
            place = PLACE.search(line)
            if place is None or b"\0" in line or number == len(lines) - 1:
                if line or number < len(lines) - 1:
                    torn, disturbed = [*torn, seq + 1], True
                continue
            at, stated, value = int(place[1]), int(place[2]), bytes.fromhex(place[3].decode())
            event, record = {}, {}
            with contextlib.suppress(ValueError):
                event = json.loads(line) if line[63:].startswith(b'","source":"eventbus.journal",') else {}
                name, record = event.get("type", ""), event.get("data", {})
            if number == 0 and name == "eventbus.journal.open":
                tampered |= first not in (0, at) or record.get("first") != at or log not in ("", record.get("log"))
                if not log and at > 1:
                    beginning, seq, chain = (at, record["previous"]), at - 1, bytes.fromhex(record["previous"])
                log = record.get("log")
            joins = hashlib.sha256(b"eventbus/journal/v1\0" + chain + line[:-76]).digest() == value
            tampered |= (at != seq + 1 and not disturbed) or (joins and not durable <= stated < at)
            tampered |= sealed or (joins and number == 0 and name != "eventbus.journal.open")
            torn, disturbed = (torn, disturbed) if joins else ([*torn, seq + 1], True)
            seq, chain, durable = at, value, max(durable, stated if stated < at else 0)
            events, sealed = events + (not event), name == "eventbus.journal.seal" and bool(event)
            pruned |= {(record["before"], record["chain"])} if joins and name == "eventbus.journal.pruned" else set()
            tampered |= sealed and joins and not disturbed and record["tally"]["events"] != events
        tampered |= first > 0 and not sealed
    tampered |= beginning is not None and beginning not in pruned
    return 5 if tampered or any(at <= durable for at in torn) else 3 if torn else 0


if __name__ == "__main__":
    sys.exit(verify(pathlib.Path(sys.argv[1])))
