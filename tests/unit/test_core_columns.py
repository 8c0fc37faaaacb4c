"""Rows into columns: what is kept, the scales, what is refused and what the columns hold then."""

from __future__ import annotations

import sys
import threading
from array import array
from typing import Any

import msgpack
import numpy as np
import pytest

from obframe._core import ColumnDecoder, Level, Snapshot
from obframe.errors import CapacityError, DecodeError

SECOND = 1_737_158_400
GOLDEN = bytes.fromhex(
    "94 91 92 a6 31 30 30 2e 35 30 a3 31 2e 35 91 92 a6 31 30 30 2e 36 30 a3 32 2e 30"
    "cd 30 39 ce 67 8a ef 00"
)
LEVEL_COLUMNS = ("bid_prices", "bid_quantities", "ask_prices", "ask_quantities")
Arrays = dict[str, Any]


def make_arrays(rows: int, depth: int = 20, kind: Any = np.int64) -> Arrays:
    """Make columns full of rubbish, as numpy.empty may."""
    arrays: Arrays = {name: np.full((rows, depth), 77, kind) for name in LEVEL_COLUMNS}
    for name in ("bid_counts", "ask_counts"):
        arrays[name] = np.full(rows, 77, np.uint16)
    arrays["update_ids"] = np.full(rows, 77, np.uint64)
    arrays["timestamps"] = np.full(rows, 77, np.int64)
    return arrays


def pack(
    bids: list[Level], asks: list[Level] | None = None, update_id: int = 5, timestamp: int = SECOND
) -> bytes:
    return Snapshot("X", update_id, timestamp, bids, asks or []).pack()


def price(text: str) -> bytes:
    return pack([(text, "1")])


def quantity(text: str) -> bytes:
    return pack([("1", text)])


def listed(arrays: Arrays, rows: int | None = None) -> dict[str, list[Any]]:
    return {name: column[:rows].tolist() for name, column in arrays.items()}


def test_the_golden_vector() -> None:
    arrays = make_arrays(1, 2)
    decoder = ColumnDecoder(2, **arrays)
    assert (decoder.depth, decoder.capacity, len(decoder)) == (2, 1, 0)
    decoder.extend([GOLDEN])
    assert (decoder.price_scale, decoder.quantity_scale, len(decoder)) == (1, 1, 1)
    assert listed(arrays) == {
        "bid_prices": [[1005, 0]],
        "bid_quantities": [[15, 0]],
        "ask_prices": [[1006, 0]],
        "ask_quantities": [[20, 0]],
        "bid_counts": [1],
        "ask_counts": [1],
        "update_ids": [12345],
        "timestamps": [SECOND],
    }
    assert repr(decoder) == "<ColumnDecoder 1 of 1 rows, depth 2, scales 1 and 1>"


def test_doubles_are_those_of_python() -> None:
    arrays = make_arrays(1, 2, np.float64)
    ColumnDecoder(2, **arrays).extend([GOLDEN])
    assert arrays["bid_prices"].tolist() == [[100.5, 0.0]]
    assert arrays["ask_quantities"].tolist() == [[2.0, 0.0]]


@pytest.mark.parametrize("map_form", [False, True])
def test_the_map_form_and_larger_forms_are_read(map_form: bool) -> None:
    values = {"bids": [["1.5", "2"]], "asks": [], "update_id": 3, "timestamp": -4}
    rows = [msgpack.packb(values if map_form else list(values.values()))]
    if map_form:
        rows.append(msgpack.packb(dict(reversed(values.items()))))
    rows.append(
        b"\x94\xdc\x00\x01\xdd\x00\x00\x00\x02\xd9\x031.5\xda\x00\x012\x90"
        b"\xcf" + (3).to_bytes(8) + b"\xd3" + (-4).to_bytes(8, signed=True)
    )
    arrays = make_arrays(len(rows), 1)
    ColumnDecoder(1, **arrays).extend(rows)
    for name, expected in {
        "bid_prices": [15],
        "bid_quantities": [2],
        "ask_prices": [0],
        "bid_counts": 1,
        "ask_counts": 0,
        "update_ids": 3,
        "timestamps": -4,
    }.items():
        assert arrays[name].tolist() == [expected] * len(rows), name


