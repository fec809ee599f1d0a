#define _GNU_SOURCE
#include "system.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "clock.h"
#include "doorbell.h"
#include "guard.h"
#include "mapping.h"
#include "machine.h"
#include "mutants.h"
#include "served.h"

sidecaml_worker *worker;
sidecaml_channel *channels[MOST_CHANNELS];

static uint32_t channel_count;
static struct sidecaml_layout layout;

/* --- Descriptors ------------------------------------------------------------------------------------------------- */

#define FIRST_BELL_FD 1000
#define FIRST_SEGMENT_FD 2000
#define STATUS_FD 3000
#define EPOLL_FD 3001
#define FIRST_JOURNAL_FD 4000

static int fd_of_bell(int bell) {
    return FIRST_BELL_FD + bell;
}

static int bell_of_fd(int fd) {
    return fd - FIRST_BELL_FD;
}

/* --- Shared memory ----------------------------------------------------------------------------------------------- */

#define MOST_SEGMENT_BYTES 16384
static _Alignas(SIDECAML_PAGE_BYTES) uint8_t segments[MOST_CHANNELS][MOST_SEGMENT_BYTES];
static _Alignas(SIDECAML_PAGE_BYTES) uint8_t status_bytes[SIDECAML_PAGE_BYTES];
static struct sidecaml_journal journals[MOST_CHANNELS];

static uint8_t *memory_of_fd(int fd, uint64_t *bytes) {
    if (fd == STATUS_FD) {
        *bytes = sizeof status_bytes;
        return status_bytes;
    }
    if (fd >= FIRST_JOURNAL_FD && fd < FIRST_JOURNAL_FD + MOST_CHANNELS) {
        *bytes = sizeof journals[0];
        return (uint8_t *)&journals[fd - FIRST_JOURNAL_FD];
    }
    int index = fd - FIRST_SEGMENT_FD;
    if (index < 0 || index >= MOST_CHANNELS) abort();
    *bytes = layout.segment_bytes;
    return segments[index];
}

/* Client and worker get the same address, as each place is known by its address. */
void *__real_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    if (fd < 0) return __real_mmap(address, length, protection, flags, fd, offset); /* the scheduler's own */
    uint64_t bytes;
    uint8_t *memory = memory_of_fd(fd, &bytes);
    if (length != bytes) abort();
    return memory;
}

int __wrap_fstat(int fd, struct stat *info);
int __wrap_fstat(int fd, struct stat *info) {
    uint64_t bytes;
    memory_of_fd(fd, &bytes);
    *info = (struct stat){.st_size = (off_t)bytes};
    return 0;
}

int __wrap_close(int fd);
int __wrap_close(int fd) {
    (void)fd;
    return 0;
}

/* Nobody takes pages away here. */
struct guarded *__wrap_guard_add(void *base, uint64_t bytes);
struct guarded *__wrap_guard_add(void *base, uint64_t bytes) {
    static struct guarded unbroken;
    (void)base, (void)bytes;
    return &unbroken;
}

/* --- Private memory ---------------------------------------------------------------------------------------------- */

#define ARENA_BYTES (1 << 20)
#define MOST_BLOCKS 64
/* A block's layout lies at its end and never changes: its front is what steps change, which is checked. */
#define CHANGING_BYTES 512

static _Alignas(64) uint8_t arena[ARENA_BYTES];
static struct {
    size_t used;
    int count;
    struct block {
        size_t at;
        size_t bytes;
    } blocks[MOST_BLOCKS];
} heap;

void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size) {
    size_t bytes = (count * size + 63) / 64 * 64;
    if (heap.count == MOST_BLOCKS || heap.used + bytes > ARENA_BYTES) abort();
    heap.blocks[heap.count].at = heap.used;
    heap.blocks[heap.count++].bytes = bytes;
    heap.used += bytes;
    /* What another schedule left there. */
    return memset(arena + heap.used - bytes, 0, bytes);
}

