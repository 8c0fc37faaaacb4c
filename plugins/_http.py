"""REST requests of feeds, whatever the venue: bodies of bounded length, failures in words."""

from __future__ import annotations

import socket
import ssl

import aiohttp

from obframe import FeedError
from obframe_plugins._venue import clip

_MOST_BODY_BYTES = 64 * 1024 * 1024


class RestError(FeedError):
    """A request that was not answered as it should.

    Attributes:
        status: The HTTP status; None when there was no answer.
        code: The venue's own error code, such as -1121; None when it gave none.
        retry_after: Seconds that the venue asks us to wait at least.
    """

    def __init__(
        self,
        detail: str,
        status: int | None = None,
        code: int | None = None,
        retry_after: float = 0.0,
    ) -> None:
        self.status = status
        self.code = code
        self.retry_after = retry_after
        super().__init__(detail)


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer.

    Raises:
        RestError: It has more than 64 MiB.
    """
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > _MOST_BODY_BYTES:
            raise RestError(f"{response.url} answered with more than 64 MiB", response.status)
        parts.append(part)
    return b"".join(parts)


def other_host(section: str) -> str:
    """Say which settings of a section help where a host does not."""
    return f"set {section}.rest_url to a host that serves you, or {section}.proxy"


def describe_request_failure(error: Exception, url: str, timeout: float, section: str) -> str:
    """Say why a request had no answer, and which setting of a section helps."""
    said = clip(str(error)) or type(error).__name__
    help_rest = other_host(section)
    if isinstance(error, TimeoutError):
        return f"{url} did not answer within {timeout:g} s"
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return f"the proxy failed for {url}: {said}; check {section}.proxy"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return f"TLS with {url} failed: {said}; check {section}.rest_url and the clock"
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror | UnicodeError):
        return f"the host name of {url} cannot be resolved: {said}; {help_rest}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{url} cannot be reached: {said}; {help_rest}"
    return f"{url} failed: {type(error).__name__}: {said}"
