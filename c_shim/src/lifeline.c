/* A page that tells that a thread is over, sooner than its process does.
 *
 * A pidfd and a socket tell only when the kernel has taken the memory of the dead apart, which takes milliseconds for
 * each hundred megabytes, and longer where processors are short. A robust mutex is released before that. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "atomics.h"
#include "failure.h"
#include "mapping.h"

/* The page: where the mutex keeps its owner, 0 while there is none; the mutex. Both lie as one C library has them, that
 * of the holder; whoever waits believes neither and only looks. */
struct lifeline {
    _Atomic uint32_t owner_offset;
    _Alignas(64) pthread_mutex_t mutex;
};

_Static_assert(sizeof(struct lifeline) <= SIDECAML_PAGE_BYTES, "it is one page");

/* The word of a locked mutex that has the thread's number: the C library does not say which. */
static uint32_t owner_offset_of(const struct lifeline *line) {
    const uint32_t *words = (const uint32_t *)&line->mutex, tid = (uint32_t)gettid();
    for (uint32_t i = 0; i < sizeof line->mutex / sizeof *words; i++)
        if (words[i] == tid) return (uint32_t)((const uint8_t *)&words[i] - (const uint8_t *)line);
    return 0;
}

static int lock(pthread_mutex_t *mutex) {
    pthread_mutexattr_t how;
    pthread_mutexattr_init(&how);
    pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
    int error = pthread_mutex_init(mutex, &how);
    pthread_mutexattr_destroy(&how);
    return error ? error : pthread_mutex_lock(mutex);
}

int sidecaml_lifeline_hold(int fd, struct sidecaml_failure *why) {
    struct mapping page;
    int status = mapping_open(&page, fd, true, true, "the lifeline", why);
    if (status < 0) return status;
    /* Mapped for good: the mutex is in the thread's list of those that it holds. */
    struct lifeline *line = (void *)page.base;
    if (page.bytes < sizeof *line) return fail(why, SIDECAML_E_CORRUPT, "the lifeline is smaller than a page");
    errno = lock(&line->mutex);
    if (errno) return fail_errno(why, "holding the lifeline");
    store32(&line->owner_offset, owner_offset_of(line), release);
    return 0;
}

static int wait_on(_Atomic uint32_t *owner, uint64_t timeout_ns) {
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000), .tv_nsec = (long)(timeout_ns % 1000000000)};
    uint32_t seen = load32(owner, acquire);
    if (!(seen & FUTEX_TID_MASK) || seen & FUTEX_OWNER_DIED) return 1;
    /* Without the bit the kernel wakes nobody. An owner that dies now makes the exchange fail, or leaves the bit. */
    if (!(seen & FUTEX_WAITERS) && !atomic_compare_exchange_strong_explicit(owner, &seen, seen | FUTEX_WAITERS,
                                                                            memory_order_acq_rel, memory_order_acquire))
        return 0;
    syscall(SYS_futex, owner, FUTEX_WAIT, seen | FUTEX_WAITERS, &timeout, NULL, 0);
    seen = load32(owner, acquire);
    return !(seen & FUTEX_TID_MASK) || seen & FUTEX_OWNER_DIED;
}

int sidecaml_lifeline_wait(int fd, uint64_t timeout_ns, struct sidecaml_failure *why) {
    struct mapping page;
    int status = mapping_open(&page, fd, true, false, "the lifeline", why);
    if (status < 0) return status;
    uint32_t offset = 0;
    if (page.bytes >= SIDECAML_PAGE_BYTES)
        offset = load32(&((struct lifeline *)(void *)page.base)->owner_offset, acquire);
    bool is_word = offset && offset % sizeof offset == 0 && offset <= SIDECAML_PAGE_BYTES - sizeof offset;
    if (is_word)
        status = wait_on((void *)(page.base + offset), timeout_ns);
    else
        status = fail(why, SIDECAML_E_INVALID, "nobody holds the lifeline");
    mapping_close(&page);
    return status;
}
