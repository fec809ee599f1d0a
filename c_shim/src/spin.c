#define _GNU_SOURCE
#include "spin.h"

#include <sched.h>

/* Of what is expected, how much the latest wait counts: one in so many parts. */
#define LATEST_PART 4
/* A wait counts as no longer than this: a single long one among short ones is no other pace, and after any pause a few
 * short ones are a pace again. */
#define LEARNED_MOST_NS (2 * (uint64_t)SPIN_LONGEST_NS)

void spinner_init(struct spinner *spinner, enum sidecaml_policy policy) {
    *spinner = (struct spinner){.policy = policy};
    if (policy == SIDECAML_ADAPTIVE) cores_read(&spinner->cores, "");
}

/* --- Who may ----------------------------------------------------------------------------------------------------- */

bool spinner_may(const struct spinner *spinner, struct company company) {
    if (spinner->policy != SIDECAML_ADAPTIVE) return spinner->policy == SIDECAML_SPIN;
    if (company.peer_core && company.peer_core == current_core()) return false;
    /* Whoever waits has a peer, or it would wait for nothing: two at least. */
    uint32_t crowd = company.crowd < 2 ? 2 : company.crowd;
    return crowd <= cores_together(&spinner->cores, company.cores, company.peer_core);
}

/* --- For how long ------------------------------------------------------------------------------------------------ */

static uint64_t length_for(uint64_t expected_ns) {
    uint64_t length = expected_ns * SPIN_PATIENCE;
    if (length < SPIN_SHORTEST_NS) return SPIN_SHORTEST_NS;
    return length < SPIN_LONGEST_NS ? length : SPIN_LONGEST_NS;
}

/* Credit is time: what is owed counts as paid back SPIN_SHARE times later, and no earlier than all credit is there. */
static uint64_t owed_until(const struct spinner *spinner, uint64_t now_ns) {
    uint64_t credit = SPIN_CREDIT_NS * SPIN_SHARE;
    uint64_t full = now_ns > credit ? now_ns - credit : 0;
    return spinner->paid_back_at > full ? spinner->paid_back_at : full;
}

static bool can_afford(const struct spinner *spinner, uint64_t now_ns, uint64_t length) {
    return owed_until(spinner, now_ns) + (spinner->spun_ns + length) * SPIN_SHARE <= now_ns;
}

static bool pays(const struct spinner *spinner) {
    return spinner->expected_ns <= SPIN_LONGEST_NS;
}

bool spinner_expects(const struct spinner *spinner, struct company company) {
    return spinner->policy != SIDECAML_ADAPTIVE || (pays(spinner) && spinner_may(spinner, company));
}

uint64_t spinner_budget(struct spinner *spinner, uint64_t now_ns, struct company company) {
    if (spinner->policy == SIDECAML_SPIN) return SPIN_CHUNK_NS;
    spinner->tries = false;
    if (!spinner_may(spinner, company)) return 0;
    if (!pays(spinner) && ++spinner->waits % SPIN_RETRY_EVERY) return 0;
    spinner->tries = !pays(spinner);
    uint64_t length = length_for(spinner->expected_ns);
    if (!can_afford(spinner, now_ns, length)) return 0;
    spinner->spins++;
    return length;
}

void spinner_spun(struct spinner *spinner, uint64_t length, uint64_t elapsed_ns) {
    spinner->spun_ns += elapsed_ns < length ? elapsed_ns : length;
}

void spinner_sleeps(struct spinner *spinner, uint64_t now_ns) {
    if (!spinner->spun_ns) return;
    spinner->paid_back_at = owed_until(spinner, now_ns) + spinner->spun_ns * SPIN_SHARE;
    spinner->spun_ns = 0;
}

/* --- Learning ---------------------------------------------------------------------------------------------------- */

void spinner_learn(struct spinner *spinner, uint64_t waited_ns) {
    spinner->spun_ns = 0;
    if (waited_ns > LEARNED_MOST_NS) waited_ns = LEARNED_MOST_NS;
    if (spinner->tries && waited_ns <= SPIN_LONGEST_NS)
        spinner->expected_ns = waited_ns; /* what was learned from waits that were slept is void */
    else
        spinner->expected_ns += waited_ns / LATEST_PART - spinner->expected_ns / LATEST_PART;
}

void spinner_learn_longer(struct spinner *spinner, uint64_t now_ns, uint64_t waited_ns) {
    spinner_sleeps(spinner, now_ns);
    if (waited_ns > spinner->expected_ns) spinner_learn(spinner, waited_ns);
}

/* --- Processors -------------------------------------------------------------------------------------------------- */

uint32_t current_core(void) {
    int core = sched_getcpu();
    return core < 0 ? 0 : (uint32_t)core + 1;
}

void spin_yield(enum sidecaml_policy policy, uint32_t peer_core) {
    if (policy == SIDECAML_SPIN && peer_core && peer_core == current_core()) sched_yield();
}
