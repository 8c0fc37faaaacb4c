"""Prints what block sizes and levels of compression cost: bytes of a row, writing, reading.

``python benchmarks/blocks.py`` takes the captures' rows, one a second, as long as they last and
then once more under later seconds, flushed and compacted; see docs/decisions/0009.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench_storage import T, _captured_rows, _stored_bytes

from obframe import MAX_TIMESTAMP, MIN_TIMESTAMP, Record
from obframe_plugins import _rocks
from obframe_plugins.rocksdb import RocksSettings, RocksStorage

ROWS = 14_400
BLOCKS = (4096, 16384, 65536)
LEVELS = (1, 3, 9)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")


class _NoGate:
    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}


def measure(values: list[bytes], block: int, level: int) -> tuple[float, float, float]:
    """Return bytes a row, microseconds to write and compact one, milliseconds to scan an hour."""
    _rocks.BLOCK_SIZE = block
    with tempfile.TemporaryDirectory() as folder:
        settings = RocksSettings(f"{folder}/rows", "process", level)
        storage = RocksStorage.open(settings)
        begun = time.process_time()
        for start in range(0, ROWS, 60):
            storage.append(
                [
                    Record(symbol, T + at, values[at % len(values)])
                    for at in range(start, start + 60)
                    for symbol in SYMBOLS
                ]
            )
        storage.flush()
        storage.read(lambda database: database.compact())
        written = (time.process_time() - begun) / ROWS / len(SYMBOLS) * 1e6
        size = _stored_bytes(Path(folder, "rows")) / ROWS / len(SYMBOLS)
        storage.close()
        storage = RocksStorage.open(settings)
        begun = time.perf_counter()
        count = sum(len(batch.values) for batch in storage.scan_batches("ETHUSDT", T, T + 3599))
        read = (time.perf_counter() - begun) * 1e3
        assert count == 3600
        assert storage.latest("ETHUSDT") == next(
            iter(storage.scan("ETHUSDT", T + ROWS - 1, MAX_TIMESTAMP))
        )
        assert MIN_TIMESTAMP < T
        storage.close()
        return size, written, read


def main() -> None:
    """Measure both markets and print a table in Markdown."""
    print(
        "| block | level | "
        + " | ".join(f"{market}: B a row | write, us | an hour, ms" for market in ("spot", "usdm"))
        + " |"
    )
    print("| ---: " * 8 + "|")
    rows = [_captured_rows(_NoGate(), market) for market in ("spot", "usdm")]
    for block in BLOCKS:
        for level in LEVELS:
            figures = [measure(values, block, level) for values in rows]
            cells = " | ".join(f"{a:.0f} | {b:.1f} | {c:.1f}" for a, b, c in figures)
            print(f"| {block // 1024} kB | {level} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
