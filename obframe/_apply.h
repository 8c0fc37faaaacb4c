/* How changes are applied; included by _book.h once for each kind of processor, with OBF_VARIANT
   for the names of what differs, OBF_TARGET for what the compiler may use, and OBF_TOGETHER for
   whether obf_take_changes is there. */

/* The three steps of a search: return where the next one looks, and at last the first slot whose
   key is not below. */
OBF_TARGET static inline ptrdiff_t OBF_VARIANT(find_eight)(const obf_side *side, int64_t key)
{
    const int64_t *place = side->coarse;
    ptrdiff_t n, half;
    for (n = side->coarse_count; n > 2 * OBF_STEP; n -= half) {
        half = n >> 1;
        place = __builtin_expect_with_probability(place[half] < key, 1, 0.5) ? place + half : place;
    }
    place += OBF_VARIANT(rank15)(place, key);
    /* Eight of the fine index to a coarse key, which is eight bytes. */
    return (const char *)place - (const char *)side->coarse;
}

OBF_TARGET static inline ptrdiff_t OBF_VARIANT(find_line)(
    const obf_side *side, ptrdiff_t at, int64_t key)
{
    return (at + OBF_VARIANT(rank7)(side->fine + at, key)) << 3;
}

OBF_TARGET static inline ptrdiff_t OBF_VARIANT(find_slot)(
    const obf_side *side, ptrdiff_t at, int64_t key)
{
    return at + OBF_VARIANT(rank8)(side->keys + at, key);
}

/* All three. */
OBF_TARGET static inline ptrdiff_t OBF_VARIANT(find)(const obf_side *side, int64_t key)
{
    ptrdiff_t at = OBF_VARIANT(find_line)(side, OBF_VARIANT(find_eight)(side, key), key);
    return OBF_VARIANT(find_slot)(side, at, key);
}

/* Give a key that was searched for and not found a slot; the search said at. There is a hole. */
OBF_TARGET static inline ptrdiff_t OBF_VARIANT(open)(obf_side *side, ptrdiff_t at, int64_t key)
{
    /* The first of the bits that are in sight; there is a word of them before the first slot's. */
    ptrdiff_t bit = at + OBF_BLOCK - OBF_SIGHT;
    ptrdiff_t left, right, down, count, hole, last, line, to, from, i;
    const uint64_t *words = side->live - 1 + (bit >> 6);
    uint64_t holes = ~(words[0] >> (bit & 63) | words[1] << 1 << (63 - (bit & 63)));
    left = __builtin_clzll(holes << OBF_SIGHT | (uint64_t)1 << (OBF_SIGHT - 1));
    right = __builtin_ctzll(holes >> OBF_SIGHT | (uint64_t)1 << OBF_SIGHT);
    count = left <= right ? left : right;
    if (count >= OBF_FAR || side->highs)
        return obf_open_far(side, at, key);
    /* Arithmetic instead of a choice, which compilers make a branch. */
    down = left <= right;
    OBF_OPAQUE(down);
    hole = at + right - (-down & (left + right + 1));
    last = at + right - (-down & (right + 1));
    to = at + 1 - (-down & (left + 2));
    from = to - 1 + 2 * down;
    line = last >> 3;
    at -= down;
    if (count < OBF_NEAR) {
        OBF_VARIANT(shift)(side, to, from, count);
        side->keys[at] = key;
    } else {
        OBF_VARIANT(shift_more)(side, to, from, count);
        side->keys[at] = key;
        for (i = 1; i < OBF_FAR / 8; i++) {
            const ptrdiff_t before = line > i ? line - i : 0;
            side->fine[before] = side->keys[before << 3];
        }
    }
    side->moved += count;
    side->live[hole >> 6] |= (uint64_t)1 << (hole & 63);
    side->end = last < side->end ? side->end : last + 1;
    /* Of each index at most one more key has changed; if none has, this writes what is there. */
    side->fine[line] = side->keys[line << 3];
    side->coarse[last >> 6] = side->keys[last & ~(ptrdiff_t)63];
    return at;
}

