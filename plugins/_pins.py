"""Pins: one state of a store's rows, held by links while its writer goes on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from obframe import StoreUnavailable
from obframe_plugins._files import manifest_state
from obframe_plugins._layout import Layout

_TRIES: Final = 100
_PREFIX: Final = "pin-"
_COPIED: Final = re.compile(r"CURRENT|IDENTITY|(MANIFEST|OPTIONS)-\d+|\d+\.log")


@contextlib.contextmanager
def pinned(layout: Layout) -> Iterator[Path]:
    """Hold the files of one state of the rows, by links where the file system has them.

    Raises:
        StoreUnavailable: The files changed all the while.
    """
    side = layout.side if layout.side.is_dir() and os.access(layout.side, os.W_OK) else None
    sweep_pins(layout)
    for _ in range(_TRIES):
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=side) as name, _alive(name) as alive:
            pin = Path(name)
            before = manifest_state(str(layout.rows))
            try:
                _pin(layout.rows, pin)
            except FileNotFoundError:
                continue
            # Unchanged, it names just the files that were linked.
            if not alive or before != manifest_state(str(layout.rows)):
                continue
            yield pin
            return
    raise StoreUnavailable(
        f"{layout}: the files changed all the while they were looked at; try again", str(layout)
    )


def sweep_pins(layout: Layout) -> None:
    """Remove the pins of processes that died: their links keep deleted rows on the disk."""
    for folder in layout.side.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _alive(str(folder)) as locked:
            if locked:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _alive(folder: str) -> Iterator[bool]:
    """Lock a folder, which tells that its process lives; false when another holds the lock."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield os.path.exists(folder)  # a sweep may have come before the lock
    finally:
        os.close(file)


def _pin(rows: Path, pin: Path) -> None:
    # The list of files first: what it names is still there, or the whole is done anew.
    names = sorted(os.listdir(rows), key=lambda name: name.endswith(".log"))
    for name in names:
        source, target = rows / name, pin / name
        if name.endswith((".sst", ".blob")):
            try:
                os.link(source, target)
            except FileNotFoundError:
                raise
            except OSError:
                shutil.copy2(source, target)  # another file system, or one without links
        elif _COPIED.fullmatch(name):
            shutil.copy2(source, target)
