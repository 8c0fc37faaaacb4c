/* Digits to numbers and back, many at once: the part of the core that is plain C.

   Everything here has a portable twin with the same results, chosen by a machine that lacks what is
   needed, by -DOBFRAME_NO_AVX512, by -DOBFRAME_NO_SIMD (words of 64 bits only) or by
   -DOBFRAME_PORTABLE (not even those).
   Nothing reads outside of what its caller promises. */

#ifndef OBFRAME_CORE_H
#define OBFRAME_CORE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

__extension__ typedef unsigned __int128 obf_u128;

/* A level of a message. */
typedef struct {
    uint64_t price; /* at the message's scale */
    uint64_t low;   /* quantity, bits 0..63 */
    uint32_t high;  /* bits 64..95 */
    uint16_t form;  /* price decimals, quantity decimals << 5, quantity bits 96..101 << 10 */
} obf_change;

/* Eight digits at once need the first in the lowest byte; -DOBFRAME_PORTABLE does without. */
#if !defined(OBFRAME_PORTABLE) && defined(__BYTE_ORDER__) \
    && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define OBF_SWAR 1
#else
#define OBF_SWAR 0
#endif

#ifdef Py_GIL_DISABLED
#define OBF_FREE_THREADED 1
#else
#define OBF_FREE_THREADED 0
#endif

#if OBF_SWAR && !defined(OBFRAME_NO_SIMD) && defined(__x86_64__) && defined(__GNUC__)
#define OBF_AVX2 1
#include <immintrin.h>
#else
#define OBF_AVX2 0
#endif

#if OBF_AVX2 && !defined(OBFRAME_NO_AVX512)
#define OBF_AVX512 1
#else
#define OBF_AVX512 0
#endif

#define OBF_WINDOW 2048 /* bytes of a message that are looked through at once */

/* Where the quotes of a part of a message are. */
typedef struct {
    const uint8_t *start;
    const uint8_t *end;
    uint64_t bits[OBF_WINDOW / 64 + 1]; /* a bit each, and none behind */
} obf_quotes;

