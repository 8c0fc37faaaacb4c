/* A side of a book in memory, and how changes are applied to it: the part that is plain C.

   A side is a sorted array of slots, its best price at the end. A slot is a level or a hole; keys
   ascend over both. Three steps find a slot: among every 64th key, among 8 of every 8th, among 8 of
   all; eight lie in one line of the caches. Changes are searched for together, step by step, so
   that the searches wait for memory side by side. What each of them does is noted in words of bits,
   one a change, and done for all that do the same: where a change lies and what it does is not
   foreseeable. So no branch of searching, changing and deleting depends on it, but how often a loop
   goes round; inserting has some, on what is rare. */

#ifndef OBFRAME_BOOK_H
#define OBFRAME_BOOK_H

#include "_core.h"

#define OBF_BLOCK 64 /* slots that one word of the bits tells about */
#define OBF_STEP 8   /* keys that a step of a search looks at; the first one looks at more */
#define OBF_SPARE 32 /* slots behind the last one that may be read and written, as they were */
#define OBF_GUARD 8  /* keys before the first one, the smallest there is */
#define OBF_BATCH 64 /* changes that are searched for together, a bit each */
#define OBF_GROUP 4  /* changes that a step of a search takes at least: how often it goes round is foreseen then */
#define OBF_LEAD 8   /* places before those of the changes, for what belongs to none */
#define OBF_SIGHT 32 /* slots to either side in which the next hole is looked for at once */
#define OBF_NEAR 8   /* a short move takes fewer slots than this: one key of each index changes */
#define OBF_FAR 24   /* and a longer one fewer than this */
#define OBF_LINES 64 /* up to so many of a coarse index, changes are compared with each one's first key */

/* What turns a price into a key, and a key back into its price. */
#define OBF_BID_FLIP ((uint64_t)1 << 63)
#define OBF_ASK_FLIP (((uint64_t)1 << 63) - 1)

/* A level, without its key and what obf_side.highs has of it. */
typedef struct __attribute__((packed)) {
    uint64_t low;
    uint16_t form;
} obf_rest;

/* What the moves of slots and the steps of a search are written for. */
_Static_assert(sizeof(obf_rest) == 10 && OBF_NEAR == 8 && OBF_FAR == 24, "vectors of a move");
_Static_assert(OBF_BLOCK == 64 && OBF_STEP == 8 && OBF_BATCH == 64, "words of bits, and steps");
/* Eight are written together, and a group is filled up. */
_Static_assert(OBF_BATCH % OBF_GROUP == 0 && OBF_GROUP <= OBF_STEP && OBF_LEAD >= OBF_STEP - 1,
    "whole groups, and room below them");
_Static_assert(OBF_FAR <= OBF_SIGHT && 2 * OBF_SIGHT == OBF_BLOCK, "a hole that a move reaches");
/* 24 keys and 256 bytes of rests are moved from a slot on; a search begins 4 keys before one. */
_Static_assert(OBF_SPARE >= 26 && OBF_GUARD >= 5, "what is read beyond the slots");

typedef struct {
    void *memory;    /* of all but the highs */
    int64_t *keys;   /* ascending; of slots past the end the largest there is */
    int64_t *fine;   /* the key of every 8th slot */
    int64_t *coarse; /* the key of every 64th slot */
    uint64_t *live;  /* a bit a slot: a level, not a hole; a word of ones before and behind */
    obf_rest *rests;
    uint32_t *highs;        /* bits 64..95 of the quantities; NULL as long as none is set */
    ptrdiff_t coarse_count; /* not 0; behind them are 16 of the largest */
    ptrdiff_t count;        /* levels */
    ptrdiff_t end;          /* slots up to the best level */
    ptrdiff_t room;         /* slots, a multiple of 64 */
    ptrdiff_t moved;        /* slots moved by inserting since the holes were spread */
    ptrdiff_t most;         /* levels kept of a side that is known in part; 0 for all */
    int64_t edge;           /* key of the worst price that is known */
    int edged;              /* 0: everything is known */
    void *top;              /* the best levels as they were packed last */
} obf_side;

/* Changes that are applied to both sides, for which there is room. */
typedef struct {
    obf_side *sides[2]; /* the bids and the asks, as all pairs of this structure */
    const obf_change *changes[2];
    ptrdiff_t counts[2];
    uint64_t factor;   /* what brings their prices to the scale of the keys */
    int64_t best[2];   /* INT64_MIN, and then the highest key that was changed */
    ptrdiff_t unknown; /* 0, and then how many deleted a level that was not there */
} obf_work;

