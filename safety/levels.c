/* Reads random arrays of levels, sound ones and spoilt ones, by AVX2 and by AVX-512 as _levels.h does,
   and checks that each gives what a plain model says, as far as it should.

   Usage: levels STEPS SEED. Ends with 0 and a line that tells how many levels each variant has read, or
   aborts and tells what failed.

   The message and the memory for its levels lie between pages that may not be touched. */

#include <ctype.h>

#include "_levels.h"
#include "fences.h"

#define MOST_LEVELS 300

static fenced text_memory, level_memory;
static char text[64 * MOST_LEVELS + 512];
static size_t size, begin; /* of the message, and where its first level is */

static void put(const char *what)
{
    size_t length = strlen(what);
    memcpy(text + size, what, length);
    size += length;
}

static void put_digits(ptrdiff_t count)
{
    while (count-- > 0)
        text[size++] = (char)('0' + draw_below(10));
}

/* Write a number: mostly of the common form, of up to so many digits on both sides of its point. */
static void put_number(ptrdiff_t whole, ptrdiff_t decimals)
{
    const char *odd[] = {"", ".", "1.", ".5", "00", "01.5", "0", "0.0", "-1", "1e5", "1.5.5", "1..5",
        "1 ", " 1", "1\\u0030", "1,5", "a", "0x1", "123456789.1", "1.123456789", "12345678.12345678",
        "1234567.12345678", "1234567890123456", "99999999.99999999", "0.00000001", "1.5\xC3\xA9"};
    if (one_in(150)) {
        put(odd[draw_below(sizeof(odd) / sizeof(*odd))]);
        return;
    }
    whole = 1 + draw_below(whole);
    if (one_in(6)) {
        put("0");
    } else {
        text[size++] = (char)('1' + draw_below(9));
        put_digits(whole - 1);
    }
    if (decimals > 0) {
        put(".");
        put_digits(decimals);
    }
}

/* Write a message, or the first part of one. */
static void write_message(void)
{
    const ptrdiff_t levels = one_in(20) ? draw_below(MOST_LEVELS) : draw_below(20);
    const ptrdiff_t whole = 1 + draw_below(one_in(10) ? 10 : 6), decimals = draw_below(one_in(10) ? 10 : 9);
    const ptrdiff_t places = one_in(3) ? 0 : draw_below(9), large = 1 + draw_below(one_in(10) ? 10 : 5);
    const char *ends[] = {"", "}", "}}", ",\"a\":[]}", ",\"a\":[[\"1.0\",\"2.0\"],[\"3.0\",\"4.0\"]]}}"};
    ptrdiff_t i;
    size = 0;
    for (i = draw_below(90); i > 0; i--)
        text[size++] = "\"[],.0a"[draw_below(7)];
    put("[");
    begin = size;
    for (i = 0; i < levels; i++) {
        put(one_in(200) ? "[ \"" : "[\"");
        put_number(whole, decimals);
        put(one_in(300) ? "\", \"" : "\",\"");
        put_number(large, places);
        put(one_in(300) ? "\",\"\"]" : "\"]");
        if (i + 1 < levels)
            put(one_in(300) ? ", " : ",");
    }
    put("]");
    put(ends[draw_below(5)]);
    if (one_in(4) && size > begin)
        text[begin + (size_t)draw_below((ptrdiff_t)(size - begin))] = (char)draw_below(256);
    if (one_in(4))
        size = begin + (size_t)draw_below((ptrdiff_t)(size - begin) + 1);
}

/* Read a number as people do, and what is behind it; tell whether it is sound, and whether each
   variant but the plain one must take it. */
static int model_number(const char **p, const char *end, uint64_t *value, int *decimals, int *common)
{
    const char *first = *p, *at = first;
    int digits = 0;
    *value = 0;
    *decimals = 0;
    for (; at < end && isdigit((unsigned char)*at); at++, digits++)
        *value = *value * 10 + (uint64_t)(*at - '0');
    if (digits == 0 || (*first == '0' && digits > 1))
        return 0;
    if (at < end && *at == '.') {
        for (at++; at < end && isdigit((unsigned char)*at); at++, ++*decimals)
            *value = *value * 10 + (uint64_t)(*at - '0');
        if (*decimals == 0)
            return 0;
    }
    if (at == end || *at != '"' || digits + *decimals > 17 || *decimals > 15)
        return 0;
    *common = at - first <= 16 && digits <= 8 && *decimals <= 8;
    *p = at + 1;
    return 1;
}