static const uint64_t obf_pow10[16] = {
    1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000,
    100000000000, 1000000000000, 10000000000000, 100000000000000, 1000000000000000
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

/* Tell whether the string depthUpdate stands at p, and a comma behind it. p has 14 bytes. */
static inline int obf_is_depth_update(const uint8_t *p)
{
    return memcmp(p, "\"depthUpdate\",", 14) == 0;
}

/* Tell whether "stream":" stands at p, and whether ","data":{ does. p has ten bytes. */
static inline int obf_is_stream(const uint8_t *p)
{
    return memcmp(p, "\"stream\":\"", 10) == 0;
}

static inline int obf_is_data(const uint8_t *p)
{
    return memcmp(p, "\",\"data\":{", 10) == 0;
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

#if OBF_SWAR
/* Spread a number below 10**8 over eight bytes, its first digit in the lowest. */
static inline uint64_t obf_spread8(uint32_t number)
{
    uint64_t x = number / 10000, tops;
    x |= (uint64_t)(number - (uint32_t)x * 10000) << 32;
    tops = ((x * 10486) >> 20) & 0x0000007F0000007Fu;
    x = tops + ((x - 100 * tops) << 16);
    tops = ((x * 103) >> 10) & 0x000F000F000F000Fu;
    return tops + ((x - 10 * tops) << 8);
}
#endif

/* Write whole, a point and the first decimals of the eight that fraction has; both are below
   10**8. Return how many bytes that took; target has 32. */
static inline int obf_write_short(
    uint8_t *target, uint32_t whole, uint32_t fraction, int decimals)
{
#if OBF_SWAR
    const uint64_t zeros = 0x3030303030303030u;
    uint64_t x = obf_spread8(whole);
    int lead = __builtin_ctzll(x | (uint64_t)1 << 56) >> 3; /* a zero has one digit too */
    x = (x | zeros) >> (8 * lead);
    memcpy(target, &x, 8);
    target += 8 - lead;
    *target = '.';
    x = obf_spread8(fraction) | zeros;
    memcpy(target + 1, &x, 8);
    return 8 - lead + decimals + (decimals != 0);
#else
    uint8_t digits[8];
    int at = 8, size, i;
    do {
        digits[--at] = (uint8_t)('0' + whole % 10);
        whole /= 10;
    } while (whole);
    size = 8 - at;
    memcpy(target, digits + at, (size_t)size);
    if (decimals == 0)
        return size;
    target[size] = '.';
    for (i = 8; i > 0; i--) {
        target[size + i] = (uint8_t)('0' + fraction % 10);
        fraction /= 10;
    }
    return size + 1 + decimals;
#endif
}

static int obf_simd; /* 0: no such instructions; 1: AVX2; 2: AVX-512 besides */

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

#if OBF_AVX512
/* Find the quotes in the next OBF_WINDOW bytes, or up to the end. */
__attribute__((target("avx512f,avx512bw"), noinline))
static void obf_find_quotes_avx512(obf_quotes *quotes, const uint8_t *p, const uint8_t *end)
{
    const __m512i quote = _mm512_set1_epi8('"');
    ptrdiff_t size = end - p < OBF_WINDOW ? end - p : OBF_WINDOW;
    uint64_t *out = quotes->bits;
    quotes->start = p;
    quotes->end = p + size;
    for (; size >= 64; size -= 64, p += 64)
        *out++ = _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(p), quote);
    if (size > 0) /* what is masked is not read, and has no quotes */
        *out++ = _mm512_cmpeq_epi8_mask(
            _mm512_maskz_loadu_epi8(((uint64_t)1 << size) - 1, p), quote);
    *out = 0;
}
#endif

/* The same by AVX2. */
__attribute__((target("avx2"), noinline))
static void obf_find_quotes_avx2(obf_quotes *quotes, const uint8_t *p, const uint8_t *end)
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

static inline void obf_find_quotes(obf_quotes *quotes, const uint8_t *p, const uint8_t *end)
{
#if OBF_AVX512
    if (obf_simd > 1) {
        obf_find_quotes_avx512(quotes, p, end);
        return;
    }
#endif
    obf_find_quotes_avx2(quotes, p, end);
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

/* Read levels of the common form, without spaces, with at most 16 characters a number; prices come
   out at 8 decimals. Stop at the first that is of another form, or whose price does not fit, or for
   which there is no room. Return where; behind the array when that ended. There are 16 bytes
   before p. */
__attribute__((target("avx2,bmi,bmi2,lzcnt")))
static const uint8_t *obf_read_levels_avx2(
    obf_quotes *quotes, const uint8_t *p, const uint8_t *end, obf_change *out, ptrdiff_t room,
    ptrdiff_t *count)
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
    if (end - p < 2 || p[0] != '[' || p[1] != '"')
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
        if (behind == 0x5B2C5D22u) { /* "],[ */
            out++;
            p = d + 3;
            continue;
        }
        if (behind << 8 == 0x5D5D2200u) { /* "]] */
            out++;
            p = d + 3;
        }
        break;
    }
    *count += out - first;
    return p;
}
#endif

/* Look once at what the processor can do. */
static inline void obf_choose(int wanted)
{
    obf_simd = 0 && wanted;
#if OBF_AVX2
    __builtin_cpu_init();
    obf_simd = wanted && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi")
        && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
#endif
#if OBF_AVX512
    obf_simd += obf_simd && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
}

/* Read levels side by side where the processor can; see obf_read_levels_avx2. */
static inline const uint8_t *obf_read_levels(
    obf_quotes *quotes, const uint8_t *p, const uint8_t *end, obf_change *out, ptrdiff_t room,
    ptrdiff_t *count)
{
#if OBF_AVX2
    if (obf_simd)
        return obf_read_levels_avx2(quotes, p, end, out, room, count);
#endif
    return p;
}

