/* Runs the same operations through all structures: `check`, `time` or `size`.

   A stream's file: magic, tick, counts of bids, asks and messages (uint64 each); the snapshot's
   levels; for each message counts of bids and asks (uint32 each) and its changes. */

#define _POSIX_C_SOURCE 200809L

#include "structure.h"

#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#define MAGIC UINT64_C(0x31304b4f4f42464f)
#define TOP 20

static const Structure *const ALL[] = {
    &flat, /* what the others are compared with */
    &flat_staged,
    &flat_slack,
    &flat_narrow,
    &dense,
    &blocks_75,
    &blocks_90,
    &pages,
    &pages_packed,
#if HAVE_AVX2
    &flat_rank_avx2,
    &blocks_avx2_75,
    &blocks_avx2_90,
    &blocks_narrow_avx2,
    &pages_packed_popcount,
#endif
};
#define COUNT (sizeof(ALL) / sizeof(ALL[0]))

typedef struct {
    uint32_t bids, asks;
    const Change *changes;
} Message;

typedef struct {
    uint64_t tick;
    size_t bids, asks, messages;
    const Change *snapshot;
    Message *each;
} Stream;

typedef struct { /* a book in one structure */
    void *bids, *asks;
} Book;

static void fail(const char *what, const char *about)
{
    fprintf(stderr, "%s: %s\n", what, about);
    exit(1);
}

static Stream read_stream(const char *path)
{
    FILE *file = fopen(path, "rb");
    Stream stream = {0};
    char *data, *p;
    long size;
    uint64_t head[5];
    if (file == NULL || fseek(file, 0, SEEK_END) || (size = ftell(file)) < (long)sizeof(head))
        fail("cannot read", path);
    rewind(file);
    data = p = must(malloc((size_t)size));
    if (fread(data, 1, (size_t)size, file) != (size_t)size)
        fail("cannot read", path);
    fclose(file);
    memcpy(head, p, sizeof(head));
    if (head[0] != MAGIC)
        fail("is no stream", path);
    p += sizeof(head);
    stream.tick = head[1];
    stream.bids = head[2];
    stream.asks = head[3];
    stream.messages = head[4];
    stream.snapshot = (const Change *)p;
    p += (stream.bids + stream.asks) * sizeof(Change);
    stream.each = must(malloc((stream.messages + 1) * sizeof(Message)));
    for (size_t i = 0; i < stream.messages; i++) {
        Message *message = &stream.each[i];
        memcpy(&message->bids, p, 4);
        memcpy(&message->asks, p + 4, 4);
        message->changes = (const Change *)(p + 8);
        p += 8 + (message->bids + message->asks) * sizeof(Change);
    }
    if (p != data + size)
        fail("is cut or longer than it says", path);
    return stream;
}

static int compare_levels(const void *left, const void *right)
{
    uint64_t a = ((const Level *)left)->key, b = ((const Level *)right)->key;
    return (a > b) - (a < b);
}

static void *load_side(const Structure *of, const Change *changes, size_t count, uint64_t flip, uint64_t tick)
{
    Level *levels = must(malloc((count + 1) * sizeof(Level)));
    void *side;
    for (size_t i = 0; i < count; i++) {
        levels[i].key = changes[i].price ^ flip;
        levels[i].rest = rest_of(&changes[i]);
    }
    qsort(levels, count, sizeof(Level), compare_levels);
    for (size_t i = 1; i < count; i++)
        if (levels[i].key == levels[i - 1].key)
            fail("the snapshot", "has a price twice");
    side = of->load(levels, count, flip, tick);
    free(levels);
    return side;
}

static Book load_book(const Structure *of, const Stream *stream)
{
    Book book = {
        load_side(of, stream->snapshot, stream->bids, 0, stream->tick),
        load_side(of, stream->snapshot + stream->bids, stream->asks, UINT64_MAX, stream->tick),
    };
    return book;
}

static void release_book(const Structure *of, Book *book)
{
    of->release(book->bids);
    of->release(book->asks);
}

static size_t apply(const Structure *of, Book *book, const Message *message)
{
    const Change *asks = message->changes + message->bids;
    return of->apply(book->bids, message->changes, message->bids) + of->apply(book->asks, asks, message->asks);
}

/* Return all levels of a side, best first, in ascending order if asked. */
static Level *list_side(const Structure *of, const void *side, size_t *count, bool ascending)
{
    Level *levels;
    *count = of->count(side);
    levels = must(malloc((*count + 1) * sizeof(Level)));
    if (of->best(side, *count, levels) != *count)
        fail(of->name, "counts other levels than it has");
    for (size_t i = 0; ascending && i < *count / 2; i++) {
        Level level = levels[i];
        levels[i] = levels[*count - 1 - i];
        levels[*count - 1 - i] = level;
    }
    return levels;
}

