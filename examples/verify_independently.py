"""A second verifier, written from docs/journal-format.md alone: it shares no code with the library.

python examples/verify_independently.py audit.jsonl      # exit 0 sound, 3 torn, 5 tampered; .zst: unpack them first
"""

import contextlib
import gzip
import hashlib
import json
import pathlib
import re
import sys
import zlib

PLACE = re.compile(rb',"seq":([1-9]\d{0,18}),"durable":(0|[1-9]\d{0,18}),"chain":"([0-9a-f]{64})"\}')


def files(live):
    name = re.compile(re.escape(live.stem) + r"\.([0-9]{20})" + re.escape(live.suffix) + r"(\.gz|\.zst)?")
    paths = sorted(live.parent.iterdir(), reverse=True)  # so that the plain file wins over its .gz
    found = {int(match[1]): path for path in paths if (match := name.fullmatch(path.name))}
    return [*sorted(found.items()), *([(None, live)] if live.exists() or live.is_symlink() else [])]


def link(chain, body):
    return hashlib.sha256(b"eventbus/journal/v1\0" + chain + body).digest()


def verify(live):
    chain, seq, durable, log, beginning, pruned, torn, tampered = bytes(32), 0, 0, "", None, set(), [], False
    for first, path in files(live):
        if path.suffix == ".zst":
            sys.exit(f"{path}: unpack it first (zstd -d)")
        try:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except (OSError, EOFError, zlib.error):
            return 5
        lines, name, synced, sealed, events, disturbed, lost = data.split(b"\n"), "", True, False, 0, False, False
        for number, line in enumerate(lines):
            places = [(int(m[1]), int(m[2]), bytes.fromhex(m[3].decode()), m) for m in PLACE.finditer(line)]
            if not places or places[-1][3].end() < len(line) or b"\0" in line or number == len(lines) - 1:
                if line or number < len(lines) - 1:
                    torn, disturbed, lost = [*torn, seq + 1], True, True
                for at, stated, value, place in places:  # lines that have run together, or have something behind them
                    begin = max(0, line.rfind(b'{"specversion":', 0, place.start()))
                    if link(chain, line[begin : place.end() - 76]) == value:
                        seq, chain, durable = at, value, max(durable, stated)
                continue
            at, stated, value, _ = places[-1]
            event, record, name = {}, {}, ""
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line) if line[63:].startswith(b'","source":"eventbus.journal",') else {}
                name, record = event.get("type", ""), event.get("data", {})
            if name == "eventbus.journal.open":
                tampered |= number > 0 or first not in (None, at) or record.get("first") != at
                tampered |= log not in ("", record.get("log"))
                if not log and at > 1:
                    beginning, seq, chain = (at, record["previous"]), at - 1, bytes.fromhex(record["previous"])
                log, synced = record.get("log"), record.get("fsync") != "never"
            joins = link(chain, line[:-76]) == value
            tampered |= (at <= seq if lost else at != seq + 1) or (joins and not durable <= stated < at)
            tampered |= sealed or (joins and number == 0 and name != "eventbus.journal.open")
            torn, disturbed = (torn, disturbed) if joins else ([*torn, seq + 1], True)
            seq, chain, lost, durable = at, value, False, max(durable, stated if stated < at else 0)
            events, sealed = events + (not event), name == "eventbus.journal.seal" and bool(event)
            pruned |= {(record["before"], record["chain"])} if joins and name == "eventbus.journal.pruned" else set()
            if joins and not disturbed and name in ("eventbus.journal.seal", "eventbus.journal.checkpoint"):
                tampered |= record["tally"]["events"] != events
        if seq and not any(PLACE.search(line) for line in lines):  # a crash leaves no whole lines of another kind
            torn, tampered = [*torn, seq + 1], tampered or (synced and len(lines) > 1)
        if first is not None:  # it got its name when all of it was on disk
            torn = torn if sealed or disturbed else [*torn, seq + 1]
            durable = max(durable, seq + (not sealed or disturbed)) if synced else durable
    tampered |= beginning is not None and beginning not in pruned
    return 5 if tampered or any(at <= durable for at in torn) else 3 if torn or not seq else 0


if __name__ == "__main__":
    sys.exit(verify(pathlib.Path(sys.argv[1])))
