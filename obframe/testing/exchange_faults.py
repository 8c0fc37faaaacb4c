"""Faults on demand: their names, their spelling, and when each is due."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TypeAlias

Value: TypeAlias = str | int | float


class Scope(Enum):
    """What a fault's N counts, and how widely the fault strikes."""

    MESSAGE = "the Nth depth message of each symbol"
    CONNECTION = "the Nth depth message of the first symbol that gets there"
    REST = "the Nth REST depth request"
    SUBSCRIBE = "the Nth SUBSCRIBE request"
    ACCEPT = "the Nth connection"


@dataclass(frozen=True, slots=True)
class _Kind:
    scope: Scope
    help: str
    defaults: Mapping[str, Value] = field(default_factory=dict)
    count: int = 1
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    venues: tuple[str, ...] = ("binance",)


_FOREVER = 10**9
_ALL = ("binance", "kraken", "coinbase")
_KRAKEN = ("kraken",)
_IDS = ("order", "negative", "float", "bool", "string", "huge")

_KINDS: dict[str, _Kind] = {
    "drop": _Kind(Scope.MESSAGE, "the message is not sent: a true gap", venues=_ALL),
    "dup": _Kind(Scope.MESSAGE, "the message is sent twice", venues=_ALL),
    "reorder": _Kind(Scope.MESSAGE, "the message is sent after the next one"),
    "garbage": _Kind(
        Scope.MESSAGE,
        "a frame that is not JSON, instead of the message or before it (mode=instead, before)",
        {"mode": "instead"},
        choices={"mode": ("instead", "before")},
        venues=_ALL,
    ),
    "truncate": _Kind(Scope.MESSAGE, "the frame is cut in half", venues=_ALL),
    "nan": _Kind(
        Scope.MESSAGE,
        "value= stands for the first level's price (field=price) or quantity (field=quantity)",
        {"value": "NaN", "field": "price"},
        choices={"field": ("price", "quantity")},
        venues=_ALL,
    ),
    "badid": _Kind(
        Scope.MESSAGE,
        "the message carries a bad u: kind=order (U > u), " + ", ".join(_IDS[1:]),
        {"kind": "order"},
        choices={"kind": _IDS},
    ),
    "dup-level": _Kind(
        Scope.MESSAGE, "the first level stands twice, first with a wrong quantity; the last is true"
    ),
    "crossed": _Kind(
        Scope.MESSAGE,
        "a bid deep among the asks; withdrawn after seconds= (0: never)",
        {"seconds": 0.0},
    ),
    "empty": _Kind(
        Scope.MESSAGE,
        "all levels of side= (both, bids, asks) are deleted; back after seconds= (0: never)",
        {"side": "both", "seconds": 2.0},
        choices={"side": ("both", "bids", "asks")},
    ),
    "silence": _Kind(
        Scope.MESSAGE,
        "from this message on none of the symbol for seconds=; lost (mode=lose) or sent afterwards"
        " (mode=hold)",
        {"seconds": 30.0, "mode": "lose"},
        choices={"mode": ("lose", "hold")},
        venues=_ALL,
    ),
    "halt": _Kind(
        Scope.MESSAGE,
        "the symbol is said to be halted and falls silent, for seconds= (0: for good)",
        {"seconds": 0.0},
        venues=_ALL,
    ),
    "close": _Kind(
        Scope.CONNECTION, "after the message its connections are closed, code 1001", venues=_ALL
    ),
    "abort": _Kind(
        Scope.CONNECTION, "instead of the message its connections are reset", venues=_ALL
    ),
    "black-hole": _Kind(
        Scope.CONNECTION,
        "from this message on its connections stay open and nothing moves: no data, ping or pong",
        venues=_ALL,
    ),
    "slices": _Kind(
        Scope.CONNECTION,
        "from this message on frames go out in TCP writes of size= bytes",
        {"size": 1},
        count=_FOREVER,
    ),
    "big": _Kind(
        Scope.CONNECTION,
        "before the message a frame of size= bytes, an event of an unknown type",
        {"size": 1_200_000},
    ),
    "unknown-event": _Kind(
        Scope.CONNECTION, "before the message an event of an unknown type", venues=_ALL
    ),
    "stray": _Kind(
        Scope.CONNECTION, "before the message a depth event of an unsubscribed symbol", venues=_ALL
    ),
    "shutdown": _Kind(
        Scope.CONNECTION,
        "serverShutdown on every connection of the venue, which closes them after seconds=",
        {"seconds": 5.0},
    ),
    "429": _Kind(
        Scope.REST, "too many requests: all of REST answers 429 for retry= seconds", {"retry": 2}
    ),
    "418": _Kind(Scope.REST, "banned: all of REST answers 418 for retry= seconds", {"retry": 5}),
    "403": _Kind(Scope.REST, "refused by the firewall, HTML body"),
    "451": _Kind(Scope.REST, "refused for the place of the caller"),
    "500": _Kind(Scope.REST, "internal error"),
    "html": _Kind(Scope.REST, "an HTML page with status= instead of a book", {"status": 200}),
    "slow-rest": _Kind(Scope.REST, "the answer comes after seconds=", {"seconds": 5.0}),
    "old-snapshot": _Kind(
        Scope.REST, "the answer's lastUpdateId lies before all that the stream carried"
    ),
    "ack-error": _Kind(Scope.SUBSCRIBE, "the request is refused", venues=_ALL),
    "checksum": _Kind(Scope.MESSAGE, "the message carries a wrong checksum", venues=_KRAKEN),
    "no-checksum": _Kind(
        Scope.MESSAGE,
        "the message carries no checksum (kind=absent) or 0 for one (kind=zero)",
        {"kind": "zero"},
        choices={"kind": ("zero", "absent")},
        venues=_KRAKEN,
    ),
    "maintenance": _Kind(
        Scope.CONNECTION,
        "the venue says that it is in maintenance, for seconds=",
        {"seconds": 5.0},
        venues=_KRAKEN,
    ),
    "msg-rate": _Kind(
        Scope.SUBSCRIBE, "the request is one too many", venues=("kraken", "coinbase")
    ),
    "error": _Kind(
        Scope.CONNECTION,
        "before the message an error that nobody asked for, with message= as its words",
        {"message": "internal error"},
        venues=("coinbase",),
    ),
    "accept-close": _Kind(Scope.ACCEPT, "the connection is accepted and closed", venues=_ALL),
}

