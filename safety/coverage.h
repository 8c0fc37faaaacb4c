/* Edge coverage of the core for safety/fuzz.py. Taken in by -include with -fsanitize-coverage=trace-pc,
   which makes the compiler call __sanitizer_cov_trace_pc at every branch. */
#include <stdint.h>
#include <string.h>

#define OBFRAME_COVERAGE_SIZE 32768
#define OBFRAME_UNWATCHED __attribute__((no_sanitize_coverage, no_sanitize("address", "undefined"), visibility("default"), used))

static uint8_t obframe_coverage_hits[OBFRAME_COVERAGE_SIZE];
static uint8_t obframe_coverage_seen[OBFRAME_COVERAGE_SIZE];
static uintptr_t obframe_coverage_last;

OBFRAME_UNWATCHED void __sanitizer_cov_trace_pc(void) {
    /* Distances within the library: the same in every process. */
    uintptr_t at = (uintptr_t)__builtin_return_address(0) - (uintptr_t)&__sanitizer_cov_trace_pc;
    uintptr_t slot = (at * 0x9E3779B97F4A7C15u >> 40 ^ obframe_coverage_last) % OBFRAME_COVERAGE_SIZE;
    obframe_coverage_last = at * 0x9E3779B97F4A7C15u >> 41;
    if (obframe_coverage_hits[slot] < 255) {
        obframe_coverage_hits[slot]++;
    }
}

OBFRAME_UNWATCHED void obframe_coverage_reset(void) {
    memset(obframe_coverage_hits, 0, sizeof obframe_coverage_hits);
    obframe_coverage_last = 0;
}

/* Count the branches that since the reset were taken in a way, or an order of magnitude of times,
   that was never seen before; from now on they are seen. */
OBFRAME_UNWATCHED int obframe_coverage_news(void) {
    int news = 0;
    for (size_t word = 0; word < OBFRAME_COVERAGE_SIZE; word += 8) {
        uint64_t any;
        memcpy(&any, obframe_coverage_hits + word, 8);
        if (any == 0) {
            continue;
        }
        for (size_t slot = word; slot < word + 8; slot++) {
            uint8_t hits = obframe_coverage_hits[slot];
            if (hits == 0) {
                continue;
            }
            uint8_t size = hits == 1 ? 1 : hits == 2 ? 2 : hits == 3 ? 4 : hits < 8 ? 8
                : hits < 16 ? 16 : hits < 32 ? 32 : hits < 128 ? 64 : 128;
            if (size & ~obframe_coverage_seen[slot]) {
                obframe_coverage_seen[slot] |= size;
                news++;
            }
        }
    }
    return news;
}

OBFRAME_UNWATCHED int obframe_coverage_total(void) {
    int total = 0;
    for (size_t slot = 0; slot < OBFRAME_COVERAGE_SIZE; slot++) {
        total += obframe_coverage_seen[slot] != 0;
    }
    return total;
}
