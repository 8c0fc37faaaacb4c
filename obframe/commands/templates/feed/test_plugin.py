"""The contract of feeds, and what is this one's own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from obframe import Instrument, InvalidEvent

from obframe_myplugin.contract import DepthContract
from obframe_myplugin.plugin import FeedSettings, read_snapshot, read_update

BTCUSDT = Instrument("BTCUSDT")
UPDATE = {
    "e": "depthUpdate",
    "E": 1_737_158_400_123,
    "s": "BTCUSDT",
    "U": 157,
    "u": 160,
    "b": [["100.50", "1.500"]],
    "a": [["100.60", "0.000"]],
}


class TestContract(DepthContract):
    """Every rule that a feed must keep."""


def test_obframe_takes_the_plugin() -> None:
    command = [sys.executable, "-m", "obframe", "plugins", "show", "myplugin"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "section [myplugin]" in shown.stdout


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"ws_url": "somewhere"}, "ws_url must begin with ws"),
        ({"rest_url": "somewhere"}, "rest_url must begin with http"),
        ({"retry": 0.0}, "retry must be more than 0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    settings: dict[str, str | float], mistake: str
) -> None:
    with pytest.raises(ValueError, match=mistake):
        FeedSettings(**settings)  # type: ignore[arg-type]


def test_an_update_is_read_digit_for_digit() -> None:
    update = read_update(json.dumps(UPDATE), BTCUSDT)
    assert update.symbol == "BTCUSDT"
    ids = (update.prev_update_id, update.first_update_id, update.last_update_id)
    assert ids == (156, 157, 160)
    assert update.bids == [("100.50", "1.500")]
    assert update.asks == [("100.60", "0.000")]


def test_a_snapshot_is_read_digit_for_digit() -> None:
    answer = {"lastUpdateId": 160, "bids": [["100.50", "1.500"]], "asks": []}
    snapshot = read_snapshot(json.dumps(answer), BTCUSDT)
    assert snapshot.last_update_id == 160
    assert snapshot.bids == [("100.50", "1.500")]


@pytest.mark.parametrize("price", ["-1", "1e5", "NaN", ""])
def test_a_price_that_cannot_be_is_refused(price: str) -> None:
    with pytest.raises(InvalidEvent):
        read_update(json.dumps({**UPDATE, "b": [[price, "1"]]}), BTCUSDT)
