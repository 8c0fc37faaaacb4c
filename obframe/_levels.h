/* How the levels of a message are read side by side: text between quotes to integers.

   What is read is the common form, ["price","quantity"] without spaces, with at most 8 digits and 8
   decimals a number or little more; prices come out at 8 decimals, quantities at their own.
   Reading stops at the first level of another form, or whose price is zero or does not fit, or for
   which there is no room: it is then judged the long way. Nothing outside of the message is read,
   and nothing outside of the room is written. */

#ifndef OBFRAME_LEVELS_H
#define OBFRAME_LEVELS_H

#include "_core.h"

#define OBF_WINDOW 2048 /* bytes of a message that are looked through at once */

/* What stands between two levels, and behind the quote after the last one, the first in the lowest byte. */
#define OBF_NEXT_LEVEL 0x5B2C5D22u /* "],[ */
#define OBF_LAST_LEVEL 0x5D5D2200u /* "]], moved up by a byte */

/* Where the quotes of a part of a message are. */
typedef struct {
    const uint8_t *start;
    const uint8_t *end;
    uint64_t bits[OBF_WINDOW / 64 + 1]; /* a bit each, and none behind */
} obf_quotes;

#if OBF_AVX2
/* Where the digits of 16 characters go when the point before the last decimals falls out. */
static const uint8_t obf_gather[16][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15},
    {0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15},
    {0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15},
    {0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15},
    {0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15},
    {0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15},
    {0x80, 0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15},
    {0x80, 0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15},
    {0x80, 0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {0x80, 0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {0x80, 0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {0x80, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {0x80, 0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {0x80, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {0x80, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
};
/* From the n-th byte on, 16 bytes of which the last n are kept. */
static const uint8_t obf_keep[32] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
};

/* Find the quotes in the next OBF_WINDOW bytes, or up to the end. */
__attribute__((target("avx2"), noinline))
static void obf_find_quotes(obf_quotes *quotes, const uint8_t *p, const uint8_t *end)
{
    const __m256i quote = _mm256_set1_epi8('"');
    ptrdiff_t size = end - p < OBF_WINDOW ? end - p : OBF_WINDOW;
    uint64_t *out = quotes->bits;
    uint8_t last[64];
    quotes->start = p;
    quotes->end = p + size;
    for (; size > 0; size -= 64, p += 64) {
        uint32_t low;
        if (size < 64) {
            memset(last, 0, 64);
            memcpy(last, p, (size_t)size);
            p = last;
        }
        low = (uint32_t)_mm256_movemask_epi8(
            _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)p), quote));
        *out++ = low | (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(
            _mm256_loadu_si256((const __m256i *)(p + 32)), quote)) << 32;
    }
    *out = 0;
}

/* What brings a price with so many decimals to eight; 0 for those it cannot bring there. */
static const uint64_t obf_to_eight[16] = {100000000, 10000000, 1000000, 100000, 10000, 1000, 100, 10, 1};

/* Tell whether a number begins as none does: with its point, or with a zero before a digit. */
static inline int obf_begins_wrong(const uint8_t *p)
{
    uint16_t two;
    memcpy(&two, p, 2);
    return p[0] == '.' || ((two ^ 0x3030) & 0xF0FF) == 0;
}

/* One level at a time, of at most 16 characters a number. */
__attribute__((target("avx2,bmi,bmi2,lzcnt")))
static const uint8_t *obf_read_levels_avx2(
    obf_quotes *quotes, const uint8_t *begin, const uint8_t *p, const uint8_t *end,
    obf_change *out, ptrdiff_t room, ptrdiff_t *count)
{
    __m256i zero = _mm256_set1_epi8('0'), nine = _mm256_set1_epi8(9);
    __m256i point = _mm256_set1_epi8('.');
    __m256i tens = _mm256_set1_epi16(10 | 1 << 8);
    __m256i hundreds = _mm256_set1_epi32(100 | 1 << 16);
    __m256i myriads = _mm256_set1_epi32(10000 | 1 << 16);
    __m256i upper = _mm256_set1_epi64x(100000000);
    const obf_change *last = out + room, *first = out;
    const uint8_t *start = quotes->start, *looked = NULL;
    const uint8_t *bits_at = (const uint8_t *)quotes->bits;
    if (p - begin < 16 || end - p < 2 || p[0] != '[' || p[1] != '"')
        return p;
    /* These stay in registers: some compilers would make them anew for each level. */
    __asm__("" : "+x"(zero), "+x"(nine), "+x"(point), "+x"(tens), "+x"(hundreds), "+x"(myriads),
            "+x"(upper));
    if (p >= start && p < quotes->end)
        looked = quotes->end < end ? quotes->end - 64 : end;
    while (out < last) {
        const uint8_t *b, *d;
        size_t at, size, more, decimals, fraction;
        uint64_t bits, price;
        uint32_t points, behind;
        uint16_t between;
        __m256i x, keep;
        if (p >= looked) {
            obf_find_quotes(quotes, p, end);
            start = p;
            looked = quotes->end < end ? quotes->end - 64 : end;
        }
        at = (size_t)(p - start);
        memcpy(&bits, bits_at + (at >> 3), 8);
        bits = _blsr_u64(bits >> (at & 7)); /* without the quote at p + 1 */
        b = p + _tzcnt_u64(bits);
        d = p + _tzcnt_u64(_blsr_u64(_blsr_u64(bits)));
        size = (size_t)(b - p) - 2;
        more = (size_t)(d - b) - 3;
        if (((size - 1) | (more - 1)) > 15 || d > end - 4)
            break;
        memcpy(&between, b + 1, 2);
        if (between != 0x222C)
            break;
        x = _mm256_loadu2_m128i((const __m128i *)(d - 16), (const __m128i *)(b - 16));
        keep = _mm256_loadu2_m128i(
            (const __m128i *)(obf_keep + more), (const __m128i *)(obf_keep + size));
        points = (uint32_t)_mm256_movemask_epi8(
            _mm256_and_si256(_mm256_cmpeq_epi8(x, point), keep));
        decimals = _lzcnt_u32(points << 16) & 15;
        fraction = _lzcnt_u32(points >> 16 << 16) & 15;
        if (obf_begins_wrong(p + 2) || obf_begins_wrong(b + 3))
            break;
        x = _mm256_shuffle_epi8(_mm256_and_si256(_mm256_sub_epi8(x, zero), keep),
            _mm256_loadu2_m128i((const __m128i *)obf_gather[fraction],
                (const __m128i *)obf_gather[decimals]));
        keep = _mm256_subs_epu8(x, nine); /* what is no digit */
        if (!_mm256_testz_si256(keep, keep))
            break;
        x = _mm256_madd_epi16(_mm256_maddubs_epi16(x, tens), hundreds);
        x = _mm256_madd_epi16(_mm256_packus_epi32(x, x), myriads);
        x = _mm256_add_epi64(_mm256_mul_epu32(x, upper), _mm256_srli_epi64(x, 32));
        price = (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(x));
        if (__builtin_mul_overflow(price, obf_to_eight[decimals], &price))
            break;
        if (price == 0)
            break;
        out->price = price;
        _mm_storel_epi64((__m128i *)&out->low, _mm256_extracti128_si256(x, 1));
        out->high = 0;
        out->form = (uint16_t)(decimals | fraction << 5);
        memcpy(&behind, d, 4);
        if (behind == OBF_NEXT_LEVEL) {
            out++;
            p = d + 3;
            continue;
        }
        if (behind << 8 == OBF_LAST_LEVEL) {
            out++;
            p = d + 3;
        }
        break;
    }
    *count += out - first;
    return p;
}

#if OBF_AVX512
#define OBF_TARGET \
    __attribute__((target( \
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi,bmi2,lzcnt,popcnt")))

/* Two levels are four numbers, and a vector: eight bytes for the digits before each point, eight for
   those behind it. Digits stand at the right of their eight; the decimals of a price at the left, as
   the first of eight. */
#define OBF_EACH(n) n, n, n, n, n, n, n, n
#define OBF_TWICE(price, decimals, quantity, more) \
    {OBF_EACH(price), OBF_EACH(decimals), OBF_EACH(quantity), OBF_EACH(more), \
     OBF_EACH(price + OBF_NEXT), OBF_EACH(decimals + OBF_NEXT), OBF_EACH(quantity + OBF_NEXT), \
     OBF_EACH(more + OBF_NEXT)}
#define OBF_UP_TO -8, -7, -6, -5, -4, -3, -2, -1
#define OBF_FROM 1, 2, 3, 4, 5, 6, 7, 8

static const struct {
    int8_t numbers[64];
    /* Of a level's first quote, point and last quote, and then those of its quantity, and of the next
       level: which one stands before each part, which one behind it, from which one on its digits are
       counted, and how far each of them is. */
    int8_t before[64], behind[64], anchor[64], distance[64];
    /* Of the widths of the parts, one more than their digits: what is kept of them and what is set,
       to be the place of a factor among the powers of ten; which are the decimals of a level, where
       its form is, at bytes 20 and 21 of a change, and by how much it is too large. */
    int8_t kept[64], set[64], decimals[64], form[64], excess[64];
    uint32_t powers[16];
    uint64_t order[8]; /* of numbers, 0 to 7, and forms, 8 to 15, as they are written */
} obf_parts __attribute__((aligned(64))) = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
     27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50,
     51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63},
#define OBF_NEXT 6
    OBF_TWICE(0, 1, 3, 4),
    OBF_TWICE(1, 2, 4, 5),
    OBF_TWICE(1, 1, 4, 5),
#undef OBF_NEXT
    {OBF_UP_TO, OBF_FROM, OBF_UP_TO, OBF_UP_TO, OBF_UP_TO, OBF_FROM, OBF_UP_TO, OBF_UP_TO},
#define OBF_NEXT 0
    OBF_TWICE(0, 0, 15, 15),
    OBF_TWICE(9, 9, 0, 0),
#undef OBF_NEXT
    {[20] = 8, [21] = 24, [44] = 40, [45] = 56},
    {[20] = -1, [21] = -1, [44] = -1, [45] = -1},
    {[20] = 33, [44] = 33},
    {0, 1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000},
    {0, 3, 8 + 2, 4, 7, 8 + 5, 0, 0},
};
#undef OBF_EACH
#undef OBF_TWICE
#undef OBF_UP_TO
#undef OBF_FROM

/* The same in registers, and what is the same in all of a vector. */
typedef struct {
    __m512i quote, comma, point, zero, nine, lowest5;
    __m512i numbers, before, behind, anchor, distance, kept, set, decimals, form, excess;
    __m512i powers, order;
    __m256i tens, hundreds, myriads;
} obf_constants;

/* Turn the digits of two numbers, eight before and eight behind the point, into how many units of
   their last decimals they are; the factor tells how many of these are one. Multiplying vectors of
   512 bits would have the processor lower its clock, for all that runs in the next millisecond. */
OBF_TARGET static inline __m256i obf_count_units(
    const obf_constants *c, __m256i digits, __m256i factor)
{
    __m256i parts = _mm256_madd_epi16(_mm256_maddubs_epi16(digits, c->tens), c->hundreds);
    parts = _mm256_madd_epi16(_mm256_packus_epi32(parts, parts), c->myriads);
    return _mm256_add_epi64(_mm256_mul_epu32(parts, factor), _mm256_srli_epi64(parts, 32));
}

/* Read the level whose first quote is at p, and the one behind it when both have their quotes in 64
   bytes. out has room for three: 64 bytes are written. Return how many there are, or 0, and where
   the last quote is, with four bytes from there on. The message has 64 bytes; where it does not have
   67 from p on it is read by its end. There are 8 behind p. */
OBF_TARGET static inline __attribute__((always_inline)) int obf_read_two(
    const obf_constants *c, const uint8_t *p, const uint8_t *end, int by_end, obf_change *out,
    const uint8_t **last)
{
    const uint8_t *base = by_end && end - p < 64 ? end - 64 : p;
    const ptrdiff_t skip = by_end ? p - base : 0;
    const __m512i text = _mm512_loadu_si512(base);
    /* A bit each of the bytes. */
    uint64_t quotes = _mm512_cmpeq_epi8_mask(text, c->quote);
    uint64_t points = _mm512_cmpeq_epi8_mask(text, c->point);
    uint64_t zeros = _mm512_cmpeq_epi8_mask(text, c->zero);
    uint64_t commas = _mm512_cmpeq_epi8_mask(text, c->comma);
    uint64_t opening, closing, prices, second, fourth, firsts, inside, digits, stops, whole, bad;
    uint32_t between;
    unsigned asked = 0x11; /* which of eight numbers are prices */
    int levels = 2;
    __m512i places, before, behind, index, values, width, forms;
    __mmask64 taken;
    /* Compilers would compare again under a mask, which takes longer. */
    OBF_OPAQUE(quotes);
    OBF_OPAQUE(points);
    OBF_OPAQUE(zeros);
    OBF_OPAQUE(commas);
    if (by_end) {
        if (end - p < 8)
            return 0;
        quotes = quotes >> skip << skip;
    }
    /* Of eight quotes: the opening ones, the closing ones of prices, of one quantity, of the other. */
    opening = _pdep_u64(0x55, quotes);
    prices = _pdep_u64(0x22, quotes);
    second = _pdep_u64(0x08, quotes);
    fourth = _pdep_u64(0x80, quotes);
    if (!second)
        return 0;
    *last = base + _tzcnt_u64(second);
    if (by_end && end - *last < 4)
        return 0;
    memcpy(&between, *last, 4);
    /* A number without a point takes a bit behind its last quote. */
    if (__builtin_expect(between == OBF_NEXT_LEVEL && fourth << 1, 1)
        && !(by_end && end - base < (ptrdiff_t)_tzcnt_u64(fourth) + 4)) {
        *last = base + _tzcnt_u64(fourth);
        bad = opening ^ (prices << 2 | second << 4 | (uint64_t)1 << skip);
        closing = prices | second | fourth;
    } else {
        opening &= second - 1;
        prices &= second - 1;
        bad = opening ^ (prices << 2 | (uint64_t)1 << skip);
        closing = prices | second;
        levels = 1;
        asked = 0x01;
    }
    firsts = opening << 1;
    inside = closing - firsts;
    points &= inside;
    digits = inside ^ points; /* and what is none, which is found below */
    /* Adding carries from a number's first digit to what is none: its point, or its closing quote. */
    stops = (digits + firsts) & ~digits;
    whole = stops & ~points; /* the closing quotes of numbers without a point */
    bad |= (points & ~stops) | (points << 1 & closing) | (prices << 1 & ~commas);
    bad |= firsts & (points | closing | (zeros & ~(stops >> 1)));
    if (bad)
        return 0;
    /* A number without a point has it where its closing quote is, which is one later then. */
    places = _mm512_maskz_compress_epi8(opening | points | closing | whole << 1, c->numbers);
    before = _mm512_permutexvar_epi8(c->before, places);
    behind = _mm512_permutexvar_epi8(c->behind, places);
    index = _mm512_add_epi8(_mm512_permutexvar_epi8(c->anchor, places), c->distance);
    taken = _mm512_mask_cmplt_epi8_mask(_mm512_cmpgt_epi8_mask(index, before), index, behind);
    values = _mm512_maskz_permutexvar_epi8(taken, index, _mm512_sub_epi8(text, c->zero));
    width = _mm512_sub_epi8(behind, before);
    /* What is no digit, and what has more than eight. */
    if (_mm512_cmpgt_epu8_mask(_mm512_max_epu8(values, width), c->nine))
        return 0;
    index = _mm512_ternarylogic_epi32(width, c->kept, c->set, 0xEA);
    index = _mm512_permutexvar_epi32(index, c->powers);
    values = _mm512_inserti64x4(
        _mm512_castsi256_si512(obf_count_units(c, _mm512_castsi512_si256(values),
            _mm512_castsi512_si256(index))),
        obf_count_units(c, _mm512_extracti64x4_epi64(values, 1), _mm512_extracti64x4_epi64(index, 1)),
        1);
    if (_cvtmask8_u32(_mm512_testn_epi64_mask(values, values)) & asked)
        return 0;
    /* Of both widths of a level, a byte each: the price's, and the quantity's moved up by 5 bits. */
    forms = _mm512_permutexvar_epi8(c->decimals, width);
    forms = _mm512_ternarylogic_epi32(c->lowest5, forms, _mm512_srli_epi16(forms, 3), 0xCA);
    forms = _mm512_and_si512(_mm512_sub_epi16(forms, c->excess), c->form);
    _mm512_storeu_si512(out, _mm512_permutex2var_epi64(values, c->order, forms));
    return levels;
}

/* Two levels at a time, with at most 8 digits before the point of a number. */
OBF_TARGET static const uint8_t *obf_read_levels_avx512(
    const uint8_t *begin, const uint8_t *p, const uint8_t *end, obf_change *out, ptrdiff_t room,
    ptrdiff_t *count)
{
    obf_constants c = {
        _mm512_set1_epi8('"'), _mm512_set1_epi8(','), _mm512_set1_epi8('.'), _mm512_set1_epi8('0'),
        _mm512_set1_epi8(9), _mm512_set1_epi16(31), _mm512_load_si512(obf_parts.numbers),
        _mm512_load_si512(obf_parts.before), _mm512_load_si512(obf_parts.behind),
        _mm512_load_si512(obf_parts.anchor), _mm512_load_si512(obf_parts.distance),
        _mm512_load_si512(obf_parts.kept), _mm512_load_si512(obf_parts.set),
        _mm512_load_si512(obf_parts.decimals), _mm512_load_si512(obf_parts.form),
        _mm512_load_si512(obf_parts.excess), _mm512_load_si512(obf_parts.powers),
        _mm512_load_si512(obf_parts.order), _mm256_set1_epi16(10 | 1 << 8),
        _mm256_set1_epi32(100 | 1 << 16), _mm256_set1_epi32(10000 | 1 << 16)
    };
    const obf_change *first = out, *full = out + room;
    if (end - begin < 64 || end - p < 8 || p[0] != '[')
        return p;
    /* These stay in registers: compilers would make or load them anew for each level. */
    __asm__("" : "+v"(c.quote), "+v"(c.comma), "+v"(c.point), "+v"(c.zero), "+v"(c.nine),
            "+v"(c.lowest5), "+v"(c.numbers), "+v"(c.before), "+v"(c.behind), "+v"(c.anchor));
    __asm__("" : "+v"(c.distance), "+v"(c.kept), "+v"(c.set), "+v"(c.decimals), "+v"(c.form),
            "+v"(c.excess), "+v"(c.powers), "+v"(c.order), "+v"(c.tens), "+v"(c.hundreds));
    __asm__("" : "+v"(c.myriads));
    while (full - out >= 3) {
        const uint8_t *last;
        uint32_t behind;
        int levels;
        __builtin_prefetch(p + 384); /* where the next one is depends on this one */
        if (__builtin_expect(end - p > 67, 1))
            levels = obf_read_two(&c, p + 1, end, 0, out, &last);
        else
            levels = obf_read_two(&c, p + 1, end, 1, out, &last);
        if (levels == 0)
            break;
        memcpy(&behind, last, 4);
        if (behind == OBF_NEXT_LEVEL) {
            out += levels;
            p = last + 3;
            continue;
        }
        if (behind << 8 == OBF_LAST_LEVEL) {
            out += levels;
            p = last + 3;
        }
        break;
    }
    *count += out - first;
    return p;
}
#undef OBF_TARGET
#endif
#endif

/* Read levels as long as they are of the common form; the array's first one, or one behind another,
   stands at p. Return where that ended: behind the array's closing bracket, or at the first level that
   is left. The message begins at begin; there is room for one at least. */
static inline const uint8_t *obf_read_levels(
    obf_quotes *quotes, const uint8_t *begin, const uint8_t *p, const uint8_t *end,
    obf_change *out, ptrdiff_t room, ptrdiff_t *count)
{
#if OBF_AVX512
    /* What cannot be read two at a time is read one at a time, four levels at first, and four times
       as many when two at a time fails again at once. */
    ptrdiff_t singly = 1;
    while (obf_simd > 1) {
        const uint8_t *from = p;
        ptrdiff_t read = 0, some;
        p = obf_read_levels_avx512(begin, p, end, out, room, &read);
        singly = read ? 4 : 4 * singly;
        some = room - read < singly ? room - read : singly;
        if (p == from || p[-1] != ']') {
            ptrdiff_t more = 0;
            p = obf_read_levels_avx2(quotes, begin, p, end, out + read, some, &more);
            some -= more;
            read += more;
        }
        *count += read;
        out += read;
        room -= read;
        if (room == 0 || some > 0 || (p > from && p[-1] == ']'))
            return p;
    }
#endif
#if OBF_AVX2
    if (obf_simd)
        return obf_read_levels_avx2(quotes, begin, p, end, out, room, count);
#else
    (void)quotes, (void)begin, (void)end, (void)out, (void)room, (void)count;
#endif
    return p;
}

#endif
