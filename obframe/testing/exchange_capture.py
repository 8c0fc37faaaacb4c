"""Captured market data as a venue's market: the bytes as they were, in their own time."""

from __future__ import annotations

import gzip
import heapq
import logging
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from obframe.testing.exchange_market import MARKETS, Depth, Event, Listing, Market
from obframe.testing.reference import ReferenceBook

_log = logging.getLogger(__name__)

_SNAPSHOT = b'{"lastUpdateId":'
_STREAM = b'{"stream":"'
_DATA = b'","data":'
_COIN = re.compile(r"USD_(PERP|\d{6})$")


class _Diff(msgspec.Struct):
    E: int
    U: int
    u: int
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]
    pu: int | None = None


class _Snapshot(msgspec.Struct):
    lastUpdateId: int  # noqa: N815  (the venue's spelling)
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]
    E: int = 0


_decode_diff = msgspec.json.Decoder(_Diff).decode
_decode_snapshot = msgspec.json.Decoder(_Snapshot).decode


def read_capture(path: Path) -> Iterator[tuple[int, bytes]]:
    """Iterate over the lines of a capture file: receive time in ns, message as it was.

    Raises:
        ValueError: The file is not gzip, is cut, or holds a line of another form.
    """
    number = 0
    try:
        with gzip.open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                stamp, _, message = line.rstrip(b"\n").partition(b" ")
                if not stamp.isdigit() or not message.startswith(b"{"):
                    raise ValueError(f"{path}:{number}: not '<ns> <message>': {line[:60]!r}")
                yield int(stamp), message
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read after line {number}: {error}") from error


def split_message(message: bytes) -> tuple[str, bytes] | None:
    """Split a wrapped message into its stream's name and its data; None for a snapshot."""
    if message.startswith(_SNAPSHOT):
        return None
    end = message.find(_DATA)
    if not message.startswith(_STREAM) or end < 0 or not message.endswith(b"}"):
        raise ValueError(f"not a wrapped message: {message[:60]!r}")
    return message[len(_STREAM) : end].decode(), message[end + len(_DATA) : -1]


