#define _GNU_SOURCE
#include "scheduler.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "machine.h"
#include "mutants.h"
#include "seen.h"
#include "word.h"

#define MOST_STEPS 400
#define STACK_BYTES 65536
#define RED_ZONE 128 /* what a function may use below its stack pointer */
#define MOST_REGIONS 96
#define SNAPSHOT_BYTES 65536

int running = -1;

static const struct scenario *current;
static struct exploration *result;
static jmp_buf scheduler;

void found(enum finding finding, const char *what) {
    if (result->finding == NOTHING_FOUND) {
        result->finding = finding;
        snprintf(result->what, sizeof result->what, "%s", what);
    }
    if (running >= 0) _longjmp(scheduler, 1);
}

const char *finding_name(enum finding finding) {
    static const char *const names[] = {
        [NOTHING_FOUND] = "nothing",     [LOST_WAKE_UP] = "lost wake-up", [DATA_RACE] = "data race",
        [WRONG_ANSWER] = "wrong answer", [ENDLESS_LOOP] = "endless loop", [STALE_DOORBELL] = "stale doorbell"};
    return names[finding];
}

/* --- The trace of the schedule, for people ----------------------------------------------------------------------- */

static struct event {
    int thread;
    struct step step; /* OP_NONE for the arrival of a store */
    uint64_t value;
} trace[MOST_STEPS];
static int trace_length;

static void note(struct event event) {
    if (trace_length < MOST_STEPS) trace[trace_length++] = event;
}

static void print_event(const struct event *event) {
    static const char *const operations[] = {
        [OP_NONE] = "    arrived",       [OP_LOAD] = "load", [OP_STORE] = "store", [OP_EXCHANGE] = "exchange",
        [OP_CAS] = "compare-exchange",   [OP_POST] = "post", [OP_DRAIN] = "drain", [OP_SLEEP] = "sleep",
        [OP_CHANGE] = "wait for change", [OP_DEATH] = "dies"};
    static const char *const kinds[] = {
        [WORD] = "word", [WAITING] = "waiting", [PARKED] = "parked", [STARTED] = "started", [COMMITTED] = "committed"};
    const struct step *step = &event->step;
    printf("    thread %d  %s", event->thread, operations[step->operation]);
    if (step->operation > OP_CAS) {
        printf(" -> %" PRIx64 "\n", event->value);
        return;
    }
    enum place_kind kind = machine.places[step->place].kind;
    printf("%s %s#%d: ", step->order == memory_order_seq_cst ? " seq_cst" : "", kinds[kind], step->place);
    if (kind == WORD)
        printf("ticket %" PRIu64 ", state %d\n", word_ticket(event->value), (int)word_state(event->value));
    else
        printf("%" PRIu64 "\n", event->value);
}

void print_found_schedule(void) {
    for (int i = 0; i < trace_length; i++)
        print_event(&trace[i]);
}

/* --- Coroutines -------------------------------------------------------------------------------------------------- */

static ucontext_t starts[MOST_THREADS];
static char *stacks;

static char *stack_of(int t) {
    return stacks + (size_t)t * STACK_BYTES;
}

uint64_t take_step(struct step step) {
    struct thread *thread = &machine.threads[running];
    thread->next = step;
    thread->stack_used = __builtin_frame_address(0);
    if (_setjmp(thread->resume) == 0) _longjmp(scheduler, 1);
    thread = &machine.threads[running]; /* its value from before the jump may be lost */
    if (thread->died) _longjmp(thread->grave, 1);
    thread->history = mix(thread->history, thread->result + 1);
    return thread->result;
}

static void run_thread(void) {
    current->threads[running]();
    machine.threads[running].ended = true;
    _longjmp(scheduler, 1);
}

/* Lets thread `t` run up to its next step. */
static void resume(int t) {
    running = t;
    if (_setjmp(scheduler) == 0) {
        if (machine.threads[t].started) _longjmp(machine.threads[t].resume, 1);
        machine.threads[t].started = true;
        setcontext(&starts[t]);
    }
    running = -1;
}

static void advance_once(int t, enum way way) {
    struct thread *thread = &machine.threads[t];
    struct step step = thread->next;
    if (way == BY_DEATH) step.operation = OP_DEATH;
    thread->result = machine_step(t, way);
    note((struct event){.thread = t, .step = step, .value = step.operation == OP_STORE ? step.value : thread->result});
    resume(t);
}

/* A store enters its thread's own buffer, which no other thread can tell: it is no choice, but follows at once. */
static void advance_stores(int t) {
    /* Of one that may die, each store is a step that may not come. */
    if (machine.most_buffered == 0 || machine.threads[t].mortal) return;
    while (result->finding == NOTHING_FOUND && machine.threads[t].next.operation == OP_STORE &&
           machine_may_step(t, AS_ASKED))
        advance_once(t, AS_ASKED);
}

/* --- Going back to an earlier choice ----------------------------------------------------------------------------- */

struct region {
    void *at;
    size_t bytes;
};

static struct region regions[MOST_REGIONS];
static int region_count;
static char *snapshots; /* one for each depth */

void register_region(void *at, size_t bytes) {
    if (region_count == MOST_REGIONS) abort();
    regions[region_count++] = (struct region){at, bytes};
}

static struct region used_stack(int t) {
    char *used = machine.threads[t].stack_used - RED_ZONE;
    return (struct region){used, machine.threads[t].ended ? 0 : (size_t)(stack_of(t) + STACK_BYTES - used)};
}

