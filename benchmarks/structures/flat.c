/* The flat array with holes as obframe/_core.pyx has it, and variants of its search.

   flat.inc is compiled once for each. */

#include "structure.h"

#define NAME(what) flat_##what
#define STRUCTURE flat
#define TITLE "flat"
#define STAGED 0
#define LINES 0
#define AVX2 0
#define BOTH 0
#define TARGET
#include "flat.inc"

/* Searches in stages, so that a whole batch waits for memory together: index, keys, rests. */
#define NAME(what) flat_staged_##what
#define STRUCTURE flat_staged
#define TITLE "flat staged"
#define STAGED 1
#define LINES 0
#define AVX2 0
#define BOTH 0
#define TARGET
#include "flat.inc"

/* A second index of every eighth key: a search then reads one cache line of keys. */
#define NAME(what) flat_lines_##what
#define STRUCTURE flat_lines
#define TITLE "flat staged index of lines"
#define STAGED 1
#define LINES 1
#define AVX2 0
#define BOTH 0
#define TARGET
#include "flat.inc"

#define NAME(what) flat_lines_both_##what
#define STRUCTURE flat_lines_both
#define TITLE "flat staged index of lines both"
#define STAGED 1
#define LINES 1
#define AVX2 0
#define BOTH 1
#define TARGET
#include "flat.inc"

#define NAME(what) flat_staged_both_##what
#define STRUCTURE flat_staged_both
#define TITLE "flat staged both"
#define STAGED 1
#define LINES 0
#define AVX2 0
#define BOTH 1
#define TARGET
#include "flat.inc"

#define NAME(what) flat_steps_##what
#define STRUCTURE flat_steps
#define TITLE "flat steps"
#define STAGED 2
#define LINES 0
#define AVX2 0
#define BOTH 0
#define TARGET
#include "flat.inc"

#define NAME(what) flat_steps_both_##what
#define STRUCTURE flat_steps_both
#define TITLE "flat steps both"
#define STAGED 2
#define LINES 0
#define AVX2 0
#define BOTH 1
#define TARGET
#include "flat.inc"

#if HAVE_AVX2
/* The last 64 keys by AVX2. */
#define NAME(what) flat_rank_avx2_##what
#define STRUCTURE flat_rank_avx2
#define TITLE "flat staged AVX2"
#define STAGED 1
#define LINES 0
#define AVX2 1
#define BOTH 0
#define TARGET WITH_AVX2
#include "flat.inc"

#define NAME(what) flat_lines_avx2_##what
#define STRUCTURE flat_lines_avx2
#define TITLE "flat staged index of lines AVX2"
#define STAGED 1
#define LINES 1
#define AVX2 1
#define BOTH 0
#define TARGET WITH_AVX2
#include "flat.inc"
#endif