def test_missing_levels_are_zero_and_further_ones_only_counted() -> None:
    deep = [(f"{100 - i}.5", f"{i + 1}") for i in range(6)]
    arrays = make_arrays(3, 4)
    ColumnDecoder(4, **arrays).extend([pack(deep, []), pack([], deep[:2]), pack([], [])])
    assert arrays["bid_prices"].tolist() == [[1005, 995, 985, 975], [0] * 4, [0] * 4]
    assert arrays["bid_quantities"].tolist() == [[1, 2, 3, 4], [0] * 4, [0] * 4]
    assert arrays["ask_prices"].tolist() == [[0] * 4, [1005, 995, 0, 0], [0] * 4]
    assert arrays["bid_counts"].tolist() == [6, 0, 0]
    assert arrays["ask_counts"].tolist() == [0, 2, 0]


def test_levels_beyond_the_depth_are_checked_as_text_alone() -> None:
    decoder = ColumnDecoder(1, **make_arrays(1, 1))
    decoder.extend([pack([("1", "2"), ("0.123456789", "9" * 70)])])
    assert (decoder.price_scale, decoder.quantity_scale) == (0, 0)
    bad = msgpack.packb([[["1", "2"], ["1", "2."]], [], 1, 1])
    with pytest.raises(DecodeError):
        ColumnDecoder(1, **make_arrays(1, 1)).extend([bad])


def test_counts_end_at_65535() -> None:
    arrays = make_arrays(2, 1)
    levels: list[Level] = [("1", "2")] * 65_536
    ColumnDecoder(1, **arrays).extend([pack(levels), pack([], levels[:65_534])])
    assert arrays["bid_counts"].tolist() == [65_535, 0]
    assert arrays["ask_counts"].tolist() == [0, 65_534]


def test_columns_that_are_not_asked_for_are_left_out() -> None:
    rows = [pack([("100.25", "1" * 40)], [("101", "0." + "1" * 30)])] * 2
    whole = make_arrays(2, 3)
    for name in ("bid_prices", "ask_counts", "timestamps", "update_ids"):
        arrays = {name: whole[name]}
        decoder = ColumnDecoder(3, **arrays)
        decoder.extend(rows)
        assert len(decoder) == 2
    assert whole["bid_prices"].tolist() == [[10025, 0, 0]] * 2
    assert whole["update_ids"].tolist() == [5, 5]
    assert whole["bid_quantities"].tolist() == [[77] * 3] * 2


def test_a_side_may_be_of_two_types() -> None:
    prices, quantities = np.empty(2, np.int64), np.empty(2, np.float64)
    decoder = ColumnDecoder(1, bid_prices=prices, bid_quantities=quantities)
    decoder.extend([pack([("1.5", "0.1")]), pack([("2.25", "9" * 30)])])
    assert prices.tolist() == [150, 225]
    assert quantities.tolist() == [0.1, 1e30]
    assert (decoder.price_scale, decoder.quantity_scale) == (2, 0)


def test_any_writable_buffer_of_the_right_items_will_do() -> None:
    flat = array("q", [0] * 4)
    shaped = memoryview(bytearray(32)).cast("q", (2, 2))
    decoder = ColumnDecoder(2, bid_prices=flat, ask_prices=shaped)
    rows = [bytearray(GOLDEN), memoryview(b"-" + GOLDEN + b"-")[1:-1]]
    decoder.extend(iter(rows))
    assert flat.tolist() == [1005, 0, 1005, 0]
    assert shaped.tolist() == [[1006, 0], [1006, 0]]
    with pytest.raises(BufferError):
        flat.append(1)  # held in its place


def test_scales_widen_with_what_comes_and_what_is_in_follows() -> None:
    arrays = make_arrays(5, 1)
    decoder = ColumnDecoder(1, **arrays)
    steps: list[tuple[str, str, int, int]] = [
        ("100.00000000", "3.000", 0, 0),  # trailing zeros need no decimals
        ("100.50000000", "3", 1, 0),
        ("100.5", "0.00001000", 1, 5),
        ("0.123456789012", "7.5", 12, 5),
        ("0.1", "0.0", 12, 5),
    ]
    for at, (price_text, quantity_text, *scales) in enumerate(steps, 1):
        decoder.extend([pack([(price_text, quantity_text)], [(price_text, quantity_text)])])
        assert [decoder.price_scale, decoder.quantity_scale] == scales
        for side in ("bid", "ask"):
            for kind, scale, column in (("prices", scales[0], 0), ("quantities", scales[1], 1)):
                found = arrays[f"{side}_{kind}"][:at, 0].tolist()
                assert found == [round(float(step[column]) * 10**scale) for step in steps[:at]]


