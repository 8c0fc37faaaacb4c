"""Backups and repairs of a store, from outside of the process that writes it."""

from __future__ import annotations

from pathlib import Path

from obframe import Backup, Repaired, Tell
from obframe_plugins._backup import BackupFolder
from obframe_plugins._layout import Layout
from obframe_plugins._salvage import salvage
from obframe_plugins._writing import RocksSettings


class RocksMaintenance:
    """What can be done to the store of the settings.

    Args:
        settings: Where it is, or is to be.
    """

    def __init__(self, settings: RocksSettings) -> None:
        self._layout = Layout(settings.path)

    def backup(self, folder: Path, tell: Tell) -> Backup:
        """Add a backup of the store as it is now, while a recorder may be writing it."""
        return BackupFolder(folder).take(self._layout, tell)

    def backups(self, folder: Path) -> list[Backup]:
        """List the backups in a folder, oldest first."""
        return BackupFolder(folder).backups()

    def prune(self, folder: Path, keep: int) -> int:
        """Remove all but the newest ``keep`` backups; return how many went."""
        return BackupFolder(folder).prune(keep)

    def restore(self, folder: Path, name: str | None, tell: Tell) -> Backup:
        """Put a backup, the newest by default, where nothing is yet."""
        return BackupFolder(folder).restore(name, self._layout, tell)

    def repair(self, target: str, tell: Tell) -> Repaired:
        """Save what can be read into a new store at ``target``."""
        return salvage(self._layout, Layout(target), tell)
