"""Limits in time and delays between attempts, without I/O and without a clock of their own."""

from __future__ import annotations

import random
from collections import deque


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
