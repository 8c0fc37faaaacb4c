/* How changes are applied; included by _book.h once for each kind of processor, with OBF_VARIANT
   for the names of what differs and OBF_TARGET for what the compiler may use. */

/* The three steps of a search: return where the next one looks, and at last the first slot whose key
   is not below. */
OBF_TARGET static inline ptrdiff_t OBF_VARIANT(find_eight)(const obf_side *side, int64_t key)
{
    const int64_t *place = side->coarse;
    ptrdiff_t n, half;
    for (n = side->coarse_count; n > 2 * OBF_STEP; n -= half) {
        half = n >> 1;
        place = __builtin_expect_with_probability(place[half] < key, 1, 0.5) ? place + half : place;
    }
    place += OBF_VARIANT(rank16)(place, key);
    return (place - side->coarse - (place > side->coarse)) << 3;
}

OBF_TARGET static inline ptrdiff_t OBF_VARIANT(find_line)(
    const obf_side *side, ptrdiff_t at, int64_t key)
{
    ptrdiff_t rank = OBF_VARIANT(rank8)(side->fine + at, key);
    return (at + rank - (rank > 0)) << 3;
}

OBF_TARGET static inline ptrdiff_t OBF_VARIANT(find_slot)(
    const obf_side *side, ptrdiff_t at, int64_t key)
{
    return at + OBF_VARIANT(rank8)(side->keys + at, key);
}

/* Give a key that was searched for and not found a slot; the search said at. There is a hole. */
OBF_TARGET static inline ptrdiff_t OBF_VARIANT(open)(obf_side *side, ptrdiff_t at, int64_t key)
{
    /* The bits of the 16 slots before and of the 48 from there on. */
    ptrdiff_t bit = at + OBF_BLOCK - 16, left, right, down, count, hole, last;
    const uint64_t *words = side->live - 1 + (bit >> 6);
    uint64_t holes = ~(words[0] >> (bit & 63) | words[1] << 1 << (63 - (bit & 63)));
    left = __builtin_clzll(holes << 48 | (uint64_t)1 << 47);
    right = __builtin_ctzll(holes >> 16 | (uint64_t)1 << 16);
    down = left <= right;
    count = down ? left : right;
    if (count >= OBF_STEP || side->highs)
        return obf_open_far(side, at, key);
    hole = down ? at - 1 - left : at + right;
    OBF_VARIANT(shift)(side, down ? hole : at + 1, down ? hole + 1 : at, count);
    side->moved += count;
    at -= down;
    side->keys[at] = key;
    side->live[hole >> 6] |= (uint64_t)1 << (hole & 63);
    last = hole > at ? hole : at;
    side->end = last < side->end ? side->end : last + 1;
    /* At most one key of each index has changed; where none has, this writes what stands there. */
    side->fine[last >> 3] = side->keys[last & ~(ptrdiff_t)7];
    side->coarse[last >> 6] = side->keys[last & ~(ptrdiff_t)63];
    return at;
}

/* Apply those changes of a side that are of a level that is there, or of its hole. Note in late
   which ones insert, and have to wait; return how many wait then. */
OBF_TARGET OBF_APART static ptrdiff_t OBF_VARIANT(change)(
    obf_work *work, int number, const obf_change *changes, const obf_search *search, ptrdiff_t first,
    ptrdiff_t end, uint8_t *late, ptrdiff_t waiting)
{
    obf_side *side = work->sides[number];
    const int64_t *keys = side->keys;
    int64_t best = work->best[number];
    uint64_t *live = side->live, lost = 0, gained = 0, absent = 0;
    ptrdiff_t i, last = side->end, before = waiting;
    obf_rest spare, *rests = side->rests, *target;
    for (i = first; i < end; i++, changes++) {
        int64_t key = search->wanted[i];
        ptrdiff_t at = search->slots[i];
        uint64_t now = !obf_is_zero(changes);
        uint64_t hit = (uint64_t)(keys[at] == key) & (uint64_t)(at < last);
        uint64_t word = live[at >> 6], was; /* the next change often waits for this */
        live[at >> 6] = (word & ~(hit << (at & 63))) | (now & hit) << (at & 63);
        was = word >> (at & 63) & hit;
        gained += (now & hit) - was;
        lost += (now | was) ^ 1;
        absent += (now | hit) ^ 1;
        best = key > best ? key : best;
        late[waiting] = (uint8_t)i;
        waiting += (ptrdiff_t)((hit ^ 1) & now);
        target = hit ? rests + at : &spare;
        OBF_OPAQUE(target);
        target->low = changes->low;
        target->form = changes->form;
    }
    side->count += (ptrdiff_t)gained;
    work->best[number] = best;
    work->unknown += (ptrdiff_t)lost;
    if (side->highs)
        obf_change_highs(side, changes - (end - first), search, first, end);
    /* A level that was to be deleted may be among those that come: that has to wait too. */
    if (absent && waiting > before && !obf_in_order(search, first, end))
        waiting = obf_wait_all(side, search, first, end, late, before);
    return waiting;
}

