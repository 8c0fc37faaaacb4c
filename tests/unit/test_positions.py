"""The file of a sink's position."""

from __future__ import annotations

from pathlib import Path

import pytest

from obframe import StorageError
from obframe.positions import Positions

START = 1_700_000_000


def test_it_comes_back_and_is_replaced(tmp_path: Path) -> None:
    positions = Positions(tmp_path / "state")
    assert positions.load("jsonl") is None
    for second in (START, START + 1):
        positions.save("jsonl", second)
        assert Positions(tmp_path / "state").load("jsonl") == second
    path = positions.path("jsonl")
    assert path is not None
    assert path.read_text() == f'{{"sink":"jsonl","delivered_to":{START + 1}}}\n'
    assert [each.name for each in path.parent.iterdir()] == ["jsonl.json"]


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"sink":"jsonl"}', '{"sink":"other","delivered_to":1700000000}',
     '{"sink":"jsonl","delivered_to":-1}', '{"sink":"jsonl","delivered_to":1700000000000}'],
)  # fmt: skip
def test_one_that_is_not_understood_is_refused_with_the_mend(tmp_path: Path, text: str) -> None:
    (tmp_path / "jsonl.json").write_text(text)
    with pytest.raises(StorageError, match=r"jsonl\.json: .*remove it to let the sink begin"):
        Positions(tmp_path).load("jsonl")
