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

/* Keep the compiler from telling where a value comes from, and from branching on it. */
#define OBF_OPAQUE(value) __asm__("" : "+r"(value))

/* A level of a message. */
typedef struct {
    uint64_t price; /* at the message's scale */
    uint64_t low;   /* quantity, bits 0..63 */
    uint32_t high;  /* bits 64..95 */
    uint16_t form;  /* price decimals, quantity decimals << 5, quantity bits 96..101 << 10 */
} obf_change;

/* Vectors of changes are taken apart and put together by where their parts are. */
_Static_assert(sizeof(obf_change) == 24 && offsetof(obf_change, low) == 8
    && offsetof(obf_change, high) == 16 && offsetof(obf_change, form) == 20, "parts of a change");

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
#define OBF_SSE2 1 /* every such processor has it */
#define OBF_AVX2 1
#include <immintrin.h>
#else
#define OBF_SSE2 0
#define OBF_AVX2 0
#endif

#if OBF_AVX2 && !defined(OBFRAME_NO_AVX512) && UINTPTR_MAX == UINT64_MAX
#define OBF_AVX512 1
#else
#define OBF_AVX512 0
#endif

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

/* Count the plain characters of a string at p, 16 at most. p has 16 bytes. */
static inline int obf_plain16(const uint8_t *p)
{
#if OBF_SSE2
    const __m128i x = _mm_loadu_si128((const __m128i *)p);
    /* Signed: what is no ASCII is below all that is. */
    __m128i odd = _mm_cmplt_epi8(x, _mm_set1_epi8(0x20));
    odd = _mm_or_si128(odd, _mm_cmpeq_epi8(x, _mm_set1_epi8('"')));
    odd = _mm_or_si128(odd, _mm_cmpeq_epi8(x, _mm_set1_epi8(0x5C)));
    return __builtin_ctz((unsigned)_mm_movemask_epi8(odd) | 1u << 16);
#elif OBF_SWAR
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    int i;
    for (i = 0; i < 16; i += 8) {
        uint64_t x, quote, slash, odd;
        memcpy(&x, p + i, 8);
        quote = x ^ (ones * '"');
        slash = x ^ (ones * 0x5C);
        /* A top bit above the lowest one found may be wrong; only the lowest is looked at. */
        odd = (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | (x - ones * 0x20) | x) & tops;
        if (odd)
            return i + (__builtin_ctzll(odd) >> 3);
    }
    return 16;
#else
    (void)p;
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
    /* All that Ice Lake and Zen 4 have: older ones slow down where 512 bits are used at all. */
    obf_simd += obf_simd && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
#endif
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
