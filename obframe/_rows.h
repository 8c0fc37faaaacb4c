/* How a stored row is checked in one pass: the form in which rows are written.

   That is the array form with every head and number in its smallest form, at most 65,535 levels a
   side, texts of at most 31 bytes and no negative timestamp. Such bytes are kept as they are. All
   other rows, and all that is none, are judged the long way, which says what is wrong and where.
   Nothing outside of the row is read. */

#ifndef OBFRAME_ROWS_H
#define OBFRAME_ROWS_H

#include "_core.h"

typedef struct {
    const uint8_t *start; /* the first level */
    ptrdiff_t count;
} obf_row_side;

typedef struct {
    obf_row_side bids;
    obf_row_side asks;
    uint64_t update_id;
    int64_t timestamp;
} obf_row;

#if OBF_SWAR
/* Mark which of 16 characters are no digits, the first in the lowest bit. */
static inline uint32_t obf_mark16(const uint8_t *p)
{
#if OBF_SSE2
    const __m128i x = _mm_loadu_si128((const __m128i *)p);
    /* Signed: '0' becomes the least of all, and '9' the last that is not above. */
    return (uint32_t)_mm_movemask_epi8(_mm_cmpgt_epi8(
        _mm_add_epi8(x, _mm_set1_epi8(0x50)), _mm_set1_epi8(-128 + 9)));
#else
    const uint64_t zeros = 0x3030303030303030u, tops = 0x8080808080808080u;
    uint64_t x[2];
    int i;
    memcpy(x, p, 16);
    for (i = 0; i < 2; i++) {
        x[i] ^= zeros;
        x[i] = (((x[i] & ~tops) + 0x7676767676767676u) | x[i]) & tops;
        x[i] = (x[i] >> 7) * 0x0102040810204080u >> 56; /* the top bits, side by side */
    }
    return (uint32_t)(x[0] | x[1] << 8);
#endif
}
#endif

/* Tell whether a text is digits, with one point between them or none. It has 1 to 31 bytes, and
   room says how many may be read. */
static inline int obf_is_decimal(const uint8_t *p, size_t size, size_t room)
{
    size_t i = 0;
#if OBF_SWAR
    if (room >= 32 || (room >= 16 && size <= 16)) {
        const uint32_t last = (uint32_t)1 << (size - 1);
        uint32_t odd = obf_mark16(p);
        if (size > 16)
            odd |= obf_mark16(p + 16) << 16;
        odd &= 2 * last - 1;
        if (odd == 0)
            return 1;
        return (odd & (odd - 1)) == 0 && (odd & (1 | last)) == 0 && p[__builtin_ctz(odd)] == '.';
    }
#endif
    (void)room;
    while (i < size && p[i] >= '0' && p[i] <= '9')
        i++;
    if (i > 0 && i + 1 < size && p[i] == '.')
        for (i++; i < size && p[i] >= '0' && p[i] <= '9';)
            i++;
    return i == size;
}

/* Check a price or a quantity. Return what follows, which lies before end as p does, or NULL. */
static inline const uint8_t *obf_check_decimal(const uint8_t *p, const uint8_t *end)
{
    const size_t size = (size_t)*p - 0xA0, room = (size_t)(end - p) - 1;
    if (size - 1 > 30 || size >= room || !obf_is_decimal(p + 1, size, room))
        return NULL;
    return p + 1 + size;
}

/* Check the bids or the asks. Return what follows, which lies before end as p does, or NULL. */
static inline const uint8_t *obf_check_side(
    const uint8_t *p, const uint8_t *end, obf_row_side *side)
{
    ptrdiff_t i;
    if (*p == 0xDC && end - p > 3) {
        side->count = p[1] << 8 | p[2];
        if (side->count < 16)
            return NULL;
        p += 3;
    }
    else {
        side->count = *p - 0x90;
        if (*p < 0x90 || *p > 0x9F || end - p < 2)
            return NULL;
        p++;
    }
    side->start = p;
    for (i = 0; i < side->count; i++) {
        if (*p != 0x92 || end - p < 2)
            return NULL;
        p = obf_check_decimal(p + 1, end);
        if (p == NULL)
            return NULL;
        p = obf_check_decimal(p, end);
        if (p == NULL)
            return NULL;
    }
    return p;
}

/* Read a number that is not negative and in its smallest form. Return what follows, or NULL. */
static inline const uint8_t *obf_check_number(
    const uint8_t *p, const uint8_t *end, uint64_t *value)
{
    ptrdiff_t size, i;
    uint64_t number = 0;
    if (p == end)
        return NULL;
    if (*p < 0x80) {
        *value = *p;
        return p + 1;
    }
    if (*p < 0xCC || *p > 0xCF)
        return NULL;
    size = (ptrdiff_t)1 << (*p++ - 0xCC);
    if (end - p < size)
        return NULL;
    for (i = 0; i < size; i++)
        number = number << 8 | p[i];
    if (number >> (size == 1 ? 7 : 4 * size) == 0) /* half as many bytes had been enough */
        return NULL;
    *value = number;
    return p + size;
}

/* Check a whole row; return 0 when it is to be judged the long way. */
static inline int obf_check_row(const uint8_t *p, const uint8_t *end, obf_row *row)
{
    uint64_t timestamp;
    if (end - p < 2 || *p != 0x94)
        return 0;
    p = obf_check_side(p + 1, end, &row->bids);
    if (p == NULL)
        return 0;
    p = obf_check_side(p, end, &row->asks);
    if (p == NULL)
        return 0;
    p = obf_check_number(p, end, &row->update_id);
    if (p == NULL)
        return 0;
    p = obf_check_number(p, end, &timestamp);
    if (p != end || timestamp >> 63)
        return 0;
    row->timestamp = (int64_t)timestamp;
    return 1;
}

#endif
