"""The measured figures as Markdown and as plots."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import sysconfig
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, TextIO

Summary = dict[str, dict[str, Any]]

PAGE = "performance.md"
_PART = re.compile(r"(<!-- peers -->\n).*?(<!-- end of peers -->)", re.DOTALL)
PLOTS = {
    "performance-update.svg": "b syn",
    "performance-many.svg": "many",
    "performance-row.svg": "e syn",
}


def write_report(
    summary: Summary,
    feeds: Sequence[Any],
    skipped: Sequence[str],
    plan: Any,
    docs: Path | None,
    out: TextIO,
) -> None:
    """Show the tables, and write them and the plots into the pages.

    Args:
        summary: What ``Run.summarize`` returned.
        feeds: The streams that were timed.
        skipped: Why others were not.
        plan: How much was done.
        docs: The folder of ``performance.md``; None writes nothing.
        out: Where the tables are shown.
    """
    text = render(summary, feeds, skipped, plan, describe_machine() + describe_checkout())
    out.write(text)
    if docs is None:
        return
    page = docs / PAGE
    page.write_text(replace_part(page.read_text(encoding="utf-8"), text), encoding="utf-8")
    titles = {
        "performance-update.svg": "Raw message to updated book, one hot book, synthetic stream",
        "performance-many.svg": f"Raw message to updated book, {plan.books} books in turn",
        "performance-row.svg": "Raw message to MessagePack row of the best 20, every message",
    }
    for name, figure in PLOTS.items():
        (docs / name).write_text(draw_bars(summary, figure, titles[name]), encoding="utf-8")


def replace_part(page: str, text: str) -> str:
    """Return a page with the part between its markers replaced.

    Raises:
        ValueError: The page has no such part.
    """
    page, count = _PART.subn(lambda found: found[1] + text + found[2], page)
    if count != 1:
        raise ValueError(f"{count} parts between <!-- peers --> and <!-- end of peers -->")
    return page


def describe_machine() -> str:
    """Name the processor, the system and how this Python was built."""
    model = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)[1].strip()  # type: ignore[index]
    except (OSError, TypeError):
        pass
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    built = "with PGO" if "--enable-optimizations" in options else "without PGO"
    return (
        f"{model}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()} {built} "
        f"({platform.python_compiler()})"
    )


def describe_checkout() -> str:
    """Name the commit that obframe was built from, if this is a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=, changed"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", obframe at {done.stdout.strip()}"


def render(
    summary: Summary, feeds: Sequence[Any], skipped: Sequence[str], plan: Any, machine: str
) -> str:
    """Return the tables in Markdown."""
    names = [feed.name for feed in feeds]
    measured = [name for name, each in summary.items() if each["figures"]]
    parts = [
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {machine}.",
        "Streams: " + "; ".join(map(_describe_feed, feeds)) + ".",
        *(f"Left out: {each}." for each in skipped),
        "**From raw messages to the book**: microseconds of CPU time a message, and how many "
        "times obframe's.",
        _table(
            (
                "",
                "numbers",
                "right",
                *names,
                f"{plan.books} books",
                *(f"to best, {name}" for name in names),
                "memory a book",
            ),
            (
                (
                    _name(summary[name]),
                    summary[name]["numbers"],
                    _right(summary[name]),
                    *(_cell(summary[name], f"b {feed}") for feed in names),
                    _cell(summary[name], "many"),
                    *(_cell(summary[name], f"t {feed}") for feed in names),
                    _size(summary[name]["bytes"]),
                )
                for name in measured
            ),
        ),
        "**To the best 20 of both sides**: the same, for one call (two columns), and for raw "
        "message to row on every message.",
        _table(
            ("", "every digit", "top 20", "row", *(f"raw to row, {name}" for name in names)),
            (
                (
                    _name(summary[name]),
                    _digits(summary[name]),
                    _cell(summary[name], f"c {names[0]}"),
                    _cell(summary[name], f"d {names[0]}"),
                    *(_cell(summary[name], f"e {feed}") for feed in names),
                )
                for name in measured
                if any(figure.startswith("e ") for figure in summary[name]["figures"])
            ),
        ),
        _list(_remarks(summary)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _describe_feed(feed: Any) -> str:
    count = len(feed.messages)
    return f"`{feed.name}` {feed.title}, {count:,} messages of {feed.changes / count:.0f} changes"


def _remarks(summary: Summary) -> Iterable[str]:
    for each in summary.values():
        title = each["title"]
        for feed, verdict in each["verdicts"].items():
            if verdict["wrong"]:
                yield (
                    f"{title} is **wrong** on `{feed}` at {verdict['wrong']} of "
                    f"{verdict['points']} points: {verdict['first']}."
                )
        if each["note"]:
            yield f"{title}: {each['note']}"
        if each["reason"]:
            done = " in part" if each["figures"] else ""
            yield f"{title} is **left out**{done}: {each['reason']}."


def _name(each: dict[str, Any]) -> str:
    version = each["version"]
    return each["title"] + (f" {version}" if version and each["package"] != "orjson" else "")


def _right(each: dict[str, Any]) -> str:
    verdicts = each["verdicts"]
    if not verdicts:
        return ""
    wrong = [f"`{feed}`" for feed, verdict in verdicts.items() if verdict["wrong"]]
    return "**wrong** on " + ", ".join(wrong) if wrong else "yes"


def _digits(each: dict[str, Any]) -> str:
    said = [verdict["digits"] for verdict in each["verdicts"].values()]
    return "yes" if said and all(said) else "no"


def _cell(each: dict[str, Any], figure: str) -> str:
    if figure not in each["figures"]:
        return ""
    spent, ratio = each["figures"][figure]
    return f"{_round(spent)} ({_round(ratio)}x)"


def _round(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _size(size: float | None) -> str:
    return "" if size is None else f"{size / 1e3:,.0f} kB"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def draw_bars(summary: Summary, figure: str, title: str) -> str:
    """Return a figure of all peers as horizontal bars on a logarithmic scale, as SVG.

    Args:
        summary: What ``Run.summarize`` returned.
        figure: Which of its figures.
        title: What it shows.
    """
    bars = sorted(
        (each["figures"][figure][0], each["title"], name == "obframe")
        for name, each in summary.items()
        if figure in each["figures"]
    )
    left, wide, step, head = 250, 430, 24, 46
    width, height = left + wide + 90, head + step * len(bars) + 34
    low = math.floor(math.log10(min(bar[0] for bar in bars)))
    high = max(math.ceil(math.log10(max(bar[0] for bar in bars))), low + 1)

    def place(value: float) -> float:
        return left + wide * (math.log10(value) - low) / (high - low)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    bottom = head + step * len(bars)
    for power in range(low, high + 1):
        x = place(10.0**power)
        lines += [
            f'<line x1="{x:.1f}" y1="{head - 6}" x2="{x:.1f}" y2="{bottom}" stroke="#d8dee4"/>',
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#57606a">'
            f"{10.0**power:g} us</text>",
        ]
    for index, (value, name, is_ours) in enumerate(bars):
        y = head + step * index
        colour = "#1a7f37" if is_ours else "#8c959f"
        weight = ' font-weight="bold"' if is_ours else ""
        lines += [
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end"{weight}>{escape(name)}</text>',
            f'<rect x="{left}" y="{y + 3}" width="{max(1.0, place(value) - left):.1f}" '
            f'height="{step - 7}" fill="{colour}"/>',
            f'<text x="{place(value) + 6:.1f}" y="{y + 15}"{weight}>{_round(value)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