def test_a_given_scale_stays_and_a_finer_value_is_refused() -> None:
    prices, quantities = np.zeros(4, np.int64), np.zeros(4, np.int64)
    decoder = ColumnDecoder(
        1, bid_prices=prices, bid_quantities=quantities, price_scale=2, quantity_scale=8
    )
    decoder.extend([pack([("7.10000000", "1")])])
    with pytest.raises(CapacityError) as caught:
        decoder.extend([pack([("7.2", "1")]), pack([("7.125", "1")]), pack([("7", "1")])])
    error = caught.value
    assert (error.row, error.field, error.value, error.symbol) == (1, "bids[0].price", "7.125", "")
    assert str(error) == (
        "row 1: bids[0].price = '7.125' does not fit: the column was given 2 decimals; "
        "without a scale it widens"
    )
    assert len(decoder) == 2
    decoder.extend([pack([("7", "2.5")])])
    assert prices[:3].tolist() == [710, 720, 700]
    assert quantities[:3].tolist() == [10**8, 10**8, 250_000_000]
    assert (decoder.price_scale, decoder.quantity_scale) == (2, 8)


@pytest.mark.parametrize("scale", range(19))
def test_the_largest_of_every_scale_fits_and_one_more_does_not(scale: int) -> None:
    digits = str(2**63 - 1).rjust(scale + 1, "0")
    beyond = str(2**63).rjust(scale + 1, "0")

    def point(text: str) -> str:
        return f"{text[: len(text) - scale]}.{text[len(text) - scale :]}" if scale else text

    prices = np.empty(2, np.int64)
    decoder = ColumnDecoder(1, bid_prices=prices, price_scale=scale)
    decoder.extend([price(point(digits)), price("000" + point(digits) + "000" * bool(scale))])
    assert prices.tolist() == [2**63 - 1] * 2
    decoder.clear()
    with pytest.raises(CapacityError) as caught:
        decoder.extend([price(point(beyond))])
    assert caught.value.value == point(beyond)
    assert f"with {scale} decimals int64 ends at" in caught.value.limit


def test_a_scale_does_not_widen_over_what_is_in() -> None:
    quantities = np.empty(3, np.int64)
    decoder = ColumnDecoder(1, bid_quantities=quantities)
    decoder.extend([quantity("9000000000"), quantity("1.5")])
    with pytest.raises(CapacityError) as caught:
        decoder.extend([quantity("0.0000000001")])
    assert caught.value.field == "bids[0].quantity"
    assert caught.value.value == "0.0000000001"
    assert "at 10 decimals what is in the columns already exceeds 64 bits" in caught.value.limit
    assert (decoder.quantity_scale, len(decoder)) == (1, 2)
    assert quantities[:2].tolist() == [90_000_000_000, 15]
    decoder.extend([quantity("0.5")])
    assert quantities.tolist() == [90_000_000_000, 15, 5]


def test_a_refused_row_leaves_no_trace_in_the_scales() -> None:
    decoder = ColumnDecoder(2, **make_arrays(3, 2))
    fine_and_wide = pack([("0.000000000000000001", "1")], [("100", "1")])
    damaged = pack([("1", "0.123")])[:-1]
    with pytest.raises(CapacityError) as caught:
        decoder.extend([GOLDEN, fine_and_wide])
    assert (caught.value.row, caught.value.field) == (1, "asks[0].price")
    with pytest.raises(DecodeError):
        decoder.extend([damaged])
    assert (decoder.price_scale, decoder.quantity_scale, len(decoder)) == (1, 1, 1)


@pytest.mark.parametrize(
    "text", [str(2**101), "123456789012345678901.5", "0." + "1" * 19, "9" * 70, "1." + "7" * 300]
)
def test_what_exceeds_64_bits_names_its_row_and_doubles_take_it(text: str) -> None:
    rows = [GOLDEN, pack([("1", "2"), ("0.5", text)])]
    decoder = ColumnDecoder(2, **make_arrays(2, 2))
    with pytest.raises(CapacityError) as caught:
        decoder.extend(rows)
    assert (caught.value.row, caught.value.field) == (1, "bids[1].quantity")
    assert caught.value.value == text[:80]
    assert Snapshot.unpack(rows[1]).bids[1][1] == text
    arrays = make_arrays(2, 2, np.float64)
    ColumnDecoder(2, **arrays).extend(rows)
    assert arrays["bid_quantities"][1].tolist() == [2.0, float(text)]


DOUBLES = [
    *("0", "0.0", "000", "00.100", "1", "12345678", "123456789", "12345678901", "123456789012"),
    *("0.1", "0.30", "9007199254740991", "9007199254740992", "9007199254740993"),
    *("90071992.54740993", "90071992.54740991", "0.9007199254740993", "99999999999.99999999"),
    *("1" * 400, "9" * 309, "0." + "0" * 320 + "1", "0." + "0" * 400 + "1", "1." + "0" * 200),
    *("0.000000000000000000001", "0.0000000000000000000000000000123456789012345"),
    *("9007199254740992.5", "9007199254740993.0000000000000000000000001", "0.5" + "0" * 90 + "1"),
    *("179769313486231580793" + "0" * 288, "0." + "0" * 323 + "49406"),
]


