"""Fuzzes the core, guided by which of its branches an input reaches.

The core is compiled with the compiler's own coverage and sanitizers, so that gcc is all it takes.
Inputs that reach something new are kept and mutated further. The seeds in ``safety/corpus`` start
it; what it finds in between stays in ``build/fuzz/corpus`` for the next run.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import hashlib
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from corebuild import ROOT, build_copy
from sanitize import FLAGS, sanitized_environment

HERE = Path(__file__).resolve().parent
SEEDS = HERE / "corpus"
FOUND = ROOT / "build/fuzz"
COVERAGE = ("-fsanitize-coverage=trace-pc", "-include", str(HERE / "coverage.h"))
NAMES = ("update", "snapshot", "level2", "row", "columns", "book")
REPLAY = """
import pathlib, sys, targets
targets.TARGETS[sys.argv[1]](pathlib.Path(sys.argv[2]).read_bytes())
"""
LARGEST = 4096
PATIENCE = 20  # seconds for a hundred inputs


def main() -> int:
    """Parse the options and fuzz, replay, or be the worker of one target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--target", choices=NAMES, action="append", help="default: all")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FILE"))
    parser.add_argument("--core", type=Path, help="a copy built before, instead of this source")
    parser.add_argument("--folder", type=Path, default=FOUND, help="where to keep what is found")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay and options.replay[0] not in NAMES:
        parser.error(f"--replay: no target {options.replay[0]!r}; there are {', '.join(NAMES)}")
    if options.replay and not Path(options.replay[1]).is_file():
        parser.error(f"--replay: no file {options.replay[1]}; name one that was kept or a seed's")
    if options.work:
        return work(options.target[0], options.seconds, options.seed, options.folder)
    folder = options.core or build_copy(FOUND / "core", (*FLAGS, *COVERAGE))
    environment = sanitized_environment(folder)
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), str(HERE)])
    if options.replay:
        target, file = options.replay
        command = [sys.executable, "-P", "-c", REPLAY, target, str(Path(file).resolve())]
        return subprocess.run(command, env=environment, check=False).returncode
    targets = options.target or NAMES
    sys.stdout.write(
        f"fuzzing {', '.join(targets)} for {options.seconds:g} s, seed {options.seed}\n"
    )
    findings = 0
    for target in targets:
        command = [sys.executable, "-P", __file__, "--work", "--target", target]
        command += ["--seconds", str(options.seconds / len(targets)), "--seed", str(options.seed)]
        command += ["--folder", str(options.folder)]
        sys.stdout.flush()
        worker = subprocess.run(command, env=environment, check=False)
        if worker.returncode:
            findings += 1
            report(target, worker.returncode, options.folder)
    return 1 if findings else 0


def report(target: str, code: int, folder: Path) -> None:
    """Save the input that a worker ended on, and say how to run it again."""
    current = read_current(current_file(folder, target))
    file = folder / "findings" / f"{target}-{hashlib.sha256(current).hexdigest()[:12]}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(current)
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if code == -signal.SIGALRM:
        how = f"no end within {PATIENCE} s"
    where = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    sys.stdout.write(
        f"FOUND in {target}: {how}, {len(current)} bytes: {base64.b64encode(current).decode()}\n"
        f"replay it: {sys.executable} safety/fuzz.py --replay {target} {where}\n"
    )


def current_file(folder: Path, target: str) -> Path:
    """Return where a worker notes the input that it is about to run."""
    return folder / f"current-{target}"


def read_current(file: Path) -> bytes:
    """Return the input that a worker noted last."""
    noted = file.read_bytes()
    return noted[4 : 4 + int.from_bytes(noted[:4], "little")]


class Coverage:
    """What the core counts of its branches."""

    def __init__(self) -> None:
        import obframe._core  # noqa: PLC0415 - only the worker has the core that counts

        library = ctypes.PyDLL(obframe._core.__file__)
        self.reset: Callable[[], int] = library.obframe_coverage_reset
        self.news: Callable[[], int] = library.obframe_coverage_news
        self.total: Callable[[], int] = library.obframe_coverage_total


def work(target: str, seconds: float, seed: int, folder: Path) -> int:
    """Fuzz one target in this process, until the time is over or something is found."""
    import targets  # noqa: PLC0415 - imports the core

    check, tokens = targets.TARGETS[target], targets.TOKENS[target]
    coverage = Coverage()
    rng = random.Random(f"{target} {seed}")
    kept = folder / "corpus" / target
    kept.mkdir(parents=True, exist_ok=True)
    with current_file(folder, target).open("wb+") as file:
        file.truncate(4 + LARGEST)
        note = mmap.mmap(file.fileno(), 4 + LARGEST)
    corpus: list[bytes] = []

    def run(data: bytes) -> bool:
        note[: 4 + len(data)] = len(data).to_bytes(4, "little") + data
        coverage.reset()
        try:
            check(data)
        except RecursionError:
            return False  # the oracle's, of a nesting that the core refuses long before
        return coverage.news() > 0

    count = 0
    end = time.monotonic() + seconds
    signal.alarm(PATIENCE)
    for path in sorted([*(SEEDS / target).iterdir(), *kept.iterdir()]):
        data = path.read_bytes()[:LARGEST]
        count += 1
        if run(data) or path.parent != kept:
            corpus.append(data)
        signal.alarm(PATIENCE)
    while time.monotonic() < end:
        signal.alarm(PATIENCE)
        for _ in range(100):
            data = mutate(rng, corpus, tokens)
            count += 1
            if run(data):
                corpus.append(data)
                (kept / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    signal.alarm(0)
    sys.stdout.write(
        f"{target}: {count:,} inputs, {coverage.total():,} branches, {len(corpus)} inputs kept\n"
    )
    return 0


def mutate(rng: random.Random, corpus: list[bytes], tokens: list[bytes]) -> bytes:
    """Return a kept input, changed in one to eight places; what came last is taken more often."""
    pick = corpus[-1 - int(len(corpus) * rng.random() ** 2)] if rng.random() < 0.5 else None
    data = bytearray(pick if pick is not None else rng.choice(corpus))
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 1, 2, 4, 8, 32)))
        match rng.randrange(9):
            case 0:
                data[at:end] = b""
            case 1:
                data[at:at] = rng.choice(tokens)
            case 2:
                data[at:end] = rng.choice(tokens)
            case 3:
                data[at:at] = data[at:end] * rng.choice((1, 1, 2, 30))
            case 4:
                other = rng.choice(corpus)
                start = rng.randrange(len(other) + 1)
                data[at:end] = other[start : start + rng.choice((1, 4, 16, 64, LARGEST))]
            case 5:
                data[at:at] = bytes([rng.randrange(256)])
            case 6 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 7 if at < len(data):
                data[at] = rng.randrange(256)
            case 8 if at < len(data):
                data[at] = (data[at] + rng.choice((1, -1, 16))) % 256
            case _:
                del data[at:]
    return bytes(data[:LARGEST])


if __name__ == "__main__":
    sys.exit(main())
