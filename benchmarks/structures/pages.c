/* Pages of 64 ticks with a bitmap; pages.inc is compiled once for each variant. */

#include "ticks.h"

#define NAME(what) pages_##what
#define STRUCTURE pages
#define TITLE "pages"
#define PACKED 0
#define AVX2 0
#define TARGET
#include "pages.inc"

#define NAME(what) pages_packed_##what
#define STRUCTURE pages_packed
#define TITLE "pages packed"
#define PACKED 1
#define AVX2 0
#define TARGET
#include "pages.inc"

#if HAVE_AVX2
/* The same with instructions that count bits. */
#define NAME(what) pages_packed_popcount_##what
#define STRUCTURE pages_packed_popcount
#define TITLE "pages packed POPCNT"
#define PACKED 1
#define AVX2 1
#define TARGET WITH_AVX2
#include "pages.inc"
#endif
