"""Runs safety/threads.py on a Python without GIL, under ThreadSanitizer where that Python has it.

Such a Python is looked for under the names given. Where there is none, the reason is printed and
nothing is tested, which fails with OBFRAME_REQUIRE_FREE_THREADED=1.

One for the sanitizer is CPython configured with --disable-gil --with-thread-sanitizer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from corebuild import ROOT, build_copy, copy_environment

HERE = Path(__file__).resolve().parent
FOLDER = ROOT / "build/free-threaded"
ASK = """
import json, sys, sysconfig
free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
sanitized = "thread-sanitizer" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
print(json.dumps([free, sanitized, sys.version.split()[0]]))
"""
SANITIZER = ("-fsanitize=thread", "-g1", "-O1", "-fno-omit-frame-pointer")


def main(names: list[str]) -> int:
    """Test with every interpreter of the names that has no GIL."""
    tested = failed = 0
    for name in names:
        found = shutil.which(name)
        if found is None:
            continue
        free, sanitized, version = json.loads(subprocess.check_output([found, "-c", ASK]))
        if not free:
            sys.stdout.write(f"{name} is a Python with GIL\n")
            continue
        sys.stdout.write(f"{name}: {version}{', ThreadSanitizer' if sanitized else ''}\n")
        sys.stdout.flush()
        tested += 1
        failed |= test(found, FOLDER / f"{version}{'-sanitized' if sanitized else ''}", sanitized)
    if not tested:
        sys.stdout.write(
            f"not tested without GIL: no Python of that kind among {', '.join(names)}; "
            "name one: make free-threaded FREE_THREADED_PYTHON=...\n"
        )
        return int(os.environ.get("OBFRAME_REQUIRE_FREE_THREADED") == "1")
    return failed


def test(interpreter: str, folder: Path, sanitized: bool) -> int:
    """Build the core for an interpreter and drive it from many threads; return the exit code."""
    # Else a sanitizer's Python finds no room for its shadow, or reports while it builds.
    prefix = [shutil.which("setarch") or "setarch", "-R"] if sanitized else []
    os.environ["TSAN_OPTIONS"] = "report_bugs=0"
    python = folder / "venv/bin/python"
    if not python.exists():
        subprocess.run([*prefix, interpreter, "-m", "venv", folder / "venv"], check=True)
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*prefix, *install, *needs], check=True)
    core = build_copy(folder / "core", SANITIZER if sanitized else (), python=str(python))
    # The core alone: what the rest of obframe needs may not be there for this interpreter.
    (core / "obframe/__init__.py").write_text("")
    environment = copy_environment(core)
    environment["TSAN_OPTIONS"] = "halt_on_error=1:exitcode=66"
    # A module that does not declare itself safe brings the GIL back with a warning: an error here.
    command = [*prefix, str(python), "-W", "error", "-P", str(HERE / "threads.py")]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
