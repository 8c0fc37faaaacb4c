"""The venue's parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from obframe.errors import SymbolError
from obframe.testing.exchange_faults import parse_fault
from obframe.testing.exchange_market import MARKETS
from obframe.types import check_symbol

VENUES = ("binance", "kraken", "coinbase")
AT_END = ("idle", "close", "exit")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOptions:
    """What a venue on the desk serves, and how.

    Args:
        venue: Whose wire: ``binance``, or ``kraken`` or ``coinbase``, which are simulated only.
        host: Address to listen on.
        port: TCP port for REST and websockets alike; 0 takes a free one.
        market: ``spot``, ``usdm`` or ``coinm``; empty: what the captures are, else ``spot``.
        captures: Capture files to replay; none: simulate.
        speed: Times real time for captures; 0 or infinity: as fast as clients drain.
        at_end: After the last captured message: ``idle`` (connections stay open, silent),
            ``close`` (connections are closed, REST answers on) or ``exit``.
        symbols: How many symbols to simulate, or their names.
        seed: Of the simulation; the same seed gives the same events, symbol by symbol.
        rate: Simulated depth events a second and symbol.
        levels: Simulated levels a side.
        loop: Events made beforehand of each simulated book, to be served for ever, there and back:
            for loads that no simulation can keep up with; 0: each event is made anew.
        tls: A PEM file of certificate and key, to serve ``https`` and ``wss`` with.
        record: A directory for the journal, one capture file a symbol; it must hold none yet.
        faults: Faults on demand, each ``NAME[@N][:key=value,…]``; see ``FAULTS``.
        ping_seconds: Between the pings of the venue.
        pong_seconds: How long a pong may be missing before the connection is closed.
        connection_seconds: Life of a connection.
        connection_limit: New connections in five minutes; further ones are refused with 429.
        weight_limit: REST weight a minute; 0: the market's own.
        ban_seconds: Length of the first ban (418).
        buffer_mib: Unsent MiB after which a slow client is disconnected.

    Raises:
        ValueError: One or more are out of range; the message names all, with the mend.
    """

    venue: str = "binance"
    host: str = "127.0.0.1"
    port: int = 0
    market: str = ""
    captures: tuple[Path, ...] = ()
    speed: float = 1.0
    at_end: str = "idle"
    symbols: int | tuple[str, ...] = 2
    seed: int = 1
    rate: float = 10.0
    levels: int = 1000
    loop: int = 0
    tls: Path | None = None
    record: Path | None = None
    faults: tuple[str, ...] = ()
    ping_seconds: float = 20.0
    pong_seconds: float = 60.0
    connection_seconds: float = 86_400.0
    connection_limit: int = 300
    weight_limit: int = 0
    ban_seconds: float = 120.0
    buffer_mib: float = 16.0

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ValueError("\n".join(problems))

    def _problems(self) -> list[str]:
        found: list[str] = []

        def need(good: bool, name: str, mend: str) -> None:
            if not good:
                found.append(f"exchange {name} = {getattr(self, name)!r}: {mend}")

        need(self.venue in VENUES, "venue", f"give one of {', '.join(VENUES)}")
        if self.venue != "binance":
            mend = f"the venue {self.venue} is a plain simulation: leave it out"
            for name in ("market", "captures", "loop", "tls", "weight_limit"):
                need(not getattr(self, name), name, mend)
        need(0 <= self.port <= 65535, "port", "give 0 (any free port) to 65535")
        need(
            self.market in ("", *MARKETS), "market", f"give one of {', '.join(MARKETS)} or nothing"
        )
        need(self.speed >= 0, "speed", "give times real time, such as 10; 0 for no waiting")
        need(self.at_end in AT_END, "at_end", f"give one of {', '.join(AT_END)}")
        need(0 < self.rate <= 1000, "rate", "give events a second and symbol, up to 1000")
        need(5 <= self.levels <= 50_000, "levels", "give levels a side, 5 to 50000")
        need(0 <= self.loop <= 10_000, "loop", "give events to make beforehand, up to 10000, or 0")
        need(not (self.loop and self.captures), "loop", "captures are not looped: give 0")
        need(self.tls is None or self.tls.is_file(), "tls", "is not a file: check the path")
        for name in ("ping_seconds", "pong_seconds", "connection_seconds", "ban_seconds"):
            value = getattr(self, name)
            need(value > 0 and not math.isnan(value), name, "give seconds above 0")
        need(self.buffer_mib > 0, "buffer_mib", "give MiB above 0")
        need(self.connection_limit > 0, "connection_limit", "give a number above 0")
        need(self.weight_limit >= 0, "weight_limit", "give weight a minute, 0 for the market's own")
        if isinstance(self.symbols, int):
            need(1 <= self.symbols <= 9999, "symbols", "give 1 to 9999, or names")
        else:
            need(len(self.symbols) > 0, "symbols", "give at least one name")
            need(len(set(self.symbols)) == len(self.symbols), "symbols", "give each name once")
            for symbol in self.symbols:
                try:
                    check_symbol(symbol)
                except SymbolError as error:
                    found.append(f"exchange symbols: {error}")
                if symbol != symbol.upper():
                    found.append(f"exchange symbols: {symbol!r}: write it in capitals")
        for path in self.captures:
            if not path.is_file():
                found.append(f"exchange captures: {str(path)!r} is not a file: check the path")
        for text in self.faults:
            try:
                parse_fault(text, self.venue if self.venue in VENUES else "")
            except ValueError as error:
                found.append(f"exchange faults: {error}")
        return found
