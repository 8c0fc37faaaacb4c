"""The seam to websocket libraries: what the feed knows of a connection, whichever carries it.

Frames are pushed: the library's own read callback hands over every message that has arrived, one
after the other, and nothing here queues any. While they are being handled nothing is read, so a
venue that is faster than this process fills the kernel's buffers and then its own.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeAlias

Take: TypeAlias = Callable[[bytes, int], None]
"""Takes a message and the monotonic nanoseconds at which its bytes were read from the socket.

The bytes are the receiver's own: copying the kilobyte of a depth message costs less than a view of
the library's buffer that would have to end with the call. What it raises ends the connection;
``Socket.wait`` raises it again.
"""

LIBRARIES = ("picows", "websockets")
"""All that can carry a connection, the best first."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to open a connection and what to bear. Times are in seconds.

    Attributes:
        max_message_bytes: Longest message, its fragments together.
        open_timeout: For everything until the opening handshake is done.
        close_timeout: For the closing handshake.
        proxy: URL of a proxy, or None.
        user_agent: What we call ourselves.
    """

    max_message_bytes: int
    open_timeout: float
    close_timeout: float
    proxy: str | None
    user_agent: str


class HandshakeRefused(Exception):
    """The server answered the opening handshake with another status than 101.

    Attributes:
        status: HTTP's.
        retry_after: The header of that name, if there was one.
    """

    def __init__(self, status: int, retry_after: str | None) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(f"status {status}")


class HandshakeFailed(Exception):
    """What answered the opening handshake does not speak WebSocket."""


class ProxyFailed(Exception):
    """The proxy did not let us through."""


class Closed(Exception):
    """A connection's end.

    Attributes:
        code: The close code that the venue sent; None when it sent none.
        too_big: Whether we ended it because a message was over the limit.
    """

    def __init__(self, detail: str, code: int | None = None, too_big: bool = False) -> None:
        self.code = code
        self.too_big = too_big
        super().__init__(detail)


class Socket(Protocol):
    """An open connection. Pings are answered by it; compression is never agreed to."""

    async def send(self, text: str) -> None:
        """Send a text message.

        Raises:
            Closed: The connection is at its end.
        """
        ...

    async def wait(self) -> NoReturn:
        """Wait for the end, and tell of it as soon as no further message can come.

        Raises:
            Closed: The connection is at its end.
            Exception: What ``take`` raised.
        """
        ...

    def mute(self) -> None:
        """Hand over nothing from now on."""
        ...

    async def close(self) -> None:
        """Shake hands on the end, within the time for that. Never raises for what the peer does."""
        ...


class Open(Protocol):
    """Opens a connection and has its messages handed to ``take``, also before it returns.

    Raises:
        HandshakeRefused: Another status than 101.
        HandshakeFailed: No WebSocket.
        ProxyFailed: The proxy.
        TimeoutError: It took too long.
        ssl.SSLError: TLS.
        OSError: Anything below; ``socket.gaierror`` when it is the host's name.
    """

    async def __call__(self, url: str, options: Options, take: Take) -> Socket:
        """Open it."""
        ...


def is_installed(library: str) -> bool:
    """Tell whether a library of ``LIBRARIES`` can be used."""
    return importlib.util.find_spec(library) is not None


def choose(wanted: str) -> tuple[str, Open]:
    """Return the name of a library and what opens connections by it.

    Args:
        wanted: One of ``LIBRARIES``, which must be installed, or ``auto`` for the best that is.
    """
    name = next(filter(is_installed, LIBRARIES)) if wanted == "auto" else wanted
    module = importlib.import_module(f"obframe_plugins._websocket_{name}")
    return name, module.open_socket


def describe_end(
    received: tuple[int, str] | None, sent: tuple[int, str] | None, we_began: bool
) -> str:
    """Say in words why an open connection ended.

    Args:
        received: Code and reason of the peer's close frame, if there was one.
        sent: Those of ours.
        we_began: Whether ours came first.
    """
    if received is not None and not (sent is not None and we_began):
        return f"connection closed by the venue with {_name(received)}"
    if sent is not None:
        return f"connection closed by us with {_name(sent)}"
    return "connection closed without a closing handshake"


def _name(close: tuple[int, str]) -> str:
    code, reason = close
    return f"{code}: {reason}" if reason else str(code)
