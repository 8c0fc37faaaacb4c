# cython: language_level=3, auto_pickle=False, embedsignature=False, initializedcheck=False, autotestdict=False, freethreading_compatible=True
"""The compiled core: depth messages, books, snapshots and their bytes.

Prices and quantities are exact decimals in fixed point: what comes out is what came in, digit for
digit, trailing zeros included. No float, and no Python object per level, stands anywhere inside.

Layout. A price is an unsigned 64-bit count of units at a scale that its message or book shares
(8 decimals, up to 18 when a price needs them). A quantity is a 102-bit mantissa as written. The
number of decimals as written, of both, takes 5 bits each. A level of a book takes 22 bytes.

A side of a book is a sorted array with its best price at the end: keys ascend, where a bid's key
is its price and an ask's key is the bitwise complement of its price. Both sides run the same code.
A slot of the array whose bit in ``live`` is off is a hole: deleting clears the bit, inserting moves
levels only as far as the next hole. Every 64th key stands in ``index`` too, where a search begins.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.stdint cimport (
    INT64_MAX, INT64_MIN, UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
)
from libc.stdlib cimport qsort
from libc.string cimport memcmp, memcpy, memmove, memset

from obframe.errors import CapacityError, DecodeError, InvalidEvent, MalformedMessage

Level = tuple[str, str]


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    __extension__ typedef unsigned __int128 obf_u128;

    /* Eight digits at once need the first in the lowest byte; -DOBFRAME_PORTABLE does without. */
    #if !defined(OBFRAME_PORTABLE) && defined(__BYTE_ORDER__) \
        && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define OBF_SWAR 1
    #else
    #define OBF_SWAR 0
    #endif

    static const uint64_t obf_pow10[9] = {
        1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000
    };

    /* Add up eight digits, 0 to 9 in a byte each, the first in the lowest. */
    static inline uint64_t obf_sum8(uint64_t x)
    {
        x = x * 10 + (x >> 8);
        return ((x & 0x000000FF000000FFu) * 0x000F424000000064u
                + ((x >> 16) & 0x000000FF000000FFu) * 0x0000271000000001u) >> 32;
    }

    /* Read the digits that stand at p, eight at most; return how many. p has eight bytes. */
    static inline int obf_read8(const uint8_t *p, uint64_t *value)
    {
    #if OBF_SWAR
        uint64_t x, odd;
        int n = 8;
        memcpy(&x, p, 8);
        x ^= 0x3030303030303030u;
        odd = ((x + 0x7676767676767676u) | x) & 0x8080808080808080u;
        if (odd) {
            n = __builtin_ctzll(odd) >> 3;
            x = x << 8 << (56 - 8 * n);
        }
        *value = obf_sum8(x);
        return n;
    #else
        int n = 0;
        uint64_t sum = 0;
        while (n < 8 && p[n] >= '0' && p[n] <= '9')
            sum = sum * 10 + (p[n++] - '0');
        *value = sum;
        return n;
    #endif
    }

    /* Read a decimal of the common form, at most 11 digits and 8 decimals, and the quote behind
       it. Return what follows, or NULL: then it is judged the long way. p has 32 bytes. */
    static inline const uint8_t *obf_read_short(
        const uint8_t *p, uint64_t *mantissa, int *decimals)
    {
        const uint8_t *first = p;
        uint64_t value, more;
        int n = obf_read8(p, &value);
        int m;
        p += n;
        if (n == 8) {
            m = obf_read8(p, &more);
            if (m > 3)
                return NULL;
            value = value * obf_pow10[m] + more;
            p += m;
        }
        if (n == 0 || (first[0] == '0' && p - first > 1))
            return NULL;
        m = 0;
        if (*p == '.') {
            m = obf_read8(++p, &more);
            if (m == 0)
                return NULL;
            value = value * obf_pow10[m] + more;
            p += m;
        }
        if (*p != '"')
            return NULL;
        *mantissa = value;
        *decimals = m;
        return p + 1;
    }

    /* Count the plain characters of a string at p, eight at most. p has eight bytes. */
    static inline int obf_plain8(const uint8_t *p)
    {
    #if OBF_SWAR
        const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
        uint64_t x, quote, slash, odd;
        memcpy(&x, p, 8);
        quote = x ^ (ones * '"');
        slash = x ^ (ones * 0x5C);
        /* A top bit above the lowest one found may be wrong; only the lowest is looked at. */
        odd = (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | (x - ones * 0x20) | x) & tops;
        return odd ? __builtin_ctzll(odd) >> 3 : 8;
    #else
        return 0;
    #endif
    }

    /* Write a number below 10**8 as eight digits. */
    static inline void obf_write8(uint8_t *target, uint32_t number)
    {
    #if OBF_SWAR
        uint64_t x, tops, all;
        x = number / 10000;
        x |= (uint64_t)(number - (uint32_t)x * 10000) << 32;
        tops = ((x * 10486) >> 20) & 0x0000007F0000007Fu;
        x = tops + ((x - 100 * tops) << 16);
        tops = ((x * 103) >> 10) & 0x000F000F000F000Fu;
        all = tops + ((x - 10 * tops) << 8) + 0x3030303030303030u;
        memcpy(target, &all, 8);
    #else
        int i;
        for (i = 7; i >= 0; i--) {
            target[i] = (uint8_t)('0' + number % 10);
            number /= 10;
        }
    #endif
    }

    /* Write whole, a point and the first decimals of the eight that fraction has; both are below
       10**8. Return how many bytes that took; target has 32. */
    static inline int obf_write_short(
        uint8_t *target, uint32_t whole, uint32_t fraction, int decimals)
    {
        uint8_t digits[16];
        int lead = 0;
        obf_write8(digits, whole);
        while (lead < 7 && digits[lead] == '0')
            lead++;
        memcpy(target, digits + lead, 8);
        if (decimals == 0)
            return 8 - lead;
        target[8 - lead] = '.';
        obf_write8(target + 9 - lead, fraction);
        return 9 - lead + decimals;
    }
    """
    ctypedef unsigned long long u128 "obf_u128"
    const uint8_t *obf_read_short(const uint8_t *, uint64_t *, int *) noexcept nogil
    int obf_plain8(const uint8_t *) noexcept nogil
    int obf_write_short(uint8_t *, uint32_t, uint32_t, int) noexcept nogil
    bint __builtin_mul_overflow(uint64_t, uint64_t, uint64_t *) noexcept nogil
    int __builtin_ctzll(unsigned long long) noexcept nogil
    int __builtin_clzll(unsigned long long) noexcept nogil
    int __builtin_popcountll(unsigned long long) noexcept nogil
    void __builtin_prefetch(const void *) noexcept nogil


