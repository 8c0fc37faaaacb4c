"""A histogram of durations: constant memory, cheap to add to."""

from __future__ import annotations

_SUB_BITS = 4
_BUCKETS = 64 << _SUB_BITS


class Histogram:
    """Counts non-negative integers in buckets of at most 1/16 relative width.

    Values are nanoseconds wherever obframe uses it.
    """

    __slots__ = ("_counts", "count", "maximum")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.maximum = 0

    def add(self, value: int) -> None:
        """Count one value; a negative one counts as 0."""
        value = max(value, 0)
        shift = max(value.bit_length() - _SUB_BITS - 1, 0)
        self._counts[min((shift << _SUB_BITS) + (value >> shift), _BUCKETS - 1)] += 1
        self.count += 1
        self.maximum = max(self.maximum, value)

    def quantile(self, q: float) -> int:
        """Return the upper bound of the bucket that holds the q-quantile, 0 when nothing was added.

        Args:
            q: Between 0 and 1, such as 0.99.
        """
        rank = q * self.count
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                shift = max((index >> _SUB_BITS) - 1, 0)
                return min(((index - (shift << _SUB_BITS) + 1) << shift) - 1, self.maximum)
        return 0
