"""Every error this library raises, as one tree. `except EventError` catches all of them.

    EventError
    ├── InvalidEvent            an event whose members are wrong: which one, and why
    │   ├── MalformedLine       bytes that are not one JSON document in UTF-8: at which byte
    │   └── Unencodable         a value that could be written but not read back the same
    ├── TypeRefused             an event type that may not be registered or published
    ├── InvalidFilter           a filter that cannot mean anything: where, and what may be meant
    ├── BusError
    │   ├── BusClosed           publish or subscribe after close
    │   ├── WouldBlock          a lossless subscriber is full; the event went to nobody
    │   └── Lagged              this subscription asked to be disconnected rather than miss events
    ├── JournalError            a journal that cannot do what was asked: which file, and why
    │   ├── JournalRefused      it will not be opened: no journal, not safe, ambiguous
    │   │   └── JournalBusy     another writer holds it: who
    │   ├── JournalDamaged      damage that recovery refuses to mend: where
    │   ├── WriteRefused        this batch was not written; the journal goes on
    │   └── JournalFailed       the journal is finished; what was not acknowledged is unknown
    │       └── JournalTaken    because somebody else moved, removed or changed its file
    └── EndError                an end of a pump: which one, and why
        ├── UnknownEnd          the text names no end we know
        ├── Unreachable         nothing answers there
        ├── Refused             it is there and says no
        │   └── AlreadyThere    a file that would have to be overwritten
        └── Broken              it answered, then failed
            └── ReaderGone      whoever read our output has stopped

An error carries its facts as attributes and builds its text from them. What to do next is not the library's to
say: the command line adds that.
"""

from __future__ import annotations

from collections.abc import Sequence


def reason(error: OSError) -> str:
    """What the system says of an error, as a clause: `no such file or directory`."""
    return (error.strerror or str(error)).lower()


class EventError(Exception):
    """The root: anything this library refuses or cannot do."""


class InvalidEvent(EventError):
    """An event that is refused.

    place: the member (`data.status`, `time`) or the position (`byte 113`), empty when it is the whole.
    reason: what is wrong there, one clause.
    """

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason, place)
        self.reason = reason
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}" if self.place else self.reason


class MalformedLine(InvalidEvent):
    """Bytes that are not one JSON document in UTF-8, or more of them than a line may have.

    length: bytes of a line that was too long to be kept, else 0.
    """

    def __init__(self, reason: str, place: str = "", *, length: int = 0) -> None:
        super().__init__(reason, place)
        self.length = length


class Unencodable(InvalidEvent):
    """A value that JSON would carry differently, or not at all: NaN, 2**64, a lone surrogate, nesting over 128."""


class TypeRefused(EventError):
    """An event type that may not be registered or published.

    type: the name that was refused. reason: one clause.
    """

    def __init__(self, type: str, reason: str) -> None:  # noqa: A002 - the member's name on the wire
        super().__init__(type, reason)
        self.type = type
        self.reason = reason

    def __str__(self) -> str:
        return f"event type {self.type!r}: {self.reason}"


class InvalidFilter(EventError):
    """A filter that cannot mean anything.

    text: what was given. position: index into `text` where it went wrong, None when it is the whole.
    suggestions: what was perhaps meant, best first.
    """

    def __init__(
        self, reason: str, *, text: str = "", position: int | None = None, suggestions: Sequence[str] = ()
    ) -> None:
        super().__init__(reason, text, position, tuple(suggestions))
        self.reason = reason
        self.text = text
        self.position = position
        self.suggestions = tuple(suggestions)

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(self.suggestions)}?" if self.suggestions else ""
        return f"{self.reason}{hint}"


class BusError(EventError):
    """Something a bus cannot do in the state it is in."""


class BusClosed(BusError):
    """The bus is closed: nothing more can be published to it or read from it."""

    def __str__(self) -> str:
        return "the bus is closed"


class WouldBlock(BusError):
    """A lossless subscriber (`overflow="block"`) is full. The event was delivered to nobody.

    `await bus.send(...)` waits instead.
    """

    def __str__(self) -> str:
        return "a lossless subscriber is full; the event was delivered to nobody"


class Lagged(BusError):
    """This subscription (`overflow="disconnect"`) fell behind and has ended.

    missed: events it will never see, those it had not yet read included.
    """

    def __init__(self, missed: int) -> None:
        super().__init__(missed)
        self.missed = missed

    def __str__(self) -> str:
        return f"the subscription fell behind and has ended; {self.missed} events were missed"


class JournalError(EventError):
    """A journal that cannot do what was asked.

    path: the file or folder. reason: one clause.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class JournalRefused(JournalError):
    """It will not be opened: no journal, no regular file, a link, or a folder with several logs (`found`)."""

    def __init__(self, path: str, reason: str, found: Sequence[str] = ()) -> None:
        super().__init__(path, reason)
        self.found = tuple(found)


class JournalBusy(JournalRefused):
    """Another writer holds it. holder: who that is, as its lock file says (`pid 4711 on host since …`)."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(path, f"another writer holds it: {holder}")
        self.holder = holder


class JournalDamaged(JournalError):
    """Damage where a crash cannot have done it, or where nothing tells the two apart. Nothing was changed.

    line: counted from 1, 0 where that is not known. offset: byte in the (decompressed) file. seq: the first record that
    is not sound. durable: the last seq known to be on disk. torn: a crash may have done it, only nothing says so
    (`fsync=never`).
    """

    def __init__(
        self, path: str, reason: str, *, line: int, offset: int, seq: int, durable: int, torn: bool = False
    ) -> None:
        super().__init__(path, reason)
        self.torn = torn
        self.line = line
        self.offset = offset
        self.seq = seq
        self.durable = durable

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}: byte {self.offset}" if self.line else self.path
        return f"{place}: {self.reason} (seq {self.seq}; durable to {self.durable})"


class WriteRefused(JournalError):
    """This batch was not written, or was undone; the journal goes on, and later batches may succeed.

    Send the same events again: their ids make a repetition harmless.
    """


class JournalFailed(JournalError):
    """The journal is finished: an fsync failed, a write could not be undone, or the file is not ours any more.

    Nothing is acknowledged after it. What had not been acknowledged may or may not be in the file: open it again and
    send the same events again; their ids make a repetition harmless.
    """


class JournalTaken(JournalFailed):
    """Somebody else moved, removed, cut or wrote to the file. What was acknowledged is where that file is now, if
    anywhere."""


class EndError(EventError):
    """An end of a pump (a tap, a file, a table, a pipe) that cannot do what was asked.

    end: its name as the user would write it, never with a password. reason: one clause.
    """

    def __init__(self, end: str, reason: str) -> None:
        super().__init__(end, reason)
        self.end = end
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.end}: {self.reason}" if self.end else self.reason


class UnknownEnd(EndError):
    """The text names no end we know: an unknown scheme, or an end that cannot be used that way round.

    known: what could have been written there.
    """

    def __init__(self, end: str, reason: str, known: Sequence[str] = ()) -> None:
        super().__init__(end, reason)
        self.known = tuple(known)


class Unreachable(EndError):
    """Nothing answers there: no file, no socket, no server."""


class Refused(EndError):
    """It is there and says no: not ours, not allowed, unsafe, or already in use."""


class AlreadyThere(Refused):
    """A file exists and nobody said whether to append to it or to overwrite it."""


class Broken(EndError):
    """It answered and then failed: an I/O error, a protocol error, a connection lost for good."""


class ReaderGone(Broken):
    """Whoever read our output has stopped (`| head -1`): no fault, only an end."""