cdef extern from "Python.h":
    void *PyMem_RawMalloc(size_t) noexcept nogil
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
    BATCH = 32  # changes that are searched for at once
    NEAR_CHANGES = 128  # a side, before memory is asked for
    BLOCK = 64  # slots of a side that one word of its bits tells about
    TOP = 20  # levels whose text is kept
    TOP_TEXT = TOP * (1 + 2 * MAX_NUMBER)
    LEAST_KEPT = 4096

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
    NOT_UNICODE
    NOT_OBJECT
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
    NOT_UNICODE: "is not valid Unicode",
    NOT_OBJECT: "is not an object",
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


cdef struct Change:  # a level of a message
    uint64_t price  # at the message's scale
    uint64_t low  # quantity, bits 0..63
    uint32_t high  # bits 64..95
    uint16_t form  # price decimals, quantity decimals << 5, quantity bits 96..101 << 10

cdef struct Changes:
    Change *items
    Py_ssize_t count
    Py_ssize_t room
    bint borrowed  # the memory belongs to another

cdef packed struct Rest:  # a level of a book, without its key
    uint64_t low
    uint32_t high
    uint16_t form

cdef struct Top:  # the best levels as they were packed last
    bint valid
    int count
    uint16_t[TOP + 1] at  # where the levels' texts begin, and the end
    uint64_t[TOP] keys
    Rest[TOP] rests
    uint8_t[TOP_TEXT] text

cdef struct Side:
    uint64_t *keys  # ascending; those of holes too, and of slots past the end the largest there is
    uint64_t *index  # the key of every 64th slot
    uint64_t *live  # a bit a slot: a level, not a hole
    Rest *rests
    Py_ssize_t count  # levels
    Py_ssize_t end  # slots up to the best level
    Py_ssize_t room  # slots, a multiple of 64
    Py_ssize_t moved  # slots moved by inserting since the holes were spread
    Py_ssize_t most  # levels kept of a side that is known in part; 0 for all
    uint64_t edge  # key of the worst price that is known
    bint edged  # False: everything is known
    Top *top

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


cdef void free_changes(Changes *changes) noexcept nogil:
    if not changes.borrowed:
        PyMem_RawFree(changes.items)
    memset(changes, 0, sizeof(Changes))


cdef int settle_changes(Changes *bids, Changes *asks) noexcept nogil:
    """Move both sides into one block of their own, which the bids own."""
    cdef Py_ssize_t count = bids.count + asks.count
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
    count = asks.count
    free_changes(asks)
    asks.items = items + bids.count
    asks.count = count
    asks.room = count
    asks.borrowed = True
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
    change.form = <uint16_t>(
        change.form | (decimals << 5) | (<unsigned int>(mantissa >> 96) << 10)
    )
    changes.count += 1
    return OK


cdef inline bint is_zero(uint64_t low, uint32_t high, uint16_t form) noexcept nogil:
    return low == 0 and high == 0 and form >> 10 == 0


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
        if end - p >= 8:
            i = obf_plain8(p)
            p += i
            if i == 8:
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