@pytest.mark.parametrize("locale_point", [False, True])
def test_doubles_are_rounded_as_float_does(locale_point: bool) -> None:
    if locale_point:
        locale = pytest.importorskip("locale")
        before = locale.setlocale(locale.LC_NUMERIC)
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "C.UTF-8"):
            try:
                locale.setlocale(locale.LC_NUMERIC, name)
                break
            except locale.Error:
                continue
        try:
            assert_rounded()
        finally:
            locale.setlocale(locale.LC_NUMERIC, before)
    else:
        assert_rounded()


def assert_rounded() -> None:
    values = np.empty(len(DOUBLES))
    ColumnDecoder(1, bid_quantities=values).extend([quantity(text) for text in DOUBLES])
    assert [value.hex() for value in values.tolist()] == [float(text).hex() for text in DOUBLES]


def test_row_50_a_damaged_row_is_named_and_those_before_it_are_in() -> None:
    arrays = make_arrays(4, 2)
    decoder = ColumnDecoder(2, **arrays)
    rows = [GOLDEN, price("1.25"), GOLDEN[:-1], price("2")]
    with pytest.raises(DecodeError) as caught:
        decoder.extend(rows)
    with pytest.raises(DecodeError) as alone:
        Snapshot.unpack(rows[2])
    error = caught.value
    assert (error.row, error.offset, error.reason) == (2, alone.value.offset, alone.value.reason)
    assert str(error) == f"cannot decode row 2 at byte {error.offset}: {error.reason}"
    assert alone.value.row is None
    assert len(decoder) == 2
    decoder.extend(rows[error.row + 1 :])
    assert arrays["bid_prices"][:3, 0].tolist() == [10050, 125, 200]


def test_more_rows_than_there_is_room_for_are_refused_whole() -> None:
    arrays = make_arrays(2, 1)
    decoder = ColumnDecoder(1, **arrays)
    decoder.extend([GOLDEN])
    with pytest.raises(ValueError, match="2 rows for columns with room for 1 more"):
        decoder.extend([GOLDEN, GOLDEN])
    assert len(decoder) == 1
    decoder.clear()
    assert (len(decoder), decoder.price_scale) == (0, 1)
    decoder.extend([price("3"), price("4")])
    assert arrays["bid_prices"].tolist() == [[30], [40]]


def test_rows_must_be_bytes() -> None:
    decoder = ColumnDecoder(1, **make_arrays(9, 1))
    wrong: list[Any] = [GOLDEN, "text", bytearray(GOLDEN), memoryview(GOLDEN), None, 5]
    for rows in wrong:
        with pytest.raises(TypeError):
            decoder.extend(rows)
    for row in (None, "text", 5, [GOLDEN]):
        with pytest.raises(TypeError, match=r"rows\[1\] must be bytes"):
            decoder.extend([GOLDEN, row])
    decoder.extend([])
    assert len(decoder) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "no column"),
        ({"depth": 0}, ValueError, "depth"),
        ({"depth": 65_536}, ValueError, "depth"),
        ({"depth": 1.0}, TypeError, "depth"),
        ({"price_scale": 19}, ValueError, "0 to 18"),
        ({"price_scale": -1}, ValueError, "0 to 18"),
        ({"quantity_scale": True}, TypeError, "int or None"),
        ({"bid_prices": [1]}, TypeError, "bytes-like"),
        ({"bid_prices": b"12345678" * 20}, TypeError, "int64 or float64"),
        ({"bid_prices": memoryview(b"12345678" * 20).cast("q")}, ValueError, "read-only"),
        ({"bid_prices": np.empty(20, np.uint64)}, TypeError, "int64 or float64"),
        ({"bid_prices": np.empty(20, np.float32)}, TypeError, "int64 or float64"),
        ({"bid_prices": np.empty(20, ">i8")}, TypeError, "int64 or float64"),
        ({"bid_prices": np.empty(30, np.int64)}, ValueError, "no multiple"),
        ({"bid_prices": np.empty((20, 1), np.int64)}, ValueError, "shape"),
        ({"bid_prices": np.empty((20, 2), np.int64).T}, ValueError, "contiguous"),
        ({"bid_prices": np.empty((4, 40), np.int64)[:, ::2]}, ValueError, "contiguous"),
        ({"update_ids": np.empty(1, np.int64)}, TypeError, "uint64"),
        ({"timestamps": np.empty(1, np.uint64)}, TypeError, "int64"),
        ({"timestamps": np.empty(1)}, TypeError, "int64"),
        ({"bid_counts": np.empty(1, np.uint8)}, TypeError, "uint16"),
        ({"timestamps": np.empty(1, np.int64), "bid_prices": np.empty(40)}, ValueError, "room"),
        (
            {"timestamps": memoryview(bytearray(17))[1:].cast("q")},
            ValueError,
            "misaligned",
        ),
    ],
)
def test_columns_that_cannot_be_filled_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    if set(arguments) <= {"depth", "price_scale", "quantity_scale"} and arguments:
        arguments = {"timestamps": np.empty(1, np.int64), **arguments}
    with pytest.raises(error, match=message):
        ColumnDecoder(**arguments)