/* What is searched for together, the last change first: all asks, a gap that fills the bids up to whole
   groups, then all bids. Where eight are written together, or a group, and fewer are left, the others
   land before the first one's place: in the gap and among the asks, which are therefore taken after
   the bids, or in the lead. They are searched for too, wherever they lead to, and found is not used of
   them. Vectors of the arrays lie in one line of the caches each. */
typedef struct {
    int64_t wanted[OBF_LEAD + OBF_BATCH + OBF_STEP];
    ptrdiff_t slots[OBF_LEAD + OBF_BATCH]; /* of the indexes, and then the first key not below */
    const obf_change *changes[OBF_LEAD + OBF_BATCH];
    obf_rest *rests[OBF_LEAD + OBF_BATCH]; /* what stands in the slots */
    uint64_t given;             /* a bit a change: it gives a quantity, and does not delete */
    uint64_t found;             /* it has found its key, be it a hole's */
    uint64_t were;              /* it has found a level */
} __attribute__((aligned(64))) obf_search;

/* What stays a function of its own: the code that runs for every message is to be small. */
#define OBF_APART __attribute__((noinline))

/* What is not: its arguments decide what it does, and are known where it stands. */
#define OBF_INLINE inline __attribute__((always_inline))

/* How many are missing of a whole group. */
static inline ptrdiff_t obf_gap(ptrdiff_t count)
{
    return -count & (OBF_GROUP - 1);
}

/* That many of the lowest bits. */
static inline uint64_t obf_ones(ptrdiff_t count)
{
    return count > 0 ? ~(uint64_t)0 >> (64 - count) : 0;
}

/* Without a branch: what is deleted is not foreseeable. */
static inline int obf_is_zero(const obf_change *change)
{
    return (change->low | change->high | (uint64_t)(change->form & 0xFC00)) == 0;
}

static inline void obf_put(obf_side *side, ptrdiff_t at, const obf_change *change)
{
    side->rests[at].low = change->low;
    side->rests[at].form = change->form;
    if (side->highs)
        side->highs[at] = change->high;
}

/* Bring the indexes up to date after the keys of these slots have changed. */
static inline void obf_index(obf_side *side, ptrdiff_t first, ptrdiff_t last)
{
    ptrdiff_t i;
    for (i = (first + 7) >> 3; i <= last >> 3; i++) {
        side->fine[i] = side->keys[i << 3];
        if ((i & 7) == 0)
            side->coarse[i >> 3] = side->keys[i << 3];
    }
}

/* Take the holes above the best level away. */
static inline void obf_trim(obf_side *side)
{
    while (side->end > 0 && !(side->live[(side->end - 1) >> 6] >> ((side->end - 1) & 63) & 1)) {
        side->keys[--side->end] = INT64_MAX;
        if ((side->end & 7) == 0)
            obf_index(side, side->end, side->end);
    }
}

/* Count the lines of the coarse index: one at least, of a side with memory. */
static inline ptrdiff_t obf_count_lines(const obf_side *side)
{
    return (side->coarse_count + OBF_STEP - 1) / OBF_STEP;
}

/* Note the highest key of changes whose keys rise or fall all the time. */
static inline void obf_note_best(obf_work *work, int number, const int64_t *wanted, ptrdiff_t count)
{
    if (count > 0) {
        int64_t best = wanted[0] > wanted[count - 1] ? wanted[0] : wanted[count - 1];
        work->best[number] = best > work->best[number] ? best : work->best[number];
    }
}

OBF_APART static void obf_change_highs(
    obf_work *work, const obf_search *search, ptrdiff_t asks, uint64_t given)
{
    for (; given; given &= given - 1) {
        ptrdiff_t i = __builtin_ctzll(given);
        obf_side *side = work->sides[i < asks];
        if (side->highs)
            side->highs[search->slots[OBF_LEAD + i]] = search->changes[OBF_LEAD + i]->high;
    }
}

/* Copy the levels from a slot on to the first slots of a side, which may be the same one; return how
   many there are. */
OBF_APART static ptrdiff_t obf_pack_plain(const obf_side *side, ptrdiff_t first, obf_side *to)
{
    const ptrdiff_t words = (side->end + OBF_BLOCK - 1) >> 6;
    uint64_t wanted = ~(uint64_t)0 << (first & 63);
    ptrdiff_t count = 0, word;
    for (word = first >> 6; word < words; word++) {
        uint64_t bits = side->live[word] & wanted;
        for (; bits; bits &= bits - 1) {
            const ptrdiff_t at = (word << 6) + __builtin_ctzll(bits);
            to->keys[count] = side->keys[at];
            to->rests[count] = side->rests[at];
            if (side->highs)
                to->highs[count] = side->highs[at];
            count++;
        }
        wanted = ~(uint64_t)0;
    }
    return count;
}