void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes) {
    return __wrap_calloc(1, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    if (alignment > 64) abort();
    return __wrap_calloc(1, bytes);
}

void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes) {
    void *larger = __wrap_calloc(1, bytes);
    /* What lies behind a smaller block is copied along: never read. */
    if (old) memmove(larger, old, bytes);
    return larger;
}

void __wrap_free(void *memory);
void __wrap_free(void *memory) {
    (void)memory;
}

/* --- Sleeping ---------------------------------------------------------------------------------------------------- */

uint64_t sidecaml_now_ns(void) {
    return thread_clock();
}

uint64_t coarse_now_ns(void) {
    return thread_clock();
}

int __wrap_sched_getcpu(void);
int __wrap_sched_getcpu(void) {
    return 0;
}

struct doorbell doorbell_of(int fd) {
    return (struct doorbell){.fd = fd};
}

void doorbell_post(struct doorbell bell) {
    bell_post(bell_of_fd(bell.fd));
}

void doorbell_post_unless_full(struct doorbell bell) {
    bell_post(bell_of_fd(bell.fd));
}

uint32_t doorbell_drain(struct doorbell bell, uint32_t most) {
    bell_drain(bell_of_fd(bell.fd), most);
    return 0; /* how many matters only where more came than requests */
}

int doorbell_sleep(struct doorbell answer, int control_fd, uint64_t timeout_ns) {
    uint32_t woke = bell_sleep(1u << bell_of_fd(answer.fd), bell_of_fd(control_fd), timeout_ns != UINT64_MAX);
    if (woke & SLEEP_TIMEOUT) return WOKE_TIMEOUT;
    return woke & SLEEP_CONTROL ? WOKE_CONTROL : WOKE_ANSWER;
}

bool control_is_ready(int control_fd) {
    return bell_count(bell_of_fd(control_fd)) > 0;
}

/* The daemon has closed the control socket. */
ssize_t __wrap_recv(int fd, void *buffer, size_t length, int flags);
ssize_t __wrap_recv(int fd, void *buffer, size_t length, int flags) {
    (void)buffer, (void)length, (void)flags;
    if (bell_count(bell_of_fd(fd)) > 0) return 0;
    errno = EAGAIN;
    return -1;
}

static struct {
    int count;
    struct {
        int bell;
        uint32_t mark;
    } by[2 * MOST_CHANNELS];
} watched;

int __wrap_epoll_create1(int flags);
int __wrap_epoll_create1(int flags) {
    (void)flags;
    watched.count = 0;
    return EPOLL_FD;
}

int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event) {
    if (epoll_fd != EPOLL_FD || operation != EPOLL_CTL_ADD) abort();
    watched.by[watched.count].bell = bell_of_fd(fd);
    watched.by[watched.count++].mark = event->data.u32;
    return 0;
}

int __wrap_epoll_pwait2(int epoll_fd, struct epoll_event *events, int most, const struct timespec *timeout,
                        const sigset_t *mask);
int __wrap_epoll_pwait2(int epoll_fd, struct epoll_event *events, int most, const struct timespec *timeout,
                        const sigset_t *mask) {
    (void)epoll_fd, (void)mask;
    uint32_t bells = 0;
    for (int i = 0; i < watched.count; i++)
        if (watched.by[i].bell != WORKER_CONTROL_BELL) bells |= 1u << watched.by[i].bell;
    uint32_t woke = bell_sleep(bells, WORKER_CONTROL_BELL, timeout != NULL);
    int count = 0;
    for (int i = 0; i < watched.count && count < most; i++) {
        bool control = watched.by[i].bell == WORKER_CONTROL_BELL;
        if (control ? woke & SLEEP_CONTROL : woke & ~SLEEP_TIMEOUT & 1u << watched.by[i].bell)
            events[count++] = (struct epoll_event){.events = EPOLLIN, .data.u32 = watched.by[i].mark};
    }
    return count;
}

/* --- Start and restart ------------------------------------------------------------------------------------------- */

static uint8_t first_arena[ARENA_BYTES];

static size_t changing_bytes(int block) {
    return heap.blocks[block].bytes < CHANGING_BYTES ? heap.blocks[block].bytes : CHANGING_BYTES;
}