def test_columns_that_share_memory_are_refused() -> None:
    """What one wrote would be overwritten by the other, without a word."""
    whole = np.zeros((4, 3, 2), np.int64)
    first: Arrays = {"bid_prices": whole[0], "timestamps": np.zeros(3, np.int64)}
    for other in (whole[0], whole.reshape(-1)[5:11], whole.reshape(-1)[1:7].view(np.float64)):
        with pytest.raises(ValueError, match="ask_quantities shares memory with bid_prices"):
            ColumnDecoder(2, **first, ask_quantities=other)
    with pytest.raises(ValueError, match="ask_counts shares memory with timestamps"):
        ColumnDecoder(2, **first, ask_counts=first["timestamps"].view(np.uint16)[3:6])
    beside = dict(zip(LEVEL_COLUMNS, whole, strict=True))
    ColumnDecoder(2, **beside).extend([pack([("1.5", "2")], [("3", "4.25")])])
    assert whole[:, 0].tolist() == [[15, 0], [200, 0], [30, 0], [425, 0]]
    empty = np.empty(0, np.int64)
    assert ColumnDecoder(2, bid_prices=empty, ask_prices=empty).capacity == 0


def test_a_decoder_is_made_once_and_lives_without_being_made() -> None:
    decoder = ColumnDecoder(1, **make_arrays(1, 1))
    with pytest.raises(TypeError, match="made already"):
        decoder.__init__(1, **make_arrays(1, 1))  # type: ignore[misc]
    unmade = ColumnDecoder.__new__(ColumnDecoder)
    with pytest.raises(ValueError, match="room for 0 more"):
        unmade.extend([GOLDEN])
    assert (unmade.capacity, len(unmade)) == (0, 0)


def test_many_rows_are_decoded_while_other_threads_run() -> None:
    rows = [pack([(f"{100 + at % 7}.{at % 100:02}", str(at))], update_id=at) for at in range(1000)]
    arrays = [make_arrays(len(rows), 1) for _ in range(4)]
    decoders = [ColumnDecoder(1, **each) for each in arrays]
    threads = [threading.Thread(target=each.extend, args=(rows,)) for each in decoders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in arrays[1:]:
        assert listed(each) == listed(arrays[0])
    assert arrays[0]["update_ids"].tolist() == list(range(1000))


def test_a_decoder_is_for_one_thread_at_a_time() -> None:
    """While one thread decodes, another is refused: tried until the two meet."""
    rows = [GOLDEN] * 200_000
    decoder = ColumnDecoder(1, timestamps=np.empty(len(rows), np.int64))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    met = False
    try:
        for _ in range(200):
            thread = threading.Thread(target=decoder.extend, args=(rows,))
            thread.start()
            while thread.is_alive():
                try:
                    decoder.extend([])
                except RuntimeError:
                    met = True
            thread.join()
            decoder.clear()
            if met:
                break
    finally:
        sys.setswitchinterval(interval)
    assert met


def test_an_over_long_row_reads_nothing_behind_its_end() -> None:
    """A row as short as can be, with digits where the next eight bytes would be."""
    for row in (b"\x94\x91\x92\xa11\xa12\x901" + b"1", b"\x94\x90\x91\x92\xa19\xa19" + b"77"):
        arrays = make_arrays(1, 1)
        ColumnDecoder(1, **arrays).extend([row])
        snapshot = Snapshot.unpack(row)
        side = "bid" if snapshot.bids else "ask"
        ((price_text, quantity_text),) = snapshot.bids or snapshot.asks
        assert arrays[f"{side}_prices"].tolist() == [[int(price_text)]]
        assert arrays[f"{side}_quantities"].tolist() == [[int(quantity_text)]]
        assert arrays["update_ids"].tolist() == [snapshot.update_id]
