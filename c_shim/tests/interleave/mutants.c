#include "mutants.h"

#include "word.h"

static enum mutant chosen;

void mutant_choose(enum mutant mutant) {
    chosen = mutant;
}

bool mutant_is_of_take_over(enum mutant mutant) {
    return mutant >= RESUME_POST_DROPPED && mutant <= COMMITTED_DROPPED;
}

bool mutant_is(enum mutant mutant) {
    return chosen == mutant;
}

static bool is_finished(uint64_t word) {
    return word_state(word) == SIDECAML_STATE_DONE || word_state(word) == SIDECAML_STATE_FAILED;
}

memory_order mutant_load(enum place_kind kind, memory_order order) {
    static const enum mutant weakens[KINDS] = {
        [WORD] = RECHECK_ACQUIRE, [WAITING] = WAITING_LOAD_ACQUIRE, [PARKED] = PARKED_LOAD_ACQUIRE};
    return order == memory_order_seq_cst && chosen == weakens[kind] ? memory_order_acquire : order;
}

bool mutant_forgets(enum place_kind kind, uint64_t value) {
    if (kind != WORD) return false;
    return (chosen == POLL_RELAXED && is_finished(value)) ||
           (chosen == CLAIM_RELAXED && word_state(value) == SIDECAML_STATE_FREE) ||
           (chosen == TAKE_RELAXED && word_state(value) == SIDECAML_STATE_SUBMITTED);
}

static memory_order mutant_word_store(uint64_t word, memory_order order) {
    bool submits = word_state(word) == SIDECAML_STATE_SUBMITTED;
    if (chosen == WORD_STORE_RELEASE && submits) return memory_order_release;
    if (chosen == SUBMIT_RELAXED && submits) return memory_order_relaxed;
    if (chosen == FREE_RELAXED && word_state(word) == SIDECAML_STATE_FREE) return memory_order_relaxed;
    return order;
}

memory_order mutant_store(enum place_kind kind, uint64_t value, memory_order order) {
    if (kind == WORD) return mutant_word_store(value, order);
    enum mutant weakens = kind == WAITING ? WAITING_STORE_RELEASE : PARKED_STORE_RELEASE;
    return order == memory_order_seq_cst && chosen == weakens ? memory_order_release : order;
}

memory_order mutant_cas(uint64_t desired, memory_order order) {
    if (chosen == COMPLETE_ACQ_REL && is_finished(desired)) return memory_order_acq_rel;
    if (chosen == COMPLETE_RELAXED && is_finished(desired)) return memory_order_relaxed;
    if (chosen == TAKE_RELAXED && word_state(desired) == SIDECAML_STATE_RUNNING) return memory_order_relaxed;
    return order;
}

bool mutant_drops(enum place_kind kind) {
    return (kind == STARTED && chosen == STARTED_DROPPED) || (kind == COMMITTED && chosen == COMMITTED_DROPPED);
}

bool mutant_is_blind(uint64_t desired) {
    switch (word_state(desired)) {
    case SIDECAML_STATE_RUNNING:
        return chosen == TAKE_BLIND;
    case SIDECAML_STATE_FREE:
    case SIDECAML_STATE_ABANDONED:
        return chosen == GIVE_UP_BLIND;
    default:
        return chosen == COMPLETE_BLIND;
    }
}

const char *mutant_name(enum mutant mutant) {
    static const char *const names[] = {
        [NO_MUTANT] = "none",
        [WORD_STORE_RELEASE] = "SUBMITTED stored with release",
        [COMPLETE_ACQ_REL] = "exchange to DONE with acq_rel",
        [PARKED_STORE_RELEASE] = "parked stored with release",
        [WAITING_STORE_RELEASE] = "waiting stored with release",
        [PARKED_LOAD_ACQUIRE] = "parked loaded with acquire",
        [WAITING_LOAD_ACQUIRE] = "waiting loaded with acquire",
        [RECHECK_ACQUIRE] = "second look with acquire",
        [RECHECK_REMOVED] = "second look removed",
        [EXCHANGE_DROPPED] = "exchange of waiting dropped",
        [POST_DROPPED] = "post dropped",
        [DRAIN_DROPPED] = "drain dropped",
        [SUBMIT_RELAXED] = "SUBMITTED stored with relaxed",
        [TAKE_RELAXED] = "RUNNING taken with relaxed",
        [COMPLETE_RELAXED] = "exchange to DONE with relaxed",
        [POLL_RELAXED] = "DONE loaded with relaxed",
        [FREE_RELAXED] = "FREE stored with relaxed",
        [CLAIM_RELAXED] = "FREE loaded with relaxed",
        [COMPLETE_BLIND] = "DONE stored blindly",
        [GIVE_UP_BLIND] = "ABANDONED stored blindly",
        [TAKE_BLIND] = "RUNNING stored blindly",
        [RESUME_POST_DROPPED] = "post at take-over dropped",
        [RESUME_FORMATS] = "segment formatted at take-over",
        [STARTED_DROPPED] = "started dropped",
        [COMMITTED_DROPPED] = "committed dropped",
    };
    _Static_assert(sizeof names / sizeof names[0] == MUTANT_COUNT, "every mutant has a name");
    return names[mutant];
}
