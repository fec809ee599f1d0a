/* Who holds a lifeline, and who is told of the holder's end. */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "sidecaml/sidecaml.h"

enum { LONG_NS = 2000000000, SHORT_NS = 1000000 };

static struct sidecaml_failure why;

static int new_page(void) {
    int fd = memfd_create("lifeline", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, SIDECAML_PAGE_BYTES), 0);
    return fd;
}

struct holder {
    int fd, status;
    sem_t holds, may_end;
};

static void *hold(void *argument) {
    struct holder *holder = argument;
    struct sidecaml_failure failure;
    holder->status = sidecaml_lifeline_hold(holder->fd, &failure);
    sem_post(&holder->holds);
    sem_wait(&holder->may_end);
    return NULL;
}

static pthread_t begin(struct holder *holder) {
    pthread_t thread;
    *holder = (struct holder){.fd = new_page()};
    sem_init(&holder->holds, 0, 0);
    sem_init(&holder->may_end, 0, 0);
    CHECK_EQ(pthread_create(&thread, NULL, hold, holder), 0);
    sem_wait(&holder->holds);
    CHECK_EQ(holder->status, 0);
    return thread;
}

static void whoever_waits_learns_of_the_end_of_the_thread(void) {
    struct holder holder;
    pthread_t thread = begin(&holder);
    CHECK_EQ(sidecaml_lifeline_wait(holder.fd, SHORT_NS, &why), 0);
    CHECK_EQ(sidecaml_lifeline_wait(holder.fd, SHORT_NS, &why), 0);
    sem_post(&holder.may_end);
    int told = 0;
    for (int i = 0; i < 10 && !told; i++)
        told = sidecaml_lifeline_wait(holder.fd, LONG_NS, &why);
    CHECK_EQ(told, 1);
    pthread_join(thread, NULL);
    CHECK_EQ(sidecaml_lifeline_wait(holder.fd, LONG_NS, &why), 1);
    close(holder.fd);
}

static void a_killed_process_is_told_of_before_it_is_reaped(void) {
    int fd = new_page(), ready[2];
    CHECK_EQ(pipe(ready), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char status = (char)sidecaml_lifeline_hold(fd, &why);
        if (write(ready[1], &status, 1) == 1) pause();
        _exit(1);
    }
    char status = 1;
    CHECK_EQ(read(ready[0], &status, 1), 1);
    CHECK_EQ(status, 0);
    CHECK_EQ(sidecaml_lifeline_wait(fd, SHORT_NS, &why), 0);
    kill(child, SIGKILL);
    int told = 0;
    for (int i = 0; i < 10 && !told; i++)
        told = sidecaml_lifeline_wait(fd, LONG_NS, &why);
    CHECK_EQ(told, 1);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    close(ready[0]);
    close(ready[1]);
    close(fd);
}

static void a_page_that_nobody_holds_says_so(void) {
    int fd = new_page();
    CHECK_EQ(sidecaml_lifeline_wait(fd, LONG_NS, &why), -SIDECAML_E_INVALID);
    CHECK(strstr(why.text, "nobody holds"));
    close(fd);
}

/* Whatever a worker writes there, its supervisor reads within the page and comes back. */
static void a_page_of_nonsense_does_no_harm(void) {
    int fd = new_page();
    uint32_t words[SIDECAML_PAGE_BYTES / 4];
    for (uint32_t seed = 1; seed < 2000; seed++) {
        for (uint32_t i = 0; i < SIDECAML_PAGE_BYTES / 4; i++)
            words[i] = seed * 2654435761u * (i + 1);
        words[0] = seed < 1000 ? seed * 4 : seed * 7919;
        CHECK_EQ(pwrite(fd, words, sizeof words, 0), sizeof words);
        int status = sidecaml_lifeline_wait(fd, 1000, &why);
        CHECK(status == 0 || status == 1 || status == -SIDECAML_E_INVALID);
    }
    close(fd);
}

static void what_is_no_page_is_refused(void) {
    int fd = memfd_create("lifeline", MFD_CLOEXEC);
    CHECK(sidecaml_lifeline_hold(fd, &why) < 0);
    CHECK(sidecaml_lifeline_wait(fd, SHORT_NS, &why) < 0);
    CHECK_EQ(ftruncate(fd, 16), 0);
    CHECK(sidecaml_lifeline_hold(fd, &why) < 0);
    CHECK(sidecaml_lifeline_wait(fd, SHORT_NS, &why) < 0);
    CHECK(sidecaml_lifeline_wait(-1, SHORT_NS, &why) < 0);
    close(fd);
}

int main(void) {
    const struct test tests[] = {
        {TEST(whoever_waits_learns_of_the_end_of_the_thread)},
        {TEST(a_killed_process_is_told_of_before_it_is_reaped)},
        {TEST(a_page_that_nobody_holds_says_so)},
        {TEST(a_page_of_nonsense_does_no_harm)},
        {TEST(what_is_no_page_is_refused)},
    };
    return RUN_TESTS(tests, 60);
}