FAULTS: dict[str, str] = {
    name: f"{kind.help} (N: {kind.scope.value}; {', '.join(kind.venues)})"
    for name, kind in _KINDS.items()
}
"""Name of each fault to one line of help.

Each takes ``symbol=`` (only that symbol), ``count=`` (that many in a row) and ``every=`` (again
after each further that many).
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as asked for.

    Attributes:
        name: A key of ``FAULTS``.
        at: When it first strikes, 1-based, counted by its scope.
        count: How many in a row it strikes.
        every: Distance between repetitions; 0: none.
        symbol: The only symbol it concerns; empty: any.
        values: Its own keys, defaults filled in.
    """

    name: str
    at: int
    count: int
    every: int
    symbol: str
    values: Mapping[str, Value]

    @property
    def scope(self) -> Scope:
        """What ``at`` counts."""
        return _KINDS[self.name].scope

    def strikes(self, n: int) -> bool:
        """Tell whether the fault strikes at the Nth."""
        past = n - self.at
        if past < 0:
            return False
        return (past % self.every if self.every else past) < self.count

    def number(self, key: str) -> float:
        """Return one of its keys as a number."""
        return float(self.values[key])

    def text(self, key: str) -> str:
        """Return one of its keys as text."""
        return str(self.values[key])


def parse_fault(text: str, venue: str = "") -> Fault:
    """Read ``NAME[@N][:key=value,…]``.

    Args:
        text: What was asked for.
        venue: Where it shall strike; empty: anywhere.

    Raises:
        ValueError: The name, the N, a key or a value is not known; the message says which are.
    """
    head, _, tail = text.partition(":")
    name, at_sign, number = head.partition("@")
    kind = _KINDS.get(name)
    here = [name for name, kind in _KINDS.items() if not venue or venue in kind.venues]
    if kind is None or name not in here:
        close = difflib.get_close_matches(name, here, n=1)
        mend = f"did you mean {close[0]!r}?" if close else "choose from " + ", ".join(here)
        where = f" of {venue}" if kind is not None else ""
        raise ValueError(f"{text!r}: no fault {name!r}{where}: {mend}")
    at = _integer(text, "N", number) if at_sign else 1
    common: dict[str, Value] = {"count": kind.count, "every": 0, "symbol": ""}
    values: dict[str, Value] = {**common, **kind.defaults}
    for part in filter(None, tail.split(",")):
        key, equals, raw = part.partition("=")
        if not equals or key not in values:
            known = ", ".join(values)
            raise ValueError(f"{text!r}: no key {key!r}: {name} takes {known}, as key=value")
        values[key] = _value(text, key, raw, values[key])
        choices = kind.choices.get(key)
        if choices and raw not in choices:
            raise ValueError(f"{text!r}: {key} = {raw!r}: give one of {', '.join(choices)}")
    count, every, symbol = (values.pop(key) for key in common)
    return Fault(
        name=name,
        at=at,
        count=int(count),
        every=int(every),
        symbol=str(symbol).upper(),
        values=MappingProxyType(values),
    )


