/* Threads that fault while others enter and remove ranges. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "guard.h"
#include "pair.h"

#define PAGE ((uint64_t)sysconf(_SC_PAGESIZE))
#define PAGES 8

/* A file of PAGES pages of ones, guarded. */
struct file {
    int fd;
    volatile uint8_t *bytes;
    struct guarded *range;
};

static void open_file(struct file *file) {
    file->fd = make_memfd(PAGES * PAGE);
    file->bytes = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
    CHECK((void *)file->bytes != MAP_FAILED);
    memset((void *)file->bytes, 1, PAGES * PAGE);
    file->range = guard_add((void *)file->bytes, PAGES * PAGE);
    CHECK(file->range);
}

static void close_file(struct file *file) {
    guard_remove(file->range);
    CHECK_EQ(munmap((void *)file->bytes, PAGES * PAGE), 0);
    close(file->fd);
}

static void shorten(const struct file *file, uint64_t pages) {
    CHECK_EQ(ftruncate(file->fd, (off_t)(pages * PAGE)), 0);
}

static uint64_t all_bytes(const struct file *file) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < PAGES; i++)
        sum += file->bytes[i * PAGE];
    return sum;
}

static struct file shared;
static _Atomic uint32_t stop;

/* ThreadSanitizer leaves it alone: it makes its accesses under locks of its own, and would fault while it holds one. */
__attribute__((no_sanitize("thread"))) static void touch(void) {
    for (uint64_t i = PAGES; i-- > 0;)
        shared.bytes[i * PAGE + 64]++;
}

static void *touch_until_told(void *unused) {
    (void)unused;
    while (!load32(&stop, acquire))
        touch();
    return NULL;
}

static void any_thread_may_fault_while_ranges_come_and_go(void) {
    CHECK_EQ(sidecaml_guard(NULL), 0);
    for (int round = 0; round < 60; round++) {
        pthread_t threads[3];
        store32(&stop, 0, release);
        open_file(&shared);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, touch_until_told, NULL), 0);
        for (int i = 0; i < 10; i++) {
            struct file passing;
            open_file(&passing);
            if (i == 4) shorten(&shared, (uint64_t)round % PAGES);
            if (i == 7) shorten(&shared, PAGES);
            if (i == 8) shorten(&shared, 0);
            if (i % 2) shorten(&passing, 0);
            CHECK_EQ(all_bytes(&passing), i % 2 ? 0 : PAGES);
            close_file(&passing);
        }
        while (!guard_is_broken(shared.range))
            sched_yield();
        store32(&stop, 1, release);
        for (int i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
        close_file(&shared);
    }
    signal(SIGBUS, SIG_DFL);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(any_thread_may_fault_while_ranges_come_and_go)},
    };
    return RUN_TESTS(tests, 60);
}
