/* Blocks of 64 slots with holes; blocks.inc is compiled once for each variant.

   FILL is how many of its slots a block gets at loading, the others being holes. */

#include "structure.h"

#define NAME(what) blocks_75_##what
#define STRUCTURE blocks_75
#define TITLE "blocks 75%"
#define FILL 48
#define NARROW 0
#define AVX2 0
#define TARGET
#include "blocks.inc"

#define NAME(what) blocks_90_##what
#define STRUCTURE blocks_90
#define TITLE "blocks 90%"
#define FILL 58
#define NARROW 0
#define AVX2 0
#define TARGET
#include "blocks.inc"

#if HAVE_AVX2
#define NAME(what) blocks_avx2_75_##what
#define STRUCTURE blocks_avx2_75
#define TITLE "blocks 75% AVX2"
#define FILL 48
#define NARROW 0
#define AVX2 1
#define TARGET WITH_AVX2
#include "blocks.inc"

#define NAME(what) blocks_avx2_90_##what
#define STRUCTURE blocks_avx2_90
#define TITLE "blocks 90% AVX2"
#define FILL 58
#define NARROW 0
#define AVX2 1
#define TARGET WITH_AVX2
#include "blocks.inc"

/* Quantities in ten bytes. */
#define NAME(what) blocks_narrow_avx2_##what
#define STRUCTURE blocks_narrow_avx2
#define TITLE "blocks 75% AVX2 narrow"
#define FILL 48
#define NARROW 1
#define AVX2 1
#define TARGET WITH_AVX2
#include "blocks.inc"
#endif
