#define _GNU_SOURCE
#include "memory.h"

#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>

#include "failure.h"

static uint64_t mapped(uint64_t bytes) {
    return bytes ? bytes : 1; /* there is no empty mapping */
}

int memory_map(uint64_t bytes, enum sharing sharing, void **out, struct sidecaml_failure *why) {
    int flags = (sharing == SHARED ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_POPULATE;
    void *address = mmap(NULL, mapped(bytes), PROT_READ | PROT_WRITE, flags, -1, 0);
    if (address == MAP_FAILED) {
        char what[64];
        snprintf(what, sizeof what, "%llu bytes could not be mapped", (unsigned long long)bytes);
        return fail_errno(why, what);
    }
    *out = address;
    return 0;
}

void memory_unmap(void *address, uint64_t bytes) {
    if (address) munmap(address, mapped(bytes));
}
