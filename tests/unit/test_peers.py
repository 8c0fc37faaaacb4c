"""The judge of `make bench-peers`: it catches wrong books and tells who is missing, and why."""

from __future__ import annotations

import importlib
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "benchmarks" / "peers"
NAMES = (
    "data",
    "streams",
    "base",
    "books",
    "clients",
    "engines",
    "adapters",
    "agreement",
    "report",
    "worker",
    "install",
    "run",
)


class Modules:
    """The runner's modules, which lie in no package."""

    adapters: Any
    agreement: Any
    base: Any
    books: Any
    install: Any
    report: Any
    run: Any
    streams: Any
    worker: Any


@pytest.fixture(scope="module")
def peers() -> Iterator[Modules]:
    path = list(sys.path)
    before: dict[str, ModuleType] = {
        name: sys.modules.pop(name) for name in NAMES if name in sys.modules
    }
    sys.path.insert(0, str(FOLDER))
    loaded = Modules()
    for name in NAMES[1:]:
        setattr(loaded, name, importlib.import_module(name))
    yield loaded
    sys.path[:] = path
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.fixture
def no_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of every worker's modules: a slow orjson, and an order-book that breaks."""
    (tmp_path / "orjson.py").write_text("from json import loads\n")
    (tmp_path / "order_book.py").write_text("raise ImportError('built for another Python')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def judge(peers: Modules, kind: Any, feed: Any, **changes: Any) -> dict[str, Any]:
    points = peers.agreement.choose_points(len(feed.messages))
    truth = peers.agreement.follow_reference(feed, points)
    seen = peers.agreement.follow_peer(kind, feed, points)
    found: dict[str, Any] = peers.agreement.judge(
        seen, truth, points, changes.get("numbers", kind.numbers), kind.tolerance
    )
    return found


@pytest.fixture
def obframe(peers: Modules) -> Any:
    peers.books.Obframe.require()
    return peers.books.Obframe


def test_obframe_is_right_on_every_stream(peers: Modules, obframe: Any) -> None:
    for feed in (peers.streams.make_synthetic(100), peers.streams.make_traps()):
        verdict = judge(peers, obframe, feed)
        assert verdict == {"wrong": 0, "points": 12, "first": None, "digits": True}, feed.name


@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_obframe_is_right_on_captures(peers: Modules, obframe: Any, market: str) -> None:
    try:
        feed = peers.streams.read_capture(market, 300)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    events = [json.loads(message)["data"] for message in feed.messages]
    if market == "spot":
        ids = [(event["U"] - 1, event["u"]) for event in events]
    else:
        ids = [(event["pu"], event["u"]) for event in events]
    start = json.loads(feed.snapshot)["lastUpdateId"]
    assert ids[0][0] <= start <= ids[0][1], "the first message does not meet the snapshot"
    assert all(after[0] == before[1] for before, after in pairwise(ids))
    assert judge(peers, obframe, feed)["wrong"] == 0


def make_wrong(obframe: Any, spoil: Any) -> Any:
    class Wrong(obframe):  # type: ignore[misc]
        def levels(self) -> Any:
            bids, asks = self.top()
            return spoil(list(bids)), list(asks)

    return Wrong


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda bids: bids[:-1], "after 0 messages 19 bids of 20"),
        (lambda bids: bids[::-1], "after 0 messages bid 1 is "),
        (lambda bids: [*bids[:4], ("1.00", "0.000"), *bids[4:-1]], "bid 5 is 1.00 x 0.000, not "),
        (lambda bids: [(p, q[:-1]) for p, q in bids], "bid 1 is "),
    ],
    ids=["level missing", "wrong way round", "empty level kept", "digit lost"],
)
def test_a_wrong_book_is_caught(peers: Modules, obframe: Any, spoil: Any, told: str) -> None:
    verdict = judge(peers, make_wrong(obframe, spoil), peers.streams.make_traps())
    assert verdict["wrong"] == 12
    assert told in verdict["first"]


def test_a_book_that_sorts_texts_is_caught_once_a_price_gains_a_digit(
    peers: Modules, obframe: Any
) -> None:
    class Sorting(obframe):  # type: ignore[misc]
        def levels(self) -> Any:
            bids, asks = self.book.bids(), self.book.asks()
            return sorted(bids, reverse=True)[:20], sorted(asks)[:20]

    verdict = judge(peers, Sorting, peers.streams.make_traps())
    assert 0 < verdict["wrong"] <= 12
    assert judge(peers, Sorting, peers.streams.make_synthetic(20))["wrong"] == 0


def test_numbers_are_compared_as_exactly_as_their_kind_can_say(peers: Modules) -> None:
    same = peers.base.same_number
    assert same("1.50", "1.50", "text")
    assert not same("1.5", "1.50", "text")
    assert same("1.5", "1.50", "decimal")
    assert not same("1.5000000000000000001", "1.50", "decimal")
    assert same(0.1, "0.100", "float")
    assert not same(0.1 + 1e-17 + 2e-17, "0.1", "float")
    assert same(0.1 + 1e-12, "0.1", "float", 1e-9)
    assert not same(0.1 + 1e-9, "0.1", "float", 1e-9)


