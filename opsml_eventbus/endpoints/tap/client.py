"""The other side of a socket: one conversation with a tap, and what one can know of those that are live.

Every wait here has an end: a server that listens and does not answer is unreachable, whatever the reason.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import Broken, EndError, InvalidEvent, MalformedLine, Refused, Unreachable
from ...splitter import LineSplitter
from ...timestamps import parse_time
from . import protocol
from .folder import Standing, check_length, is_live, live_sockets, socket_path, standing_sockets
from .protocol import VERSION, Greeting, Rejection, Reply, Request, parse_reply

GREETING_SECONDS = 5.0  # a bus answers in a millisecond; one whose loop is blocked for longer is as good as gone
READ_BYTES = 256 << 10  # of a stream at once: about 600 events, a batch


class Conversation:
    """A request that was accepted. greeting: what the server says of itself."""

    def __init__(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, splitter: LineSplitter
    ) -> None:
        self._name = name
        self._reader = reader
        self._writer = writer
        self._splitter = splitter
        self._backlog: list[bytes | MalformedLine] = []
        self.greeting: Greeting

    @classmethod
    async def open(cls, path: Path, request: Request) -> Conversation:
        """Connect, ask, and wait for the greeting.

        Raises Unreachable: nobody listens, or nobody answers within five seconds. Raises Refused: it says no; the
        Rejection is the error's cause. Raises Broken: it is no tap.
        """
        name = str(path)
        check_length(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # Not through asyncio: it takes a full backlog (EAGAIN) for a connection in progress, then for a success.
            sock.connect(name)
        except OSError as error:
            sock.close()
            raise _no_connection(name, error) from None
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=READ_BYTES)
        conversation = cls(name, reader, writer, LineSplitter())
        try:
            writer.write(protocol.encode(request))
            async with asyncio.timeout(GREETING_SECONDS):
                conversation.greeting = await conversation._greeting()
        except TimeoutError:
            conversation.abort()
            raise Unreachable(name, "it listens, but does not answer") from None
        except BaseException:
            conversation.abort()
            raise
        return conversation

    async def _greeting(self) -> Greeting:
        while lines := await self.lines():
            first, *self._backlog = lines
            reply = self.reply(first)
            if isinstance(reply, Greeting) and reply.eventbus == VERSION:
                return reply
            raise Broken(self._name, "what answers there is no tap of version 1")
        raise Unreachable(self._name, "it hung up without a word")

    async def lines(self) -> Sequence[bytes | MalformedLine]:
        """What has come, at least one line; empty when the server has hung up (half a line at the end is dropped)."""
        if self._backlog:
            backlog, self._backlog = self._backlog, []
            return backlog
        while True:
            try:
                chunk = await self._reader.read(READ_BYTES)
            except OSError:
                return ()  # killed with something of ours unread; what it had sent has been read before
            if not chunk:
                return ()
            lines = list(self._splitter.feed(chunk))
            if lines:
                return lines

    def reply(self, line: bytes | MalformedLine) -> Reply | None:
        """A line that is no event. Raises Refused where it is a Rejection; Broken where it is nothing at all."""
        try:
            if isinstance(line, MalformedLine):
                raise line
            reply = parse_reply(line)
        except MalformedLine as error:
            raise Broken(self._name, f"it does not speak this protocol: {error}") from error
        if isinstance(reply, Rejection):
            raise Refused(self._name, reply.message) from reply
        return reply

    def send(self, lines: bytes) -> None:
        """Hand over whole lines; they go out while we read."""
        self._writer.write(lines)

    def abort(self) -> None:
        """Hang up."""
        self._writer.transport.abort()


def _no_connection(name: str, error: OSError) -> EndError:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return Unreachable(name, "no bus there")
        case ConnectionRefusedError():
            return Unreachable(name, "no bus there: whoever had this socket has gone")
        case BlockingIOError():
            return Unreachable(name, "it listens, but takes no connection")
        case PermissionError():
            return Refused(name, "the socket belongs to another user")
        case _:
            return Unreachable(name, error.strerror or str(error))


def rejection_code(error: Refused) -> str:
    """Why a tap said no: one of protocol.CODES, empty where it was not a tap that said it."""
    return error.__cause__.code if isinstance(error.__cause__, Rejection) else ""


@dataclass(frozen=True, slots=True)
class TapInfo:
    """A live socket and, where it answered, what it said.

    name, path, pid: as found, then as told. since: ns since the epoch. rate: events published per second, over the
    last ten. lost: events that this tap's clients were too slow for. problem: why it did not answer, else empty.
    """

    name: str
    path: Path
    pid: int | None = None
    bus: str | None = None
    source: str | None = None
    capacity: int | None = None
    publish: bool | None = None
    since: int | None = None
    clients: int | None = None
    published: int | None = None
    lost: int | None = None
    rate: float | None = None
    problem: str = ""


async def live_taps(folder: Path) -> list[TapInfo]:
    """Every live tap in the folder, by name. Raises Refused: the folder is not safe."""
    return await asyncio.gather(*map(_describe, live_sockets(folder)))


async def _describe(standing: Standing) -> TapInfo:
    try:
        conversation = await Conversation.open(standing.path, Request(eventbus=VERSION, do="describe"))
    except EndError as error:
        return TapInfo(standing.name, standing.path, standing.pid, problem=error.reason)
    conversation.abort()
    said = conversation.greeting
    return TapInfo(
        standing.name,
        standing.path,
        said.pid if said.pid is not None else standing.pid,
        said.bus,
        said.source,
        said.capacity,
        said.publish,
        _moment(said.since),
        said.clients,
        said.published,
        said.lost,
        said.rate,
    )


def _moment(text: str | None) -> int | None:
    try:
        return None if text is None else parse_time(text)
    except InvalidEvent:
        return None


@dataclass(frozen=True, slots=True)
class Target:
    """What a user wrote: a path, or a name in a folder that several buses may share."""

    text: str
    path: Path | None
    folder: Path | None

    @classmethod
    def of(cls, text: str | Path, folder: Path | None) -> Target:
        """`unix:/path.sock`, a path, or a bare name. Raises Refused: neither, or a name without a folder."""
        if isinstance(text, Path):
            return cls(str(text), text, None)
        path = text.removeprefix("unix:")
        if path != text or "/" in path:
            return cls(text, Path(path), folder)
        if folder is None:
            raise Refused(text, "a bare name needs the folder it is looked for in")
        socket_path(folder, text)
        return cls(text, None, folder)

    def candidates(self) -> list[Path]:
        """Where its bus, or one of its buses, may be listening now: found by name, not asked.

        Raises Refused: the folder is not safe.
        """
        if self.path is not None:
            return [self.path]
        assert self.folder is not None
        return [standing.path for standing in standing_sockets(self.folder, self.text)]

    def live(self) -> list[Path]:
        """Those of the candidates that somebody listens on."""
        return [path for path in self.candidates() if is_live(path)]

    def neighbours(self) -> list[str]:
        """The names of the buses that are live in the folder."""
        if self.folder is None:
            return []
        return sorted({standing.name for standing in live_sockets(self.folder)})
