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
#include "mapping.h"
#include "machine.h"

sidecaml_worker *worker;
sidecaml_channel *channels[MOST_CHANNELS];

static uint32_t channel_count;
static struct sidecaml_layout layout;

/* --- Descriptors ------------------------------------------------------------------------------------------------- */

#define FIRST_BELL_FD 1000
#define FIRST_SEGMENT_FD 2000
#define STATUS_FD 3000
#define EPOLL_FD 3001

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

static uint8_t *memory_of_fd(int fd, uint64_t *bytes) {
    if (fd == STATUS_FD) {
        *bytes = sizeof status_bytes;
        return status_bytes;
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

/* --- Private memory ---------------------------------------------------------------------------------------------- */

#define ARENA_BYTES (1 << 20)
#define MOST_BLOCKS 16
/* A block's layout lies at its end and never changes: its front is what steps change, which is checked. */
#define CHANGING_BYTES 512

static _Alignas(64) uint8_t arena[ARENA_BYTES];
static size_t arena_used;
static struct block {
    size_t at;
    size_t bytes;
} blocks[MOST_BLOCKS];
static int block_count;

void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size) {
    size_t bytes = (count * size + 63) / 64 * 64;
    if (block_count == MOST_BLOCKS || arena_used + bytes > ARENA_BYTES) abort();
    blocks[block_count].at = arena_used;
    blocks[block_count++].bytes = bytes;
    arena_used += bytes;
    return arena + arena_used - bytes;
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

void doorbell_post(int fd) {
    bell_post(bell_of_fd(fd));
}

void doorbell_post_unless_full(int fd) {
    bell_post(bell_of_fd(fd));
}

void doorbell_drain(int fd, uint32_t most) {
    bell_drain(bell_of_fd(fd), most);
}

int doorbell_sleep(int answer_fd, int control_fd, uint64_t timeout_ns) {
    uint32_t woke = bell_sleep(1u << bell_of_fd(answer_fd), bell_of_fd(control_fd), timeout_ns != UINT64_MAX);
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
    int bell;
    uint32_t mark;
} watched[2 * MOST_CHANNELS];
static int watched_count;

int __wrap_epoll_create1(int flags);
int __wrap_epoll_create1(int flags) {
    (void)flags;
    watched_count = 0;
    return EPOLL_FD;
}

int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event) {
    if (epoll_fd != EPOLL_FD || operation != EPOLL_CTL_ADD) abort();
    watched[watched_count].bell = bell_of_fd(fd);
    watched[watched_count++].mark = event->data.u32;
    return 0;
}

int __wrap_epoll_pwait2(int epoll_fd, struct epoll_event *events, int most, const struct timespec *timeout,
                        const sigset_t *mask);
int __wrap_epoll_pwait2(int epoll_fd, struct epoll_event *events, int most, const struct timespec *timeout,
                        const sigset_t *mask) {
    (void)epoll_fd, (void)mask;
    uint32_t bells = 0;
    for (int i = 0; i < watched_count; i++)
        if (watched[i].bell != WORKER_CONTROL_BELL) bells |= 1u << watched[i].bell;
    uint32_t woke = bell_sleep(bells, WORKER_CONTROL_BELL, timeout != NULL);
    int count = 0;
    for (int i = 0; i < watched_count && count < most; i++) {
        bool control = watched[i].bell == WORKER_CONTROL_BELL;
        if (control ? woke & SLEEP_CONTROL : woke & ~SLEEP_TIMEOUT & 1u << watched[i].bell)
            events[count++] = (struct epoll_event){.events = EPOLLIN, .data.u32 = watched[i].mark};
    }
    return count;
}

/* --- Start and restart ------------------------------------------------------------------------------------------- */

static uint8_t first_arena[ARENA_BYTES];

static size_t changing_bytes(int block) {
    return blocks[block].bytes < CHANGING_BYTES ? blocks[block].bytes : CHANGING_BYTES;
}

/* Aborts when a step changed what counts as unchanging. */
static void check_unchanged(void) {
    for (int i = 0; i < block_count; i++) {
        size_t front = blocks[i].at + changing_bytes(i);
        if (memcmp(arena + front, first_arena + front, blocks[i].at + blocks[i].bytes - front) != 0) abort();
    }
}

static void open_channel(uint32_t index) {
    struct sidecaml_worker_fds served = {FIRST_SEGMENT_FD + (int)index, fd_of_bell(REQUEST_BELL((int)index)),
                                         fd_of_bell(ANSWER_BELL((int)index))};
    struct sidecaml_channel_fds used = {served.segment, served.request, served.answer, STATUS_FD,
                                        fd_of_bell(CLIENT_CONTROL_BELL)};
    if (sidecaml_worker_attach(worker, &served, &layout, NULL) != (int)index) abort();
    if (sidecaml_channel_attach(&used, layout.fingerprint, SIDECAML_BLOCK, &channels[index], NULL) != 0) abort();
}

static void register_memory(void) {
    register_place(&((struct sidecaml_status_page *)status_bytes)->parked, PARKED);
    register_region(status_bytes, sizeof(struct sidecaml_status_page) / 8); /* its counters are at the front */
    for (uint32_t i = 0; i < channel_count; i++) {
        register_place(&client_block_of(segments[i], &layout)->waiting, WAITING);
        for (uint32_t slot = 0; slot < layout.slot_count; slot++)
            register_place(&slots_of(segments[i], &layout)[slot].word, WORD);
        register_region(slots_of(segments[i], &layout), layout.slot_count * sizeof(struct sidecaml_slot));
    }
    for (int i = 0; i < block_count; i++)
        register_region(arena + blocks[i].at, changing_bytes(i));
}

void system_start(uint32_t count, uint32_t slots) {
    struct sidecaml_tensor_spec spec = {.name = "x", .dtype = SIDECAML_UINT8};
    if (sidecaml_layout_compute(&spec, 1, slots, 1, &layout, NULL) != 0) abort();
    if (layout.segment_bytes > MOST_SEGMENT_BYTES) abort();
    check_unchanged();
    memset(arena, 0, sizeof arena);
    memset(segments, 0, sizeof segments);
    memset(status_bytes, 0, sizeof status_bytes);
    arena_used = 0;
    block_count = 0;
    channel_count = count;
    if (sidecaml_worker_create(STATUS_FD, fd_of_bell(WORKER_CONTROL_BELL), SIDECAML_BLOCK, &worker, NULL) != 0) abort();
    for (uint32_t i = 0; i < count; i++)
        open_channel(i);
    memcpy(first_arena, arena, sizeof arena);
    register_memory();
}

uint64_t system_hash(void) {
    uint64_t hash = 0;
    for (int i = 0; i < block_count; i++) {
        const uint64_t *now = (const uint64_t *)(arena + blocks[i].at);
        const uint64_t *first = (const uint64_t *)(first_arena + blocks[i].at);
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