/* Search again for what was searched for, as slots have been moved since: mostly not this one, or
   not far. */
OBF_TARGET static inline ptrdiff_t OBF_VARIANT(find_again)(
    const obf_side *side, ptrdiff_t at, int64_t key)
{
    const int64_t *keys = side->keys;
    if (__builtin_expect(keys[at] >= key && keys[at - 1] < key, 1))
        return at;
    at += OBF_VARIANT(rank8)(keys + at - 4, key) - 4;
    if (keys[at] >= key && keys[at - 1] < key)
        return at;
    return OBF_VARIANT(find)(side, key);
}

/* Take the changes of a side one by one. The lanes below, which may fill them up to a whole group, are
   to lead to a place that there is. */
OBF_TARGET static OBF_INLINE void OBF_VARIANT(take_each)(
    obf_search *search, const obf_side *side, const obf_change *change, ptrdiff_t low,
    ptrdiff_t high, uint64_t factor, uint64_t flip)
{
    const int64_t *fine = side->fine;
    const char *live = (const char *)side->live; /* a word for eight of the index */
    uint64_t given = search->given;
    ptrdiff_t i, at;
    for (i = high - 1; i >= low; i--, change++) {
        int64_t key = (int64_t)((change->price * factor) ^ flip);
        search->wanted[OBF_LEAD + i] = key;
        search->changes[OBF_LEAD + i] = change;
        given |= (uint64_t)!obf_is_zero(change) << i;
        at = OBF_VARIANT(find_eight)(side, key);
        search->slots[OBF_LEAD + i] = at;
        __builtin_prefetch(fine + at);
        __builtin_prefetch(live + at);
    }
    for (i = low - 1; i > low - OBF_GROUP; i--)
        search->wanted[OBF_LEAD + i] = search->slots[OBF_LEAD + i] = 0;
    search->given = given;
}

/* The three steps; a step asks for the memory that the next one reads. */
OBF_TARGET static OBF_INLINE void OBF_VARIANT(find_eights)(
    obf_search *search, const obf_work *work, const obf_change *const *from, ptrdiff_t asks,
    ptrdiff_t low, ptrdiff_t high)
{
    obf_side *const *sides = work->sides;
    /* The bids first: see obf_search. */
#if OBF_TOGETHER
    if (obf_count_lines(sides[0]) <= OBF_LINES && obf_count_lines(sides[1]) <= OBF_LINES) {
        ptrdiff_t i, at;
        obf_take_changes(search, sides[0], from[0], low, high, work->factor, OBF_BID_FLIP);
        obf_take_changes(search, sides[1], from[1], 0, asks, work->factor, OBF_ASK_FLIP);
        for (; high > 0; high -= OBF_GROUP) {
            const obf_side *side = sides[high <= asks];
            const int64_t *coarse = side->coarse, *fine = side->fine;
            const char *live = (const char *)side->live; /* a word for eight of the index */
            for (i = high - 1; i >= high - OBF_GROUP; i--) {
                at = search->slots[OBF_LEAD + i];
                at = (at + OBF_VARIANT(rank7)(coarse + at, search->wanted[OBF_LEAD + i])) << 3;
                search->slots[OBF_LEAD + i] = at;
                __builtin_prefetch(fine + at);
                __builtin_prefetch(live + at);
            }
        }
        return;
    }
#endif
    OBF_VARIANT(take_each)(search, sides[0], from[0], low, high, work->factor, OBF_BID_FLIP);
    OBF_VARIANT(take_each)(search, sides[1], from[1], 0, asks, work->factor, OBF_ASK_FLIP);
}

