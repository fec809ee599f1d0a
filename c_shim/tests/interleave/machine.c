#include "machine.h"

#include <stdlib.h>
#include <string.h>

#include "mutants.h"

struct machine machine;

static bool acquires(memory_order order) {
    return order == memory_order_acquire || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static bool releases(memory_order order) {
    return order == memory_order_release || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

/* --- Places ------------------------------------------------------------------------------------------------------ */

void machine_reset(int thread_count, int most_buffered) {
    memset(&machine, 0, sizeof machine);
    machine.thread_count = thread_count;
    machine.most_buffered = most_buffered;
    machine.version = 1;
    for (int t = 0; t < thread_count; t++) {
        machine.threads[t].clock = CLOCK_START;
        machine.threads[t].knows = KNOWS_ALL;
    }
}

void register_place(const volatile void *address, enum place_kind kind) {
    if (machine.place_count == MOST_PLACES) abort();
    machine.places[machine.place_count++] = (struct cell){.address = address, .kind = kind};
}

int find_place(const volatile void *address) {
    for (int i = 0; running >= 0 && i < machine.place_count; i++)
        if (machine.places[i].address == address) return i;
    return -1;
}

static bool is_wide(enum place_kind kind) {
    return kind == WORD || kind == STARTED || kind == COMMITTED;
}

void machine_settle(void) {
    for (int i = 0; i < machine.place_count; i++) {
        struct cell *place = &machine.places[i];
        place->value = is_wide(place->kind) ? atomic_load((const _Atomic uint64_t *)place->address)
                                            : atomic_load((const _Atomic uint32_t *)place->address);
        place->locked_by = -1;
        place->message = KNOWS_ALL;
    }
}

void machine_store_back(void) {
    for (int i = 0; i < machine.place_count; i++) {
        const struct cell *place = &machine.places[i];
        if (is_wide(place->kind))
            atomic_store((_Atomic uint64_t *)place->address, place->value);
        else
            atomic_store((_Atomic uint32_t *)place->address, (uint32_t)place->value);
    }
}

/* --- Store buffers ----------------------------------------------------------------------------------------------- */

bool machine_may_arrive(int t, int index) {
    const struct thread *thread = &machine.threads[t];
    const struct buffered *store = &thread->buffered[index];
    for (int i = 0; i < index; i++)
        if (store->ordered || thread->buffered[i].place == store->place) return false;
    int locker = machine.places[store->place].locked_by;
    return locker < 0 || locker == t;
}

static bool still_locks(const struct thread *thread, int place) {
    for (int i = 0; i < thread->buffered_count; i++)
        if (thread->buffered[i].locks && thread->buffered[i].place == place) return true;
    return false;
}

void machine_arrive(int t, int index) {
    struct thread *thread = &machine.threads[t];
    struct buffered store = thread->buffered[index];
    struct cell *place = &machine.places[store.place];
    place->value = store.value;
    place->message = store.message;
    thread->buffered_count--;
    memmove(&thread->buffered[index], &thread->buffered[index + 1],
            (size_t)(thread->buffered_count - index) * sizeof store);
    if (store.locks && !still_locks(thread, store.place)) place->locked_by = -1;
    machine.version++;
}

static bool has_seq_cst_under_way(const struct thread *thread) {
    for (int i = 0; i < thread->buffered_count; i++)
        if (thread->buffered[i].seq_cst) return true;
    return false;
}

/* The thread's own latest store to the place, or NULL. */
static const struct buffered *own_latest(const struct thread *thread, int place) {
    for (int i = thread->buffered_count - 1; i >= 0; i--)
        if (thread->buffered[i].place == place) return &thread->buffered[i];
    return NULL;
}

/* A read-modify-write continues the release sequence of the `read` message; NULL for a plain store. */
static void buffer_store(int t, const struct step *step, const knowledge *read) {
    struct thread *thread = &machine.threads[t];
    struct buffered *store = &thread->buffered[thread->buffered_count++];
    *store = (struct buffered){.place = step->place,
                               .value = step->value,
                               .ordered = releases(step->order),
                               .seq_cst = step->order == memory_order_seq_cst,
                               .message = releases(step->order) ? thread->knows : KNOWS_NOTHING};
    if (read) {
        store->message |= *read;
        store->locks = true;
        machine.places[step->place].locked_by = t;
    }
    if (machine.most_buffered == 0) machine_arrive(t, 0);
}

/* --- Steps ------------------------------------------------------------------------------------------------------- */

static uint64_t do_load(int t, const struct step *step) {
    struct thread *thread = &machine.threads[t];
    const struct cell *place = &machine.places[step->place];
    const struct buffered *own = own_latest(thread, step->place);
    if (own) return own->value;
    if (acquires(step->order) && !mutant_forgets(place->kind, place->value)) thread->knows |= place->message;
    return place->value;
}

/* An exchange, or a compare-and-exchange that may fail (an acquire load then); the value found. */
static uint64_t do_modify(int t, const struct step *step) {
    struct thread *thread = &machine.threads[t];
    const struct buffered *own = own_latest(thread, step->place);
    knowledge message = own ? own->message : machine.places[step->place].message;
    uint64_t value = own ? own->value : machine.places[step->place].value;
    bool succeeds = step->operation == OP_EXCHANGE || value == step->expected;
    if (acquires(step->order) || !succeeds) thread->knows |= message;
    if (succeeds) buffer_store(t, step, &message);
    return value;
}

static uint32_t posted(uint32_t mask) {
    uint32_t ready = 0;
    for (int bell = 0; bell < MOST_BELLS; bell++)
        if (mask & 1u << bell && machine.bells[bell] > 0) ready |= 1u << bell;
    return ready;
}

static uint64_t do_sleep(int t, enum way way) {
    uint32_t mask = machine.threads[t].next.mask;
    if (way == BY_CONTROL) return SLEEP_CONTROL;
    if (way == BY_TIME) {
        machine.threads[t].clock = CLOCK_LATER;
        return SLEEP_TIMEOUT;
    }
    for (int bell = 0; bell < MOST_BELLS; bell++)
        if (posted(mask) & 1u << bell) machine.posts_left[bell]--;
    return posted(mask);
}

static void die(struct thread *thread) {
    thread->died = true;
    thread->last_wish = thread->next;
}

uint64_t machine_step(int t, enum way way) {
    if (way == BY_DEATH) {
        die(&machine.threads[t]);
        return 0;
    }
    const struct step *step = &machine.threads[t].next;
    switch (step->operation) {
    case OP_LOAD:
        return do_load(t, step);
    case OP_STORE:
        buffer_store(t, step, NULL);
        return 0;
    case OP_EXCHANGE:
    case OP_CAS:
        return do_modify(t, step);
    case OP_POST:
        machine.bells[step->place]++;
        machine.posts_left[step->place]++;
        machine.version++;
        return 0;
    case OP_DRAIN:
        machine.bells[step->place] -=
            (uint64_t)machine.bells[step->place] < step->value ? machine.bells[step->place] : (int)step->value;
        return 0;
    case OP_SLEEP:
        return do_sleep(t, way);
    default:
        return 0;
    }
}

static bool may_wake(const struct step *step, enum way way) {
    switch (way) {
    case AS_ASKED:
        return posted(step->mask) != 0;
    case BY_CONTROL:
        return step->control >= 0 && machine.bells[step->control] > 0;
    default:
        return step->timed;
    }
}

static bool may_access(const struct thread *thread, int t) {
    const struct step *step = &thread->next;
    bool stores = step->operation != OP_LOAD;
    bool modifies = step->operation == OP_EXCHANGE || step->operation == OP_CAS;
    int locker = machine.places[step->place].locked_by;
    if (stores && machine.most_buffered && thread->buffered_count >= machine.most_buffered) return false;
    if (modifies && locker >= 0 && locker != t) return false;
    bool reads_seq_cst = step->operation != OP_STORE && step->order == memory_order_seq_cst;
    return !reads_seq_cst || !has_seq_cst_under_way(thread);
}

bool machine_may_step(int t, enum way way) {
    const struct thread *thread = &machine.threads[t];
    const struct step *step = &thread->next;
    if (thread->ended) return false;
    /* What it stored before arrives, however it ends: that its death comes after is no loss. */
    if (way == BY_DEATH) return thread->mortal && thread->buffered_count == 0;
    if (step->operation == OP_SLEEP) return may_wake(step, way);
    if (way != AS_ASKED) return false;
    if (step->operation == OP_CHANGE) return thread->version != machine.version;
    return step->operation > OP_CAS || may_access(thread, t);
}

/* --- Payload ----------------------------------------------------------------------------------------------------- */

_Static_assert((1 + MOST_THREADS) * MOST_PAYLOADS <= 64, "knowledge fits its word");

static knowledge bit_of_write(int payload) {
    return UINT64_C(1) << payload * (1 + MOST_THREADS);
}

static knowledge bit_of_read(int payload, int thread) {
    return bit_of_write(payload) << (1 + thread);
}

/* The running thread has done something that nobody else knows of. */
static void only_i_know(knowledge bit) {
    for (int t = 0; t < machine.thread_count; t++) {
        machine.threads[t].knows &= ~bit;
        for (int i = 0; i < machine.threads[t].buffered_count; i++)
            machine.threads[t].buffered[i].message &= ~bit;
    }
    for (int i = 0; i < machine.place_count; i++)
        machine.places[i].message &= ~bit;
    machine.threads[running].knows |= bit;
}

void payload_write(int payload, uint64_t value) {
    knowledge knows = machine.threads[running].knows;
    if (!(knows & bit_of_write(payload))) found(DATA_RACE, "a write races with a write");
    for (int t = 0; t < machine.thread_count; t++)
        if (!(knows & bit_of_read(payload, t))) found(DATA_RACE, "a write races with a read");
    only_i_know(bit_of_write(payload));
    machine.payloads[payload] = value;
}

uint64_t payload_read(int payload) {
    if (!(machine.threads[running].knows & bit_of_write(payload))) found(DATA_RACE, "a read races with a write");
    only_i_know(bit_of_read(payload, running));
    return machine.payloads[payload];
}

/* --- The state as a number --------------------------------------------------------------------------------------- */

static uint64_t hash_thread(uint64_t hash, const struct thread *thread) {
    bool may_go_on = thread->version != machine.version;
    hash = mix(hash, thread->history);
    hash = mix(hash, (uint64_t)thread->mortal << 2 | (uint64_t)thread->ended << 1 | may_go_on);
    hash = mix(hash, (uint64_t)thread->last_wish.operation << 32 ^ thread->last_wish.value);
    hash = mix(hash, (uint64_t)thread->next.operation << 32 | (uint32_t)thread->next.place);
    hash = mix(hash, thread->knows);
    hash = mix(hash, mutant_is(RECHECK_REMOVED) ? thread->last_word : 0);
    hash = mix(hash, thread->clock);
    for (int i = 0; i < thread->buffered_count; i++) {
        const struct buffered *store = &thread->buffered[i];
        hash = mix(hash, (uint64_t)store->place << 8 | store->ordered << 2 | store->seq_cst << 1 | store->locks);
        hash = mix(mix(hash, store->value), store->message);
    }
    return mix(hash, (uint64_t)thread->buffered_count);
}

uint64_t machine_hash(uint64_t hash) {
    for (int i = 0; i < machine.place_count; i++) {
        const struct cell *place = &machine.places[i];
        hash = mix(mix(hash, place->value), (uint64_t)place->locked_by);
        hash = mix(hash, place->message);
    }
    for (int t = 0; t < machine.thread_count; t++)
        hash = hash_thread(hash, &machine.threads[t]);
    for (int i = 0; i < MOST_PAYLOADS; i++)
        hash = mix(hash, machine.payloads[i]);
    for (int i = 0; i < MOST_BELLS; i++)
        hash = mix(hash, (uint64_t)machine.bells[i] << 32 | (uint32_t)machine.posts_left[i]);
    return hash;
}
