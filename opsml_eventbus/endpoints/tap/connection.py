"""One accepted connection: what a server may wait for, how much it holds, and how it ends, whatever the client does.

A client that sends slowly has two seconds for its request; one that reads slowly makes `flush` wait, and costs no more
than what was handed to `send` before it; one that is gone is noticed by reading.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress

from . import protocol
from .protocol import MAX_REQUEST_BYTES, REQUEST_SECONDS, Rejection, Request, parse_request

READ_BYTES = 64 << 10  # of a publisher at once: about 150 events, some ms of decoding before others get their turn
CLOSE_SECONDS = 1.0  # to take what was sent to it; a client that does not is cut off
_LOCAL_PEERCRED = 1  # macOS, BSD; its level SOL_LOCAL is 0 and has no name in the socket module


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end, as the kernel knows it."""
    linux = getattr(socket, "SO_PEERCRED", None)
    if linux is not None:
        return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, linux, struct.calcsize("3i")))[1])
    # struct xucred: version, uid, number of groups, groups
    return int(struct.unpack_from("2I", sock.getsockopt(0, _LOCAL_PEERCRED, 76))[1])


def is_welcome(sock: socket.socket) -> bool:
    """Is the peer ourselves, or root?"""
    try:
        return peer_uid(sock) in (os.geteuid(), 0)
    except OSError:
        return False  # it is gone already


def turn_away(sock: socket.socket, rejection: Rejection) -> None:
    """Say why, if the kernel takes it at once, and close."""
    with sock, suppress(OSError):
        sock.send(protocol.encode(rejection))


class Connection:
    """A stream of lines to and from one client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        # `flush` waits until the kernel has everything: what we hold for a client is then never more than one send.
        writer.transport.set_write_buffer_limits(high=0)

    @classmethod
    async def open(cls, sock: socket.socket) -> Connection:
        """Take over an accepted socket."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_REQUEST_BYTES, loop=loop)
        adapter = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(lambda: adapter, sock)
        return cls(reader, asyncio.StreamWriter(transport, adapter, reader, loop))

    async def request(self) -> Request:
        """The client's first line. Raises Rejection; EOFError or OSError when the client is gone before it spoke."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                line = await self._reader.readuntil(b"\n")
        except TimeoutError:
            raise Rejection("timeout") from None
        except asyncio.LimitOverrunError:
            raise Rejection("request", f"the first line has more than {MAX_REQUEST_BYTES:,} bytes") from None
        return parse_request(line)

    async def read(self) -> bytes:
        """What the client sent, empty at its end."""
        return await self._reader.read(READ_BYTES)

    async def gone(self) -> None:
        """Return when a client that has nothing more to say closes its side. Raises Rejection where it says more."""
        while chunk := await self._reader.read(4096):
            if not chunk.isspace():
                raise Rejection("unexpected")

    @property
    def idle(self) -> bool:
        """Has the kernel taken everything that was sent?"""
        return self._writer.transport.get_write_buffer_size() == 0

    def send(self, lines: bytes) -> None:
        """Hand over whole lines. What the kernel does not take at once is held until it does."""
        if not self._writer.transport.is_closing():
            self._writer.write(lines)

    async def flush(self) -> None:
        """Wait until the kernel has taken everything. Raises OSError when the client is gone."""
        await self._writer.drain()

    async def close(self) -> None:
        """Close when the client has taken what was sent, or after a second without that."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Close at once; what was not taken is thrown away."""
        self._writer.transport.abort()