OBF_TARGET static OBF_INLINE void OBF_VARIANT(find_lines)(
    obf_search *search, obf_side *const *sides, ptrdiff_t asks, ptrdiff_t high)
{
    ptrdiff_t i, at;
    for (; high > 0; high -= OBF_GROUP) {
        const obf_side *side = sides[high <= asks];
        const int64_t *keys = side->keys;
        for (i = high - 1; i >= high - OBF_GROUP; i--) {
            at = OBF_VARIANT(find_line)(side, search->slots[OBF_LEAD + i], search->wanted[OBF_LEAD + i]);
            search->slots[OBF_LEAD + i] = at;
            __builtin_prefetch(keys + at);
        }
    }
}

OBF_TARGET static OBF_INLINE void OBF_VARIANT(find_slots)(
    obf_search *search, obf_side *const *sides, ptrdiff_t asks, ptrdiff_t high)
{
    uint64_t found = 0, were = 0;
    ptrdiff_t i, at;
    for (; high > 0; high -= OBF_GROUP) {
        const obf_side *side = sides[high <= asks];
        const int64_t *keys = side->keys;
        const uint64_t *live = side->live;
        obf_rest *rests = side->rests;
        for (i = high - 1; i >= high - OBF_GROUP; i--) {
            at = OBF_VARIANT(find_slot)(side, search->slots[OBF_LEAD + i], search->wanted[OBF_LEAD + i]);
            search->slots[OBF_LEAD + i] = at;
            search->rests[OBF_LEAD + i] = rests + at;
            __builtin_prefetch(rests + at);
            found = 2 * found + (uint64_t)(keys[at] == search->wanted[OBF_LEAD + i]);
            were = 2 * were + (live[at >> 6] >> (at & 63) & 1);
        }
    }
    /* Without the lanes below the first one. */
    search->found = found >> -high;
    search->were = (were & found) >> -high;
}

/* Apply changes one by one: the keys of a side neither rise nor fall all the time. */
OBF_TARGET OBF_APART static void OBF_VARIANT(apply_each)(
    obf_work *work, const obf_search *search, ptrdiff_t asks, uint64_t all)
{
    ptrdiff_t i, at;
    for (; all; all &= ~((uint64_t)1 << i)) {
        int number;
        int64_t key;
        obf_side *side;
        uint64_t now, was = 0;
        i = 63 - __builtin_clzll(all);
        number = i < asks;
        key = search->wanted[OBF_LEAD + i];
        side = work->sides[number];
        now = search->given >> i & 1;
        work->best[number] = key > work->best[number] ? key : work->best[number];
        at = OBF_VARIANT(find_again)(side, search->slots[OBF_LEAD + i], key);
        if (side->keys[at] == key && at < side->end) {
            was = side->live[at >> 6] >> (at & 63) & 1;
            side->live[at >> 6] ^= (was ^ now) << (at & 63);
        } else if (now) {
            at = OBF_VARIANT(open)(side, at, key);
        }
        if (now)
            obf_put(side, at, search->changes[OBF_LEAD + i]);
        side->count += (ptrdiff_t)now - (ptrdiff_t)was;
        work->unknown += (ptrdiff_t)((now | was) ^ 1);
    }
}

/* Give levels that were not there a slot. */
OBF_TARGET OBF_APART static void OBF_VARIANT(insert)(
    obf_work *work, const obf_search *search, ptrdiff_t asks, uint64_t left)
{
    ptrdiff_t i, at;
    for (; left; left &= left - 1) {
        obf_side *side;
        i = __builtin_ctzll(left);
        side = work->sides[i < asks];
        at = OBF_VARIANT(find_again)(side, search->slots[OBF_LEAD + i], search->wanted[OBF_LEAD + i]);
        at = OBF_VARIANT(open)(side, at, search->wanted[OBF_LEAD + i]);
        obf_put(side, at, search->changes[OBF_LEAD + i]);
    }
}

/* Apply changes whose keys rise or fall, side by side. Those with the same price follow one another
   then; same has a bit for all but the last of them. */
