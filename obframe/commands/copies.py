"""The commands that copy what is stored: backup, restore, repair, export, import."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from obframe.commands.output import Format, note, utc, utc_after, write
from obframe.commands.progress import (
    choose_symbols,
    heed_interrupt,
    hold_readable,
    human,
    progress,
    progress_of,
)
from obframe.commands.session import Choice
from obframe.errors import PluginError
from obframe.protocols import Backup, Maintenance, Storage
from obframe.times import parse_range
from obframe.transfer import Imported, ending_of, export_rows, import_rows
from obframe.vetting import STORAGE

# -- backup, restore, repair ---------------------------------------------------------------------


def backup(choice: Choice, folder: Path, keep: int, output: Format) -> int:
    """Add a backup of the storage to a folder, while a recorder may be writing it."""
    maintenance = _maintain(choice)
    with progress_of("copying") as tell:
        taken = maintenance.backup(folder, tell)
    removed = maintenance.prune(folder, keep) if keep else 0
    _write_backups([taken], output, f"taken into {folder}")
    note(f"{human(taken.copied)} of {human(taken.bytes)} were new")
    if removed:
        note(f"{removed} older backup{'s' * (removed != 1)} removed")
    return 0


def backups(choice: Choice, folder: Path, output: Format) -> int:
    """List the backups in a folder."""
    _write_backups(_maintain(choice).backups(folder), output, f"backups in {folder}")
    return 0


def restore(choice: Choice, folder: Path, name: str | None, output: Format) -> int:
    """Put a backup where the settings say that the storage is; nothing may be there yet."""
    maintenance = _maintain(choice)
    with progress_of("restoring") as tell:
        restored = maintenance.restore(folder, name, tell)
    _write_backups([restored], output, f"restored from {folder}")
    return 0


def repair(choice: Choice, target: str, output: Format) -> int:
    """Save what can be read of a damaged storage into a new one.

    Returns:
        1 when rows are known to be lost, else 0.
    """
    maintenance = _maintain(choice)
    with progress_of("saving rows,") as tell:
        repaired = maintenance.repair(target, tell)
    write(
        output,
        repaired.lost,
        columns=("symbol", "from (UTC)", "to", "seconds")
        if output is Format.TABLE
        else ("symbol", "start", "end", "seconds"),
        cells=lambda gap: [
            gap.symbol,
            utc(gap.start) if output is Format.TABLE else gap.start,
            utc_after(gap.end, gap.start) if output is Format.TABLE else gap.end,
            gap.seconds,
        ],
        value=lambda gap: {
            "symbol": gap.symbol, "start": gap.start, "end": gap.end, "seconds": gap.seconds,
        },
        title="what was lost; now gaps with the reason damaged",
    )  # fmt: skip
    note(
        f"{target}: {repaired.rows:,} rows saved, {repaired.holes} unreadable places passed over, "
        f"{repaired.foreign} foreign keys left out"
    )
    return 1 if repaired.lost or repaired.holes else 0


def _maintain(choice: Choice) -> Maintenance:
    session = choice.load([STORAGE])
    provider = session.chosen[STORAGE.name]
    if provider.maintenance is None:
        raise PluginError(
            provider.name,
            "this storage offers neither backups nor repairs",
            "use one that does, such as --storage rocksdb",
        )
    return provider.maintenance(session.settings.providers[provider.name])


_BACKUP = ("name", "created", "newest", "symbols", "bytes")


def _backup_values(backup: Backup) -> list[Any]:
    return [backup.name, backup.created, backup.newest, backup.symbols, backup.bytes]


def _write_backups(found: Sequence[Backup], output: Format, title: str) -> None:
    write(
        output,
        found,
        columns=("name", "taken (UTC)", "newest row", "symbols", "size")
        if output is Format.TABLE
        else _BACKUP,
        cells=lambda each: [
            each.name, utc(each.created), utc(each.newest), each.symbols, human(each.bytes),
        ]
        if output is Format.TABLE
        else _backup_values(each),
        value=lambda each: dict(zip(_BACKUP, _backup_values(each), strict=True)),
        title=title,
    )  # fmt: skip


# -- export, import ------------------------------------------------------------------------------


def export(
    choice: Choice, path: Path, symbols: Sequence[str], start: str | None, end: str | None
) -> int:
    """Write rows to a file.

    Returns:
        1 when a stored value could not be decoded, else 0.
    """
    first, last = parse_range(start, end, time.time())
    ending_of(path)
    with choice.load([STORAGE]).read() as storage:
        wanted = choose_symbols(storage, symbols)
        total = sum(
            max(0, min(each.newest, last) - max(each.oldest, first) + 1)
            for each in hold_readable(storage, wanted)
        )
        with progress("exporting", float(total) or None) as tell:
            done = export_rows(storage, wanted, first, last, path, count=tell)
    note(f"{path}: {done.rows:,} rows of {len(wanted)} symbol{'s' * (len(wanted) != 1)}")
    if done.undecodable:
        note(f"{done.undecodable:,} stored values are no rows and were left out: obframe verify")
    return 1 if done.undecodable else 0


def _import_file(storage: Storage, path: Path) -> Imported:
    read = 0
    with progress(f"importing {path.name}", None) as tell:

        def count(more: int) -> None:
            nonlocal read
            read += more
            tell(f"{read:,} rows", more)
            heed_interrupt()

        try:
            return import_rows(storage, path, count=count)
        except asyncio.CancelledError:
            note(
                f"{path}: interrupted after {read:,} rows; what was stored stays: "
                f"import the file again to go on"
            )
            raise


def import_(choice: Choice, paths: Sequence[Path]) -> int:
    """Store the rows of files.

    Returns:
        1 when something in the files is no row, or contradicts what is stored, else 0.
    """
    for path in paths:
        ending_of(path)
    session = choice.load([STORAGE])

    async def work() -> int:
        bad = 0
        async with AsyncExitStack() as stack:
            storage: Storage = await session.open(stack, STORAGE)
            for path in paths:
                done = _import_file(storage, path)
                for line in done.wrong:
                    note(line)
                told = f"{path}: {done.rows:,} rows stored, {done.known:,} were stored already"
                if done.different:
                    told += f", {done.different:,} differ from what is stored, which stays"
                if done.wrong_rows:
                    told += f", {done.wrong_rows:,} are no rows"
                note(told)
                bad += done.different + done.wrong_rows
        return 1 if bad else 0

    return asyncio.run(work())
