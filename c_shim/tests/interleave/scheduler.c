#define _GNU_SOURCE
#include "scheduler.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "word.h"

#define MOST_PLACES 16
#define MOST_BUFFERED 8
#define MOST_STEPS 400
#define STACK_BYTES 65536
#define RED_ZONE 128 /* what a function may use below its stack pointer */
#define MOST_REGIONS 24

static const char *const finding_names[] = {"nothing",      "lost wake-up", "data race",
                                            "wrong answer", "endless loop", "stale doorbell"};
const char *finding_name(enum finding finding) {
    return finding_names[finding];
}

/* --- State ------------------------------------------------------------------------------------------------------- */

/* What a thread knows to lie before it: for each payload place a bit for its last write and one for each thread's last
 * read of it. Vector clocks in a form that is the same for the same state. */
typedef uint64_t knowledge;
#define KNOWS_ALL UINT64_MAX
#define KNOWS_NOTHING UINT64_C(0)

struct place {
    const volatile void *address;
    enum place_kind kind;
    uint64_t value;
    knowledge message; /* what an acquire of the value learns */
    int locked_by;     /* thread with a read-modify-write on its way here; -1 for none */
};

struct buffered {
    int place;
    uint64_t value;
    bool ordered; /* release or stronger: arrives after everything before it */
    bool seq_cst;
    bool locks; /* of a read-modify-write */
    knowledge message;
};

enum operation { OP_NONE, OP_LOAD, OP_STORE, OP_EXCHANGE, OP_CAS, OP_POST, OP_DRAIN, OP_SLEEP, OP_CHANGE };

struct step {
    enum operation operation;
    int place; /* or doorbell */
    uint64_t value, expected;
    memory_order order;
    uint32_t mask;
    int control;
    bool timed;
};

struct thread {
    ucontext_t start;
    jmp_buf resume;
    char *stack_used; /* down to here, between two steps */
    bool started, ended;
    struct step next;   /* what it wants to do */
    uint64_t result;    /* of the step, for the thread */
    uint64_t history;   /* hash of every result so far */
    uint64_t last_word; /* read from a slot's word, for RECHECK_REMOVED */
    unsigned version;   /* of the shared state, when it began to wait for a change */
    uint64_t clock;
    knowledge knows;
    int buffered_count;
    struct buffered buffered[MOST_BUFFERED];
};

struct region {
    void *at;
    size_t bytes;
};

static struct region regions[MOST_REGIONS];
static int region_count;
static struct place places[MOST_PLACES];
static int place_count;
static struct thread threads[MOST_THREADS];
static int thread_count;
static int running; /* the thread inside its coroutine; -1 outside */
static uint64_t payloads[MOST_PAYLOADS];
static int bells[MOST_BELLS];
static int posts_left[MOST_BELLS]; /* posts that have not ended a sleep yet */
static unsigned version;           /* grows with whatever another thread might wait for */
static enum mutant mutant;
static const struct scenario *current;
static struct exploration *result;
static jmp_buf scheduler;
static char *stacks;

static bool exploring(void) {
    return running >= 0;
}

static void found(enum finding finding, const char *what) {
    if (result->finding == NOTHING_FOUND) {
        result->finding = finding;
        snprintf(result->what, sizeof result->what, "%s", what);
    }
}

/* --- The trace of the schedule, for people ----------------------------------------------------------------------- */

static struct event {
    int thread, place; /* -1: no place */
    const char *what;
    bool seq_cst;
    uint64_t value;
} trace[MOST_STEPS];
static int trace_length;

static const char *const operation_names[] = {"",     "load",  "store", "exchange",       "compare-and-exchange",
                                              "post", "drain", "sleep", "wait for change"};
static const char *const place_names[] = {"word", "waiting", "parked"};

static void note(struct event event) {
    if (trace_length < MOST_STEPS) trace[trace_length++] = event;
}

