"""The files of a row database: what tells that they changed, and links to all of them."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path


def file_state(path: str) -> tuple[tuple[bytes, int], tuple[tuple[str, int, int], ...]]:
    """Return what differs as soon as another process has written to a database.

    Returns:
        The state of the list of files, and name, size and change time of each log.
    """
    logs = []
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            if entry.name.endswith(".log"):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    logs.append((entry.name, status.st_size, status.st_mtime_ns))
    return manifest_state(path), tuple(sorted(logs))


def manifest_state(path: str) -> tuple[bytes, int]:
    """Return which list of files is current, and its size: it grows before any file goes."""
    try:
        current = Path(path, "CURRENT").read_bytes()
        return current, Path(path, current.decode("ascii").rstrip("\n")).stat().st_size
    except (OSError, ValueError):
        return b"", -1


def link_files(path: str, view: str) -> None:
    """Link the files that make up a database into another directory."""
    source = Path(path).resolve()
    for name in os.listdir(source):
        if (
            name == "CURRENT"
            or name.startswith("MANIFEST-")
            or name.endswith((".sst", ".blob", ".log"))
        ):
            os.symlink(source / name, Path(view, name))


def logs_elsewhere(path: str) -> Path | None:
    """Return the directory in which another program keeps a database's logs, if not beside it."""
    try:
        options = max(Path(path).glob("OPTIONS-*"), key=lambda file: int(file.name[8:]))
        named = re.search(r"^\s*wal_dir=(.+)$", options.read_text(), re.MULTILINE)
        folder = Path(named[1].strip()) if named is not None else Path(path)
        # Where a list of files lies too is a database of its own: this one was copied from there.
        if folder.samefile(path) or (folder / "CURRENT").exists():
            return None
        logs = [log for log in folder.glob("*.log") if not Path(path, log.name).exists()]
    except (OSError, ValueError):
        return None  # no options, or no such directory
    return folder if any(_size(log) for log in logs) else None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0  # flushed and removed meanwhile