cdef int read_id(Reader *r, Issue *issue, int field, int64_t *value, int depth) noexcept nogil:
    cdef const uint8_t *p = r.p
    cdef const uint8_t *start = p
    cdef uint64_t number = 0
    cdef unsigned int digit
    cdef int code = OK
    while p < r.end:
        digit = <unsigned int>p[0] - 48
        if digit > 9:
            break
        if number > (<uint64_t>INT64_MAX - digit) // 10:
            code = TOO_LARGE
            break
        number = number * 10 + digit
        p += 1
    if code == OK and p > start and (p == r.end or not (
        p[0] == c'.' or p[0] == c'e' or p[0] == c'E'
    )):
        if start[0] == c'0' and p - start > 1:
            return fault(r, start, "a number with a leading zero")
        value[0] = <int64_t>number
        r.p = p
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


cdef int read_object(Reader *r, Event *event, Event *inner, int depth) noexcept nogil:
    """Read the object at ``r.p``, the ``depth``-th container; ``inner`` takes its ``data``."""
    cdef Span key
    cdef const uint8_t *start
    cdef int field
    cdef int code
    r.p += 1
    if next_is(r, c'}'):
        return OK
    while True:
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
        if code != OK:
            return code
        if next_is(r, c','):
            continue
        if next_is(r, c'}'):
            return OK
        if r.p == r.end:
            return fault(r, r.end, "the message is cut short")
        return fault(r, r.p, "no comma or brace after a value")


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


cdef str read_span(Span span):
    """Decode a string's inside; None when there is none, or it is not Unicode."""
    cdef bytes plain
    cdef Py_ssize_t size
    if span.start == NULL:
        return None
    if not span.escaped:
        return PyUnicode_DecodeUTF8(<const char *>span.start, span.size, NULL)
    plain = PyBytes_FromStringAndSize(NULL, span.size + 4)
    size = unescape(span, <uint8_t *>PyBytes_AS_STRING(plain), span.size + 4)
    if size < 0:
        return None
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(plain), size, NULL)


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
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return value


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


