"""How far each sink has been told, kept on disk: one small file a sink, replaced atomically."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from obframe.errors import StorageError
from obframe.types import MAX_TIMESTAMP


class _Position(msgspec.Struct, forbid_unknown_fields=True):
    sink: str
    delivered_to: int


class Positions:
    """The delivery positions of one store's sinks. Blocks; each name is used by one thread.

    Args:
        directory: Where the files stand, made when the first is written; None keeps nothing
            beyond the process.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def path(self, name: str) -> Path | None:
        """Return the file of a sink's position."""
        return None if self._directory is None else self._directory / f"{name}.json"

    def load(self, name: str) -> int | None:
        """Return the second up to which all stored rows are delivered; None: never begun.

        Raises:
            StorageError: The file is there and cannot be read or understood.
        """
        path = self.path(name)
        if path is None:
            return None
        mend = "restore it, or remove it to let the sink begin anew (recorder.sink_start)"
        try:
            position = msgspec.json.decode(path.read_bytes(), type=_Position)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            reason = f"{path}: the delivery position cannot be read: {error}; {mend}"
            raise StorageError(reason, str(path)) from error
        second = position.delivered_to
        if position.sink != name or not 0 <= second <= MAX_TIMESTAMP:
            reason = f"{path}: holds {second} of the sink {position.sink!r}, not a second of {name}"
            raise StorageError(f"{reason}; {mend}", str(path))
        return second

    def save(self, name: str, second: int) -> None:
        """Replace a sink's position; on the disk when it returns.

        Raises:
            OSError: It could not be written; the one before stands.
        """
        path = self.path(name)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".tmp")
        data = msgspec.json.encode(_Position(name, second)) + b"\n"
        try:
            with fresh.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