def test_a_peer_that_shows_too_little_is_wrong(peers: Modules) -> None:
    verdict = peers.agreement.judge([], [([], [])], [0], "text")
    assert verdict["wrong"] == 1


def test_best_is_the_first_of_top(peers: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orjson", json)  # as far as it is used
    feed = peers.streams.make_synthetic(20)
    for name in ("obframe", "dict-text", "dict-float", "sortedcontainers"):
        kind = peers.adapters.PEERS[name]
        kind.require()
        book = peers.agreement.open_book(kind, feed)
        book.load(feed.snapshot)
        for message in feed.messages:
            book.apply(message)
        best = [side if isinstance(side, tuple) else (side,) for side in book.best()]
        assert best == [tuple(side[0])[: len(best[0])] for side in book.levels()], name


def tell(peers: Modules, *names: str, reasons: dict[str, str] | None = None) -> Any:
    plan = peers.run.Plan(messages=20, chunk=10, passes=1, row_passes=1, books=2, rounds=3)
    feeds = [peers.streams.make_synthetic(plan.messages)]
    many = peers.streams.make_many(plan.books, plan.rounds)
    run = peers.run.Run(names, feeds, peers.streams.make_traps(), many, plan, reasons)
    with run.working():
        run.check()
        run.measure()
        run.measure_many()
    summary = run.summarize()
    return summary, peers.report.render(summary, feeds, ["spot: no captures"], plan, "a machine")


@pytest.mark.usefixtures("no_peers")
def test_a_missing_peer_is_told_and_the_rest_is_measured(peers: Modules) -> None:
    names = ("obframe", "parse", "dict-text", "sortedcontainers", "order-book", "nautilus")
    reasons = {"nautilus_trader": "cannot be installed: no wheel"}
    summary, text = tell(peers, *names, reasons=reasons)
    assert summary["order-book"]["reason"] == "ImportError: built for another Python"
    assert summary["order-book"]["figures"] == {}
    assert summary["nautilus"]["reason"] == reasons["nautilus_trader"]
    assert "order-book (C), float is **left out**: ImportError: built for another Python." in text
    assert "nautilus_trader (Rust book) is **left out**: cannot be installed: no wheel." in text
    assert "Left out: spot: no captures." in text
    for name in ("obframe", "dict-text", "sortedcontainers"):
        figures = summary[name]["figures"]
        assert set(figures) == {"b syn", "t syn", "c syn", "d syn", "e syn", "many"}
        assert all(spent > 0 and ratio > 0 for spent, ratio in figures.values())
        assert not any(verdict["wrong"] for verdict in summary[name]["verdicts"].values())
    assert set(summary["parse"]["figures"]) == {"b syn", "many"}
    assert all(figure[1] == 1 for figure in summary["obframe"]["figures"].values())


def test_a_wrong_peer_is_measured_and_marked(peers: Modules, no_peers: Path) -> None:
    package = no_peers / "binance" / "ws"
    package.mkdir(parents=True)
    (package / "depthcache.py").write_text(
        """
class DepthCache:
    def __init__(self, symbol):
        self.sides = {}, {}
    def add_bid(self, level):
        self.sides[0][float(level[0])] = float(level[1])
    def add_ask(self, level):
        self.sides[1][float(level[0])] = float(level[1])
    def get_bids(self):
        return sorted(self.sides[0].items(), reverse=True)
    def get_asks(self):
        return sorted(self.sides[1].items())
"""
    )
    summary, text = tell(peers, "obframe", "python-binance")
    verdict = summary["python-binance"]["verdicts"]["syn"]
    assert verdict["wrong"] > 0
    assert f"**wrong** on `syn` at {verdict['wrong']} of 12 points: after " in text
    assert "| **wrong** on `syn`, `traps` |" in text
    assert summary["python-binance"]["figures"]["e syn"][0] > 0


@pytest.mark.parametrize("work", ["c", "d"])
def test_a_call_is_timed_on_a_book_that_has_just_changed(peers: Modules, work: str) -> None:
    """A peer that keeps what it made is fast when asked again, and slow as after every change."""

    class Keeping:
        changed = False

        def apply(self, _: bytes) -> None:
            self.changed = True

        def top(self) -> None:
            end = time.perf_counter() + (50e-6 if self.changed else 0)
            while time.perf_counter() < end:
                pass
            self.changed = False

        row = top

    assert peers.worker._WORKS[work](Keeping(), (b"",) * 50) >= 49


def start(peers: Modules, tmp_path: Path, program: str) -> Any:
    return peers.run.Worker("any", tmp_path, (sys.executable, "-c", program))


def test_a_worker_that_dies_is_told_with_its_last_words(peers: Modules, tmp_path: Path) -> None:
    program = "import sys; sys.stderr.write('first\\nSegmentation fault\\n'); sys.exit(3)"
    worker = start(peers, tmp_path, program)
    with pytest.raises(peers.run.PeerFailed, match=r"^ended with code 3: Segmentation fault$"):
        worker.read()
    with pytest.raises(peers.run.PeerFailed, match=r"gone|ended"):
        worker.ask("check")
    worker.close()


def test_a_worker_that_hangs_is_given_up(
    peers: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers.run, "PATIENCE", 0.1)
    worker = start(peers, tmp_path, "import time; time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(peers.run.PeerFailed, match="no answer"):
        worker.read()
    assert time.monotonic() - began < 30
    assert worker.process.poll() is not None


def test_ratios_are_of_the_same_chunk(peers: Modules) -> None:
    base = {0: 1.0, 1: 10.0, 2: 100.0}
    theirs = {0: 2.0, 1: 20.0, 2: 200.0}
    assert peers.run.compare(theirs, base) == (20.0, 2.0)
    assert peers.run.compare({1: 30.0}, base) == (30.0, 3.0)


def test_points_begin_and_end_the_stream(peers: Modules) -> None:
    assert peers.agreement.choose_points(110, 3) == [0, 55, 110]
    assert peers.agreement.choose_points(2, 12) == [0, 1, 2]


def test_every_peer_has_a_pinned_version(peers: Modules) -> None:
    whole, bare = peers.install.read_requirements((FOLDER / "requirements.txt").read_text())
    pinned = dict(each.split("==") for each in (*whole, *bare))
    assert all(pinned.values())
    packages = {kind.package for kind in peers.adapters.PEERS.values()} - {"obframe"}
    assert packages <= set(pinned)
    assert bare == [f"hummingbot=={pinned['hummingbot']}"]


def test_what_cannot_be_installed_is_kept_with_the_reason(
    peers: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def pip(*arguments: str) -> str:
        asked.append(arguments)
        return "no wheel" if any("bad" in each for each in arguments) else ""

    monkeypatch.setattr(peers.install, "pip", pip)
    text = "# all\ngood==1\nbad==2\nslow==3  # no dependencies\n"
    assert peers.install.install_peers(text, {"slow"}) == {
        "bad": "cannot be installed: no wheel",
        "slow": "skipped on this machine",
    }
    assert asked == [("good==1", "bad==2"), ("good==1",), ("bad==2",)]


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("Collecting x\n  a.cpp:1:2: fatal error: ranges: No such file\nERROR: Failed", "fatal"),
        ("  ModuleNotFoundError: No module named 'setuptools'\nnote: pip\n", "ModuleNotFound"),
        ("ERROR: No matching distribution found for x\n", "ERROR: No matching"),
        ("all quiet\n", "all quiet"),
        ("", "pip gave no reason"),
    ],
)
def test_the_reason_is_the_line_that_says_it(peers: Modules, output: str, reason: str) -> None:
    assert reason in peers.install.choose_reason(output)


def make_summary(values: Sequence[float]) -> dict[str, Any]:
    return {
        "obframe" if index == 0 else f"peer{index}": {
            "title": f"peer <{index}>",
            "package": "x",
            "version": "1",
            "numbers": "float",
            "note": "",
            "reason": "",
            "verdicts": {},
            "bytes": 250_000.0,
            "figures": dict.fromkeys(
                ("b syn", "t syn", "many", "c syn", "d syn", "e syn"), (value, value / values[0])
            ),
        }
        for index, value in enumerate(values)
    }


@pytest.mark.parametrize("values", [(2.0, 20.0, 300.0), (1.0,), (0.1, 0.1)])
def test_plots_are_well_formed_and_bars_grow(peers: Modules, values: tuple[float, ...]) -> None:
    text = peers.report.draw_bars(make_summary(values), "b syn", "a & b")
    plot = ElementTree.fromstring(text)
    bars = [
        float(bar.attrib["width"])
        for bar in plot.iter("{http://www.w3.org/2000/svg}rect")
        if bar.attrib["fill"] != "#ffffff"
    ]
    assert len(bars) == len(values)
    assert bars == sorted(bars)


def test_the_page_gets_tables_and_plots(peers: Modules, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- peers -->\nold\n<!-- end of peers -->\nafter\n")
    feed = peers.streams.make_synthetic(10)
    out = io.StringIO()
    peers.report.write_report(make_summary((2.0, 20.0)), [feed], [], peers.run.QUICK, tmp_path, out)
    text = page.read_text()
    assert text.startswith("before\n<!-- peers -->\nMeasured on ")
    assert text.endswith("\n<!-- end of peers -->\nafter\n")
    assert "old" not in text
    assert out.getvalue() in text
    assert "| peer <1> 1 | float |  | 20.0 (10.0x) | 20.0 (10.0x) | 20.0 (10.0x) | 250 kB |" in text
    for name in peers.report.PLOTS:
        ElementTree.parse(tmp_path / name)
    with pytest.raises(ValueError, match="0 parts"):
        peers.report.replace_part("no markers", "text")


def test_the_page_of_the_project_has_its_part(peers: Modules) -> None:
    text = (ROOT / "docs" / peers.report.PAGE).read_text(encoding="utf-8")
    assert peers.report.replace_part(text, "x\n") != text
    for name in peers.report.PLOTS:
        assert f"({name})" in text