static void compare_side(const Structure *of, const void *side, const Level *wanted, size_t count, size_t at)
{
    size_t found;
    Level *levels = list_side(of, side, &found, false);
    char about[96];
    snprintf(about, sizeof(about), "differs from %s after message %zu", ALL[0]->name, at);
    if (found != count || memcmp(levels, wanted, count * sizeof(Level)) != 0)
        fail(of->name, about);
    free(levels);
}

static size_t usable(const Structure **structures, const char *names)
{
    size_t count = 0;
    bool avx2 = false;
#if HAVE_AVX2
    avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
#endif
    for (size_t i = 0; i < COUNT; i++) {
        char quoted[80];
        snprintf(quoted, sizeof(quoted), "/%s/", ALL[i]->name);
        if ((!ALL[i]->needs_avx2 || avx2) && (i == 0 || !*names || strstr(names, quoted)))
            structures[count++] = ALL[i];
    }
    return count;
}

static void write_side(FILE *file, const Level *levels, size_t count)
{
    uint64_t head = count;
    if (fwrite(&head, sizeof(head), 1, file) != 1 || fwrite(levels, sizeof(Level), count, file) != count)
        fail("cannot write", "the levels");
}

/* Compare all structures after every so many messages, and write the levels for others to compare. */
static void check(const Stream *stream, size_t every, const char *path)
{
    const Structure *structures[COUNT];
    size_t count = usable(structures, ""), unknown[COUNT] = {0};
    Book books[COUNT];
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        fail("cannot write", path);
    for (size_t i = 0; i < count; i++)
        books[i] = load_book(structures[i], stream);
    for (size_t at = 0; at <= stream->messages; at++) {
        if (at % every == 0 || at == stream->messages) {
            size_t bids, asks;
            Level *bid_levels = list_side(structures[0], books[0].bids, &bids, false);
            Level *ask_levels = list_side(structures[0], books[0].asks, &asks, false);
            for (size_t i = 1; i < count; i++) {
                compare_side(structures[i], books[i].bids, bid_levels, bids, at);
                compare_side(structures[i], books[i].asks, ask_levels, asks, at);
                if (unknown[i] != unknown[0])
                    fail(structures[i]->name, "counts other unknown deletes");
            }
            write_side(file, bid_levels, bids);
            write_side(file, ask_levels, asks);
            free(bid_levels);
            free(ask_levels);
        }
        for (size_t i = 0; at < stream->messages && i < count; i++)
            unknown[i] += apply(structures[i], &books[i], &stream->each[at]);
    }
    for (size_t i = 0; i < count; i++) {
        printf("%s\t%zu\n", structures[i]->name, unknown[i]);
        release_book(structures[i], &books[i]);
    }
    if (fclose(file))
        fail("cannot write", path);
}

INLINE uint64_t now(void)
{
#if defined(__x86_64__)
    _mm_lfence();
    uint64_t at = __rdtsc();
    _mm_lfence();
    return at;
#else
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
#endif
}

