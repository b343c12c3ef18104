"""Serve a bus on a Unix socket.

    async with serve_tap(bus, socket_path(folder, "web")):
        …

A tap never slows the bus and never keeps it alive: a slow client gets Gaps, a hostile one gets a line that says why it
is turned away, and neither costs more than sessions.py says. Read-only unless it says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...bus import EventBus
from . import protocol
from .connection import Connection, is_welcome, turn_away
from .folder import Claim, claim_soon, ensure_folder
from .forks import keep_from_children
from .protocol import VERSION, Greeting, Rejection, Request, format_moment
from .sessions import Confirm, Intake, Watch

MAX_CLIENTS = 64  # each costs a descriptor and some hundred kB at most; the people who watch one program are fewer
DESCRIBERS = 16  # connections beyond the clients: those that only ask who we are, and those that have not said yet
ACCEPT_PAUSE = 0.5  # seconds without accepting when the process is out of descriptors
CLOSE_SECONDS = 1.0  # for clients to take what is still in the ring when the tap closes

_log = logging.getLogger("opsml_eventbus")


def serve_tap(
    bus: EventBus,
    path: str | Path,
    *,
    allow_publish: bool = False,
    max_clients: int = MAX_CLIENTS,
    confirm: Confirm | None = None,
    alone: bool = False,
) -> Tap:
    """A tap on `bus`, for `async with`; it serves from there to the end of the block, in the loop it is entered in.

    path: the socket. Its folder is made (0700) if it is not there. Where a live bus already listens, this one stands
        beside it as `<name>.<pid>.sock`, or is Refused when `alone`.
    allow_publish: others may put events on this bus. max_clients: connections that subscribe or publish.
    confirm: waits until everything that is on the bus when it is called has been recorded. Where it is given, a
        publisher is told `acked` only after that; when it raises an EventError, never again.

    Entering raises Refused (live and `alone`, an unsafe folder, a path too long) and Unreachable.
    """
    return Tap(bus, Path(path), allow_publish, max_clients, confirm, alone)


class Tap:
    """A bus that is being served. path: its socket, known when entered. Made by `serve_tap`."""

    def __init__(
        self,
        bus: EventBus,
        path: Path,
        allow_publish: bool,
        max_clients: int,
        confirm: Confirm | None,
        alone: bool,
    ) -> None:
        self.path = path
        self._bus = bus
        self._allow_publish = allow_publish
        self._max_clients = max_clients
        self._confirm = confirm
        self._alone = alone
        self._id = bus.id
        self._since = time.time_ns()
        self._watches: set[Watch] = set()
        self._clients = 0
        self._lost = 0  # by clients that have left
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: set[asyncio.Task[None]] = set()  # those of them that have not said what they want
        self._claim: Claim | None = None
        self._pausing: asyncio.TimerHandle | None = None
        self._history: deque[tuple[float, int]] = deque(maxlen=11)  # (seconds, published), one a second

    async def __aenter__(self) -> Self:
        if not self.path.parent.exists():
            ensure_folder(self.path.parent)
        self._claim = await claim_soon(self.path, alone=self._alone)
        self.path = self._claim.path
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._ticking = self._loop.create_task(self._tick())
        self._resume()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._claim is not None
        if self._pausing is not None:
            self._pausing.cancel()
        self._pause()
        self._claim.release()
        self._closing.set()
        try:
            await _cancel([self._ticking, *self._strangers])
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        finally:
            await _cancel(self._tasks)

    @property
    def clients(self) -> int:
        """Clients that subscribe or publish now."""
        return self._clients

    def _resume(self) -> None:
        assert self._claim is not None
        self._loop.add_reader(self._claim.listener, self._accept)

    def _pause(self) -> None:
        assert self._claim is not None
        self._loop.remove_reader(self._claim.listener)

    def _accept(self) -> None:
        """One connection is waiting. From a callback, not a task: none can be lost between two awaits."""
        assert self._claim is not None
        try:
            sock, _ = self._claim.listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors, mostly. The connection stays in the backlog and the listener readable: without a pause
            # this would spin.
            _log.debug("tap %s: accepting pauses: %s", self.path, error.strerror)
            self._pause()
            self._pausing = self._loop.call_later(ACCEPT_PAUSE, self._resume)
            return
        keep_from_children(sock).setblocking(False)
        if not is_welcome(sock):
            turn_away(sock, Rejection("peer"))
        elif len(self._tasks) >= self._max_clients + DESCRIBERS:
            turn_away(sock, Rejection("full"))
        else:
            task = self._loop.create_task(self._serve(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: sock.close())  # a task that is cancelled before it begins closes nothing

    async def _serve(self, sock: socket.socket) -> None:
        connection = await Connection.open(sock)
        try:
            await self._converse(connection)
        except Rejection as rejection:
            connection.send(protocol.encode(rejection))
        except asyncio.CancelledError:
            connection.abort()
            raise
        except (OSError, EOFError):
            pass  # the client is gone: its way to say goodbye
        except Exception:  # noqa: BLE001 - one client's session must not end the others'
            _log.exception("tap %s: a session failed", self.path)
        finally:
            await connection.close()

    async def _converse(self, connection: Connection) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._strangers.add(task)
        try:
            request = await connection.request()
        finally:
            self._strangers.discard(task)
        if request.do == "describe":
            connection.send(protocol.encode(self._describe()))
            return
        if request.do == "publish" and not self._allow_publish:
            raise Rejection("read_only")
        if self._clients >= self._max_clients:
            raise Rejection("full", f"{self._clients} clients, as many as this tap takes")
        self._clients += 1
        try:
            if request.do == "publish":
                await Intake(self._bus, connection, self._confirm).run(
                    self._greet(recorded=self._confirm is not None), self._closing
                )
            else:
                await self._watch(connection, request)
        finally:
            self._clients -= 1

    async def _watch(self, connection: Connection, request: Request) -> None:
        watch = Watch(self._bus, connection, request, self._id)
        self._watches.add(watch)
        try:
            await watch.run(self._greet(at=watch.at), self._closing)
        finally:
            self._watches.discard(watch)
            self._lost += watch.lost

    def _greet(self, **more: Any) -> Greeting:
        return Greeting(
            eventbus=VERSION,
            bus=self._id,
            source=self._bus.source,
            capacity=self._bus.capacity,
            publish=self._allow_publish,
            **more,
        )

    def _describe(self) -> Greeting:
        published = self._bus.statistics().published
        now = time.monotonic()
        before, earlier = self._history[0] if self._history else (now, published)
        return self._greet(
            pid=os.getpid(),
            since=format_moment(self._since),
            clients=self._clients,
            published=published,
            lost=self._lost + sum(watch.lost for watch in self._watches),
            rate=round((published - earlier) / (now - before), 1) if now > before else 0.0,
        )

    async def _tick(self) -> None:
        while True:
            self._history.append((time.monotonic(), self._bus.statistics().published))
            for watch in list(self._watches):
                watch.tick()
            await asyncio.sleep(1.0)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