def _integer(text: str, key: str, raw: str) -> int:
    if not (raw.isascii() and raw.isdigit()) or int(raw) < 1:
        raise ValueError(f"{text!r}: {key} = {raw!r}: give a whole number from 1 on")
    return int(raw)


def _value(text: str, key: str, raw: str, default: Value) -> Value:
    if isinstance(default, str):
        return raw
    if isinstance(default, int):
        return _integer(text, key, raw)
    try:
        number = float(raw)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError(f"{text!r}: {key} = {raw!r}: give seconds from 0 on")
    return number


@dataclass(slots=True)
class _Armed:
    fault: Fault
    start: Counter[tuple[Scope, str]]
    struck: int = 0
    bound: str = ""


class FaultPlan:
    """Counts what happens and says which faults are due."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Scope, str]] = Counter()
        self._armed: list[_Armed] = []

    def arm(self, fault: Fault) -> None:
        """Have a fault strike; its N counts from now."""
        self._armed.append(_Armed(fault, Counter(self._counts)))

    def disarm(self, name: str) -> None:
        """Have every fault of this name strike no more."""
        self._armed = [armed for armed in self._armed if armed.fault.name != name]

    def due(self, scope: Scope, key: str = "", symbol: str = "") -> list[tuple[Fault, bool]]:
        """Count one more of ``scope`` under ``key`` and return what strikes now.

        Returns:
            Each fault, and whether this is its first strike.
        """
        self._counts[scope, key] += 1
        if scope is Scope.REST:
            self._counts[scope, symbol] += 1
        if not self._armed:
            return []
        return [
            (armed.fault, armed.struck == 1)
            for armed in self._armed
            if armed.fault.scope is scope and self._strikes(armed, scope, key, symbol)
        ]

    def _strikes(self, armed: _Armed, scope: Scope, key: str, symbol: str) -> bool:
        if armed.fault.symbol:
            if armed.fault.symbol != symbol:
                return False
            if scope is Scope.REST:
                key = symbol
        if armed.bound and armed.bound != key:
            return False
        if not armed.fault.strikes(self._counts[scope, key] - armed.start[scope, key]):
            return False
        if scope is Scope.CONNECTION:
            armed.bound = key
        armed.struck += 1
        return True
