"""Counts the instructions of the core's functions with valgrind: of this tree, and of a reference.

Both cores are built and counted in the same run, by the same tools and under the same conditions:
what differs is the source. The reference is the core as it stood in the commit that last changed
`benchmarks/instructions.md`, the list of changes that were accepted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ACCEPTED = "benchmarks/instructions.md"
ALLOWED = 0.03
BESIDE = 20  # instructions more or less, for what takes hardly any
MESSAGES = 300
LOADS = 3
REPEATS = 200  # rows of the columns
SECOND = 1_737_158_400

# Name in the report: class and function, as the core's source has them.
FUNCTIONS = {
    "parse_depth_update": ("", "parse_depth_update"),
    "parse_depth_snapshot": ("", "parse_depth_snapshot"),
    "OrderBook.load": ("OrderBook", "load"),
    "OrderBook.apply": ("OrderBook", "apply"),
    "OrderBook.follow": ("OrderBook", "follow"),
    "OrderBook.snapshot": ("OrderBook", "snapshot"),
    "Snapshot.pack": ("Snapshot", "pack"),
    "Snapshot.unpack": ("Snapshot", "unpack"),
    "ColumnDecoder.extend": ("ColumnDecoder", "extend"),
}
# How often, where not once a message.
CALLS = {"parse_depth_snapshot": LOADS, "OrderBook.load": LOADS + 1, "ColumnDecoder.extend": 1}


class Skipped(Exception):
    """Nothing can be compared here."""


# -- under valgrind -------------------------------------------------------------------------------


def work(file: Path) -> None:
    """Call each function as often as always: once to warm up, and once to be counted."""
    import gc

    sys.path.insert(0, "")
    from obframe import _core as core

    first, *messages = file.read_bytes().splitlines()
    book, own = core.OrderBook("BTCUSDT"), core.OrderBook("BTCUSDT")
    gc.collect()
    gc.disable()
    for _ in range(2):
        os.getppid()  # where counting begins anew: see `count`
        for _ in range(LOADS):
            snapshot = core.parse_depth_snapshot(first, "BTCUSDT")
            book.load(snapshot)
        own.load(snapshot)
        for message in messages:
            book.apply(core.parse_depth_update(message))
            packed = book.snapshot(SECOND).pack()
            core.Snapshot.unpack(packed, "BTCUSDT")
            own.follow(message)
        levels = {
            name: array("q", bytes(8 * 20 * REPEATS))
            for name in ("bid_prices", "bid_quantities", "ask_prices", "ask_quantities")
        }
        core.ColumnDecoder(20, **levels).extend([packed] * REPEATS)


# -- counting -------------------------------------------------------------------------------------


def write_messages(file: Path) -> None:
    """Write the seeded stream: a snapshot, then an event a line."""
    sys.path.insert(0, str(HERE))
    from data import make_stream

    stream = make_stream(MESSAGES)
    first = {"lastUpdateId": 1, "bids": stream.bids, "asks": stream.asks}
    file.write_bytes(b"\n".join([json.dumps(first).encode(), *stream.messages]))


def count(core: Path) -> dict[str, float]:
    """Run the work under valgrind; return the instructions of one call of each function.

    The core runs in a package of its own, without site-packages, from a folder whose path is as
    long as ever, in an environment of three variables: stack and heap, and with them what copying
    and allocating take, are the same in every checkout.

    Args:
        core: The built core; beside it stands its package's ``errors.py``.

    Raises:
        RuntimeError: A function was not seen.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package = folder / "obframe"
        package.mkdir()
        (package / "__init__.py").touch()
        shutil.copy(core, package)
        shutil.copy(core.parent / "errors.py", package)
        shutil.copy(__file__, folder / "work.py")
        write_messages(folder / "messages")
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=out"]
        command += ["--zero-before=getppid", os.path.realpath(sys.executable)]
        environ = {"PYTHONHASHSEED": "0", "PYTHONMALLOC": "malloc", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [*command, "-I", "-S", "-B", "work.py", "--work", "messages"],
            cwd=folder,
            env={**environ, "PATH": os.defpath},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"valgrind failed:\n{done.stderr[-4000:]}")
        with (folder / "out").open() as lines:
            calls, costs = read_costs(lines)
    found = {}
    for name, (owner, function) in FUNCTIONS.items():
        prefix = rf"\d+{owner}_" if owner else ""
        symbol = re.compile(rf"__pyx_pw_7obframe_5_core_{prefix}\d+{function}(\.\w+)*")
        matches = [each for each in costs if symbol.fullmatch(each)]
        expected = CALLS.get(name, MESSAGES)
        if len(matches) != 1 or calls[matches[0]] != expected:
            seen = {each: calls[each] for each in matches}
            raise RuntimeError(f"{name}: {expected} calls of one symbol were expected, not {seen}")
        found[name] = costs[matches[0]] / calls[matches[0]]
    return found


def read_costs(lines: Iterator[str]) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Read callgrind's file.

    Returns:
        How often each function was called, and its instructions with those of what it calls.
    """
    names: dict[str, str] = {}
    calls: defaultdict[str, int] = defaultdict(int)
    costs: defaultdict[str, int] = defaultdict(int)
    function = called = ""

    def resolve(text: str) -> str:
        number, _, name = text.strip().partition(" ")
        return names.setdefault(number, name)

    for line in lines:
        if line.startswith("fn="):
            function = resolve(line[3:])
        elif line.startswith("cfn="):
            called = resolve(line[4:])
        elif line.startswith("calls="):
            calls[called] += int(line[6:].split()[0])
        elif line[0] in "0123456789+-*":
            costs[function] += int(line.split()[1])  # its own, or of what it called just above
    return calls, costs


# -- the reference --------------------------------------------------------------------------------


def ask_git(*arguments: str) -> str:
    """Return git's answer about this checkout.

    Raises:
        Skipped: There is no git, or this is no checkout.
    """
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Skipped("there is no git to take the reference from") from None
    if done.returncode:
        raise Skipped(f"git has no reference: {done.stderr.strip()}")
    return done.stdout.strip()


def find_reference() -> str:
    """Return the commit whose core is the reference.

    Raises:
        Skipped: It cannot be known.
    """
    if ask_git("rev-parse", "--is-shallow-repository") == "true":
        raise Skipped("a shallow clone does not hold the reference; git fetch --unshallow")
    if ask_git("status", "--porcelain", "--", ACCEPTED):
        raise Skipped(f"{ACCEPTED} is changed: the reference is the commit to come")
    commit = ask_git("log", "-1", "--format=%H", "--", ACCEPTED)
    if not commit:
        raise Skipped(f"no commit has {ACCEPTED}")
    return commit


def build(commit: str, folder: Path) -> Path:
    """Build the core of a commit; return the folder of its package."""
    sys.path.append(str(ROOT / "safety"))
    from corebuild import PROJECT, build_copy

    archive, tree = folder / "tree.tar", folder / "tree"
    ask_git("archive", "-o", str(archive), commit, "obframe", "plugins", *PROJECT)
    with tarfile.open(archive) as file:
        file.extractall(tree, filter="data")
    return build_copy(folder / "built", root=tree) / "obframe"


def compare(counts: Mapping[str, float], before: Mapping[str, float]) -> int:
    """Print a table; return 1 when anything changed by more than is allowed."""
    code = 0
    print(f"{'function':<22} {'reference':>12} {'now':>12} {'change':>8}")
    for name, now in counts.items():
        then = before[name]
        held = abs(now - then) <= max(ALLOWED * then, BESIDE)
        code |= not held
        print(
            f"{name:<22} {then:>12,.1f} {now:>12,.1f} {now / then - 1:>+8.2%}  "
            f"{'ok' if held else 'MISSED'}"
        )
    if code:
        print(
            f"a change over {ALLOWED:.0%}, to either side: if it is meant, add a line to "
            f"{ACCEPTED} in the commit that makes it"
        )
    return code


def main() -> int:
    """Count and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", help="a commit, instead of the one last accepted")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return 0
    try:
        if shutil.which("valgrind") is None:
            raise Skipped("there is no valgrind; on Debian: apt-get install valgrind")
        commit = options.reference or find_reference()
        spec = importlib.util.find_spec("obframe._core")
        if spec is None or spec.origin is None:
            raise RuntimeError("the core is not built; make setup")
        with tempfile.TemporaryDirectory() as folder:
            package = build(commit, Path(folder))
            (reference,) = package.glob("_core.*.so")
            before = count(reference)
    except Skipped as reason:
        print(f"instructions are not compared: {reason}")
        return 0
    print(f"instructions of a call, beside those of {commit[:12]}")
    return compare(count(Path(spec.origin)), before)


if __name__ == "__main__":
    sys.exit(main())
