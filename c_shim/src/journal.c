#define _GNU_SOURCE
#include "journal.h"

#include <string.h>
#include <sys/mman.h>

#include "failure.h"

static int open_private(struct mapping *out, struct sidecaml_failure *why) {
    void *base = mmap(NULL, SIDECAML_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return fail_errno(why, "a journal's memory");
    *out = (struct mapping){.base = base, .bytes = SIDECAML_PAGE_BYTES};
    return 0;
}

static int check(const struct sidecaml_journal *journal, struct sidecaml_failure *why) {
    if (memcmp(journal->magic, SIDECAML_JOURNAL_MAGIC, sizeof journal->magic))
        return fail(why, SIDECAML_E_CORRUPT, "the journal is none: no worker has served the channel yet");
    if (journal->abi_version == SIDECAML_ABI_VERSION) return 0;
    return fail(why, SIDECAML_E_ABI_MISMATCH, "the journal has ABI version %u, this worker speaks version %u",
                journal->abi_version, SIDECAML_ABI_VERSION);
}

int journal_open(struct mapping *out, int fd, bool is_there, struct sidecaml_failure *why) {
    int status = fd < 0 ? open_private(out, why) : mapping_open(out, fd, true, true, "the channel's journal", why);
    if (status < 0) return status;
    if (out->bytes < sizeof(struct sidecaml_journal))
        return fail(why, SIDECAML_E_CORRUPT, "a journal has at least %zu bytes, this one %llu",
                    sizeof(struct sidecaml_journal), (unsigned long long)out->bytes);
    struct sidecaml_journal *journal = (void *)out->base;
    if (is_there) return check(journal, why);
    memset(journal, 0, sizeof *journal);
    memcpy(journal->magic, SIDECAML_JOURNAL_MAGIC, sizeof journal->magic);
    journal->abi_version = SIDECAML_ABI_VERSION;
    return 0;
}

void journal_drop_carried(struct sidecaml_journal *journal) {
    uint64_t committed = load64(&journal->committed, relaxed);
    store64(&journal->committed, committed & ~(uint64_t)SIDECAML_CARRIED, release);
}
