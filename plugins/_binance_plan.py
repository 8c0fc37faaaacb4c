"""How streams are asked for, without I/O and without a clock of its own: batches and retries."""

from __future__ import annotations

from collections.abc import Sequence

MOST_COMMAND_BYTES = 4000
"""Length of the stream names in one control message, well below what servers cut off at."""


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
