/* What the programs beside this have in common: random numbers, failing with what it takes to fail
   again, and memory between pages that may not be touched. */

#ifndef OBFRAME_FENCES_H
#define OBFRAME_FENCES_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "_core.h"

#define FILLING 0xEE /* of memory that nothing was written to */

typedef struct {
    char *pages; /* with those that may not be touched; NULL at first */
    size_t size;
} fenced;

static uint64_t seed, random_state;
static long step;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "%s: step %ld, seed %llu, variant %d\n", what, step, (unsigned long long)seed,
        obf_simd);
    abort();
}

static void require(int holds, const char *what)
{
    if (!holds)
        fail(what);
}

static void fail_by_signal(int number)
{
    (void)number;
    fail("memory outside of an array was touched");
}

/* Return a random number: splitmix64. */
static uint64_t draw(void)
{
    uint64_t x = random_state += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static ptrdiff_t draw_below(ptrdiff_t limit)
{
    return (ptrdiff_t)(draw() % (uint64_t)limit);
}

static int one_in(ptrdiff_t number)
{
    return draw_below(number) == 0;
}

/* Return new memory, mostly with its end where a page begins that may not be touched, and else with
   its start where such a page ends; what was there before is gone. */
static void *fence(fenced *memory, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), usable = (bytes + page - 1) / page * page;
    char *pages = mmap(NULL, usable + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(pages != MAP_FAILED, "no memory");
    require(mprotect(pages + page, usable, PROT_READ | PROT_WRITE) == 0, "no memory");
    memset(pages + page, FILLING, usable);
    if (memory->pages)
        munmap(memory->pages, memory->size);
    memory->pages = pages;
    memory->size = usable + 2 * page;
    return pages + page + (one_in(4) ? 0 : usable - bytes);
}

/* Read STEPS and SEED, and return STEPS; 0 when the arguments are wrong. */
static long start(int argc, char **argv)
{
    long steps = argc == 3 ? atol(argv[1]) : 0;
    if (steps < 1) {
        fprintf(stderr, "usage: %s STEPS SEED; STEPS is 1 at least\n", argv[0]);
        return 0;
    }
    seed = random_state = strtoull(argv[2], NULL, 10);
    signal(SIGSEGV, fail_by_signal);
    signal(SIGBUS, fail_by_signal);
    obf_choose(1);
    return steps;
}

#endif
