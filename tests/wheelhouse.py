"""Wheels of what is installed: from them, clean environments are made without an index."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from email import message_from_string
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "obframe"
OF_THE_INSTALLER = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"}


def pack_wheels(folder: Path, requirements: Iterable[str]) -> None:
    """Write a wheel of each installed distribution that the requirements need; none of ours.

    Args:
        folder: Where to; made if need be.
        requirements: As pip takes them, such as ``obframe[testing]``.

    Raises:
        PackageNotFoundError: One of them is not installed here.
    """
    folder.mkdir(exist_ok=True)
    left, seen = [Requirement(text) for text in requirements], set[str]()
    while left:
        wanted = left.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        found = distribution(wanted.name)
        for needed in map(Requirement, found.requires or ()):
            extras = wanted.extras or {""}
            if not needed.marker or any(needed.marker.evaluate({"extra": e}) for e in extras):
                left.append(needed)
        if canonicalize_name(wanted.name) != OURS:
            _pack(found, folder)


def _pack(installed: Distribution, folder: Path) -> None:
    name = re.sub(r"[-_.]+", "_", installed.name)
    about = message_from_string(installed.read_text("WHEEL") or "")
    tags = zip(*(tag.split("-") for tag in about.get_all("Tag", [])), strict=True)
    tag = "-".join(".".join(dict.fromkeys(part)) for part in tags)
    wheel = folder / f"{name}-{installed.version}-{tag}.whl"
    if wheel.exists():
        return
    held: list[str] = []
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in installed.files or ():
            if file.suffix == ".pyc" or file.name in OF_THE_INSTALLER:
                continue
            path = Path(str(file.locate()))
            if file.parts[0] != "..":
                place = file.as_posix()
            elif "bin" in file.parts and not path.read_bytes().startswith(b"#!"):
                place = f"{name}-{installed.version}.data/scripts/{file.name}"
            else:
                continue  # of an entry point: pip makes it anew
            archive.write(path, place)
            held.append(place)
        (info,) = [each for each in held if re.fullmatch(r"[^/]+\.dist-info/METADATA", each)]
        record = info.replace("METADATA", "RECORD")
        archive.writestr(record, "".join(f"{each},,\n" for each in [*held, record]))
