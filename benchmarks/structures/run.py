"""Measures structures for a side of a book on the same operations; see docs/decisions/0005.

Run by ``make bench-structures``. First all structures are compared with each other and with the
core, level by level; then they take turns, a chunk of messages each, in one process.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from operations import (
    Feed,
    follow_core,
    make_odd,
    make_sized,
    make_synthetic,
    make_traps,
    read_capture,
    write_operations,
)

HERE = Path(__file__).resolve().parent
REFERENCE = "flat"
# Books of 5,000 levels a side, and the distances of their prices in ticks.
SIZED = (("5,000 x 2", (1, 1, 1, 2, 3, 8)), ("5,000 x 2, sparse", range(1, 400)))


@dataclass(frozen=True)
class Plan:
    """How much is done; the numbers of books, and of chunks for each.

    Attributes:
        messages: Of each stream, at most.
        every: Messages between two comparisons.
        books: Numbers of books in turn beside one.
        rounds: Runs of the program; books are loaded anew in each.
    """

    messages: int = 3_000
    every: int = 100
    books: tuple[int, ...] = (150, 500, 2_000)
    rounds: int = 3


QUICK = Plan(messages=300, every=50, books=(20,), rounds=1)


@dataclass(frozen=True)
class Figure:
    """Nanoseconds a change, and for the best 20 levels of both sides; and how many times faster.

    Attributes:
        apply: A change.
        top: The best 20 levels of both sides of a book that has just changed.
        apply_ratio: How many times faster a change is than with the reference.
        top_ratio: The same of the best levels.
    """

    apply: float
    top: float
    apply_ratio: float
    top_ratio: float


def compile_program(folder: Path, *flags: str) -> Path:
    """Compile the structures.

    Raises:
        RuntimeError: There is no C compiler, or it fails.
    """
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise RuntimeError(f'there is no C compiler "{compiler}"; on Debian: apt-get install gcc')
    program = folder / "structures"
    command = [compiler, "-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", *flags]
    command += [*os.environ.get("CFLAGS", "").split(), "-o", str(program)]
    command += map(str, sorted(HERE.glob("*.c")))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the structures do not compile:\n{done.stderr}")
    return program


def run_program(program: Path, *arguments: object) -> list[list[str]]:
    """Run the program; return its lines, split.

    Raises:
        RuntimeError: It failed, or found structures to differ.
    """
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def check(program: Path, feed: Feed, stream: Path, every: int, out: Path) -> list[str]:
    """Compare all structures with each other and with the core; return their names.

    Raises:
        RuntimeError: Any holds a level that another does not.
    """
    names = [name for name, _ in run_program(program, "check", stream, every, out)]
    with out.open("rb") as file:
        for number, wanted in enumerate(follow_core(feed, every)):
            if file.read(len(wanted)) != wanted:
                raise RuntimeError(
                    f"{feed.name}: the structures differ from the core at comparison {number}"
                )
        if file.read(1):
            raise RuntimeError(f"{feed.name}: more was written than the core holds")
    return names


def measure(
    program: Path, stream: Path, names: Sequence[str], rounds: int, *plan: int
) -> dict[str, Figure]:
    """Return the medians over all chunks, ratios being those within a chunk's turn."""
    applies: defaultdict[str, list[float]] = defaultdict(list)
    tops: defaultdict[str, list[float]] = defaultdict(list)
    asked = "/".join(["", *names, ""]) if names else ""
    for _ in range(rounds):
        *lines, last = run_program(program, "time", stream, asked, *plan)
        scale = float(last[1])
        for name, _, changes, messages, applying, reading in lines:
            applies[name].append(int(applying) * scale / int(changes))
            tops[name].append(int(reading) * scale / int(messages))
    return {
        name: Figure(
            statistics.median(applies[name]),
            statistics.median(tops[name]),
            statistics.median(
                a / b for a, b in zip(applies[REFERENCE], applies[name], strict=True)
            ),
            statistics.median(a / b for a, b in zip(tops[REFERENCE], tops[name], strict=True)),
        )
        for name in applies
    }


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"| {' | '.join(head)} |")
    print("|---" * len(head) + "|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def read_feeds(messages: int) -> list[Feed]:
    """Return the streams that can be had, and say why others cannot."""
    feeds = [make_synthetic(messages)]
    for market in ("spot", "usdm"):
        try:
            feeds.append(read_capture(market, messages))
        except FileNotFoundError as error:
            print(f"{market} is left out: {error}", file=sys.stderr)
    return feeds


def describe() -> str:
    """Return the machine and the compiler."""
    model = platform.machine()
    if (cpu := Path("/proc/cpuinfo")).exists():
        lines = cpu.read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if "model name" in x), model)
    compiler = os.environ.get("CC", "cc")
    version = subprocess.check_output([compiler, "--version"], text=True).splitlines()[0]
    return f"{model}, {os.cpu_count()} cores, {version}"


