#define _GNU_SOURCE
#include "seen.h"

#include <stdlib.h>
#include <sys/mman.h>

#define FIRST_ROOM (1 << 16)

/* Open addressing; a key of zeros is an empty place. */
static struct state_key *table;
static uint64_t room, count;

void *new_memory(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    return memory;
}

static bool put(struct state_key *into, uint64_t size, struct state_key key) {
    uint64_t at = key.a & (size - 1);
    while (into[at].a || into[at].b) {
        if (into[at].a == key.a && into[at].b == key.b) return false;
        at = (at + 1) & (size - 1);
    }
    into[at] = key;
    return true;
}

static void resize(uint64_t size) {
    struct state_key *larger = new_memory(size * sizeof *larger);
    for (uint64_t i = 0; i < room; i++)
        if (table[i].a || table[i].b) put(larger, size, table[i]);
    if (table) munmap(table, room * sizeof *table);
    table = larger;
    room = size;
}

void seen_forget(void) {
    if (table) munmap(table, room * sizeof *table);
    table = NULL;
    room = count = 0;
    resize(FIRST_ROOM);
}

bool seen_add(struct state_key key) {
    if (2 * count >= room) resize(4 * room);
    bool is_new = put(table, room, key);
    count += is_new;
    return is_new;
}

uint64_t seen_count(void) {
    return count;
}
