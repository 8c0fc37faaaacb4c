"""One websocket connection as the venue sees it: frames out, pings, limits and its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import WSMsgType, web

from obframe.testing.exchange_control import Subscriptions

TEXT, PING, PONG = 1, 9, 10


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a whole, unmasked frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return struct.pack(">BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack(">BBQ", 0x80 | opcode, 127, size) + payload


class Connection:
    """Writes frames straight to the transport, so that one frame serves all its receivers.

    Frames gather until ``flush``, so that what is due at once is one write. A client that leaves
    more than ``buffer_limit`` bytes unread is reset: nothing more could reach it in time.

    Args:
        websocket: Prepared, with ``autoping`` and ``autoclose`` off.
        transport: Its transport.
        subscriptions: What it gets.
        incoming_limit: Messages a second that the client may send; PING and PONG count.
        buffer_limit: Bytes.
        spawn: Keeps a task until it ends.
    """

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        subscriptions: Subscriptions,
        *,
        incoming_limit: int,
        buffer_limit: int,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.subscriptions = subscriptions
        self.hole = False
        self.closing = False
        self._websocket = websocket
        self._transport = transport
        self._incoming_limit = incoming_limit
        self._incoming: deque[float] = deque()
        self._buffer_limit = buffer_limit
        self._spawn = spawn
        self._gathered: list[bytes] = []
        self._slices: deque[tuple[bytes, int]] = deque()
        self._slicing = False
        self._pinged_at: float | None = None
        self._end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    @property
    def backlog(self) -> int:
        """Bytes that the operating system has not taken yet."""
        return self._transport.get_write_buffer_size() + sum(len(part) for part, _ in self._slices)

    def send(self, data: bytes, slice_size: int = 0) -> None:
        """Have a frame go out with the next flush, or in slices of their own writes."""
        if self.hole or self.closing:
            return
        if slice_size or self._slicing:
            self._slices.append((data, slice_size or len(data)))
            if not self._slicing:
                self.flush()
                self._slicing = True
                self._spawn(self._write_slices())
        else:
            self._gathered.append(data)

    def flush(self) -> bool:
        """Write what gathered. False: the client was too slow and is gone."""
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            if not self._transport.is_closing():
                self._transport.write(b"".join(gathered))
        if self.backlog > self._buffer_limit:
            self.reset()
            return False
        return True

    def drop(self, code: int, reason: str = "") -> None:
        """Close in the clean way, with a close frame after all that was sent so far."""
        if not self.hole:
            self.flush()
            self._finish_with(code, reason)

    def reset(self) -> None:
        """Break the TCP connection with RST."""
        self._finish_with(1006, "")
        self._gathered.clear()
        self._slices.clear()
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def ping(self, now: float, patience: float) -> None:
        """Ping the client, or close when its last pong is missing for too long."""
        if self.hole or self.closing:
            return
        if self._pinged_at is None:
            self._pinged_at = now
        elif now - self._pinged_at >= patience:
            self.drop(1008, "Pong timeout")
            return
        self.send(frame(str(int(now * 1000)).encode(), PING))
        self.flush()

    async def receive(self) -> str | None:
        """Return the client's next request; None when the connection has ended."""
        while (message := await self._next()) is not None:
            if self.hole:
                continue
            if self._too_many(time.monotonic()):
                self.drop(1008, "Too many requests")
            elif message.type is WSMsgType.PING:
                self.send(frame(message.data, PONG))
                self.flush()
            elif message.type is WSMsgType.PONG:
                self._pinged_at = None
            elif message.type is WSMsgType.TEXT:
                return str(message.data)
            else:
                self.drop(1003, "Text only")
        return None

    async def finish(self) -> None:
        """Shake hands on the end, whoever began it. A black hole does not, nor does a reset."""
        # A transport tells nobody but its protocol that it closes.
        while self.hole and not self._transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if self._transport.is_closing():
            return
        code, reason = self._end.result() if self._end.done() else (1000, "")
        with contextlib.suppress(ConnectionError):
            await self._websocket.close(code=code, message=reason.encode())

    async def _next(self) -> Any:
        receiving = asyncio.ensure_future(self._websocket.receive())
        try:
            ends: set[asyncio.Future[Any]] = {receiving, self._end}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not receiving.done():
                receiving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await receiving
        if self._end.done() or receiving.cancelled():
            return None
        message = receiving.result()
        last = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)
        return None if message.type in last else message

    def _finish_with(self, code: int, reason: str) -> None:
        self.closing = True
        if not self._end.done():
            self._end.set_result((code, reason))

    def _too_many(self, now: float) -> bool:
        self._incoming.append(now)
        while self._incoming[0] <= now - 1.0:
            self._incoming.popleft()
        return len(self._incoming) > self._incoming_limit

    async def _write_slices(self) -> None:
        while self._slices and not self._transport.is_closing():
            data, size = self._slices[0]
            for start in range(0, len(data), size):
                if self._transport.is_closing():
                    break
                self._transport.write(data[start : start + size])
                # The peer gets its turn between two slices, or it would see them as one.
                await asyncio.sleep(0)
            if self._slices:
                self._slices.popleft()
        self._slicing = False
