"""The contract of sinks, and what is this one's own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from obframe import Snapshot

from obframe_myplugin.contract import PostingContract
from obframe_myplugin.plugin import SinkSettings, row_of


class TestContract(PostingContract):
    """Every rule that a sink must keep."""


def test_obframe_takes_the_plugin() -> None:
    command = [sys.executable, "-m", "obframe", "plugins", "show", "myplugin"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "section [myplugin]" in shown.stdout


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"url": "somewhere"}, "url must begin with http"),
        ({"rows_per_post": 0}, "rows_per_post must be 1 or more"),
        ({"timeout": 0.0}, "timeout must be more than 0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    settings: dict[str, str | float], mistake: str
) -> None:
    with pytest.raises(ValueError, match=mistake):
        SinkSettings(**settings)  # type: ignore[arg-type]


def test_numbers_are_posted_as_the_venue_wrote_them() -> None:
    row = row_of(Snapshot("BTCUSDT", 7, 1_737_158_400, [("100.50", "1.500")], []))
    assert row == {
        "id": "BTCUSDT:1737158400",
        "symbol": "BTCUSDT",
        "timestamp": 1_737_158_400,
        "update_id": 7,
        "bids": [("100.50", "1.500")],
        "asks": [],
    }
