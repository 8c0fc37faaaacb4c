"""Counts the instructions of the core's functions with valgrind, and compares them with a baseline.

Counts do not depend on how busy or fast the machine is, but on compiler, Python and processor: the
baseline names those it was made with, and other ones are not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "instructions.json"
ALLOWED = 0.03
BESIDE = 20  # instructions more or less, for what takes hardly any
MESSAGES = 300
REPEATS = 200
SECOND = 1_737_158_400
AGAIN = "make bench-instructions-baseline"

# Name in the report: class and function, as the core's source has them.
FUNCTIONS = {
    "parse_depth_update": ("", "parse_depth_update"),
    "parse_depth_snapshot": ("", "parse_depth_snapshot"),
    "OrderBook.load": ("OrderBook", "load"),
    "OrderBook.apply": ("OrderBook", "apply"),
    "OrderBook.snapshot": ("OrderBook", "snapshot"),
    "Snapshot.pack": ("Snapshot", "pack"),
    "Snapshot.unpack": ("Snapshot", "unpack"),
    "ColumnDecoder.extend": ("ColumnDecoder", "extend"),
}


def work(file: Path) -> None:
    """Call each function as often as always; runs under valgrind."""
    from obframe._core import (
        ColumnDecoder,
        OrderBook,
        Snapshot,
        parse_depth_snapshot,
        parse_depth_update,
    )

    first, *messages = file.read_bytes().splitlines()
    book = OrderBook("BTCUSDT")
    book.load(parse_depth_snapshot(first, "BTCUSDT"))
    for message in messages:
        update = parse_depth_update(message)
        if update is None:
            raise ValueError("the stream holds what is no event")
        book.apply(update)
    for _ in range(REPEATS):
        packed = book.snapshot(SECOND).pack()
        Snapshot.unpack(packed, "BTCUSDT")
    levels = {
        name: array("q", bytes(8 * 20 * REPEATS))
        for name in ("bid_prices", "bid_quantities", "ask_prices", "ask_quantities")
    }
    ColumnDecoder(20, **levels).extend([packed] * REPEATS)


def write_messages(file: Path) -> None:
    """Write the seeded stream: a snapshot, then an event a line."""
    sys.path.insert(0, str(HERE))
    from data import make_stream

    stream = make_stream(MESSAGES)
    first = {"lastUpdateId": 1, "bids": stream.bids, "asks": stream.asks}
    file.write_bytes(b"\n".join([json.dumps(first).encode(), *stream.messages]))


def count() -> dict[str, float]:
    """Run the work under valgrind; return the instructions of one call of each function.

    Raises:
        RuntimeError: A function was not seen.
    """
    with tempfile.TemporaryDirectory() as folder:
        messages, out = Path(folder, "messages"), Path(folder, "callgrind")
        write_messages(messages)
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        command += [sys.executable, "-P", __file__, "--work", str(messages)]
        environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "malloc"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"valgrind failed:\n{done.stderr[-4000:]}")
        with out.open() as lines:
            calls, costs = read_costs(lines)
    found = {}
    for name, (owner, function) in FUNCTIONS.items():
        prefix = rf"\d+{owner}_" if owner else ""
        symbol = re.compile(rf"__pyx_pw_7obframe_5_core_{prefix}\d+{function}(\.\w+)*")
        matches = [each for each in costs if symbol.fullmatch(each)]
        if len(matches) != 1 or not calls[matches[0]]:
            raise RuntimeError(f"{name}: one symbol was expected, {matches} were called")
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


def describe_tools() -> dict[str, str]:
    """Return what counts depend on."""
    compiler = os.environ.get("CC", "cc")
    answer = subprocess.check_output([compiler, "--version"], text=True).splitlines()[0]
    flags = ""
    if (cpu := Path("/proc/cpuinfo")).exists():
        line = re.search(r"^flags\s*:(.*)$", cpu.read_text(), re.MULTILINE)
        known = set(line[1].split()) if line else set()
        flags = " ".join(sorted(known & {"avx2", "bmi2", "sse4_2"}))
    return {
        "compiler": answer,
        "python": f"{platform.python_version()} {platform.python_compiler()}",
        "cython": version("cython"),
        "libc": " ".join(platform.libc_ver()),
        "machine": f"{platform.machine()} {flags}".strip(),
        "valgrind": subprocess.check_output(["valgrind", "--version"], text=True).strip(),
    }


def compare(counts: Mapping[str, float], before: Mapping[str, float]) -> int:
    """Print a table; return 1 when anything changed by more than is allowed."""
    code = 0
    print(f"{'function':<22} {'baseline':>12} {'now':>12} {'change':>8}")
    for name in dict.fromkeys([*before, *counts]):
        if name not in before or name not in counts:
            print(f"{name:<22} {'is on one side only':>26}  MISSED")
            code = 1
            continue
        change = counts[name] / before[name] - 1
        verdict = (
            "ok"
            if abs(counts[name] - before[name]) <= max(ALLOWED * before[name], BESIDE)
            else "MISSED"
        )
        code |= verdict != "ok"
        print(
            f"{name:<22} {before[name]:>12,.0f} {counts[name]:>12,.0f} {change:>+8.1%}  {verdict}"
        )
    if code:
        print(f"over {ALLOWED:.0%}: if it is meant to be so, {AGAIN} and commit the result")
    return code


def main() -> int:
    """Count and compare, or write the baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="make what is counted the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return 0
    if shutil.which("valgrind") is None:
        print(
            "no instructions are counted: there is no valgrind; on Debian: apt-get install valgrind"
        )
        required = os.environ.get("OBFRAME_REQUIRE_SERVERS") == "1"
        return 1 if required and shutil.which("apt-get") else 0
    tools = describe_tools()
    if options.write:
        counts = {name: round(value) for name, value in count().items()}
        text = json.dumps({"tools": tools, "instructions": counts}, indent=2)
        options.baseline.write_text(text + "\n")
        print(text)
        return 0
    baseline = json.loads(options.baseline.read_text())
    differing = [key for key in tools if tools[key] != baseline["tools"].get(key)]
    if differing:
        print("instructions are not compared, the baseline was made with other tools:")
        for key in differing:
            print(f"  {key}: {baseline['tools'].get(key)}, here {tools[key]}")
        print(f"{AGAIN} makes one for these")
        return 0
    return compare(count(), baseline["instructions"])


if __name__ == "__main__":
    sys.exit(main())
