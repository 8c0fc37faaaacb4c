"""The files of a row database: what tells that they changed, and links to all of them."""

from __future__ import annotations

import contextlib
import os
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