/* Of what size the units of a column are that obf_read_units counts. */
typedef struct {
    int scale;  /* 10**-scale, 0 to 8 */
    int bits;  /* eight for each of its decimals */
    uint64_t odd;  /* bits that are off in decimals that fit it, '0' to '9' taken as 0 to 9 */
} obf_units;

static inline void obf_set_units(obf_units *units, int scale)
{
    units->scale = scale;
    units->bits = 8 * scale;
    units->odd = 0x8080808080808080u;
    if (scale < 8)
        units->odd |= ~(uint64_t)0 << units->bits;
}

/* Read a MessagePack text of digits, at most 11, and decimals, at most 8 or none, as a count of
   units. Return what follows, or NULL when it is another text or does not fit: then it is
   judged the long way. p lies before end, and what follows does too; of what lies behind end
   nothing is read. */
static inline const uint8_t *obf_read_units(
    const uint8_t *p, const uint8_t *end, const obf_units *units, uint64_t *count)
{
    size_t size = (uint8_t)(*p - 0xA0);
    size_t n, m;
#if OBF_SWAR
    const uint64_t zeros = 0x3030303030303030u, tops = 0x8080808080808080u;
    const uint64_t above = 0x7676767676767676u;  /* adding it to 10 and more sets the top bit */
    uint64_t x, odd, whole;
    unsigned int bits;
    if (size > 20 || (size_t)(end - p) < size + 9)
        return NULL;
    p++;
    memcpy(&x, p, 8);
    x ^= zeros;
    odd = ((x + above) | x) & tops;
    if (odd & 0x80)
        return NULL;
    if (__builtin_expect(odd == 0, 0)) {
        if (size < 8)
            return NULL;
        n = 8 + obf_read8(p + 8, &whole);
        if (n > 11)
            return NULL;
        whole += obf_sum8(x) * obf_pow10[n - 8];
        bits = 128;
    }
    else {
        bits = __builtin_ctzll(odd) - 7;
        n = bits >> 3;
        x <<= -bits & 63;
        whole = 0;
    }
    m = size - n - 1;
    if (__builtin_expect(n >= size, 0)) {
        if (n > size)
            return NULL;
        odd = 0;
    }
    else {
        if (p[n] != '.' || m - 1 > 7)
            return NULL;
        memcpy(&odd, p + n + 1, 8);
        odd = (odd ^ zeros) & (~(uint64_t)0 >> (-8 * m & 63));
        if ((((odd + above) & tops) | odd) & units->odd)
            return NULL;
    }
    odd <<= -units->bits & 63;
    if (bits + units->bits <= 64)
        *count = obf_sum8(x >> (units->bits & 63) | odd);
    else {
        if (bits < 64)
            whole = obf_sum8(x);
        whole = whole * obf_pow10[units->scale] + obf_sum8(odd);
        if (whole >> 63)
            return NULL;
        *count = whole;
    }
    return p + size;
#else
    uint64_t value = 0;
    if (size > 20 || (size_t)(end - p) < size + 2)
        return NULL;
    p++;
    for (n = 0; n < size && p[n] >= '0' && p[n] <= '9'; n++) {
        if (n == 11)
            return NULL;
        value = value * 10 + (p[n] - '0');
    }
    if (n == 0 || (n < size && (p[n] != '.' || size - n < 2 || size - n > 9)))
        return NULL;
    for (m = 1; m <= 8; m++) {
        int digit = n + m < size ? p[n + m] - '0' : 0;
        if (digit < 0 || digit > 9 || (digit != 0 && (int)m > units->scale))
            return NULL;
        if ((int)m <= units->scale)
            value = value * 10 + (uint64_t)digit;
    }
    if (value >> 63)
        return NULL;
    *count = value;
    return p + size;
#endif
}

#endif
