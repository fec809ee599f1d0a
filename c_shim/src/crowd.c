#include "crowd.h"

#include <string.h>

#include "atomics.h"
#include "failure.h"

void crowd_init(struct crowd *crowd) {
    *crowd = (struct crowd){.threads = 1};
    crowd->entry = &crowd->alone;
    crowd_wake(crowd);
}

int crowd_join(struct crowd *crowd, int fd, uint32_t entry, uint32_t threads, struct sidecaml_failure *why) {
    if (entry >= SIDECAML_CROWD_ENTRIES)
        return fail(why, SIDECAML_E_INVALID, "a crowd page has %d entries, there is no number %u",
                    SIDECAML_CROWD_ENTRIES, entry);
    struct mapping mapping;
    int status = mapping_open(&mapping, fd, true, true, "the crowd page", why);
    if (status < 0) return status;
    if (mapping.bytes != sizeof(struct sidecaml_crowd_page)) {
        status = fail(why, SIDECAML_E_CORRUPT, "a crowd page has %zu bytes, this one %llu",
                      sizeof(struct sidecaml_crowd_page), (unsigned long long)mapping.bytes);
        mapping_close(&mapping);
        return status;
    }
    crowd_leave(crowd);
    crowd->mapping = mapping;
    crowd->page = (void *)mapping.base;
    crowd->entry = &crowd->page->entries[entry];
    crowd->threads = threads;
    for (int i = 0; i < CROWD_WORDS; i++)
        store64(&crowd->entry->clients[i], 0, relaxed);
    crowd_wake(crowd);
    return 0;
}

void crowd_leave(struct crowd *crowd) {
    if (!crowd->page) return;
    crowd_sleep(crowd);
    mapping_close(&crowd->mapping);
    crowd->page = NULL;
    crowd->entry = &crowd->alone;
}

void crowd_sleep(struct crowd *crowd) {
    store32(&crowd->entry->threads, 0, relaxed); /* who sees it late spins less than it might */
}

void crowd_wake(struct crowd *crowd) {
    store32(&crowd->entry->threads, crowd->threads, seq_cst); /* AWAKE */
    crowd->counted_ns = 0;
}

/* --- Clients ----------------------------------------------------------------------------------------------------- */

static void tell_clients(struct crowd *crowd) {
    for (int i = 0; i < CROWD_WORDS; i++) {
        uint64_t clients = crowd->clients[i] | crowd->earlier[i];
        if (load64(&crowd->entry->clients[i], relaxed) != clients) store64(&crowd->entry->clients[i], clients, relaxed);
    }
}

/* True when a new epoch has begun. */
static bool turn_epoch(struct crowd *crowd, uint64_t now_ns) {
    uint64_t epoch = crowd_epoch(now_ns);
    if (epoch <= crowd->epoch) return false; /* a clock may be a tick behind another */
    if (epoch == crowd->epoch + 1)
        memcpy(crowd->earlier, crowd->clients, sizeof crowd->earlier);
    else
        memset(crowd->earlier, 0, sizeof crowd->earlier);
    memset(crowd->clients, 0, sizeof crowd->clients);
    crowd->epoch = epoch;
    return true;
}

void crowd_meet(struct crowd *crowd, uint64_t now_ns, uint32_t client) {
    turn_epoch(crowd, now_ns);
    client %= CROWD_CLIENTS;
    crowd->clients[client / 64] |= UINT64_C(1) << client % 64;
    tell_clients(crowd);
    crowd->counted_ns = 0;
}

/* --- The count --------------------------------------------------------------------------------------------------- */

/* Adds what an entry tells; its threads. */
static uint32_t count_entry(const struct sidecaml_crowd_entry *entry, uint64_t clients[CROWD_WORDS]) {
    uint32_t threads = load32(&entry->threads, seq_cst); /* AWAKE */
    for (int i = 0; threads && i < CROWD_WORDS; i++)
        clients[i] |= load64(&entry->clients[i], relaxed);
    return threads;
}

static uint32_t count_all(const struct crowd *crowd) {
    uint64_t clients[CROWD_WORDS] = {0};
    uint32_t used = crowd->page ? load32(&crowd->page->used, relaxed) : 0;
    if (used > SIDECAML_CROWD_ENTRIES) used = SIDECAML_CROWD_ENTRIES;
    uint64_t count = count_entry(crowd->entry, clients);
    for (uint32_t i = 0; i < used; i++)
        if (&crowd->page->entries[i] != crowd->entry) count += count_entry(&crowd->page->entries[i], clients);
    for (int i = 0; i < CROWD_WORDS; i++)
        count += (uint32_t)__builtin_popcountll(clients[i]);
    return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

uint32_t crowd_count(struct crowd *crowd, uint64_t now_ns) {
    if (crowd->counted_ns && now_ns - crowd->counted_ns < CROWD_LOOK_NS) return crowd->count;
    if (turn_epoch(crowd, now_ns)) tell_clients(crowd);
    crowd->counted_ns = now_ns;
    crowd->count = count_all(crowd);
    return crowd->count;
}
