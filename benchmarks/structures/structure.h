/* What every structure offers: one side of a book, its levels in ascending order of their keys.

   The key of a bid is its price, that of an ask the price with all bits turned round, so that the
   best level always has the greatest key. Quantities are kept as the core keeps them, in 14 bytes. */

#ifndef STRUCTURE_H
#define STRUCTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 32 /* changes that are searched for at once */
#define SLOTS 64 /* slots that one word of bits tells about */
#define PREFETCH(at) __builtin_prefetch(at)
#define INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__) && !defined(STRUCTURES_PORTABLE)
#define HAVE_AVX2 1
#define WITH_AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt")))
#else
#define HAVE_AVX2 0
#endif

typedef struct { /* a level of a message */
    uint64_t price; /* at 1e-8 */
    uint64_t low; /* quantity, bits 0..63 */
    uint32_t high; /* bits 64..95 */
    uint16_t form; /* price decimals, quantity decimals << 5, quantity bits 96..101 << 10 */
} Change;

typedef struct __attribute__((packed)) { /* a level of a book, without its key */
    uint64_t low;
    uint32_t high;
    uint16_t form;
} Rest;

typedef struct __attribute__((packed)) { /* the same without bits 64..95, which are hardly ever set */
    uint64_t low;
    uint16_t form;
} NarrowRest;

typedef struct __attribute__((packed)) {
    uint64_t key;
    Rest rest;
} Level;

typedef struct {
    const char *name;
    bool needs_avx2;
    /* Make a side of levels that ascend strictly; none has quantity zero. */
    void *(*load)(const Level *levels, size_t count, uint64_t flip, uint64_t tick);
    /* Apply one message's changes; return how many deleted a level that was not there. */
    size_t (*apply)(void *side, const Change *changes, size_t count);
    /* Write the best levels, best first; return how many. */
    size_t (*best)(const void *side, size_t depth, Level *levels);
    size_t (*count)(const void *side);
    size_t (*bytes)(const void *side);
    void (*release)(void *side);
} Structure;

extern const Structure dense, flat, flat_staged, flat_slack, flat_narrow, flat_rank_avx2;
extern const Structure blocks_75, blocks_90, blocks_avx2_75, blocks_avx2_90, blocks_narrow_avx2;
extern const Structure pages, pages_packed, pages_packed_popcount;

INLINE bool is_zero(const Change *change)
{
    return change->low == 0 && change->high == 0 && change->form >> 10 == 0;
}

INLINE Rest rest_of(const Change *change)
{
    Rest rest = {change->low, change->high, change->form};
    return rest;
}

/* Return whether any quantity has bits that a NarrowRest does not hold. */
INLINE bool any_high(const Change *changes, size_t count)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < count; i++)
        bits |= changes[i].high;
    return bits != 0;
}

INLINE void *must(void *memory)
{
    if (memory == NULL) {
        fputs("no memory\n", stderr);
        abort();
    }
    return memory;
}

INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Return the first of ascending keys that is not below key, or the last of them. No branch depends
   on a comparison. */
INLINE size_t search(const uint64_t *keys, size_t count, uint64_t key)
{
    size_t at = 0;
    while (count > 1) {
        size_t half = count >> 1;
        at += half & -(size_t)(keys[at + half - 1] < key);
        count -= half;
    }
    return at;
}

/* Return how many of 64 ascending keys are below key. */
INLINE size_t rank_64(const uint64_t *keys, uint64_t key)
{
    size_t at = 32 * (keys[31] < key);
    at += 16 * (keys[at + 15] < key);
    at += 8 * (keys[at + 7] < key);
    at += 4 * (keys[at + 3] < key);
    at += 2 * (keys[at + 1] < key);
    at += keys[at] < key;
    at += keys[at] < key;
    return at;
}

/* Return how many of 8 ascending keys are below key. */
INLINE size_t rank_8(const uint64_t *keys, uint64_t key)
{
    size_t at = 4 * (keys[3] < key);
    at += 2 * (keys[at + 1] < key);
    at += keys[at] < key;
    at += keys[at] < key;
    return at;
}

#if HAVE_AVX2
#include <immintrin.h>

/* The same by comparing all at once. */
static inline WITH_AVX2 __attribute__((always_inline)) size_t rank_avx2(
    const uint64_t *keys, uint64_t key, int count)
{
    const __m256i top = _mm256_set1_epi64x(INT64_MIN);
    const __m256i wanted = _mm256_xor_si256(_mm256_set1_epi64x((int64_t)key), top);
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < count; i += 4) {
        __m256i four = _mm256_loadu_si256((const __m256i *)(keys + i));
        sum = _mm256_sub_epi64(sum, _mm256_cmpgt_epi64(wanted, _mm256_xor_si256(four, top)));
    }
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    return (size_t)(_mm_cvtsi128_si64(two) + _mm_extract_epi64(two, 1));
}
#endif

#endif
