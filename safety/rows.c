/* Checks random rows, sound ones and spoilt ones, as _rows.h does in one pass, and by a plain model.

   Usage: rows STEPS SEED. Ends with 0 and a line that tells how many rows one pass was enough for,
   or aborts and tells what failed.

   The row lies between pages that may not be touched. */

#include "_rows.h"
#include "fences.h"

#define MOST_LEVELS 24

static fenced row_memory;
static uint8_t row[2 * MOST_LEVELS * 80 + 64];
static size_t size;

static void put(int byte)
{
    row[size++] = (uint8_t)byte;
}

/* Write a decimal of up to 31 characters, or rarely more or none. */
static void put_text(void)
{
    const ptrdiff_t most = one_in(8) ? 31 : 1 + draw_below(17);
    const ptrdiff_t length = one_in(400) ? draw_below(40) : 1 + draw_below(most);
    const ptrdiff_t point = one_in(4) ? -1 : 1 + draw_below(length + 1);
    ptrdiff_t i;
    if (length > 31)
        put(0xD9);
    put(length > 31 ? (int)length : 0xA0 | (int)length);
    for (i = 0; i < length; i++)
        put(i == point && i + 1 < length ? '.' : '0' + (int)draw_below(10));
}

static void put_side(void)
{
    const int levels = (int)(one_in(3) ? draw_below(MOST_LEVELS + 1) : draw_below(4));
    int i;
    if (levels > 15 || one_in(200)) {
        put(0xDC);
        put(0);
        put(levels);
    }
    else
        put(0x90 | levels);
    for (i = 0; i < levels; i++) {
        put(0x92);
        put_text();
        put_text();
    }
}

/* Write a number, as a rule in its smallest form. */
static void put_number(void)
{
    const uint64_t number = draw() >> draw_below(64);
    const int width = number < 0x80 ? -1 : number < 0x100 ? 0 : number < 0x10000 ? 1
        : number < 0x100000000u ? 2 : 3;
    const int form = one_in(100) ? (int)draw_below(4) : width;
    int i;
    if (form < 0) {
        put((int)number);
        return;
    }
    put(0xCC + form);
    for (i = (8 << form) - 8; i >= 0; i -= 8)
        put((int)(number >> i & 0xFF));
}

static void write_row(void)
{
    const char usual[] = "./09:\x90\x92\x94\xA0\xA1\xBF\xCC\xCF\xD3\xDC";
    size = 0;
    put(0x94);
    put_side();
    put_side();
    put_number();
    put_number();
    if (one_in(3))
        row[draw_below((ptrdiff_t)size)] = (uint8_t)(
            one_in(2) ? draw_below(256) : usual[draw_below(sizeof(usual) - 1)]);
    if (one_in(8))
        size = (size_t)draw_below((ptrdiff_t)size + 1);
    if (one_in(50))
        put((int)draw_below(256));
}

/* Return the byte at *at, and go on; where the row has ended, one that nothing begins with. */
static int take(size_t *at)
{
    return *at < size ? row[(*at)++] : 0xC1;
}

static int model_text(size_t *at)
{
    const int length = take(at) - 0xA0;
    int points = 0, i;
    if (length < 1 || length > 31)
        return 0;
    for (i = 0; i < length; i++) {
        const int c = take(at);
        points += c == '.';
        if ((c < '0' || c > '9') && (c != '.' || points > 1 || i == 0 || i == length - 1))
            return 0;
    }
    return 1;
}

static int model_side(size_t *at, obf_row_side *side, const uint8_t *memory)
{
    int count = take(at), i;
    if (count == 0xDC) {
        count = take(at) << 8;
        count |= take(at);
        if (count < 16)
            return 0;
    }
    else if (count >= 0x90 && count <= 0x9F)
        count -= 0x90;
    else
        return 0;
    side->start = memory + *at;
    side->count = count;
    for (i = 0; i < count; i++)
        if (take(at) != 0x92 || !model_text(at) || !model_text(at))
            return 0;
    return 1;
}

static int model_number(size_t *at, uint64_t *number)
{
    const uint64_t least[] = {0x80, 0x100, 0x10000, 0x100000000u};
    const int head = take(at);
    int i;
    *number = (uint64_t)head;
    if (head < 0x80)
        return 1;
    if (head < 0xCC || head > 0xCF || size - *at < (size_t)1 << (head - 0xCC))
        return 0;
    *number = 0;
    for (i = 0; i < 1 << (head - 0xCC); i++)
        *number = *number << 8 | (uint64_t)take(at);
    return *number >= least[head - 0xCC];
}

/* Check the row both ways; return whether it is to be kept. */
static int check(void)
{
    uint8_t *memory = fence(&row_memory, size ? size : 1);
    obf_row found, model;
    uint64_t timestamp = 0;
    size_t at = 0;
    int keeps, kept;
    memset(&found, 0, sizeof(found));
    memcpy(memory, row, size);
    keeps = obf_check_row(memory, memory + size, &found);
    kept = take(&at) == 0x94 && model_side(&at, &model.bids, memory)
        && model_side(&at, &model.asks, memory) && model_number(&at, &model.update_id)
        && model_number(&at, &timestamp) && at == size && timestamp <= INT64_MAX;
    require(keeps <= kept, "a row was kept that is not to be kept");
    require(keeps == kept, "a row was left that is to be kept");
    if (!kept)
        return 0;
    require(found.bids.start == model.bids.start && found.bids.count == model.bids.count
        && found.asks.start == model.asks.start && found.asks.count == model.asks.count,
        "the sides are wrong");
    require(found.update_id == model.update_id && (uint64_t)found.timestamp == timestamp,
        "a number is wrong");
    return 1;
}

int main(int argc, char **argv)
{
    long steps = start(argc, argv), kept = 0;
    if (steps == 0)
        return 2;
    for (step = 0; step < steps; step++) {
        write_row();
        kept += check();
    }
    printf("rows judged: %ld by one pass, %ld by the long way\n", kept, steps - kept);
    return 0;
}
