"""Installs obframe from the checkout and the peers, into the environment that runs this.

What cannot be installed is left out, and why is written down for the table.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What a build needs; it goes on in a copy, so that it leaves nothing in the checkout.
SOURCES = (
    "obframe",
    "plugins",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)


def pip(*arguments: str) -> str:
    """Run pip install; return why it failed, or nothing."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_NO_INPUT": "1"},
    )
    if done.returncode == 0:
        return ""
    return choose_reason(done.stdout + "\n" + done.stderr)


def choose_reason(output: str) -> str:
    """Return the line of pip's output that says what is wrong, as well as one can."""
    lines = [line.strip() for line in output.splitlines()]
    for pattern in (r"fatal error: ", r"^\w*Error: ", r"^error: ", r"^ERROR: "):
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            return found[0][:160]
    return next((line for line in reversed(lines) if line), "pip gave no reason")[:160]


def read_requirements(text: str) -> tuple[list[str], list[str]]:
    """Return the requirements that come with their dependencies, and those without."""
    whole, bare = [], []
    for line in text.splitlines():
        requirement, _, remark = line.partition("#")
        if requirement.strip():
            (bare if "no dependencies" in remark else whole).append(requirement.strip())
    return whole, bare


def install_obframe() -> str:
    """Build and install obframe from the checkout; return why it failed, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        for name in SOURCES:
            source, target = ROOT / name, Path(folder, name)
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.so")
                shutil.copytree(source, target, ignore=ignored)
            else:
                shutil.copy(source, target)
        return pip("--force-reinstall", "--no-deps", folder) or pip(folder)


def install_peers(requirements: str, skipped: set[str]) -> dict[str, str]:
    """Install all that can be; return why the others could not, by distribution."""
    reasons = {}
    whole, bare = read_requirements(requirements)
    chosen = [each for each in whole if each.partition("==")[0] not in skipped]
    if pip(*chosen):
        for each in chosen:
            if reason := pip(each):
                reasons[each.partition("==")[0]] = f"cannot be installed: {reason}"
    for each in bare:
        name = each.partition("==")[0]
        if name not in skipped and (reason := pip("--no-deps", each)):
            reasons[name] = f"cannot be installed: {reason}"
    reasons.update(dict.fromkeys(skipped, "skipped on this machine"))
    return reasons


def main(arguments: list[str]) -> int:
    """Install ``obframe``, or the peers except those named; write the reasons into a file."""
    if arguments == ["obframe"]:
        reason = install_obframe()
        sys.stderr.write(reason + "\n" if reason else "")
        return 1 if reason else 0
    target, *skipped = arguments
    text = (HERE / "requirements.txt").read_text(encoding="utf-8")
    reasons = install_peers(text, set(skipped))
    for name, reason in reasons.items():
        sys.stderr.write(f"{name} {reason}\n")
    Path(target).write_text(json.dumps(reasons, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
