"""Publish into a running bus: `eventbus publish` and `eventbus replay --to` write here.

A batch is written as one buffer and its acknowledgement awaited: no round trip an event, and never more than a batch
in doubt when the connection breaks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from ...errors import Broken, InvalidEvent, Refused, UnknownEnd, Unreachable
from ...flow import Ack, Batch, Refusal, Sink
from .client import Conversation, Target
from .protocol import VERSION, Acked, Request
from .protocol import Refused as RefusedLine


class TapSink(Sink):
    """Events onto the bus that `target` names: `unix:/path.sock`, a path, or a bare name of a bus in `folder`.

    Entering connects. Raises Unreachable: no bus there. Raises Refused: it takes no events, it is full. Raises
    UnknownEnd: several live buses have this name; `known` holds what could be written instead.
    """

    def __init__(self, target: str | Path, folder: Path | None = None) -> None:
        self._target = Target.of(target, folder)
        self.name = self._target.text
        self._conversation: Conversation | None = None
        self._sent = 0  # lines, over all batches

    async def __aenter__(self) -> Self:
        path = self._path()
        self._conversation = await Conversation.open(path, Request(eventbus=VERSION, do="publish"))
        return self

    def _path(self) -> Path:
        if self._target.path is not None:
            return self._target.path
        live = self._target.live()
        if not live:
            raise Unreachable(self.name, "no bus there")
        if len(live) > 1:
            raise UnknownEnd(self.name, "several live buses have this name:", [f"unix:{path}" for path in live])
        return live[0]

    async def write(self, batch: Batch) -> Ack:
        """Publish the batch in its order. A line that the bus refuses is a Refusal (`line 17`, counted over all that
        this sink wrote); the rest goes on. durable: the bus is being recorded, and the recorder has it.

        Raises Broken: the bus closed, hung up, or its recorder failed; then part of the batch may be on the bus.
        """
        conversation = self._conversation
        if conversation is None:
            raise Broken(self.name, "not open")
        lines, refusals = batch.encode()
        first = self._sent + 1
        self._sent += len(lines)
        conversation.send(b"\n".join((*lines, b"")))
        try:
            refused = await self._answered(conversation)
        except Refused as error:
            raise Broken(self.name, error.reason) from error
        refusals += [
            Refusal(f"line {one.refused}", InvalidEvent(one.message)) for one in refused if one.refused >= first
        ]
        return Ack(len(lines) - len(refused), conversation.greeting.recorded, refusals)

    async def _answered(self, conversation: Conversation) -> list[RefusedLine]:
        """Wait until everything sent has been acknowledged."""
        refused: list[RefusedLine] = []
        while True:
            lines = await conversation.lines()
            if not lines:
                raise Broken(self.name, "it hung up; what it had not acknowledged may be on the bus or not")
            for line in lines:
                reply = conversation.reply(line)
                if isinstance(reply, RefusedLine):
                    refused.append(reply)
                elif isinstance(reply, Acked) and reply.acked >= self._sent:
                    return refused

    async def close(self) -> None:
        """Hang up."""
        if self._conversation is not None:
            self._conversation.abort()
            self._conversation = None
