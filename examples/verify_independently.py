"""A second verifier, written from docs/journal-format.md alone: it shares no code with the library.

python examples/verify_independently.py audit.jsonl      # exit 0 sound, 3 torn, 5 tampered; .zst: unpack them first

It is kept short. Bytes that are no line are damage to it and nothing else: it does not look for lines that have lost
their newline ("Damaged bytes"), so where such damage hides how far the log was durable it says 3 and not 5.
"""

import contextlib
import gzip
import hashlib
import json
import pathlib
import re
import sys
import zlib

PLACE = re.compile(rb',"seq":([1-9]\d{0,18}),"durable":(0|[1-9]\d{0,18}),"chain":"([0-9a-f]{64})"\}\Z')
CONTROL = b'","source":"eventbus.journal","type":"eventbus.journal.'


def files(live):
    name = re.compile(re.escape(live.stem) + r"\.([0-9]{20})" + re.escape(live.suffix) + r"(\.gz|\.zst)?")
    paths = sorted(live.parent.iterdir(), reverse=True)  # so that the plain file wins over its .gz
    found = {int(match[1]): path for path in paths if (match := name.fullmatch(path.name))}
    return [*sorted(found.items()), *([(None, live)] if live.exists() or live.is_symlink() else [])]


def link(chain, body):
    return hashlib.sha256(b"eventbus/journal/v1\0" + chain + body).digest()


def verify(live):
    seq, chain, durable, stated, log, fsync, seal, joined = 0, bytes(32), 0, 0, "", "", None, 0
    torn, gaps, pruned, tampered, lost = [], set(), set(), False, False
    for first, path in files(live):
        if path.suffix == ".zst":
            sys.exit(f"{path}: unpack it first (zstd -d)")
        lines = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).split(b"\n")
        damaged, opened, events, before, seal = False, False, 0, seal, None
        for number, line in enumerate(lines[:-1]):
            if not (place := PLACE.search(line)) or b"\0" in line or len(line) > (1 << 20) + 132:
                torn.append(seq + 1)
                damaged, lost = True, True
                continue
            at, mark, value = int(place[1]), int(place[2]), bytes.fromhex(place[3].decode())
            record = {}
            with contextlib.suppress(ValueError):
                record = json.loads(line) if line[63:].startswith(CONTROL) else {}
            name, data = record.get("type", "")[17:], record.get("data", {})
            if number == 0 and name == "open":
                tampered |= data["format"] != 1 or data["first"] != at or first not in (None, at)
                tampered |= log not in ("", data["log"])
                tampered |= before is not None and data["sealed"] not in (None, before)
                # Behind an end that is gone nobody knows how many lines went with it.
                gaps |= {(at, data["previous"])} if at != seq + 1 and not (joined and lost) else set()
                tampered |= at <= seq or (at == seq + 1 and not lost and data["previous"] != chain.hex())
                seq, chain, log, fsync = at - 1, bytes.fromhex(data["previous"]), data["log"], data["fsync"]
                opened, lost = True, False
            joins = link(chain, line[: place.start(3) - 10]) == value
            tampered |= at != seq + 1 and (joins or not lost or at <= seq)  # deleted, repeated, swapped
            tampered |= joins and (not stated <= mark < at or seal is not None or (number == 0) != (name == "open"))
            torn += [seq + 1] * (not joins)
            damaged, events, joined = damaged or not joins, events + (joins and not name), joined + joins
            if joins and name in ("checkpoint", "seal"):
                tampered |= not damaged and data["tally"]["events"] != events
                seal = data["tally"] if name == "seal" else None
            pruned |= {(data["before"], data["chain"])} if joins and name == "pruned" else set()
            seq, chain, lost, stated = at, value, False, max(stated, mark if mark < at else 0)
        strange = not any(map(PLACE.search, lines))  # a crash leaves no more of a file than a part of its first line
        tampered |= strange and joined > 0 and len(lines) > 1 and fsync not in ("", "never")
        ends = not lines[-1] and (first is None or seal is not None)
        torn, lost = torn + [seq + 1] * (strange or not ends), lost or not ends
        # A finished file got its name when all of it was on disk, unless it says that nothing was synced.
        durable = max(durable, seq, *torn) if first is not None and not (opened and fsync == "never") else durable
    durable, tampered = max(durable, stated), tampered or not gaps <= pruned
    return 5 if tampered or any(at <= durable for at in torn) else 3 if torn or not joined else 0


if __name__ == "__main__":
    try:
        sys.exit(verify(pathlib.Path(sys.argv[1])))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"what cannot be read is damage: {error!r}", file=sys.stderr)
        sys.exit(5)
