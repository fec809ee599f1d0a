/* Where the core's accesses (atomics.h with SIDECAML_INTERLEAVE) and the scenarios' calls become steps. Outside of an
 * exploration, and at places that are not registered, they are plain accesses. */
#include "machine.h"
#include "mutants.h"
#include "system.h"
#include "word.h"

/* --- Called by the core ------------------------------------------------------------------------------------------ */

static uint64_t load(int number, memory_order order) {
    enum place_kind kind = machine.places[number].kind;
    uint64_t *last_word = &machine.threads[running].last_word;
    /* What it saw before it announced itself is believed: the load is not made. */
    if (mutant_is(RECHECK_REMOVED) && kind == WORD && order == memory_order_seq_cst) return *last_word;
    uint64_t value = take_step((struct step){.operation = OP_LOAD, .place = number, .order = mutant_load(kind, order)});
    if (kind == WORD) *last_word = value;
    return value;
}

uint32_t interleave_load32(const _Atomic uint32_t *p, memory_order order) {
    int number = find_place(p);
    return number < 0 ? atomic_load(p) : (uint32_t)load(number, order);
}

uint64_t interleave_load64(const _Atomic uint64_t *p, memory_order order) {
    int number = find_place(p);
    return number < 0 ? atomic_load(p) : load(number, order);
}

static void store(int number, uint64_t value, memory_order order) {
    if (mutant_drops(machine.places[number].kind)) return;
    order = mutant_store(machine.places[number].kind, value, order);
    take_step((struct step){.operation = OP_STORE, .place = number, .value = value, .order = order});
}

void interleave_store32(_Atomic uint32_t *p, uint32_t value, memory_order order) {
    int number = find_place(p);
    if (number < 0)
        atomic_store(p, value);
    else
        store(number, value, order);
}

void interleave_store64(_Atomic uint64_t *p, uint64_t value, memory_order order) {
    int number = find_place(p);
    if (number < 0)
        atomic_store(p, value);
    else
        store(number, value, order);
}

uint32_t interleave_exchange32(_Atomic uint32_t *p, uint32_t value, memory_order order) {
    int number = find_place(p);
    if (number < 0) return atomic_exchange(p, value);
    if (mutant_is(EXCHANGE_DROPPED)) return 1;
    return (uint32_t)take_step(
        (struct step){.operation = OP_EXCHANGE, .place = number, .value = value, .order = order});
}

bool interleave_cas64(_Atomic uint64_t *p, uint64_t *expected, uint64_t desired, memory_order order) {
    int number = find_place(p);
    if (number < 0) return atomic_compare_exchange_strong(p, expected, desired);
    if (mutant_is_blind(desired)) {
        store(number, desired, order);
        return true;
    }
    uint64_t seen = take_step((struct step){.operation = OP_CAS,
                                            .place = number,
                                            .expected = *expected,
                                            .value = desired,
                                            .order = mutant_cas(desired, order)});
    machine.threads[running].last_word = seen;
    if (seen == *expected) return true;
    *expected = seen;
    return false;
}

/* --- Called by scenarios and by the model of the system ---------------------------------------------------------- */

void control_post(int bell) {
    take_step((struct step){.operation = OP_POST, .place = bell});
}

void bell_post(int bell) {
    if (!mutant_is(POST_DROPPED) && !(mutant_is(RESUME_POST_DROPPED) && system_resumes())) control_post(bell);
}

void bell_drain(int bell, uint32_t most) {
    if (!mutant_is(DRAIN_DROPPED)) take_step((struct step){.operation = OP_DRAIN, .place = bell, .value = most});
}

uint32_t bell_sleep(uint32_t mask, int control, bool timed) {
    return (uint32_t)take_step((struct step){.operation = OP_SLEEP, .mask = mask, .control = control, .timed = timed});
}

bool dies_in(void (*life)(void)) {
    if (_setjmp(machine.threads[running].grave) == 0) {
        machine.threads[running].mortal = true;
        life();
        machine.threads[running].mortal = false;
        return false;
    }
    struct thread *thread = &machine.threads[running];
    thread->mortal = thread->died = false;
    return true;
}

bool died_before_publishing(void) {
    const struct step *wish = &machine.threads[running].last_wish;
    return wish->operation == OP_CAS && word_state(wish->value) == SIDECAML_STATE_DONE;
}

int bell_count(int bell) {
    return machine.bells[bell];
}

uint64_t thread_clock(void) {
    return running >= 0 ? machine.threads[running].clock : CLOCK_START;
}

void wait_for_change(void) {
    machine.threads[running].version = machine.version;
    take_step((struct step){.operation = OP_CHANGE});
}

void checkpoint(uint64_t where) {
    machine.threads[running].history = where;
}

void expect(bool holds, const char *what) {
    if (!holds) found(WRONG_ANSWER, what);
}
