"""The venue's memory of what truly happened, as capture files that an oracle can replay."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from urllib.parse import quote

from obframe.testing.exchange_market import Event


class Journal:
    """Writes every depth event and served snapshot into one capture file a symbol.

    Lines gather in memory; each ``flush`` appends them as one whole gzip member in one write, so
    that a killed process leaves files that any gzip reader takes without complaint.

    Args:
        directory: Made when missing.

    Raises:
        ValueError: The directory holds journals already; their ids would not go with new ones.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.glob("*.gz")):
            raise ValueError(
                f"exchange record = {str(directory)!r}: holds *.gz files already: "
                "give a new directory, since this run's update ids do not continue theirs"
            )
        self.directory = directory
        self._lines: dict[str, list[bytes]] = {}

    def path(self, symbol: str) -> Path:
        """Return the file of the symbol; it appears with the first flush that has something."""
        return self.directory / f"{quote(symbol.lower(), safe='')}.gz"

    def event(self, event: Event) -> None:
        """Note a depth event."""
        stream = event.stream.encode()
        self._note(event.symbol, b'{"stream":"' + stream + b'","data":' + event.data + b"}")

    def snapshot(self, symbol: str, body: bytes) -> None:
        """Note a snapshot as REST served it."""
        self._note(symbol, body)

    def flush(self) -> None:
        """Write what gathered since the last flush."""
        gathered, self._lines = self._lines, {}
        for symbol, lines in gathered.items():
            with self.path(symbol).open("ab", buffering=0) as file:
                file.write(gzip.compress(b"".join(lines), compresslevel=1))

    def _note(self, symbol: str, message: bytes) -> None:
        line = b"%d %s\n" % (time.time_ns(), message)
        self._lines.setdefault(symbol, []).append(line)
