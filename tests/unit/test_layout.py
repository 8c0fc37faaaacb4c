"""One JSON and one CSV layout, for sinks, files and the command line alike."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe import (
    SNAPSHOT_COLUMNS,
    DecodeError,
    Snapshot,
    snapshot_from_json,
    snapshot_id,
    snapshot_to_cells,
    snapshot_to_json,
)

DIGITS = "0123456789"
PRICES = st.builds(
    lambda whole, fraction: f"{whole}.{fraction}" if fraction else whole,
    st.text(DIGITS, min_size=1, max_size=9),
    st.text(DIGITS, max_size=8),
)
SIDES = st.lists(st.tuples(PRICES, PRICES), max_size=20)


def test_a_message_is_the_documented_text_to_the_byte() -> None:
    snapshot = Snapshot("BTCUSDT", 12, 1_737_158_400, [("100.50", "1.5")], [("100.60", "2.0")])
    assert snapshot_to_json(snapshot) == (
        b'{"symbol":"BTCUSDT","timestamp":1737158400,"update_id":12,'
        b'"bids":[["100.50","1.5"]],"asks":[["100.60","2.0"]]}'
    )
    assert snapshot_id(snapshot) == "BTCUSDT:1737158400"


@given(
    st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=":."), min_size=1),
    st.integers(0, 2**63 - 1), st.integers(10**9, 10**10 - 1), SIDES, SIDES,
)  # fmt: skip
def test_what_comes_back_is_what_went_out(
    symbol: str,
    update_id: int,
    second: int,
    bids: list[tuple[str, str]],
    asks: list[tuple[str, str]],
) -> None:
    snapshot = Snapshot(symbol, update_id, second, bids, asks)
    message = snapshot_to_json(snapshot)
    assert b"\n" not in message
    assert snapshot_from_json(message) == snapshot
    assert set(json.loads(message)) == {"symbol", "timestamp", "update_id", "bids", "asks"}
    cells = snapshot_to_cells(snapshot)
    assert len(cells) == len(SNAPSHOT_COLUMNS) == 83
    by_name = dict(zip(SNAPSHOT_COLUMNS, cells, strict=True))
    for side, levels in (("bid", bids), ("ask", asks)):
        padded = [*levels, *[("", "")] * (20 - len(levels))]
        for number, level in enumerate(padded, 1):
            named = by_name[f"{side}{number}_price"], by_name[f"{side}{number}_quantity"]
            assert named == level


@pytest.mark.parametrize("data", [b"", b"{}", b'{"symbol":1}', b"[1]", b"\xff", b'{"symbol":"A"'])
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match="no snapshot in JSON"):
        snapshot_from_json(data)