OBF_TARGET static inline void OBF_VARIANT(apply_all)(
    obf_work *work, const obf_search *search, ptrdiff_t asks, uint64_t all, uint64_t same)
{
    const uint64_t of_asks = obf_ones(asks);
    const uint64_t given = search->given, found = search->found;
    /* Whether a change finds a level: what the one before has left, or what was there. */
    const uint64_t were = (search->were & ~(same >> 1)) | ((given & same) >> 1);
    uint64_t left;
    ptrdiff_t i, at;
    for (left = found & given & ~same; left; left &= left - 1) {
        i = __builtin_ctzll(left);
        search->rests[OBF_LEAD + i]->low = search->changes[OBF_LEAD + i]->low;
        search->rests[OBF_LEAD + i]->form = search->changes[OBF_LEAD + i]->form;
    }
    for (left = found & (given ^ search->were) & ~same; left; left &= left - 1) {
        i = __builtin_ctzll(left);
        at = search->slots[OBF_LEAD + i];
        work->sides[i < asks]->live[at >> 6] ^= (uint64_t)1 << (at & 63);
    }
    if (work->sides[0]->highs || work->sides[1]->highs)
        obf_change_highs(work, search, asks, found & given & ~same);
    left = given & ~were;
    work->sides[1]->count += __builtin_popcountll(left & of_asks);
    work->sides[0]->count += __builtin_popcountll(left & ~of_asks);
    left = were & ~given;
    work->sides[1]->count -= __builtin_popcountll(left & of_asks);
    work->sides[0]->count -= __builtin_popcountll(left & ~of_asks);
    work->unknown += __builtin_popcountll(all & ~given & ~were);
    OBF_VARIANT(insert)(work, search, asks, given & ~found & ~same);
}

OBF_TARGET OBF_APART static void OBF_VARIANT(apply)(obf_work *work)
{
    obf_side *const *sides = work->sides;
    ptrdiff_t left[2] = {work->counts[0], work->counts[1]}, bids, asks, low, high;
    const obf_change *from[2] = {work->changes[0], work->changes[1]};
    obf_search search;
    while (left[0] + left[1] > 0) {
        uint64_t above, below, of_bids, of_asks, all;
        bids = left[0] < OBF_BATCH ? left[0] : OBF_BATCH;
        asks = OBF_BATCH - bids - obf_gap(bids);
        asks = left[1] < asks ? left[1] : asks;
        low = asks + obf_gap(bids);
        high = low + bids;
        all = obf_ones(asks) | (obf_ones(high) & ~obf_ones(low));
        search.given = 0;
        OBF_VARIANT(find_eights)(&search, work, from, asks, low, high);
        OBF_VARIANT(find_lines)(&search, sides, asks, high);
        OBF_VARIANT(find_slots)(&search, sides, asks, high);
        search.were &= all;
        OBF_VARIANT(compare)(&search, high, &above, &below);
        /* All of a side but its first change, which has none before it. */
        of_asks = obf_ones(asks - 1);
        of_bids = obf_ones(high - 1) & ~obf_ones(low);
        obf_note_best(work, 0, search.wanted + OBF_LEAD + low, bids);
        obf_note_best(work, 1, search.wanted + OBF_LEAD, asks);
        /* The largest key is that of slots past the end too. */
        if (((of_bids & above) == 0 || (of_bids & below) == 0)
            && ((of_asks & above) == 0 || (of_asks & below) == 0)
            && work->best[0] != INT64_MAX && work->best[1] != INT64_MAX) {
            OBF_VARIANT(apply_all)(
                work, &search, asks, all, ((of_asks | of_bids) & ~above & ~below) << 1);
        } else {
            OBF_VARIANT(apply_each)(work, &search, asks, all);
        }
        left[0] -= bids;
        left[1] -= asks;
        from[0] += bids;
        from[1] += asks;
    }
}
