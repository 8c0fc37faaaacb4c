/* The plain way: a dense sorted array, its best level last; each search goes on from the last. */

#include "structure.h"

typedef struct {
    uint64_t *keys;
    Rest *rests;
    size_t count, room;
    uint64_t flip;
} Side;

static void grow(Side *side, size_t count)
{
    if (count <= side->room)
        return;
    side->room = count + (count >> 4) + SLOTS;
    side->keys = must(realloc(side->keys, side->room * sizeof(uint64_t)));
    side->rests = must(realloc(side->rests, side->room * sizeof(Rest)));
}

/* Return the first slot whose key is not below key, galloping from a slot near by. */
static size_t gallop(const Side *side, size_t near, uint64_t key)
{
    const uint64_t *keys = side->keys;
    size_t low = 0, high = side->count, step = 1;
    if (near < high && keys[near] < key) {
        low = near + 1;
        while (low + step < high && keys[low + step] < key) {
            low += step + 1;
            step *= 2;
        }
        high = least(high, low + step);
    } else {
        high = least(near, high);
        while (high > step && keys[high - step] >= key) {
            high -= step;
            step *= 2;
        }
        low = high > step ? high - step : 0;
    }
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t apply(void *of, const Change *changes, size_t count)
{
    Side *side = of;
    size_t unknown = 0, at = side->count;
    grow(side, side->count + count);
    for (size_t i = 0; i < count; i++) {
        uint64_t key = changes[i].price ^ side->flip;
        size_t behind;
        bool known;
        at = gallop(side, at, key);
        known = at < side->count && side->keys[at] == key;
        behind = side->count - at;
        if (is_zero(&changes[i])) {
            if (!known) {
                unknown++;
                continue;
            }
            memmove(side->keys + at, side->keys + at + 1, (behind - 1) * sizeof(uint64_t));
            memmove(side->rests + at, side->rests + at + 1, (behind - 1) * sizeof(Rest));
            side->count--;
            continue;
        }
        if (!known) {
            memmove(side->keys + at + 1, side->keys + at, behind * sizeof(uint64_t));
            memmove(side->rests + at + 1, side->rests + at, behind * sizeof(Rest));
            side->keys[at] = key;
            side->count++;
        }
        side->rests[at] = rest_of(&changes[i]);
    }
    return unknown;
}

static void *load(const Level *levels, size_t count, uint64_t flip, uint64_t tick)
{
    Side *side = must(calloc(1, sizeof(Side)));
    (void)tick;
    side->flip = flip;
    side->count = count;
    grow(side, count);
    for (size_t i = 0; i < count; i++) {
        side->keys[i] = levels[i].key;
        side->rests[i] = levels[i].rest;
    }
    return side;
}

static size_t best(const void *of, size_t depth, Level *levels)
{
    const Side *side = of;
    size_t count = least(depth, side->count);
    for (size_t i = 0; i < count; i++) {
        levels[i].key = side->keys[side->count - 1 - i];
        levels[i].rest = side->rests[side->count - 1 - i];
    }
    return count;
}

static size_t count_levels(const void *side) { return ((const Side *)side)->count; }

static size_t bytes(const void *side)
{
    return sizeof(Side) + ((const Side *)side)->room * (sizeof(uint64_t) + sizeof(Rest));
}

static void release(void *of)
{
    Side *side = of;
    free(side->keys);
    free(side->rests);
    free(side);
}

const Structure dense = {"dense gallop", false, load, apply, best, count_levels, bytes, release};
