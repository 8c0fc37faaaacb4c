"""Which rows are known to be at the other end of a sink."""

from __future__ import annotations

from bisect import bisect_right


class Delivered:
    """Seconds by symbol, kept as runs: a symbol without holes takes two numbers."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[list[int], list[int]]] = {}

    def add(self, symbol: str, second: int) -> None:
        """Remember one row; again changes nothing."""
        starts, ends = self._runs.setdefault(symbol, ([], []))
        after = bisect_right(starts, second)
        if after and second <= ends[after - 1]:
            return
        extends = after > 0 and ends[after - 1] == second - 1
        touches = after < len(starts) and starts[after] == second + 1
        if extends and touches:
            ends[after - 1] = ends.pop(after)
            del starts[after]
        elif extends:
            ends[after - 1] = second
        elif touches:
            starts[after] = second
        else:
            starts.insert(after, second)
            ends.insert(after, second)

    def has(self, symbol: str, second: int) -> bool:
        """Tell whether the row is known to be there."""
        runs = self._runs.get(symbol)
        if runs is None:
            return False
        starts, ends = runs
        after = bisect_right(starts, second)
        return after > 0 and second <= ends[after - 1]

    def __len__(self) -> int:
        return sum(
            end - start + 1
            for starts, ends in self._runs.values()
            for start, end in zip(starts, ends, strict=True)
        )