/* Spread levels, which stand in the first slots, over so many slots, as many or up to twice as many; one
   that takes step / 2**32 of the next level to each slot. */
OBF_APART static void obf_spread_plain(obf_side *side, ptrdiff_t slots, uint64_t step)
{
    uint64_t place = step * (uint64_t)slots, bits = 0;
    ptrdiff_t at;
    /* The best one first: none is moved to a slot that another one still stands in. */
    for (at = slots - 1; at >= 0; at--) {
        const ptrdiff_t from = (ptrdiff_t)((place -= step) >> 32);
        const obf_rest rest = side->rests[from];
        /* A hole has the key of the level before it: only the first of a key may be a level's. */
        bits = bits << 1 | (from != (ptrdiff_t)((place - step) >> 32));
        side->keys[at] = side->keys[from];
        side->rests[at] = rest;
        if (side->highs)
            side->highs[at] = side->highs[from];
        if ((at & 63) == 0)
            side->live[at >> 6] = bits;
    }
}

/* Return the hole that is nearest to a slot, or to what is before it; there is one somewhere. */
static ptrdiff_t obf_nearest_hole(const obf_side *side, ptrdiff_t at)
{
    ptrdiff_t last = (side->room >> 6) - 1, word = at >> 6, right = -1, left;
    uint64_t bits;
    if (at < side->room) {
        bits = ~side->live[word] & ~(uint64_t)0 << (at & 63);
        while (!bits && word < last)
            bits = ~side->live[++word];
        if (bits)
            right = (word << 6) + __builtin_ctzll(bits);
    }
    if (at > 0) {
        word = (at - 1) >> 6;
        bits = ~side->live[word] & ~(uint64_t)0 >> (63 - ((at - 1) & 63));
        /* No farther than the hole on the other side, unless there is none. */
        while (!bits && word > 0 && (right < 0 || at - (word << 6) < right - at))
            bits = ~side->live[--word];
        if (bits) {
            left = (word << 6) + 63 - __builtin_clzll(bits);
            if (right < 0 || at - left <= right - at)
                return left;
        }
    }
    return right;
}

/* Give a key that was searched for and not found a slot, wherever the next hole is; quantities may
   have more than 64 bits. */
OBF_APART static ptrdiff_t obf_open_far(obf_side *side, ptrdiff_t at, int64_t key)
{
    ptrdiff_t hole = obf_nearest_hole(side, at), first = at, to = at + 1, count = hole - at;
    if (hole < at) {
        first = hole + 1;
        to = hole;
        count = at - first;
        at--;
    }
    memmove(side->keys + to, side->keys + first, (size_t)count * sizeof(*side->keys));
    memmove(side->rests + to, side->rests + first, (size_t)count * sizeof(*side->rests));
    if (side->highs)
        memmove(side->highs + to, side->highs + first, (size_t)count * sizeof(*side->highs));
    side->moved += count;
    side->keys[at] = key;
    side->live[hole >> 6] |= (uint64_t)1 << (hole & 63);
    if (hole >= side->end)
        side->end = hole + 1;
    obf_index(side, hole < at ? hole : at, hole < at ? at : hole);
    return at;
}

/* Return how many of 8 ascending keys are below key. */
static inline ptrdiff_t obf_rank8_plain(const int64_t *keys, int64_t key)
{
    const int64_t *at = keys;
    at += (at[3] < key) * 4;
    at += (at[1] < key) * 2;
    at += *at < key;
    at += *at < key;
    return at - keys;
}

/* Return how many of 7 ascending keys behind the first are below key. */
static inline ptrdiff_t obf_rank7_plain(const int64_t *keys, int64_t key)
{
    const int64_t *at = keys;
    at += (at[4] < key) * 4;
    at += (at[2] < key) * 2;
    at += at[1] < key;
    return at - keys;
}

/* The same of 15. */
static inline ptrdiff_t obf_rank15_plain(const int64_t *keys, int64_t key)
{
    ptrdiff_t upper = (keys[8] < key) * 8;
    return upper + obf_rank7_plain(keys + upper, key);
}

/* Move count slots, fewer than OBF_NEAR, by one: as many move as fit, and what must not comes back.
*/
static inline void obf_shift_plain(obf_side *side, ptrdiff_t to, ptrdiff_t from, ptrdiff_t count)
{
    int64_t keys[OBF_NEAR], kept[OBF_NEAR];
    obf_rest rests[OBF_NEAR], others[OBF_NEAR];
    memcpy(keys, side->keys + from, sizeof(keys));
    memcpy(kept, side->keys + to + count, sizeof(kept));
    memcpy(side->keys + to, keys, sizeof(keys));
    memcpy(side->keys + to + count, kept, sizeof(kept));
    memcpy(rests, side->rests + from, sizeof(rests));
    memcpy(others, side->rests + to + count, sizeof(others));
    memcpy(side->rests + to, rests, sizeof(rests));
    memcpy(side->rests + to + count, others, sizeof(others));
}

/* The same of fewer than OBF_FAR. */
OBF_APART static void obf_shift_more_plain(
    obf_side *side, ptrdiff_t to, ptrdiff_t from, ptrdiff_t count)
{
    memmove(side->keys + to, side->keys + from, (size_t)count * sizeof(*side->keys));
    memmove(side->rests + to, side->rests + from, (size_t)count * sizeof(*side->rests));
}

/* Tell of which changes the key is above that of the next one, and of which below. */
static inline void obf_compare_plain(
    const obf_search *search, ptrdiff_t size, uint64_t *above, uint64_t *below)
{
    ptrdiff_t i;
    *above = *below = 0;
    for (i = 0; i < size - 1; i++) {
        *above |= (uint64_t)(search->wanted[OBF_LEAD + i] > search->wanted[OBF_LEAD + i + 1]) << i;
        *below |= (uint64_t)(search->wanted[OBF_LEAD + i] < search->wanted[OBF_LEAD + i + 1]) << i;
    }
}

#define OBF_VARIANT(name) obf_##name##_plain
#define OBF_TARGET
#define OBF_TOGETHER 0
#include "_apply.h"
#undef OBF_TOGETHER
#undef OBF_VARIANT
#undef OBF_TARGET

#if OBF_AVX2
#define OBF_TARGET __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt")))

/* Tell which of 8 keys are below key, a bit each. */
OBF_TARGET static inline unsigned obf_below8_avx2(const int64_t *keys, int64_t key)
{
    const __m256i wanted = _mm256_set1_epi64x(key);
    const __m256i *at = (const __m256i *)keys;
    __m256i below = _mm256_packs_epi32(
        _mm256_cmpgt_epi64(wanted, _mm256_loadu_si256(at)),
        _mm256_cmpgt_epi64(wanted, _mm256_loadu_si256(at + 1)));
    return (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(below));
}

OBF_TARGET static inline ptrdiff_t obf_rank8_avx2(const int64_t *keys, int64_t key)
{
    return __builtin_popcount(obf_below8_avx2(keys, key));
}

OBF_TARGET static inline ptrdiff_t obf_rank7_avx2(const int64_t *keys, int64_t key)
{
    /* The first one's bit is the lowest; the others come in another order. */
    return __builtin_popcount(obf_below8_avx2(keys, key) & ~1u);
}

OBF_TARGET static inline ptrdiff_t obf_rank15_avx2(const int64_t *keys, int64_t key)
{
    const __m256i wanted = _mm256_set1_epi64x(key);
    const __m256i *at = (const __m256i *)keys;
    __m256i low = _mm256_packs_epi32(
        _mm256_cmpgt_epi64(wanted, _mm256_loadu_si256(at)),
        _mm256_cmpgt_epi64(wanted, _mm256_loadu_si256(at + 1)));
    __m256i high = _mm256_packs_epi32(
        _mm256_cmpgt_epi64(wanted, _mm256_loadu_si256(at + 2)),
        _mm256_cmpgt_epi64(wanted, _mm256_loadu_si256(at + 3)));
    low = _mm256_packs_epi16(low, high);
    return __builtin_popcount((unsigned)_mm256_movemask_epi8(low) & ~3u) >> 1;
}

/* 240 bytes that are taken, 256 that are left. */
static const uint8_t obf_taken[496] = {
#define OBF_TEN 255, 255, 255, 255, 255, 255, 255, 255, 255, 255
#define OBF_FORTY OBF_TEN, OBF_TEN, OBF_TEN, OBF_TEN
    OBF_FORTY, OBF_FORTY, OBF_FORTY, OBF_FORTY, OBF_FORTY, OBF_FORTY,
#undef OBF_FORTY
#undef OBF_TEN
};

/* Move so many bytes, which may come to lie over one another; those behind them, up to so many
   vectors, are written as they were. */
OBF_TARGET static OBF_INLINE void obf_blend_avx2(
    void *to, const void *from, ptrdiff_t bytes, int vectors)
{
    const __m256i *taken = (const __m256i *)(obf_taken + 240 - bytes), *source = from;
    __m256i *target = to, moved[8];
    int i;
    for (i = 0; i < vectors; i++)
        moved[i] = _mm256_blendv_epi8(_mm256_loadu_si256(target + i),
            _mm256_loadu_si256(source + i), _mm256_loadu_si256(taken + i));
    for (i = 0; i < vectors; i++)
        _mm256_storeu_si256(target + i, moved[i]);
}

OBF_TARGET static OBF_INLINE void obf_shift_avx2(
    obf_side *side, ptrdiff_t to, ptrdiff_t from, ptrdiff_t count)
{
    obf_blend_avx2(side->keys + to, side->keys + from, 8 * count, 2);
    obf_blend_avx2(side->rests + to, side->rests + from, 10 * count, 3);
}

OBF_TARGET OBF_APART static void obf_shift_more_avx2(
    obf_side *side, ptrdiff_t to, ptrdiff_t from, ptrdiff_t count)
{
    obf_blend_avx2(side->keys + to, side->keys + from, 8 * count, 6);
    obf_blend_avx2(side->rests + to, side->rests + from, 10 * count, 8);
}

OBF_TARGET static inline void obf_compare_avx2(
    const obf_search *search, ptrdiff_t size, uint64_t *above, uint64_t *below)
{
    uint64_t more = 0, less = 0;
    ptrdiff_t first, i;
    for (first = 0; first < size - 1; first += 32)
        for (i = first; i < first + 32; i += 4) {
            __m256i one = _mm256_loadu_si256((const __m256i *)(search->wanted + OBF_LEAD + i));
            __m256i next = _mm256_loadu_si256((const __m256i *)(search->wanted + OBF_LEAD + i + 1));
            more |= (uint64_t)(unsigned)_mm256_movemask_pd(
                        _mm256_castsi256_pd(_mm256_cmpgt_epi64(one, next))) << i;
            less |= (uint64_t)(unsigned)_mm256_movemask_pd(
                        _mm256_castsi256_pd(_mm256_cmpgt_epi64(next, one))) << i;
        }
    *above = more;
    *below = less;
}

#define OBF_TOGETHER 0
#define OBF_VARIANT(name) obf_##name##_avx2
#include "_apply.h"
#undef OBF_TOGETHER
#undef OBF_VARIANT
#undef OBF_TARGET
#endif

#if OBF_AVX512
#define OBF_TARGET \
    __attribute__((target( \
        "avx2,bmi,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2")))

OBF_TARGET static inline ptrdiff_t obf_rank8_avx512(const int64_t *keys, int64_t key)
{
    return __builtin_popcount(
        _mm512_cmplt_epi64_mask(_mm512_loadu_si512(keys), _mm512_set1_epi64(key)));
}

OBF_TARGET static inline ptrdiff_t obf_rank7_avx512(const int64_t *keys, int64_t key)
{
    return __builtin_popcount(
        _mm512_mask_cmplt_epi64_mask(0xFE, _mm512_loadu_si512(keys), _mm512_set1_epi64(key)));
}

OBF_TARGET static inline ptrdiff_t obf_rank15_avx512(const int64_t *keys, int64_t key)
{
    const __m512i wanted = _mm512_set1_epi64(key);
    unsigned low = _mm512_mask_cmplt_epi64_mask(0xFE, _mm512_loadu_si512(keys), wanted);
    unsigned high = _mm512_cmplt_epi64_mask(_mm512_loadu_si512(keys + 8), wanted);
    return __builtin_popcount(low | high << 8);
}

/* As obf_shift_plain; what must not move is not written. */
OBF_TARGET static OBF_INLINE void obf_shift_avx512(
    obf_side *side, ptrdiff_t to, ptrdiff_t from, ptrdiff_t count)
{
    const uint64_t words = ((uint64_t)1 << 5 * count) - 1; /* of 16 bits, five a rest */
    const char *source = (const char *)(side->rests + from);
    char *target = (char *)(side->rests + to);
    __m512i keys = _mm512_loadu_si512(side->keys + from);
    __m512i rests = _mm512_loadu_si512(source);
    __m128i others = _mm_loadu_si128((const __m128i *)(source + 64));
    _mm512_mask_storeu_epi64(side->keys + to, (__mmask8)(((unsigned)1 << count) - 1), keys);
    _mm512_mask_storeu_epi16(target, (__mmask32)words, rests);
    _mm_mask_storeu_epi16(target + 64, (__mmask8)(words >> 32), others);
}

/* As obf_shift_more_plain. */
OBF_TARGET OBF_APART static void obf_shift_more_avx512(
    obf_side *side, ptrdiff_t to, ptrdiff_t from, ptrdiff_t count)
{
    const uint64_t taken = ((uint64_t)1 << count) - 1;
    const char *source = (const char *)(side->rests + from);
    char *target = (char *)(side->rests + to);
    __m512i keys[3], rests[4];
    ptrdiff_t i, left;
    for (i = 0; i < 3; i++)
        keys[i] = _mm512_loadu_si512(side->keys + from + 8 * i);
    for (i = 0; i < 4; i++)
        rests[i] = _mm512_loadu_si512(source + 64 * i);
    for (i = 0; i < 3; i++)
        _mm512_mask_storeu_epi64(side->keys + to + 8 * i, (__mmask8)(taken >> 8 * i), keys[i]);
    for (i = 0; i < 4; i++) {
        left = 5 * count - 32 * i;
        left = left < 0 ? 0 : left;
        _mm512_mask_storeu_epi16(
            target + 64 * i, (__mmask32)_bzhi_u32(~(unsigned)0, left < 32 ? (unsigned)left : 32),
            rests[i]);
    }
}

OBF_TARGET static inline void obf_compare_avx512(
    const obf_search *search, ptrdiff_t size, uint64_t *above, uint64_t *below)
{
    uint64_t more = 0, less = 0;
    ptrdiff_t first, i;
    for (first = 0; first < size - 1; first += 32)
        for (i = first; i < first + 32; i += 8) {
            __m512i one = _mm512_loadu_si512(search->wanted + OBF_LEAD + i);
            __m512i next = _mm512_loadu_si512(search->wanted + OBF_LEAD + i + 1);
            more |= (uint64_t)_mm512_cmpgt_epi64_mask(one, next) << i;
            less |= (uint64_t)_mm512_cmplt_epi64_mask(one, next) << i;
        }
    *above = more;
    *below = less;
}

/* Where each word of eight changes, of three, stands in the three vectors that these take: among the
   first two, and then among what comes of them and the third. The last change comes first. */
static const uint64_t obf_words[3][2][8] __attribute__((aligned(64))) = {
    {{0, 0, 15, 12, 9, 6, 3, 0}, {8 + 5, 8 + 2, 2, 3, 4, 5, 6, 7}},
    {{0, 0, 0, 13, 10, 7, 4, 1}, {8 + 6, 8 + 3, 8 + 0, 3, 4, 5, 6, 7}},
    {{0, 0, 0, 14, 11, 8, 5, 2}, {8 + 7, 8 + 4, 8 + 1, 3, 4, 5, 6, 7}},
};

OBF_TARGET static inline __m512i obf_take_words(const uint64_t (*places)[8], const __m512i *three)
{
    __m512i two = _mm512_permutex2var_epi64(
        three[0], _mm512_load_si512(places[0]), three[1]);
    return _mm512_permutex2var_epi64(two, _mm512_load_si512(places[1]), three[2]);
}

/* Take eight changes at once, and note of each on which line of the coarse index its search goes on:
   the last one that does not begin above it. */
OBF_TARGET static OBF_INLINE void obf_take_changes(
    obf_search *search, const obf_side *side, const obf_change *change, ptrdiff_t low,
    ptrdiff_t high, uint64_t factor, uint64_t flip)
{
    const __m512i backwards = _mm512_setr_epi64(
        7 * sizeof(*change), 6 * sizeof(*change), 5 * sizeof(*change), 4 * sizeof(*change),
        3 * sizeof(*change), 2 * sizeof(*change), sizeof(*change), 0);
    const __m512i quantity = _mm512_set1_epi64(0xFC00FFFFFFFF); /* what is not in its low word */
    const __m512i step = _mm512_set1_epi64(OBF_STEP);
    uint64_t given = search->given;
    ptrdiff_t i, line;
    for (i = high - 8; i > low - 8; i -= 8, change += 8) {
        const ptrdiff_t absent = i < low ? low - i : 0;
        const uint32_t there = 0xFFFFFF >> 3 * absent;
        const uint64_t *words = (const uint64_t *)change;
        __m512i three[3], keys, places, rests;
        uint64_t some;
        three[0] = _mm512_maskz_loadu_epi64((__mmask8)there, words);
        three[1] = _mm512_maskz_loadu_epi64((__mmask8)(there >> 8), words + 8);
        three[2] = _mm512_maskz_loadu_epi64((__mmask8)(there >> 16), words + 16);
        keys = obf_take_words(obf_words[0], three);
        if (factor != 1) { /* in halves: see obf_count_units */
            const __m256i times = _mm256_set1_epi64x((int64_t)factor);
            keys = _mm512_inserti64x4(
                _mm512_castsi256_si512(_mm256_mullo_epi64(_mm512_castsi512_si256(keys), times)),
                _mm256_mullo_epi64(_mm512_extracti64x4_epi64(keys, 1), times), 1);
        }
        keys = _mm512_xor_si512(keys, _mm512_set1_epi64((int64_t)flip));
        rests = _mm512_and_si512(obf_take_words(obf_words[2], three), quantity);
        rests = _mm512_or_si512(obf_take_words(obf_words[1], three), rests);
        some = _cvtmask8_u32(_mm512_test_epi64_mask(rests, rests));
        given |= some >> absent << (i + absent);
        places = _mm512_setzero_si512();
        for (line = 1; line < obf_count_lines(side); line++)
            places = _mm512_mask_add_epi64(places,
                _mm512_cmplt_epi64_mask(_mm512_set1_epi64(side->coarse[OBF_STEP * line]), keys),
                places, step);
        _mm512_storeu_si512(search->wanted + OBF_LEAD + i, keys);
        _mm512_storeu_si512(search->slots + OBF_LEAD + i, places);
        _mm512_storeu_si512(search->changes + OBF_LEAD + i,
            _mm512_add_epi64(_mm512_set1_epi64((intptr_t)change), backwards));
    }
    search->given = given;
}

/* As obf_pack_plain, of a side without highs. */
OBF_TARGET OBF_APART static ptrdiff_t obf_pack_avx512(
    const obf_side *side, ptrdiff_t first, obf_side *to)
{
    unsigned wanted = 0xFFu << (first & 7);
    ptrdiff_t count = 0, at;
    for (at = first & ~(ptrdiff_t)7; at < side->end; at += 8) {
        const unsigned live = (unsigned)(side->live[at >> 6] >> (at & 56)) & wanted & 0xFF;
        const uint64_t words = _pdep_u64(live, 0x0842108421) * 31; /* of 16 bits, five a rest */
        const unsigned some = (unsigned)__builtin_popcount((unsigned)words);
        const char *source = (const char *)(side->rests + at);
        char *target = (char *)(to->rests + count);
        __m512i keys = _mm512_loadu_si512(side->keys + at);
        __m512i rests = _mm512_loadu_si512(source);
        __m128i others = _mm_loadu_si128((const __m128i *)(source + 64));
        keys = _mm512_maskz_compress_epi64((__mmask8)live, keys);
        rests = _mm512_maskz_compress_epi16((__mmask32)words, rests);
        others = _mm_maskz_compress_epi16((__mmask8)(words >> 32), others);
        _mm512_mask_storeu_epi64(
            to->keys + count, (__mmask8)obf_ones(__builtin_popcount(live)), keys);
        _mm512_mask_storeu_epi16(target, (__mmask32)obf_ones(some), rests);
        _mm_mask_storeu_epi16(target + 2 * some,
            (__mmask8)obf_ones(__builtin_popcount((unsigned)(words >> 32))), others);
        count += __builtin_popcount(live);
        wanted = 0xFF;
    }
    return count;
}

/* Which slot of eight each of its words of 16 bits belongs to, and where in a rest it is. */
static const uint16_t obf_rest_words[2][64] __attribute__((aligned(64))) = {
    {0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6,
     6, 6, 6, 7, 7, 7, 7, 7},
    {0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1,
     2, 3, 4, 0, 1, 2, 3, 4},
};

/* Tell for some words of eight slots which words of eight levels they take. */
OBF_TARGET static inline __m512i obf_take_rests(__m512i levels, ptrdiff_t first)
{
    __m512i which = _mm512_permutexvar_epi16(
        _mm512_load_si512(obf_rest_words[0] + first), levels);
    which = _mm512_add_epi16(which, _mm512_slli_epi16(which, 2));
    return _mm512_add_epi16(which, _mm512_load_si512(obf_rest_words[1] + first));
}

/* As obf_spread_plain, of a side without highs. */
OBF_TARGET OBF_APART static void obf_spread_avx512(obf_side *side, ptrdiff_t slots, uint64_t step)
{
    const __m512i steps = _mm512_set1_epi64((int64_t)step);
    __m512i lanes = _mm512_setzero_si512();
    uint8_t *live = (uint8_t *)side->live;
    ptrdiff_t at;
    int i;
    for (i = 1; i < 8; i++) /* how far each lane is from the first one: 0, 1, 2, ... steps */
        lanes = _mm512_mask_add_epi64(lanes, (__mmask8)(0xFF << i), lanes, steps);
    for (at = (slots - 1) & ~(ptrdiff_t)7; at >= 0; at -= 8) {
        const uint64_t place = step * (uint64_t)at;
        const char *source = (const char *)(side->rests + (place >> 32));
        const unsigned there = (unsigned)obf_ones(slots - at < 8 ? slots - at : 8);
        char *target = (char *)(side->rests + at);
        __m512i places = _mm512_add_epi64(_mm512_set1_epi64((int64_t)place), lanes);
        __m512i levels = _mm512_srli_epi64(places, 32);
        __m512i before = _mm512_srli_epi64(_mm512_sub_epi64(places, steps), 32);
        __m512i keys = _mm512_loadu_si512(side->keys + (place >> 32));
        __m512i rests = _mm512_loadu_si512(source), which;
        __m512i others = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(source + 64)));
        live[at >> 3] = (uint8_t)(_mm512_cmpneq_epi64_mask(levels, before) & there);
        levels = _mm512_sub_epi64(levels, _mm512_set1_epi64((int64_t)(place >> 32)));
        keys = _mm512_permutexvar_epi64(levels, keys);
        which = _mm512_castsi128_si512(_mm512_cvtepi64_epi16(levels));
        _mm512_mask_storeu_epi64(side->keys + at, (__mmask8)there, keys);
        /* Of slots past the last one too, in which nothing stands. */
        _mm512_storeu_si512(
            target, _mm512_permutex2var_epi16(rests, obf_take_rests(which, 0), others));
        _mm_storeu_si128((__m128i *)(target + 64), _mm512_castsi512_si128(
            _mm512_permutex2var_epi16(rests, obf_take_rests(which, 32), others)));
    }
}

#define OBF_TOGETHER 1
#define OBF_VARIANT(name) obf_##name##_avx512
#include "_apply.h"
#undef OBF_TOGETHER
#undef OBF_VARIANT
#undef OBF_TARGET
#endif

/* Copy the levels from a slot on to the first slots of a side, which may be the same one, and note how
   many it has. */
static inline void obf_pack(const obf_side *side, ptrdiff_t first, obf_side *to)
{
#if OBF_AVX512
    if (obf_simd > 1 && !side->highs) {
        to->count = obf_pack_avx512(side, first, to);
        return;
    }
#endif
    to->count = obf_pack_plain(side, first, to);
}

/* Spread the levels of a side, which stand in its first slots without a hole, evenly over its room. */
static inline void obf_spread(obf_side *side)
{
    /* At least a fourth of the unused slots stays at the end, where new best prices come; and there are at
       most as many holes as levels. */
    const ptrdiff_t count = side->count, unused = side->room - count;
    const ptrdiff_t most = unused - (unused >> 2), slots = count + (most < count ? most : count);
    const ptrdiff_t former = side->end > slots ? side->end : slots;
    ptrdiff_t i;
    for (i = 0; i < side->room >> 6; i++)
        side->live[i] = 0;
    if (count > 0) {
        /* Rounded up: the last slot is to have the last level. */
        const uint64_t step = (((uint64_t)count << 32) + (uint64_t)slots - 1) / (uint64_t)slots;
#if OBF_AVX512
        if (obf_simd > 1 && !side->highs)
            obf_spread_avx512(side, slots, step);
        else
#endif
            obf_spread_plain(side, slots, step);
    }
    for (i = slots; i < former; i++)
        side->keys[i] = INT64_MAX;
    side->end = slots;
    side->moved = 0;
    obf_index(side, 0, former - 1);
    obf_trim(side);
}

/* Tell whether there is a level with a key. */
static inline int obf_has_level(const obf_side *side, int64_t key)
{
    ptrdiff_t at;
    if (side->room == 0)
        return 0;
    at = obf_find_plain(side, key);
    return at < side->end && side->keys[at] == key && (side->live[at >> 6] >> (at & 63) & 1);
}

/* Apply changes. Of those with the same price the last wins. */
static inline void obf_apply(obf_work *work)
{
#if OBF_AVX512
    if (obf_simd > 1) {
        obf_apply_avx512(work);
        return;
    }
#endif
#if OBF_AVX2
    if (obf_simd) {
        obf_apply_avx2(work);
        return;
    }
#endif
    obf_apply_plain(work);
}

#endif
