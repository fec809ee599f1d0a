/* A slot's word: ticket and state in one 64-bit number. */
#ifndef SIDECAML_WORD_H
#define SIDECAML_WORD_H

#include <stdint.h>

#include "sidecaml/sidecaml.h"

static inline uint64_t word_of(uint64_t ticket, enum sidecaml_state state) {
    return ticket << SIDECAML_STATE_BITS | (uint64_t)state;
}

static inline uint64_t word_ticket(uint64_t word) {
    return word >> SIDECAML_STATE_BITS;
}

static inline enum sidecaml_state word_state(uint64_t word) {
    return (enum sidecaml_state)(word & SIDECAML_STATE_MASK);
}

/* Whether a request can fail with this status. */
static inline bool is_request_failure(int status) {
    return status <= -SIDECAML_E_WORKER_CRASHED && status >= -SIDECAML_E_DEADLINE;
}

#endif