/* Read the level at p; tell the same, and where the next one is or the array has ended. */
static int model_level(const char **p, const char *end, obf_change *level, int *common)
{
    const char *at = *p;
    uint64_t quantity;
    int decimals, more, both;
    if (end - at < 2 || memcmp(at, "[\"", 2) != 0)
        return 0;
    at += 2;
    if (!model_number(&at, end, &level->price, &decimals, common))
        return 0;
    if (end - at < 2 || memcmp(at, ",\"", 2) != 0)
        return 0;
    at += 2;
    if (!model_number(&at, end, &quantity, &more, &both))
        return 0;
    *common = *common && both && end - at >= 3;
    if (end - at < 2 || at[0] != ']' || (at[1] != ',' && at[1] != ']'))
        return 0;
    if (at[1] == ',' && (end - at < 3 || at[2] != '['))
        *common = 0;
    if (level->price == 0 || decimals > 8
        || __builtin_mul_overflow(level->price, obf_pow10[8 - decimals], &level->price))
        return 0;
    level->low = quantity;
    level->high = 0;
    level->form = (uint16_t)(decimals | more << 5);
    *p = at + 2;
    return 1;
}

/* Read the message as the core does, and compare each level; return how many were read. */
static ptrdiff_t read_and_check(void)
{
    uint8_t *message = fence(&text_memory, size ? size : 1);
    const uint8_t *p = message + begin, *end = message + size, *next;
    const char *model = (const char *)p, *model_end = (const char *)end;
    ptrdiff_t total = 0, count, room, i;
    obf_quotes quotes;
    memcpy(message, text, size);
    quotes.start = quotes.end = NULL;
    do {
        obf_change *levels;
        count = 0;
        room = one_in(3) ? 1 + draw_below(5) : 1 + draw_below(2 * MOST_LEVELS);
        levels = fence(&level_memory, (size_t)room * sizeof(*levels));
        next = obf_read_levels(&quotes, message, p, end, levels, room, &count);
        require(count >= 0 && count <= room, "more levels than there was room for");
        for (i = 0; i < count; i++) {
            obf_change level;
            int common;
            require(model_level(&model, model_end, &level, &common), "a level that is not sound");
            require(levels[i].price == level.price, "a price is wrong");
            require(levels[i].low == level.low && levels[i].high == 0, "a quantity is wrong");
            require(levels[i].form == level.form, "a form is wrong");
        }
        require((const char *)next == model, "reading ended elsewhere than its last level");
        total += count;
        p = next;
    } while (count == room && p[-1] != ']');
    if (obf_simd && (total == 0 || p[-1] != ']') && begin >= 16) {
        obf_change level;
        int common = 0;
        require(!(model_level(&model, model_end, &level, &common) && common),
            "a level of the common form was left");
    }
    return total;
}

#if OBF_AVX512
/* Check that two at a time are read as far as they can be, and not left to one at a time. */
static void check_two_at_a_time(void)
{
    uint8_t *message = fence(&text_memory, size ? size : 1);
    const uint8_t *p = message + begin, *next;
    const char *model = (const char *)p, *model_end = (const char *)message + size;
    obf_change levels[MOST_LEVELS + 3], level;
    ptrdiff_t count = 0, sound = 0;
    int common = 1;
    memcpy(message, text, size);
    next = obf_read_levels_avx512(message, p, message + size, levels, MOST_LEVELS + 3, &count);
    require(next == p || next[-1] == ']' || next[-1] == ',', "reading ended within a level");
    /* A level that is not read leaves the one before it too, when that is the first of two. */
    while (size >= 64 && model_level(&model, model_end, &level, &common) && common && model[-1] == ',')
        sound++;
    require(count >= sound - 1, "levels of the common form were left");
}
#endif

int main(int argc, char **argv)
{
    long steps = start(argc, argv), levels[3] = {0, 0, 0};
    int widest;
    if (steps == 0)
        return 2;
    widest = obf_simd;
    for (step = 0; step < steps; step++) {
        write_message();
        for (obf_simd = 1; obf_simd <= widest; obf_simd++)
            levels[obf_simd] += read_and_check();
        obf_simd = widest;
#if OBF_AVX512
        if (obf_simd > 1)
            check_two_at_a_time();
#endif
    }
    printf("levels read: %ld by AVX2, %ld by AVX-512\n", levels[1], levels[2]);
    return 0;
}
