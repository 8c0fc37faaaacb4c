"""Planning without I/O and without a clock of its own: limits in time, delays, batches."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

MOST_COMMAND_BYTES = 4000
"""Length of the stream names in one control message, well below what servers cut off at."""


class RollingLimit:
    """Allow at most so much in any stretch of time of a given length.

    Args:
        limit: Units allowed.
        period: Length of the stretch, in seconds.
    """

    def __init__(self, limit: int, period: float) -> None:
        self.limit = limit
        self.period = period
        self._spent: deque[tuple[float, int]] = deque()
        self._total = 0
        self._foreign = 0
        self._foreign_until = 0.0

    def spend(self, cost: int, now: float) -> None:
        """Note that ``cost`` units are spent at ``now``."""
        self._spent.append((now, cost))
        self._total += cost

    def report(self, used: int, now: float, until: float) -> None:
        """Take the venue's word that ``used`` units count against this address until ``until``.

        What others behind the same address spent is in it and narrows what is left for us.
        """
        self._expire(now)
        self._foreign = max(0, used - self._total)
        self._foreign_until = until

    def delay(self, cost: int, now: float) -> float:
        """Return the seconds until ``cost`` units may be spent; 0 for at once."""
        self._expire(now)
        frees = [(at + self.period, units) for at, units in self._spent]
        if self._foreign_until > now:
            frees.append((self._foreign_until, self._foreign))
        used = sum(units for _, units in frees)
        if used + cost <= self.limit:
            return 0.0
        for moment, units in sorted(frees):
            used -= units
            if used + cost <= self.limit:
                return moment - now
        return self.period

    def wait_for_all(self, total: int, now: float) -> float:
        """Estimate the seconds until ``total`` units, maybe more than fit at once, are spent."""
        self._expire(now)
        foreign = self._foreign if self._foreign_until > now else 0
        left = total - max(0, self.limit - self._total - foreign)
        return max(0.0, left / self.limit * self.period)

    def _expire(self, now: float) -> None:
        while self._spent and self._spent[0][0] + self.period <= now:
            self._total -= self._spent.popleft()[1]


class Backoff:
    """Exponential delays with full jitter: anything between nothing and a growing bound.

    Args:
        most: Upper bound, in seconds.
        rng: Source of the jitter.
        first: Bound of the first delay.
    """

    def __init__(self, most: float, rng: random.Random, first: float = 0.5) -> None:
        self._most = most
        self._first = min(first, most)
        self._random = rng
        self._failures = 0

    def next(self) -> float:
        """Return the delay in seconds before the next attempt, and expect that it may fail."""
        bound = min(self._most, self._first * 2 ** min(self._failures, 32))
        self._failures += 1
        return self._random.uniform(0.0, bound)

    def reset(self) -> None:
        """Forget the failures."""
        self._failures = 0


class Tuning:
    """How one shard subscribes: learnt from refusals, kept from connection to connection.

    A venue that cuts the connection instead of answering does not say which stream it minds: the
    streams of the message it cut us off at become suspects, and are asked for last and by halves.

    Args:
        interval: Seconds between two control messages.
        retry: Seconds until a stream that was refused is asked for again.
    """

    MOST_NAMES = 200

    def __init__(self, interval: float, retry: float) -> None:
        self._first_interval = interval
        self._retry = retry
        self.interval = interval
        self.suspects: set[str] = set()
        self.refused: dict[str, float] = {}

    def batch(self, missing: Sequence[str], now: float) -> list[str]:
        """Return the streams to ask for next, out of those that are missing."""
        asked = [name for name in missing if self.refused.get(name, now) <= now]
        clean = [name for name in asked if name not in self.suspects]
        if clean:
            return fit(clean, self.MOST_NAMES)
        return fit(asked, max(1, len(asked) // 2))

    def accept(self, names: Sequence[str]) -> None:
        """Note that the venue took these streams."""
        self.suspects.difference_update(names)
        for name in names:
            self.refused.pop(name, None)

    def refuse(self, name: str, now: float) -> None:
        """Note that the venue refused this stream, and leave it alone for a while."""
        self.suspects.discard(name)
        self.refused[name] = now + self._retry

    def cut_off(self, names: Sequence[str]) -> None:
        """Note that the venue closed the connection when it was asked for these streams."""
        self.interval = min(2.0, self.interval * 2)
        self.suspects = set(names) or self.suspects

    def next_retry(self) -> float | None:
        """Return when a refused stream is to be asked for again."""
        return min(self.refused.values(), default=None)

    def reset(self) -> None:
        """Forget what was learnt about pace."""
        self.interval = self._first_interval


def fit(names: Sequence[str], most: int) -> list[str]:
    """Return the first names that fit into one control message."""
    taken: list[str] = []
    size = 0
    for name in names[:most]:
        size += len(name.encode()) + 3
        if taken and size > MOST_COMMAND_BYTES:
            break
        taken.append(name)
    return taken
