"""The built wheel: what is in it, and that it works outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def call(*command: str | Path, cwd: Path, environ: dict[str, str] | None = None) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build source distribution and, from it, the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def names(built: Path) -> set[str]:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_module_is_in_the_wheel(names: set[str]) -> None:
    for package, folder in (("obframe", ROOT / "obframe"), ("obframe_plugins", ROOT / "plugins")):
        for pattern in ("*.py", "*.pyi"):
            for path in folder.rglob(pattern):
                assert f"{package}/{path.relative_to(folder).as_posix()}" in names
        assert f"{package}/py.typed" in names
    assert any(name.startswith("obframe/_core.") and name.endswith(".so") for name in names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_nothing_else_is_in_the_wheel(names: set[str]) -> None:
    for name in names:
        assert name.startswith(("obframe/", "obframe_plugins/", "obframe-")), name
        assert not name.endswith((".c", ".pyx", ".html", ".pyc")), name
        assert "test_" not in name, name


def test_the_source_distribution_holds_source_only(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        held = content.getnames()
    assert any(name.endswith("/obframe/_core.pyx") for name in held)
    assert any(name.endswith("/plugins/rocksdb.py") for name in held)
    made = [name for name in held if name.endswith((".c", ".so", ".pyc"))]
    assert not [name for name in made if "/benchmarks/structures/" not in name]


def test_the_wheel_works_in_a_clean_environment(built: Path, tmp_path: Path) -> None:
    """Installed with nothing but its own dependencies, far from the checkout."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    (wheel,) = built.glob("*.whl")
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OBFRAME_", "PYTHON")) and name != "PERSISTENT_SYMBOLS"
    }
    python = environment / "bin" / "python"
    call(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path, environ=environ)
    obframe = environment / "bin" / "obframe"
    where = call(
        python, "-c", "import obframe; print(obframe.__file__)", cwd=tmp_path, environ=environ
    )
    assert Path(where.strip()).is_relative_to(environment)
    listed = call(obframe, "plugins", "--format", "csv", cwd=tmp_path, environ=environ)
    for name in ("binance", "file", "memory", "rocksdb", "runtime", "static", "top"):
        assert f"\n{name}," in listed
    shown = call(obframe, "demo", "--seconds", "4", cwd=tmp_path, environ=environ)
    for part in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "a row"):
        assert part in shown
