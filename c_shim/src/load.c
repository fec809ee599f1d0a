#define _GNU_SOURCE
#include "sidecaml/load.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "arrivals.h"
#include "atomics.h"
#include "failure.h"
#include "random.h"
#include "sidecaml/strings.h"

/* How often the caller is asked whether to go on, and the control socket looked at. */
#define DUTY_NS 10000000u
/* What has arrived before the end may still be sent so long after it. */
#define GRACE_NS 250000000u
/* How long before a request is due an adaptive loop is awake. */
#define ADAPTIVE_SPIN_NS 75000u
/* Between two looks whether the worker has left an abandoned slot: nothing tells. */
#define BUSY_NAP_NS 50000
/* Of answers that are read one after the other, so many bytes share a reading of the clock: about a microsecond's. */
#define BYTES_A_READING 16384u

/* A request that is under way. */
struct flight {
    uint64_t due_ns;
    uint64_t deadline_ns;
    uint32_t set;
    bool up;
    bool overdue; /* it was sent after its deadline, and is the worker's to refuse */
};

/* What the loads of one thread share. */
struct thread {
    struct load *loads;
    uint32_t count;
    uint32_t on_duty;    /* the load whose channel is looked at next */
    uint64_t now;        /* when the clock was last read: after a run of answers, or a sweep over all without any */
    uint64_t bytes_read; /* of answers, since then */
    bool handed_over;    /* something, since then */
    uint64_t duty_ns;    /* of the last duties; 0 to do them at once */
    uint64_t cpu_ns;     /* used when measuring began */
    bool measuring;
};

struct load {
    struct thread *thread;
    sidecaml_channel *channel;
    const struct sidecaml_layout *layout;
    const struct sidecaml_load *what;
    struct sidecaml_load_result *out;
    struct flight *flights; /* one a slot */
    uint8_t **places;       /* a row of the channel's tensors a slot */
    uint32_t tensors;
    uint32_t in_flight;
    uint32_t overdue; /* of those */
    uint32_t oldest;  /* the slot of the earliest in flight, where there is one */
    struct arrivals arrivals;
    uint64_t random;        /* for the choice of inputs */
    uint64_t due_ns;        /* of the next request; in a closed loop of the first */
    uint64_t spin_ns;       /* how long before a request is due not to sleep any more */
    uint64_t short_from_ns; /* what was due after this and up to the next was seen to wait for a slot in time */
    uint64_t short_to_ns;
    volatile uint64_t read; /* of answers that are not compared, lest the compiler leaves reading out */
    bool sends;             /* or else only takes what is in flight */
    bool any_order;         /* something may have ended before the oldest */
    bool blocked;           /* the slot whose turn it is is not free */
    int status;             /* why the channel is over; 0 while it is not */
};

static bool is_open_loop(const struct load *load) {
    return load->what->rate > 0;
}

static void read_clock(struct thread *thread) {
    thread->now = sidecaml_now_ns();
    thread->bytes_read = 0;
    thread->handed_over = false;
}

/* Whether a request that was to start then is among the results. */
static bool counts(const struct load *load, uint64_t due_ns) {
    return due_ns >= load->what->measure_ns && due_ns < load->what->end_ns;
}

/* --- Beginning and end ------------------------------------------------------------------------------------------- */

static int check(const sidecaml_channel *channel, const struct sidecaml_load *what, struct sidecaml_failure *why) {
    uint32_t slots = sidecaml_channel_layout(channel)->slot_count;
    if (what->window < 1 || what->window > slots)
        return fail(why, SIDECAML_E_INVALID, "a window of %u requests: the channel has %u slots", what->window, slots);
    if (what->burst < 1 || what->burst > what->window)
        return fail(why, SIDECAML_E_INVALID, "bursts of %u requests in a window of %u", what->burst, what->window);
    if (!isfinite(what->rate) || what->rate < 0)
        return fail(why, SIDECAML_E_INVALID, "a rate of %g requests a second: expected a number, 0 for a closed loop",
                    what->rate);
    if (what->policy < SIDECAML_SPIN || what->policy > SIDECAML_BLOCK || what->sets < 1 ||
        what->start_ns > what->measure_ns || what->measure_ns > what->end_ns)
        return fail(why, SIDECAML_E_INVALID,
                    "a load without inputs, of an unknown policy, or whose times are in no order");
    return 0;
}