/* Copies a region to `at` in the snapshot, or back; the place of the next one. */
static char *copy_region(struct region region, char *at, const char *end, bool back) {
    if (region.bytes > (size_t)(end - at)) abort();
    memcpy(back ? region.at : at, back ? at : region.at, region.bytes);
    return at + region.bytes;
}

/* Copies everything that a step can change to the snapshot of a depth, or back. */
static void copy_state(int depth, bool back) {
    char *at = snapshots + (size_t)depth * SNAPSHOT_BYTES, *end = at + SNAPSHOT_BYTES;
    at = copy_region((struct region){&machine, sizeof machine}, at, end, back);
    at = copy_region((struct region){&trace_length, sizeof trace_length}, at, end, back);
    for (int i = 0; i < region_count; i++)
        at = copy_region(regions[i], at, end, back);
    /* The stacks last: how much of each is used, the machine has said by now. */
    for (int t = 0; t < machine.thread_count; t++)
        at = copy_region(used_stack(t), at, end, back);
}

/* --- Exploring --------------------------------------------------------------------------------------------------- */

/* A thread's step, or the arrival of a store of its buffer. */
struct choice {
    int thread;
    enum way way;
    int arrival; /* index in the buffer, -1 for a step */
};
#define MOST_CHOICES (MOST_THREADS * ((int)WAYS + MOST_BUFFERED))

static struct taken {
    int choice;
    int count;
} path[MOST_STEPS];

static int list_choices(struct choice *out) {
    int count = 0;
    for (int t = 0; t < machine.thread_count; t++) {
        for (enum way way = AS_ASKED; way < WAYS; way++)
            if (machine_may_step(t, way)) out[count++] = (struct choice){t, way, -1};
        for (int i = 0; i < machine.threads[t].buffered_count; i++)
            if (machine_may_arrive(t, i)) out[count++] = (struct choice){t, AS_ASKED, i};
    }
    return count;
}

static void do_choice(struct choice choice) {
    if (choice.arrival >= 0) {
        const struct buffered *store = &machine.threads[choice.thread].buffered[choice.arrival];
        note((struct event){.thread = choice.thread, .step = {.place = store->place}, .value = store->value});
        machine_arrive(choice.thread, choice.arrival);
    } else {
        advance_once(choice.thread, choice.way);
        advance_stores(choice.thread);
    }
    result->steps++;
    /* Each sleep that a post ends takes the post away, or the next sleep would end at once as well. */
    for (int bell = 0; bell < MOST_BELLS; bell++)
        if (machine.posts_left[bell] < 0) found(STALE_DOORBELL, "a doorbell woke more often than it was posted");
}

static void begin(void (*start)(void)) {
    region_count = 0;
    trace_length = 0;
    machine_reset(current->thread_count, current->most_buffered);
    start();
    machine_settle();
    for (int t = 0; t < current->thread_count; t++) {
        getcontext(&starts[t]);
        starts[t].uc_stack.ss_sp = stack_of(t);
        starts[t].uc_stack.ss_size = STACK_BYTES;
        makecontext(&starts[t], run_thread, 0);
    }
    for (int t = 0; t < current->thread_count && result->finding == NOTHING_FOUND; t++) {
        resume(t);
        advance_stores(t);
    }
}

static void finish_schedule(void) {
    for (int t = 0; t < machine.thread_count; t++)
        if (!machine.threads[t].ended) {
            bool sleeps = machine.threads[t].next.operation == OP_SLEEP;
            found(LOST_WAKE_UP, sleeps ? "a thread sleeps for ever" : "a thread waits for ever");
            return;
        }
    machine_store_back();
    current->at_end();
    result->ends++;
}

static bool is_new_state(void) {
    uint64_t private = current->hash_private();
    return seen_add((struct state_key){machine_hash(private), machine_hash(~private)});
}

/* Goes on from `depth`, whose choice is made if `chosen`, with the first choice at every later one; returns the depth
 * that it came to. */
static int run_schedule(int depth, bool chosen) {
    struct choice choices[MOST_CHOICES];
    for (int at = depth; result->finding == NOTHING_FOUND; at++) {
        int count = list_choices(choices);
        if (!chosen || at > depth) {
            if (count == 0) {
                finish_schedule();
                return at;
            }
            if (at == MOST_STEPS) {
                found(ENDLESS_LOOP, "a schedule does not end");
                return at;
            }
            if (!is_new_state()) return at;
            path[at] = (struct taken){0, count};
            if (count > 1) copy_state(at, false);
        }
        do_choice(choices[path[at].choice]);
    }
    return 0;
}

void explore(const struct scenario *scenario, void (*start)(void), struct exploration *out) {
    memset(out, 0, sizeof *out);
    result = out;
    current = scenario;
    if (!stacks) stacks = new_memory(MOST_THREADS * STACK_BYTES);
    if (!snapshots) snapshots = new_memory((size_t)MOST_STEPS * SNAPSHOT_BYTES);
    seen_forget();
    begin(start);
    int depth = run_schedule(0, false);
    while (out->finding == NOTHING_FOUND) {
        while (depth > 0 && path[depth - 1].choice + 1 == path[depth - 1].count)
            depth--;
        if (depth == 0) break;
        path[depth - 1].choice++;
        copy_state(depth - 1, true);
        depth = run_schedule(depth - 1, true);
    }
    out->states = seen_count();
}