void print_found_schedule(void) {
    for (int i = 0; i < trace_length; i++) {
        const struct event *event = &trace[i];
        printf("    thread %d  %s%s", event->thread, event->what, event->seq_cst ? " seq_cst" : "");
        if (event->place < 0)
            printf(" -> %" PRIx64 "\n", event->value);
        else if (places[event->place].kind == WORD)
            printf(" %s#%d: ticket %" PRIu64 ", state %d\n", place_names[WORD], event->place, word_ticket(event->value),
                   (int)word_state(event->value));
        else
            printf(" %s#%d: %" PRIu64 "\n", place_names[places[event->place].kind], event->place, event->value);
    }
}

/* --- Orders ------------------------------------------------------------------------------------------------------ */

static bool acquires(memory_order order) {
    return order == memory_order_acquire || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static bool releases(memory_order order) {
    return order == memory_order_release || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

/* --- Buffers ----------------------------------------------------------------------------------------------------- */

static bool may_arrive(int t, int index) {
    const struct thread *thread = &threads[t];
    const struct buffered *entry = &thread->buffered[index];
    for (int i = 0; i < index; i++)
        if (entry->ordered || thread->buffered[i].place == entry->place) return false;
    int locker = places[entry->place].locked_by;
    return locker < 0 || locker == t;
}

static void arrive(int t, int index) {
    struct thread *thread = &threads[t];
    struct buffered entry = thread->buffered[index];
    places[entry.place].value = entry.value;
    places[entry.place].message = entry.message;
    thread->buffered_count--;
    memmove(&thread->buffered[index], &thread->buffered[index + 1],
            (size_t)(thread->buffered_count - index) * sizeof entry);
    if (entry.locks) {
        bool more = false;
        for (int i = 0; i < thread->buffered_count; i++)
            more = more || (thread->buffered[i].locks && thread->buffered[i].place == entry.place);
        if (!more) places[entry.place].locked_by = -1;
    }
    version++;
    note((struct event){.thread = t, .what = "    arrived", .place = entry.place, .value = entry.value});
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

static void buffer_store(int t, int place, uint64_t value, memory_order order, const knowledge *sequence) {
    struct thread *thread = &threads[t];
    struct buffered *entry = &thread->buffered[thread->buffered_count++];
    *entry = (struct buffered){.place = place, .value = value, .ordered = releases(order)};
    entry->seq_cst = order == memory_order_seq_cst;
    entry->message = releases(order) ? thread->knows : KNOWS_NOTHING;
    if (sequence) { /* a read-modify-write continues the release sequence of what it read */
        entry->message |= *sequence;
        entry->locks = true;
        places[place].locked_by = t;
    }
    if (current->most_buffered == 0) arrive(t, 0);
}

/* --- Doing a step ------------------------------------------------------------------------------------------------ */

static uint64_t do_load(int t, const struct step *step) {
    struct thread *thread = &threads[t];
    const struct buffered *own = own_latest(thread, step->place);
    if (own) return own->value;
    if (acquires(step->order)) thread->knows |= places[step->place].message;
    return places[step->place].value;
}

/* Reads the latest value for a read-modify-write, and the message it carries. */
static uint64_t read_latest(int t, const struct step *step, knowledge *message) {
    struct thread *thread = &threads[t];
    const struct buffered *own = own_latest(thread, step->place);
    *message = own ? own->message : places[step->place].message;
    if (acquires(step->order)) thread->knows |= *message;
    return own ? own->value : places[step->place].value;
}

static uint64_t do_exchange(int t, const struct step *step) {
    knowledge message;
    uint64_t old = read_latest(t, step, &message);
    buffer_store(t, step->place, step->value, step->order, &message);
    return old;
}

/* The value found; the thread compares again. A failure is an acquire load. */
static uint64_t do_cas(int t, const struct step *step) {
    knowledge message;
    uint64_t old = read_latest(t, step, &message);
    if (old == step->expected) {
        buffer_store(t, step->place, step->value, step->order, &message);
    } else if (step->order != memory_order_relaxed) {
        threads[t].knows |= message;
    }
    return old;
}

static void do_drain(const struct step *step) {
    int taken = (uint64_t)bells[step->place] < step->value ? bells[step->place] : (int)step->value;
    bells[step->place] -= taken;
}

static uint32_t posted(uint32_t mask) {
    uint32_t ready = 0;
    for (int bell = 0; bell < MOST_BELLS; bell++)
        if (mask & 1u << bell && bells[bell] > 0) ready |= 1u << bell;
    return ready;
}

/* `choice` tells apart how a sleep ends. */
static uint64_t do_step(int t, int choice) {
    struct thread *thread = &threads[t];
    const struct step *step = &thread->next;
    switch (step->operation) {
    case OP_LOAD:
        return do_load(t, step);
    case OP_STORE:
        buffer_store(t, step->place, step->value, step->order, NULL);
        return 0;
    case OP_EXCHANGE:
        return do_exchange(t, step);
    case OP_CAS:
        return do_cas(t, step);
    case OP_POST:
        bells[step->place]++;
        posts_left[step->place]++;
        version++;
        return 0;
    case OP_DRAIN:
        do_drain(step);
        return 0;
    case OP_SLEEP:
        if (choice == 1) return SLEEP_CONTROL;
        if (choice == 2) {
            thread->clock = CLOCK_LATER;
            return SLEEP_TIMEOUT;
        }
        for (int bell = 0; bell < MOST_BELLS; bell++)
            if (posted(step->mask) & 1u << bell) posts_left[bell]--;
        return posted(step->mask);
    default:
        return 0;
    }
}

/* Whether the step can be done now, for the given choice. */
static bool is_enabled(int t, int choice) {
    const struct thread *thread = &threads[t];
    const struct step *step = &thread->next;
    if (thread->ended) return false;
    if (step->operation == OP_SLEEP) {
        if (choice == 0) return posted(step->mask) != 0;
        if (choice == 1) return step->control >= 0 && bells[step->control] > 0;
        return step->timed;
    }
    if (choice != 0) return false;
    bool stores = step->operation >= OP_STORE && step->operation <= OP_CAS;
    if (stores && current->most_buffered && thread->buffered_count >= current->most_buffered) return false;
    bool modifies = step->operation == OP_EXCHANGE || step->operation == OP_CAS;
    if (modifies && places[step->place].locked_by >= 0 && places[step->place].locked_by != t) return false;
    if ((modifies || step->operation == OP_LOAD) && step->order == memory_order_seq_cst &&
        has_seq_cst_under_way(thread))
        return false;
    if (step->operation == OP_CHANGE) return thread->version != version;
    return true;
}

/* --- Coroutines -------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, uint64_t value) {
    hash ^= value + 0x9e3779b97f4a7c15u + (hash << 12) + (hash >> 4);
    hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9u;
    return hash ^ hash >> 27;
}

/* Called by a thread: says what it wants to do next, and comes back when that was done. */
static uint64_t take_step(struct step step) {
    struct thread *thread = &threads[running];
    thread->next = step;
    thread->stack_used = __builtin_frame_address(0);
    if (_setjmp(thread->resume) == 0) _longjmp(scheduler, 1);
    thread->history = mix(thread->history, thread->result + 1);
    return thread->result;
}

static void run_thread(void) {
    current->threads[running]();
    threads[running].ended = true;
    _longjmp(scheduler, 1);
}

/* Lets thread `t` run up to its next step. */
static void resume(int t) {
    running = t;
    if (_setjmp(scheduler) == 0) {
        if (threads[t].started) _longjmp(threads[t].resume, 1);
        threads[t].started = true;
        setcontext(&threads[t].start);
    }
    running = -1;
}

static void advance_once(int t, int choice) {
    struct thread *thread = &threads[t];
    const struct step *step = &thread->next;
    bool at_place = step->operation >= OP_LOAD && step->operation <= OP_CAS;
    thread->result = do_step(t, choice);
    note((struct event){.thread = t,
                        .what = operation_names[step->operation],
                        .seq_cst = at_place && step->order == memory_order_seq_cst,
                        .place = at_place ? step->place : -1,
                        .value = step->operation == OP_STORE ? step->value : thread->result});
    resume(t);
}

/* A store enters its thread's own buffer, which no other thread can tell: it is no choice, but follows at once. */
static void advance_stores(int t) {
    if (current->most_buffered == 0) return;
    while (result->finding == NOTHING_FOUND && threads[t].next.operation == OP_STORE && is_enabled(t, 0))
        advance_once(t, 0);
}

static void advance(int t, int choice) {
    advance_once(t, choice);
    advance_stores(t);
}

/* --- Called by the core ------------------------------------------------------------------------------------------ */

void register_place(const volatile void *address, enum place_kind kind) {
    if (place_count == MOST_PLACES) abort();
    places[place_count++] = (struct place){.address = address, .kind = kind};
}

void register_region(void *at, size_t bytes) {
    if (region_count == MOST_REGIONS) abort();
    regions[region_count++] = (struct region){at, bytes};
}

static int find_place(const volatile void *address) {
    for (int i = 0; i < place_count; i++)
        if (places[i].address == address) return i;
    return -1;
}

static bool is_at(int place, enum place_kind kind) {
    return places[place].kind == kind;
}

static memory_order mutate_load(int place, memory_order order) {
    bool seq_cst = order == memory_order_seq_cst;
    if (mutant == PARKED_LOAD_ACQUIRE && is_at(place, PARKED) && seq_cst) return memory_order_acquire;
    if (mutant == WAITING_LOAD_ACQUIRE && is_at(place, WAITING) && seq_cst) return memory_order_acquire;
    if (mutant == RECHECK_ACQUIRE && is_at(place, WORD) && seq_cst) return memory_order_acquire;
    return order;
}

/* Of the word that was read: which of the loads it is shows only there. */
static memory_order mutate_word_load(uint64_t value, memory_order order) {
    enum sidecaml_state state = word_state(value);
    bool finished = state == SIDECAML_STATE_DONE || state == SIDECAML_STATE_FAILED;
    if (mutant == POLL_RELAXED && finished) return memory_order_relaxed;
    if (mutant == CLAIM_RELAXED && state == SIDECAML_STATE_FREE) return memory_order_relaxed;
    if (mutant == TAKE_RELAXED && state == SIDECAML_STATE_SUBMITTED) return memory_order_relaxed;
    return order;
}

static memory_order mutate_store(int place, uint64_t value, memory_order order) {
    if (is_at(place, WORD)) {
        bool submits = word_state(value) == SIDECAML_STATE_SUBMITTED;
        if (mutant == WORD_STORE_RELEASE && submits) return memory_order_release;
        if (mutant == SUBMIT_RELAXED && submits) return memory_order_relaxed;
        if (mutant == FREE_RELAXED && word_state(value) == SIDECAML_STATE_FREE) return memory_order_relaxed;
    } else if (order == memory_order_seq_cst) {
        if (mutant == PARKED_STORE_RELEASE && is_at(place, PARKED)) return memory_order_release;
        if (mutant == WAITING_STORE_RELEASE && is_at(place, WAITING)) return memory_order_release;
    }
    return order;
}

static memory_order mutate_cas(uint64_t desired, memory_order order) {
    enum sidecaml_state state = word_state(desired);
    bool finishes = state == SIDECAML_STATE_DONE || state == SIDECAML_STATE_FAILED;
    if (mutant == COMPLETE_ACQ_REL && finishes) return memory_order_acq_rel;
    if (mutant == COMPLETE_RELAXED && finishes) return memory_order_relaxed;
    if (mutant == TAKE_RELAXED && state == SIDECAML_STATE_RUNNING) return memory_order_relaxed;
    return order;
}

static bool is_blind(uint64_t desired) {
    switch (word_state(desired)) {
    case SIDECAML_STATE_DONE:
    case SIDECAML_STATE_FAILED:
        return mutant == COMPLETE_BLIND;
    case SIDECAML_STATE_FREE:
    case SIDECAML_STATE_ABANDONED:
        return mutant == GIVE_UP_BLIND;
    case SIDECAML_STATE_RUNNING:
        return mutant == TAKE_BLIND;
    default:
        return false;
    }
}

static uint64_t load(const volatile void *address, memory_order order, uint64_t plain) {
    int place = exploring() ? find_place(address) : -1;
    if (place < 0) return plain;
    struct thread *thread = &threads[running];
    /* What it saw before it announced itself is believed: the load is not made. */
    if (mutant == RECHECK_REMOVED && is_at(place, WORD) && order == memory_order_seq_cst) return thread->last_word;
    struct step step = {.operation = OP_LOAD, .place = place, .order = mutate_load(place, order)};
    if (is_at(place, WORD) && (mutant == POLL_RELAXED || mutant == CLAIM_RELAXED || mutant == TAKE_RELAXED)) {
        /* Loaded with relaxed, and acquired afterwards if this is none of the weakened loads: `resume` only comes back
         * to this thread, so nothing lies between the two. */
        step.order = order == memory_order_seq_cst ? order : memory_order_relaxed;
        knowledge before = thread->knows;
        uint64_t value = take_step(step);
        if (order == memory_order_seq_cst && mutate_word_load(value, order) == memory_order_relaxed)
            thread->knows = before;
        else if (order != memory_order_relaxed && mutate_word_load(value, order) != memory_order_relaxed)
            thread->knows |= places[place].message;
        return thread->last_word = value;
    }
    uint64_t value = take_step(step);
    if (is_at(place, WORD)) thread->last_word = value;
    return value;
}

uint32_t interleave_load32(const _Atomic uint32_t *p, memory_order order) {
    return (uint32_t)load(p, order, exploring() && find_place(p) >= 0 ? 0 : atomic_load(p));
}

uint64_t interleave_load64(const _Atomic uint64_t *p, memory_order order) {
    return load(p, order, exploring() && find_place(p) >= 0 ? 0 : atomic_load(p));
}

static bool store(const volatile void *address, uint64_t value, memory_order order) {
    int place = exploring() ? find_place(address) : -1;
    if (place < 0) return false;
    take_step((struct step){
        .operation = OP_STORE, .place = place, .value = value, .order = mutate_store(place, value, order)});
    return true;
}

void interleave_store32(_Atomic uint32_t *p, uint32_t value, memory_order order) {
    if (!store(p, value, order)) atomic_store(p, value);
}

void interleave_store64(_Atomic uint64_t *p, uint64_t value, memory_order order) {
    if (!store(p, value, order)) atomic_store(p, value);
}

uint32_t interleave_exchange32(_Atomic uint32_t *p, uint32_t value, memory_order order) {
    int place = exploring() ? find_place(p) : -1;
    if (place < 0) return atomic_exchange(p, value);
    if (mutant == EXCHANGE_DROPPED) return 1;
    return (uint32_t)take_step((struct step){.operation = OP_EXCHANGE, .place = place, .value = value, .order = order});
}

bool interleave_cas64(_Atomic uint64_t *p, uint64_t *expected, uint64_t desired, memory_order order) {
    int place = exploring() ? find_place(p) : -1;
    if (place < 0) return atomic_compare_exchange_strong(p, expected, desired);
    if (is_blind(desired)) {
        store(p, desired, order);
        return true;
    }
    uint64_t seen = take_step((struct step){.operation = OP_CAS,
                                            .place = place,
                                            .expected = *expected,
                                            .value = desired,
                                            .order = mutate_cas(desired, order)});
    threads[running].last_word = seen;
    if (seen == *expected) return true;
    *expected = seen;
    return false;
}

/* --- Called by scenarios and by the model of the system ---------------------------------------------------------- */

void control_post(int bell) {
    take_step((struct step){.operation = OP_POST, .place = bell});
}

void bell_post(int bell) {
    if (mutant == POST_DROPPED) return;
    take_step((struct step){.operation = OP_POST, .place = bell});
}

void bell_drain(int bell, uint32_t most) {
    if (mutant == DRAIN_DROPPED) return;
    take_step((struct step){.operation = OP_DRAIN, .place = bell, .value = most});
}

uint32_t bell_sleep(uint32_t mask, int control, bool timed) {
    return (uint32_t)take_step((struct step){.operation = OP_SLEEP, .mask = mask, .control = control, .timed = timed});
}

int bell_count(int bell) {
    return bells[bell];
}

uint64_t thread_clock(void) {
    return exploring() ? threads[running].clock : CLOCK_START;
}

void wait_for_change(void) {
    threads[running].version = version;
    take_step((struct step){.operation = OP_CHANGE});
}

void expect(bool holds, const char *what) {
    if (holds) return;
    found(WRONG_ANSWER, what);
    if (exploring()) _longjmp(scheduler, 1);
}

static void race(const char *what) {
    found(DATA_RACE, what);
    _longjmp(scheduler, 1);
}

static knowledge bit_of_write(int place) {
    return UINT64_C(1) << place * (1 + MOST_THREADS);
}

static knowledge bit_of_read(int place, int thread) {
    return bit_of_write(place) << (1 + thread);
}

/* The running thread has done something that nobody else knows of. */
static void only_i_know(knowledge bit) {
    for (int t = 0; t < thread_count; t++) {
        threads[t].knows &= ~bit;
        for (int i = 0; i < threads[t].buffered_count; i++)
            threads[t].buffered[i].message &= ~bit;
    }
    for (int i = 0; i < place_count; i++)
        places[i].message &= ~bit;
    threads[running].knows |= bit;
}

void payload_write(int place, uint64_t value) {
    _Static_assert(MOST_PAYLOADS * (1 + MOST_THREADS) <= 64, "knowledge fits its word");
    knowledge knows = threads[running].knows;
    if (!(knows & bit_of_write(place))) race("a write races with a write");
    for (int t = 0; t < thread_count; t++)
        if (!(knows & bit_of_read(place, t))) race("a write races with a read");
    only_i_know(bit_of_write(place));
    payloads[place] = value;
}

uint64_t payload_read(int place) {
    if (!(threads[running].knows & bit_of_write(place))) race("a read races with a write");
    only_i_know(bit_of_read(place, running));
    return payloads[place];
}

void checkpoint(uint64_t where) {
    threads[running].history = where;
}

/* --- States seen ------------------------------------------------------------------------------------------------- */

struct key {
    uint64_t a, b;
};
static struct key *seen;
static uint64_t seen_room, seen_count;

static uint64_t hash_thread(uint64_t hash, const struct thread *thread) {
    hash = mix(hash, thread->history);
    hash = mix(hash, (uint64_t)thread->ended << 1 | (thread->version != version));
    hash = mix(hash, (uint64_t)thread->next.operation << 32 | (uint32_t)thread->next.place);
    hash = mix(hash, thread->knows);
    hash = mix(hash, mutant == RECHECK_REMOVED ? thread->last_word : 0);
    hash = mix(hash, thread->clock);
    for (int i = 0; i < thread->buffered_count; i++) {
        const struct buffered *entry = &thread->buffered[i];
        hash = mix(hash, (uint64_t)entry->place << 8 | entry->ordered << 2 | entry->seq_cst << 1 | entry->locks);
        hash = mix(mix(hash, entry->value), entry->message);
    }
    return mix(hash, (uint64_t)thread->buffered_count);
}

static uint64_t hash_state(uint64_t hash) {
    for (int i = 0; i < place_count; i++)
        hash = mix(mix(mix(hash, places[i].value), (uint64_t)places[i].locked_by), places[i].message);
    for (int t = 0; t < thread_count; t++)
        hash = hash_thread(hash, &threads[t]);
    for (int i = 0; i < MOST_PAYLOADS; i++)
        hash = mix(hash, payloads[i]);
    for (int i = 0; i < MOST_BELLS; i++)
        hash = mix(hash, (uint64_t)bells[i] << 32 | (uint32_t)posts_left[i]);
    return current->hash_private(hash, mix);
}

static bool put_key(struct key *table, uint64_t room, struct key key) {
    uint64_t at = key.a & (room - 1);
    while (table[at].a || table[at].b) {
        if (table[at].a == key.a && table[at].b == key.b) return false;
        at = (at + 1) & (room - 1);
    }
    table[at] = key;
    return true;
}

/* Zeroed. */
static void *new_memory(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    return memory;
}

static struct key *new_table(uint64_t room) {
    return new_memory(room * sizeof(struct key));
}

static void forget_seen(void) {
    if (seen) munmap(seen, seen_room * sizeof *seen);
    seen_room = 1 << 16;
    seen = new_table(seen_room);
    seen_count = 0;
}

/* True when the state is new. */
static bool remember_state(void) {
    if (2 * seen_count >= seen_room) {
        struct key *larger = new_table(4 * seen_room);
        for (uint64_t i = 0; i < seen_room; i++)
            if (seen[i].a || seen[i].b) put_key(larger, 4 * seen_room, seen[i]);
        munmap(seen, seen_room * sizeof *seen);
        seen = larger;
        seen_room *= 4;
    }
    if (!put_key(seen, seen_room, (struct key){hash_state(1), hash_state(0x1234567)})) return false;
    seen_count++;
    return true;
}

/* --- Exploring --------------------------------------------------------------------------------------------------- */

/* A choice: below CHOICES * threads a thread's step and how it ends, above a buffered store's arrival. */
#define CHOICES 3
struct choice {
    int thread, way, arrival; /* arrival: index in the buffer, -1 for a step */
};

static int list_choices(struct choice *out) {
    int count = 0;
    for (int t = 0; t < thread_count; t++) {
        for (int way = 0; way < CHOICES; way++)
            if (is_enabled(t, way)) out[count++] = (struct choice){t, way, -1};
        for (int i = 0; i < threads[t].buffered_count; i++)
            if (may_arrive(t, i)) out[count++] = (struct choice){t, 0, i};
    }
    return count;
}

static char *stack_of(int t) {
    return stacks + (size_t)t * STACK_BYTES;
}

static void begin(const struct scenario *scenario, void (*start)(void)) {
    running = -1;
    place_count = 0;
    region_count = 0;
    thread_count = scenario->thread_count;
    current = scenario;
    version = 1;
    trace_length = 0;
    memset(payloads, 0, sizeof payloads);
    memset(bells, 0, sizeof bells);
    memset(posts_left, 0, sizeof posts_left);
    start();
    for (int i = 0; i < place_count; i++) {
        bool wide = places[i].kind == WORD;
        places[i].value = wide ? atomic_load((const _Atomic uint64_t *)places[i].address)
                               : atomic_load((const _Atomic uint32_t *)places[i].address);
        places[i].locked_by = -1;
        places[i].message = KNOWS_ALL;
    }
    for (int t = 0; t < thread_count; t++) {
        struct thread *thread = &threads[t];
        memset(thread, 0, sizeof *thread);
        thread->clock = CLOCK_START;
        thread->knows = KNOWS_ALL;
        getcontext(&thread->start);
        thread->start.uc_stack.ss_sp = stack_of(t);
        thread->start.uc_stack.ss_size = STACK_BYTES;
        makecontext(&thread->start, run_thread, 0);
    }
    for (int t = 0; t < thread_count && result->finding == NOTHING_FOUND; t++) {
        resume(t);
        advance_stores(t);
    }
}

/* --- Going back to an earlier choice ----------------------------------------------------------------------------- */

#define SNAPSHOT_BYTES 65536

static char *snapshots; /* one for each depth */

/* Copies everything that a step can change to the snapshot, or back. */
static void copy_state(int depth, bool back) {
    char *at = snapshots + (size_t)depth * SNAPSHOT_BYTES, *end = at + SNAPSHOT_BYTES;
    struct region own[] = {{threads, sizeof threads[0] * (size_t)thread_count},
                           {places, sizeof places[0] * (size_t)place_count},
                           {payloads, sizeof payloads},
                           {bells, sizeof bells},
                           {posts_left, sizeof posts_left},
                           {&version, sizeof version},
                           {&trace_length, sizeof trace_length}};
    size_t own_count = sizeof own / sizeof own[0];
    for (size_t i = 0; i < own_count + (size_t)region_count + (size_t)thread_count; i++) {
        struct region region;
        if (i < own_count) {
            region = own[i];
        } else if (i < own_count + (size_t)region_count) {
            region = regions[i - own_count];
        } else { /* the stacks last: how much of them is used, the threads have said by now */
            int t = (int)(i - own_count) - region_count;
            char *used = threads[t].stack_used - RED_ZONE;
            region = (struct region){used, threads[t].ended ? 0 : (size_t)(stack_of(t) + STACK_BYTES - used)};
        }
        if (region.bytes > (size_t)(end - at)) abort();
        memcpy(back ? region.at : at, back ? at : region.at, region.bytes);
        at += region.bytes;
    }
}

/* Each wake-up takes a post away, or the next sleep would end at once as well. */
static void check_wakes(void) {
    for (int bell = 0; bell < MOST_BELLS; bell++)
        if (posts_left[bell] < 0) found(STALE_DOORBELL, "a doorbell woke more often than it was posted");
}

static void finish_schedule(const struct scenario *scenario) {
    for (int t = 0; t < thread_count; t++)
        if (!threads[t].ended) {
            found(LOST_WAKE_UP,
                  threads[t].next.operation == OP_SLEEP ? "a thread sleeps for ever" : "a thread waits for ever");
            return;
        }
    for (int i = 0; i < place_count; i++) {
        if (places[i].kind == WORD)
            atomic_store((_Atomic uint64_t *)places[i].address, places[i].value);
        else
            atomic_store((_Atomic uint32_t *)places[i].address, (uint32_t)places[i].value);
    }
    scenario->at_end();
    result->ends++;
}

static struct { int taken, count; } path[MOST_STEPS];

/* Goes on from `depth`, whose choice is made if `chosen`, with the first choice at every later one; returns the depth
 * that it came to. */
static int run_schedule(const struct scenario *scenario, int depth, bool chosen) {
    struct choice choices[MOST_THREADS * (CHOICES + MOST_BUFFERED)];
    for (int at = depth; result->finding == NOTHING_FOUND; at++) {
        int count = list_choices(choices);
        if (!chosen || at > depth) {
            if (count == 0) {
                finish_schedule(scenario);
                return at;
            }
            if (at == MOST_STEPS) {
                found(ENDLESS_LOOP, "a schedule does not end");
                return at;
            }
            if (!remember_state()) return at;
            path[at].taken = 0;
            path[at].count = count;
            if (count > 1) copy_state(at, false);
        }
        struct choice choice = choices[path[at].taken];
        if (choice.arrival >= 0)
            arrive(choice.thread, choice.arrival);
        else
            advance(choice.thread, choice.way);
        result->steps++;
        check_wakes();
    }
    return 0;
}

void explore(const struct scenario *scenario, enum mutant with, void (*start)(void), struct exploration *out) {
    memset(out, 0, sizeof *out);
    result = out;
    mutant = with;
    if (!stacks) stacks = new_memory(MOST_THREADS * STACK_BYTES);
    if (!snapshots) snapshots = new_memory((size_t)MOST_STEPS * SNAPSHOT_BYTES);
    forget_seen();
    begin(scenario, start);
    int depth = run_schedule(scenario, 0, false);
    while (out->finding == NOTHING_FOUND) {
        while (depth > 0 && path[depth - 1].taken + 1 == path[depth - 1].count)
            depth--;
        if (depth == 0) break;
        path[depth - 1].taken++;
        copy_state(depth - 1, true);
        depth = run_schedule(scenario, depth - 1, true);
    }
    out->states = seen_count;
    running = -1;
}

const char *mutant_name(enum mutant which) {
    static const char *const names[] = {
        "none",
        "SUBMITTED stored with release",
        "exchange to DONE with acq_rel",
        "parked stored with release",
        "waiting stored with release",
        "parked loaded with acquire",
        "waiting loaded with acquire",
        "second look with acquire",
        "second look removed",
        "exchange of waiting dropped",
        "post dropped",
        "drain dropped",
        "SUBMITTED stored with relaxed",
        "RUNNING taken with relaxed",
        "exchange to DONE with relaxed",
        "DONE loaded with relaxed",
        "FREE stored with relaxed",
        "FREE loaded with relaxed",
        "DONE stored blindly",
        "ABANDONED stored blindly",
        "RUNNING stored blindly",
    };
    _Static_assert(sizeof names / sizeof names[0] == MUTANT_COUNT, "every mutant has a name");
    return names[which];
}
