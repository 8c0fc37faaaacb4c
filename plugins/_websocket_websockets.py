"""Connections by ``websockets``, the library that is always there."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, NoReturn

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    ProxyError,
)
from websockets.frames import Close, Frame, Opcode

from obframe_plugins._websocket import (
    Closed,
    HandshakeFailed,
    HandshakeRefused,
    Options,
    ProxyFailed,
    Take,
    describe_end,
)

_TOO_BIG = 1009
_PIECES = (Opcode.CONT, Opcode.TEXT, Opcode.BINARY)


class _Pushing(ClientConnection):
    """Hands messages over in the read callback, instead of waking a task for them.

    ``process_event`` is where the library takes every frame; it has checked their order and the
    length of a message before.
    """

    def __init__(self, *arguments: Any, take: Take, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.take: Take | None = take
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self._read_ns = 0
        self._pieces: list[Any] = []

    def data_received(self, data: bytes) -> None:
        """Take what one read of the socket gave."""
        self._read_ns = time.monotonic_ns()
        super().data_received(data)
        if self.response is not None and self.protocol.close_expected():
            # Whoever said that it is the end: no message follows, however long TCP goes on.
            self.end(None)

    def process_event(self, event: Any) -> None:
        """Take one frame, or the answer to the opening handshake."""
        if self.response is None or event.opcode not in _PIECES:
            super().process_event(event)
        elif event.fin and event.opcode is not Opcode.CONT:
            self._hand_over(bytes(event.data))  # the library's own is a bytearray
        else:
            self._gather(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of TCP."""
        super().connection_lost(exc)
        self.end(None)

    def end(self, error: Exception | None) -> None:
        """Hand over nothing any more, and let the one who waits know."""
        self.take = None
        if not self.ended.done():
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)
                self.ended.exception()  # nobody may be waiting, and that is no mistake

    def _gather(self, frame: Frame) -> None:
        self._pieces.append(frame.data)
        if frame.fin:
            whole = b"".join(self._pieces)
            self._pieces.clear()
            self._hand_over(whole)

    def _hand_over(self, data: bytes) -> None:
        if self.take is not None:
            try:
                self.take(data, self._read_ns)
            except Exception as error:
                self.end(error)


class _Socket:
    """What the feed sees of such a connection."""

    def __init__(self, connection: _Pushing) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        try:
            await self._connection.send(text)
        except ConnectionClosed:
            raise self._describe() from None

    async def wait(self) -> NoReturn:
        await asyncio.shield(self._connection.ended)
        raise self._describe()

    def mute(self) -> None:
        self._connection.take = None

    async def close(self) -> None:
        await self._connection.close()

    def _describe(self) -> Closed:
        protocol = self._connection.protocol
        received, sent = _read(protocol.close_rcvd), _read(protocol.close_sent)
        we_began = not protocol.close_rcvd_then_sent
        too_big = we_began and sent is not None and sent[0] == _TOO_BIG
        code = None if received is None else received[0]
        return Closed(describe_end(received, sent, we_began), code, too_big)


def _read(close: Close | None) -> tuple[int, str] | None:
    return None if close is None else (int(close.code), close.reason)


async def open_socket(url: str, options: Options, take: Take) -> _Socket:
    """Open a connection; see ``_websocket.Open``."""
    make: Any = partial(_Pushing, take=take)
    try:
        connection = await connect(
            url,
            create_connection=make,  # called as a class would be
            compression=None,
            max_size=options.max_message_bytes,
            open_timeout=options.open_timeout,
            close_timeout=options.close_timeout,
            # The venue's own pings and the feed's idle time-out do this.
            ping_interval=None,
            proxy=options.proxy,
            user_agent_header=options.user_agent,
        )
    except InvalidStatus as error:
        answer = error.response
        raise HandshakeRefused(answer.status_code, answer.headers.get("Retry-After")) from error
    except InvalidProxyStatus as error:
        raise ProxyFailed(f"it answered {error.response.status_code}") from error
    except (ProxyError, InvalidProxy) as error:
        raise ProxyFailed(str(error)) from error
    except (InvalidHandshake, EOFError) as error:
        raise HandshakeFailed(str(error)) from error
    assert isinstance(connection, _Pushing)
    return _Socket(connection)
