"""Connections by ``picows``, compiled and several times cheaper a message; ``obframe[fast]``."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from typing import Any, NoReturn

from picows import (
    WSCloseCode,
    WSFrame,
    WSHandshakeError,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)
from picows.url import WSParsedURL
from python_socks import ProxyError

from obframe_plugins._websocket import (
    Closed,
    HandshakeFailed,
    HandshakeRefused,
    Options,
    ProxyFailed,
    Take,
    describe_end,
)

_TEXT = WSMsgType.TEXT
_TOO_BIG = 1009


class _Listener(WSListener):
    """Takes every frame from the library's read callback.

    A frame is of use during its callback only: it points into the library's read buffer.
    """

    def __init__(self, options: Options, take: Take) -> None:
        self.take: Take | None = take
        self.transport: WSTransport | None = None
        self.failure: tuple[int, str] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.close_received = asyncio.Event()
        self._most = options.max_message_bytes
        self._read_ns = 0
        self._pieces: bytearray | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        # One time for all frames of one read: those that waited for their turn have waited.
        received_ns = self._read_ns or time.monotonic_ns()
        self._read_ns = 0 if frame.last_in_buffer else received_ns
        reserved = frame.rsv1 or frame.rsv2 or frame.rsv3
        if frame.msg_type is _TEXT and frame.fin and not reserved and self._pieces is None:
            self._hand_over(frame.get_payload_as_bytes(), received_ns)
        else:
            self._take_other(transport, frame, received_ns)

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002 (the library's)
        self.close_received.set()
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

    def _take_other(self, transport: WSTransport, frame: WSFrame, received_ns: int) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            self.close_received.set()
            if not transport.is_close_frame_sent:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
            self.end(None)
        elif self.take is None:
            return
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._fail(WSCloseCode.PROTOCOL_ERROR, "reserved bits must be 0")
        elif kind is WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind is not WSMsgType.PONG:
            self._gather(frame, received_ns)

    def _gather(self, frame: WSFrame, received_ns: int) -> None:
        begins = frame.msg_type is not WSMsgType.CONTINUATION
        if begins is (self._pieces is not None):
            self._fail(WSCloseCode.PROTOCOL_ERROR, "fragments out of order")
            return
        if self._pieces is None:
            self._pieces = bytearray()
        self._pieces += frame.get_payload_as_bytes()
        if len(self._pieces) > self._most:
            self._fail(WSCloseCode.MESSAGE_TOO_BIG, f"over {self._most} bytes")
        elif frame.fin:
            whole, self._pieces = bytes(self._pieces), None
            self._hand_over(whole, received_ns)

    def _hand_over(self, data: bytes, received_ns: int) -> None:
        if self.take is not None:
            try:
                self.take(data, received_ns)
            except Exception as error:
                self.end(error)

    def _fail(self, code: WSCloseCode, reason: str) -> None:
        """End the connection for what the peer sent."""
        assert self.transport is not None
        self.transport.send_close(code, reason.encode())
        self.end(None)


class _Socket:
    """What the feed sees of such a connection."""

    def __init__(self, transport: WSTransport, listener: _Listener, options: Options) -> None:
        self._transport = transport
        self._listener = listener
        self._close_timeout = options.close_timeout

    async def send(self, text: str) -> None:
        if self._listener.ended.done() or self._transport.is_disconnected:
            raise self._describe()
        self._transport.send(_TEXT, text.encode())

    async def wait(self) -> NoReturn:
        await asyncio.shield(self._listener.ended)
        raise self._describe()

    def mute(self) -> None:
        self._listener.take = None

    async def close(self) -> None:
        transport, listener = self._transport, self._listener
        listener.take = None
        try:
            async with asyncio.timeout(self._close_timeout):
                if not transport.is_disconnected:
                    if not transport.is_close_frame_sent:
                        transport.send_close(WSCloseCode.OK)
                    await listener.close_received.wait()
                transport.disconnect()
                await _settle(transport)
        except TimeoutError:
            transport.disconnect(graceful=False)
            await _settle(transport)

    def _describe(self) -> Closed:
        shake = self._transport.close_handshake
        received = sent = None
        if shake is not None:
            received, sent = _read(shake.recv), _read(shake.sent)
        we_began = shake is not None and not shake.recv_then_sent
        too_big = we_began and sent is not None and sent[0] == _TOO_BIG
        code = None if received is None else received[0]
        return Closed(describe_end(received, sent, we_began), code, too_big)


def _read(close: Any) -> tuple[int, str] | None:
    return None if close is None else (int(close.code), close.reason or "")


async def _settle(transport: WSTransport) -> None:
    """Wait until TCP has ended; why it did is told elsewhere."""
    with suppress(Exception):
        await transport.wait_disconnected()


class _Dialler:
    """Makes the TCP connection, and keeps hold of it until the handshake is done.

    The library lets go of a connection whose opening is cancelled without closing it.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    async def dial(self, where: WSParsedURL) -> socket.socket:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
        failure: OSError = OSError(f"no address of {where.host}")
        for family, kind, protocol, _, address in found:
            raw = socket.socket(family, kind, protocol)
            raw.setblocking(False)
            try:
                await loop.sock_connect(raw, address)
            except OSError as error:
                failure = error
                raw.close()
            except BaseException:
                raw.close()
                raise
            else:
                self._socket = raw
                return raw
        raise failure

    def hang_up(self) -> None:
        """End what was begun: the transport, if there is one, sees the end of the stream."""
        if self._socket is not None and self._socket.fileno() >= 0:
            with suppress(OSError):  # it may have ended already
                self._socket.shutdown(socket.SHUT_RDWR)


async def open_socket(url: str, options: Options, take: Take) -> _Socket:
    """Open a connection; see ``_websocket.Open``."""
    listener = _Listener(options, take)
    dialler = _Dialler()
    try:
        async with asyncio.timeout(options.open_timeout):
            transport, _ = await ws_connect(
                lambda *_: listener,
                url,
                websocket_handshake_timeout=None,
                # Ours answers: then every frame passes by, and the last of a read is seen.
                enable_auto_pong=False,
                max_frame_size=options.max_message_bytes,
                extra_headers={"User-Agent": options.user_agent},
                proxy=options.proxy,
                socket_factory=dialler.dial,
            )
    except BaseException as error:
        dialler.hang_up()
        if isinstance(error, WSInvalidStatusError) and error.response is not None:
            answer = error.response
            raise HandshakeRefused(answer.status, answer.headers.get("Retry-After")) from error
        if isinstance(error, WSHandshakeError):
            raise HandshakeFailed(str(error)) from error
        if isinstance(error, ProxyError):
            raise ProxyFailed(str(error)) from error
        raise
    if listener.transport is None:
        raise HandshakeFailed("it ended the connection without an answer")
    return _Socket(transport, listener, options)
