"""Fixtures that every part may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def captures() -> Path:
    """Return the folder of recorded market data, or skip the test.

    It is ``OBFRAME_CAPTURES``, by default ``../shared/captures`` beside the project. With
    ``OBFRAME_REQUIRE_CAPTURES=1`` a missing folder fails the test instead.
    """
    setting = os.environ.get("OBFRAME_CAPTURES")
    folder = Path(setting) if setting else ROOT.parent / "shared" / "captures"
    if not (folder / "spot").is_dir() or not (folder / "usdm").is_dir():
        message = f"no captures in {folder}; set OBFRAME_CAPTURES to where they lie"
        if os.environ.get("OBFRAME_REQUIRE_CAPTURES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder
