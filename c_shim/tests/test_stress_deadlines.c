/* Runs of many threads that end before, at and after their deadlines: for ThreadSanitizer. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "deadline.h"

#define THREADS 6
#define RUNS 5000
#define IDLE 1000
#define US INT64_C(1000)

/* What a run sees of being told is atomic; `told_for` is not, so that the order of telling and ending shows. */
struct run {
    struct deadline deadline;
    atomic_bool told;
    uint64_t told_for;
    struct numbers numbers;
    int stopped, ended;
};

static void tell(void *context, bool stop) {
    struct run *run = context;
    run->told_for = stop ? sidecaml_now_ns() : 0;
    atomic_store_explicit(&run->told, stop, memory_order_relaxed); /* as ONNX Runtime has it: a mere flag */
}

/* From 30 us ago to 100 us from now, or far away. */
static uint64_t random_deadline(struct run *run) {
    uint64_t now = sidecaml_now_ns(), number = next_number(&run->numbers);
    if (number % 8 == 0) return now + 1000000000;
    return now + (uint64_t)((int64_t)(number / 8 % 130) * US - 30 * US);
}

/* Until it is told, or for a random while where it would end by itself. */
static void work(struct run *run, bool endless) {
    uint64_t end = endless ? UINT64_MAX : sidecaml_now_ns() + next_number(&run->numbers) % 150 * (uint64_t)US;
    while (!atomic_load_explicit(&run->told, memory_order_relaxed) && sidecaml_now_ns() < end)
        cpu_relax();
}

static void run_once(struct run *run) {
    struct sidecaml_failure why;
    uint64_t at = random_deadline(run);
    bool far = at > sidecaml_now_ns() + 100000000;
    CHECK_EQ(deadline_arm(&run->deadline, at, &why), 0);
    work(run, !far && next_number(&run->numbers) % 2);
    if (deadline_disarm(&run->deadline, at))
        run->stopped++;
    else
        run->ended++;
    CHECK_EQ(run->told, false);
    CHECK_EQ(run->told_for, 0);
}

static void *run_all(void *context) {
    struct run *run = context;
    deadline_add(&run->deadline, tell, run);
    for (int i = 0; i < RUNS; i++) {
        run_once(run);
        if (i % 16) continue;
        deadline_remove(&run->deadline);
        deadline_add(&run->deadline, tell, run);
    }
    deadline_remove(&run->deadline);
    return NULL;
}

static void no_deadline_is_lost_and_none_outlives_its_run(void) {
    struct run runs[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        runs[i] = (struct run){.numbers = {(unsigned long long)i + 1}};
        CHECK_EQ(pthread_create(&threads[i], NULL, run_all, &runs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK(runs[i].stopped > 0 && runs[i].ended > 0);
    }
}

/* The watcher wakes for a deadline that is gone and goes to sleep for ever: just then the next one is set, later than
 * the time that the watcher was to wake at. Nobody else would wake it. */
static void a_deadline_set_while_the_watcher_goes_to_sleep_is_seen(void) {
    /* The watcher looks at the youngest first; the others keep it busy between that look and its sleep. */
    static struct run idle[IDLE];
    struct run run = {.numbers = {1}};
    struct sidecaml_failure why;
    for (int i = 0; i < IDLE; i++)
        deadline_add(&idle[i].deadline, tell, &idle[i]);
    deadline_add(&run.deadline, tell, &run);
    for (int i = 0; i < RUNS; i++) {
        uint64_t gone = sidecaml_now_ns() + 10 * (uint64_t)US;
        CHECK_EQ(deadline_arm(&run.deadline, gone, &why), 0);
        if (deadline_disarm(&run.deadline, gone)) continue;
        uint64_t then = gone + next_number(&run.numbers) % (80 * (uint64_t)US);
        while (sidecaml_now_ns() < then)
            cpu_relax();
        uint64_t at = sidecaml_now_ns() + 20 * (uint64_t)US;
        CHECK_EQ(deadline_arm(&run.deadline, at, &why), 0);
        work(&run, true);
        CHECK(deadline_disarm(&run.deadline, at));
    }
    deadline_remove(&run.deadline);
    for (int i = 0; i < IDLE; i++)
        deadline_remove(&idle[i].deadline);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(no_deadline_is_lost_and_none_outlives_its_run)},
        {TEST(a_deadline_set_while_the_watcher_goes_to_sleep_is_seen)},
    };
    return RUN_TESTS(tests, 120);
}