/* Of the blocks that were there when the schedules began. */
static int first_count;

/* Aborts when a step changed what counts as unchanging. */
static void check_unchanged(void) {
    for (int i = 0; i < first_count; i++) {
        size_t front = heap.blocks[i].at + changing_bytes(i);
        if (memcmp(arena + front, first_arena + front, heap.blocks[i].at + heap.blocks[i].bytes - front) != 0) abort();
    }
}

static struct sidecaml_worker_fds worker_fds(uint32_t index) {
    return (struct sidecaml_worker_fds){FIRST_SEGMENT_FD + (int)index, fd_of_bell(REQUEST_BELL((int)index)),
                                        fd_of_bell(ANSWER_BELL((int)index)), FIRST_JOURNAL_FD + (int)index};
}

/* How many blocks a worker with one channel takes. */
static int blocks_of_worker;

/* --- Batches: the only tensor is an input that all requests share, so nothing lies along an axis --- */

#define BATCH_MOST 2
static sidecaml_runner run_alone, run_together;
static uint32_t slot_numbers[BATCH_MOST] = {0, 1};

void system_expect_batches(sidecaml_runner alone, sidecaml_runner together) {
    run_alone = alone;
    run_together = together;
}

static int bind_batch(void *context, void *const *addresses, const uint64_t (*dims)[SIDECAML_MAX_RANK], void **runner,
                      struct sidecaml_failure *why) {
    (void)context, (void)addresses, (void)dims, (void)why;
    *runner = &run_together;
    return 0;
}

static void drop_batch(void *runner) {
    (void)runner;
}

static void set_batching(void) {
    static const int32_t axes[] = {SIDECAML_SHARED};
    static const uint64_t costs_ns[BATCH_MOST + 1];
    const struct sidecaml_batching batching = {.most = BATCH_MOST,
                                               .gather_from = 2,
                                               .tensor_count = 1,
                                               .axes = axes,
                                               .costs_ns = costs_ns,
                                               .bind = bind_batch,
                                               .run = run_together,
                                               .drop = drop_batch};
    if (run_together && sidecaml_worker_set_batching(worker, &batching, NULL) != 0) abort();
}

/* What a worker makes when it first needs it is made at once: no step may take memory. */
static void warm_up(uint32_t index) {
    if (!run_together) return;
    struct served_channel *channel = worker->channels[index];
    struct taken both[BATCH_MOST] = {{.channel = channel}, {.channel = channel}};
    for (uint32_t slot = 0; slot < BATCH_MOST; slot++) {
        const struct sidecaml_bound bound = {.run = run_alone, .context = &slot_numbers[slot]};
        if (sidecaml_worker_bind(worker, index, slot, &bound, NULL) != 0) abort();
        both[slot].request.slot = slot;
        both[slot].is_native = true;
    }
    struct kind *kind = channel->kind;
    struct batch_run run = {0};
    if (!kind || channel->runs_alone ||
        !batch_prepare(&worker->batcher, kind, both, BATCH_MOST, worker->channels, worker->count, &run))
        abort();
}

static void open_channel(uint32_t index) {
    struct sidecaml_worker_fds served = worker_fds(index);
    struct sidecaml_channel_fds used = {served.segment, served.request, served.answer, STATUS_FD,
                                        fd_of_bell(CLIENT_CONTROL_BELL)};
    if (sidecaml_worker_attach(worker, &served, &layout, 0, NULL) != (int)index) abort();
    warm_up(index);
    blocks_of_worker = heap.count;
    if (sidecaml_channel_attach(&used, layout.fingerprint, SIDECAML_BLOCK, &channels[index], NULL) != 0) abort();
}

static int deaths_expected;
static bool resumes;

void system_expect_deaths(int most) {
    deaths_expected = most;
}

/* Where the heap ends without successors, of whom one lives at a time. */
static size_t used_before;
static int count_before;

