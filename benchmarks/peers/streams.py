"""The messages that every peer gets: synthetic, captured, and a short one full of traps."""

from __future__ import annotations

import gzip
import json
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from data import make_stream  # noqa: E402  (the benchmarks are no package)

ROOT = HERE.parent.parent


@dataclass(frozen=True)
class Feed:
    """One instrument's snapshot and the depth messages after it, as a venue sends them.

    Attributes:
        name: A short name.
        title: What it is.
        snapshot: The REST answer.
        messages: Raw messages of a combined stream, contiguous.
        changes: Level changes in all messages.
        futures: Whether the messages are those of a futures market.
        price_decimals: Decimals that prices are written with.
        quantity_decimals: Decimals that quantities are written with.
        step: The distance of prices.
    """

    name: str
    title: str
    snapshot: bytes
    messages: tuple[bytes, ...]
    changes: int = field(repr=False)
    futures: bool = False
    price_decimals: int = 8
    quantity_decimals: int = 8
    step: float = 0.01

    def cut(self, count: int) -> Feed:
        """Return the same feed with the first messages only."""
        messages = self.messages[:count]
        changes = sum(map(_count_changes, messages))
        return Feed(**{**self.__dict__, "messages": messages, "changes": changes})


def _count_changes(message: bytes) -> int:
    return message.count(b'["')


def make_synthetic(count: int, seed: int = 20_240_808) -> Feed:
    """Make the seeded synthetic stream: 4,800 levels a side, about 28 changes a message."""
    stream = make_stream.__wrapped__(count, seed)
    sides = {"lastUpdateId": 0, "bids": stream.bids, "asks": stream.asks}
    snapshot = json.dumps(sides, separators=(",", ":")).encode()
    return Feed("syn", "seeded synthetic stream", snapshot, stream.messages, stream.changes)


def captures_folder() -> Path:
    """Return where captures lie, if there are any."""
    setting = os.environ.get("OBFRAME_CAPTURES")
    return Path(setting) if setting else ROOT.parent / "shared" / "captures"


def read_capture(market: str, count: int) -> Feed:
    """Read a captured stream of BTCUSDT.

    Args:
        market: ``spot`` or ``usdm``.
        count: Messages at most.

    Raises:
        FileNotFoundError: The capture is not there.
    """
    path = captures_folder() / market / "btcusdt_20240808.gz"
    if not path.exists():
        raise FileNotFoundError("no captures: OBFRAME_CAPTURES names their folder")
    snapshot = b""
    after = 0
    numbered: list[tuple[int, bytes]] = []
    with gzip.open(path, "rb") as lines:
        for line in lines:
            message = line.partition(b" ")[2].strip()
            if not snapshot and b'"lastUpdateId"' in message:
                snapshot = message
                after = json.loads(message)["lastUpdateId"]
                # A futures event that ends exactly at the snapshot's id still counts. What spans
                # the id came before the answer.
                after -= market == "usdm"
                numbered = [each for each in numbered if each[0] > after]
            elif b'"depthUpdate"' in message:
                numbered.append((json.loads(message)["data"]["u"], message))
            if snapshot and len(numbered) >= count:
                break
    messages = [message for number, message in numbered if number > after]
    futures = market == "usdm"
    decimals = (2, 3) if futures else (8, 8)
    changes = sum(map(_count_changes, messages))
    return Feed(
        market,
        f"BTCUSDT, {market}, as captured on 2024-08-08",
        snapshot,
        tuple(messages),
        changes,
        futures,
        *decimals,
        step=0.1 if futures else 0.01,
    )


@cache
def make_traps() -> Feed:
    """Make a stream of what books get wrong.

    The price climbs over 100,000, where texts no longer sort as numbers; a zero is written in three
    ways; levels are deleted that were never there; one side of a message is empty.
    """
    price = 99_900.0
    bids = [(f"{price - n / 2:.2f}", f"{1 + n % 7}.500") for n in range(1, 1_200)]
    asks = [(f"{price + n / 2:.2f}", f"{1 + n % 5}.250") for n in range(1, 1_200)]
    messages = []
    for number in range(1, 400):
        touch = price + number / 2  # this ask goes, and becomes the best bid
        zero = ("0.000", "0", "0.00000000")[number % 3]
        gone = [[f"{touch:.2f}", zero]]
        come = [] if number % 10 == 0 else [[f"{touch:.2f}", f"{number % 9 + 1}.125"]]
        come += [[f"{touch - 20:.2f}", zero], ["1.00", zero]]
        event = {"e": "depthUpdate", "E": 1_723_161_255_208, "s": "BTCUSDT", "T": 1_723_161_255_200}
        event |= {"U": number, "u": number, "pu": number - 1, "b": come, "a": gone}
        message = {"stream": "btcusdt@depth@0ms", "data": event}
        messages.append(json.dumps(message, separators=(",", ":")).encode())
    snapshot = {"lastUpdateId": 0, "bids": bids, "asks": asks}
    return Feed(
        "traps",
        "what books get wrong",
        json.dumps(snapshot, separators=(",", ":")).encode(),
        tuple(messages),
        sum(map(_count_changes, messages)),
        True,
        2,
        3,
        step=0.5,
    )


def make_many(books: int, count: int) -> list[Feed]:
    """Make a synthetic stream for each of many books, all different."""
    return [make_synthetic(count, seed) for seed in range(1, books + 1)]
