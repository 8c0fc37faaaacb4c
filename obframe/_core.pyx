# cython: language_level=3, auto_pickle=False, embedsignature=False, initializedcheck=False, autotestdict=False, freethreading_compatible=True
"""The compiled core: depth messages, books, snapshots and their bytes.

Prices and quantities are exact decimals in fixed point: what comes out is what came in, digit for
digit, trailing zeros included. No float, and no Python object per level, stands anywhere inside.

Layout. A price is an unsigned 64-bit count of units at a scale that its message or book shares
(8 decimals, up to 18 when a price needs them). A quantity is a 102-bit mantissa as written. The
number of decimals as written, of both, takes 5 bits each. A slot of a book takes 18 bytes; four
more as soon as a quantity of its side has one of the bits 64 to 95.

A side of a book is a sorted array with its best price at the end: keys ascend, where a bid's key
is its price and an ask's key is the bitwise complement of its price, both less 2**63: signed numbers
are what processors compare many of at once. Both sides run the same code.
A slot of the array whose bit in ``live`` is off is a hole: deleting clears the bit, inserting moves
levels only as far as the next hole. Every 64th key stands in ``coarse`` too, where a search begins,
and every 8th in ``fine``, where it goes on. What is plain C stands in ``_core.h``, of reading levels
in ``_levels.h``, of books in ``_book.h``, and of stored rows in ``_rows.h``.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.stdint cimport (
    INT64_MAX, INT64_MIN, UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
)
from libc.stdlib cimport qsort, strtod
from libc.string cimport memcmp, memcpy, memmove, memset

from obframe.errors import (
    CapacityError, DecodeError, InvalidEvent, MalformedMessage, SequenceError
)

Level = tuple[str, str]


cdef extern from "_core.h":
    ctypedef unsigned long long u128 "obf_u128"
    ctypedef struct Change "obf_change":
        uint64_t price
        uint64_t low
        uint32_t high
        uint16_t form
    const bint OBF_SIMD "obf_simd"
    const bint FREE_THREADED "OBF_FREE_THREADED"
    void obf_choose(bint)
    int obf_read8(const uint8_t *, uint64_t *) noexcept nogil
    const uint8_t *obf_read_short(const uint8_t *, uint64_t *, int *) noexcept nogil
    bint obf_is_depth_update(const uint8_t *) noexcept nogil
    bint obf_is_stream(const uint8_t *) noexcept nogil
    bint obf_is_data(const uint8_t *) noexcept nogil
    int obf_plain16(const uint8_t *) noexcept nogil
    int obf_write_short(uint8_t *, uint32_t, uint32_t, int) noexcept nogil
    bint __builtin_mul_overflow(uint64_t, uint64_t, uint64_t *) noexcept nogil
    int __builtin_ctzll(unsigned long long) noexcept nogil
    int __builtin_clzll(unsigned long long) noexcept nogil
    int __builtin_popcountll(unsigned long long) noexcept nogil
    void __builtin_prefetch(const void *) noexcept nogil


cdef extern from "_levels.h":
    ctypedef struct Quotes "obf_quotes":
        const uint8_t *start
        const uint8_t *end
    const uint8_t *obf_read_levels(
        Quotes *, const uint8_t *, const uint8_t *, const uint8_t *, Change *, Py_ssize_t,
        Py_ssize_t *,
    ) noexcept nogil


cdef extern from "_book.h":
    ctypedef struct Rest "obf_rest":  # a level, without its key and what Side.highs has of it
        uint64_t low
        uint16_t form
    ctypedef struct Side "obf_side":
        void *memory
        int64_t *keys
        int64_t *fine
        int64_t *coarse
        uint64_t *live
        Rest *rests
        uint32_t *highs
        Py_ssize_t coarse_count
        Py_ssize_t count
        Py_ssize_t end
        Py_ssize_t room
        Py_ssize_t moved
        Py_ssize_t most
        int64_t edge
        bint edged
        void *top  # a Top
    ctypedef struct Work "obf_work":
        Side *sides[2]
        const Change *changes[2]
        Py_ssize_t counts[2]
        uint64_t factor
        int64_t best[2]
        Py_ssize_t unknown
    const uint64_t BID_FLIP "OBF_BID_FLIP"
    const uint64_t ASK_FLIP "OBF_ASK_FLIP"
    enum:
        BLOCK "OBF_BLOCK"  # slots of a side that one word of its bits tells about
        STEP "OBF_STEP"  # keys that a step of a search looks at, but the first
        GUARD "OBF_GUARD"  # keys before the first one, the smallest there is
        SPARE "OBF_SPARE"  # slots behind the last one that may be read and written, as they were
    void obf_index(Side *, Py_ssize_t, Py_ssize_t) noexcept nogil
    void obf_pack(const Side *, Py_ssize_t, Side *) noexcept nogil
    void obf_spread(Side *) noexcept nogil
    void obf_trim(Side *) noexcept nogil
    void obf_put(Side *, Py_ssize_t, const Change *) noexcept nogil
    bint obf_is_zero(const Change *) noexcept nogil
    bint obf_has_level(const Side *, int64_t) noexcept nogil
    void obf_apply(Work *) noexcept nogil


cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object, int *) except? -1
    void *PyMem_RawMalloc(size_t) noexcept nogil
    void *PyMem_RawCalloc(size_t, size_t) noexcept nogil
    void *PyMem_RawRealloc(void *, size_t) noexcept nogil
    void PyMem_RawFree(void *) noexcept nogil
    bint PyUnicode_IS_ASCII(object)
    void *PyUnicode_DATA(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    const Py_ssize_t PY_SSIZE_T_MAX


cdef enum:
    MAX_NESTING = 64
    MAX_TEXT = 64  # bytes of a decimal
    MAX_DECIMALS = 31  # five bits
    MAX_NUMBER = 56  # bytes that write_number may use, its header included
    BASE_SCALE = 8
    MAX_SCALE = 18
    QUANTITY_BITS = 102
    SHORT_LEVEL = 72  # bytes that reading a short level may look at
    NEAR_CHANGES = 128  # a side, before memory is asked for
    LINE = 64  # bytes of a line of the caches
    HEADER_LINES = 5  # of a message, up to where its second pair of levels may be
    TOP = 20  # levels whose text is kept
    TOP_TEXT = TOP * (1 + 2 * MAX_NUMBER)
    SHORT_TEXT = 32  # bytes of a level's text that are copied at once
    LEAST_KEPT = 4096
    KNOWN_TEXTS = 4096
    LONGEST_KNOWN = 16  # bytes

# What can be wrong with a value. Codes from CAPACITY_PRICE on are CapacityErrors.
cdef enum:
    OK = 0
    NOT_DECIMAL
    TOO_LONG
    NOT_POSITIVE
    NOT_PAIR
    NOT_STRING
    NOT_ARRAY
    NOT_INTEGER
    NEGATIVE
    TOO_LARGE
    TWICE
    MISSING
    EMPTY
    DISORDER
    BACKWARD
    NOT_UNICODE
    NOT_OBJECT
    NOT_SIDE
    CAPACITY_PRICE
    CAPACITY_PRICE_DECIMALS
    CAPACITY_QUANTITY
    CAPACITY_DECIMALS
    FAULT  # not well-formed: Reader.reason and Reader.p say what and where
    NO_MEMORY

cdef dict REASONS = {
    NOT_DECIMAL: "is not a plain decimal such as 12.50",
    TOO_LONG: "is longer than 64 bytes",
    NOT_POSITIVE: "must be above zero",
    NOT_PAIR: "is not a [price, quantity] pair",
    NOT_STRING: "is not a string",
    NOT_ARRAY: "is not an array",
    NOT_INTEGER: "is not an integer",
    NEGATIVE: "is negative",
    TOO_LARGE: "is above 2**63 - 1",
    TWICE: "stands twice in one object",
    MISSING: "is missing",
    EMPTY: "is empty",
    DISORDER: "is below the first update id",
    BACKWARD: "is above the event's own last update id",
    NOT_UNICODE: "is not valid Unicode",
    NOT_OBJECT: "is not an object",
    NOT_SIDE: "is neither bid nor offer",
    CAPACITY_PRICE: "a price fits 64 bits at the book's scale (8 decimals: up to 184467440737.09551615)",
    CAPACITY_PRICE_DECIMALS: "a price holds 18 decimals",
    CAPACITY_QUANTITY: "a quantity fits 102 bits, written digits taken as one integer",
    CAPACITY_DECIMALS: "31 decimals as written",
}

# Fields of the messages; FIELD_COUNT bits of Event.seen.
cdef enum:
    F_OTHER = 0
    F_TYPE
    F_TIME
    F_SYMBOL
    F_FIRST
    F_LAST
    F_PREV
    F_BIDS
    F_ASKS
    F_STREAM
    F_DATA

cdef dict EVENT_NAMES = {
    F_TYPE: "e", F_TIME: "E", F_SYMBOL: "s", F_FIRST: "U", F_LAST: "u", F_PREV: "pu",
    F_BIDS: "b", F_ASKS: "a", F_STREAM: "stream", F_DATA: "data",
}
cdef dict SNAPSHOT_NAMES = {F_LAST: "lastUpdateId", F_BIDS: "bids", F_ASKS: "asks"}

cdef enum:
    PART_WHOLE = 0
    PART_LEVEL
    PART_PRICE
    PART_QUANTITY


cdef struct Changes:
    Change *items
    Py_ssize_t count
    Py_ssize_t room
    bint borrowed  # the memory belongs to another
    bint wide  # a quantity may have any of the bits 64..95

cdef struct Best:  # the best levels of a side, as they were at some time
    int count
    uint16_t[TOP + 1] at  # where the levels' texts begin, and the end
    int64_t[TOP + 1] keys  # and the least there is
    Rest[TOP] rests

cdef struct Top:  # the best levels as they were packed last
    bint valid
    int turn  # which of the two these are; the other one takes the next
    Best[2] best
    uint8_t[TOP_TEXT + SHORT_TEXT] text

cdef struct Span:
    const uint8_t *start
    Py_ssize_t size
    bint escaped

cdef struct Issue:
    int code
    int field
    int part
    Py_ssize_t index
    const uint8_t *start
    Py_ssize_t size

cdef struct Reader:
    const uint8_t *start
    const uint8_t *p
    const uint8_t *end
    const char *reason
    bint futures
    bint snapshot
    Change *near  # memory for the first changes of so many more sides
    int near_left
    Quotes *quotes

cdef struct Event:
    unsigned int seen
    bint is_depth
    int64_t first
    int64_t last
    int64_t prev
    int64_t time
    int scale
    Span symbol
    Span stream
    Changes bids
    Changes asks
    Issue issue  # the first value refused
    Issue wrapper_issue  # the same of the wrapper's own fields


cdef uint64_t[20] POW10
cdef int _power
POW10[0] = 1
for _power in range(1, 20):
    POW10[_power] = POW10[_power - 1] * 10

cdef uint64_t SHORT_LIMIT = 10**16

obf_choose(True)

cdef const char *PAIRS = (
    b"00010203040506070809101112131415161718192021222324"
    b"25262728293031323334353637383940414243444546474849"
    b"50515253545556575859606162636465666768697071727374"
    b"75767778798081828384858687888990919293949596979899"
)


# ---------------------------------------------------------------------------------------------
# Decimals
# ---------------------------------------------------------------------------------------------

cdef int read_decimal(
    const uint8_t **at, const uint8_t *end, u128 *mantissa, int *decimals
) noexcept nogil:
    """Read ``(0|[1-9][0-9]*)(\\.[0-9]+)?`` and leave ``at`` behind it."""
    cdef const uint8_t *p = at[0]
    cdef const uint8_t *first = p
    cdef const uint8_t *point = NULL
    cdef const uint8_t *stop
    cdef uint64_t value = 0
    cdef unsigned int digit
    cdef u128 wide
    cdef Py_ssize_t digits

    if end - p > MAX_TEXT + 1:  # one more, to tell what is too long
        end = p + MAX_TEXT + 1
    # The sum may wrap here; it is taken only when the digits are few enough not to.
    while p < end:
        digit = <unsigned int>p[0] - 48
        if digit > 9:
            break
        value = value * 10 + digit
        p += 1
    digits = p - first
    if digits == 0 or (digits > 1 and first[0] == c'0'):
        return NOT_DECIMAL
    if p < end and p[0] == c'.':
        p += 1
        point = p
        while p < end:
            digit = <unsigned int>p[0] - 48
            if digit > 9:
                break
            value = value * 10 + digit
            p += 1
        if p == point:
            return NOT_DECIMAL
        digits += p - point
        decimals[0] = <int>(p - point)
    else:
        decimals[0] = 0
    at[0] = p
    if p - first > MAX_TEXT:
        return TOO_LONG
    if digits <= 19:
        mantissa[0] = value
        return OK
    # Leading zeros ("0.000…") do not count against the 38 digits that 128 bits surely hold.
    stop = p
    p = first
    wide = 0
    digits = 0
    while p < stop:
        if p[0] != c'.':
            digit = <unsigned int>p[0] - 48
            if wide != 0 or digit != 0:
                digits += 1
                if digits > 38:
                    return CAPACITY_QUANTITY
                wide = wide * 10 + digit
        p += 1
    mantissa[0] = wide
    return OK


cdef int rescale_changes(Changes *changes, uint64_t factor) noexcept nogil:
    """Multiply every price; an overflow leaves the changes unusable and is told."""
    cdef Py_ssize_t i
    cdef uint64_t limit = UINT64_MAX // factor
    for i in range(changes.count):
        if changes.items[i].price > limit:
            return CAPACITY_PRICE
        changes.items[i].price *= factor
    return OK


@cython.cdivision(True)
cdef int fit_price(
    u128 mantissa, int decimals, int *scale, Changes *bids, Changes *asks, uint64_t *price
) noexcept nogil:
    """Bring a price to the message's scale, or the whole message to the price's."""
    cdef int code
    cdef u128 product
    cdef uint64_t factor
    if mantissa == 0:
        return NOT_POSITIVE
    while decimals > BASE_SCALE and mantissa % 10 == 0:
        mantissa = mantissa // 10
        decimals -= 1
    if decimals > MAX_SCALE:
        return CAPACITY_PRICE_DECIMALS
    if mantissa > <u128>UINT64_MAX:
        return CAPACITY_PRICE
    if decimals > scale[0]:
        factor = POW10[decimals - scale[0]]
        code = rescale_changes(bids, factor)
        if code == OK:
            code = rescale_changes(asks, factor)
        if code != OK:
            return code
        scale[0] = decimals
    product = mantissa * POW10[scale[0] - decimals]
    if product > <u128>UINT64_MAX:
        return CAPACITY_PRICE
    price[0] = <uint64_t>product
    return OK


cdef int grow_changes(Changes *changes) noexcept nogil:
    cdef Py_ssize_t room = 32 if changes.room == 0 else changes.room * 2
    cdef void *items
    if changes.borrowed:
        items = PyMem_RawMalloc(<size_t>room * sizeof(Change))
        if items != NULL:
            memcpy(items, changes.items, <size_t>changes.count * sizeof(Change))
    else:
        items = PyMem_RawRealloc(changes.items, <size_t>room * sizeof(Change))
    if items == NULL:
        return NO_MEMORY
    changes.borrowed = False
    changes.items = <Change *>items
    changes.room = room
    return OK


cdef void trim_changes(Changes *changes) noexcept nogil:
    """Give back what growing took too much: messages wait in buffers while a book resyncs."""
    cdef void *items
    if changes.count == 0:
        PyMem_RawFree(changes.items)
        changes.items = NULL
        changes.room = 0
    elif changes.room > changes.count:
        items = PyMem_RawRealloc(changes.items, <size_t>changes.count * sizeof(Change))
        if items != NULL:
            changes.items = <Change *>items
            changes.room = changes.count


cdef inline void free_changes(Changes *changes) noexcept nogil:
    if changes.items != NULL:
        if not changes.borrowed:
            PyMem_RawFree(changes.items)
        memset(changes, 0, sizeof(Changes))


cdef int settle_changes(Changes *bids, Changes *asks) noexcept nogil:
    """Move both sides into one block of their own, which the bids own."""
    cdef Py_ssize_t count = bids.count + asks.count
    cdef bint wide_bids = bids.wide
    cdef bint wide_asks = asks.wide
    cdef Change *items
    if count == 0:
        free_changes(bids)
        free_changes(asks)
        return OK
    items = <Change *>PyMem_RawMalloc(<size_t>count * sizeof(Change))
    if items == NULL:
        return NO_MEMORY
    if bids.count:
        memcpy(items, bids.items, <size_t>bids.count * sizeof(Change))
    if asks.count:
        memcpy(items + bids.count, asks.items, <size_t>asks.count * sizeof(Change))
    count = bids.count
    free_changes(bids)
    bids.items = items
    bids.count = count
    bids.room = count
    bids.wide = wide_bids
    count = asks.count
    free_changes(asks)
    asks.items = items + bids.count
    asks.count = count
    asks.room = count
    asks.borrowed = True
    asks.wide = wide_asks
    return OK


cdef int add_price(
    Changes *changes, u128 mantissa, int decimals, int *scale, Changes *bids, Changes *asks
) noexcept nogil:
    """Fill the next change's price; it counts only when the quantity is there too."""
    cdef int code
    cdef uint64_t price = 0
    if decimals > MAX_DECIMALS:
        return CAPACITY_DECIMALS
    code = fit_price(mantissa, decimals, scale, bids, asks, &price)
    if code != OK:
        return code
    if changes.count == changes.room:
        code = grow_changes(changes)
        if code != OK:
            return code
    changes.items[changes.count].price = price
    changes.items[changes.count].form = <uint16_t>decimals
    return OK


cdef int add_quantity(Changes *changes, u128 mantissa, int decimals) noexcept nogil:
    cdef Change *change = &changes.items[changes.count]
    if decimals > MAX_DECIMALS:
        return CAPACITY_DECIMALS
    if mantissa >> QUANTITY_BITS != 0:
        return CAPACITY_QUANTITY
    change.low = <uint64_t>mantissa
    change.high = <uint32_t>(mantissa >> 64)
    changes.wide = changes.wide or change.high != 0
    change.form = <uint16_t>(
        change.form | (decimals << 5) | (<unsigned int>(mantissa >> 96) << 10)
    )
    changes.count += 1
    return OK


cdef Py_ssize_t write_number(uint8_t *target, u128 value, int decimals) noexcept nogil:
    """Write a mantissa with a decimal point; return the bytes written, at most 53."""
    cdef uint8_t[64] digits
    cdef int at = 64
    cdef int whole
    cdef int pair
    cdef uint64_t part
    cdef int least

    with cython.cdivision(True):
        while value > <u128>UINT64_MAX:
            part = <uint64_t>(value % POW10[18])
            value = value // POW10[18]
            least = at - 18
            while at > least:
                pair = <int>(part % 100) * 2
                part = part // 100
                at -= 2
                memcpy(&digits[at], PAIRS + pair, 2)
        part = <uint64_t>value
        while part >= 100:
            pair = <int>(part % 100) * 2
            part = part // 100
            at -= 2
            memcpy(&digits[at], PAIRS + pair, 2)
    if part >= 10:
        at -= 2
        memcpy(&digits[at], PAIRS + 2 * part, 2)
    elif part != 0 or at == 64:
        at -= 1
        digits[at] = <uint8_t>(48 + part)
    while 64 - at <= decimals:
        at -= 1
        digits[at] = c'0'
    whole = 64 - at - decimals
    memcpy(target, &digits[at], <size_t>whole)
    if decimals == 0:
        return whole
    target[whole] = c'.'
    memcpy(target + whole + 1, &digits[at + whole], <size_t>decimals)
    return whole + 1 + decimals