static uint64_t thread_cpu_ns(void) {
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static uint64_t spin_of(enum sidecaml_policy policy) {
    return policy == SIDECAML_SPIN ? UINT64_MAX : policy == SIDECAML_ADAPTIVE ? ADAPTIVE_SPIN_NS : 0;
}

static bool make_room(struct load *load) {
    uint32_t slots = load->layout->slot_count;
    load->tensors = load->layout->input_count + load->layout->output_count;
    load->flights = calloc(slots, sizeof load->flights[0]);
    load->places = calloc((size_t)slots * load->tensors + 1, sizeof load->places[0]);
    return load->flights && load->places;
}

static void give_room_back(struct load *load) {
    free(load->flights);
    free(load->places);
}

static void begin(struct load *load) {
    const struct sidecaml_load *what = load->what;
    sidecaml_channel_set_policy(load->channel, what->policy);
    sidecaml_channel_set_stamps(load->channel, what->deadline_ns > 0);
    for (uint32_t i = 0; i < load->layout->slot_count * load->tensors; i++)
        load->places[i] = sidecaml_channel_tensor(load->channel, i / load->tensors, i % load->tensors);
    load->sends = true;
    load->random = ~what->seed;
    load->spin_ns = spin_of(what->policy);
    load->due_ns = what->start_ns;
    if (!is_open_loop(load)) return;
    arrivals_start(&load->arrivals, what->rate, what->seed, what->start_ns);
    load->due_ns = arrivals_next(&load->arrivals);
}

/* --- Answers ----------------------------------------------------------------------------------------------------- */

static uint8_t *place_of(const struct load *load, uint32_t slot, uint32_t tensor) {
    return load->places[slot * load->tensors + tensor];
}

/* Bytes of an output as this answer has it, for strings of its table; 0 when its dims make no sense. */
static uint64_t output_bytes(const struct load *load, uint32_t slot, uint32_t tensor) {
    const struct sidecaml_tensor_descriptor *of = &load->layout->tensor[tensor];
    if (!(of->flags & SIDECAML_TENSOR_DYNAMIC) && of->dtype != SIDECAML_STRING) return of->max_bytes;
    uint64_t dims[SIDECAML_MAX_RANK], bytes;
    int rank = sidecaml_channel_get_dims(load->channel, slot, tensor, dims);
    return rank >= 0 && sidecaml_tensor_bytes(of->dtype, dims, (uint32_t)rank, &bytes) ? bytes : 0;
}

static uint64_t words_of(const uint8_t *start, uint64_t bytes) {
    uint64_t sum = 0, word = 0;
    for (; bytes >= sizeof word; start += sizeof word, bytes -= sizeof word) {
        memcpy(&word, start, sizeof word);
        sum ^= word;
    }
    word = 0;
    memcpy(&word, start, bytes);
    return sum ^ word;
}

static const char *text_of(const struct load *load, uint8_t *start, uint32_t tensor) {
    const struct sidecaml_tensor_descriptor *of = &load->layout->tensor[tensor];
    uint64_t most = (of->max_bytes - of->text_bytes) / sizeof(uint64_t) - 1;
    struct sidecaml_strings_place place = {.start = start, .most = most, .text_bytes = of->text_bytes};
    return sidecaml_strings_text(&place);
}

static bool is_answer(const struct load *load, uint32_t slot, uint32_t tensor, uint64_t bytes,
                      const struct sidecaml_load_answer *wanted) {
    uint8_t *start = place_of(load, slot, tensor);
    bool strings = load->layout->tensor[tensor].dtype == SIDECAML_STRING;
    if (strings ? bytes > wanted->bytes : bytes != wanted->bytes) return false;
    if (memcmp(start, wanted->start, bytes) != 0) return false;
    /* The tables are the same, so the texts are of one length. */
    return !strings ||
           memcmp(text_of(load, start, tensor), (const char *)wanted->start + bytes, wanted->bytes - bytes) == 0;
}

static void read_answer(struct load *load, uint32_t slot) {
    const struct sidecaml_layout *layout = load->layout;
    const struct sidecaml_load_answer *wanted = load->what->answers;
    uint32_t set = load->flights[slot].set;
    bool right = true;
    for (uint32_t i = 0; i < layout->output_count; i++) {
        uint32_t tensor = layout->input_count + i;
        uint64_t bytes = output_bytes(load, slot, tensor);
        load->thread->bytes_read += bytes;
        if (wanted)
            right = is_answer(load, slot, tensor, bytes, &wanted[set * layout->output_count + i]) && right;
        else
            load->read = words_of(place_of(load, slot, tensor), bytes);
    }
    load->out->wrong += !right;
}

/* Of an answer that was read after its deadline: whether the worker had it no earlier. */
static bool is_worker_late(const struct load *load, uint32_t slot) {
    struct sidecaml_stamps stamps;
    sidecaml_channel_stamps(load->channel, slot, &stamps);
    return stamps.finished_ns > load->flights[slot].deadline_ns;
}

/* The end of a request, as of the clock's last reading; what it needs of the slot is still there. */
static void note(struct load *load, uint32_t slot, int status) {
    struct flight *flight = &load->flights[slot];
    struct sidecaml_load_result *out = load->out;
    flight->up = false;
    load->in_flight--;
    load->overdue -= flight->overdue;
    /* In a closed loop one may be sent just after the end. */
    if (!counts(load, flight->due_ns)) return;
    out->counts[-status]++;
    if (status < 0) return;
    load->what->samples[out->sampled++] = load->thread->now - flight->due_ns;
    out->answered_ns = load->thread->now;
    bool late = flight->deadline_ns && load->thread->now > flight->deadline_ns;
    out->late_by_worker += late && is_worker_late(load, slot);
}

static uint32_t slot_after(const struct load *load, uint32_t slot) {
    return slot + 1 == load->layout->slot_count ? 0 : slot + 1;
}

static void find_oldest(struct load *load) {
    while (load->in_flight && !load->flights[load->oldest].up)
        load->oldest = slot_after(load, load->oldest);
}

/* Answers that follow one another: read, then the clock, then noted, so that none has a time before it was read. */
static void take_run(struct load *load, uint32_t first, uint32_t count) {
    uint32_t slot = first, to_note = first;
    for (uint32_t i = 1; i <= count; i++, slot = slot_after(load, slot)) {
        read_answer(load, slot);
        if (i < count && load->thread->bytes_read < BYTES_A_READING) continue;
        read_clock(load->thread);
        for (; to_note != slot; to_note = slot_after(load, to_note))
            note(load, to_note, 0);
        note(load, slot, 0);
        to_note = slot_after(load, slot);
    }
    if (sidecaml_channel_release_run(load->channel, first, count) < 0) load->status = -SIDECAML_E_CORRUPT;
}

/* 0, a failure, or -PENDING. No system call. */
static int look(struct load *load, uint32_t slot) {
    const struct flight *flight = &load->flights[slot];
    int status = sidecaml_channel_spin(load->channel, slot, 0);
    bool late = flight->deadline_ns && !flight->overdue && load->thread->now >= flight->deadline_ns;
    /* Its deadline is over, so this does not wait: it gives the request up. */
    if (status == -SIDECAML_E_PENDING && late) status = sidecaml_channel_wait(load->channel, slot, flight->deadline_ns);
    return status == -SIDECAML_E_AGAIN ? -SIDECAML_E_PENDING : status;
}

/* Whether this one has ended, in whatever way. */
static bool take_one(struct load *load, uint32_t slot) {
    int status = look(load, slot);
    if (status == -SIDECAML_E_PENDING) return false;
    if (status == 0) read_answer(load, slot);
    read_clock(load->thread);
    note(load, slot, status);
    if (status != -SIDECAML_E_TIMEOUT) sidecaml_channel_abandon(load->channel, slot);
    if (status == -SIDECAML_E_SERVER_GONE || status == -SIDECAML_E_CORRUPT) load->status = status;
    return true;
}

static bool take_oldest(struct load *load) {
    int count = sidecaml_channel_answered(load->channel, load->oldest, load->in_flight);
    if (count <= 0) return take_one(load, load->oldest);
    take_run(load, load->oldest, (uint32_t)count);
    return true;
}

static void take_in_any_order(struct load *load) {
    uint32_t slot = load->oldest;
    for (uint32_t left = load->in_flight; left; slot = slot_after(load, slot)) {
        if (!load->flights[slot].up) continue;
        left--;
        take_one(load, slot);
    }
    load->any_order = false;
}

/* From the oldest on, as a worker answers; the others are looked at where a wait has ended with one of them, and while
 * the oldest may be one that is not given up at its deadline. Whether there was one. */
static bool take_answers(struct load *load) {
    uint32_t before = load->in_flight;
    for (find_oldest(load); load->in_flight && take_oldest(load); find_oldest(load)) {
    }
    if (load->any_order || load->overdue) take_in_any_order(load);
    find_oldest(load);
    return load->in_flight < before;
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

static void fill(struct load *load, uint32_t slot, uint32_t set) {
    uint32_t count = load->layout->input_count;
    for (uint32_t i = 0; i < count; i++)
        memcpy(place_of(load, slot, i), load->what->inputs[set * count + i], load->what->input_bytes[i]);
}

/* False when the slot whose turn it is is not free, or the channel is over. */
static bool refused(struct load *load, int status) {
    load->blocked = status == -SIDECAML_E_FULL || status == -SIDECAML_E_BUSY;
    if (!load->blocked) load->status = status;
    return false;
}

static uint64_t deadline_of(const struct load *load, uint64_t due_ns) {
    return load->what->deadline_ns ? due_ns + load->what->deadline_ns : 0;
}

static void prepare(struct load *load, uint32_t slot, struct flight flight) {
    flight.set = (uint32_t)(((random_next(&load->random) >> 32) * load->what->sets) >> 32);
    fill(load, slot, flight.set);
    load->flights[slot] = flight;
}

/* What is to start now. In a closed loop that is before the first of a run is filled, and after the run before. */
static struct flight next_flight(struct load *load) {
    if (!is_open_loop(load) && load->thread->handed_over) read_clock(load->thread);
    load->thread->handed_over = true;
    struct flight flight = {.due_ns = is_open_loop(load) ? load->due_ns : load->thread->now};
    flight.deadline_ns = deadline_of(load, flight.due_ns);
    flight.overdue = flight.deadline_ns && flight.deadline_ns <= load->thread->now;
    return flight;
}

static void take_off(struct load *load, uint32_t first, uint32_t count) {
    if (load->in_flight == 0) load->oldest = first;
    load->in_flight += count;
    for (uint32_t slot = first; count; count--, slot = slot_after(load, slot)) {
        struct flight *flight = &load->flights[slot];
        flight->up = true;
        load->overdue += flight->overdue;
        load->out->sent_late += flight->overdue && counts(load, flight->due_ns);
    }
}

/* Fills up to `most` slots and hands them over together. */
static bool send_run(struct load *load, uint32_t most) {
    int first = sidecaml_channel_claim(load->channel);
    int count = first < 0 ? first : sidecaml_channel_claim_run(load->channel, most);
    if (count < 0) return refused(load, count);
    /* The others of a run are still in flight. */
    if ((uint32_t)count < most && load->in_flight) return refused(load, -SIDECAML_E_FULL);
    struct flight flight = next_flight(load);
    uint32_t slot = (uint32_t)first;
    for (int i = 0; i < count; i++, slot = slot_after(load, slot))
        prepare(load, slot, flight);
    int status = sidecaml_channel_submit_run(load->channel, (uint32_t)count, flight.deadline_ns);
    if (status < 0) return refused(load, status);
    take_off(load, (uint32_t)first, (uint32_t)count);
    if (is_open_loop(load)) load->due_ns = arrivals_next(&load->arrivals);
    return true;
}

/* In an open loop those that are due follow one another, and each has a deadline of its own. */
static uint32_t run_of(const struct load *load) {
    return is_open_loop(load) ? 1 : load->what->burst;
}

/* How many more answers could be noted than are on their way. */
static uint64_t room(const struct load *load) {
    return load->what->room - load->out->sampled - load->in_flight;
}

static bool window_is_full(const struct load *load) {
    return load->what->window - load->in_flight < run_of(load);
}

static bool may_send(const struct load *load) {
    return !window_is_full(load) && room(load) > 0 && load->due_ns < load->what->end_ns;
}

/* There is no slot for what is due: all of it whose deadline is to come waits for the server. */
static void run_short(struct load *load) {
    uint64_t from_ns = load->thread->now - load->what->deadline_ns;
    bool is_over = load->due_ns > load->short_to_ns && from_ns > load->short_to_ns;
    if (is_over) load->short_from_ns = from_ns;
    load->short_to_ns = load->thread->now;
}

/* Whether the next one's deadline is over, and it was seen to wait for a slot before: nobody would send it any more.
 * One that this thread only comes to now is sent all the same, late as it is. That there was no slot is the server's
 * doing, and must not pass for a refusal; that nobody looked is not. */
static bool is_lost(const struct load *load) {
    uint64_t deadline_ns = deadline_of(load, load->due_ns);
    return is_open_loop(load) && deadline_ns && deadline_ns <= load->thread->now &&
           load->due_ns > load->short_from_ns && load->due_ns <= load->short_to_ns;
}

static void lose(struct load *load) {
    bool counted = counts(load, load->due_ns);
    load->out->counts[SIDECAML_E_TIMEOUT] += counted;
    load->out->no_slot += counted;
    load->due_ns = arrivals_next(&load->arrivals);
}

static bool is_due(const struct load *load) {
    return load->status == 0 && load->due_ns <= load->thread->now && load->due_ns < load->what->end_ns;
}

static void send_due(struct load *load) {
    load->blocked = false;
    while (is_due(load)) {
        uint32_t most = run_of(load);
        if (is_lost(load))
            lose(load);
        else if (!may_send(load) || !send_run(load, most < room(load) ? most : (uint32_t)room(load)))
            break;
    }
    if (is_due(load) && (load->blocked || window_is_full(load))) run_short(load);
}

/* --- Waiting ----------------------------------------------------------------------------------------------------- */

/* Until the next request is due, with none in flight; returns early, too. */
static void wait_until_due(struct load *load) {
    if (load->due_ns - load->thread->now <= load->spin_ns) {
        cpu_relax();
        return;
    }
    /* Earlier than needed where spinning may catch what a late wake-up would miss. */
    uint64_t most = load->due_ns - load->thread->now - load->spin_ns;
    if (most > DUTY_NS) most = DUTY_NS;
    const struct timespec nap = {.tv_nsec = (long)most};
    if (nanosleep(&nap, NULL) < 0) load->thread->duty_ns = 0;
}

/* The first deadline at which one in flight is given up. */
static uint64_t first_deadline(const struct load *load) {
    uint32_t slot = load->oldest;
    for (uint32_t left = load->in_flight; left; slot = slot_after(load, slot)) {
        const struct flight *flight = &load->flights[slot];
        if (flight->up && flight->deadline_ns && !flight->overdue) return flight->deadline_ns;
        left -= flight->up;
    }
    return UINT64_MAX;
}

static uint64_t earlier(uint64_t one, uint64_t other) {
    return one < other ? one : other;
}

/* Until one is answered, or the next is due, or the caller is to be asked. */
static void wait_for_answer(struct load *load, uint64_t until_ns) {
    until_ns = earlier(until_ns, load->thread->now + DUTY_NS);
    int status;
    if (load->flights[load->oldest].overdue) {
        /* A wait for any would take it for ended, at its deadline. */
        status = sidecaml_channel_wait_end(load->channel, load->oldest, earlier(until_ns, first_deadline(load)));
    } else {
        status = sidecaml_channel_wait_any(load->channel, until_ns);
        load->any_order = status >= 0 && (uint32_t)status != load->oldest;
    }
    if (status == -SIDECAML_E_AGAIN) load->thread->duty_ns = 0;
}

/* When to look again though nothing is answered. */
static uint64_t next_look(const struct load *load, bool due_later) {
    if (due_later) return load->due_ns;
    if (!load->sends || !is_open_loop(load) || !load->what->deadline_ns) return UINT64_MAX;
    /* So often that nothing has its whole time in between, and waits unseen. */
    uint64_t deadline_ns = deadline_of(load, load->due_ns);
    return deadline_ns > load->thread->now ? deadline_ns : deadline_of(load, load->thread->now);
}

static void wait_for_something(struct load *load) {
    const struct timespec nap = {.tv_nsec = BUSY_NAP_NS};
    bool due_later = load->sends && may_send(load) && !load->blocked && load->due_ns > load->thread->now;
    if (load->in_flight)
        wait_for_answer(load, next_look(load, due_later));
    else if (due_later)
        wait_until_due(load);
    else
        nanosleep(&nap, NULL);
}

/* --- The loop ---------------------------------------------------------------------------------------------------- */

static void do_duties(struct thread *thread) {
    /* Of one channel at a time: looking at all of them at once would keep answers waiting. */
    if (thread->duty_ns && thread->now - thread->duty_ns < DUTY_NS / thread->count) return;
    struct load *load = &thread->loads[thread->on_duty];
    const struct sidecaml_load *first = thread->loads->what;
    thread->duty_ns = thread->now;
    if (thread->on_duty == 0 && !first->go_on(first->context))
        for (uint32_t i = 0; i < thread->count; i++)
            thread->loads[i].out->stopped = true;
    thread->on_duty = (thread->on_duty + 1) % thread->count;
    /* Looks at the control socket, which spinning here does not. */
    if (load->in_flight) sidecaml_channel_poll(load->channel, load->oldest);
    read_clock(thread);
}

static void mind_the_time(struct thread *thread) {
    if (!thread->measuring && thread->now >= thread->loads->what->measure_ns) {
        thread->measuring = true;
        thread->cpu_ns = thread_cpu_ns();
    }
    do_duties(thread);
}

static bool is_cut_short(const struct load *load) {
    return load->out->stopped || load->out->full || load->status < 0;
}

/* Whether there is more to send. */
static bool goes_on(const struct load *load) {
    if (is_cut_short(load)) return false;
    if (!is_open_loop(load)) return load->thread->now < load->what->end_ns;
    return load->due_ns < load->what->end_ns && load->thread->now < load->what->end_ns + GRACE_NS;
}

static bool is_over(const struct load *load) {
    return !load->sends && (load->in_flight == 0 || load->out->stopped);
}

static void stop_sending_when_due(struct load *load) {
    load->out->full = room(load) == 0;
    if (goes_on(load)) return;
    load->sends = false;
    load->out->ended_ns = is_cut_short(load) ? load->thread->now : load->what->end_ns;
}

/* Whether anything was answered. Answers first: only then is a window that is full the server's doing. */
static bool keep_up(struct load *load) {
    bool any = take_answers(load);
    if (load->sends) send_due(load);
    return any;
}

/* Several are looked at in turn, without waiting for any; this finds what overtook the oldest, which a wait would. */
static void look_for_any(struct thread *thread) {
    for (uint32_t i = 0; i < thread->count; i++) {
        struct load *load = &thread->loads[i];
        if (load->in_flight > 1) load->any_order = sidecaml_channel_spin_any(load->channel, 0) >= 0;
    }
    cpu_relax();
}

/* When nothing was answered. */
static void rest(struct thread *thread) {
    const struct load *first = thread->loads;
    if (thread->count > 1)
        look_for_any(thread);
    else if (first->status == 0 || first->in_flight)
        wait_for_something(thread->loads);
    read_clock(thread);
}

/* Looks at all once; whether there is more to do. */
static bool sweep(struct thread *thread) {
    bool any = false, more = false;
    mind_the_time(thread);
    for (uint32_t i = 0; i < thread->count; i++) {
        struct load *load = &thread->loads[i];
        if (load->sends) stop_sending_when_due(load);
        if (is_over(load)) continue;
        any = keep_up(load) || any;
        more = true;
    }
    if (more && !any) rest(thread);
    return more;
}

static void count_unsent(struct load *load) {
    if (!is_open_loop(load)) return;
    for (; load->due_ns < load->out->ended_ns; load->due_ns = arrivals_next(&load->arrivals))
        load->out->unsent += load->due_ns >= load->what->measure_ns;
}

static void end(struct load *load) {
    for (uint32_t slot = 0; slot < load->layout->slot_count; slot++)
        if (load->flights[slot].up) sidecaml_channel_abandon(load->channel, slot);
    count_unsent(load);
}

static void run(struct thread *thread) {
    /* A sleep of 50 us more, as by default, would be taken for the server's. */
    int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1ul, 0, 0, 0);
    for (uint32_t i = 0; i < thread->count; i++)
        begin(&thread->loads[i]);
    read_clock(thread);
    while (sweep(thread)) {
    }
    for (uint32_t i = 0; i < thread->count; i++)
        end(&thread->loads[i]);
    if (thread->measuring) thread->loads->out->cpu_ns = thread_cpu_ns() - thread->cpu_ns;
    prctl(PR_SET_TIMERSLACK, (unsigned long)slack, 0, 0, 0);
}

static int check_all(const struct sidecaml_load_job *jobs, uint32_t count, struct sidecaml_failure *why) {
    if (count < 1) return fail(why, SIDECAML_E_INVALID, "no channel to put under load");
    for (uint32_t i = 0; i < count; i++) {
        int status = check(jobs[i].channel, jobs[i].what, why);
        if (status < 0) return status;
        if (count > 1 && jobs[i].what->policy != SIDECAML_SPIN)
            return fail(why, SIDECAML_E_INVALID,
                        "%u channels in one thread, and channel %u is not to spin: a thread that sleeps waits for one "
                        "channel only. Spin, or give each channel a thread",
                        count, i);
    }
    return 0;
}

static void give_all_back(struct thread *thread) {
    for (uint32_t i = 0; thread->loads && i < thread->count; i++)
        give_room_back(&thread->loads[i]);
    free(thread->loads);
}

static bool make_all(struct thread *thread, const struct sidecaml_load_job *jobs) {
    thread->loads = calloc(thread->count, sizeof thread->loads[0]);
    for (uint32_t i = 0; thread->loads && i < thread->count; i++) {
        struct load *load = &thread->loads[i];
        *load = (struct load){.thread = thread, .channel = jobs[i].channel, .what = jobs[i].what, .out = jobs[i].out};
        load->layout = sidecaml_channel_layout(load->channel);
        if (!make_room(load)) return false;
    }
    return thread->loads;
}

static int worst_of(const struct thread *thread, struct sidecaml_failure *why) {
    int status = 0;
    for (uint32_t i = 0; i < thread->count && status == 0; i++)
        status = thread->loads[i].status;
    return status < 0 ? fail(why, -status, "%s", sidecaml_error_text(status)) : 0;
}

int sidecaml_load_run_all(const struct sidecaml_load_job *jobs, uint32_t count, struct sidecaml_failure *why) {
    for (uint32_t i = 0; i < count; i++)
        *jobs[i].out = (struct sidecaml_load_result){0};
    int status = check_all(jobs, count, why);
    if (status < 0) return status;
    struct thread thread = {.count = count};
    if (make_all(&thread, jobs)) {
        run(&thread);
        status = worst_of(&thread, why);
    } else {
        status = fail(why, SIDECAML_E_NO_MEMORY, "no memory for the requests in flight");
    }
    give_all_back(&thread);
    return status;
}

int sidecaml_load_run(sidecaml_channel *channel, const struct sidecaml_load *what, struct sidecaml_load_result *out,
                      struct sidecaml_failure *why) {
    const struct sidecaml_load_job alone = {channel, what, out};
    return sidecaml_load_run_all(&alone, 1, why);
}