class _Track:
    """One symbol's files in a row, and its book."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        stream, data = next(
            parts
            for _, message in read_capture(paths[0])
            if (parts := split_message(message)) is not None and "@depth" in parts[0]
        )
        self.prefix = stream.partition("@")[0] + "@"
        self.symbol = str(msgspec.json.decode(data)["s"])
        self.futures = msgspec.json.decode(data).get("pu") is not None
        snapshot = self._first_snapshot()
        self.book = ReferenceBook()
        self.book.load(snapshot.lastUpdateId, snapshot.bids, snapshot.asks)
        self.time_ms = snapshot.E
        levels = snapshot.bids + snapshot.asks
        self.listing = Listing(
            self.symbol,
            tick=_step([price for price, _ in levels]),
            step=_step([quantity for _, quantity in levels]),
        )
        self._last = 0

    def _first_snapshot(self) -> _Snapshot:
        for _, message in read_capture(self.paths[0]):
            if message.startswith(_SNAPSHOT):
                return _decode_snapshot(message)
        raise ValueError(
            f"{self.paths[0]}: holds no REST snapshot, so the book of {self.symbol} is unknown: "
            "give the capture that it continues as well"
        )

    def lines(self, order: int) -> Iterator[tuple[int, int, str, bytes]]:
        for path in self.paths:
            for stamp, message in read_capture(path):
                parts = split_message(message)
                if parts is None:
                    continue
                if not parts[0].startswith(self.prefix):
                    raise ValueError(f"{path}: holds {parts[0]!r} beside {self.prefix}…")
                yield stamp, order, *parts

    def apply(self, stream: str, data: bytes) -> Event:
        if "@depth" not in stream:
            return Event(self.symbol, stream, data, depth=False)
        diff = _decode_diff(data)
        expected = diff.pu if self.futures else diff.U - 1
        if self._last and expected != self._last:
            _log.warning("%s: the capture itself has a gap before u=%d", self.symbol, diff.u)
        self._last = diff.u
        # What lies wholly before the snapshot is in it already; it is sent, but not applied.
        if diff.u > self.book.update_id:
            self.book.apply(diff.u, diff.b, diff.a)
        self.time_ms = diff.E
        return Event(
            symbol=self.symbol,
            stream=stream,
            data=data,
            depth=True,
            first=diff.U,
            last=diff.u,
            prev=diff.pu or 0,
            time_ms=diff.E,
            bids=diff.b,
            asks=diff.a,
        )


class CaptureSource:
    """Replays capture files; all symbols share one clock, which starts at the first line.

    The snapshot inside a symbol's first file is its book from the start on: until the stream has
    caught up with it, REST answers it as it stands, and the older events are sent all the same.

    Args:
        paths: Files of one symbol each; several of one symbol go on in a row, by first time.
        speed: Times real time; 0 or infinity: no waiting.
        market: Empty: what the captures are.

    Raises:
        ValueError: A file cannot be used, or they are not all of one market.
    """

    waits = True

    def __init__(self, paths: Sequence[Path], speed: float, market: str = "") -> None:
        grouped: dict[str, list[tuple[int, Path]]] = {}
        for path in paths:
            stamp, name = _first_line(path)
            grouped.setdefault(name, []).append((stamp, path))
        tracks = [_Track([path for _, path in sorted(group)]) for group in grouped.values()]
        self._tracks: Mapping[str, _Track] = {track.symbol: track for track in tracks}
        kinds = {_market_of(track) for track in tracks}
        if len(kinds) > 1 or (market and kinds != {market}):
            raise ValueError(
                f"exchange captures are of {' and '.join(sorted(kinds))}"
                + (f", not {market}" if market else "")
                + ": one venue is one market, so start one for each"
            )
        self.market: Market = MARKETS[kinds.pop()]
        self.listings: Mapping[str, Listing] = {track.symbol: track.listing for track in tracks}
        self.paced = 0 < speed < math.inf
        self._speed = speed
        self._lines = heapq.merge(
            *(track.lines(order) for order, track in enumerate(tracks)),
            key=lambda line: line[:2],
        )
        self._order = tracks
        self._next: tuple[int, int, str, bytes] | None = None
        self._start: int | None = None

    def due(self) -> float | None:
        """Return the seconds from the start to the next message; None at the end."""
        # Not read ahead of time: what lies before a damaged line is still sent.
        self._next = self._next or next(self._lines, None)
        if self._next is None:
            return None
        if self._start is None:
            self._start = self._next[0]
        return (self._next[0] - self._start) / 1e9 / self._speed if self.paced else 0.0

    def advance(self) -> Event | None:
        """Take the next message, and apply it to the symbol's book."""
        if self.due() is None or self._next is None:
            return None
        _, order, stream, data = self._next
        self._next = None
        return self._order[order].apply(stream, data)

    def depth(self, symbol: str, limit: int | None = None) -> Depth:
        """Return the symbol's book now."""
        track = self._tracks[symbol]
        return Depth(
            track.book.update_id, track.book.bids(limit), track.book.asks(limit), track.time_ms
        )


def _first_line(path: Path) -> tuple[int, str]:
    first = 0
    for stamp, message in read_capture(path):
        first = first or stamp
        try:
            parts = split_message(message)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if parts is not None and "@depth" in parts[0]:
            return first, parts[0].partition("@")[0]
    raise ValueError(f"{path}: holds no depth messages: nothing to replay")


def _market_of(track: _Track) -> str:
    if not track.futures:
        return "spot"
    return "coinm" if _COIN.search(track.symbol) else "usdm"


def _step(texts: Sequence[str]) -> str:
    """Return the greatest step that all values are multiples of, with their decimals."""
    decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
    scaled = (
        int(whole + part.ljust(decimals, "0"))
        for whole, _, part in (text.partition(".") for text in texts)
    )
    digits = str(math.gcd(*scaled) or 1).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits
