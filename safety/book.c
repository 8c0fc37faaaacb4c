/* Applies random messages to two sides of a book, by all variants of _apply.h in turn, and checks
   after each that the sides hold what a plain model says and keep what _book.h promises.

   Usage: book STEPS SEED. Ends with 0 and a line that tells how many messages each variant applied,
   or aborts and tells what failed.

   Each array lies between pages that may not be touched. Sanitizers do not see what AVX-512 stores
   by a mask, nor an overrun from one array into the next in the core's single block of memory. */

#include "_book.h"
#include "fences.h"

#define MOST_ENTRIES 44000 /* more lines of a coarse index than are compared with all */
#define MOST_CHANGES 400

enum { KEYS, FINE, COARSE, LIVE, RESTS, HIGHS, CHANGES, ARRAYS };

/* What the model knows of a price. */
typedef struct {
    int64_t key;
    obf_change level; /* the last one given; its price is as messages have it */
    int known;        /* there is such a level */
} entry;

typedef struct {
    obf_side side;
    fenced arrays[ARRAYS];
    entry entries[MOST_ENTRIES]; /* ascending by key */
    ptrdiff_t size;              /* entries in use */
    int wide;                    /* some quantities have more than 64 bits */
    ptrdiff_t deleting;          /* so many of 100 changes delete */
    obf_change *changes;         /* of this step */
    entry *chosen[MOST_CHANGES]; /* whose price they have */
    ptrdiff_t count;
} book_side;

/* As allocate_slots does it, but for where the arrays lie. */
static void allocate_arrays(book_side *book, ptrdiff_t room, int wide)
{
    const size_t slots = (size_t)room, blocks = slots / OBF_BLOCK;
    obf_side *side = &book->side;
    ptrdiff_t i;
    side->keys = fence(&book->arrays[KEYS], 8 * (OBF_GUARD + slots + OBF_SPARE));
    side->keys += OBF_GUARD;
    side->fine = fence(&book->arrays[FINE], 8 * (slots / OBF_STEP));
    side->coarse = fence(&book->arrays[COARSE], 8 * (blocks + 2 * OBF_STEP));
    side->live = fence(&book->arrays[LIVE], 8 * (1 + blocks + 1));
    side->live++;
    side->rests = fence(&book->arrays[RESTS], sizeof(obf_rest) * (slots + OBF_SPARE));
    side->highs = wide ? fence(&book->arrays[HIGHS], 4 * slots) : NULL;
    side->coarse_count = (ptrdiff_t)blocks;
    side->room = room;
    side->end = 0;
    for (i = -OBF_GUARD; i < room + OBF_SPARE; i++)
        side->keys[i] = i < 0 ? INT64_MIN : INT64_MAX;
    for (i = 0; i < room / OBF_STEP; i++)
        side->fine[i] = INT64_MAX;
    for (i = 0; i < side->coarse_count + 2 * OBF_STEP; i++)
        side->coarse[i] = INT64_MAX;
    memset(side->live, 0, 8 * blocks);
    side->live[-1] = side->live[blocks] = UINT64_MAX;
}

static int is_level(const obf_side *side, ptrdiff_t at)
{
    return side->live[at / 64] >> at % 64 & 1;
}

/* Check what obf_spread promises but for the levels themselves. */
static void check_spread(const obf_side *side)
{
    const ptrdiff_t unused = side->room - side->count, most = unused - unused / 4;
    ptrdiff_t holes = 0, i;
    for (i = 0; i < side->end; i++) {
        require(is_level(side, i) || (i > 0 && is_level(side, i - 1)), "two holes are beside each other");
        holes += !is_level(side, i);
    }
    require(side->end == 0 || is_level(side, side->end - 1), "a hole is above the best level");
    require(side->room - side->end >= unused / 4, "too few slots are left for new best prices");
    require(holes + 1 >= (most < side->count ? most : side->count), "holes are missing");
    require(side->moved == 0, "moves before spreading are counted still");
}

/* Put the levels of the model into new arrays, and spread holes among them, or leave all holes in one
   place, which may be behind the last level. */
static void lay_out(book_side *book, ptrdiff_t room, int wide)
{
    obf_side *side = &book->side;
    const ptrdiff_t count = side->count, unused = room - count;
    const int evenly = one_in(2);
    const ptrdiff_t before = evenly || one_in(2) || !count ? count : 1 + draw_below(count);
    ptrdiff_t i, at, nth = 0;
    allocate_arrays(book, room, wide);
    for (i = 0; i < book->size; i++) {
        if (!book->entries[i].known)
            continue;
        at = nth + (nth < before ? 0 : unused);
        nth++;
        for (; side->end < at; side->end++) /* a hole has the key of the level before it */
            side->keys[side->end] = side->keys[side->end - 1];
        side->keys[side->end++] = book->entries[i].key;
        side->live[at / 64] |= (uint64_t)1 << at % 64;
        obf_put(side, at, &book->entries[i].level);
    }
    if (evenly) {
        obf_spread(side);
        check_spread(side);
    } else {
        obf_index(side, 0, room - 1);
    }
}

/* Return the least room for so many levels, be they none. */
static ptrdiff_t least_room(ptrdiff_t levels)
{
    return ((levels > 0 ? levels : 1) + OBF_BLOCK - 1) / OBF_BLOCK * OBF_BLOCK;
}

/* Spread the best levels where they are, as spread_side does it, and forget the others. */
static void spread_again(book_side *book)
{
    obf_side *side = &book->side;
    const ptrdiff_t keep = one_in(2) ? side->count : draw_below(side->count + 1);
    ptrdiff_t first = side->end, left = keep, i;
    for (i = book->size - 1; i >= 0; i--) {
        book->entries[i].known = book->entries[i].known && left > 0;
        left -= book->entries[i].known;
    }
    for (left = keep; left > 0; left -= is_level(side, first))
        first--;
    if (one_in(2)) {
        const obf_side before = *side;
        fenced former[CHANGES];
        memcpy(former, book->arrays, sizeof(former));
        memset(book->arrays, 0, sizeof(former));
        allocate_arrays(book, least_room(keep) + (one_in(2) ? 0 : OBF_BLOCK * draw_below(4)), before.highs || one_in(4));
        if (side->highs)
            memset(side->highs, 0, 4 * (size_t)side->room);
        obf_pack(&before, first, side);
        for (i = 0; i < CHANGES; i++)
            if (former[i].pages)
                munmap(former[i].pages, former[i].size);
    } else {
        obf_pack(side, first, side);
    }
    require(side->count == keep, "another number of levels than there are was packed");
    obf_spread(side);
    check_spread(side);
}

/* Tell whether a change gives a level its quantity, and does not delete it. */
static int gives(const obf_change *change)
{
    return change->low != 0 || change->high != 0 || change->form >> 10 != 0;
}

static void draw_quantity(obf_change *change, int wide)
{
    change->low = one_in(2) ? draw() | 1 : (uint64_t)(1 + draw_below(3));
    change->high = 0;
    change->form = (uint16_t)draw_below(1024);
    if (wide && one_in(3)) {
        change->low = one_in(2) ? draw() : 0;
        change->high = one_in(2) ? (uint32_t)draw() : 0;
        change->form |= one_in(2) ? (uint16_t)(draw_below(64) << 10) : 0;
    }
}

/* Begin anew, with levels at the ends of the range of prices or in its middle. */
static void start_side(book_side *book, uint64_t factor, uint64_t flip)
{
    /* Some fill whole words of bits: with a level at each price and no more room, all is full. */
    static const ptrdiff_t sizes[] = {1, 8, 64, 192, 704, 3072, 3072, MOST_ENTRIES};
    const ptrdiff_t most = sizes[draw_below(one_in(8) ? 8 : 7)], size = one_in(2) ? most : 1 + draw_below(most);
    const ptrdiff_t low = one_in(2) ? 0 : draw_below(size + 1); /* so many prices from 0 on */
    const ptrdiff_t known = one_in(3) ? 100 : draw_below(100);
    const uint64_t gap = one_in(2) ? 1 : (uint64_t)(1 + draw_below(1000));
    const uint64_t largest = UINT64_MAX / factor >> one_in(2);
    ptrdiff_t i;
    memset(&book->side, 0, sizeof(book->side));
    book->size = size;
    book->wide = one_in(3);
    book->deleting = one_in(3) ? 0 : draw_below(101);
    for (i = 0; i < size; i++) {
        entry *one = &book->entries[flip == OBF_BID_FLIP ? i : size - 1 - i];
        one->level.price = i < low ? (uint64_t)i * gap : largest - (uint64_t)(size - 1 - i) * gap;
        one->key = (int64_t)(one->level.price * factor ^ flip);
        draw_quantity(&one->level, 0);
        one->known = draw_below(100) < known;
        book->side.count += one->known;
    }
    if (book->side.count)
        lay_out(book, least_room(book->side.count), 0);
}

static int compare_rising(const void *left, const void *right)
{
    int64_t one = (*(entry *const *)left)->key, other = (*(entry *const *)right)->key;
    return (one > other) - (one < other);
}

static int compare_falling(const void *left, const void *right)
{
    return compare_rising(right, left);
}

/* Choose which prices change in this step, and in which order. */
static void choose_entries(book_side *book)
{
    static const ptrdiff_t most[] = {1, 5, 64, 70, MOST_CHANGES};
    const ptrdiff_t span = one_in(2) ? book->size : 1 + draw_below(book->size);
    const ptrdiff_t first = draw_below(book->size - span + 1), order = draw_below(3);
    const int repeating = one_in(4);
    ptrdiff_t i;
    book->count = one_in(5) ? 0 : 1 + draw_below(most[draw_below(5)]);
    for (i = 0; i < book->count; i++)
        book->chosen[i] = repeating && i > 0 && one_in(2) ? book->chosen[i - 1]
            : &book->entries[first + draw_below(span)];
    if (order > 0)
        qsort(book->chosen, (size_t)book->count, sizeof(book->chosen[0]),
            order == 1 ? compare_rising : compare_falling);
    if (book->count > 0 && one_in(6)) /* and a single one that is out of order */
        book->chosen[draw_below(book->count)] = &book->entries[draw_below(book->size)];
}

static void draw_changes(book_side *book)
{
    ptrdiff_t i;
    choose_entries(book);
    if (one_in(20))
        book->deleting = draw_below(101);
    book->changes = fence(&book->arrays[CHANGES], (size_t)book->count * sizeof(obf_change));
    for (i = 0; i < book->count; i++) {
        obf_change *change = &book->changes[i];
        memset(change, 0, sizeof(*change));
        change->price = book->chosen[i]->level.price;
        change->form = (uint16_t)draw_below(1024); /* decimals do not make it a level */
        if (draw_below(100) >= book->deleting)
            draw_quantity(change, book->wide);
    }
}

static void check_levels(const book_side *book)
{
    const obf_side *side = &book->side;
    ptrdiff_t count = 0, at = 0, i;
    uint32_t high;
    for (i = 0; i < book->size; i++) {
        const entry *one = &book->entries[i];
        require(obf_has_level(side, one->key) == one->known, "obf_has_level is wrong");
        if (!one->known)
            continue;
        while (at < side->end && !is_level(side, at))
            at++;
        require(at < side->end, "a level is missing");
        require(side->keys[at] == one->key, "a level is missing, or is one too many");
        require(side->rests[at].low == one->level.low, "the low bits of a quantity are wrong");
        require(side->rests[at].form == one->level.form, "the form of a level is wrong");
        high = side->highs ? side->highs[at] : 0;
        require(high == one->level.high, "the high bits of a quantity are wrong");
        count++;
        at++;
    }
    for (; at < side->room; at++)
        require(!is_level(side, at), "a level is one too many");
    require(side->count == count, "the count of levels is wrong");
}

/* Make room for what the changes may add, as reserve_side does, but at times for no more than that;
   and lay the side out anew now and then. */
static void make_room(book_side *book)
{
    const obf_side *side = &book->side;
    ptrdiff_t needed, i;
    int wide = side->highs != NULL;
    if (side->room > 0 && one_in(10)) {
        spread_again(book);
        check_levels(book);
    }
    if (book->count == 0) /* a side may be without memory */
        return;
    needed = side->count;
    for (i = 0; i < book->count; i++) {
        needed += gives(&book->changes[i]) && !book->chosen[i]->known;
        wide |= book->changes[i].high != 0;
    }
    if (needed > side->room || side->room == 0 || wide != (side->highs != NULL) || one_in(10))
        lay_out(book, least_room(needed) + (one_in(2) ? 0 : OBF_BLOCK * draw_below(4)), wide);
}

/* Apply the changes to the model, one by one; return how many deleted what was not there. */
static ptrdiff_t apply_to_model(book_side *book, int64_t *best)
{
    ptrdiff_t unknown = 0, i;
    *best = INT64_MIN;
    for (i = 0; i < book->count; i++) {
        entry *one = book->chosen[i];
        *best = one->key > *best ? one->key : *best;
        unknown += !gives(&book->changes[i]) && !one->known;
        one->known = gives(&book->changes[i]);
        one->level = book->changes[i];
    }
    return unknown;
}

static void check_arrays(const obf_side *side)
{
    const unsigned char *spare = (const unsigned char *)(side->rests + side->room);
    ptrdiff_t i;
    for (i = -OBF_GUARD; i < 0; i++)
        require(side->keys[i] == INT64_MIN, "a key before the first slot has changed");
    for (i = 0; i < side->room; i++) {
        require(side->keys[i - 1] <= side->keys[i], "keys do not ascend");
        if (i > 0 && is_level(side, i))
            require(side->keys[i - 1] < side->keys[i], "a level has the key of the slot before it");
    }
    for (i = side->end; i < side->room + OBF_SPARE; i++)
        require(side->keys[i] == INT64_MAX, "a key past the end is not the largest");
    for (i = 0; i < side->room / OBF_STEP; i++)
        require(side->fine[i] == side->keys[i * OBF_STEP], "the fine index is wrong");
    for (i = 0; i < side->room / OBF_BLOCK; i++)
        require(side->coarse[i] == side->keys[i * OBF_BLOCK], "the coarse index is wrong");
    for (; i < side->room / OBF_BLOCK + 2 * OBF_STEP; i++)
        require(side->coarse[i] == INT64_MAX, "a key behind the coarse index has changed");
    require(side->live[-1] == UINT64_MAX, "the word before the bits is wrong");
    require(side->live[side->room / OBF_BLOCK] == UINT64_MAX, "the word behind the bits is wrong");
    for (i = 0; i < (ptrdiff_t)sizeof(obf_rest) * OBF_SPARE; i++)
        require(spare[i] == FILLING, "a rest behind the last slot has changed");
}

static void apply_and_check(book_side *books, uint64_t factor)
{
    obf_work work = {.factor = factor, .best = {INT64_MIN, INT64_MIN}};
    ptrdiff_t unknown = 0;
    int64_t best[2];
    int i;
    for (i = 0; i < 2; i++) {
        draw_changes(&books[i]);
        make_room(&books[i]);
        unknown += apply_to_model(&books[i], &best[i]);
        work.sides[i] = &books[i].side;
        work.changes[i] = books[i].changes;
        work.counts[i] = books[i].count;
    }
    obf_apply(&work);
    require(work.unknown == unknown, "the number of unknown levels is wrong");
    for (i = 0; i < 2; i++) {
        require(work.best[i] == best[i], "the best changed key is wrong");
        if (books[i].side.room > 0)
            check_arrays(&books[i].side);
        check_levels(&books[i]);
        obf_trim(&books[i].side);
        require(books[i].side.end == 0 || is_level(&books[i].side, books[i].side.end - 1),
            "a hole is above the best level");
    }
}

/* Spread so many levels that the place of one in 2**32 parts is inexact, and hardly one has a hole. */
static void check_large(book_side *book)
{
    const ptrdiff_t count = (1 << 17) + OBF_BLOCK - 1;
    obf_side *side = &book->side;
    ptrdiff_t next = 0, i;
    memset(side, 0, sizeof(*side));
    allocate_arrays(book, count + 1, 0);
    for (i = 0; i < count; i++) {
        side->keys[i] = i;
        side->rests[i].low = (uint64_t)i;
        side->live[i / 64] |= (uint64_t)1 << i % 64;
    }
    side->count = side->end = count;
    obf_spread(side);
    check_arrays(side);
    check_spread(side);
    for (i = 0; i < side->end; i++) {
        if (!is_level(side, i))
            continue;
        require(side->keys[i] == next && side->rests[i].low == (uint64_t)next, "a level is missing");
        next++;
    }
    require(next == count, "the last levels are missing");
}

int main(int argc, char **argv)
{
    static book_side books[2];
    long steps = start(argc, argv), left = 0, applied[3] = {0, 0, 0};
    uint64_t factor = 1;
    int widest;
    if (steps == 0)
        return 2;
    widest = obf_simd;
    for (obf_simd = 0; obf_simd <= widest; obf_simd++)
        check_large(&books[0]);
    for (step = 0; step < steps; step++, left--) {
        if (left == 0) { /* another book */
            left = 1 + draw_below(100);
            factor = one_in(2) ? 1 : 5; /* which divides the largest price */
            start_side(&books[0], factor, OBF_BID_FLIP);
            start_side(&books[1], factor, OBF_ASK_FLIP);
        }
        obf_simd = (int)draw_below(widest + 1);
        apply_and_check(books, factor);
        applied[obf_simd]++;
    }
    printf("messages applied: %ld without AVX2, %ld by AVX2, %ld by AVX-512\n", applied[0],
        applied[1], applied[2]);
    return 0;
}