/* Give a level that was not there a slot. */
OBF_TARGET static inline void OBF_VARIANT(insert)(
    obf_side *side, const obf_change *change, int64_t key, ptrdiff_t at, ptrdiff_t *unknown)
{
    const int64_t *keys = side->keys;
    /* What was inserted since the search has moved others by a slot. */
    at += keys[at] < key;
    at -= (at > 0) & (keys[at - (at > 0)] >= key);
    while (keys[at] < key)
        at++;
    while (at > 0 && keys[at - 1] >= key)
        at--;
    if (keys[at] == key && at < side->end) { /* it came twice */
        uint64_t now = !obf_is_zero(change), was = side->live[at >> 6] >> (at & 63) & 1;
        side->live[at >> 6] ^= (was ^ now) << (at & 63);
        side->count += (ptrdiff_t)now - (ptrdiff_t)was;
        *unknown -= (ptrdiff_t)(was & ~now);
    } else if (!obf_is_zero(change)) {
        at = OBF_VARIANT(open)(side, at, key);
        side->count++;
    } else {
        return;
    }
    obf_put(side, at, change);
}

OBF_TARGET OBF_APART static void OBF_VARIANT(apply)(obf_work *work)
{
    obf_side *bids = work->sides[0], *asks = work->sides[1];
    ptrdiff_t i, n, size, split, at, waiting;
    ptrdiff_t left[2] = {work->counts[0], work->counts[1]};
    const obf_change *from[2] = {work->changes[0], work->changes[1]}, *change;
    uint8_t late[OBF_BATCH];
    obf_search search;
    while ((size = left[0] + left[1]) > 0) {
        size = size < OBF_BATCH ? size : OBF_BATCH;
        split = left[0] < OBF_BATCH ? left[0] : OBF_BATCH;
        for (i = 0; i < size; i++) {
            const int s = i >= split;
            const obf_side *side = s ? asks : bids;
            int64_t key;
            change = s ? from[1] + (i - split) : from[0] + i;
            key = (int64_t)((change->price * work->factor) ^ (s ? OBF_ASK_FLIP : OBF_BID_FLIP));
            search.wanted[i] = key;
            at = OBF_VARIANT(find_eight)(side, key);
            search.slots[i] = at;
            __builtin_prefetch(side->fine + at);
            __builtin_prefetch(side->live + (at >> 3));
        }
        for (i = 0; i < size; i++) {
            const obf_side *side = i >= split ? asks : bids;
            at = OBF_VARIANT(find_line)(side, search.slots[i], search.wanted[i]);
            search.slots[i] = at;
            __builtin_prefetch(side->keys + at);
        }
        for (i = 0; i < size; i++) {
            const obf_side *side = i >= split ? asks : bids;
            at = OBF_VARIANT(find_slot)(side, search.slots[i], search.wanted[i]);
            search.slots[i] = at;
            __builtin_prefetch(side->rests + at);
        }
        waiting = OBF_VARIANT(change)(work, 0, from[0], &search, 0, split, late, 0);
        waiting = OBF_VARIANT(change)(work, 1, from[1], &search, split, size, late, waiting);
        for (n = 0; n < waiting; n++) {
            i = late[n];
            OBF_VARIANT(insert)(
                i < split ? bids : asks, i < split ? from[0] + i : from[1] + (i - split),
                search.wanted[i], search.slots[i], &work->unknown);
        }
        left[0] -= split;
        left[1] -= size - split;
        from[0] += split;
        from[1] += size - split;
    }
}