static double read_clock(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

/* Copy levels of a structure's book into another structure. */
static Book copy_book(const Structure *of, const Structure *from, const Book *book, uint64_t tick)
{
    Book copy;
    size_t count;
    Level *levels = list_side(from, book->bids, &count, true);
    copy.bids = of->load(levels, count, 0, tick);
    free(levels);
    levels = list_side(from, book->asks, &count, true);
    copy.asks = of->load(levels, count, UINT64_MAX, tick);
    free(levels);
    return copy;
}

/* Each of many books goes on from its own message; structure by structure take turns, a chunk each.

   A chunk is some sweeps that are not timed, for what the others have left in the caches, and some
   that are: in each sweep every book gets its next message, and then its best levels are read. */
static void time_all(
    const Stream *stream, const char *names, size_t books, size_t worn, size_t untimed, size_t timed, size_t chunks)
{
    const Structure *structures[COUNT];
    size_t count = usable(structures, names), sweep = untimed + timed, most = 0;
    size_t need = worn + sweep * chunks, *starts, *order;
    Book *all, first = load_book(structures[0], stream);
    Change *near;
    uint64_t random = 88172645463325252u, zero = UINT64_MAX, limit;
    double clock_start = read_clock(), per_tick;
    uint64_t tick_start = now();
    if (need > stream->messages)
        fail("the stream", "has too few messages");
    for (size_t i = 0; i < stream->messages; i++)
        if (stream->each[i].bids + stream->each[i].asks > most)
            most = stream->each[i].bids + stream->each[i].asks;
    near = must(malloc((most + 1) * sizeof(Change)));
    all = must(malloc(count * books * sizeof(Book)));
    starts = must(malloc(books * sizeof(size_t)));
    order = must(malloc(books * sizeof(size_t)));
    for (size_t i = 0, at = 0; i < books; i++) {
        starts[i] = books > 1 ? (stream->messages - need) * i / (books - 1) : 0;
        for (; at < starts[i]; at++)
            apply(structures[0], &first, &stream->each[at]);
        for (size_t j = 0; j < count; j++)
            all[j * books + i] = copy_book(structures[j], structures[0], &first, stream->tick);
        order[i] = i;
    }
    for (size_t i = books - 1; i > 0; i--) { /* neighbours in memory are none in time */
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t j = random % (i + 1), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
    for (size_t j = 0; j < count; j++)
        for (size_t i = 0; i < books; i++)
            for (size_t k = 0; k < worn; k++)
                apply(structures[j], &all[j * books + i], &stream->each[starts[i] + k]);
    /* What takes half a millisecond was interrupted: no message is that long. */
    limit = (uint64_t)(5e5 * (double)(now() - tick_start) / (read_clock() - clock_start));
    for (int i = 0; i < 1000; i++) {
        uint64_t start = now(), took = now() - start;
        zero = took < zero ? took : zero;
    }
    for (size_t chunk = 0; chunk < chunks; chunk++)
        for (size_t turn = 0; turn < count; turn++) {
            size_t j = (turn + chunk) % count, changes = 0, messages = 0;
            uint64_t applying = 0, reading = 0;
            const Structure *of = structures[j];
            for (size_t k = 0; k < sweep; k++)
                for (size_t i = 0; i < books; i++) {
                    const Message *given = &stream->each[starts[order[i]] + worn + chunk * sweep + k];
                    Message message = {given->bids, given->asks, near};
                    Book *book = &all[j * books + order[i]];
                    Level best[2 * TOP];
                    /* As if just parsed: the changes are in the nearest cache, the book is not. */
                    memcpy(near, given->changes, (given->bids + given->asks) * sizeof(Change));
                    uint64_t start = now();
                    apply(of, book, &message);
                    uint64_t middle = now();
                    of->best(book->bids, TOP, best);
                    of->best(book->asks, TOP, best + TOP);
                    uint64_t end = now();
                    __asm__ volatile("" : : "r"(best) : "memory");
                    if (k < untimed || end - start > limit)
                        continue;
                    applying += middle - start - zero;
                    reading += end - middle - zero;
                    changes += message.bids + message.asks;
                    messages++;
                }
            printf("%s\t%zu\t%zu\t%zu\t%llu\t%llu\n", of->name, chunk, changes, messages,
                   (unsigned long long)applying, (unsigned long long)reading);
        }
    per_tick = (read_clock() - clock_start) / (double)(now() - tick_start);
    printf("nanoseconds\t%.9f\n", per_tick);
}

/* Print what a book holds when loaded and after all messages. */
static void size_all(const Stream *stream)
{
    const Structure *structures[COUNT];
    size_t count = usable(structures, "");
    for (size_t i = 0; i < count; i++) {
        const Structure *of = structures[i];
        Book book = load_book(of, stream);
        size_t loaded = of->bytes(book.bids) + of->bytes(book.asks), most = loaded, now_held;
        for (size_t at = 0; at < stream->messages; at++) {
            apply(of, &book, &stream->each[at]);
            now_held = of->bytes(book.bids) + of->bytes(book.asks);
            most = now_held > most ? now_held : most;
        }
        printf("%s\t%zu\t%zu\t%zu\t%zu\t%zu\n", of->name, stream->bids + stream->asks, loaded,
               of->count(book.bids) + of->count(book.asks),
               of->bytes(book.bids) + of->bytes(book.asks), most);
        release_book(of, &book);
    }
}

int main(int count, char **arguments)
{
    Stream stream;
    size_t numbers[5];
    if (count < 3)
        fail("usage", "check FILE EVERY OUT | size FILE | time FILE NAMES BOOKS WORN UNTIMED TIMED CHUNKS");
    stream = read_stream(arguments[2]);
    if (!strcmp(arguments[1], "check") && count == 5) {
        check(&stream, strtoul(arguments[3], NULL, 10), arguments[4]);
    } else if (!strcmp(arguments[1], "size") && count == 3) {
        size_all(&stream);
    } else if (!strcmp(arguments[1], "time") && count == 9) {
        for (int i = 0; i < 5; i++)
            numbers[i] = strtoul(arguments[4 + i], NULL, 10);
        time_all(&stream, arguments[3], numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]);
    } else {
        fail("unknown command", arguments[1]);
    }
    return 0;
}
