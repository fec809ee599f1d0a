#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "deadline.h"

#define MS UINT64_C(1000000)
#define FAR (sidecaml_now_ns() + 3600000 * MS)

/* How often the watcher has been woken. */
static atomic_int signals;

int pthread_cond_signal(pthread_cond_t *condition) {
    static int (*real)(pthread_cond_t *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_cond_signal");
    signals++;
    return real(condition);
}

/* What stands in for a run: it looks at `told` now and then. */
struct run {
    struct deadline deadline;
    atomic_bool told;
    atomic_int times;
};

static void tell(void *context, bool stop) {
    struct run *run = context;
    CHECK(run->told != stop);
    run->told = stop;
    if (stop) run->times++;
}

static void add(struct run *run) {
    run->told = false;
    run->times = 0;
    deadline_add(&run->deadline, tell, run);
}

static void arm(struct run *run, uint64_t at) {
    struct sidecaml_failure why;
    CHECK_EQ(deadline_arm(&run->deadline, at, &why), 0);
}

static void until_told(const struct run *run) {
    while (!run->told)
        usleep(100);
}

static void a_run_is_told_at_its_deadline_and_not_before(void) {
    struct run run;
    add(&run);
    for (int i = 0; i < 20; i++) {
        uint64_t at = sidecaml_now_ns() + 2 * MS;
        arm(&run, at);
        until_told(&run);
        CHECK(sidecaml_now_ns() >= at);
        CHECK(deadline_disarm(&run.deadline, at));
        CHECK(!run.told);
    }
    CHECK_EQ(run.times, 20);
    deadline_remove(&run.deadline);
}

static void a_run_that_ends_in_time_is_never_told(void) {
    struct run run;
    add(&run);
    uint64_t at;
    int tries = 0;
    do { /* this thread may not have been run until then */
        at = sidecaml_now_ns() + 20 * MS;
        arm(&run, at);
    } while (deadline_disarm(&run.deadline, at) && ++tries < 10);
    int before = run.times;
    CHECK(tries < 10);
    usleep(40000);
    CHECK_EQ(run.times, before);
    deadline_remove(&run.deadline);
}

static void an_earlier_deadline_overtakes_a_later_one(void) {
    struct run late, early;
    add(&late), add(&early);
    uint64_t later = FAR, earlier = sidecaml_now_ns() + 2 * MS;
    arm(&late, later);
    usleep(1000);
    arm(&early, earlier);
    until_told(&early);
    CHECK(deadline_disarm(&early.deadline, earlier));
    CHECK(!deadline_disarm(&late.deadline, later));
    deadline_remove(&early.deadline), deadline_remove(&late.deadline);
}

static void a_deadline_that_is_past_is_told_at_once(void) {
    struct run run;
    add(&run);
    arm(&run, 1);
    until_told(&run);
    CHECK(deadline_disarm(&run.deadline, 1));
    deadline_remove(&run.deadline);
}

/* Where the watcher sleeps until an earlier deadline than the new one there is nobody to wake. */
static void setting_later_deadlines_wakes_nobody(void) {
    struct run first, run;
    add(&first), add(&run);
    uint64_t at = FAR;
    arm(&first, at);
    int before;
    do { /* it looks, and goes to sleep */
        usleep(1000);
        before = signals;
        arm(&run, at + 1);
        CHECK(!deadline_disarm(&run.deadline, at + 1));
    } while (signals != before);
    for (uint64_t i = 1; i <= 100000; i++) {
        arm(&run, at + i);
        CHECK(!deadline_disarm(&run.deadline, at + i));
    }
    CHECK_EQ(signals, before);
    CHECK(!deadline_disarm(&first.deadline, at));
    deadline_remove(&first.deadline), deadline_remove(&run.deadline);
}

static void a_child_process_watches_its_own_deadlines(void) {
    struct run told, armed;
    add(&told), add(&armed);
    uint64_t past = 1, at = FAR;
    arm(&told, past);
    until_told(&told);
    arm(&armed, at);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        /* What the parent's threads were in the middle of is not the child's. */
        CHECK(!told.told);
        for (int i = 0; i < 3; i++) {
            uint64_t soon = sidecaml_now_ns() + MS;
            arm(&told, soon), arm(&armed, soon);
            until_told(&told), until_told(&armed);
            CHECK(deadline_disarm(&told.deadline, soon) && deadline_disarm(&armed.deadline, soon));
        }
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(deadline_disarm(&told.deadline, past));
    CHECK(!deadline_disarm(&armed.deadline, at));
    deadline_remove(&told.deadline), deadline_remove(&armed.deadline);
}

static volatile sig_atomic_t handled_by;

static void note_thread(int signal) {
    (void)signal;
    handled_by = gettid();
}

static void no_signal_handler_runs_on_the_watchers_thread(void) {
    struct run run;
    struct sigaction action = {.sa_handler = note_thread}, before;
    sigset_t usr1;
    add(&run);
    arm(&run, 1);
    until_told(&run);
    CHECK(deadline_disarm(&run.deadline, 1));
    CHECK_EQ(sigaction(SIGUSR1, &action, &before), 0);
    /* Nobody else takes it: had the watcher not blocked it, it would. */
    sigemptyset(&usr1), sigaddset(&usr1, SIGUSR1);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &usr1, NULL), 0);
    CHECK_EQ(kill(getpid(), SIGUSR1), 0);
    usleep(20000);
    CHECK_EQ(handled_by, 0);
    CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &usr1, NULL), 0);
    CHECK_EQ(handled_by, gettid());
    CHECK_EQ(sigaction(SIGUSR1, &before, NULL), 0);
    deadline_remove(&run.deadline);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(a_run_is_told_at_its_deadline_and_not_before)},  {TEST(a_run_that_ends_in_time_is_never_told)},
        {TEST(an_earlier_deadline_overtakes_a_later_one)},     {TEST(a_deadline_that_is_past_is_told_at_once)},
        {TEST(setting_later_deadlines_wakes_nobody)},          {TEST(a_child_process_watches_its_own_deadlines)},
        {TEST(no_signal_handler_runs_on_the_watchers_thread)},
    };
    return RUN_TESTS(tests, 60);
}
