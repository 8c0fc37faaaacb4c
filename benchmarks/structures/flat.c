/* The flat array with holes, and what may make it faster; flat.inc is compiled once for each. */

#include "structure.h"

/* As it was in the core when this was first measured. */
#define NAME(what) flat_##what
#define STRUCTURE flat
#define TITLE "flat"
#define STAGED 0
#define SLACK(count) ((count) >> 4)
#define NARROW 0
#define AVX2 0
#define TARGET
#include "flat.inc"

/* Searches in stages, so that a whole batch waits for memory together; levels that have moved since
   are looked for near by. */
#define NAME(what) flat_staged_##what
#define STRUCTURE flat_staged
#define TITLE "flat staged"
#define STAGED 1
#define SLACK(count) ((count) >> 4)
#define NARROW 0
#define AVX2 0
#define TARGET
#include "flat.inc"

/* More holes, as many as the memory limit lets be. */
#define NAME(what) flat_slack_##what
#define STRUCTURE flat_slack
#define TITLE "flat staged 11%"
#define STAGED 1
#define SLACK(count) ((count) * 7 >> 6)
#define NARROW 0
#define AVX2 0
#define TARGET
#include "flat.inc"

/* Quantities in ten bytes; what that saves goes into holes. */
#define NAME(what) flat_narrow_##what
#define STRUCTURE flat_narrow
#define TITLE "flat staged narrow 25%"
#define STAGED 1
#define SLACK(count) ((count) >> 2)
#define NARROW 1
#define AVX2 0
#define TARGET
#include "flat.inc"

#if HAVE_AVX2
/* The last 64 keys compared at once. */
#define NAME(what) flat_rank_avx2_##what
#define STRUCTURE flat_rank_avx2
#define TITLE "flat staged AVX2"
#define STAGED 1
#define SLACK(count) ((count) >> 4)
#define NARROW 0
#define AVX2 1
#define TARGET WITH_AVX2
#include "flat.inc"
#endif
