/* Prices as numbers of ticks, and a sorted directory of pages of 64 ticks. */

#ifndef TICKS_H
#define TICKS_H

#include "structure.h"

typedef struct {
    uint64_t size; /* of a tick */
    uint64_t inverse; /* of its odd part, modulo 2**64 */
    int shift; /* of its even part */
    uint64_t most; /* ticks that a price may have */
    uint64_t flip;
} Ticks;

INLINE Ticks make_ticks(uint64_t size, uint64_t flip)
{
    Ticks ticks = {size, 1, __builtin_ctzll(size), UINT64_MAX / size, flip};
    for (int i = 0; i < 6; i++) /* Newton: the right bits double */
        ticks.inverse *= 2 - (size >> ticks.shift) * ticks.inverse;
    return ticks;
}

/* Return whether a price is a whole number of ticks, and which, the better the greater. An exact
   quotient is one multiplication; what is no multiple comes out too large or not whole. */
INLINE bool to_ticks(const Ticks *ticks, uint64_t price, uint64_t *place)
{
    uint64_t count = (price >> ticks->shift) * ticks->inverse;
    bool whole = (price & (((uint64_t)1 << ticks->shift) - 1)) == 0 && count <= ticks->most;
    *place = count ^ ticks->flip;
    return whole;
}

INLINE uint64_t to_key(const Ticks *ticks, uint64_t place)
{
    return ((place ^ ticks->flip) * ticks->size) ^ ticks->flip;
}

INLINE uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The tick that fits all levels and the one that was asked for; 0 asks for none. */
INLINE uint64_t find_tick(const Level *levels, size_t count, uint64_t flip, uint64_t tick)
{
    for (size_t i = 0; i < count && tick != 1; i++)
        tick = common_divisor(tick, levels[i].key ^ flip);
    return tick ? tick : 1;
}

#endif