/* A successor's blocks will have the sizes of the first worker's. */
static void register_successors(void) {
    register_place(&journals[0].started, STARTED);
    register_place(&journals[0].committed, COMMITTED);
    register_region(&heap, sizeof heap);
    register_region(&watched, sizeof watched);
    register_region(&worker, sizeof worker);
    register_region(&resumes, sizeof resumes);
    size_t at = used_before = heap.used;
    count_before = heap.count;
    for (int i = 0; i < blocks_of_worker; i++) {
        register_region(arena + at, changing_bytes(i));
        at += heap.blocks[i].bytes;
    }
}

static void register_memory(void) {
    register_place(&((struct sidecaml_status_page *)status_bytes)->parked, PARKED);
    register_region(status_bytes, sizeof(struct sidecaml_status_page) / 8); /* its counters are at the front */
    for (uint32_t i = 0; i < channel_count; i++) {
        register_place(&client_block_of(segments[i], &layout)->waiting, WAITING);
        for (uint32_t slot = 0; slot < layout.slot_count; slot++)
            register_place(&slots_of(segments[i], &layout)[slot].word, WORD);
        register_region(slots_of(segments[i], &layout), layout.slot_count * sizeof(struct sidecaml_slot));
        register_region(&journals[i], offsetof(struct sidecaml_journal, reserved1));
    }
    for (int i = 0; i < heap.count; i++)
        register_region(arena + heap.blocks[i].at, changing_bytes(i));
    if (deaths_expected) register_successors();
}

void system_start(uint32_t count, uint32_t slots) {
    struct sidecaml_tensor_spec spec = {.name = "x", .dtype = SIDECAML_UINT8};
    if (sidecaml_layout_compute(&spec, 1, slots, 1, &layout, NULL) != 0) abort();
    if (layout.segment_bytes > MOST_SEGMENT_BYTES) abort();
    check_unchanged();
    memset(arena, 0, sizeof arena);
    memset(segments, 0, sizeof segments);
    memset(status_bytes, 0, sizeof status_bytes);
    memset(journals, 0, sizeof journals);
    resumes = false;
    heap.used = 0;
    heap.count = 0;
    channel_count = count;
    if (sidecaml_worker_create(STATUS_FD, 0, fd_of_bell(WORKER_CONTROL_BELL), SIDECAML_BLOCK, &worker, NULL) != 0)
        abort();
    set_batching();
    for (uint32_t i = 0; i < count; i++)
        open_channel(i);
    memcpy(first_arena, arena, sizeof arena);
    first_count = heap.count;
    register_memory();
}

bool system_resumes(void) {
    return resumes;
}

void system_take_over(void) {
    struct sidecaml_worker_fds served = worker_fds(0);
    uint32_t how = mutant_is(RESUME_FORMATS) ? 0 : SIDECAML_ATTACH_RESUME;
    /* In the place of one that died, at whatever point: always where the regions are. */
    heap.used = used_before;
    heap.count = count_before;
    if (sidecaml_worker_create(STATUS_FD, 0, fd_of_bell(WORKER_CONTROL_BELL), SIDECAML_BLOCK, &worker, NULL) != 0)
        abort();
    set_batching();
    resumes = true;
    if (sidecaml_worker_attach(worker, &served, &layout, how, NULL) != 0) abort();
    resumes = false;
    warm_up(0);
}

uint64_t system_hash(void) {
    uint64_t hash = 0;
    for (int i = 0; i < heap.count; i++) {
        const uint64_t *now = (const uint64_t *)(arena + heap.blocks[i].at);
        const uint64_t *first = (const uint64_t *)(first_arena + heap.blocks[i].at);
        for (size_t w = 0; w < changing_bytes(i) / sizeof now[0]; w++)
            if (now[w] != first[w]) hash = mix(mix(hash, w), now[w]);
    }
    return hash;
}

uint64_t slot_word(uint32_t channel, uint32_t slot) {
    return slots_of(segments[channel], &layout)[slot].word;
}

const struct sidecaml_status_page *status_page(void) {
    return (const struct sidecaml_status_page *)status_bytes;
}