@cython.cdivision(True)
cdef Py_ssize_t write_price(
    uint8_t *target, uint64_t price, int scale, uint16_t form
) noexcept nogil:
    """Write a price with the decimals that it came with."""
    cdef int decimals = form & 31
    cdef Py_ssize_t size
    if scale == 8 and decimals <= 8 and price < SHORT_LIMIT:
        return obf_write_short(
            target, <uint32_t>(price // 100000000), <uint32_t>(price % 100000000), decimals
        )
    if decimals <= scale:
        return write_number(target, price // POW10[scale - decimals], decimals)
    size = write_number(target, price, scale)
    memset(target + size, c'0', <size_t>(decimals - scale))
    return size + decimals - scale


@cython.cdivision(True)
cdef inline Py_ssize_t write_quantity(
    uint8_t *target, uint64_t low, uint32_t high, uint16_t form
) noexcept nogil:
    cdef u128 value = low
    cdef int decimals = form >> 5 & 31
    cdef uint64_t whole
    cdef uint64_t unit
    if decimals <= 8 and high == 0 and form >> 10 == 0 and low < SHORT_LIMIT:
        if decimals == 8:  # the compiler divides by a constant much faster
            whole = low // 100000000
            unit = 100000000
        else:
            unit = POW10[decimals]
            whole = low // unit
        if whole < 100000000:
            return obf_write_short(
                target, <uint32_t>whole, <uint32_t>((low - whole * unit) * POW10[8 - decimals]),
                decimals,
            )
    value |= <u128>high << 64
    value |= <u128>(form >> 10) << 96
    return write_number(target, value, decimals)


cdef tuple make_level(
    uint64_t price, int scale, uint64_t low, uint32_t high, uint16_t form
):
    cdef char[64] text
    cdef Py_ssize_t size = write_price(<uint8_t *>text, price, scale, form)
    cdef str price_text = PyUnicode_DecodeASCII(text, size, NULL)
    size = write_quantity(<uint8_t *>text, low, high, form)
    return (price_text, PyUnicode_DecodeASCII(text, size, NULL))


cdef list list_changes(Changes *changes, int scale):
    cdef list levels = []
    cdef Py_ssize_t i
    cdef Change change
    for i in range(changes.count):
        change = changes.items[i]
        levels.append(make_level(change.price, scale, change.low, change.high, change.form))
    return levels


# ---------------------------------------------------------------------------------------------
# JSON
# ---------------------------------------------------------------------------------------------

cdef inline int fault(Reader *r, const uint8_t *at, const char *reason) noexcept nogil:
    r.p = at
    r.reason = reason
    return FAULT


cdef inline void skip_space(Reader *r) noexcept nogil:
    cdef const uint8_t *p = r.p
    while p < r.end and (p[0] == c' ' or p[0] == c'\n' or p[0] == c'\r' or p[0] == c'\t'):
        p += 1
    r.p = p


cdef int utf8_size(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Return the bytes of the character of two bytes or more at ``p``; 0 when it is not UTF-8."""
    cdef uint8_t c = p[0]
    cdef uint8_t low = 0x80
    cdef uint8_t high = 0xBF
    cdef int size
    cdef int i
    if c < 0xC2:
        return 0
    if c < 0xE0:
        size = 2
    elif c < 0xF0:
        size = 3
        if c == 0xE0:
            low = 0xA0
        elif c == 0xED:
            high = 0x9F
    elif c < 0xF5:
        size = 4
        if c == 0xF0:
            low = 0x90
        elif c == 0xF4:
            high = 0x8F
    else:
        return 0
    if end - p < size or p[1] < low or p[1] > high:
        return 0
    for i in range(2, size):
        if p[i] & 0xC0 != 0x80:
            return 0
    return size


cdef inline int hex_digit(uint8_t c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    if c'a' <= c <= c'f':
        return c - c'a' + 10
    return -1


cdef int read_string(Reader *r, Span *span) noexcept nogil:
    """Read the string whose opening quote stands at ``r.p``; the span is its raw inside."""
    cdef const uint8_t *p = r.p + 1
    cdef const uint8_t *end = r.end
    cdef uint8_t c
    cdef int i
    span.start = p
    span.escaped = False
    while p < end:
        if end - p >= 16:
            i = obf_plain16(p)
            p += i
            if i == 16:
                continue
        c = p[0]
        if c == c'"':
            span.size = p - span.start
            r.p = p + 1
            return OK
        if c == c'\\':
            span.escaped = True
            p += 1
            if p == end:
                break
            c = p[0]
            p += 1
            if c == c'u':
                for i in range(4):
                    if p == end:
                        return fault(r, end, "the message is cut short")
                    if hex_digit(p[0]) < 0:
                        return fault(r, p, "a \\u escape without four hexadecimal digits")
                    p += 1
            elif not (
                c == c'"' or c == c'\\' or c == c'/' or c == c'b' or c == c'f' or c == c'n'
                or c == c'r' or c == c't'
            ):
                return fault(r, p - 1, "an unknown escape in a string")
        elif c < 0x20:
            return fault(r, p, "a control character in a string")
        elif c < 0x80:
            p += 1
        else:
            i = utf8_size(p, end)
            if i == 0:
                return fault(r, p, "a string is not UTF-8")
            p += i
    return fault(r, end, "the message is cut short")


cdef uint32_t read_hex4(const uint8_t *p) noexcept nogil:
    return <uint32_t>(
        hex_digit(p[0]) << 12 | hex_digit(p[1]) << 8 | hex_digit(p[2]) << 4 | hex_digit(p[3])
    )


cdef Py_ssize_t unescape(Span span, uint8_t *target, Py_ssize_t room) noexcept nogil:
    """Decode a string that read_string took; return its bytes, or -1.

    -1 says that it needs more than ``room``, or holds half a surrogate pair. What is decoded is
    never longer than what was escaped.
    """
    cdef const uint8_t *p = span.start
    cdef const uint8_t *end = p + span.size
    cdef Py_ssize_t size = 0
    cdef uint8_t c
    cdef uint32_t code
    cdef uint32_t second
    while p < end:
        if size + 4 > room:
            return -1
        c = p[0]
        p += 1
        if c != c'\\':
            target[size] = c
            size += 1
            continue
        c = p[0]
        p += 1
        if c != c'u':
            if c == c'b':
                c = 8
            elif c == c'f':
                c = 12
            elif c == c'n':
                c = 10
            elif c == c'r':
                c = 13
            elif c == c't':
                c = 9
            target[size] = c
            size += 1
            continue
        code = read_hex4(p)
        p += 4
        if 0xD800 <= code < 0xE000:
            if code >= 0xDC00 or end - p < 6 or p[0] != c'\\' or p[1] != c'u':
                return -1
            second = read_hex4(p + 2)
            if second < 0xDC00 or second > 0xDFFF:
                return -1
            p += 6
            code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00)
        if code < 0x80:
            target[size] = <uint8_t>code
            size += 1
        elif code < 0x800:
            target[size] = <uint8_t>(0xC0 | code >> 6)
            target[size + 1] = <uint8_t>(0x80 | code & 0x3F)
            size += 2
        elif code < 0x10000:
            target[size] = <uint8_t>(0xE0 | code >> 12)
            target[size + 1] = <uint8_t>(0x80 | code >> 6 & 0x3F)
            target[size + 2] = <uint8_t>(0x80 | code & 0x3F)
            size += 3
        else:
            target[size] = <uint8_t>(0xF0 | code >> 18)
            target[size + 1] = <uint8_t>(0x80 | code >> 12 & 0x3F)
            target[size + 2] = <uint8_t>(0x80 | code >> 6 & 0x3F)
            target[size + 3] = <uint8_t>(0x80 | code & 0x3F)
            size += 4
    return size


cdef int skip_word(Reader *r, const char *word, Py_ssize_t size) noexcept nogil:
    cdef const uint8_t *p = r.p
    cdef Py_ssize_t i
    for i in range(size):
        if p + i == r.end:
            return fault(r, r.end, "the message is cut short")
        if p[i] != <uint8_t>word[i]:
            return fault(r, p, "not a JSON value")
    r.p = p + size
    return OK


cdef inline const uint8_t *skip_digits(const uint8_t *p, const uint8_t *end) noexcept nogil:
    while p < end and c'0' <= p[0] <= c'9':
        p += 1
    return p


cdef int skip_number(Reader *r) noexcept nogil:
    cdef const uint8_t *p = r.p
    cdef const uint8_t *end = r.end
    cdef const uint8_t *digits
    if p[0] == c'-':
        p += 1
    digits = p
    p = skip_digits(p, end)
    if p == digits:
        return fault(r, p, "not a JSON number" if p < end else "the message is cut short")
    if digits[0] == c'0' and p - digits > 1:
        return fault(r, digits, "a number with a leading zero")
    if p < end and p[0] == c'.':
        p += 1
        digits = p
        p = skip_digits(p, end)
        if p == digits:
            return fault(r, p, "not a JSON number" if p < end else "the message is cut short")
    if p < end and (p[0] == c'e' or p[0] == c'E'):
        p += 1
        if p < end and (p[0] == c'+' or p[0] == c'-'):
            p += 1
        digits = p
        p = skip_digits(p, end)
        if p == digits:
            return fault(r, p, "not a JSON number" if p < end else "the message is cut short")
    r.p = p
    return OK


cdef int skip_value(Reader *r, int depth) noexcept nogil:
    """Check and skip the value at ``r.p``; ``depth`` containers are open around it."""
    cdef int code
    cdef uint8_t c
    cdef uint8_t close
    cdef Span span
    if r.p >= r.end:
        return fault(r, r.end, "the message is cut short")
    c = r.p[0]
    if c == c'"':
        return read_string(r, &span)
    if c == c'-' or c'0' <= c <= c'9':
        return skip_number(r)
    if c == c't':
        return skip_word(r, "true", 4)
    if c == c'f':
        return skip_word(r, "false", 5)
    if c == c'n':
        return skip_word(r, "null", 4)
    if c != c'{' and c != c'[':
        return fault(r, r.p, "not a JSON value")
    if depth >= MAX_NESTING:
        return fault(r, r.p, "nested deeper than 64")
    close = c'}' if c == c'{' else c']'
    r.p += 1
    skip_space(r)
    if r.p < r.end and r.p[0] == close:
        r.p += 1
        return OK
    while True:
        if c == c'{':
            code = read_key(r, &span)
            if code != OK:
                return code
        code = skip_value(r, depth + 1)
        if code != OK:
            return code
        skip_space(r)
        if r.p == r.end:
            return fault(r, r.end, "the message is cut short")
        if r.p[0] == close:
            r.p += 1
            return OK
        if r.p[0] != c',':
            return fault(r, r.p, "no comma or bracket after a value")
        r.p += 1
        skip_space(r)


cdef int read_key(Reader *r, Span *key) noexcept nogil:
    """Read a key and its colon, up to the value."""
    cdef int code
    if r.p == r.end:
        return fault(r, r.end, "the message is cut short")
    if r.p[0] != c'"':
        return fault(r, r.p, "a key that is not a string")
    if (
        r.end - r.p > 4 and r.p[2] == c'"' and r.p[3] == c':' and r.p[4] > c' '
        and (c'a' <= r.p[1] <= c'z' or c'A' <= r.p[1] <= c'Z')
    ):
        key.start = r.p + 1
        key.size = 1
        key.escaped = False
        r.p += 4
        return OK
    code = read_string(r, key)
    if code != OK:
        return code
    skip_space(r)
    if r.p == r.end:
        return fault(r, r.end, "the message is cut short")
    if r.p[0] != c':':
        return fault(r, r.p, "no colon after a key")
    r.p += 1
    skip_space(r)
    return OK


cdef inline bint is_text(const uint8_t *p, Py_ssize_t size, const char *text, Py_ssize_t n) noexcept nogil:
    return size == n and memcmp(p, text, <size_t>n) == 0


cdef int find_field(Reader *r, Span key) noexcept nogil:
    cdef uint8_t[20] plain
    cdef const uint8_t *p = key.start
    cdef Py_ssize_t size = key.size
    if key.escaped:
        size = unescape(key, plain, 20)
        p = plain
    if r.snapshot:
        if is_text(p, size, "lastUpdateId", 12):
            return F_LAST
        if is_text(p, size, "bids", 4):
            return F_BIDS
        if is_text(p, size, "asks", 4):
            return F_ASKS
        return F_OTHER
    if size == 1:
        if p[0] == c'e':
            return F_TYPE
        if p[0] == c'E':
            return F_TIME
        if p[0] == c's':
            return F_SYMBOL
        if p[0] == c'U':
            return F_FIRST
        if p[0] == c'u':
            return F_LAST
        if p[0] == c'b':
            return F_BIDS
        if p[0] == c'a':
            return F_ASKS
        return F_OTHER
    if size == 2:
        return F_PREV if r.futures and p[0] == c'p' and p[1] == c'u' else F_OTHER
    if is_text(p, size, "data", 4):
        return F_DATA
    if is_text(p, size, "stream", 6):
        return F_STREAM
    return F_OTHER


cdef void note(
    Issue *issue, int code, int field, int part, Py_ssize_t index, const uint8_t *start, Py_ssize_t size
) noexcept nogil:
    """Remember the first value refused: well-formedness and the event's type are judged first."""
    if issue.code == OK:
        issue.code = code
        issue.field = field
        issue.part = part
        issue.index = index
        issue.start = start
        issue.size = size


cdef int refuse_value(Reader *r, Issue *issue, int code, int field, int depth) noexcept nogil:
    """Skip the value at ``r.p`` and note it."""
    cdef const uint8_t *start = r.p
    cdef int outcome = skip_value(r, depth)
    if outcome == OK:
        note(issue, code, field, PART_WHOLE, 0, start, r.p - start)
    return outcome


cdef bint read_long_id(Reader *r, int64_t *value) noexcept nogil:
    """Read an id of up to 19 digits, if it is one that fits."""
    cdef const uint8_t *p = r.p
    cdef uint64_t number = 0
    cdef unsigned int digit
    while p < r.end:
        digit = <unsigned int>p[0] - 48
        if digit > 9:
            break
        if number > (<uint64_t>INT64_MAX - digit) // 10:
            return False
        number = number * 10 + digit
        p += 1
    if p - r.p < 17 or r.p[0] == c'0' or p == r.end or (
        p[0] == c'.' or p[0] == c'e' or p[0] == c'E'
    ):
        return False
    value[0] = <int64_t>number
    r.p = p
    return True


cdef int read_id(Reader *r, Issue *issue, int field, int64_t *value, int depth) noexcept nogil:
    cdef const uint8_t *p = r.p
    cdef const uint8_t *start = p
    cdef uint64_t number = 0
    cdef uint64_t more = 0
    cdef int digits
    cdef int code
    if r.end - p > 24:  # up to 16 digits, as many as a long time will need
        digits = obf_read8(p, &number)
        p += digits
        if digits == 8:
            digits = obf_read8(p, &more)
            number = number * POW10[digits] + more
            p += digits
    else:
        digits = 0
        while p < r.end and c'0' <= p[0] <= c'9' and digits < 16:
            number = number * 10 + (p[0] - 48)
            digits += 1
            p += 1
    if p > start and (p == r.end or not (
        c'0' <= p[0] <= c'9' or p[0] == c'.' or p[0] == c'e' or p[0] == c'E'
    )):
        if start[0] == c'0' and p - start > 1:
            return fault(r, start, "a number with a leading zero")
        value[0] = <int64_t>number
        r.p = p
        return OK
    if read_long_id(r, value):
        return OK
    code = skip_value(r, depth)
    if code != OK:
        return code
    code = TOO_LARGE
    if start[0] != c'-' and not c'0' <= start[0] <= c'9':
        code = NOT_INTEGER
    else:
        p = start
        while p < r.p:
            if p[0] == c'.' or p[0] == c'e' or p[0] == c'E':
                code = NOT_INTEGER
            p += 1
        if code != NOT_INTEGER and start[0] == c'-':
            code = NEGATIVE
    note(issue, code, field, PART_WHOLE, 0, start, r.p - start)
    return OK


cdef inline int next_is(Reader *r, uint8_t c) noexcept nogil:
    """Skip spaces, and ``c`` when it comes next."""
    if r.p < r.end and r.p[0] != c:
        skip_space(r)
    if r.p < r.end and r.p[0] == c:
        r.p += 1
        return True
    return False


cdef int read_text_decimal(Reader *r, u128 *mantissa, int *decimals) noexcept nogil:
    """Read a quoted decimal with the quote behind it; ``r.p`` stands after the opening one."""
    cdef int code = read_decimal(&r.p, r.end, mantissa, decimals)
    if code == NOT_DECIMAL or code == TOO_LONG:
        return code
    if r.p == r.end or r.p[0] != c'"':
        return NOT_DECIMAL
    r.p += 1
    return code


cdef bint read_short_levels(Reader *r, Changes *changes, int scale) noexcept nogil:
    """Read levels as long as they are of the common form, without spaces.

    Returns whether the array ended; otherwise ``r.p`` stands at the first level that it left.
    """
    cdef const uint8_t *p = r.p
    cdef const uint8_t *q
    cdef uint64_t price = 0
    cdef uint64_t quantity = 0
    cdef int price_decimals = 0
    cdef int decimals = 0
    cdef Change *change
    if scale == BASE_SCALE and r.quotes != NULL:
        while True:
            if changes.count == changes.room and grow_changes(changes) != OK:
                return False
            q = obf_read_levels(
                r.quotes, r.start, p, r.end, changes.items + changes.count,
                changes.room - changes.count, &changes.count,
            )
            if q == p:
                break
            p = q
            r.p = p
            if p[-1] == c']':
                return True
    while r.end - p >= SHORT_LEVEL and p[0] == c'[' and p[1] == c'"':
        q = obf_read_short(p + 2, &price, &price_decimals)
        if q == NULL or q[0] != c',' or q[1] != c'"':
            break
        q = obf_read_short(q + 2, &quantity, &decimals)
        if q == NULL or q[0] != c']':
            break
        q += 1
        if price == 0 or __builtin_mul_overflow(price, POW10[scale - price_decimals], &price):
            break
        if q[0] != c',' and q[0] != c']':
            break
        if changes.count == changes.room and grow_changes(changes) != OK:
            break
        change = &changes.items[changes.count]
        change.price = price
        change.low = quantity
        change.high = 0
        change.form = <uint16_t>(price_decimals | decimals << 5)
        changes.count += 1
        p = q + 1
        if q[0] == c']':
            r.p = p
            return True
    r.p = p
    return False


cdef int read_levels(Reader *r, Event *event, int field, int depth) noexcept nogil:
    """Read an array of pairs straight into changes.

    Whatever is not as expected goes the long way: the array is checked as JSON from its start, and
    only when it is well-formed is the first odd value noted as refused.
    """
    cdef const uint8_t *start = r.p
    cdef const uint8_t *level = r.p
    cdef const uint8_t *odd = r.p
    cdef Changes *changes = &event.bids if field == F_BIDS else &event.asks
    cdef u128 mantissa = 0
    cdef int decimals = 0
    cdef int code = NOT_ARRAY
    cdef int part = PART_WHOLE
    cdef int outcome

    if r.near_left and changes.room == 0:
        changes.items = r.near
        changes.room = NEAR_CHANGES
        changes.borrowed = True
        r.near += NEAR_CHANGES
        r.near_left -= 1
    if next_is(r, c'['):
        if next_is(r, c']'):
            return OK
        while True:
            if read_short_levels(r, changes, event.scale):
                return OK
            skip_space(r)
            level = r.p
            odd = level
            part = PART_LEVEL
            code = NOT_PAIR
            if not next_is(r, c'['):
                break
            skip_space(r)
            if not next_is(r, c'"'):
                if r.p < r.end and r.p[0] != c']':
                    odd = r.p
                    part = PART_PRICE
                    code = NOT_STRING
                break
            code = read_text_decimal(r, &mantissa, &decimals)
            if code == OK:
                code = add_price(changes, mantissa, decimals, &event.scale, &event.bids, &event.asks)
            if code != OK:
                while odd[0] != c'"':  # from the level's bracket to the string
                    odd += 1
                part = PART_PRICE
                if code == CAPACITY_QUANTITY:
                    code = CAPACITY_PRICE
                break
            code = NOT_PAIR
            if not next_is(r, c','):
                break
            skip_space(r)
            if not next_is(r, c'"'):
                if r.p < r.end and r.p[0] != c']':
                    odd = r.p
                    part = PART_QUANTITY
                    code = NOT_STRING
                break
            odd = r.p - 1
            part = PART_QUANTITY
            code = read_text_decimal(r, &mantissa, &decimals)
            if code == OK:
                code = add_quantity(changes, mantissa, decimals)
            if code != OK:
                break
            if not next_is(r, c']'):
                changes.count -= 1
                odd = level
                part = PART_LEVEL
                code = NOT_PAIR
                break
            if next_is(r, c','):
                continue
            if next_is(r, c']'):
                return OK
            odd = start
            part = PART_WHOLE
            code = NOT_ARRAY
            break
    if code == NO_MEMORY:
        return NO_MEMORY
    r.p = start
    outcome = skip_value(r, depth)
    if outcome != OK:
        return outcome
    note(&event.issue, code, field, part, changes.count, odd, r.p - odd)
    return OK


cdef int read_field(Reader *r, Event *event, Event *inner, int field, int depth) noexcept nogil:
    """Read the value at ``r.p``, which belongs to ``field`` of an object at ``depth``."""
    cdef Span span
    cdef const uint8_t *start = r.p
    cdef uint8_t[24] plain
    cdef Py_ssize_t size
    cdef int code
    if r.p == r.end:
        return fault(r, r.end, "the message is cut short")
    if field == F_LAST:
        return read_id(r, &event.issue, field, &event.last, depth)
    if field == F_FIRST:
        return read_id(r, &event.issue, field, &event.first, depth)
    if field == F_PREV:
        return read_id(r, &event.issue, field, &event.prev, depth)
    if field == F_TIME:
        return read_id(r, &event.issue, field, &event.time, depth)
    if field == F_BIDS or field == F_ASKS:
        return read_levels(r, event, field, depth)
    if field == F_DATA:
        if r.p[0] == c'{':
            return read_object(r, inner, NULL, depth + 1)
        return skip_value(r, depth)
    if r.p[0] != c'"':
        if field == F_SYMBOL:
            return refuse_value(r, &event.issue, NOT_STRING, field, depth)
        return skip_value(r, depth)
    code = read_string(r, &span)
    if code != OK:
        return code
    if field == F_TYPE:
        if span.escaped:
            size = unescape(span, plain, 24)
            event.is_depth = event.is_depth or is_text(plain, size, "depthUpdate", 11)
        else:
            event.is_depth = event.is_depth or is_text(span.start, span.size, "depthUpdate", 11)
    elif field == F_SYMBOL:
        event.symbol = span
        if span.size == 0:
            note(&event.issue, EMPTY, field, PART_WHOLE, 0, start, r.p - start)
    elif field == F_STREAM:
        event.stream = span
    return OK


# What every depth event has.
cdef unsigned int NEEDED = (
    1u << F_SYMBOL | 1u << F_FIRST | 1u << F_LAST | 1u << F_BIDS | 1u << F_ASKS
)
cdef uint8_t[128] USUAL  # the field of a key of one letter
memset(USUAL, F_OTHER, 128)
for _field in EVENT_NAMES:
    if len(EVENT_NAMES[_field]) == 1:
        USUAL[<int>ord(EVENT_NAMES[_field])] = <uint8_t>_field
del _field


cdef inline const uint8_t *read_usual_id(const uint8_t *p, int64_t *value) noexcept nogil:
    """Read a number of at most 16 digits, and the comma behind it. ``p`` has 24 bytes.

    Returns what follows, or NULL when something else stands there, or it begins with a zero.
    """
    cdef uint64_t number = 0
    cdef uint64_t more = 0
    cdef const uint8_t *start = p
    cdef int digits = obf_read8(p, &number)
    p += digits
    if digits == 8:
        digits = obf_read8(p, &more)
        number = number * POW10[digits] + more
        p += digits
    if p[0] != c',' or p == start or start[0] == c'0':
        return NULL
    value[0] = <int64_t>number
    return p + 1


cdef void read_usual_header(Reader *r, Event *event) noexcept nogil:
    """Read what stands before the levels, when that is all there and in the venue's own order.

    Then ``r.p`` stands at the next key, of the bids as a rule; otherwise nothing has happened.
    """
    cdef const uint8_t *p = r.p
    cdef const uint8_t *symbol
    cdef int64_t time = 0
    cdef int64_t first = 0
    cdef int64_t last = 0
    cdef int64_t other = 0
    cdef int plain
    # 22, 4, 5, 6, 4 and 5 bytes, five numbers of 17, and a symbol that takes 16 to look at.
    if event.seen or r.end - p <= 160 or memcmp(p, b'"e":"depthUpdate","E":', 22) != 0:
        return
    p = read_usual_id(p + 22, &time)
    if p == NULL:
        return
    if r.futures and memcmp(p, b'"T":', 4) == 0:
        p = read_usual_id(p + 4, &other)
        if p == NULL:
            return
    if memcmp(p, b'"s":"', 5) != 0:
        return
    symbol = p + 5
    plain = obf_plain16(symbol)
    p = symbol + plain
    if plain == 0 or plain == 16 or memcmp(p, b'","U":', 6) != 0:
        return
    p = read_usual_id(p + 6, &first)
    if p == NULL or memcmp(p, b'"u":', 4) != 0:
        return
    p = read_usual_id(p + 4, &last)
    if p == NULL:
        return
    if r.futures:
        if memcmp(p, b'"pu":', 5) != 0:
            return
        p = read_usual_id(p + 5, &other)
        if p == NULL:
            return
        event.prev = other
        event.seen = 1u << F_PREV
    event.seen |= 1u << F_TYPE | 1u << F_TIME | 1u << F_SYMBOL | 1u << F_FIRST | 1u << F_LAST
    event.is_depth = True
    event.time = time
    event.symbol.start = symbol
    event.symbol.size = plain
    event.symbol.escaped = False
    event.first = first
    event.last = last
    r.p = p


cdef int read_usual_fields(Reader *r, Event *event, int depth) noexcept nogil:
    """Read fields that stand where and as the venue always writes them; spare the long way.

    ``r.p`` stands at a key before and after, or at what this leaves to be judged. Nothing is
    refused here.
    """
    cdef const uint8_t *p
    cdef const uint8_t *start
    cdef int64_t number = 0
    cdef int plain
    cdef int field
    cdef int code
    read_usual_header(r, event)
    p = r.p
    while r.end - p > 32 and p[0] == c'"' and p[1] < 128 and p[2] == c'"' and p[3] == c':':
        field = USUAL[p[1]]
        if field == F_OTHER or event.seen & (1u << field):
            break
        start = p + 4
        if field == F_TYPE:
            if not obf_is_depth_update(start):
                break
            event.is_depth = True
            p = start + 14
        elif field == F_SYMBOL:
            if start[0] != c'"':
                break
            p = start + 1
            while r.end - p > 32:
                plain = obf_plain16(p)
                p += plain
                if plain < 16:
                    break
            if p[0] != c'"' or p[1] != c',' or p == start + 1:
                break
            event.symbol.start = start + 1
            event.symbol.size = p - start - 1
            event.symbol.escaped = False
            p += 2
        elif field == F_BIDS or field == F_ASKS:
            if start[0] != c'[':
                break
            event.seen |= 1u << field
            r.p = start
            code = read_levels(r, event, field, depth)
            if code != OK or r.p == r.end or r.p[0] != c',':
                return code
            p = r.p + 1
            r.p = p
            continue
        else:
            p = read_usual_id(start, &number)
            if p == NULL:
                break
            if field == F_TIME:
                event.time = number
            elif field == F_FIRST:
                event.first = number
            else:
                event.last = number
        event.seen |= 1u << field
        r.p = p
    return OK


cdef bint read_usual_wrapper(Reader *r, Event *event) noexcept nogil:
    """Read ``"stream":"...","data":`` when it stands as the venue always writes it, up to the object."""
    cdef const uint8_t *p = r.p + 10
    cdef int plain = 16
    if r.end - r.p <= 64 or not obf_is_stream(r.p):
        return False
    while plain == 16 and r.end - p > 32:
        plain = obf_plain16(p)
        p += plain
    if r.end - p <= 32 or not obf_is_data(p):
        return False
    event.stream.start = r.p + 10
    event.stream.size = p - event.stream.start
    event.stream.escaped = False
    event.seen |= 1u << F_STREAM | 1u << F_DATA
    r.p = p + 9
    return True


cdef inline int read_comma(Reader *r, bint *more) noexcept nogil:
    """Read what follows a value in an object: a comma, or the object's end."""
    more[0] = next_is(r, c',')
    if more[0] or next_is(r, c'}'):
        return OK
    if r.p == r.end:
        return fault(r, r.end, "the message is cut short")
    return fault(r, r.p, "no comma or brace after a value")


cdef int read_object(Reader *r, Event *event, Event *inner, int depth) noexcept nogil:
    """Read the object at ``r.p``, the ``depth``-th container; ``inner`` takes its ``data``."""
    cdef Span key
    cdef const uint8_t *start
    cdef int field
    cdef int code
    cdef bint more = False
    r.p += 1
    if next_is(r, c'}'):
        return OK
    if inner != NULL and read_usual_wrapper(r, event):
        code = read_object(r, inner, NULL, depth + 1)
        if code == OK:
            code = read_comma(r, &more)
        if code != OK or not more:
            return code
    while True:
        if not r.snapshot:
            start = r.p
            code = read_usual_fields(r, event, depth)
            if code != OK:
                return code
            if r.p > start and r.p[-1] != c',':  # it ended behind a value
                code = read_comma(r, &more)
                if code != OK or not more:
                    return code
        skip_space(r)
        code = read_key(r, &key)
        if code != OK:
            return code
        field = find_field(r, key)
        if inner == NULL and (field == F_STREAM or field == F_DATA):
            field = F_OTHER
        start = r.p
        if field == F_OTHER:
            code = skip_value(r, depth)
        elif event.seen & (1u << field):
            if field == F_TYPE:
                # Either of the two may make this a depth event: read it all the same.
                code = read_field(r, event, inner, field, depth)
            else:
                code = skip_value(r, depth)
            if field == F_STREAM or field == F_DATA:
                note(&event.wrapper_issue, TWICE, field, PART_WHOLE, 0, start, r.p - start)
            else:
                note(&event.issue, TWICE, field, PART_WHOLE, 0, start, r.p - start)
        else:
            event.seen |= 1u << field
            code = read_field(r, event, inner, field, depth)
        if code == OK:
            code = read_comma(r, &more)
        if code != OK or not more:
            return code


cdef int read_message(Reader *r, Event *event, Event *inner) noexcept nogil:
    """Read one whole message; NOT_OBJECT when it is well-formed but no object."""
    cdef int code
    cdef bint is_object
    skip_space(r)
    if r.p == r.end:
        return fault(r, r.end, "the message is empty")
    is_object = r.p[0] == c'{'
    if is_object:
        code = read_object(r, event, inner, 1)
    else:
        code = skip_value(r, 0)
    if code != OK:
        return code
    skip_space(r)
    if r.p != r.end:
        return fault(r, r.p, "something follows the message")
    return OK if is_object else NOT_OBJECT


cdef str show(const uint8_t *start, Py_ssize_t size):
    """Decode a refused value for a person: without its quotes, cut short."""
    cdef Py_ssize_t quoted = 0
    if size >= 2 and start[0] == c'"' and start[size - 1] == c'"':
        quoted = 1
    size -= 2 * quoted
    if size > 320:
        size = 320
    return PyUnicode_DecodeUTF8(<const char *>start + quoted, size, "replace")[:80]


cdef struct Known:  # a text; all of its bytes are in two words, which may overlap
    uint64_t head
    uint64_t tail
    Py_ssize_t size
    PyObject *text  # owned; not in a list, which others could find and change


cdef Known[KNOWN_TEXTS] KNOWN


cdef str know_text(Span span):
    """Decode a short text, or return the one that was decoded before: symbols come ever again.

    The same object each time has its hash at hand, and is equal to itself at a glance.
    """
    cdef uint64_t head = 0
    cdef uint64_t tail = 0
    cdef uint32_t part = 0
    cdef Known *known
    cdef PyObject *former
    cdef Py_ssize_t at
    cdef str text
    if FREE_THREADED:  # what threads share would have to be guarded
        return PyUnicode_DecodeUTF8(<const char *>span.start, span.size, NULL)
    if span.size >= 8:
        memcpy(&head, span.start, 8)
        memcpy(&tail, span.start + span.size - 8, 8)
    elif span.size >= 4:
        memcpy(&part, span.start, 4)
        head = part
        memcpy(&part, span.start + span.size - 4, 4)
        tail = part
    else:
        for at in range(span.size):
            head = head << 8 | span.start[at]
    at = <Py_ssize_t>((head ^ tail << 1 ^ <uint64_t>span.size) * 0x9E3779B97F4A7C15u >> (64 - 12))
    known = &KNOWN[at]
    if known.head == head and known.tail == tail and known.size == span.size:
        return <str>known.text
    text = PyUnicode_DecodeUTF8(<const char *>span.start, span.size, NULL)
    former = known.text
    known.head = head
    known.tail = tail
    known.size = span.size
    known.text = <PyObject *>text
    Py_INCREF(text)
    Py_XDECREF(former)
    return text


cdef str read_span(Span span):
    """Decode a string's inside; None when there is none, or it is not Unicode."""
    cdef bytes plain
    cdef Py_ssize_t size
    if span.start == NULL:
        return None
    if not span.escaped and 0 < span.size <= LONGEST_KNOWN:
        return know_text(span)
    if not span.escaped:
        return PyUnicode_DecodeUTF8(<const char *>span.start, span.size, NULL)
    plain = PyBytes_FromStringAndSize(NULL, span.size + 4)
    size = unescape(span, <uint8_t *>PyBytes_AS_STRING(plain), span.size + 4)
    if size < 0:
        return None
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(plain), size, NULL)


cdef bint is_span_of(Span span, str text) except -1:
    """Tell whether a string's inside is this text, without decoding it where both are plain."""
    if not span.escaped and PyUnicode_IS_ASCII(text):
        return is_text(span.start, span.size, <const char *>PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text))
    return read_span(span) == text


cdef str find_symbol(Event *event, Event *outer):
    """Return the symbol as far as it is known, from the event or from its stream's name."""
    cdef str symbol = read_span(event.symbol)
    if symbol:
        return symbol
    symbol = read_span(outer.stream)
    if symbol:
        symbol = symbol.partition("@")[0].upper()
    return symbol or None


cdef object name_part(dict names, int field, int part, Py_ssize_t index):
    if part == PART_WHOLE:
        return names[field]
    side = "bids" if field == F_BIDS else "asks"
    if part == PART_LEVEL:
        return f"{side}[{index}]"
    return f"{side}[{index}].{'price' if part == PART_PRICE else 'quantity'}"


cdef object make_refusal(str symbol, object field, str value, int code):
    """Return the exception for a refused value."""
    if code >= CAPACITY_PRICE:
        return CapacityError(symbol or "?", field, value, REASONS[code])
    return InvalidEvent(symbol, field, value, REASONS[code])


cdef object make_issue(Reader *r, Issue issue, str symbol, dict names):
    """Return the exception for what was noted; the message is known to be well-formed."""
    cdef const uint8_t *start = issue.start
    cdef Py_ssize_t size = issue.size
    cdef Py_ssize_t i
    if issue.part != PART_WHOLE:
        # The size noted reaches to the array's end; a value's own end is found by skipping it.
        r.p = start
        if skip_value(r, 0) == OK:
            size = r.p - start
    return make_refusal(
        symbol,
        name_part(names, issue.field, issue.part, issue.index),
        show(start, size),
        issue.code,
    )


# ---------------------------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------------------------

cdef int64_t check_id(str symbol, str field, object value, int64_t least) except? -7:
    """Take an id from Python: an int (not a bool) of ``least`` to 2**63 - 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field} must be an int, not {type(value).__name__}")
    if value < least:
        raise make_refusal(symbol, field, hex(value) if value < INT64_MIN else str(value), NEGATIVE)
    if value > INT64_MAX:
        raise make_refusal(symbol, field, hex(value), TOO_LARGE)
    return value


cdef int64_t check_int64(str name, object value) except? -7:
    """Take an int from Python; a float would be cut without a word."""
    cdef int overflow = 0
    cdef int64_t number
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        raise OverflowError(f"{name} must fit 64 bits with its sign, and {hex(value)} does not")
    return number


cdef int take_text(
    object text, str symbol, str side, Py_ssize_t index, int part, u128 *mantissa, int *decimals
) except -1:
    cdef const uint8_t *p
    cdef const uint8_t *end
    cdef int code
    if type(text) is not str:
        raise TypeError(
            f"{side}[{index}].{'price' if part == PART_PRICE else 'quantity'} must be a str, "
            f"not {type(text).__name__}"
        )
    if not PyUnicode_IS_ASCII(text):
        return NOT_DECIMAL
    p = <const uint8_t *>PyUnicode_DATA(text)
    end = p + PyUnicode_GET_LENGTH(text)
    code = read_decimal(&p, end, mantissa, decimals)
    if code == OK and p != end:
        code = NOT_DECIMAL
    if code == CAPACITY_QUANTITY and part == PART_PRICE:
        code = CAPACITY_PRICE
    return code


cdef int take_levels(
    object levels, str symbol, str side, Changes *changes, int *scale, Changes *bids, Changes *asks
) except -1:
    """Read levels from Python pairs of strings."""
    cdef u128 mantissa = 0
    cdef int decimals = 0
    cdef Py_ssize_t index = 0
    cdef int code
    cdef tuple pair
    if isinstance(levels, (str, bytes, bytearray)):
        raise TypeError(f"{side} must be a sequence of pairs, not {type(levels).__name__}")
    for level in levels:
        if type(level) is tuple:
            pair = <tuple>level
        elif isinstance(level, (list, tuple)):
            pair = tuple(level)
        else:
            raise TypeError(f"{side}[{index}] must be a pair of str, not {type(level).__name__}")
        if len(pair) != 2:
            raise make_refusal(symbol, f"{side}[{index}]", repr(pair)[:80], NOT_PAIR)
        code = take_text(pair[0], symbol, side, index, PART_PRICE, &mantissa, &decimals)
        if code == OK:
            code = add_price(changes, mantissa, decimals, scale, bids, asks)
        if code == NO_MEMORY:
            raise MemoryError
        if code != OK:
            raise make_refusal(symbol, f"{side}[{index}].price", (<str>pair[0])[:80], code)
        code = take_text(pair[1], symbol, side, index, PART_QUANTITY, &mantissa, &decimals)
        if code == OK:
            code = add_quantity(changes, mantissa, decimals)
        if code != OK:
            raise make_refusal(symbol, f"{side}[{index}].quantity", (<str>pair[1])[:80], code)
        index += 1
    trim_changes(changes)
    return 0


cdef Py_ssize_t check_limit(object limit) except -1:
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit must be an int, not {type(limit).__name__}")
    if limit < 0:
        raise ValueError(f"limit must not be negative: {limit}")
    return min(limit, INT64_MAX)


cdef int check_fresh(object owner, bint made) except -1:
    if made:
        raise TypeError(f"{type(owner).__name__} is made already")
    return 0


@cython.final
@cython.freelist(32)
cdef class DepthUpdate:
    """One depth diff of one instrument: absolute quantities by price; quantity 0 deletes.

    Args:
        symbol: The instrument's symbol, not empty.
        first_update_id: The first id the event covers, 0 to 2**63 - 1.
        last_update_id: The last id the event covers, not below the first.
        prev_update_id: The ``last_update_id`` of the event before it; -1 says that none was.
        bids: ``(price, quantity)`` decimal strings, in any order.
        asks: The same for asks.
        event_time_ms: The venue's time, Unix milliseconds; 0 when unknown.

    Raises:
        InvalidEvent: An id, price or quantity is refused.
        CapacityError: A value does not fit the fixed point.
        TypeError: An argument is of the wrong type.
    """

    cdef str _symbol
    cdef int64_t _first
    cdef int64_t _last
    cdef int64_t _prev
    cdef int64_t _time
    cdef Changes _bids
    cdef Changes _asks
    cdef int _scale
    cdef bint _made
    cdef int64_t _received

    def __cinit__(self):
        self._symbol = ""
        self._scale = BASE_SCALE

    def __init__(
        self,
        str symbol not None,
        first_update_id,
        last_update_id,
        prev_update_id,
        bids,
        asks,
        event_time_ms=0,
    ):
        cdef Event event
        memset(&event, 0, sizeof(Event))
        event.scale = BASE_SCALE
        check_fresh(self, self._made)
        if not symbol:
            raise make_refusal(None, "symbol", "", EMPTY)
        event.first = check_id(symbol, "first_update_id", first_update_id, 0)
        event.last = check_id(symbol, "last_update_id", last_update_id, 0)
        event.prev = check_id(symbol, "prev_update_id", prev_update_id, -1)
        event.time = check_id(symbol, "event_time_ms", event_time_ms, 0)
        if event.last < event.first:
            raise make_refusal(symbol, "last_update_id", str(last_update_id), DISORDER)
        try:
            take_levels(
                bids, symbol, "bids", &event.bids, &event.scale, &event.bids, &event.asks
            )
            take_levels(
                asks, symbol, "asks", &event.asks, &event.scale, &event.bids, &event.asks
            )
            check_fresh(self, self._made)
            self._fill(symbol, &event)
        finally:
            free_changes(&event.bids)
            free_changes(&event.asks)

    def __dealloc__(self):
        global BORROWER
        if BORROWER == <PyObject *>self:
            BORROWER = NULL
        free_changes(&self._bids)
        free_changes(&self._asks)

    cdef void _fill(self, str symbol, Event *event):
        """Take over the event's values and memory."""
        self._symbol = symbol
        self._first = event.first
        self._last = event.last
        self._prev = event.prev
        self._time = event.time
        self._bids = event.bids
        self._asks = event.asks
        self._scale = event.scale
        self._made = True
        memset(&event.bids, 0, sizeof(Changes))
        memset(&event.asks, 0, sizeof(Changes))

    @property
    def symbol(self):
        """The instrument's symbol."""
        return self._symbol

    @property
    def first_update_id(self):
        """The first id the event covers."""
        return self._first

    @property
    def last_update_id(self):
        """The last id the event covers."""
        return self._last

    @property
    def prev_update_id(self):
        """The ``last_update_id`` that the event before it must have had."""
        return self._prev

    @property
    def event_time_ms(self):
        """The venue's time, Unix milliseconds; 0 when unknown."""
        return self._time

    @property
    def received_ns(self):
        """When the message came in, nanoseconds of the receiver's own clock; 0 until set."""
        return self._received

    @received_ns.setter
    def received_ns(self, value):
        self._received = check_int64("received_ns", value)

    @property
    def bids(self):
        """The bid changes in the order they came, as new strings on every call."""
        return list_changes(&self._bids, self._scale)

    @property
    def asks(self):
        """The ask changes in the order they came, as new strings on every call."""
        return list_changes(&self._asks, self._scale)

    def __len__(self):
        return self._bids.count + self._asks.count

    def __repr__(self):
        return (
            f"<DepthUpdate {self._symbol} {self._first}..{self._last} after {self._prev}: "
            f"{self._bids.count} bids, {self._asks.count} asks>"
        )


@cython.final
cdef class DepthSnapshot:
    """A whole book at one update id, as deep as the venue gave it.

    A side with ``limit`` levels or more is taken to go on beyond what was given.

    Args:
        symbol: The instrument's symbol, not empty.
        last_update_id: The id of the last event it contains, 0 to 2**63 - 1.
        bids: ``(price, quantity)`` decimal strings, in any order.
        asks: The same for asks.
        limit: Levels a side that were asked for; 0 when the venue gives all.

    Raises:
        InvalidEvent: An id, price or quantity is refused.
        CapacityError: A value does not fit the fixed point.
        TypeError: An argument is of the wrong type.
        ValueError: ``limit`` is negative.
    """

    cdef str _symbol
    cdef int64_t _last
    cdef Py_ssize_t _limit
    cdef Changes _bids
    cdef Changes _asks
    cdef int _scale
    cdef bint _made

    def __cinit__(self):
        self._symbol = ""
        self._scale = BASE_SCALE

    def __init__(self, str symbol not None, last_update_id, bids, asks, limit=0):
        cdef Event event
        memset(&event, 0, sizeof(Event))
        event.scale = BASE_SCALE
        check_fresh(self, self._made)
        if not symbol:
            raise make_refusal(None, "symbol", "", EMPTY)
        event.last = check_id(symbol, "last_update_id", last_update_id, 0)
        limit = check_limit(limit)
        try:
            take_levels(
                bids, symbol, "bids", &event.bids, &event.scale, &event.bids, &event.asks
            )
            take_levels(
                asks, symbol, "asks", &event.asks, &event.scale, &event.bids, &event.asks
            )
            check_fresh(self, self._made)
            self._fill(symbol, limit, &event)
        finally:
            free_changes(&event.bids)
            free_changes(&event.asks)

    def __dealloc__(self):
        free_changes(&self._bids)
        free_changes(&self._asks)

    cdef void _fill(self, str symbol, Py_ssize_t limit, Event *event):
        self._symbol = symbol
        self._last = event.last
        self._limit = limit
        self._bids = event.bids
        self._asks = event.asks
        self._scale = event.scale
        self._made = True
        memset(&event.bids, 0, sizeof(Changes))
        memset(&event.asks, 0, sizeof(Changes))

    @property
    def symbol(self):
        """The instrument's symbol."""
        return self._symbol

    @property
    def last_update_id(self):
        """The id of the last event that the snapshot contains."""
        return self._last

    @property
    def limit(self):
        """Levels a side that were asked for; 0 when the venue gives all."""
        return self._limit

    @property
    def bids(self):
        """The bids in the order they came, as new strings on every call."""
        return list_changes(&self._bids, self._scale)

    @property
    def asks(self):
        """The asks in the order they came, as new strings on every call."""
        return list_changes(&self._asks, self._scale)

    def __len__(self):
        return self._bids.count + self._asks.count

    def __repr__(self):
        return (
            f"<DepthSnapshot {self._symbol} at {self._last}: "
            f"{self._bids.count} bids, {self._asks.count} asks, limit {self._limit}>"
        )


# The changes of the update that was parsed last. Most are applied and gone before the next message
# is parsed; one that is not takes its changes with it then. Threads without a GIL have none.
cdef Change[2 * NEAR_CHANGES] LENT
cdef PyObject *BORROWER = NULL


cdef int reclaim_lent() except -1:
    """Have what stands in LENT moved to memory of its own."""
    global BORROWER
    cdef DepthUpdate update
    if BORROWER != NULL:
        update = <DepthUpdate>BORROWER
        if settle_changes(&update._bids, &update._asks) != OK:
            raise MemoryError
        BORROWER = NULL
    return 0


cdef struct Message:  # one that is being read
    Reader reader
    Event outer
    Event inner  # of the wrapper's data
    Py_buffer view
    Quotes quotes
    Change[2 * NEAR_CHANGES] near


cdef int judge_event(Message *message, Event *event) except -1:
    """Judge a well-formed depth event, all but its symbol; complete it."""
    cdef Reader *r = &message.reader
    cdef Event *outer = &message.outer
    cdef unsigned int needed = NEEDED | (1u << F_PREV if r.futures else 0)
    cdef str symbol
    cdef int field
    if event.issue.code != OK or outer.wrapper_issue.code != OK:
        symbol = find_symbol(event, outer)
        if event.issue.code != OK:
            raise make_issue(r, event.issue, symbol, EVENT_NAMES)
        raise make_issue(r, outer.wrapper_issue, symbol, EVENT_NAMES)
    if event.seen & needed != needed:
        for field in range(F_SYMBOL, F_ASKS + 1):
            if needed & ~event.seen & (1u << field):
                raise make_refusal(find_symbol(event, outer), EVENT_NAMES[field], "", MISSING)
    if event.last < event.first:
        raise make_refusal(read_symbol(event, outer), "u", str(event.last), DISORDER)
    if not r.futures:
        event.prev = event.first - 1
    return 0


cdef str read_symbol(Event *event, Event *outer):
    """Decode an event's symbol, or raise."""
    cdef str symbol = read_span(event.symbol)
    if symbol is None:
        raise make_refusal(
            find_symbol(event, outer), "s", show(event.symbol.start, event.symbol.size), NOT_UNICODE
        )
    return symbol


cdef DepthUpdate make_update(Event *event, Event *outer):
    """Make a judged event an object."""
    global BORROWER
    cdef str symbol = read_symbol(event, outer)
    cdef DepthUpdate update = DepthUpdate.__new__(DepthUpdate)
    if not FREE_THREADED and (event.bids.borrowed or event.asks.borrowed):
        update._fill(symbol, event)
        BORROWER = <PyObject *>update
    elif settle_changes(&event.bids, &event.asks) == OK:
        update._fill(symbol, event)
    else:
        raise MemoryError
    return update


cdef int look_into(object data, Py_buffer *view) except -1:
    """Look into what has the buffer protocol; PyBuffer_Release has to follow."""
    if isinstance(data, str):
        raise TypeError("bytes are needed, not str; text.encode() gives them")
    if not PyObject_CheckBuffer(data):
        raise TypeError(f"bytes are needed, as they came, not {type(data).__name__}")
    return PyObject_GetBuffer(data, view, PyBUF_SIMPLE)


cdef inline int open_bytes(object data, Py_buffer *view) except -1:
    """Look into bytes, which need no lock, or into what has the buffer protocol."""
    if type(data) is bytes:
        view.itemsize = -1  # nothing to give back
        view.buf = PyBytes_AS_STRING(data)
        view.len = PyBytes_GET_SIZE(data)
        return 0
    return look_into(data, view)


cdef inline void close_bytes(Py_buffer *view) noexcept:
    if view.itemsize >= 0:
        PyBuffer_Release(view)


cdef inline void clear_changes(Changes *changes) noexcept nogil:
    changes.items = NULL
    changes.count = 0
    changes.room = 0
    changes.borrowed = False
    changes.wide = False


cdef inline void clear_event(Event *event) noexcept nogil:
    """Set what is read before it is known to be there; clearing all of it takes longer."""
    event.seen = 0
    event.is_depth = False
    event.time = 0
    event.scale = BASE_SCALE
    event.symbol.start = NULL
    event.stream.start = NULL
    clear_changes(&event.bids)
    clear_changes(&event.asks)
    event.issue.code = OK
    event.wrapper_issue.code = OK


cdef inline int open_message(Message *message, object data, bint futures) except -1:
    """Begin with a message; close_message has to follow."""
    cdef Reader *reader = &message.reader
    memset(reader, 0, sizeof(Reader))
    clear_event(&message.outer)
    clear_event(&message.inner)
    open_bytes(data, &message.view)
    reader.start = <const uint8_t *>message.view.buf
    reader.p = reader.start
    reader.end = reader.start + message.view.len
    reader.futures = futures
    return 0


cdef inline void close_message(Message *message) noexcept:
    free_changes(&message.outer.bids)
    free_changes(&message.outer.asks)
    free_changes(&message.inner.bids)
    free_changes(&message.inner.asks)
    close_bytes(&message.view)


cdef Event *read_event(Message *message) except? NULL:
    """Read a message; return the depth event that it is or wraps, not yet judged, or NULL."""
    cdef Reader *reader = &message.reader
    cdef Event *outer = &message.outer
    cdef Event *inner = &message.inner
    cdef int code
    cdef int at
    reclaim_lent()  # after all that may run code of others, and parse
    # Levels lie behind these lines; what reads two at a time asks for the next ones itself.
    for at in range(1, HEADER_LINES + 1):
        __builtin_prefetch(reader.start + LINE * at)
    if OBF_SIMD:
        message.quotes.start = NULL
        message.quotes.end = NULL
        reader.quotes = &message.quotes
    reader.near = &message.near[0] if FREE_THREADED else &LENT[0]
    reader.near_left = 2
    code = read_message(reader, outer, inner)
    if code == FAULT:
        raise MalformedMessage(
            reader.reason.decode("ascii"),
            reader.p - reader.start,
            find_symbol(outer if outer.symbol.start != NULL else inner, outer),
        )
    if code == NO_MEMORY:
        raise MemoryError
    if outer.is_depth:
        return outer
    if inner.is_depth and not outer.seen & (1u << F_TYPE):
        return inner
    return NULL


def parse_depth_update(data, bint futures=False):
    """Parse one ``depthUpdate`` event of Binance, raw or in the combined stream's wrapper.

    Args:
        data: The message's bytes (bytes, bytearray or memoryview), JSON in UTF-8. Not kept.
        futures: Take ``pu`` as the previous update id, and demand it; otherwise it is ``U - 1``.

    Returns:
        The event, or None when the message is well-formed JSON of another kind.

    Raises:
        MalformedMessage: Not JSON, cut short, nested deeper than 64, not UTF-8; ``symbol`` is what
            could be read before the fault.
        InvalidEvent: A depth event with a field that is missing, stands twice or is refused.
        CapacityError: A price or quantity that does not fit the fixed point.
        TypeError: ``data`` is not a bytes-like object.

    Cost: one pass over the bytes; with a GIL an allocation beside the object only for more than 128
    levels a side, or when the update before it is still in use.
    """
    cdef Message message
    cdef Event *event
    open_message(&message, data, futures)
    try:
        event = read_event(&message)
        if event == NULL:
            return None
        judge_event(&message, event)
        return make_update(event, &message.outer)
    finally:
        close_message(&message)


def parse_depth_snapshot(data, str symbol not None, limit=0):
    """Parse the body of Binance's REST depth answer.

    Args:
        data: The body's bytes (bytes, bytearray or memoryview), JSON in UTF-8. Not kept.
        symbol: Whose book it is; the body does not say.
        limit: Levels a side that were asked for; 0 when the venue gives all.

    Raises:
        MalformedMessage: Not JSON, such as an HTML page, cut short, or nested deeper than 64.
        InvalidEvent: JSON that is not a depth answer, such as ``{"code":-1121,…}``, or a field
            that stands twice or is refused.
        CapacityError: A price or quantity that does not fit the fixed point.
        TypeError: ``data`` is not a bytes-like object.
    """
    cdef Py_buffer view
    cdef Reader reader
    cdef Event event
    cdef DepthSnapshot snapshot
    cdef int code
    cdef int field
    cdef Py_ssize_t levels
    memset(&reader, 0, sizeof(Reader))
    memset(&event, 0, sizeof(Event))
    event.scale = BASE_SCALE
    if not symbol:
        raise make_refusal(None, "symbol", "", EMPTY)
    levels = check_limit(limit)
    look_into(data, &view)
    try:
        reader.start = <const uint8_t *>view.buf
        reader.p = reader.start
        reader.end = reader.start + view.len
        reader.snapshot = True
        code = read_message(&reader, &event, NULL)
        if code == FAULT:
            raise MalformedMessage(
                reader.reason.decode("ascii"), reader.p - reader.start, symbol
            )
        if code == NO_MEMORY:
            raise MemoryError
        if code != OK:
            raise make_refusal(symbol, "body", show(reader.start, view.len), code)
        if event.issue.code != OK:
            raise make_issue(&reader, event.issue, symbol, SNAPSHOT_NAMES)
        for field in (F_LAST, F_BIDS, F_ASKS):
            if not event.seen & (1u << field):
                raise make_refusal(
                    symbol, SNAPSHOT_NAMES[field], show(reader.start, view.len), MISSING
                )
        trim_changes(&event.bids)
        trim_changes(&event.asks)
        snapshot = DepthSnapshot.__new__(DepthSnapshot)
        snapshot._fill(symbol, levels, &event)
        return snapshot
    finally:
        free_changes(&event.bids)
        free_changes(&event.asks)
        PyBuffer_Release(&view)


cdef int read_objects(
    const uint8_t *p, const uint8_t *end, Changes *changes, Event *event
) noexcept nogil:
    """Read ``[{"price":12.50,"qty":0.10},…]``; NOT_ARRAY for what is not exactly of that form."""
    cdef u128 mantissa = 0
    cdef int decimals = 0
    cdef int code
    if end - p < 2 or p[0] != c'[':
        return NOT_ARRAY
    p += 1
    if p[0] == c']':
        return OK if p + 1 == end else NOT_ARRAY
    while True:
        if end - p < 9 or memcmp(p, b'{"price":', 9) != 0:
            return NOT_ARRAY
        p += 9
        code = read_decimal(&p, end, &mantissa, &decimals)
        if code == OK:
            code = add_price(changes, mantissa, decimals, &event.scale, &event.bids, &event.asks)
        if code != OK:
            return code
        if end - p < 7 or memcmp(p, b',"qty":', 7) != 0:
            return NOT_ARRAY
        p += 7
        code = read_decimal(&p, end, &mantissa, &decimals)
        if code == OK:
            code = add_quantity(changes, mantissa, decimals)
        if code != OK:
            return code
        if end - p < 2 or p[0] != c'}':
            return NOT_ARRAY
        p += 1
        if p[0] == c',':
            p += 1
        elif p[0] == c']' and p + 1 == end:
            return OK
        else:
            return NOT_ARRAY


def parse_level_objects(
    str symbol not None,
    first_update_id,
    last_update_id,
    prev_update_id,
    bids,
    asks,
    event_time_ms=0,
):
    """Make an update of two arrays of JSON as venues write them that send numbers.

    Args:
        symbol: The instrument's symbol, not empty.
        first_update_id: The first id the event covers, 0 to 2**63 - 1.
        last_update_id: The last id the event covers, not below the first.
        prev_update_id: The ``last_update_id`` of the event before it; -1 says that none was.
        bids: Bytes (bytes, bytearray or memoryview) such as ``[{"price":12.50,"qty":0.10}]``. Not
            kept.
        asks: The same for asks.
        event_time_ms: The venue's time, Unix milliseconds; 0 when unknown.

    Returns:
        The update, numbers as they are written; None when an array is of any other form, be it well
        formed or not: with spaces, other keys, strings, exponents or values that are refused.

    Raises:
        InvalidEvent: An id or the symbol is refused.
        MemoryError: No memory.
        TypeError: An argument is of the wrong type.
    """
    cdef Py_buffer view
    cdef Event event
    cdef DepthUpdate update
    cdef int code = OK
    cdef int side
    memset(&event, 0, sizeof(Event))
    event.scale = BASE_SCALE
    if not symbol:
        raise make_refusal(None, "symbol", "", EMPTY)
    event.first = check_id(symbol, "first_update_id", first_update_id, 0)
    event.last = check_id(symbol, "last_update_id", last_update_id, 0)
    event.prev = check_id(symbol, "prev_update_id", prev_update_id, -1)
    event.time = check_id(symbol, "event_time_ms", event_time_ms, 0)
    if event.last < event.first:
        raise make_refusal(symbol, "last_update_id", str(last_update_id), DISORDER)
    try:
        for side in range(2):
            look_into(asks if side else bids, &view)
            code = read_objects(
                <const uint8_t *>view.buf,
                <const uint8_t *>view.buf + view.len,
                &event.asks if side else &event.bids,
                &event,
            )
            PyBuffer_Release(&view)
            if code == NO_MEMORY:
                raise MemoryError
            if code != OK:
                return None
        trim_changes(&event.bids)
        trim_changes(&event.asks)
        update = DepthUpdate.__new__(DepthUpdate)
        update._fill(symbol, &event)
        return update
    finally:
        free_changes(&event.bids)
        free_changes(&event.asks)


# ---------------------------------------------------------------------------------------------
# Coinbase
# ---------------------------------------------------------------------------------------------

cdef enum:
    L_CHANNEL = 1
    L_TIME
    L_SEQUENCE
    L_EVENTS
    L_KIND
    L_PRODUCT
    L_UPDATES
    L_SIDE
    L_PRICE
    L_QUANTITY

cdef dict LEVEL2_NAMES = {
    L_CHANNEL: "channel", L_TIME: "timestamp", L_SEQUENCE: "sequence_num", L_EVENTS: "events",
    L_KIND: "type", L_PRODUCT: "product_id", L_UPDATES: "updates",
    L_SIDE: "side", L_PRICE: "price_level", L_QUANTITY: "new_quantity",
}


cdef int find_level2_field(Span key, int first, int last) noexcept nogil:
    """Return which of the fields ``first`` to ``last`` a key names."""
    cdef uint8_t[20] plain
    cdef const uint8_t *p = key.start
    cdef Py_ssize_t size = key.size
    cdef int field = F_OTHER
    if key.escaped:
        size = unescape(key, plain, 20)
        p = plain
    if is_text(p, size, "channel", 7):
        field = L_CHANNEL
    elif is_text(p, size, "timestamp", 9):
        field = L_TIME
    elif is_text(p, size, "sequence_num", 12):
        field = L_SEQUENCE
    elif is_text(p, size, "events", 6):
        field = L_EVENTS
    elif is_text(p, size, "type", 4):
        field = L_KIND
    elif is_text(p, size, "product_id", 10):
        field = L_PRODUCT
    elif is_text(p, size, "updates", 7):
        field = L_UPDATES
    elif is_text(p, size, "side", 4):
        field = L_SIDE
    elif is_text(p, size, "price_level", 11):
        field = L_PRICE
    elif is_text(p, size, "new_quantity", 12):
        field = L_QUANTITY
    return field if first <= field <= last else F_OTHER


cdef int read_digits(const uint8_t *p, int count, int most) noexcept nogil:
    """Read so many digits of a number up to ``most``; -1 when they are none."""
    cdef int value = 0
    cdef int i
    for i in range(count):
        if not c'0' <= p[i] <= c'9':
            return -1
        value = value * 10 + (p[i] - c'0')
    return value if value <= most else -1


@cython.cdivision(True)
cdef int64_t read_time(Span text) noexcept nogil:
    """Return Unix microseconds of a time such as 2023-02-09T20:32:50.714964855Z; 0 for no time."""
    cdef const uint8_t *p = text.start
    cdef int year, month, day, hour, minute, second, era, of_era
    cdef int64_t days
    cdef int64_t fraction = 0
    cdef int digits = 0
    cdef Py_ssize_t i
    if text.size < 20 or text.size > 32 or p[4] != c'-' or p[7] != c'-' or p[10] != c'T' or (
        p[13] != c':' or p[16] != c':' or p[text.size - 1] != c'Z'
    ):
        return 0
    year = read_digits(p, 4, 9999)
    month = read_digits(p + 5, 2, 12)
    day = read_digits(p + 8, 2, 31)
    hour = read_digits(p + 11, 2, 23)
    minute = read_digits(p + 14, 2, 59)
    second = read_digits(p + 17, 2, 60)
    if year < 1970 or month < 1 or day < 1 or hour < 0 or minute < 0 or second < 0:
        return 0
    if text.size > 20:
        if p[19] != c'.' or text.size == 21:
            return 0
        for i in range(20, text.size - 1):
            if not c'0' <= p[i] <= c'9':
                return 0
            if digits < 6:
                fraction = fraction * 10 + (p[i] - c'0')
                digits += 1
        while digits < 6:
            fraction *= 10
            digits += 1
    # Days since 1970 of a year that begins in March, so that a leap day is its last.
    if month <= 2:
        year -= 1
    era = year // 400
    of_era = year - era * 400
    days = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days += of_era * 365 + of_era // 4 - of_era // 100 + <int64_t>era * 146097 - 719468
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + fraction


cdef int next_key(Reader *r, bint first, Span *key) noexcept nogil:
    """Step to an object's next key and on to its value, or behind the brace: no key then.

    ``r.p`` stands at the opening brace when it is the ``first``, else behind a value.
    """
    if first:
        r.p += 1
        if next_is(r, c'}'):
            key.start = NULL
            return OK
    elif next_is(r, c'}'):
        key.start = NULL
        return OK
    elif not next_is(r, c','):
        if r.p == r.end:
            return fault(r, r.end, "the message is cut short")
        return fault(r, r.p, "no comma or brace after a value")
    skip_space(r)
    return read_key(r, key)


cdef int read_plain_text(Reader *r, Event *event, int field, Span *text, int depth) noexcept nogil:
    """Read a string, or note that it is none."""
    if r.p < r.end and r.p[0] == c'"':
        return read_string(r, text)
    return refuse_value(r, &event.issue, NOT_STRING, field, depth)


cdef const uint8_t *read_short_at_end(
    Reader *r, const uint8_t *p, uint64_t *mantissa, int *decimals
) noexcept nogil:
    """Do as ``obf_read_short``, also where the message ends within 32 bytes."""
    cdef uint8_t[32] tail
    cdef const uint8_t *q
    cdef Py_ssize_t left = r.end - p
    if left >= 32:
        return obf_read_short(p, mantissa, decimals)
    if left <= 0:
        return NULL
    memset(tail, 0, 32)
    memcpy(tail, p, <size_t>left)
    q = obf_read_short(tail, mantissa, decimals)
    return NULL if q == NULL else p + (q - tail)


cdef bint read_usual_updates(Reader *r, Event *event, Py_ssize_t *index) noexcept nogil:
    """Read updates as long as they are written as the venue always writes them.

    Returns whether the array ended; otherwise ``r.p`` stands at the first update that it left.
    """
    cdef const uint8_t *p = r.p
    cdef const uint8_t *end = r.end
    cdef Changes *changes
    cdef Change *change
    cdef uint64_t price = 0
    cdef uint64_t quantity = 0
    cdef int price_decimals = 0
    cdef int decimals = 0
    cdef int plain
    while end - p > 64 and memcmp(p, b'{"side":"', 9) == 0:
        p += 9
        if memcmp(p, b'bid"', 4) == 0:
            changes = &event.bids
            p += 4
        elif memcmp(p, b'offer"', 6) == 0:
            changes = &event.asks
            p += 6
        else:
            return False
        if memcmp(p, b',"event_time":"', 15) != 0:
            return False
        p += 15
        plain = 16
        while plain == 16 and end - p > 32:
            plain = obf_plain16(p)
            p += plain
        if end - p <= 32 or memcmp(p, b'","price_level":"', 17) != 0:
            return False
        p = read_short_at_end(r, p + 17, &price, &price_decimals)
        if p == NULL or end - p <= 17 or memcmp(p, b',"new_quantity":"', 17) != 0:
            return False
        p = read_short_at_end(r, p + 17, &quantity, &decimals)
        if p == NULL or end - p < 2 or p[0] != c'}' or (p[1] != c',' and p[1] != c']'):
            return False
        if price == 0 or __builtin_mul_overflow(
            price, POW10[event.scale - price_decimals], &price
        ):
            return False
        if changes.count == changes.room and grow_changes(changes) != OK:
            return False
        change = &changes.items[changes.count]
        change.price = price
        change.low = quantity
        change.high = 0
        change.form = <uint16_t>(price_decimals | decimals << 5)
        changes.count += 1
        index[0] += 1
        p += 2
        r.p = p
        if p[-1] == c']':
            return True
    return False


cdef int take_update(
    Event *event, Span *texts, Py_ssize_t index, const uint8_t *start, Py_ssize_t size
) noexcept nogil:
    """Make a change of the texts of an update's side, price and quantity, or note what is odd."""
    cdef Changes *changes = &event.bids
    cdef u128 mantissa = 0
    cdef const uint8_t *p
    cdef const uint8_t *stop
    cdef int decimals = 0
    cdef int field
    cdef int code = OK
    for field in range(L_SIDE, L_QUANTITY + 1):
        p = texts[field - L_SIDE].start
        if p == NULL:
            note(&event.issue, MISSING, field, PART_LEVEL, index, start, size)
            return OK
        stop = p + texts[field - L_SIDE].size
        if field == L_SIDE:
            if is_text(p, stop - p, "offer", 5):
                changes = &event.asks
            elif not is_text(p, stop - p, "bid", 3):
                code = NOT_SIDE
        else:
            code = read_decimal(&p, stop, &mantissa, &decimals)
            if code == OK and p != stop:
                code = NOT_DECIMAL
            if field == L_PRICE:
                if code == CAPACITY_QUANTITY:
                    code = CAPACITY_PRICE
                if code == OK:
                    code = add_price(
                        changes, mantissa, decimals, &event.scale, &event.bids, &event.asks
                    )
            elif code == OK:
                code = add_quantity(changes, mantissa, decimals)
        if code == NO_MEMORY:
            return NO_MEMORY
        if code != OK:
            p = texts[field - L_SIDE].start
            note(&event.issue, code, field, PART_LEVEL, index, p, stop - p)
            return OK
    return OK


cdef int read_update(Reader *r, Event *event, Py_ssize_t index, int depth) noexcept nogil:
    """Read the object at ``r.p``, one update, its fields in whatever order."""
    cdef const uint8_t *start = r.p
    cdef const uint8_t *value
    cdef Span key
    cdef Span[3] texts
    cdef Issue issue
    cdef unsigned int seen = 0
    cdef int field
    cdef int code
    memset(texts, 0, sizeof(texts))
    memset(&issue, 0, sizeof(Issue))
    code = next_key(r, True, &key)
    while code == OK and key.start != NULL:
        field = find_level2_field(key, L_SIDE, L_QUANTITY)
        value = r.p
        if field != F_OTHER and not seen & (1u << field) and value < r.end and value[0] == c'"':
            code = read_string(r, &texts[field - L_SIDE])
        else:
            code = skip_value(r, depth)
            if code == OK and field != F_OTHER:
                note(
                    &issue, TWICE if seen & (1u << field) else NOT_STRING, field, PART_LEVEL,
                    index, value, r.p - value,
                )
        seen |= 1u << field
        if code == OK:
            code = next_key(r, False, &key)
    if code != OK or event.issue.code != OK:
        return code
    if issue.code != OK:
        event.issue = issue
        return OK
    return take_update(event, texts, index, start, r.p - start)


cdef int read_updates(Reader *r, Event *event, int depth) noexcept nogil:
    """Read an array of updates straight into the changes of both sides."""
    cdef const uint8_t *start
    cdef Py_ssize_t index = 0
    cdef int code
    if r.p == r.end or r.p[0] != c'[':
        return refuse_value(r, &event.issue, NOT_ARRAY, L_UPDATES, depth)
    if r.near_left == 2:  # the first event of the message
        event.bids.items = r.near
        event.asks.items = r.near + NEAR_CHANGES
        event.bids.room = event.asks.room = NEAR_CHANGES
        event.bids.borrowed = event.asks.borrowed = True
        r.near_left = 0
    r.p += 1
    if next_is(r, c']'):
        return OK
    while True:
        if read_usual_updates(r, event, &index):
            return OK
        skip_space(r)
        start = r.p
        if start < r.end and start[0] == c'{':
            code = read_update(r, event, index, depth + 1)
        else:
            code = skip_value(r, depth)
            if code == OK:
                note(
                    &event.issue, NOT_OBJECT, L_UPDATES, PART_LEVEL, index, start, r.p - start
                )
        if code != OK:
            return code
        index += 1
        if next_is(r, c','):
            continue
        if next_is(r, c']'):
            return OK
        if r.p == r.end:
            return fault(r, r.end, "the message is cut short")
        return fault(r, r.p, "no comma or bracket after a value")


cdef int read_level2_event(Reader *r, Event *event, int depth) noexcept nogil:
    """Read the object at ``r.p``; its type comes to stand in ``stream``, the product in ``symbol``."""
    cdef const uint8_t *value
    cdef Span key
    cdef int field
    cdef int code = next_key(r, True, &key)
    while code == OK and key.start != NULL:
        field = find_level2_field(key, L_KIND, L_UPDATES)
        value = r.p
        if field == F_OTHER:
            code = skip_value(r, depth)
        elif event.seen & (1u << field):
            code = refuse_value(r, &event.issue, TWICE, field, depth)
        elif field == L_UPDATES:
            code = read_updates(r, event, depth + 1)
        elif field == L_KIND:
            code = read_plain_text(r, event, field, &event.stream, depth)
        else:
            code = read_plain_text(r, event, field, &event.symbol, depth)
        event.seen |= 1u << field
        if code == OK:
            code = next_key(r, False, &key)
    return code


cdef object make_level2_refusal(str product, int field, int part, Py_ssize_t index, str value, int code):
    name = LEVEL2_NAMES[field]
    if part == PART_LEVEL:
        name = f"updates[{index}]" if field == L_UPDATES else f"updates[{index}].{name}"
    return make_refusal(product, name, value, code)


@cython.final
@cython.freelist(32)
cdef class Level2Event:
    """Changes of one product's book, or all of it, from Coinbase's ``l2_data``.

    ``parse_level2`` makes them. An event becomes an update or a snapshot once, with the symbol and
    the ids that the receiver gives it: what the venue counts are its connection's messages.
    """

    cdef str _product
    cdef str _kind
    cdef bint _taken
    cdef object _error
    cdef Event _event

    def __cinit__(self):
        self._product = ""
        self._kind = ""
        self._event.scale = BASE_SCALE

    def __init__(self):
        raise TypeError("parse_level2 makes these")

    def __dealloc__(self):
        free_changes(&self._event.bids)
        free_changes(&self._event.asks)

    @property
    def product(self):
        """The venue's name of the product; empty when it could not be read."""
        return self._product

    @property
    def kind(self):
        """``snapshot`` for the whole book, ``update``, or what else the venue calls it."""
        return self._kind

    @property
    def error(self):
        """Why the event is refused, an ``InvalidEvent`` or a ``CapacityError``; None when it is not."""
        return self._error

    def __len__(self):
        return self._event.bids.count + self._event.asks.count

    cdef int _take(self, str symbol, last_update_id) except -1:
        if self._error is not None:
            raise self._error
        if self._taken:
            raise ValueError(f"the event of {self._product} was taken already")
        if not symbol:
            raise make_refusal(None, "symbol", "", EMPTY)
        self._event.last = check_id(symbol, "last_update_id", last_update_id, 0)
        self._event.first = self._event.last
        return 0

    def to_update(self, str symbol not None, prev_update_id, last_update_id):
        """Make it an update, which takes over the levels.

        Args:
            symbol: The instrument's symbol, not empty.
            prev_update_id: The ``last_update_id`` of the event before it.
            last_update_id: The id that the book then has.

        Raises:
            InvalidEvent: ``error``, or an id or the symbol is refused.
            CapacityError: ``error``.
            ValueError: It was taken already.
        """
        cdef DepthUpdate update
        self._take(symbol, last_update_id)
        self._event.prev = check_id(symbol, "prev_update_id", prev_update_id, -1)
        update = DepthUpdate.__new__(DepthUpdate)
        update._fill(symbol, &self._event)
        self._taken = True
        return update

    def to_snapshot(self, str symbol not None, last_update_id):
        """Make it a snapshot of all there is, which takes over the levels.

        Args:
            symbol: The instrument's symbol, not empty.
            last_update_id: The id of the last event that it contains.

        Raises:
            InvalidEvent: ``error``, or an id or the symbol is refused.
            CapacityError: ``error``.
            ValueError: It was taken already.
        """
        cdef DepthSnapshot snapshot
        self._take(symbol, last_update_id)
        snapshot = DepthSnapshot.__new__(DepthSnapshot)
        snapshot._fill(symbol, 0, &self._event)
        self._taken = True
        return snapshot

    def __repr__(self):
        return f"<Level2Event {self._kind} of {self._product}: {len(self)} levels>"


cdef Level2Event make_level2_event(Event *event):
    """Judge a well-formed event and make it an object, which takes over the levels."""
    cdef Level2Event made = Level2Event.__new__(Level2Event)
    cdef str product = read_span(event.symbol)
    cdef str kind = read_span(event.stream)
    cdef Issue issue = event.issue
    cdef int field
    if product:
        made._product = product
    if kind:
        made._kind = kind
    if issue.code == OK:
        for field in range(L_KIND, L_UPDATES + 1):
            if not event.seen & (1u << field):
                note(&issue, MISSING, field, PART_WHOLE, 0, NULL, 0)
        if not product:
            note(
                &issue, EMPTY if event.symbol.size == 0 else NOT_UNICODE, L_PRODUCT, PART_WHOLE, 0,
                event.symbol.start, event.symbol.size,
            )
        if not kind:
            note(
                &issue, EMPTY if event.stream.size == 0 else NOT_UNICODE, L_KIND, PART_WHOLE, 0,
                event.stream.start, event.stream.size,
            )
    if issue.code != OK:
        made._error = make_level2_refusal(
            product or None, issue.field, issue.part, issue.index, show(issue.start, issue.size),
            issue.code,
        )
        return made
    if settle_changes(&event.bids, &event.asks) != OK:
        raise MemoryError
    made._event.scale = event.scale
    made._event.bids = event.bids
    made._event.asks = event.asks
    memset(&event.bids, 0, sizeof(Changes))
    memset(&event.asks, 0, sizeof(Changes))
    return made


cdef int read_level2_events(Reader *r, list events, int depth) except -1:
    """Read an array of events; return a code, FAULT where it is no JSON."""
    cdef Event event
    cdef const uint8_t *start
    cdef int code
    r.p += 1
    if next_is(r, c']'):
        return OK
    while True:
        skip_space(r)
        start = r.p
        memset(&event, 0, sizeof(Event))
        event.scale = BASE_SCALE
        try:
            if start < r.end and start[0] == c'{':
                code = read_level2_event(r, &event, depth + 1)
            else:
                code = refuse_value(r, &event.issue, NOT_OBJECT, L_EVENTS, depth)
            if code == NO_MEMORY:
                raise MemoryError
            if code != OK:
                return code
            events.append(make_level2_event(&event))
        finally:
            free_changes(&event.bids)
            free_changes(&event.asks)
        if next_is(r, c','):
            continue
        if next_is(r, c']'):
            return OK
        if r.p == r.end:
            return fault(r, r.end, "the message is cut short")
        return fault(r, r.p, "no comma or bracket after a value")


cdef tuple read_level2(Reader *r):
    """Read a whole message; None when it is of another channel."""
    cdef Issue issue
    cdef Span key
    cdef Span channel
    cdef Span time
    cdef const uint8_t *value
    cdef list events = None
    cdef int64_t sequence = 0
    cdef int64_t time_us = 0
    cdef unsigned int seen = 0
    cdef int field
    cdef int code
    memset(&issue, 0, sizeof(Issue))
    memset(&channel, 0, sizeof(Span))
    memset(&time, 0, sizeof(Span))
    skip_space(r)
    if r.p == r.end:
        code = fault(r, r.end, "the message is empty")
    elif r.p[0] != c'{':
        code = skip_value(r, 0)
        key.start = NULL
    else:
        code = next_key(r, True, &key)
    while code == OK and key.start != NULL:
        field = find_level2_field(key, L_CHANNEL, L_EVENTS)
        value = r.p
        if field == F_OTHER:
            code = skip_value(r, 1)
        elif seen & (1u << field):
            code = refuse_value(r, &issue, TWICE, field, 1)
        elif field == L_SEQUENCE:
            code = read_id(r, &issue, field, &sequence, 1)
        elif field == L_CHANNEL and value < r.end and value[0] == c'"':
            code = read_string(r, &channel)
        elif field == L_TIME and value < r.end and value[0] == c'"':
            code = read_string(r, &time)
        elif field == L_EVENTS and value < r.end and value[0] == c'[' and (
            channel.start == NULL or channel.escaped or is_text(channel.start, channel.size, "l2_data", 7)
        ):
            events = []
            code = read_level2_events(r, events, 2)
        elif field == L_EVENTS:
            code = refuse_value(r, &issue, NOT_ARRAY, field, 1)
        else:
            code = skip_value(r, 1)
        seen |= 1u << field
        if code == OK:
            code = next_key(r, False, &key)
    if code == OK:
        skip_space(r)
        if r.p != r.end:
            code = fault(r, r.p, "something follows the message")
    if code != OK:
        raise MalformedMessage(r.reason.decode("ascii"), r.p - r.start, None)
    if read_span(channel) != "l2_data":
        return None
    for field in (L_SEQUENCE, L_EVENTS):
        if not seen & (1u << field):
            note(&issue, MISSING, field, PART_WHOLE, 0, NULL, 0)
    if issue.code != OK:
        raise make_level2_refusal(
            None, issue.field, PART_WHOLE, 0, show(issue.start, issue.size), issue.code
        )
    if time.start != NULL:
        time_us = read_time(time)
    for made in events:
        (<Level2Event>made)._event.time = time_us // 1000
    return sequence, time_us, events


def parse_level2(data):
    """Parse one message of Coinbase Advanced's ``level2`` channel.

    Args:
        data: The message's bytes (bytes, bytearray or memoryview), JSON in UTF-8. Not kept.

    Returns:
        ``(sequence_num, time_us, events)``, or None when the message is well-formed JSON of another
        channel than ``l2_data``. ``time_us`` is its ``timestamp`` in Unix microseconds, 0 when that
        cannot be told. An event that is refused has an ``error``; the others are of use.

    Raises:
        MalformedMessage: Not JSON, cut short, nested deeper than 64, not UTF-8.
        InvalidEvent: ``sequence_num`` or ``events`` is missing, stands twice or is refused.
        TypeError: ``data`` is not a bytes-like object.

    Cost: one pass over the bytes; no object for a level, however many there are.
    """
    cdef Py_buffer view
    cdef Reader reader
    cdef Change[2 * NEAR_CHANGES] near
    memset(&reader, 0, sizeof(Reader))
    open_bytes(data, &view)
    try:
        reader.start = <const uint8_t *>view.buf
        reader.p = reader.start
        reader.end = reader.start + view.len
        reader.near = near
        reader.near_left = 2
        return read_level2(&reader)
    finally:
        close_bytes(&view)


# ---------------------------------------------------------------------------------------------
# Books
# ---------------------------------------------------------------------------------------------

cdef void free_side(Side *side) noexcept nogil:
    PyMem_RawFree(side.memory)
    PyMem_RawFree(side.highs)
    PyMem_RawFree(side.top)
    memset(side, 0, sizeof(Side))


cdef inline Py_ssize_t count_keys(Py_ssize_t room) noexcept nogil:
    """Return how many keys ``room`` slots take, with those that searches begin with."""
    return room + SPARE + room // STEP + room // BLOCK + 2 * STEP


cdef inline Py_ssize_t sizeof_slots(Py_ssize_t room) noexcept nogil:
    """Return the bytes of ``room`` slots: of keys, what searches begin with, bits and rests."""
    return (
        LINE
        + (GUARD + count_keys(room)) * <Py_ssize_t>sizeof(int64_t)
        + (room // BLOCK + 2) * <Py_ssize_t>sizeof(uint64_t)
        + (room + SPARE) * <Py_ssize_t>sizeof(Rest)
    )


cdef Py_ssize_t sizeof_side(Side *side) noexcept nogil:
    return (
        (sizeof_slots(side.room) if side.memory != NULL else 0)
        + (side.room * <Py_ssize_t>sizeof(uint32_t) if side.highs != NULL else 0)
        + (<Py_ssize_t>sizeof(Top) if side.top != NULL else 0)
    )


cdef int allocate_slots(Side *side, Py_ssize_t room, bint wide) noexcept nogil:
    """Set the arrays of a side to new ones with ``room`` empty slots; what was is not freed."""
    cdef Py_ssize_t keys = count_keys(room)
    cdef Py_ssize_t i
    cdef uint32_t *highs = NULL
    cdef void *memory
    if wide:
        highs = <uint32_t *>PyMem_RawCalloc(<size_t>room, sizeof(uint32_t))
        if highs == NULL:
            return NO_MEMORY
    memory = PyMem_RawMalloc(<size_t>sizeof_slots(room))
    if memory == NULL:
        PyMem_RawFree(highs)
        return NO_MEMORY
    side.memory = memory
    side.highs = highs
    # What a step of a search looks at lies in one line of the caches.
    side.keys = <int64_t *>((<uintptr_t>memory + LINE - 1) & ~<uintptr_t>(LINE - 1)) + GUARD
    side.coarse_count = room // BLOCK
    side.fine = side.keys + room + SPARE
    side.coarse = side.fine + room // STEP
    side.live = <uint64_t *>(side.keys + keys) + 1
    side.rests = <Rest *>(side.live + room // BLOCK + 1)
    side.room = room
    side.end = 0
    side.moved = 0
    for i in range(GUARD):
        side.keys[i - GUARD] = INT64_MIN
    for i in range(keys):
        side.keys[i] = INT64_MAX
    memset(side.live, 0, <size_t>(room // BLOCK) * sizeof(uint64_t))
    side.live[-1] = UINT64_MAX
    side.live[room // BLOCK] = UINT64_MAX
    return OK


cdef inline Py_ssize_t padded(Py_ssize_t count) noexcept nogil:
    """Return the room for ``count`` levels: a fourth more, so that a hole is mostly near.

    A smaller book gets half of its levels more: books grow in their first minutes, and what takes
    longest of inserting is a hole that is far away.
    """
    cdef Py_ssize_t more = max(count >> 2, min(count >> 1, <Py_ssize_t>1200))
    return (count + more + BLOCK - 1 + 8) & ~<Py_ssize_t>(BLOCK - 1)


cdef inline Py_ssize_t fitting(Side *side, Py_ssize_t count) noexcept nogil:
    """Return the room for ``count`` levels: the one that the side has when that is about right.

    Large sides keep none that is larger, as the memory of a book of 5,000 levels a side is promised.
    """
    cdef Py_ssize_t room = padded(count)
    cdef Py_ssize_t more = 2 * BLOCK if count < LEAST_KEPT else 0
    return side.room if room - (room >> 3) <= side.room <= room + more else room


cdef inline Py_ssize_t last_live(Side *side, Py_ssize_t before) noexcept nogil:
    """Return the last level's slot below ``before``, or -1."""
    cdef Py_ssize_t word = (before - 1) >> 6
    cdef uint64_t bits
    if before <= 0:
        return -1
    bits = side.live[word] & (UINT64_MAX >> (63 - ((before - 1) & 63)))
    while bits == 0:
        word -= 1
        if word < 0:
            return -1
        bits = side.live[word]
    return (word << 6) + 63 - __builtin_clzll(bits)


cdef int spread_side(Side *side, Py_ssize_t keep, Py_ssize_t room, bint wide) noexcept nogil:
    """Spread holes evenly among the best ``keep`` levels; the others are forgotten.

    They move to new memory when ``room`` is another, or when ``wide`` asks for room for quantities
    above 64 bits. Changes nothing when it fails.
    """
    cdef Side fresh = side[0]
    cdef Py_ssize_t first = 0 if keep == side.count else nth_best(side, keep)
    cdef bint moves = room != side.room or (wide and side.highs == NULL)
    if moves and allocate_slots(&fresh, room, wide or side.highs != NULL) != OK:
        return NO_MEMORY
    obf_pack(side, first, &fresh)
    obf_spread(&fresh)
    if moves:
        PyMem_RawFree(side.memory)
        PyMem_RawFree(side.highs)
    side[0] = fresh
    return OK


cdef inline void prefetch_index(Side *side) noexcept nogil:
    """Have what searches begin with come from memory, all of it at once."""
    cdef Py_ssize_t i
    for i in range(0, side.coarse_count, 8):
        __builtin_prefetch(side.coarse + i)


cdef int reserve_side(Side *side, Changes *changes, uint64_t factor, uint64_t flip) noexcept nogil:
    """Make room for all that the changes may add. Counted exactly only when they are many."""
    cdef Py_ssize_t i
    cdef Py_ssize_t more = changes.count
    cdef Change *change
    if changes.wide and side.highs == NULL:
        return spread_side(side, side.count, padded(side.count + more), True)
    if side.count + more <= side.room:
        return OK
    if more > BLOCK:
        more = 0
        for i in range(changes.count):
            change = &changes.items[i]
            more += not (
                obf_is_zero(change)
                or obf_has_level(side, <int64_t>((change.price * factor) ^ flip))
            )
        if side.count + more <= side.room:
            return OK
    return spread_side(side, side.count, padded(side.count + more), False)


cdef inline uint32_t high_of(Side *side, Py_ssize_t at) noexcept nogil:
    return 0 if side.highs == NULL else side.highs[at]


cdef inline void spoil_top(Side *side, int64_t best) noexcept nogil:
    """Have the kept text be made anew when one of its levels may be another now."""
    cdef Top *top = <Top *>side.top
    cdef Best *known
    if top != NULL:
        known = &top.best[top.turn]
        if known.count < TOP or best >= known.keys[TOP - 1]:
            top.valid = False


cdef Py_ssize_t change_sides(
    Side *bids, Changes *bid_changes, Side *asks, Changes *ask_changes, uint64_t factor
) noexcept nogil:
    """Apply changes, for which there is room; return how many deleted an unknown level."""
    cdef Work work
    work.sides[0] = bids
    work.sides[1] = asks
    work.changes[0] = bid_changes.items
    work.changes[1] = ask_changes.items
    # A side without room has no level, and the changes, if any, all delete.
    work.counts[0] = bid_changes.count if bids.room else 0
    work.counts[1] = ask_changes.count if asks.room else 0
    work.factor = factor
    work.best[0] = INT64_MIN
    work.best[1] = INT64_MIN
    work.unknown = 0
    obf_apply(&work)
    if work.counts[0]:
        spoil_top(bids, work.best[0])
        obf_trim(bids)
    if work.counts[1]:
        spoil_top(asks, work.best[1])
        obf_trim(asks)
    return (
        work.unknown + bid_changes.count - work.counts[0] + ask_changes.count - work.counts[1]
    )


cdef void tend_side(Side *side) noexcept nogil:
    """Forget what is too far away, give back unused memory, spread holes anew; none must succeed.

    A side that is known only in part keeps at most ``most`` levels. Beyond, the worse half goes,
    and the edge of what is known with it when it lay there: nothing better than the edge is lost.
    """
    cdef Py_ssize_t keep = side.count
    cdef int64_t edge = side.edge
    if side.edged and side.count > side.most:
        keep = side.most >> 1
        edge = max(edge, side.keys[nth_best(side, keep)])
    elif side.room <= 2 * side.count + 256 and side.moved <= side.room:
        return
    side.moved = 0
    if spread_side(side, keep, fitting(side, keep), False) == OK:
        side.edge = edge


cdef Py_ssize_t nth_best(Side *side, Py_ssize_t nth) noexcept nogil:
    """Return the slot of the ``nth`` best level, from 1 to ``side.count``."""
    cdef Py_ssize_t word = (side.end - 1) >> 6
    cdef Py_ssize_t some
    cdef Py_ssize_t at
    while True:
        some = __builtin_popcountll(side.live[word])
        if some >= nth:
            break
        nth -= some
        word -= 1
    at = (word << 6) + BLOCK
    while nth > 0:
        at = last_live(side, at)
        nth -= 1
    return at


cdef struct Rank:
    int64_t key
    Py_ssize_t index


cdef int compare_ranks(const void *left, const void *right) noexcept nogil:
    cdef const Rank *a = <const Rank *>left
    cdef const Rank *b = <const Rank *>right
    if a.key != b.key:
        return -1 if a.key < b.key else 1
    return -1 if a.index < b.index else <int>(a.index > b.index)


cdef int load_side(Side *side, Changes *changes, Py_ssize_t limit, uint64_t flip) noexcept nogil:
    """Fill an empty side from a snapshot's levels, in whatever order they are."""
    cdef Rank *ranks
    cdef Py_ssize_t i
    cdef int64_t key
    cdef Change *change
    cdef bint sorted_ = True
    memset(side, 0, sizeof(Side))
    if changes.count == 0:
        return OK
    ranks = <Rank *>PyMem_RawMalloc(<size_t>changes.count * sizeof(Rank))
    if ranks == NULL:
        return NO_MEMORY
    # Without room for more: spreading moves the levels to memory that has it, and what this leaves
    # free is of the size that loading the next book asks for. So the heap does not grow by more.
    if allocate_slots(side, (changes.count + BLOCK - 1) & ~(BLOCK - 1), changes.wide) != OK:
        PyMem_RawFree(ranks)
        return NO_MEMORY
    for i in range(changes.count):  # venues give the best first: turn that round
        ranks[i].index = changes.count - 1 - i
        ranks[i].key = <int64_t>(changes.items[ranks[i].index].price ^ flip)
        if i > 0 and ranks[i].key <= ranks[i - 1].key:
            sorted_ = False
    if not sorted_:
        qsort(ranks, <size_t>changes.count, sizeof(Rank), compare_ranks)
    side.edge = ranks[0].key
    side.edged = limit > 0 and changes.count >= limit
    side.most = 2 * max(<Py_ssize_t>LEAST_KEPT, changes.count)
    for i in range(changes.count):
        key = ranks[i].key
        if i + 1 < changes.count and ranks[i + 1].key == key:
            continue  # the last of those with the same price wins
        change = &changes.items[ranks[i].index]
        if obf_is_zero(change):
            continue
        side.keys[side.count] = key
        side.live[side.count >> 6] |= <uint64_t>1 << (side.count & 63)
        obf_put(side, side.count, change)
        side.count += 1
    side.end = side.count
    obf_index(side, 0, side.room - 1)
    PyMem_RawFree(ranks)
    spread_side(side, side.count, padded(side.count), False)  # failing leaves it dense, no more
    return OK


cdef inline uint64_t price_at(Side *side, Py_ssize_t at, uint64_t flip) noexcept nogil:
    return <uint64_t>side.keys[at] ^ flip


cdef uint64_t largest_price(Side *side, uint64_t flip) noexcept nogil:
    """Return the largest price that a wider scale must hold: of the levels and of the edge."""
    cdef uint64_t largest = 0
    if side.count:
        largest = max(
            price_at(side, nth_best(side, side.count), flip), price_at(side, side.end - 1, flip)
        )
    if side.edged:
        largest = max(largest, <uint64_t>side.edge ^ flip)
    return largest


cdef void widen_side(Side *side, uint64_t factor, uint64_t flip) noexcept nogil:
    """Bring the levels to a wider scale."""
    cdef Top *top = <Top *>side.top
    cdef Py_ssize_t at
    if side.room:
        obf_pack(side, 0, side)  # a hole's key might not fit
        for at in range(side.count):
            side.keys[at] = <int64_t>((price_at(side, at, flip) * factor) ^ flip)
        obf_spread(side)
    if side.edged:
        side.edge = <int64_t>(((<uint64_t>side.edge ^ flip) * factor) ^ flip)
    if top != NULL:
        top.valid = False
        top.best[top.turn].count = 0  # its keys are of the scale that was
        top.best[top.turn].keys[0] = INT64_MIN


cdef bint covers_side(Side *side, Py_ssize_t depth) noexcept nogil:
    if not side.edged or depth == 0:
        return True
    return side.count >= depth and side.keys[nth_best(side, depth)] >= side.edge


cdef Py_ssize_t check_count(str name, object count) except -1:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be an int, not {type(count).__name__}")
    if count < 0:
        raise ValueError(f"{name} must not be negative: {count}")
    return min(count, INT64_MAX)


cdef int check_places(str name, object places) except -1:
    if isinstance(places, bool) or not isinstance(places, int):
        raise TypeError(f"{name} must be an int, not {type(places).__name__}")
    if not 0 <= places <= MAX_DECIMALS:
        raise ValueError(f"{name} must be 0 to {MAX_DECIMALS}: {places}")
    return places


cdef uint8_t *strip_number(
    uint8_t *p, const uint8_t *text, Py_ssize_t size, int decimals
) noexcept nogil:
    """Write a number's digits, without the zeros in front, with zeros for missing decimals."""
    cdef Py_ssize_t i
    cdef int after = 0
    cdef bint fraction = False
    cdef bint begun = False
    for i in range(size):
        if text[i] == c'.':
            fraction = True
            continue
        after += fraction
        if begun or text[i] != c'0':
            begun = True
            p[0] = text[i]
            p += 1
    if begun:
        while after < decimals:
            p[0] = c'0'
            p += 1
            after += 1
    return p


cdef uint8_t *write_digits(
    uint8_t *p,
    Side *side,
    Py_ssize_t count,
    int scale,
    uint64_t flip,
    int price_decimals,
    int quantity_decimals,
) noexcept nogil:
    """Write the digits of the best ``count`` levels."""
    cdef uint8_t[64] text
    cdef Py_ssize_t at = side.end
    cdef Py_ssize_t i
    cdef Py_ssize_t size
    cdef Rest *rest
    for i in range(count):
        at = last_live(side, at)
        rest = &side.rests[at]
        size = write_price(text, price_at(side, at, flip), scale, rest.form)
        p = strip_number(p, text, size, price_decimals)
        size = write_quantity(text, rest.low, high_of(side, at), rest.form)
        p = strip_number(p, text, size, quantity_decimals)
    return p


@cython.final
cdef class OrderBook:
    """A sorted book of one instrument.

    ``follow`` takes raw messages and judges whether they follow; ``apply`` takes parsed updates, and whoever
    calls it has proven that they do.

    Threads: different books know nothing of each other. Of one book each call is whole, on a
    Python without GIL too; a sequence of calls is the caller's to guard.

    Args:
        symbol: The instrument's symbol, that of its rows.
        native: What its updates and snapshots call it; empty: the same.

    Cost: 19.25 bytes a slot, a fourth more slots than levels, half as many more in books of up to some thousand;
    6.3 kB more once a row was taken.
    """

    cdef str _symbol
    cdef str _native
    cdef int64_t _update_id
    cdef Side _bids
    cdef Side _asks
    cdef int _scale
    cdef bint _made
    cdef bint _joined  # something was applied to what was loaded
    cdef int64_t _unknown_deletes

    def __cinit__(self):
        self._symbol = ""
        self._native = ""
        self._scale = BASE_SCALE

    def __init__(self, str symbol not None, str native not None=""):
        check_fresh(self, self._made)
        self._symbol = symbol
        self._native = native or symbol
        self._made = True

    def __dealloc__(self):
        free_side(&self._bids)
        free_side(&self._asks)

    @property
    def symbol(self):
        """The instrument's symbol."""
        return self._symbol

    @property
    @cython.critical_section
    def update_id(self):
        """The id of the last update applied, or of the snapshot loaded; 0 when empty."""
        return self._update_id

    @property
    @cython.critical_section
    def bid_count(self):
        """Number of bid levels."""
        return self._bids.count

    @property
    @cython.critical_section
    def ask_count(self):
        """Number of ask levels."""
        return self._asks.count

    @property
    @cython.critical_section
    def unknown_deletes(self):
        """How many changes deleted a level that was not there, since the book was made."""
        return self._unknown_deletes

    @property
    @cython.critical_section
    def crossed(self):
        """Whether the best bid is at or above the best ask."""
        if self._bids.count == 0 or self._asks.count == 0:
            return False
        return price_at(&self._bids, self._bids.end - 1, BID_FLIP) >= price_at(
            &self._asks, self._asks.end - 1, ASK_FLIP
        )

    @property
    @cython.critical_section
    def nbytes(self):
        """Bytes of memory that the book holds, its unused room included."""
        return (
            sizeof_book() + sizeof_side(&self._bids) + sizeof_side(&self._asks)
        )

    @cython.critical_section
    def load(self, DepthSnapshot snapshot not None):
        """Replace everything by a snapshot.

        Levels may come in any order; of those with the same price the last wins; quantity 0 is
        no level. A side with ``snapshot.limit`` levels or more is known only up to its worst price.

        Args:
            snapshot: The whole book, of this book's symbol.

        Raises:
            ValueError: The snapshot is of another symbol; nothing is changed.
            MemoryError: No memory; nothing is changed.
        """
        cdef Side bids
        cdef Side asks
        if snapshot._symbol != self._native:
            raise ValueError(f"a snapshot of {snapshot._symbol} for the book of {self._native}")
        if load_side(&bids, &snapshot._bids, snapshot._limit, BID_FLIP) != OK:
            raise MemoryError
        if load_side(&asks, &snapshot._asks, snapshot._limit, ASK_FLIP) != OK:
            free_side(&bids)
            raise MemoryError
        free_side(&self._bids)
        free_side(&self._asks)
        self._bids = bids
        self._asks = asks
        self._scale = snapshot._scale
        self._update_id = snapshot._last
        self._joined = False

    @cython.critical_section
    def apply(self, DepthUpdate update not None):
        """Apply an update, whole or not at all.

        A change with quantity 0 deletes its level, one for a level that is not there is counted in
        ``unknown_deletes``. Of changes with the same price the last wins.

        Args:
            update: The next event of this book's symbol.

        Raises:
            ValueError: The update is of another symbol.
            CapacityError: The book and the update do not fit one price scale.
            MemoryError: No memory.

            After any of them the book is as it was.

        Of a side whose snapshot was cut at its limit, the worst levels are forgotten once there
        are more than 8,192, and more than twice as many as the snapshot gave. ``covers`` knows.

        Cost: a search of three steps for each change, among 16 keys, 8 and 8, and of some more in books
        of over a thousand levels; a new level moves a few others.
        """
        if update._symbol != self._native:
            raise self._of_another(update._symbol)
        prefetch_index(&self._bids)
        prefetch_index(&self._asks)
        self._apply(&update._bids, &update._asks, update._scale, update._last)

    @cython.critical_section
    def follow(self, data, bint futures=False):
        """Parse a raw ``depthUpdate`` message of Binance, and apply it if it follows.

        It does what ``parse_depth_update`` and ``apply`` do, without the object between, and judges
        continuity besides: the first message after ``load`` must follow an id at or before the snapshot's,
        and end at that id or later; each other one must follow the id where the book stands. So a book that
        follows a whole stream, from before its snapshot was asked for, is the venue's book. A book
        without a snapshot is empty, at the id 0.

        Args:
            data: The message's bytes (bytes, bytearray or memoryview), JSON in UTF-8, raw or in the
                combined stream's wrapper. Not kept.
            futures: Take ``pu`` as the previous update id, and demand it; otherwise it is ``U - 1``.

        Returns:
            True when it was applied. False when it is old, all of it being in the book already, or
            of another kind, such as the answer to a subscription.

        Raises:
            SequenceError: The message does not follow: load a new snapshot.
            ValueError: It is of another symbol.
            MalformedMessage, TypeError: As ``parse_depth_update``.
            InvalidEvent: As ``parse_depth_update``; or ``pu`` is above ``u``.
            CapacityError: As ``parse_depth_update`` and ``apply``.
            MemoryError: No memory.

            After any of them the book is as it was.

        Cost: that of ``parse_depth_update`` and ``apply``, less a tenth.
        """
        cdef Message message
        cdef Event *event
        open_message(&message, data, futures)
        try:
            prefetch_index(&self._bids)
            prefetch_index(&self._asks)
            event = read_event(&message)
            if event == NULL:
                return False
            judge_event(&message, event)
            if not is_span_of(event.symbol, self._native):
                raise self._of_another(read_symbol(event, &message.outer))
            if not self._is_next(event):
                return False
            self._apply(&event.bids, &event.asks, event.scale, event.last)
            return True
        finally:
            close_message(&message)

    cdef bint _is_next(self, Event *event) except -1:
        """Tell whether an event is to be applied; False when it is old."""
        if event.last < event.prev:
            raise make_refusal(self._native, "pu", str(event.prev), BACKWARD)
        if event.prev == self._update_id:
            return True
        if event.last < self._update_id or (self._joined and event.last == self._update_id):
            return False
        if not self._joined and event.prev < self._update_id:
            return True
        raise SequenceError(self._symbol, self._update_id, event.prev, event.last)

    cdef object _of_another(self, str symbol):
        return ValueError(f"an update of {symbol} for the book of {self._native}")

    cdef int _apply(self, Changes *bids, Changes *asks, int scale, int64_t last) except -1:
        cdef uint64_t factor = 1
        cdef uint64_t widening = 1
        if scale < self._scale:
            factor = POW10[self._scale - scale]
            self._check_prices(bids, "bids", scale, factor)
            self._check_prices(asks, "asks", scale, factor)
        elif scale > self._scale:
            widening = POW10[scale - self._scale]
            self._check_side(&self._bids, "bids", scale, widening, BID_FLIP)
            self._check_side(&self._asks, "asks", scale, widening, ASK_FLIP)
            # A wider scale changes nothing that can be seen: it may stay if memory runs out below.
            widen_side(&self._bids, widening, BID_FLIP)
            widen_side(&self._asks, widening, ASK_FLIP)
            self._scale = scale
        if (
            reserve_side(&self._bids, bids, factor, BID_FLIP) != OK
            or reserve_side(&self._asks, asks, factor, ASK_FLIP) != OK
        ):
            raise MemoryError
        self._unknown_deletes += change_sides(&self._bids, bids, &self._asks, asks, factor)
        self._update_id = last
        self._joined = True
        tend_side(&self._bids)
        tend_side(&self._asks)
        return 0

    cdef int _check_prices(
        self, Changes *changes, str side, int scale, uint64_t factor
    ) except -1:
        """Raise when a price of an update does not fit the book's scale."""
        cdef uint64_t limit = UINT64_MAX // factor
        cdef Py_ssize_t i
        cdef Change change
        for i in range(changes.count):
            if changes.items[i].price > limit:
                change = changes.items[i]
                price = make_level(change.price, scale, 0, 0, change.form)[0]
                raise CapacityError(
                    self._symbol, f"{side}[{i}].price", price,
                    f"the book's prices have {self._scale} decimals, and then end at "
                    f"{UINT64_MAX / 10 ** self._scale:.6g}",
                )
        return 0

    cdef int _check_side(
        self, Side *side, str name, int scale, uint64_t factor, uint64_t flip
    ) except -1:
        """Raise when the book's own prices do not fit an update's wider scale."""
        cdef uint64_t largest = largest_price(side, flip)
        if largest > UINT64_MAX // factor:
            raise CapacityError(
                self._symbol, name, make_level(largest, self._scale, 0, 0, self._scale)[0],
                f"an update's prices have {scale} decimals, and then end at "
                f"{UINT64_MAX / 10 ** scale:.6g}",
            )
        return 0

    @cython.critical_section
    def clear(self):
        """Forget all levels, the update id and the coverage, and give the memory back."""
        free_side(&self._bids)
        free_side(&self._asks)
        self._scale = BASE_SCALE
        self._update_id = 0
        self._joined = False

    @cython.critical_section
    def covers(self, depth=20):
        """Tell whether the best ``depth`` levels of both sides are surely known.

        Returns:
            False when a side whose snapshot was cut at its limit has fewer levels than ``depth``,
            or the last of them lies beyond the worst price of that snapshot.
        """
        cdef Py_ssize_t levels = check_count("depth", depth)
        return covers_side(&self._bids, levels) and covers_side(&self._asks, levels)

    @cython.critical_section
    def bids(self, depth=None, start=0):
        """Return the best bids, highest first, as ``(price, quantity)``.

        Args:
            depth: How many at most; None for all.
            start: How many of the best to leave out.
        """
        return self._list(&self._bids, depth, start, BID_FLIP)

    @cython.critical_section
    def asks(self, depth=None, start=0):
        """Return the best asks, lowest first, as ``(price, quantity)``.

        Args:
            depth: How many at most; None for all.
            start: How many of the best to leave out.
        """
        return self._list(&self._asks, depth, start, ASK_FLIP)

    cdef list _list(self, Side *side, object depth, object start, uint64_t flip):
        cdef Py_ssize_t wanted = PY_SSIZE_T_MAX if depth is None else check_count("depth", depth)
        cdef Py_ssize_t skipped = check_count("start", start)
        cdef Py_ssize_t count
        cdef Py_ssize_t at = side.end
        cdef int scale = self._scale
        cdef Py_ssize_t i
        cdef Change *copies
        cdef list levels = []
        # Only now, as the checks above may run any code, which may change this book.
        skipped = min(skipped, side.count)
        count = min(wanted, side.count - skipped)
        if count == 0:
            return levels
        if skipped > 0:
            at = nth_best(side, skipped)
        # A copy: making objects may start the garbage collector, and with it any code at all,
        # which may change this book.
        copies = <Change *>PyMem_RawMalloc(<size_t>count * sizeof(Change))
        if copies == NULL:
            raise MemoryError
        for i in range(count):
            at = last_live(side, at)
            copies[i].price = price_at(side, at, flip)
            copies[i].low = side.rests[at].low
            copies[i].high = high_of(side, at)
            copies[i].form = side.rests[at].form
        try:
            for i in range(count):
                levels.append(
                    make_level(
                        copies[i].price, scale, copies[i].low, copies[i].high, copies[i].form
                    )
                )
        finally:
            PyMem_RawFree(copies)
        return levels

    @cython.critical_section
    def digits(self, depth, price_decimals, quantity_decimals):
        """Return what checksums of venues are made of: the digits of the best levels in a row.

        The asks come first, lowest first, then the bids, highest first; of each level price, then
        quantity, without the point and without zeros in front.

        Args:
            depth: Levels a side at most.
            price_decimals: Decimals that a price has at least, 0 to 31; zeros are added to others.
            quantity_decimals: The same for quantities.

        Cost: one pass from the arrays to the bytes, no string is made.
        """
        cdef Py_ssize_t levels = check_count("depth", depth)
        cdef int price_places = check_places("price_decimals", price_decimals)
        cdef int quantity_places = check_places("quantity_decimals", quantity_decimals)
        cdef Py_ssize_t bids = min(levels, self._bids.count)
        cdef Py_ssize_t asks = min(levels, self._asks.count)
        cdef Py_ssize_t room = (bids + asks) * 2 * (MAX_NUMBER + MAX_DECIMALS)
        cdef uint8_t[4096] near
        cdef uint8_t *target = near
        cdef uint8_t *p
        if room > <Py_ssize_t>sizeof(near):
            target = <uint8_t *>PyMem_RawMalloc(<size_t>room)
            if target == NULL:
                raise MemoryError
        try:
            p = write_digits(
                target, &self._asks, asks, self._scale, ASK_FLIP, price_places, quantity_places
            )
            p = write_digits(
                p, &self._bids, bids, self._scale, BID_FLIP, price_places, quantity_places
            )
            return PyBytes_FromStringAndSize(<const char *>target, p - target)
        finally:
            if target != near:
                PyMem_RawFree(target)

    @cython.critical_section
    def snapshot(self, timestamp, depth=20):
        """Take the best levels as a row.

        Args:
            timestamp: Unix seconds of the sampling clock, signed 64-bit.
            depth: Levels a side at most.

        Raises:
            OverflowError: The timestamp does not fit 64 bits.

        Cost: one pass from the arrays to the packed bytes, no string is made. The text of the best
        20 levels is kept, and copied where they are as they were.
        """
        cdef int64_t second = check_int64("timestamp", timestamp)
        cdef Py_ssize_t levels = check_count("depth", depth)
        cdef Py_ssize_t bids = min(levels, self._bids.count)
        cdef Py_ssize_t asks = min(levels, self._asks.count)
        # As many levels as are kept may be written first, whatever the depth.
        cdef Py_ssize_t most = max(bids + asks, <Py_ssize_t>(2 * TOP))
        cdef Py_ssize_t room = most * (1 + 2 * MAX_NUMBER) + SHORT_TEXT + 40
        cdef uint8_t[8192] near
        cdef uint8_t *target = near
        cdef uint8_t *p
        cdef Snapshot snapshot = Snapshot.__new__(Snapshot)
        if room > <Py_ssize_t>sizeof(near):
            target = <uint8_t *>PyMem_RawMalloc(<size_t>room)
            if target == NULL:
                raise MemoryError
        try:
            target[0] = 0x94
            p = write_array(target + 1, bids)
            snapshot._bids_at = p - target
            p = write_best(p, &self._bids, bids, self._scale, BID_FLIP)
            p = write_array(p, asks)
            snapshot._asks_at = p - target
            p = write_best(p, &self._asks, asks, self._scale, ASK_FLIP)
            p = write_uint(p, <uint64_t>self._update_id)
            p = write_int(p, second)
            snapshot._packed = PyBytes_FromStringAndSize(<const char *>target, p - target)
        finally:
            if target != near:
                PyMem_RawFree(target)
        snapshot._symbol = self._symbol
        snapshot._update_id = <uint64_t>self._update_id
        snapshot._timestamp = second
        snapshot._bid_count = bids
        snapshot._ask_count = asks
        snapshot._made = True
        return snapshot

    @cython.critical_section
    def __repr__(self):
        return (
            f"<OrderBook {self._symbol} at {self._update_id}: "
            f"{self._bids.count} bids, {self._asks.count} asks>"
        )


cdef Py_ssize_t sizeof_book():
    return OrderBook.__basicsize__


# ---------------------------------------------------------------------------------------------
# MessagePack
# ---------------------------------------------------------------------------------------------

cdef uint8_t *write_big(uint8_t *p, uint8_t head, uint64_t value, int size) noexcept nogil:
    """Write a head byte and ``size`` bytes of ``value``, the highest first."""
    cdef int i
    p[0] = head
    for i in range(size):
        p[1 + i] = <uint8_t>(value >> (8 * (size - 1 - i)))
    return p + 1 + size


cdef uint8_t *write_uint(uint8_t *p, uint64_t value) noexcept nogil:
    if value < 0x80:
        p[0] = <uint8_t>value
        return p + 1
    if value < 0x100:
        return write_big(p, 0xCC, value, 1)
    if value < 0x10000:
        return write_big(p, 0xCD, value, 2)
    if value < 0x100000000u:
        return write_big(p, 0xCE, value, 4)
    return write_big(p, 0xCF, value, 8)


cdef uint8_t *write_int(uint8_t *p, int64_t value) noexcept nogil:
    if value >= 0:
        return write_uint(p, <uint64_t>value)
    if value >= -32:
        p[0] = <uint8_t>(value & 0xFF)
        return p + 1
    if value >= -0x80:
        return write_big(p, 0xD0, <uint64_t>value, 1)
    if value >= -0x8000:
        return write_big(p, 0xD1, <uint64_t>value, 2)
    if value >= -0x80000000LL:
        return write_big(p, 0xD2, <uint64_t>value, 4)
    return write_big(p, 0xD3, <uint64_t>value, 8)


cdef uint8_t *write_array(uint8_t *p, Py_ssize_t count) noexcept nogil:
    if count < 16:
        p[0] = <uint8_t>(0x90 | count)
        return p + 1
    if count < 0x10000:
        return write_big(p, 0xDC, <uint64_t>count, 2)
    return write_big(p, 0xDD, <uint64_t>count, 4)


cdef uint8_t *write_text_head(uint8_t *p, Py_ssize_t size) noexcept nogil:
    if size < 32:
        p[0] = <uint8_t>(0xA0 | size)
        return p + 1
    if size < 0x100:
        return write_big(p, 0xD9, <uint64_t>size, 1)
    if size < 0x10000:
        return write_big(p, 0xDA, <uint64_t>size, 2)
    return write_big(p, 0xDB, <uint64_t>size, 4)


cdef inline uint8_t *close_text(uint8_t *p, Py_ssize_t size) noexcept nogil:
    """Put the head before a text of at most 255 bytes that was written at ``p + 1``."""
    if size >= 32:
        memmove(p + 2, p + 1, <size_t>size)
    return write_text_head(p, size) + size


cdef inline uint8_t *write_level(
    uint8_t *p, Side *side, Py_ssize_t at, int scale, uint64_t flip
) noexcept nogil:
    cdef Rest *rest = &side.rests[at]
    p[0] = 0x92
    p += 1
    p = close_text(p, write_price(p + 1, price_at(side, at, flip), scale, rest.form))
    return close_text(p, write_quantity(p + 1, rest.low, high_of(side, at), rest.form))


cdef uint8_t *renew_top(uint8_t *p, Side *side, Top *top, int scale, uint64_t flip) noexcept nogil:
    """Write the best levels, and keep their text; of those that are as they were it is copied.

    Behind what it writes it may spoil ``SHORT_TEXT`` bytes.
    """
    cdef Best *old = &top.best[top.turn]
    cdef Best *best = &top.best[top.turn ^ 1]
    cdef const uint8_t *start = p
    cdef const uint8_t *known
    cdef int count = <int>min(<Py_ssize_t>TOP, side.count)
    cdef int i
    cdef int j = 0
    cdef Py_ssize_t at
    cdef Py_ssize_t size
    cdef Py_ssize_t word = (side.end + BLOCK - 1) >> 6
    cdef uint64_t bits = 0
    cdef int64_t key
    cdef Rest rest
    cdef uint16_t odd
    for i in range(count):
        while bits == 0:
            word -= 1
            bits = side.live[word]
        at = 63 - __builtin_clzll(bits)
        bits ^= <uint64_t>1 << at
        at += word << 6
        key = side.keys[at]
        rest = side.rests[at]
        best.keys[i] = key
        best.rests[i] = rest
        best.at[i] = <uint16_t>(p - start)
        while old.keys[j] > key:
            j += 1
        if old.keys[j] != key or j == old.count or side.highs != NULL:
            p = write_level(p, side, at, scale, flip)
            continue
        known = top.text + old.at[j]
        odd = old.rests[j].form ^ rest.form
        if old.rests[j].low == rest.low and odd == 0:
            size = old.at[j + 1] - old.at[j]
            memcpy(p, known, SHORT_TEXT)
            if size > SHORT_TEXT:
                memcpy(p, known, <size_t>size)
            p += size
        elif odd & 31 == 0 and known[1] < 0xC0:
            # The price is as it was: its text, of 31 bytes at most, has one byte before it.
            memcpy(p, known, 2 + 31)
            p += 2 + (known[1] & 31)
            p = close_text(p, write_quantity(p + 1, rest.low, 0, rest.form))
        else:
            p = write_level(p, side, at, scale, flip)
        j += 1
    best.count = count
    best.keys[count] = INT64_MIN
    best.at[count] = <uint16_t>(p - start)
    memcpy(top.text, start, <size_t>(p - start))
    top.turn ^= 1
    top.valid = True
    return p


cdef uint8_t *write_best(
    uint8_t *p, Side *side, Py_ssize_t count, int scale, uint64_t flip
) noexcept nogil:
    """Write the best ``count`` levels."""
    cdef Py_ssize_t at = side.end
    cdef Py_ssize_t i
    cdef Top *top = <Top *>side.top
    if count <= TOP and top == NULL:
        top = <Top *>PyMem_RawMalloc(sizeof(Top))
        side.top = top
        if top != NULL:
            top.valid = False
            top.turn = 0
            top.best[0].count = 0
            top.best[0].keys[0] = INT64_MIN
    if count <= TOP and top != NULL:
        if not top.valid:
            at = renew_top(p, side, top, scale, flip) - p
            if count == TOP or count == side.count:
                return p + at
        at = top.best[top.turn].at[count]
        memcpy(p, top.text, <size_t>at)
        return p + at
    for i in range(count):
        at = last_live(side, at)
        p = write_level(p, side, at, scale, flip)
    return p


cdef struct Decoder:
    const uint8_t *start
    const uint8_t *p
    const uint8_t *end
    const char *reason

cdef extern from "_rows.h":
    ctypedef struct RowSide "obf_row_side":
        const uint8_t *start  # the first level
        Py_ssize_t count
    ctypedef struct Row "obf_row":
        RowSide bids
        RowSide asks
        uint64_t update_id
        int64_t timestamp
    bint obf_check_row(const uint8_t *, const uint8_t *, Row *) noexcept nogil

# What stands at the head of a MessagePack value.
cdef enum:
    M_UINT = 1
    M_NEGATIVE
    M_TEXT
    M_ARRAY
    M_MAP


cdef inline int spoil(Decoder *d, const uint8_t *at, const char *reason) noexcept nogil:
    d.p = at
    d.reason = reason
    return -1


cdef int read_head(Decoder *d, uint64_t *value) noexcept nogil:
    """Read a head; ``value`` is a number's (two's complement) or the length that follows."""
    cdef const uint8_t *p = d.p
    cdef uint8_t c
    cdef int kind
    cdef int size
    cdef int i
    cdef uint64_t number = 0
    if p == d.end:
        return spoil(d, p, "the row is cut short")
    c = p[0]
    d.p = p + 1
    if c < 0x80:
        value[0] = c
        return M_UINT
    if c < 0x90:
        value[0] = c & 0x0F
        return M_MAP
    if c < 0xA0:
        value[0] = c & 0x0F
        return M_ARRAY
    if c < 0xC0:
        value[0] = c & 0x1F
        return M_TEXT
    if c >= 0xE0:
        value[0] = <uint64_t><int64_t>(<int>c - 256)
        return M_NEGATIVE
    if 0xCC <= c <= 0xCF:
        kind = M_UINT
        size = 1 << (c - 0xCC)
    elif 0xD0 <= c <= 0xD3:
        kind = M_NEGATIVE
        size = 1 << (c - 0xD0)
    elif 0xD9 <= c <= 0xDB:
        kind = M_TEXT
        size = 1 << (c - 0xD9)
    elif c == 0xDC or c == 0xDD:
        kind = M_ARRAY
        size = 2 << (c - 0xDC)
    elif c == 0xDE or c == 0xDF:
        kind = M_MAP
        size = 2 << (c - 0xDE)
    else:
        return spoil(d, p, "a type that no row has")
    if d.end - d.p < size:
        return spoil(d, d.end, "the row is cut short")
    for i in range(size):
        number = number << 8 | d.p[i]
    d.p += size
    if kind == M_NEGATIVE:
        if not number >> (8 * size - 1) & 1:
            kind = M_UINT  # a signed encoding of what is not negative
        elif size < 8:
            number |= UINT64_MAX << (8 * size)
    value[0] = number
    return kind


cdef int read_row_text(Decoder *d) noexcept nogil:
    """Check a text of the form ``[0-9]+(\\.[0-9]+)?``."""
    cdef const uint8_t *start = d.p
    cdef const uint8_t *p
    cdef const uint8_t *end
    cdef uint64_t size = 0
    if read_head(d, &size) != M_TEXT:
        return -1 if d.reason != NULL else spoil(d, start, "a price or quantity that is not text")
    if size > <uint64_t>(d.end - d.p):
        return spoil(d, d.end, "the row is cut short")
    start = d.p
    end = start + size
    p = skip_digits(start, end)
    if p > start and p < end and p[0] == c'.':
        start = p + 1
        p = skip_digits(start, end)
    if p == start or p != end:
        return spoil(d, p, "a price or quantity that is not a decimal")
    d.p = end
    return 0


cdef int read_row_side(Decoder *d, RowSide *side) noexcept nogil:
    cdef const uint8_t *start = d.p
    cdef uint64_t count = 0
    cdef uint64_t pair = 0
    cdef uint64_t i = 0
    if read_head(d, &count) != M_ARRAY:
        return -1 if d.reason != NULL else spoil(d, start, "bids or asks that are not an array")
    # A level takes five bytes at least: a length beyond that is refused before any is read.
    if count > <uint64_t>(d.end - d.p) // 5:
        return spoil(d, d.end, "the row is cut short")
    side.start = d.p
    side.count = <Py_ssize_t>count
    while i < count:
        start = d.p
        if read_head(d, &pair) != M_ARRAY or pair != 2:
            return -1 if d.reason != NULL else spoil(d, start, "a level that is not a pair")
        if read_row_text(d) != 0 or read_row_text(d) != 0:
            return -1
        i += 1
    return 0


cdef int read_row_field(Decoder *d, Row *row, int field) noexcept nogil:
    """Read the ``field``-th value of a row, in the order of the array form."""
    cdef const uint8_t *start = d.p
    cdef uint64_t value = 0
    cdef int kind
    if field == 0:
        return read_row_side(d, &row.bids)
    if field == 1:
        return read_row_side(d, &row.asks)
    kind = read_head(d, &value)
    if d.reason != NULL:
        return -1
    if field == 2:
        if kind != M_UINT:
            return spoil(d, start, "an update id that is not an unsigned integer")
        row.update_id = value
        return 0
    if kind != M_NEGATIVE and (kind != M_UINT or value > <uint64_t>INT64_MAX):
        return spoil(d, start, "a timestamp that is not a signed 64-bit integer")
    row.timestamp = <int64_t>value
    return 0


cdef int read_row_key(Decoder *d) noexcept nogil:
    """Read a key of the map form; return the field's place in the array form, or -1."""
    cdef const uint8_t *start = d.p
    cdef const uint8_t *p
    cdef uint64_t size = 0
    if read_head(d, &size) != M_TEXT:
        return -1 if d.reason != NULL else spoil(d, start, "a key that is not text")
    if size > <uint64_t>(d.end - d.p):
        return spoil(d, d.end, "the row is cut short")
    p = d.p
    d.p += size
    if is_text(p, <Py_ssize_t>size, "bids", 4):
        return 0
    if is_text(p, <Py_ssize_t>size, "asks", 4):
        return 1
    if is_text(p, <Py_ssize_t>size, "update_id", 9):
        return 2
    if is_text(p, <Py_ssize_t>size, "timestamp", 9):
        return 3
    return spoil(d, start, "a key that no row has")


cdef int read_row(Decoder *d, Row *row) noexcept nogil:
    cdef uint64_t count = 0
    cdef int kind = read_head(d, &count)
    cdef int i
    cdef int field
    cdef int seen = 0
    cdef const uint8_t *start
    if d.reason != NULL:
        return -1
    if kind != M_ARRAY and kind != M_MAP:
        return spoil(d, d.start, "neither an array nor a map")
    if count != 4:
        return spoil(d, d.start, "not four values")
    for i in range(4):
        field = i
        if kind == M_MAP:
            start = d.p
            field = read_row_key(d)
            if field < 0:
                return -1
            if seen >> field & 1:
                return spoil(d, start, "a key that stands twice")
            seen |= 1 << field
        if read_row_field(d, row, field) != 0:
            return -1
    if d.p != d.end:
        return spoil(d, d.p, "something follows the row")
    return 0


cdef uint8_t *copy_row_side(uint8_t *p, RowSide side, const uint8_t *end) noexcept nogil:
    """Write the levels of a side that read_row_side has checked, in the smallest form."""
    cdef Decoder d
    cdef Py_ssize_t i
    cdef int text
    cdef uint64_t size = 0
    memset(&d, 0, sizeof(Decoder))
    d.p = side.start
    d.end = end
    for i in range(side.count):
        read_head(&d, &size)
        p[0] = 0x92
        p += 1
        for text in range(2):
            read_head(&d, &size)
            p = write_text_head(p, <Py_ssize_t>size)
            memcpy(p, d.p, <size_t>size)
            p += size
            d.p += size
    return p


cdef bytes EMPTY_ROW = b"\x94\x90\x90\x00\x00"


cdef int check_row_text(object text, str symbol, str field) except -1:
    """Check a text that Python gives for a row."""
    cdef const uint8_t *start
    cdef const uint8_t *p
    cdef const uint8_t *end
    if type(text) is not str:
        raise TypeError(f"{field} must be a str, not {type(text).__name__}")
    if PyUnicode_IS_ASCII(text):
        start = <const uint8_t *>PyUnicode_DATA(text)
        end = start + PyUnicode_GET_LENGTH(text)
        p = skip_digits(start, end)
        if p > start and p < end and p[0] == c'.':
            start = p + 1
            p = skip_digits(start, end)
        if p > start and p == end:
            return 0
    raise make_refusal(symbol or None, field, (<str>text)[:80], NOT_DECIMAL)


cdef int add_row_levels(bytearray target, object levels, str symbol, str side) except -1:
    """Append a side in MessagePack."""
    cdef uint8_t[16] head
    cdef list pairs
    cdef Py_ssize_t index
    cdef Py_ssize_t size
    if isinstance(levels, (str, bytes, bytearray)):
        raise TypeError(f"{side} must be a sequence of pairs, not {type(levels).__name__}")
    pairs = list(levels)
    size = write_array(head, len(pairs)) - head
    target += head[:size]
    for index in range(len(pairs)):
        level = pairs[index]
        if not isinstance(level, (list, tuple)):
            raise TypeError(f"{side}[{index}] must be a pair of str, not {type(level).__name__}")
        if len(level) != 2:
            raise make_refusal(symbol or None, f"{side}[{index}]", repr(level)[:80], NOT_PAIR)
        price, quantity = level
        check_row_text(price, symbol, f"{side}[{index}].price")
        check_row_text(quantity, symbol, f"{side}[{index}].quantity")
        target.append(0x92)
        for text in (price, quantity):
            size = write_text_head(head, len(text)) - head
            target += head[:size]
            target += (<str>text).encode("ascii")
    return 0


@cython.final
@cython.freelist(256)
cdef class Snapshot:
    """The best levels of one book at one second; immutable. Equal when nothing in them differs.

    Args:
        symbol: The instrument's symbol; empty when unknown.
        update_id: The id of the last update in it, unsigned 64-bit.
        timestamp: Unix seconds, signed 64-bit.
        bids: ``(price, quantity)`` decimal strings, highest first.
        asks: The same, lowest first.

    Raises:
        InvalidEvent: A price or quantity is not ``[0-9]+(\\.[0-9]+)?``.
        OverflowError: An integer does not fit.
        TypeError: An argument is of the wrong type.
    """

    cdef str _symbol
    cdef bytes _packed
    cdef uint64_t _update_id
    cdef int64_t _timestamp
    cdef Py_ssize_t _bid_count
    cdef Py_ssize_t _ask_count
    cdef Py_ssize_t _bids_at
    cdef Py_ssize_t _asks_at
    cdef bint _made

    def __cinit__(self):
        self._symbol = ""
        self._packed = EMPTY_ROW
        self._bids_at = 2
        self._asks_at = 3

    def __init__(
        self,
        str symbol not None,
        update_id,
        timestamp,
        bids,
        asks,
    ):
        cdef uint8_t[32] tail
        cdef uint8_t *p
        cdef bytearray packed = bytearray(b"\x94")
        cdef uint64_t last
        cdef int64_t second
        check_fresh(self, self._made)
        if isinstance(update_id, bool) or not isinstance(update_id, int):
            raise TypeError(f"update_id must be an int, not {type(update_id).__name__}")
        last = update_id
        second = check_int64("timestamp", timestamp)
        add_row_levels(packed, bids, symbol, "bids")
        add_row_levels(packed, asks, symbol, "asks")
        p = write_uint(tail, last)
        p = write_int(p, second)
        packed += tail[:p - tail]
        check_fresh(self, self._made)
        self._read(bytes(packed))
        self._symbol = symbol

    cdef bint _keep(self, bytes packed) noexcept:
        """Fill an unmade snapshot from a row as it is written; tell whether it is one.

        Nearly every stored row is, and need not be written anew to know that it is in its
        smallest form.
        """
        cdef Row row
        cdef const uint8_t *start = <const uint8_t *>PyBytes_AS_STRING(packed)
        if not obf_check_row(start, start + PyBytes_GET_SIZE(packed), &row):
            return False
        self._packed = packed
        self._fill(&row, row.bids.start - start, row.asks.start - start)
        return True

    cdef inline void _fill(self, Row *row, Py_ssize_t bids_at, Py_ssize_t asks_at) noexcept:
        self._bids_at = bids_at
        self._asks_at = asks_at
        self._bid_count = row.bids.count
        self._ask_count = row.asks.count
        self._update_id = row.update_id
        self._timestamp = row.timestamp
        self._made = True

    cdef int _read(self, data) except -1:
        """Fill an unmade snapshot from packed bytes."""
        cdef Py_buffer view
        cdef Decoder d
        cdef Row row
        cdef uint8_t[4096] near
        cdef uint8_t *target = near
        cdef uint8_t *p
        cdef Py_ssize_t bids_at
        cdef Py_ssize_t asks_at
        if type(data) is bytes and self._keep(<bytes>data):
            return 0
        memset(&d, 0, sizeof(Decoder))
        memset(&row, 0, sizeof(Row))
        look_into(data, &view)
        try:
            # What is not bytes may be written to meanwhile: the copy is what is checked.
            if (
                type(data) is not bytes
                and view.len <= <Py_ssize_t>sizeof(near)
                and self._keep(PyBytes_FromStringAndSize(<const char *>view.buf, view.len))
            ):
                return 0
            d.start = <const uint8_t *>view.buf
            d.p = d.start
            d.end = d.start + view.len
            if read_row(&d, &row) != 0:
                raise DecodeError(d.reason.decode("ascii"), d.p - d.start)
            # Every value in its smallest form: never longer than what was read.
            if view.len > <Py_ssize_t>sizeof(near):
                target = <uint8_t *>PyMem_RawMalloc(<size_t>view.len)
                if target == NULL:
                    raise MemoryError
            target[0] = 0x94
            p = write_array(target + 1, row.bids.count)
            bids_at = p - target
            p = copy_row_side(p, row.bids, d.end)
            p = write_array(p, row.asks.count)
            asks_at = p - target
            p = copy_row_side(p, row.asks, d.end)
            p = write_uint(p, row.update_id)
            p = write_int(p, row.timestamp)
            if (
                type(data) is bytes
                and p - target == view.len
                and memcmp(target, view.buf, <size_t>view.len) == 0
            ):
                self._packed = <bytes>data
            else:
                self._packed = PyBytes_FromStringAndSize(<const char *>target, p - target)
            self._fill(&row, bids_at, asks_at)
        finally:
            if target != near:
                PyMem_RawFree(target)
            PyBuffer_Release(&view)
        return 0

    @property
    def symbol(self):
        """The instrument's symbol; empty when unknown."""
        return self._symbol

    @property
    def update_id(self):
        """The id of the last update in it."""
        return self._update_id

    @property
    def timestamp(self):
        """Unix seconds."""
        return self._timestamp

    @property
    def bids(self):
        """The bids, highest first, as new strings on every call."""
        return self._list(self._bids_at, self._bid_count)

    @property
    def asks(self):
        """The asks, lowest first, as new strings on every call."""
        return self._list(self._asks_at, self._ask_count)

    @property
    def bid_count(self):
        """Number of bids."""
        return self._bid_count

    @property
    def ask_count(self):
        """Number of asks."""
        return self._ask_count

    cdef list _list(self, Py_ssize_t at, Py_ssize_t count):
        cdef Decoder d
        cdef uint64_t size = 0
        cdef Py_ssize_t i
        cdef list levels = []
        cdef str price
        memset(&d, 0, sizeof(Decoder))
        d.start = <const uint8_t *>PyBytes_AS_STRING(self._packed)
        d.p = d.start + at
        d.end = d.start + PyBytes_GET_SIZE(self._packed)
        for i in range(count):
            read_head(&d, &size)
            read_head(&d, &size)
            price = PyUnicode_DecodeASCII(<const char *>d.p, <Py_ssize_t>size, NULL)
            d.p += size
            read_head(&d, &size)
            levels.append((price, PyUnicode_DecodeASCII(<const char *>d.p, <Py_ssize_t>size, NULL)))
            d.p += size
        return levels

    def pack(self):
        """Return the row's MessagePack bytes, an array of four in the smallest forms."""
        return self._packed

    @staticmethod
    def unpack(data, str symbol not None=""):
        """Read a row in the array or the map form.

        Args:
            data: The stored bytes (bytes, bytearray or memoryview). Not kept, unless they are a
                bytes object that ``pack`` would return as it is.
            symbol: Whose row it is; the bytes do not say.

        Raises:
            DecodeError: The bytes are not exactly one row; ``offset`` says where.
            TypeError: ``data`` is not a bytes-like object.
        """
        cdef Snapshot snapshot = Snapshot.__new__(Snapshot)
        snapshot._read(data)
        snapshot._symbol = symbol
        return snapshot

    def __eq__(self, other):
        if not isinstance(other, Snapshot):
            return NotImplemented
        return (
            self._symbol == (<Snapshot>other)._symbol
            and self._packed == (<Snapshot>other)._packed
        )

    def __hash__(self):
        return hash((self._symbol, self._packed))

    def __repr__(self):
        return (
            f"<Snapshot {self._symbol} second {self._timestamp} at {self._update_id}: "
            f"{self._bid_count} bids, {self._ask_count} asks>"
        )


# ---------------------------------------------------------------------------------------------
# Columns
# ---------------------------------------------------------------------------------------------

cdef extern from "_core.h":
    ctypedef struct Units "obf_units":
        int scale
    void obf_set_units(Units *, int) noexcept nogil
    const uint8_t *obf_read_units(
        const uint8_t *, const uint8_t *, const Units *, uint64_t *
    ) noexcept nogil


cdef extern from "Python.h":
    Py_buffer *PyMemoryView_GET_BUFFER(object)


cdef enum:
    EXACT_BITS = 53  # of a double
    RELEASE_ROWS = 128  # rows that take longer than letting others run costs
    MOST_COUNTED = 0xFFFF
    PRICES = 0  # the two kinds of a level's columns
    QUANTITIES = 1

# Why a row is not in the columns, beside OK and NO_MEMORY.
cdef enum:
    UNSURE = 100  # not of the common form: to be judged by read_row
    NO_ROW
    FINER  # more decimals than the column has
    TOO_FINE  # more than any column has
    TOO_WIDE  # does not fit at the column's scale
    OTHERS_TOO_WIDE  # those before do not fit at the scale that this one needs


cdef struct Column:  # of a side's prices or quantities
    void *start  # NULL: not asked for
    bint floating
    int scale
    Units near  # in which what is short is read
    uint64_t factor  # from there to the scale
    double divisor  # from there to a double

cdef struct Trouble:
    int code
    int kind
    bint asks
    Py_ssize_t level
    const uint8_t *text
    Py_ssize_t size
    int decimals  # that the text needs, or that its column has
    const char *reason  # and byte, of what is no row
    Py_ssize_t offset

cdef struct Columns:
    Column[4] levels  # bid prices, bid quantities, ask prices, ask quantities
    uint64_t *update_ids
    int64_t *timestamps
    uint16_t *bid_counts
    uint16_t *ask_counts
    Py_ssize_t depth
    Py_ssize_t count  # rows that are in
    Py_ssize_t room
    bint[2] fixed  # a kind's scale is the caller's

cdef struct Packed:
    const uint8_t *start
    Py_ssize_t size

cdef Column NOT_ASKED
memset(&NOT_ASKED, 0, sizeof(Column))
obf_set_units(&NOT_ASKED.near, 8)


cdef inline void set_near(Column *column, int scale) noexcept nogil:
    obf_set_units(&column.near, scale)
    column.divisor = <double>POW10[scale]


cdef int read_double(
    const uint8_t *p, const uint8_t *end, Py_ssize_t decimals, double *value
) noexcept nogil:
    """Read digits, with a point or without, as the double that is nearest to them."""
    cdef char[128] near
    cdef char *text = near
    cdef Py_ssize_t size = 0
    cdef uint64_t mantissa = 0
    if end - p <= 17 and decimals <= 19:
        while p + size < end:
            if p[size] != c'.':
                mantissa = mantissa * 10 + (p[size] - 48)
            size += 1
        if mantissa >> EXACT_BITS == 0:
            # Both are exact as doubles, so the one rounding is that of the quotient.
            value[0] = <double>mantissa / <double>POW10[decimals]
            return OK
        size = 0
    if end - p > <Py_ssize_t>sizeof(near) - 24:
        text = <char *>PyMem_RawMalloc(<size_t>(end - p) + 24)
        if text == NULL:
            return NO_MEMORY
    # Without the point: which character that is depends on the locale.
    while p < end:
        if p[0] != c'.':
            text[size] = <char>p[0]
            size += 1
        p += 1
    text[size] = c'e'
    text[size + 1] = c'-'
    size += 2
    size += write_number(<uint8_t *>text + size, <u128>decimals, 0)
    text[size] = 0
    value[0] = strtod(text, NULL)
    if text != near:
        PyMem_RawFree(text)
    return OK


cdef int read_mantissa(
    const uint8_t *p, const uint8_t *end, Py_ssize_t decimals, int scale, int64_t *value
) noexcept nogil:
    """Read digits, with a point or without, as a count of units of the scale."""
    cdef uint64_t mantissa = 0
    cdef unsigned int digit
    if decimals > MAX_SCALE:
        return TOO_FINE
    if decimals > scale:
        return FINER
    while p < end:
        if p[0] != c'.':
            digit = p[0] - 48
            if mantissa > (<uint64_t>INT64_MAX - digit) // 10:
                return TOO_WIDE
            mantissa = mantissa * 10 + digit
        p += 1
    if (
        __builtin_mul_overflow(mantissa, POW10[scale - decimals], &mantissa)
        or mantissa > <uint64_t>INT64_MAX
    ):
        return TOO_WIDE
    value[0] = <int64_t>mantissa
    return OK


cdef const uint8_t *take_long_number(
    const uint8_t *p, const uint8_t *end, Column *column, Py_ssize_t at, Trouble *trouble
) noexcept nogil:
    """Take a number in any form that a row may have it in; see take_number."""
    cdef Decoder d
    cdef const uint8_t *last
    cdef Py_ssize_t decimals = 0
    cdef double rounded = 0
    cdef int64_t mantissa = 0
    memset(&d, 0, sizeof(Decoder))
    d.start = p
    d.p = p
    d.end = end
    trouble.code = UNSURE
    if read_row_text(&d) != 0:
        return NULL
    end = d.p
    d.p = p
    read_head(&d, <uint64_t *>&trouble.size)
    p = d.p
    trouble.text = p
    trouble.code = OK
    if column.start == NULL:
        return end
    # What is left has neither leading zeros nor, behind the point, trailing ones.
    last = end
    while d.p < end and d.p[0] != c'.':
        d.p += 1
    if d.p < end:
        while last[-1] == c'0':
            last -= 1
        decimals = last - d.p - 1
        if decimals == 0:
            last -= 1
    while p < last and (p[0] == c'0' or p[0] == c'.'):
        p += 1
    if column.floating:
        trouble.code = read_double(p, last, decimals, &rounded)
        if column.near.scale < decimals <= 8:
            set_near(column, <int>decimals)  # doubles that are in stay right
        (<double *>column.start)[at] = rounded
    else:
        trouble.code = read_mantissa(p, last, decimals, column.scale, &mantissa)
        trouble.decimals = <int>decimals if trouble.code == FINER else column.scale
        (<int64_t *>column.start)[at] = mantissa
    return end if trouble.code == OK else NULL


cdef inline const uint8_t *take_number(
    const uint8_t *p, const uint8_t *end, Column *column, Py_ssize_t at, Trouble *trouble
) noexcept nogil:
    """Put the number at ``p`` into a column; return what follows, or NULL: see ``trouble``."""
    cdef uint64_t mantissa = 0
    cdef const uint8_t *next = NULL
    if p < end:
        next = obf_read_units(p, end, &column.near, &mantissa)
    if next != NULL:
        if column.start == NULL:
            return next
        if column.floating:
            if mantissa >> EXACT_BITS == 0:
                (<double *>column.start)[at] = <double>mantissa / column.divisor
                return next
        elif not (
            __builtin_mul_overflow(mantissa, column.factor, &mantissa) or mantissa >> 63
        ):
            (<int64_t *>column.start)[at] = <int64_t>mantissa
            return next
    return take_long_number(p, end, column, at, trouble)


cdef inline Py_ssize_t fill_short_levels(
    const uint8_t **at, const uint8_t *end, Column *prices, Column *quantities, bint floating,
    Py_ssize_t first, Py_ssize_t count
) noexcept nogil:
    """Fill columns of one type as long as the levels are of the common form; return how many."""
    cdef const uint8_t *p = at[0]
    cdef const uint8_t *q
    cdef uint64_t price = 0
    cdef uint64_t quantity = 0
    cdef Py_ssize_t i
    for i in range(count):
        if end - p < 2 or p[0] != 0x92:
            break
        q = obf_read_units(p + 1, end, &prices.near, &price)
        if q == NULL:
            break
        q = obf_read_units(q, end, &quantities.near, &quantity)  # the first left eight bytes
        if q == NULL:
            break
        if floating:
            if (price | quantity) >> EXACT_BITS:
                break
            (<double *>prices.start)[first + i] = <double>price / prices.divisor
            (<double *>quantities.start)[first + i] = <double>quantity / quantities.divisor
        else:
            (<int64_t *>prices.start)[first + i] = <int64_t>price
            (<int64_t *>quantities.start)[first + i] = <int64_t>quantity
        p = q
    else:
        i = count
    at[0] = p
    return i


cdef int fill_levels(
    Decoder *d, Column *prices, Py_ssize_t depth, Py_ssize_t row, Py_ssize_t count, Trouble *trouble
) noexcept nogil:
    """Put ``count`` levels into the columns of a side; those beyond the depth are only checked."""
    cdef const uint8_t *p
    cdef Column *quantities = prices + 1
    cdef Py_ssize_t first = row * depth
    cdef Py_ssize_t kept = min(count, depth)
    cdef Py_ssize_t i = 0
    cdef uint64_t pair = 0
    cdef bint alike = (
        prices.start != NULL and quantities.start != NULL
        and prices.floating == quantities.floating
        and prices.factor == 1 and quantities.factor == 1
    )
    while i < count:
        if i >= depth:
            prices = &NOT_ASKED
            quantities = prices
        elif alike:
            if prices.floating:
                i += fill_short_levels(
                    &d.p, d.end, prices, quantities, True, first + i, kept - i
                )
            else:
                i += fill_short_levels(
                    &d.p, d.end, prices, quantities, False, first + i, kept - i
                )
            if i == kept:
                continue
        if read_head(d, &pair) != M_ARRAY or pair != 2:
            return UNSURE
        trouble.level = i
        trouble.kind = PRICES
        p = take_number(d.p, d.end, prices, first + i, trouble)
        if p == NULL:
            return trouble.code
        trouble.kind = QUANTITIES
        p = take_number(p, d.end, quantities, first + i, trouble)
        if p == NULL:
            return trouble.code
        d.p = p
        i += 1
    if count < depth:
        if prices.start != NULL:
            memset(<int64_t *>prices.start + first + count, 0, <size_t>(depth - count) * 8)
        if quantities.start != NULL:
            memset(<int64_t *>quantities.start + first + count, 0, <size_t>(depth - count) * 8)
    return OK


cdef int fill_common_row(
    Columns *columns, Decoder *d, Row *row, Trouble *trouble
) noexcept nogil:
    """Put a row into the columns while it is read for the first time."""
    cdef uint64_t count = 0
    cdef bint by_name
    cdef int seen = 0
    cdef int field
    cdef int code
    cdef int i
    if d.p == d.end or (d.p[0] != 0x94 and d.p[0] != 0x84):
        return UNSURE
    by_name = d.p[0] == 0x84
    d.p += 1
    for i in range(4):
        field = read_row_key(d) if by_name else i
        if field < 0 or seen >> field & 1:
            return UNSURE
        seen |= 1 << field
        if field > 1:
            if read_row_field(d, row, field) != 0:
                return UNSURE
            continue
        if read_head(d, &count) != M_ARRAY or count > <uint64_t>(d.end - d.p) // 5:
            return UNSURE
        if field == 0:
            row.bids.count = <Py_ssize_t>count
        else:
            row.asks.count = <Py_ssize_t>count
        trouble.asks = field
        code = fill_levels(
            d, &columns.levels[2 * field], columns.depth, columns.count, <Py_ssize_t>count, trouble
        )
        if code != OK:
            return code
    return OK if d.p == d.end else UNSURE


cdef int fill_row(Columns *columns, Packed packed, Trouble *trouble) noexcept nogil:
    """Put a row into the columns' next slot; it counts only when its scales are settled too."""
    cdef Decoder d
    cdef Row row
    cdef int code
    memset(&d, 0, sizeof(Decoder))
    d.start = packed.start
    d.p = packed.start
    d.end = packed.start + packed.size
    code = fill_common_row(columns, &d, &row, trouble)
    if code != OK:
        # Whether it is a row at all comes first, whatever was wrong with a value.
        memset(&d, 0, sizeof(Decoder))
        memset(&row, 0, sizeof(Row))
        d.start = packed.start
        d.p = packed.start
        d.end = packed.start + packed.size
        if read_row(&d, &row) != 0:
            trouble.reason = d.reason
            trouble.offset = d.p - d.start
            return NO_ROW
    if code == UNSURE:
        trouble.asks = False
        d.p = row.bids.start
        code = fill_levels(
            &d, &columns.levels[0], columns.depth, columns.count, row.bids.count, trouble
        )
        if code == OK:
            trouble.asks = True
            d.p = row.asks.start
            code = fill_levels(
                &d, &columns.levels[2], columns.depth, columns.count, row.asks.count, trouble
            )
    if code != OK:
        return code
    if columns.update_ids != NULL:
        columns.update_ids[columns.count] = row.update_id
    if columns.timestamps != NULL:
        columns.timestamps[columns.count] = row.timestamp
    if columns.bid_counts != NULL:
        columns.bid_counts[columns.count] = <uint16_t>min(row.bids.count, MOST_COUNTED)
    if columns.ask_counts != NULL:
        columns.ask_counts[columns.count] = <uint16_t>min(row.asks.count, MOST_COUNTED)
    return OK


cdef void set_scale(Columns *columns, int kind, int scale) noexcept nogil:
    cdef Column *column
    cdef int side
    for side in range(2):
        column = &columns.levels[2 * side + kind]
        column.scale = scale
        column.factor = 1
        if column.start == NULL:
            set_near(column, 8)
        elif not column.floating:
            set_near(column, min(scale, 8))
            column.factor = POW10[scale - column.near.scale]


cdef bint can_rescale(Columns *columns, int kind, uint64_t factor) noexcept nogil:
    cdef Column *column
    cdef Py_ssize_t i
    cdef int side
    cdef int64_t most = INT64_MAX // <int64_t>factor
    for side in range(2):
        column = &columns.levels[2 * side + kind]
        if column.start != NULL and not column.floating:
            for i in range(columns.count * columns.depth):
                if not -most <= (<int64_t *>column.start)[i] <= most:  # others may write there
                    return False
    return True


cdef void rescale(Columns *columns, int kind, uint64_t factor) noexcept nogil:
    cdef Column *column
    cdef Py_ssize_t i
    cdef int side
    for side in range(2):
        column = &columns.levels[2 * side + kind]
        if column.start != NULL and not column.floating:
            for i in range(columns.count * columns.depth):
                (<int64_t *>column.start)[i] *= <int64_t>factor


cdef int fill_finer_row(Columns *columns, Packed packed, Trouble *trouble) noexcept nogil:
    """Put a row with a value that is finer than its column into the columns, and widen them.

    Either the row is in and those before stand at the new scales, or all is as it was.
    """
    cdef int[2] before
    cdef Trouble[2] finer
    cdef uint64_t[2] factors
    cdef int code = FINER
    cdef int kind
    for kind in range(2):
        before[kind] = columns.levels[kind].scale
    while code == FINER and not columns.fixed[trouble.kind]:
        finer[trouble.kind] = trouble[0]
        set_scale(columns, trouble.kind, trouble.decimals)
        code = fill_row(columns, packed, trouble)
    for kind in range(2):
        factors[kind] = POW10[columns.levels[kind].scale - before[kind]]
        if code == OK and factors[kind] != 1 and not can_rescale(columns, kind, factors[kind]):
            trouble[0] = finer[kind]
            code = OTHERS_TOO_WIDE
    for kind in range(2):
        if code != OK:
            set_scale(columns, kind, before[kind])
        elif factors[kind] != 1:
            rescale(columns, kind, factors[kind])
    return code


cdef Py_ssize_t fill_rows(
    Columns *columns, const Packed *rows, Py_ssize_t count, Trouble *trouble
) noexcept nogil:
    """Put rows into the columns; return how many, fewer than given when one is refused."""
    cdef Py_ssize_t i
    cdef int code
    for i in range(count):
        code = fill_row(columns, rows[i], trouble)
        if code == FINER:
            code = fill_finer_row(columns, rows[i], trouble)
        if code != OK:
            trouble.code = code
            return i
        columns.count += 1
    return count


cdef object refuse_row(Columns *columns, Trouble *trouble, Py_ssize_t row):
    """Return the exception for a row that is not in the columns."""
    cdef str field
    cdef str value
    cdef str limit
    cdef int scale
    if trouble.code == NO_MEMORY:
        return MemoryError()
    if trouble.code == NO_ROW:
        return DecodeError(trouble.reason.decode("ascii"), trouble.offset, row=row)
    field = f"{'asks' if trouble.asks else 'bids'}[{trouble.level}]"
    field += ".price" if trouble.kind == PRICES else ".quantity"
    value = trouble.text[:min(trouble.size, 80)].decode("ascii")
    scale = columns.levels[trouble.kind].scale
    if trouble.code == TOO_FINE:
        limit = f"a column holds {MAX_SCALE} decimals; float64 columns round them"
    elif trouble.code == FINER:
        limit = f"the column was given {scale} decimals; without a scale it widens"
    elif trouble.code == OTHERS_TOO_WIDE:
        limit = f"at {trouble.decimals} decimals what is in the columns already exceeds 64 bits"
    else:
        limit = (
            f"with {trouble.decimals} decimals int64 ends at "
            f"{INT64_MAX / 10 ** trouble.decimals:.6g}; float64 columns take it"
        )
    return CapacityError("", field, value, limit, row=row)


cdef tuple list_packed(object rows):
    """Return the rows as bytes objects, which nobody changes while they are read."""
    cdef list packed = []
    if isinstance(rows, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"rows must be a sequence of bytes, not {type(rows).__name__}")
    for row in rows:
        if not isinstance(row, bytes):
            if not PyObject_CheckBuffer(row):
                raise TypeError(f"rows[{len(packed)}] must be bytes, not {type(row).__name__}")
            row = memoryview(row).tobytes()
        packed.append(row)
    return tuple(packed)


cdef object check_scale(str name, object scale):
    if scale is None:
        return 0
    if isinstance(scale, bool) or not isinstance(scale, int):
        raise TypeError(f"{name} must be an int or None, not {type(scale).__name__}")
    if not 0 <= scale <= MAX_SCALE:
        raise ValueError(f"{name} must be 0 to {MAX_SCALE}: {scale}")
    return scale


cdef void *hold_column(
    Columns *columns, list views, str name, object buffer, str kind, str formats, bint *floating
) except? NULL:
    """Check a buffer, keep it from moving and return where it starts; NULL for None."""
    cdef Py_ssize_t items = 1 if floating == NULL else columns.depth
    cdef Py_ssize_t count
    cdef const uint8_t *start
    cdef const uint8_t *at
    cdef Py_ssize_t size
    if floating != NULL:
        floating[0] = False
    if buffer is None:
        return NULL
    view = memoryview(buffer)
    code = view.format.removeprefix("@")
    if len(code) != 1 or code not in formats or view.itemsize != (2 if code == "H" else 8):
        raise TypeError(f"{name} must hold {kind}, not items of format {view.format!r}")
    if view.readonly:
        raise ValueError(f"{name} is read-only; give a buffer that can be written")
    if not view.c_contiguous:
        raise ValueError(f"{name} is not contiguous; give an array in C order, not a slice")
    count = view.nbytes // view.itemsize
    if view.ndim != 1 and view.shape != (count // items, items):
        raise ValueError(f"{name} has the shape {view.shape}, not (rows, {items})")
    if count % items:
        raise ValueError(f"{name} has {count} items, no multiple of the depth {items}")
    if 0 <= columns.room != count // items:
        raise ValueError(
            f"{name} has room for {count // items} rows, those before it for {columns.room}"
        )
    if <size_t>PyMemoryView_GET_BUFFER(view).buf % <size_t>view.itemsize:
        raise ValueError(f"{name} is misaligned; let it start at a multiple of its item's size")
    start = <const uint8_t *>PyMemoryView_GET_BUFFER(view).buf
    size = PyMemoryView_GET_BUFFER(view).len
    for other_name, other in views:
        at = <const uint8_t *>PyMemoryView_GET_BUFFER(other).buf
        if start < at + PyMemoryView_GET_BUFFER(other).len and at < start + size:
            raise ValueError(f"{name} shares memory with {other_name}; give each its own")
    columns.room = count // items
    views.append((name, view))
    if floating != NULL:
        floating[0] = code == "d"
    return <void *>start


@cython.final
cdef class ColumnDecoder:
    """Rows into columns: buffers of the caller's, one row after the other, no object per level.

    A buffer is anything that is writable, contiguous and of the native byte order: a NumPy array
    made by ``numpy.empty``, an ``array.array``, a memoryview. What is not asked for is left out.
    All buffers have room for the same number of rows; the four of levels are of shape
    ``(rows, depth)``, or flat with as many items.

    Prices and quantities are int64 counts of units of ``10**-price_scale`` and
    ``10**-quantity_scale``, or float64, each the nearest to its decimal as ``float(text)`` is.
    Of a row with fewer levels than ``depth`` the rest is 0; of one with more the best are kept.

    Args:
        depth: Levels a side at most, 1 to 65,535.
        bid_prices: int64 or float64, best first.
        bid_quantities: int64 or float64.
        ask_prices: int64 or float64, best first.
        ask_quantities: int64 or float64.
        update_ids: uint64.
        timestamps: int64, Unix seconds.
        bid_counts: uint16, how many bids the row has; that may be more than ``depth``. 65,535
            stands for any number from there on.
        ask_counts: uint16, the same of the asks.
        price_scale: Decimals of the int64 prices, 0 to 18. None lets them widen: they have as
            many as the finest price so far needs, trailing zeros aside.
        quantity_scale: The same of the quantities.

    Raises:
        TypeError: A column has no buffer, or one of other items.
        ValueError: A buffer is read-only, scattered, misaligned, of another length or shares
            memory with another; the depth or a scale is out of range; or there is no column.

    Lifetime: the buffers are held as long as the decoder is; what lies in them from
    ``len(decoder)`` rows on is undefined.
    """

    cdef Columns _columns
    cdef list _views  # keep the buffers where they are
    cdef bint _made
    cdef bint _busy

    def __init__(
        self,
        depth=20,
        *,
        bid_prices=None,
        bid_quantities=None,
        ask_prices=None,
        ask_quantities=None,
        update_ids=None,
        timestamps=None,
        bid_counts=None,
        ask_counts=None,
        price_scale=None,
        quantity_scale=None,
    ):
        cdef Columns columns
        cdef Column *column
        cdef list views = []
        cdef bint floating = False
        cdef int place
        memset(&columns, 0, sizeof(Columns))
        columns.room = -1
        columns.depth = check_count("depth", depth)
        if not 1 <= columns.depth <= MOST_COUNTED:
            raise ValueError(f"depth must be 1 to {MOST_COUNTED}: {depth}")
        for place, (name, buffer) in enumerate((
            ("bid_prices", bid_prices), ("bid_quantities", bid_quantities),
            ("ask_prices", ask_prices), ("ask_quantities", ask_quantities),
        )):
            column = &columns.levels[place]
            column.start = hold_column(
                &columns, views, name, buffer, "int64 or float64", "qld", &floating
            )
            column.floating = floating
            set_near(column, 0)
        columns.update_ids = <uint64_t *>hold_column(
            &columns, views, "update_ids", update_ids, "uint64", "QL", NULL
        )
        columns.timestamps = <int64_t *>hold_column(
            &columns, views, "timestamps", timestamps, "int64", "ql", NULL
        )
        columns.bid_counts = <uint16_t *>hold_column(
            &columns, views, "bid_counts", bid_counts, "uint16", "H", NULL
        )
        columns.ask_counts = <uint16_t *>hold_column(
            &columns, views, "ask_counts", ask_counts, "uint16", "H", NULL
        )
        if not views:
            raise ValueError("no column is given; pass at least one buffer, such as bid_prices")
        columns.fixed[PRICES] = price_scale is not None
        columns.fixed[QUANTITIES] = quantity_scale is not None
        set_scale(&columns, PRICES, check_scale("price_scale", price_scale))
        set_scale(&columns, QUANTITIES, check_scale("quantity_scale", quantity_scale))
        check_fresh(self, self._made)
        self._columns = columns
        self._views = views
        self._made = True

    @property
    def depth(self):
        """Levels a side at most."""
        return self._columns.depth

    @property
    def capacity(self):
        """Rows that the buffers have room for."""
        return self._columns.room

    @property
    @cython.critical_section
    def price_scale(self):
        """Decimals of the int64 prices that are in the columns."""
        return self._columns.levels[PRICES].scale

    @property
    @cython.critical_section
    def quantity_scale(self):
        """Decimals of the int64 quantities that are in the columns."""
        return self._columns.levels[QUANTITIES].scale

    @cython.critical_section
    def __len__(self):
        return self._columns.count

    @cython.critical_section
    def extend(self, rows):
        """Decode rows, in the array or the map form, behind those that are in the columns.

        When a value needs more decimals than its columns have, all that is in them is brought to
        the finer scale. A row is in as a whole or not at all: when one is refused, those before
        it are in, ``len(decoder)`` tells, the scales are as if it had never been there, and
        ``error.row`` is its index in ``rows``; go on with ``rows[error.row + 1:]``.

        Args:
            rows: A sequence of rows' bytes; other bytes-like objects are copied first.

        Raises:
            DecodeError: A row that ``Snapshot.unpack`` would refuse, for the same reason.
            CapacityError: A value does not fit 64 bits at the scale that its columns have or
                would need, or is finer than the scale that was given. ``Snapshot.unpack`` reads
                such a row, and float64 columns take it.
            ValueError: More rows than there is room for; none is decoded.
            TypeError: A row is not a bytes-like object; none is decoded.
            RuntimeError: Another thread is in this call, with this decoder.

        Cost: one pass over the bytes. Other threads run meanwhile, from 128 rows on.
        """
        cdef tuple packed = list_packed(rows)
        cdef Py_ssize_t count = len(packed)
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t i
        cdef Packed *all_packed
        cdef Columns columns
        cdef Trouble trouble
        memset(&trouble, 0, sizeof(Trouble))
        if self._busy:
            raise RuntimeError("another thread uses this decoder; give each thread its own")
        columns = self._columns  # a copy: what others see meanwhile is as it was before
        if count > columns.room - columns.count:
            raise ValueError(
                f"{count} rows for columns with room for {columns.room - columns.count} more; "
                "give them in parts, or clear() in between"
            )
        all_packed = <Packed *>PyMem_RawMalloc(<size_t>(count + 1) * sizeof(Packed))
        if all_packed == NULL:
            raise MemoryError
        for i in range(count):
            all_packed[i].start = <const uint8_t *>PyBytes_AS_STRING(packed[i])
            all_packed[i].size = PyBytes_GET_SIZE(packed[i])
        self._busy = True
        if count >= RELEASE_ROWS:
            with nogil:
                done = fill_rows(&columns, all_packed, count, &trouble)
        else:
            done = fill_rows(&columns, all_packed, count, &trouble)
        self._columns = columns
        self._busy = False
        PyMem_RawFree(all_packed)
        if done < count:
            raise refuse_row(&columns, &trouble, done)

    @cython.critical_section
    def clear(self):
        """Start at the first row again; the scales stay as wide as they are.

        Raises:
            RuntimeError: Another thread is in ``extend``.
        """
        if self._busy:
            raise RuntimeError("another thread uses this decoder; give each thread its own")
        self._columns.count = 0

    def __repr__(self):
        return (
            f"<ColumnDecoder {self._columns.count} of {self._columns.room} rows, depth "
            f"{self._columns.depth}, scales {self.price_scale} and {self.quantity_scale}>"
        )
