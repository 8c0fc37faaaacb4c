"""Streams of parsed operations, as the C program reads them, and what the core makes of them."""

from __future__ import annotations

import json
import math
import random
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))

from streams import Feed, make_synthetic, make_traps, read_capture  # noqa: E402

from obframe._core import OrderBook, parse_depth_snapshot, parse_depth_update  # noqa: E402

__all__ = [
    "Feed",
    "follow_core",
    "make_odd",
    "make_sized",
    "make_synthetic",
    "make_traps",
    "read_capture",
    "write_operations",
]

MAGIC = 0x31304B4F4F42464F
SCALE = 8
CHANGE = struct.Struct("<QQIHxx")
LEVEL = struct.Struct("<QQIH")
LEVELS = 5_000
SYMBOL = "BTCUSDT"

Level = Sequence[str]


@dataclass(frozen=True)
class Message:
    """A message's changes."""

    bids: list[Level]
    asks: list[Level]


def split_decimals(level: Level) -> tuple[int, int, int, int]:
    """Return price at 1e-8, the quantity's low and high bits, and the form, as the core keeps them.

    Raises:
        ValueError: A price with more than eight decimals.
    """
    price, quantity = level
    whole, _, decimals = price.partition(".")
    if len(decimals) > SCALE:
        raise ValueError(f"a price with more than {SCALE} decimals: {price}")
    quantity_whole, _, quantity_decimals = quantity.partition(".")
    mantissa = int(quantity_whole + quantity_decimals)
    form = len(decimals) | len(quantity_decimals) << 5 | mantissa >> 96 << 10
    low, high = mantissa & (2**64 - 1), mantissa >> 64 & (2**32 - 1)
    return int(whole + decimals.ljust(SCALE, "0")), low, high, form


def read_levels(feed: Feed) -> tuple[Message, list[Message]]:
    """Return the snapshot and the messages of a feed."""
    snapshot = json.loads(feed.snapshot)
    events = [json.loads(message)["data"] for message in feed.messages]
    return (
        Message(snapshot["bids"], snapshot["asks"]),
        [Message(event["b"], event["a"]) for event in events],
    )


def write_operations(feed: Feed, path: Path) -> None:
    """Write a feed as operations; the tick is what divides all prices of the snapshot."""
    snapshot, messages = read_levels(feed)
    tick = math.gcd(*(split_decimals(level)[0] for level in (*snapshot.bids, *snapshot.asks)))
    with path.open("wb") as file:
        counts = (len(snapshot.bids), len(snapshot.asks), len(messages))
        file.write(struct.pack("<5Q", MAGIC, tick, *counts))
        for level in (*snapshot.bids, *snapshot.asks):
            file.write(CHANGE.pack(*split_decimals(level)))
        for message in messages:
            file.write(struct.pack("<2I", len(message.bids), len(message.asks)))
            for level in (*message.bids, *message.asks):
                file.write(CHANGE.pack(*split_decimals(level)))


def follow_core(feed: Feed, every: int) -> Iterator[bytes]:
    """Yield the core's levels after every so many messages, in the form the C program writes.

    Raises:
        ValueError: A message is no event.
    """
    book = OrderBook(SYMBOL)
    book.load(parse_depth_snapshot(feed.snapshot, SYMBOL))
    last = len(feed.messages)
    for number in range(last + 1):
        if number % every == 0 or number == last:
            yield pack_side(book.bids(), 0) + pack_side(book.asks(), 2**64 - 1)
        if number < last:
            update = parse_depth_update(feed.messages[number], futures=feed.futures)
            if update is None:
                raise ValueError(f"message {number} of {feed.name} is no event")
            book.apply(update)


def pack_side(levels: Sequence[Level], flip: int) -> bytes:
    """Return levels, best first, in the form that the C program writes."""
    packed = [struct.pack("<Q", len(levels))]
    for level in levels:
        price, low, high, form = split_decimals(level)
        packed.append(LEVEL.pack(price ^ flip, low, high, form))
    return b"".join(packed)


def make_sized(name: str, gaps: Sequence[int], messages: int = 0, seed: int = 5) -> Feed:
    """Make a book of 5,000 levels a side, and messages that replace 40 of them each.

    Args:
        name: The feed's name.
        gaps: Distances of prices, in ticks of 0.01, to draw from.
        messages: How many; each deletes 20 levels and makes as many new ones.
        seed: Of what is drawn.
    """
    rng = random.Random(seed)
    middle = 60_000_000
    held: list[list[int]] = []
    for sign in (-1, 1):
        ticks = [middle + sign]
        while len(ticks) < LEVELS:
            ticks.append(ticks[-1] + sign * rng.choice(gaps))
        held.append(ticks)
    sides = [[[write_ticks(tick), "1.00000000"] for tick in ticks] for ticks in held]
    snapshot = {"lastUpdateId": 0, "bids": sides[0], "asks": sides[1]}
    texts = []
    for number in range(1, messages + 1):
        changes: list[list[Level]] = []
        for sign, ticks in zip((-1, 1), held, strict=True):
            side: list[Level] = []
            span = abs(ticks[-1] - middle)
            known = set(ticks)
            for at in rng.sample(range(LEVELS), 20):
                fresh = middle + sign * rng.randint(1, span)
                if fresh in known:
                    continue
                side += [[write_ticks(ticks[at]), "0.00000000"], [write_ticks(fresh), "2.00000000"]]
                known.discard(ticks[at])
                known.add(fresh)
                ticks[at] = fresh
            changes.append(side)
        event = {"e": "depthUpdate", "E": 1_723_161_255_208, "s": SYMBOL, "U": number, "u": number}
        event |= {"b": changes[0], "a": changes[1]}
        texts.append(json.dumps({"stream": "btcusdt@depth", "data": event}).encode())
    return Feed(name, name, json.dumps(snapshot).encode(), tuple(texts), 0)


def make_odd(messages: int = 400, seed: int = 7) -> Feed:
    """Make a stream of what structures get wrong: few prices, so that levels come and go.

    A side empties and fills again, the tick turns out to be finer than it was, and some quantities
    need more than 64 bits.
    """
    rng = random.Random(seed)
    sizes = ("1.00000000", "0.50", "7", "18446744073709551616.00000001", "36893488147419103232")
    middle = 6_000_000
    sides = [[[write_ticks(middle + sign * 5 * n), "1"] for n in range(1, 200)] for sign in (-1, 1)]
    snapshot = {"lastUpdateId": 0, "bids": sides[0], "asks": sides[1]}
    texts = []
    for number in range(1, messages + 1):
        deletes = 0.95 if number % 100 > 80 else 0.45
        step = 5 if number < messages // 2 else 1
        changes = []
        for sign in (-1, 1):
            count = rng.choice((0, 1, 5, 40, 200))
            ticks = rng.sample(range(1, 3_000), count)
            if number % 100 == 99:
                ticks = list(range(1, 3_000))
            side = [
                [
                    write_ticks(middle + sign * tick * step),
                    "0" if rng.random() < deletes or number % 100 == 99 else rng.choice(sizes),
                ]
                for tick in ticks
            ]
            changes.append(side)
        event = {"e": "depthUpdate", "E": 1_723_161_255_208, "s": SYMBOL, "U": number, "u": number}
        event |= {"b": changes[0], "a": changes[1]}
        texts.append(json.dumps({"stream": "btcusdt@depth", "data": event}).encode())
    return Feed("odd", "what structures get wrong", json.dumps(snapshot).encode(), tuple(texts), 0)


def write_ticks(tick: int) -> str:
    """Return a price of so many hundredths as text."""
    return f"{tick // 100}.{tick % 100:02d}000000"