cdef DepthUpdate make_update(Reader *r, Event *event, Event *outer):
    """Judge a well-formed depth event and make it an object."""
    cdef str symbol
    cdef DepthUpdate update
    cdef int field
    if event.issue.code != OK or outer.wrapper_issue.code != OK:
        symbol = find_symbol(event, outer)
        if event.issue.code != OK:
            raise make_issue(r, event.issue, symbol, EVENT_NAMES)
        raise make_issue(r, outer.wrapper_issue, symbol, EVENT_NAMES)
    for field in range(F_SYMBOL, F_ASKS + 1):
        if field == F_PREV and not r.futures:
            continue
        if not event.seen & (1u << field):
            raise make_refusal(find_symbol(event, outer), EVENT_NAMES[field], "", MISSING)
    symbol = read_span(event.symbol)
    if symbol is None:
        raise make_refusal(
            find_symbol(event, outer), "s", show(event.symbol.start, event.symbol.size), NOT_UNICODE
        )
    if event.last < event.first:
        raise make_refusal(symbol, "u", str(event.last), DISORDER)
    if not r.futures:
        event.prev = event.first - 1
    update = DepthUpdate.__new__(DepthUpdate)
    if settle_changes(&event.bids, &event.asks) != OK:
        raise MemoryError
    update._fill(symbol, event)
    return update


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

    Cost: one pass over the bytes; one allocation beside the object, however many levels.
    """
    cdef Py_buffer view
    cdef Reader reader
    cdef Event outer
    cdef Event inner
    cdef Change[2 * NEAR_CHANGES] near
    cdef int code
    memset(&reader, 0, sizeof(Reader))
    memset(&outer, 0, sizeof(Event))
    memset(&inner, 0, sizeof(Event))
    outer.scale = BASE_SCALE
    inner.scale = BASE_SCALE
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        reader.start = <const uint8_t *>view.buf
        reader.p = reader.start
        reader.end = reader.start + view.len
        reader.futures = futures
        reader.near = near
        reader.near_left = 2
        code = read_message(&reader, &outer, &inner)
        if code == FAULT:
            raise MalformedMessage(
                reader.reason.decode("ascii"),
                reader.p - reader.start,
                find_symbol(&outer if outer.symbol.start != NULL else &inner, &outer),
            )
        if code == NO_MEMORY:
            raise MemoryError
        if outer.is_depth:
            return make_update(&reader, &outer, &outer)
        if inner.is_depth and not outer.seen & (1u << F_TYPE):
            return make_update(&reader, &inner, &outer)
        return None
    finally:
        free_changes(&outer.bids)
        free_changes(&outer.asks)
        free_changes(&inner.bids)
        free_changes(&inner.asks)
        PyBuffer_Release(&view)


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
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
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


# ---------------------------------------------------------------------------------------------
# Books
# ---------------------------------------------------------------------------------------------

cdef void free_side(Side *side) noexcept nogil:
    PyMem_RawFree(side.keys)  # one allocation holds the keys, and the rest behind them
    PyMem_RawFree(side.top)
    memset(side, 0, sizeof(Side))


cdef inline Py_ssize_t sizeof_slots(Py_ssize_t room) noexcept nogil:
    """Return the bytes of ``room`` slots: of keys, index, bits and rests."""
    return room * <Py_ssize_t>(sizeof(uint64_t) + sizeof(Rest)) + room // BLOCK * 16


cdef inline bint is_live(Side *side, Py_ssize_t at) noexcept nogil:
    return side.live[at >> 6] >> (at & 63) & 1


cdef int allocate_slots(Side *side, Py_ssize_t room) noexcept nogil:
    """Set the arrays of a side to new ones with ``room`` empty slots; what was is not freed."""
    cdef Py_ssize_t blocks = room // BLOCK
    cdef uint64_t *keys = <uint64_t *>PyMem_RawMalloc(<size_t>sizeof_slots(room))
    if keys == NULL:
        return NO_MEMORY
    side.keys = keys
    side.index = keys + room
    side.live = side.index + blocks
    side.rests = <Rest *>(side.live + blocks)
    side.room = room
    side.end = 0
    side.moved = 0
    memset(keys, 0xFF, <size_t>(room + blocks) * sizeof(uint64_t))
    memset(side.live, 0, <size_t>blocks * sizeof(uint64_t))
    return OK


cdef inline Py_ssize_t padded(Py_ssize_t count) noexcept nogil:
    """Return the room for ``count`` levels: some 6 % to grow, for memory is what many books cost."""
    return (count + (count >> 4) + BLOCK - 1 + 8) & ~<Py_ssize_t>(BLOCK - 1)


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


cdef int spread_side(Side *side, Py_ssize_t keep, Py_ssize_t room) noexcept nogil:
    """Move the best ``keep`` levels to new memory, with holes spread evenly among them.

    Changes nothing when it fails.
    """
    cdef Side fresh = side[0]
    cdef Py_ssize_t from_ = side.end
    cdef Py_ssize_t at
    cdef Py_ssize_t i
    cdef Py_ssize_t holes
    cdef Py_ssize_t due
    if allocate_slots(&fresh, room) != OK:
        return NO_MEMORY
    # A fourth of the unused slots stays at the end, where new best prices come.
    holes = min((room - keep) - ((room - keep) >> 2), keep >> 3)
    fresh.end = keep + holes
    at = fresh.end
    due = keep >> 1  # so that no hole comes below the last level
    i = keep
    while i > 0:
        from_ = last_live(side, from_)
        at -= 1
        fresh.keys[at] = side.keys[from_]
        fresh.rests[at] = side.rests[from_]
        fresh.live[at >> 6] |= <uint64_t>1 << (at & 63)
        i -= 1
        due += holes
        if due >= keep:
            due -= keep
            at -= 1
            # The key of the level below it: of equal keys, only the first may be a level's.
            fresh.keys[at] = side.keys[last_live(side, from_)]
    for i in range(room // BLOCK):
        fresh.index[i] = fresh.keys[i * BLOCK]
    fresh.count = keep
    PyMem_RawFree(side.keys)
    side[0] = fresh
    return OK


cdef inline Py_ssize_t find_slot(Side *side, uint64_t key) noexcept nogil:
    """Return the first slot whose key is not below ``key``.

    No branch depends on a comparison, for where a change lies is not foreseeable.
    """
    cdef uint64_t *index = side.index
    cdef uint64_t *keys
    cdef Py_ssize_t blocks = side.room >> 6
    cdef Py_ssize_t half
    cdef Py_ssize_t at = 0
    while blocks > 1:
        half = blocks >> 1
        at += half & -<Py_ssize_t>(index[at + half] < key)
        blocks -= half
    keys = side.keys + (at << 6)
    at <<= 6
    half = 32 * (keys[31] < key)
    half += 16 * (keys[half + 15] < key)
    half += 8 * (keys[half + 7] < key)
    half += 4 * (keys[half + 3] < key)
    half += 2 * (keys[half + 1] < key)
    half += keys[half] < key
    half += keys[half] < key
    return at + half


cdef int reserve_side(Side *side, Changes *changes, uint64_t factor, uint64_t flip) noexcept nogil:
    """Make room for all that the changes may add. Counted exactly only when they are many."""
    cdef Py_ssize_t i
    cdef Py_ssize_t at
    cdef Py_ssize_t more = changes.count
    cdef uint64_t key
    cdef Change *change
    if side.count + more <= side.room:
        return OK
    if more > BLOCK:
        more = 0
        for i in range(changes.count):
            change = &changes.items[i]
            if is_zero(change.low, change.high, change.form):
                continue
            if side.room:
                key = (change.price * factor) ^ flip
                at = find_slot(side, key)
                if at < side.end and side.keys[at] == key and is_live(side, at):
                    continue
            more += 1
        if side.count + more <= side.room:
            return OK
    return spread_side(side, side.count, padded(side.count + more))


cdef Py_ssize_t open_slot(Side *side, Py_ssize_t at, uint64_t key) noexcept nogil:
    """Give a new key a slot, where find_slot said ``at``; there is a hole somewhere."""
    cdef uint64_t *live = side.live
    cdef Py_ssize_t words = side.room >> 6
    cdef Py_ssize_t right = side.room
    cdef Py_ssize_t left = -1
    cdef Py_ssize_t word
    cdef Py_ssize_t i
    cdef uint64_t bits
    if at > 0 and not is_live(side, at - 1):
        at -= 1
        left = at
    elif at < side.room:
        if not is_live(side, at):
            right = at
        else:
            word = at >> 6
            bits = ~live[word] & (UINT64_MAX << (at & 63))
            while bits == 0:
                word += 1
                if word == words:
                    break
                bits = ~live[word]
            if bits:
                right = (word << 6) + __builtin_ctzll(bits)
    if left < 0 and at > 0 and (right > at or right == side.room):
        word = (at - 1) >> 6
        bits = ~live[word] & (UINT64_MAX >> (63 - ((at - 1) & 63)))
        while bits == 0:
            word -= 1
            # No farther than the hole on the other side, unless there is none.
            if word < 0 or (right < side.room and (at - (word << 6)) > (right - at) + 2 * BLOCK):
                break
            bits = ~live[word]
        if bits:
            left = (word << 6) + 63 - __builtin_clzll(bits)
            if right == side.room or at - left < right - at:
                at -= 1
                i = at - left
                memmove(side.keys + left, side.keys + left + 1, <size_t>i * sizeof(uint64_t))
                memmove(side.rests + left, side.rests + left + 1, <size_t>i * sizeof(Rest))
                side.moved += i
            else:
                left = -1
    if left >= 0:
        side.keys[at] = key
        live[left >> 6] |= <uint64_t>1 << (left & 63)
        for i in range((left + 63) >> 6, (at >> 6) + 1):
            side.index[i] = side.keys[i << 6]
        return at
    i = right - at
    if i:
        memmove(side.keys + at + 1, side.keys + at, <size_t>i * sizeof(uint64_t))
        memmove(side.rests + at + 1, side.rests + at, <size_t>i * sizeof(Rest))
        side.moved += i
    side.keys[at] = key
    live[right >> 6] |= <uint64_t>1 << (right & 63)
    if right >= side.end:
        side.end = right + 1
    for i in range((at + 63) >> 6, (right >> 6) + 1):
        side.index[i] = side.keys[i << 6]
    return at


cdef Py_ssize_t change_side(Side *side, Changes *changes, uint64_t factor, uint64_t flip) noexcept nogil:
    """Apply the changes, for which there is room; return how many deleted an unknown level."""
    cdef Py_ssize_t[BATCH] slots
    cdef uint64_t *keys = side.keys
    cdef Py_ssize_t start
    cdef Py_ssize_t size
    cdef Py_ssize_t i
    cdef Py_ssize_t at
    cdef Py_ssize_t unknown = 0
    cdef uint64_t key
    cdef uint64_t word
    cdef uint64_t highest = 0
    cdef uint64_t now
    cdef uint64_t was
    cdef Change *change
    cdef Rest *rest
    if side.room == 0:  # so the changes, if any, all delete
        return changes.count
    start = 0
    while start < changes.count:
        size = min(changes.count - start, <Py_ssize_t>BATCH)
        # First all searches, which wait for memory side by side; then the changes, which may move
        # what was found: that is looked at again, and searched again when it no longer holds.
        for i in range(size):
            key = (changes.items[start + i].price * factor) ^ flip
            slots[i] = find_slot(side, key)
            __builtin_prefetch(&side.rests[slots[i]])
            highest = max(highest, key)
        for i in range(size):
            change = &changes.items[start + i]
            key = (change.price * factor) ^ flip
            at = slots[i]
            if (at > 0 and keys[at - 1] >= key) or (at < side.room and keys[at] < key):
                at = find_slot(side, key)
            now = not is_zero(change.low, change.high, change.form)
            if at < side.end and keys[at] == key:
                word = side.live[at >> 6]
                was = word >> (at & 63) & 1
                side.live[at >> 6] = word ^ (was ^ now) << (at & 63)
                side.count += <Py_ssize_t>now - <Py_ssize_t>was
                unknown += not (now | was)
            elif now:
                at = open_slot(side, at, key)
                side.count += 1
            else:
                unknown += 1
                continue
            rest = &side.rests[at]
            rest.low = change.low
            rest.high = change.high
            rest.form = change.form
        start += size
    if side.top != NULL and changes.count and (
        side.top.count < TOP or highest >= side.top.keys[TOP - 1]
    ):
        side.top.valid = False
    trim_side(side)
    return unknown


cdef void trim_side(Side *side) noexcept nogil:
    """Take the holes above the best level away."""
    cdef Py_ssize_t end = last_live(side, side.end) + 1
    while side.end > end:
        side.end -= 1
        side.keys[side.end] = UINT64_MAX
        if side.end & 63 == 0:
            side.index[side.end >> 6] = UINT64_MAX


cdef void tend_side(Side *side) noexcept nogil:
    """Forget what is too far away, give back unused memory, spread holes anew; none must succeed.

    A side that is known only in part keeps at most ``most`` levels. Beyond, the worse half goes,
    and the edge of what is known with it when it lay there: nothing better than the edge is lost.
    """
    cdef Py_ssize_t keep = side.count
    cdef uint64_t edge = side.edge
    if side.edged and side.count > side.most:
        keep = side.most >> 1
        edge = max(edge, side.keys[nth_best(side, keep)])
    elif side.room <= 2 * side.count + 256 and side.moved <= 8 * side.room:
        return
    side.moved = 0
    if spread_side(side, keep, padded(keep)) == OK:
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
    uint64_t key
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
    cdef uint64_t key
    cdef Change *change
    cdef Rest *rest
    cdef bint sorted_ = True
    memset(side, 0, sizeof(Side))
    if changes.count == 0:
        return OK
    ranks = <Rank *>PyMem_RawMalloc(<size_t>changes.count * sizeof(Rank))
    if ranks == NULL:
        return NO_MEMORY
    if allocate_slots(side, padded(changes.count)) != OK:
        PyMem_RawFree(ranks)
        return NO_MEMORY
    for i in range(changes.count):  # venues give the best first: turn that round
        ranks[i].index = changes.count - 1 - i
        ranks[i].key = changes.items[ranks[i].index].price ^ flip
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
        if is_zero(change.low, change.high, change.form):
            continue
        side.keys[side.count] = key
        side.live[side.count >> 6] |= <uint64_t>1 << (side.count & 63)
        rest = &side.rests[side.count]
        rest.low = change.low
        rest.high = change.high
        rest.form = change.form
        side.count += 1
    side.end = side.count
    for i in range(side.room // BLOCK):
        side.index[i] = side.keys[i * BLOCK]
    PyMem_RawFree(ranks)
    spread_side(side, side.count, padded(side.count))  # failing leaves it dense, no more
    return OK


cdef uint64_t largest_price(Side *side, uint64_t flip) noexcept nogil:
    """Return the largest price that a wider scale must hold: of the levels and of the edge."""
    cdef uint64_t largest = 0
    if side.count:
        largest = side.keys[nth_best(side, side.count)] ^ flip
        if side.keys[side.end - 1] ^ flip > largest:
            largest = side.keys[side.end - 1] ^ flip
    if side.edged and side.edge ^ flip > largest:
        largest = side.edge ^ flip
    return largest


cdef void widen_side(Side *side, uint64_t factor, uint64_t flip) noexcept nogil:
    """Bring the levels to a wider scale, and together: a hole's key might not fit it."""
    cdef Py_ssize_t at
    cdef Py_ssize_t to = 0
    for at in range(side.end):
        if is_live(side, at):
            side.keys[to] = ((side.keys[at] ^ flip) * factor) ^ flip
            side.rests[to] = side.rests[at]
            to += 1
    side.end = to
    for at in range(side.room // BLOCK):
        side.live[at] = 0
        if to >= (at + 1) * BLOCK:
            side.live[at] = UINT64_MAX
        elif to > at * BLOCK:
            side.live[at] = UINT64_MAX >> (BLOCK - (to - at * BLOCK))
    while to < side.room:
        side.keys[to] = UINT64_MAX
        to += 1
    for at in range(side.room // BLOCK):
        side.index[at] = side.keys[at * BLOCK]
    if side.edged:
        side.edge = ((side.edge ^ flip) * factor) ^ flip
    if side.top != NULL:
        side.top.valid = False
        side.top.count = 0  # its keys are of the scale that was


cdef bint covers_side(Side *side, Py_ssize_t depth) noexcept nogil:
    if not side.edged or depth == 0:
        return True
    return side.count >= depth and side.keys[nth_best(side, depth)] >= side.edge


cdef Py_ssize_t check_depth(object depth) except -1:
    if isinstance(depth, bool) or not isinstance(depth, int):
        raise TypeError(f"depth must be an int, not {type(depth).__name__}")
    if depth < 0:
        raise ValueError(f"depth must not be negative: {depth}")
    return min(depth, INT64_MAX)


@cython.final
cdef class OrderBook:
    """A sorted book of one instrument.

    It does not judge continuity: whoever calls ``apply`` has proven that the update follows.

    Threads: different books know nothing of each other. Of one book each call is whole, on a
    Python without GIL too; a sequence of calls is the caller's to guard.

    Args:
        symbol: The instrument's symbol.

    Cost: 22.25 bytes a level and some 6 % to grow; 5.5 kB more once a row was taken.
    """

    cdef str _symbol
    cdef int64_t _update_id
    cdef Side _bids
    cdef Side _asks
    cdef int _scale
    cdef bint _made
    cdef int64_t _unknown_deletes

    def __cinit__(self):
        self._symbol = ""
        self._scale = BASE_SCALE

    def __init__(self, str symbol not None):
        check_fresh(self, self._made)
        self._symbol = symbol
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
        return self._bids.keys[self._bids.end - 1] >= ~self._asks.keys[self._asks.end - 1]

    @property
    @cython.critical_section
    def nbytes(self):
        """Bytes of memory that the book holds, its unused room included."""
        return (
            sizeof_book() + sizeof_slots(self._bids.room) + sizeof_slots(self._asks.room)
            + (<Py_ssize_t>sizeof(Top) if self._bids.top != NULL else 0)
            + (<Py_ssize_t>sizeof(Top) if self._asks.top != NULL else 0)
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
        if snapshot._symbol != self._symbol:
            raise ValueError(f"a snapshot of {snapshot._symbol} for the book of {self._symbol}")
        if load_side(&bids, &snapshot._bids, snapshot._limit, 0) != OK:
            raise MemoryError
        if load_side(&asks, &snapshot._asks, snapshot._limit, UINT64_MAX) != OK:
            free_side(&bids)
            raise MemoryError
        free_side(&self._bids)
        free_side(&self._asks)
        self._bids = bids
        self._asks = asks
        self._scale = snapshot._scale
        self._update_id = snapshot._last

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

        Cost: a search of some 13 steps for each change; a new level moves some ten others.
        """
        cdef uint64_t factor = 1
        cdef uint64_t widening = 1
        cdef Py_ssize_t unknown
        if update._symbol != self._symbol:
            raise ValueError(f"an update of {update._symbol} for the book of {self._symbol}")
        if update._scale < self._scale:
            factor = POW10[self._scale - update._scale]
            self._check_prices(&update._bids, "bids", update._scale, factor)
            self._check_prices(&update._asks, "asks", update._scale, factor)
        elif update._scale > self._scale:
            widening = POW10[update._scale - self._scale]
            self._check_side(&self._bids, "bids", update._scale, widening, 0)
            self._check_side(&self._asks, "asks", update._scale, widening, UINT64_MAX)
            # A wider scale changes nothing that can be seen: it may stay if memory runs out below.
            widen_side(&self._bids, widening, 0)
            widen_side(&self._asks, widening, UINT64_MAX)
            self._scale = update._scale
        if (
            reserve_side(&self._bids, &update._bids, factor, 0) != OK
            or reserve_side(&self._asks, &update._asks, factor, UINT64_MAX) != OK
        ):
            raise MemoryError
        unknown = change_side(&self._bids, &update._bids, factor, 0)
        unknown += change_side(&self._asks, &update._asks, factor, UINT64_MAX)
        self._unknown_deletes += unknown
        self._update_id = update._last
        tend_side(&self._bids)
        tend_side(&self._asks)

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

    @cython.critical_section
    def covers(self, depth=20):
        """Tell whether the best ``depth`` levels of both sides are surely known.

        Returns:
            False when a side whose snapshot was cut at its limit has fewer levels than ``depth``,
            or the last of them lies beyond the worst price of that snapshot.
        """
        cdef Py_ssize_t levels = check_depth(depth)
        return covers_side(&self._bids, levels) and covers_side(&self._asks, levels)

    @cython.critical_section
    def bids(self, depth=None):
        """Return the best bids, highest first, as ``(price, quantity)``.

        Args:
            depth: How many at most; None for all.
        """
        return self._list(&self._bids, depth, 0)

    @cython.critical_section
    def asks(self, depth=None):
        """Return the best asks, lowest first, as ``(price, quantity)``.

        Args:
            depth: How many at most; None for all.
        """
        return self._list(&self._asks, depth, UINT64_MAX)

    cdef list _list(self, Side *side, object depth, uint64_t flip):
        cdef Py_ssize_t wanted = PY_SSIZE_T_MAX if depth is None else check_depth(depth)
        cdef Py_ssize_t count = min(wanted, side.count)
        cdef int scale = self._scale
        cdef Py_ssize_t at = side.end
        cdef Py_ssize_t i
        cdef uint64_t *keys
        cdef Rest *rests
        cdef list levels = []
        if count == 0:
            return levels
        # A copy: making objects may start the garbage collector, and with it any code at all,
        # which may change this book.
        keys = <uint64_t *>PyMem_RawMalloc(<size_t>count * (sizeof(uint64_t) + sizeof(Rest)))
        if keys == NULL:
            raise MemoryError
        rests = <Rest *>(keys + count)
        for i in range(count):
            at = last_live(side, at)
            keys[i] = side.keys[at]
            rests[i] = side.rests[at]
        try:
            for i in range(count):
                levels.append(
                    make_level(keys[i] ^ flip, scale, rests[i].low, rests[i].high, rests[i].form)
                )
        finally:
            PyMem_RawFree(keys)
        return levels

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
        cdef Py_ssize_t levels = check_depth(depth)
        cdef Py_ssize_t bids = min(levels, self._bids.count)
        cdef Py_ssize_t asks = min(levels, self._asks.count)
        cdef Py_ssize_t room = (bids + asks) * (1 + 2 * MAX_NUMBER) + 40
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
            p = write_best(p, &self._bids, bids, self._scale, 0)
            p = write_array(p, asks)
            snapshot._asks_at = p - target
            p = write_best(p, &self._asks, asks, self._scale, UINT64_MAX)
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
    uint8_t *p, uint64_t key, Rest *rest, int scale, uint64_t flip
) noexcept nogil:
    p[0] = 0x92
    p += 1
    p = close_text(p, write_price(p + 1, key ^ flip, scale, rest.form))
    return close_text(p, write_quantity(p + 1, rest.low, rest.high, rest.form))


cdef void renew_top(Side *side, Top *top, int scale, uint64_t flip) noexcept nogil:
    """Bring the text of the best levels up to date; of those that are as they were it is copied."""
    cdef uint8_t[TOP_TEXT + 64] text
    cdef uint64_t[TOP] keys
    cdef Rest[TOP] rests
    cdef uint16_t[TOP + 1] places
    cdef int count = <int>min(<Py_ssize_t>TOP, side.count)
    cdef int old = 0
    cdef int i
    cdef Py_ssize_t at = side.end
    cdef Py_ssize_t size
    cdef uint8_t *p = text
    cdef uint64_t key
    cdef Rest *rest
    cdef Rest *known
    for i in range(count):
        at = last_live(side, at)
        key = side.keys[at]
        rest = &side.rests[at]
        keys[i] = key
        rests[i] = rest[0]
        places[i] = <uint16_t>(p - text)
        while old < top.count and top.keys[old] > key:
            old += 1
        known = &top.rests[old]
        if old < top.count and top.keys[old] == key and (
            known.low == rest.low and known.high == rest.high and known.form == rest.form
        ):
            size = top.at[old + 1] - top.at[old]
            memcpy(p, top.text + top.at[old], <size_t>size)
            p += size
            old += 1
        else:
            p = write_level(p, key, rest, scale, flip)
    places[count] = <uint16_t>(p - text)
    top.count = count
    memcpy(top.at, places, <size_t>(count + 1) * sizeof(uint16_t))
    memcpy(top.keys, keys, <size_t>count * sizeof(uint64_t))
    memcpy(top.rests, rests, <size_t>count * sizeof(Rest))
    memcpy(top.text, text, <size_t>(p - text))
    top.valid = True


cdef uint8_t *write_best(
    uint8_t *p, Side *side, Py_ssize_t count, int scale, uint64_t flip
) noexcept nogil:
    """Write the best ``count`` levels."""
    cdef Py_ssize_t at = side.end
    cdef Py_ssize_t i
    if count <= TOP and side.top == NULL:
        side.top = <Top *>PyMem_RawMalloc(sizeof(Top))
        if side.top != NULL:
            side.top.valid = False
            side.top.count = 0
    if count <= TOP and side.top != NULL:
        if not side.top.valid:
            renew_top(side, side.top, scale, flip)
        memcpy(p, side.top.text, side.top.at[count])
        return p + side.top.at[count]
    for i in range(count):
        at = last_live(side, at)
        p = write_level(p, side.keys[at], &side.rests[at], scale, flip)
    return p


cdef struct Decoder:
    const uint8_t *start
    const uint8_t *p
    const uint8_t *end
    const char *reason

cdef struct RowSide:
    const uint8_t *start  # the first level
    Py_ssize_t count

cdef struct Row:
    RowSide bids
    RowSide asks
    uint64_t update_id
    int64_t timestamp

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
    """The best levels of one book at one second; immutable. Equal when all but nothing differs.

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

    cdef int _read(self, data) except -1:
        """Fill an unmade snapshot from packed bytes."""
        cdef Py_buffer view
        cdef Decoder d
        cdef Row row
        cdef uint8_t[4096] near
        cdef uint8_t *target = near
        cdef uint8_t *p
        memset(&d, 0, sizeof(Decoder))
        memset(&row, 0, sizeof(Row))
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
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
            self._bids_at = p - target
            p = copy_row_side(p, row.bids, d.end)
            p = write_array(p, row.asks.count)
            self._asks_at = p - target
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
            self._bid_count = row.bids.count
            self._ask_count = row.asks.count
            self._update_id = row.update_id
            self._timestamp = row.timestamp
            self._made = True
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
