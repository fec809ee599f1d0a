/* What a channel's worker notes for its successor: which run was started, and which one succeeded.
 *
 * Only the worker that serves the channel writes here, and a successor reads only once its predecessor is known to be
 * dead: there is never a second thread, and the stores need no order among processors but the one that the dead wrote
 * them in. They are atomic so that none is ever half there, and what must come first is stored with release, so that no
 * compiler moves it:
 *
 *   started     before the engine runs. Later, a run that kills its worker would not be counted. Of a batch it covers a
 *               range of tickets: those between that were given up or refused have words that say so.
 *   committed   after outputs, dims and carried state are written, before the word says DONE. Earlier, a successor
 * would publish what is not there yet. Later, a run that was published would be run again.
 *   failed      for the supervisor, not for a successor: before the word says FAILED, or before the requests of a batch
 *               are run one by one.
 */
#ifndef SIDECAML_JOURNAL_H
#define SIDECAML_JOURNAL_H

#include "atomics.h"
#include "mapping.h"
#include "sidecaml/sidecaml.h"

/* Maps the journal and formats it, or checks the one that is there; `fd` -1 makes a private one. */
int journal_open(struct mapping *out, int fd, bool is_there, struct sidecaml_failure *why);

/* The tickets of one run. */
struct ticket_range {
    uint64_t first;
    uint32_t count; /* 0 for none */
};

static inline bool range_holds(struct ticket_range range, uint64_t ticket) {
    return ticket - range.first < range.count;
}

/* Of the run that was started last. */
static inline struct ticket_range journal_last_run(const struct sidecaml_journal *journal) {
    uint64_t started = load64(&journal->started, relaxed);
    if (!started) return (struct ticket_range){0};
    uint32_t more = (uint32_t)(started >> SIDECAML_ATTEMPTS_BITS) & (SIDECAML_MOST_BATCH - 1);
    return (struct ticket_range){(started >> SIDECAML_STARTED_BITS) - 1, more + 1};
}

void journal_drop_carried(struct sidecaml_journal *journal);

#ifdef SIDECAML_UNCHECKED /* bench/drivers: what do checks cost? */

static inline uint32_t journal_attempts(const struct sidecaml_journal *journal, uint64_t ticket) {
    (void)journal, (void)ticket;
    return 0;
}

static inline void journal_start(struct sidecaml_journal *journal, struct ticket_range run, uint32_t attempts) {
    (void)journal, (void)run, (void)attempts;
}

static inline bool journal_is_committed(const struct sidecaml_journal *journal, uint64_t ticket) {
    (void)journal, (void)ticket;
    return false;
}

static inline void journal_commit(struct sidecaml_journal *journal, uint64_t ticket, uint64_t state) {
    (void)journal, (void)ticket, (void)state;
}

static inline void journal_fail(struct sidecaml_journal *journal, uint64_t ticket) {
    (void)journal, (void)ticket;
}

#else

/* How many runs of the ticket were started. */
static inline uint32_t journal_attempts(const struct sidecaml_journal *journal, uint64_t ticket) {
    uint64_t started = load64(&journal->started, relaxed);
    return range_holds(journal_last_run(journal), ticket) ? (uint32_t)started & SIDECAML_MOST_ATTEMPTS : 0;
}

/* Of at most SIDECAML_MOST_BATCH tickets, each of which was started `attempts` times before. */
static inline void journal_start(struct sidecaml_journal *journal, struct ticket_range run, uint32_t attempts) {
    uint32_t now = attempts < SIDECAML_MOST_ATTEMPTS ? attempts + 1 : SIDECAML_MOST_ATTEMPTS;
    uint64_t more = run.count - 1;
    store64(&journal->started, (run.first + 1) << SIDECAML_STARTED_BITS | more << SIDECAML_ATTEMPTS_BITS | now,
            release);
}

/* Whether the run that was started last holds the ticket, and succeeded. */
static inline bool journal_is_committed(const struct sidecaml_journal *journal, uint64_t ticket) {
    struct ticket_range run = journal_last_run(journal);
    return range_holds(run, ticket) &&
           load64(&journal->committed, relaxed) >> SIDECAML_COMMITTED_BITS == run.first + run.count;
}

static inline void journal_commit(struct sidecaml_journal *journal, uint64_t ticket, uint64_t state) {
    store64(&journal->committed, (ticket + 1) << SIDECAML_COMMITTED_BITS | SIDECAML_CARRIED | (state & SIDECAML_PLACE),
            release);
}

/* Of the run whose last ticket this is. */
static inline void journal_fail(struct sidecaml_journal *journal, uint64_t ticket) {
    store64(&journal->failed, ticket + 1, release);
}

#endif

#endif
