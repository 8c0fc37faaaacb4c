"""Files of rows that are appended to, finished, and never hold a row twice.

A file that grows is ``NAME.jsonl.part``; every line in it is whole and on the disk once ``append``
has returned. It is finished by a rename, or by compression beside it and a rename, so that a name
without ``.part`` always stands for a whole file. Within one file seconds never fall: what comes
late begins another of the same name, with a number.

After a crash the end of a grown file is read back: what is torn is cut off, what is there already
is not written again. All of it blocks.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final

from obframe import Snapshot
from obframe_plugins._row_lines import LineFormat
from obframe_plugins._row_paths import PathTemplate

log = logging.getLogger("obframe.files")

_PART: Final = ".part"
_TEMPORARY: Final = ".tmp"
_TAIL: Final = 16 * 2**20
"""Bytes at the end of a grown file that are looked at again: more than one call writes."""
_BLOCK: Final = 2**20
_HELD_AT_MOST: Final = 500_000
"""Rows that are remembered between two calls while rows come again."""
_FINISH_AGAIN: Final = 60.0


@dataclass(slots=True)
class _Growing:
    """What is known of the newest file of a name.

    Attributes:
        number: Which file of the name it is, from 1 on.
        size: Its bytes.
        last: The second of its last line, 0 when it has none.
        newest: No file of the name has a second after it; None: not looked at yet.
        held: The rows that files of the name have from a second on, while rows come again.
    """

    number: int
    size: int
    last: int
    newest: int | None
    held: tuple[int, set[tuple[str, int]]] | None = None


class RowFiles:
    """The files of one template.

    Args:
        paths: Gives names.
        lines: Gives lines.
        max_bytes: Uncompressed size at which another file of the same name begins; 0 for none.
        compress: Whether finished files are compressed with gzip.
    """

    def __init__(
        self, paths: PathTemplate, lines: LineFormat, *, max_bytes: int = 0, compress: bool = False
    ) -> None:
        self._paths = paths
        self._lines = lines
        self._max_bytes = max_bytes
        self._suffix = f".{lines.extension}"
        self._final = self._suffix + (".gz" if compress else "")
        self._compress = compress
        self._growing: dict[str, _Growing] = {}
        self._unfinished: dict[Path, int] = {}  # grown files and the first second of their period
        self._finishing: set[Path] = set()
        self._finish_next: dict[Path, float] = {}
        self._stopping = threading.Event()
        self._worker = ThreadPoolExecutor(1, "obframe-files")
        self._name = re.compile(
            rf"(?P<stem>.*?)(?:~(?P<number>\d{{4,}}))?\.{re.escape(lines.extension)}"
            r"(?P<packed>\.gz)?(?P<part>\.part)?",
            re.DOTALL,
        )
        self._find_unfinished()

    def _find_unfinished(self) -> None:
        for path in sorted(self._paths.directory.rglob(f"*{self._suffix}*")):
            if path.name.endswith(f"{self._suffix}.gz{_TEMPORARY}"):
                path.unlink(missing_ok=True)
                continue
            match = self._name.fullmatch(str(path))
            if match is None or match["part"] is None:
                continue
            period = self._paths.read_period(match["stem"])
            if period is not None:
                self._unfinished[path] = period

    def close(self) -> None:
        """End; what is being compressed is left as it was, for the next time."""
        self._stopping.set()
        self._worker.shutdown(wait=True, cancel_futures=True)

    # -- writing ---------------------------------------------------------------------------------

    def append(self, snapshots: Sequence[Snapshot]) -> None:
        """Write the rows that no file holds yet; on the disk when it returns.

        Args:
            snapshots: Of each symbol oldest first.

        Raises:
            OSError: The disk is full or fails; the same rows may be given again.
        """
        by_stem: dict[str, list[Snapshot]] = {}
        snapshots = sorted(snapshots, key=attrgetter("timestamp"))
        for snapshot in snapshots:
            stem = self._paths.stem(snapshot.symbol, snapshot.timestamp)
            by_stem.setdefault(stem, []).append(snapshot)
        for stem, rows in by_stem.items():
            try:
                self._append(stem, rows)
            except BaseException:
                self._growing.pop(stem, None)  # what is in the file has to be read again
                raise
        if snapshots:
            self._finish_before(self._paths.period(snapshots[-1].timestamp))

    def _append(self, stem: str, rows: list[Snapshot]) -> None:
        growing = self._growing.get(stem)
        if growing is None:
            growing = self._growing[stem] = self._look(stem)
        first = rows[0].timestamp
        held = self._held_from(stem, growing, first)
        if held is not None:
            rows = [row for row in rows if (row.symbol, row.timestamp) not in held]
            held.update((row.symbol, row.timestamp) for row in rows)
        lines: list[bytes] = []
        for row in rows:
            line = self._lines.encode(row)
            is_full = 0 < self._max_bytes < growing.size + len(line) and growing.last
            if row.timestamp < growing.last or is_full:
                self._write(stem, growing, lines)
                lines = []
                self._finish(self._path(stem, growing.number, _PART))
                growing.number, growing.size, growing.last = growing.number + 1, 0, 0
            if not growing.size and self._lines.header:
                lines.append(self._lines.header)
                growing.size += len(self._lines.header)
            lines.append(line)
            growing.size += len(line)
            growing.last = row.timestamp
            growing.newest = max(growing.newest or 0, row.timestamp)
        self._write(stem, growing, lines)

    def _held_from(self, stem: str, growing: _Growing, first: int) -> set[tuple[str, int]] | None:
        """Return the rows of a name's files from a second on; None when all of them are older.

        The files are read once while rows come again.
        """
        if growing.newest is not None and first > growing.newest:
            growing.held = None
            return None
        if growing.held is None or first < growing.held[0]:
            growing.held = first, self._find_held(stem, first)
        _, held = growing.held
        if len(held) > _HELD_AT_MOST:
            growing.held = None
        growing.newest = max([growing.newest or 0, first - 1, *(second for _, second in held)])
        return held

    def _write(self, stem: str, growing: _Growing, lines: list[bytes]) -> None:
        if not lines:
            return
        path = self._path(stem, growing.number, _PART)
        is_new = path not in self._unfinished
        if is_new:
            _make_directory(path.parent)
        with path.open("ab") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_directory(path.parent)
            self._unfinished[path] = self._paths.read_period(stem) or 0

    def _path(self, stem: str, number: int, kind: str) -> Path:
        """Return the path of a grown (``.part``) or finished (empty) file."""
        numbered = stem if number == 1 else f"{stem}~{number:04}"
        return Path(numbered + (self._suffix + _PART if kind == _PART else self._final))

    # -- what is there ---------------------------------------------------------------------------

    def _files(self, stem: str) -> Iterator[tuple[int, Path, bool]]:
        """Yield number, path and whether it still grows of each file of a name."""
        parent = Path(stem).parent
        try:
            names = sorted(os.listdir(parent))
        except FileNotFoundError:
            return
        for name in names:
            path = parent / name
            match = self._name.fullmatch(str(path))
            if match is not None and match["stem"] == stem:
                yield int(match["number"] or 1), path, match["part"] is not None

    def _look(self, stem: str) -> _Growing:
        """Find the newest file of a name, and mend its end."""
        files = list(self._files(stem))
        number = max((number for number, _, _ in files), default=0)
        grown = self._path(stem, max(number, 1), _PART)
        finished = {path for n, path, is_part in files if n == number and not is_part}
        if grown in self._finishing or finished or not grown.exists():
            if finished and grown.exists() and grown not in self._finishing:
                # It was finished, but the process died before the grown one could go.
                grown.unlink()
                self._unfinished.pop(grown, None)
            return _Growing(number + 1, 0, 0, None if files else 0)
        self._unfinished.setdefault(grown, self._paths.read_period(stem) or 0)
        size, last = self._mend(grown)
        _sync_directory(grown.parent)
        return _Growing(number, size, last, None)

    def _mend(self, path: Path) -> tuple[int, int]:
        """Cut off what a crash has left at the end of a grown file.

        Only what was never acknowledged can be torn, and it comes again.

        Returns:
            The size that is left, and the second of the last line, 0 when there is none.
        """
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(size - _TAIL, 0)
            file.seek(start)
            tail = file.read()
            good = last = 0
            if start:
                good = tail.find(b"\n") + 1
            elif tail.startswith(self._lines.header):
                good = len(self._lines.header)
            if good or not self._lines.header:
                good, last = self._read_good(tail, good)
            if start + good < size:
                log.warning(
                    "%s: the last %d bytes are torn, as a crash leaves them, and are cut off",
                    path, size - start - good,
                )  # fmt: skip
                file.truncate(start + good)
        return start + good, last

    def _read_good(self, tail: bytes, start: int) -> tuple[int, int]:
        """Return the end of the lines that are whole, and the second of the last of them."""
        good, last = start, 0
        while (end := tail.find(b"\n", good)) >= 0:
            try:
                _, last = self._lines.read_key(tail[good:end])
            except ValueError:
                break
            good = end + 1
        return good, last

    def _find_held(self, stem: str, first: int) -> set[tuple[str, int]]:
        """Return the rows of a name's files from a second on."""
        held: set[tuple[str, int]] = set()
        finished = {number for number, _, is_part in self._files(stem) if not is_part}
        for number, path, is_part in self._files(stem):
            if is_part and number in finished:
                continue
            with contextlib.suppress(FileNotFoundError):  # it was finished meanwhile
                held.update(self._read_keys(path, first))
                continue
            held.update(self._read_keys(self._path(stem, number, ""), first))
        return held

    def _read_keys(self, path: Path, first: int) -> Iterator[tuple[str, int]]:
        for line in _lines_compressed(path) if path.suffix == ".gz" else _lines_backward(path):
            if line + b"\n" == self._lines.header or not line:
                continue
            try:
                symbol, second = self._lines.read_key(line)
            except ValueError as error:
                raise OSError(f"{path}: a line is no row: {error}: {line[:80]!r}") from error
            if second >= first:
                yield symbol, second
            elif path.suffix != ".gz":
                return

    # -- finishing -------------------------------------------------------------------------------

    def _finish_before(self, period: int) -> None:
        """Finish what grew in periods before this one: seconds come in order."""
        for path, start in list(self._unfinished.items()):
            if start < period:
                self._finish(path)
        for stem in list(self._growing):
            if (self._paths.read_period(stem) or 0) < period:
                del self._growing[stem]

    def _finish(self, path: Path) -> None:
        if path in self._finishing or time.monotonic() < self._finish_next.get(path, 0.0):
            return
        if not path.exists():
            self._unfinished.pop(path, None)
            return
        if self._compress:
            self._finishing.add(path)
            self._worker.submit(self._pack, path)
            return
        self._mend(path)
        path.rename(path.with_suffix(""))
        _sync_directory(path.parent)
        self._unfinished.pop(path, None)

    def _pack(self, path: Path) -> None:
        """Compress a grown file beside it, in the worker's thread."""
        final = path.with_suffix(".gz")
        temporary = Path(f"{final}{_TEMPORARY}")
        try:
            if not final.exists():
                self._mend(path)
                if not self._copy_packed(path, temporary):
                    return
                temporary.rename(final)
                _sync_directory(path.parent)
            path.unlink()
            self._unfinished.pop(path, None)
        except Exception as error:
            log.error("%s: cannot be compressed, tried again later: %s", path, error)
            self._finish_next[path] = time.monotonic() + _FINISH_AGAIN
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._finishing.discard(path)

    def _copy_packed(self, path: Path, temporary: Path) -> bool:
        with path.open("rb") as source, temporary.open("wb") as target:
            with gzip.GzipFile("", "wb", 6, target, mtime=0) as packed:
                while block := source.read(_BLOCK):
                    if self._stopping.is_set():
                        return False
                    packed.write(block)
            target.flush()
            os.fsync(target.fileno())
        shutil.copymode(path, temporary)
        return True


def _lines_compressed(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


def _lines_backward(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, the last one first, without their ends."""
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        rest = b""
        while at > 0:
            size = min(_BLOCK, at)
            at -= size
            file.seek(at)
            first, *others = (file.read(size) + rest).split(b"\n")
            yield from reversed(others)
            rest = first
        yield rest


def _make_directory(path: Path) -> None:
    """Make a directory and those above it, so that they outlive a power cut."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