def choose_chunks(books: int, messages: int) -> tuple[int, int, int, int]:
    """Return messages of wear, untimed and timed sweeps of a chunk, and chunks."""
    if books == 1:
        timed = min(300, messages // 4)
        return 0, timed // 10, timed, (messages // (timed + timed // 10))
    wear = min(200, messages // 8)
    if messages < 1_000:
        return wear, 1, 4, 2
    if books <= 200:
        return wear, 1, 5, 20
    return (wear, 1, 4, 10) if books <= 600 else (wear, 1, 3, 5)


def main() -> int:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few hundred messages, one round")
    parser.add_argument("--only", default="", help="names of structures, with commas between")
    parser.add_argument("--books", default="", help="numbers of books in turn, with commas between")
    parser.add_argument("--portable", action="store_true", help="compile without AVX2")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan()
    rounds = options.rounds or plan.rounds
    names = options.only.split(",") if options.only else []
    many = tuple(map(int, options.books.split(","))) if options.books else plan.books
    flags = ["-DSTRUCTURES_PORTABLE"] if options.portable else []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        program = compile_program(folder, *flags)
        feeds = read_feeds(plan.messages)
        sized = [make_sized(*each, 300 if options.quick else 1_000) for each in SIZED]
        for feed in (*feeds, make_traps(), make_odd(), *sized):
            stream = folder / feed.name
            write_operations(feed, stream)
            known = check(program, feed, stream, plan.every, folder / "levels")
            print(f"{feed.name}: {len(known)} structures agree with the core", file=sys.stderr)
        print(f"{describe()}\n")
        times = {}
        for books in (1, *many):
            # Very many take long to load, and give as many figures in fewer rounds.
            some = rounds if books <= 200 else (rounds + 1) // 2
            times[books] = show_times(program, folder, feeds, names, some, books)
        sizes = show_sizes(program, folder, [*sized, *feeds])
        show_summary(feeds, times, sizes)
    return 0


def show_times(
    program: Path,
    folder: Path,
    feeds: Sequence[Feed],
    names: Sequence[str],
    rounds: int,
    books: int,
) -> list[dict[str, Figure]]:
    """Measure so many books in turn, and print the table; return the figures of each feed."""
    results = [
        measure(
            program,
            folder / each.name,
            names,
            rounds,
            books,
            *choose_chunks(books, len(each.messages)),
        )
        for each in feeds
    ]
    turns = f"{books:,} books in turn" if books > 1 else "One hot book"
    print(f"{turns}: times faster than {REFERENCE} (ns).\n")
    head = [f"{each.name}, {what}" for what in ("a change", "top 20 x 2") for each in feeds]
    rows = []
    for name in results[0]:
        row = [f"{each[name].apply_ratio:.2f} ({each[name].apply:.0f})" for each in results]
        row += [f"{each[name].top_ratio:.2f} ({each[name].top:.0f})" for each in results]
        rows.append([name, *row])
    show_table(["structure", *head], rows)
    return results


def show_sizes(program: Path, folder: Path, feeds: Sequence[Feed]) -> dict[str, list[str]]:
    """Print what books hold when loaded, and the most while all messages are applied."""
    sizes: defaultdict[str, list[str]] = defaultdict(list)
    for feed in feeds:
        for name, _, loaded, levels, after, most in run_program(
            program, "size", folder / feed.name
        ):
            text = f"{int(loaded) / 1e3:.0f} / {int(most) / 1e3:.0f}"
            sizes[name].append(f"{text} ({int(after) / int(levels):.0f})")
    print("kB a book, both sides: loaded / at most later (bytes a level at the end).\n")
    show_table(
        ["structure", *(each.name for each in feeds)],
        [[name, *each] for name, each in sizes.items()],
    )
    return sizes


def show_summary(
    feeds: Sequence[Feed],
    times: Mapping[int, list[dict[str, Figure]]],
    sizes: Mapping[str, Sequence[str]],
) -> None:
    """Print what decides in one table."""
    streams = " / ".join(each.name for each in feeds)
    print(f"How many times faster than {REFERENCE}, {streams}; kB a book of 5,000 levels a side.\n")
    turns = [f"{books:,} books in turn" if books > 1 else "one hot book" for books in times]
    tops = [f"top 20 x 2, {each}" for each in turns[:2]]
    rows = []
    for name in times[1][0]:
        row = [" / ".join(f"{x[name].apply_ratio:.2f}" for x in each) for each in times.values()]
        row += [
            " / ".join(f"{x[name].top_ratio:.2f}" for x in each)
            for each in list(times.values())[: len(tops)]
        ]
        rows.append([name, *row, sizes[name][0].split(" (")[0], sizes[name][1].split(" (")[0]])
    show_table(["structure", *turns, *tops, "kB loaded / at most", "the same, sparse"], rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(f"bench-structures: {error}")
