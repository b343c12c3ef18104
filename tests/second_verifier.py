"""A second verifier, written from docs/journal-format.md alone, all of it: it shares no code with the library.

What `examples/verify_independently.py` leaves out for brevity is here: lines that are found in damaged bytes, and
records whose members are wrong.
"""

import contextlib
import datetime as dt
import gzip
import hashlib
import json
import pathlib
import re
import sys
import zlib

PLACE = re.compile(rb',"seq":([1-9]\d{0,18}),"durable":(0|[1-9]\d{0,18}),"chain":"([0-9a-f]{64})"\}')
ZEROS = bytes(32)
LONGEST = (1 << 20) + 132  # bytes of a line
END = re.compile(PLACE.pattern + rb"\Z")
LOST_END = re.compile(PLACE.pattern + rb'[\0\r\t ]*(?=\{"specversion":|\Z)')  # of a line without its newline
CONTROL = re.compile(rb'.{63}","source":"eventbus\.journal","type":"eventbus\.journal\.([^"]*)"', re.DOTALL)
LONGEST_OPEN = 1 << 16
TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d\.\d{9}Z")
OPEN = {"format": int, "first": int, "log": str, "previous": str, "fsync": str}
MARK, PRUNED = {"tally": dict}, {"before": int, "chain": str}
MEMBERS = {b"open": OPEN, b"checkpoint": MARK, b"seal": MARK, b"pruned": PRUNED}


def control(line):  # its name, and its members: None where they are wrong
    name = match[1] if (match := CONTROL.match(line)) else b""
    with contextlib.suppress(ValueError, RecursionError, KeyError, AttributeError):
        record = json.loads(line)["data"] if name in MEMBERS else {}
        sound = all(type(record.get(key)) is kind for key, kind in MEMBERS.get(name, {}).items())
        return name, sound and (name != b"open" or opens(line)) and record
    return name, None


def opens(line):  # is it short enough, and does it say when?
    time = json.loads(line).get("time")
    if len(line) > LONGEST_OPEN or not isinstance(time, str) or not TIME.fullmatch(time):
        return False
    return bool(dt.datetime.fromisoformat(f"{time[:10]}T{time[11:17]}{time[17:19].replace('60', '59')}"))


def files(live):
    name = re.compile(re.escape(live.stem) + r"\.([0-9]{20})" + re.escape(live.suffix) + r"(\.gz|\.zst)?")
    paths = sorted(live.parent.iterdir(), reverse=True)  # so that the plain file wins over its .gz
    found = {int(match[1]): path for path in paths if (match := name.fullmatch(path.name))}
    return [*sorted(found.items()), *([(None, live)] if live.exists() or live.is_symlink() else [])]


def place(match):
    return int(match[1]), int(match[2]), bytes.fromhex(match[3].decode())


def link(chain, match, begin=0):
    body = match.string[begin : match.start(3) - 10]
    return hashlib.sha256(b"eventbus/journal/v1\0" + chain + body).digest()


def verify(live):
    seq, joined, stated, kept, chains, log, fsync, seal, lost = 0, 0, 0, 0, [ZEROS], "", "", None, False
    torn, gaps, pruned, tampered = [], set(), set(), False
    for first, path in files(live):
        if path.suffix == ".zst":
            sys.exit(f"{path}: unpack it first (zstd -d)")
        try:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except (OSError, EOFError, zlib.error):
            return 5
        lines, here, events, opened, before, seal = data.split(b"\n"), [], 0, False, seal, None
        for number, line in enumerate(lines):
            ended, whole = number < len(lines) - 1, END.search(line)
            if not whole or not ended or b"\0" in line or len(line) > LONGEST:
                if line or ended:
                    here.append(seq + 1)
                    lost = True
                converted = ended and line.endswith(b"\r") and END.search(line[:-1])
                tampered |= bool(converted) and b"\0" not in line and len(line) <= LONGEST
                long = len(line) > LONGEST
                for piece, last in [(line[:4096], False), (line[-LONGEST:], ended)] if long else [(line, ended)]:
                    begin = 0
                    for match in LOST_END.finditer(piece):
                        at, mark, value = place(match)
                        joins = at == seq + 1 and link(chains[0], match, begin) == value
                        if not joins and (b"\0" in line or (match.end() == len(piece) and not last)):
                            break
                        seq, chains, begin, joined = at, [value], match.end(), joined + joins
                        stated = max(stated, mark if mark < at else 0)
                continue
            (name, record), at, mark, value = control(line), *place(whole)
            if number == 0 and name == b"open" and record:
                opened, behind, stands = True, seq if joined else 0, record["previous"]
                previous = bytes.fromhex(stands) if re.fullmatch("[0-9a-f]{64}", stands) else b""
                tampered |= record["format"] != 1 or record["first"] != at or first not in (None, at)
                tampered |= log not in ("", record["log"]) or at <= behind
                if at > behind + 1:
                    gaps |= set() if joined and lost else {(at, stands)}
                elif not lost or not joined:
                    tampered |= previous not in (chains if joined else [ZEROS])
                    tampered |= (before is not None or not joined) and record.get("sealed") not in (None, before)
                seq, chains, log, fsync, lost = at - 1, [previous], record["log"], record["fsync"], False
            given = [link(chain, whole) for chain in chains]
            joins = value in given
            tampered |= at != seq + 1 and (joins or not lost or at <= seq)
            if joins:
                tampered |= not stated <= mark < at or seal is not None or (number == 0) != (name == b"open")
                tampered |= name in MEMBERS and not record
                events, joined = events + (not name), joined + 1
                if record and name in (b"seal", b"checkpoint"):
                    tampered |= not here and record["tally"].get("events") != events
                    seal = record["tally"] if name == b"seal" else seal
                pruned |= {(record["before"], record["chain"])} if record and name == b"pruned" else set()
            here += [seq + 1] * (not joins)
            seq, chains, lost = at, [value, *given[: not joins and at == seq + 1]], False
            stated = max(stated, mark if mark < at else 0)
        if joined and not PLACE.search(data):  # a crash leaves no whole lines of another kind
            here, tampered = here or [seq + 1], tampered or (len(lines) > 1 and fsync not in ("", "never"))
        if first is not None:  # it got its name when all of it was on disk
            if seal is None and not here:
                here, lost = [seq + 1], True
            kept = kept if fsync == "never" and opened else max(kept, seq, *here)
        torn += here
    tampered |= not gaps <= pruned
    return 5 if tampered or any(at <= max(stated, kept) for at in torn) else 3 if torn or not seq else 0


if __name__ == "__main__":
    sys.exit(verify(pathlib.Path(sys.argv[1])))
