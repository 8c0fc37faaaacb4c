"""A seeded stream of depth events: about 28 changes a message, a third of them deletes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

Level = tuple[str, str]

LEVELS = 4_800
CHANGES = 27.6
DELETES = 0.33


@dataclass(frozen=True)
class Stream:
    """A snapshot and the events after it.

    Attributes:
        bids: The snapshot's bids, best first.
        asks: The snapshot's asks, best first.
        messages: Raw events as the venue would send them, contiguous from update id 1.
        changes: Level changes in all messages.
    """

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    messages: tuple[bytes, ...]
    changes: int


@cache
def make_stream(
    count: int = 2_000,
    seed: int = 20_240_808,
    *,
    levels: int = LEVELS,
    changes: float = CHANGES,
) -> Stream:
    """Make a stream that is the same for the same arguments.

    Args:
        count: Messages.
        seed: Of all that is drawn.
        levels: Of each side of the snapshot.
        changes: Levels changed by a message, on average.

    Half of the changes lie within some 15 levels of the touch, a few thousands away. The touch
    itself does not move: every message leaves the book about as deep as it was.
    """
    rng = random.Random(seed)
    middle = 6_183_763  # ticks of 0.01
    held: list[dict[int, str]] = []
    for sign in (-1, 1):
        ticks: set[int] = set()
        at = middle
        while len(ticks) < levels:
            at += sign * rng.choice((1, 1, 1, 2, 3, 8))
            ticks.add(at)
        held.append({tick: _draw_quantity(rng) for tick in sorted(ticks, key=lambda t: t * sign)})
    bids, asks = (tuple((_write(tick), size) for tick, size in side.items()) for side in held)
    messages = []
    changed = 0
    for update_id in range(1, count + 1):
        sides = []
        for sign, side in zip((-1, 1), held, strict=True):
            change_count = min(round(15 * changes), round(rng.expovariate(2 / changes)))
            drawn = [_draw_change(rng, sign, middle, side) for _ in range(change_count)]
            drawn.sort(key=lambda level: float(level[0]), reverse=sign < 0)
            sides.append(drawn)
            changed += len(drawn)
        messages.append(_write_message(update_id, *sides))
    return Stream(bids, asks, tuple(messages), changed)


def _draw_change(rng: random.Random, sign: int, middle: int, side: dict[int, str]) -> Level:
    distance = max(1, min(20_000, int(rng.lognormvariate(3.6, 2.2))))
    tick = middle + sign * distance
    if rng.random() < DELETES:
        while tick not in side and distance > 1:
            distance -= 1
            tick = middle + sign * distance
        side.pop(tick, None)
        return _write(tick), "0.00000000"
    side[tick] = _draw_quantity(rng)
    return _write(tick), side[tick]


def _draw_quantity(rng: random.Random) -> str:
    return f"{rng.lognormvariate(-2, 2) + 1e-5:.5f}000"


def _write(tick: int) -> str:
    return f"{tick // 100}.{tick % 100:02d}000000"


def _write_message(update_id: int, bids: list[Level], asks: list[Level]) -> bytes:
    texts = [",".join(f'["{price}","{size}"]' for price, size in side) for side in (bids, asks)]
    return (
        '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255208,'
        f'"s":"BTCUSDT","U":{update_id},"u":{update_id},"b":[{texts[0]}],"a":[{texts[1]}]}}}}'
    ).encode()
