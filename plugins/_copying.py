"""Copies of files that a power cut cannot take: synced, whole under their name, checksummed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PIECE: Final = 1 << 20


def copy_file(source: Path, target: Path, tell: Callable[[int], None]) -> str:
    """Copy a file durably; return its SHA-256.

    Args:
        source: What to copy.
        target: Where to; it has this name only when it is whole.
        tell: Told again and again how many bytes are copied.
    """
    digest = hashlib.sha256()
    partial = target.with_name(target.name + ".part")
    done = 0
    with source.open("rb") as read, partial.open("wb") as written:
        while piece := read.read(_PIECE):
            digest.update(piece)
            written.write(piece)
            done += len(piece)
            tell(done)
        written.flush()
        os.fsync(written.fileno())
    partial.rename(target)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Return the size of a file, -1 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file durably, whole or not at all."""
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
