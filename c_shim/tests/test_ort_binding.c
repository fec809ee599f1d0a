#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "ort.h"

#define MS UINT64_C(1000000)

static sidecaml_session *session;
static sidecaml_binding *binding;

static void open_model(const char *name) {
    session = load(name);
    CHECK_EQ(sidecaml_binding_create(session, &binding, &why), 0);
}

static void close_model(void) {
    sidecaml_binding_destroy(binding);
    sidecaml_session_destroy(session);
}

static void open_library(void) {
    sidecaml_session_destroy(load("identity"));
    sidecaml_binding_destroy(NULL);
}

/* --- Binding ----------------------------------------------------------------------------------------------------- */

static const uint64_t four[] = {4};

static void a_run_reads_and_writes_the_callers_memory(void) {
    float x[] = {1, 2, 3, 4}, y[4] = {0};
    const struct sidecaml_output *outputs;
    uint32_t count;
    open_model("identity");
    bind_floats(binding, "x", false, four, 1, x);
    bind_floats(binding, "y", true, four, 1, y);
    CHECK_EQ(sidecaml_binding_run(binding, &why), 0);
    CHECK(memcmp(x, y, sizeof x) == 0);
    CHECK_EQ(sidecaml_binding_outputs(binding, &outputs, &count, &why), 0);
    CHECK_EQ(count, 1);
    CHECK(outputs[0].address == y);
    CHECK_EQ(outputs[0].bytes, sizeof y);
    CHECK_EQ(outputs[0].rank, 1);
    CHECK_EQ(outputs[0].dims[0], 4);
    close_model();
}

static void an_output_may_lie_anywhere(void) {
    float x[] = {0, 1, 0, 2, 0, 0, 3, 0};
    const struct sidecaml_output *outputs;
    uint32_t count;
    open_model("data_dependent");
    bind_floats(binding, "x", false, (const uint64_t[]){8}, 1, x);
    CHECK_EQ(sidecaml_binding_output_anywhere(binding, "y", &why), 0);
    CHECK_EQ(sidecaml_binding_run(binding, &why), 0);
    CHECK_EQ(sidecaml_binding_outputs(binding, &outputs, &count, &why), 0);
    CHECK_EQ(outputs[0].rank, 2);
    CHECK_EQ(outputs[0].dims[1], 3);
    CHECK_EQ(((int64_t *)outputs[0].address)[2], 6);
    close_model();
}

/* Two strings of eight bytes of text. */
struct strings_of_two {
    uint64_t table[3];
    char text[8];
};

static struct sidecaml_strings_place place_of(struct strings_of_two *strings) {
    return (struct sidecaml_strings_place){strings->table, 2, sizeof strings->text};
}

static int run_strings(const struct sidecaml_strings_place *place, const struct sidecaml_output **outputs) {
    const uint64_t two[] = {2};
    uint32_t count;
    int status = sidecaml_binding_input_strings(binding, "x", two, 1, place, &why);
    if (status == 0) status = sidecaml_binding_output_anywhere(binding, "y", &why);
    if (status == 0) status = sidecaml_binding_run(binding, &why);
    return status < 0 ? status : sidecaml_binding_outputs(binding, outputs, &count, &why);
}

static void strings_go_through_with_every_byte(void) {
    struct strings_of_two x = {{0, 3, 5}, "a\0b\xc3\xa9"}, y;
    const struct sidecaml_strings_place in = place_of(&x), out = place_of(&y);
    const struct sidecaml_output *outputs;
    open_model("strings");
    for (uint64_t middle = 0; middle <= 3; middle++) {
        x.table[1] = middle;
        memset(&y, 0xff, sizeof y);
        CHECK_EQ(run_strings(&in, &outputs), 0);
        CHECK(outputs[0].address == NULL);
        CHECK_EQ(outputs[0].bytes, 5);
        CHECK_EQ(outputs[0].dims[0], 2);
        CHECK_EQ(sidecaml_binding_copy_strings(binding, 0, "y", &out, &why), 0);
        CHECK(memcmp(x.table, y.table, sizeof x.table) == 0);
        CHECK(memcmp(x.text, y.text, 5) == 0);
        CHECK_EQ((unsigned char)y.text[5], 0xff);
    }
    close_model();
}

static void strings_without_room_are_not_copied(void) {
    struct strings_of_two x = {{0, 3, 5}, "abcde"}, y = {{7, 7, 7}, "yyyyyyy"};
    const struct sidecaml_strings_place in = place_of(&x), out = place_of(&y);
    struct sidecaml_strings_place shorter = out, narrower = out;
    const struct sidecaml_output *outputs;
    open_model("strings");
    CHECK_EQ(run_strings(&in, &outputs), 0);
    narrower.text_bytes = 4;
    shorter.most = 1;
    CHECK_EQ(sidecaml_binding_copy_strings(binding, 0, "y", &narrower, &why), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_binding_copy_strings(binding, 0, "y", &shorter, &why), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_binding_copy_strings(binding, 1, "y", &out, &why), -SIDECAML_E_INVALID);
    CHECK(y.table[0] == 7 && y.text[0] == 'y');
    close_model();
}

static void bad_strings_are_told_and_the_next_ones_work(void) {
    struct strings_of_two x = {{0, 9, 9}, "abcde"};
    const struct sidecaml_strings_place in = place_of(&x);
    const struct sidecaml_output *outputs;
    open_model("strings");
    CHECK_EQ(run_strings(&in, &outputs), -SIDECAML_E_BAD_STRINGS);
    CHECK_SAYS(why.text, "input 'x': string 0 ends at byte 9");
    x.table[1] = x.table[2] = 5;
    CHECK_EQ(run_strings(&in, &outputs), 0);
    CHECK_EQ(sidecaml_binding_input(binding, "x", SIDECAML_STRING, (const uint64_t[]){2}, 1, &x, &why),
             -SIDECAML_E_INVALID);
    close_model();
}

static int bind_input(const char *name, uint32_t dtype, const uint64_t *dims, uint32_t rank, void *address) {
    return sidecaml_binding_input(binding, name, dtype, dims, rank, address, &why);
}

static void places_that_no_tensor_has_are_refused(void) {
    float x[4] = {0};
    const uint64_t huge[] = {UINT64_C(1) << 62, 4}, negative[] = {UINT64_MAX};
    open_model("identity");
    CHECK_EQ(bind_input("x", 99, four, 1, x), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "element type 99");
    CHECK_EQ(bind_input("x", SIDECAML_FLOAT32, four, 1, NULL), -SIDECAML_E_INVALID);
    CHECK_EQ(bind_input("x", SIDECAML_FLOAT32, huge, 2, x), -SIDECAML_E_INVALID);
    CHECK_EQ(bind_input("x", SIDECAML_FLOAT32, negative, 1, x), -SIDECAML_E_INVALID);
    CHECK_EQ(bind_input("x", SIDECAML_FLOAT32, four, SIDECAML_MAX_RANK + 1, x), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_binding_output(binding, "y", 99, four, 1, x, &why), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_binding_run(binding, &why), -SIDECAML_E_ENGINE);
    close_model();
}

static void names_shapes_and_types_of_another_model_are_refused(void) {
    float x[4] = {1, 2, 3, 4}, y[4];
    open_model("identity");
    bind_floats(binding, "y", true, four, 1, y);
    if (bind_input("other", SIDECAML_FLOAT32, four, 1, x) == 0)
        CHECK_EQ(sidecaml_binding_run(binding, &why), -SIDECAML_E_ENGINE);
    CHECK_SAYS(why.text, "other");
    close_model();
    open_model("identity");
    bind_floats(binding, "x", false, (const uint64_t[]){2}, 1, x);
    bind_floats(binding, "y", true, four, 1, y);
    CHECK_EQ(sidecaml_binding_run(binding, &why), -SIDECAML_E_ENGINE);
    /* The next call works. */
    bind_floats(binding, "x", false, four, 1, x);
    CHECK_EQ(sidecaml_binding_run(binding, &why), 0);
    CHECK_EQ(y[3], 4);
    close_model();
}

static void a_run_that_fails_inside_a_kernel_says_where_and_the_next_one_works(void) {
    float x[6] = {1, 1, 1, 1, 1, 1}, y[6];
    int64_t shape[2] = {3, 2};
    open_model("fails_inside");
    bind_floats(binding, "x", false, (const uint64_t[]){6}, 1, x);
    CHECK_EQ(bind_input("shape", SIDECAML_INT64, (const uint64_t[]){2}, 1, shape), 0);
    bind_floats(binding, "y", true, (const uint64_t[]){6}, 1, y);
    for (int i = 0; i < 3; i++) {
        shape[0] = 4;
        CHECK_EQ(sidecaml_binding_run(binding, &why), -SIDECAML_E_ENGINE);
        CHECK(strncmp(why.text, "a Reshape node: ", 16) == 0);
        CHECK_SAYS(why.text, "requested shape:{4,2}");
        CHECK_EQ(sidecaml_binding_run_until(binding, sidecaml_now_ns() + 60000 * MS, &why), -SIDECAML_E_ENGINE);
        CHECK(strncmp(why.text, "a Reshape node: ", 16) == 0);
        shape[0] = 3;
        CHECK_EQ(sidecaml_binding_run(binding, &why), 0);
        CHECK_EQ(y[5], 7);
    }
    close_model();
}

/* --- Deadlines --------------------------------------------------------------------------------------------------- */

/* The slow model, bound: its `n` rounds take about 20 us each. */
struct slow {
    sidecaml_binding *binding;
    int64_t n;
    float *y;
};
#define SIZE 128
#define FOR_EVER (INT64_C(1) << 40)

static void open_slow(struct slow *slow) {
    slow->n = 0;
    slow->y = malloc(sizeof(float) * SIZE * SIZE);
    CHECK(slow->y);
    CHECK_EQ(sidecaml_binding_create(session, &slow->binding, &why), 0);
    CHECK_EQ(sidecaml_binding_input(slow->binding, "n", SIDECAML_INT64, NULL, 0, &slow->n, &why), 0);
    bind_floats(slow->binding, "y", true, (const uint64_t[]){SIZE, SIZE}, 2, slow->y);
}

static void close_slow(struct slow *slow) {
    sidecaml_binding_destroy(slow->binding);
    free(slow->y);
}

static int run_slow(struct slow *slow, int64_t rounds, uint64_t deadline) {
    slow->n = rounds;
    return sidecaml_binding_run_until(slow->binding, deadline, &why);
}

/* After two rounds the ones are two to the right. */
static void check_works(struct slow *slow, uint64_t deadline) {
    memset(slow->y, 0xff, sizeof(float) * SIZE * SIZE);
    CHECK_EQ(run_slow(slow, 2, deadline), 0);
    CHECK_EQ(slow->y[2], 1);
    CHECK_EQ(slow->y[0], 0);
}

static void a_run_is_cut_off_at_its_deadline_and_the_next_one_works(void) {
    struct slow slow;
    session = load("slow");
    open_slow(&slow);
    for (int i = 0; i < 5; i++) {
        uint64_t deadline = sidecaml_now_ns() + 5 * MS;
        CHECK_EQ(run_slow(&slow, FOR_EVER, deadline), -SIDECAML_E_TIMEOUT);
        CHECK(sidecaml_now_ns() >= deadline);
        CHECK_EQ(why.code, SIDECAML_E_TIMEOUT);
        CHECK(strcmp(why.text, sidecaml_error_text(SIDECAML_E_TIMEOUT)) == 0);
        check_works(&slow, i % 2 ? 0 : sidecaml_now_ns() + 60000 * MS);
    }
    close_slow(&slow);
    sidecaml_session_destroy(session);
}

static void a_deadline_that_is_past_does_not_run(void) {
    struct slow slow;
    session = load("slow");
    open_slow(&slow);
    CHECK_EQ(run_slow(&slow, FOR_EVER, 1), -SIDECAML_E_TIMEOUT);
    CHECK_EQ(run_slow(&slow, FOR_EVER, sidecaml_now_ns()), -SIDECAML_E_TIMEOUT);
    check_works(&slow, UINT64_MAX);
    check_works(&slow, UINT64_MAX - 1);
    close_slow(&slow);
    sidecaml_session_destroy(session);
}

/* Whatever comes first, the answer is right or the deadline has passed. */
static void random_deadlines(struct slow *slow, unsigned long long seed) {
    struct numbers numbers = {seed};
    for (int i = 0; i < 300; i++) {
        uint64_t deadline = sidecaml_now_ns() + next_number(&numbers) % (MS / 4);
        int status = run_slow(slow, (int64_t)(next_number(&numbers) % 10), deadline);
        if (status == 0)
            CHECK_EQ(slow->y[slow->n], 1);
        else
            CHECK(status == -SIDECAML_E_TIMEOUT && sidecaml_now_ns() >= deadline);
        if (i % 10 == 0) check_works(slow, 0);
    }
}

static void *thread_of_deadlines(void *seed) {
    struct slow slow;
    open_slow(&slow);
    random_deadlines(&slow, (uintptr_t)seed);
    close_slow(&slow);
    return NULL;
}

static void threads_with_random_deadlines_do_not_disturb_each_other(void) {
    pthread_t threads[4];
    session = load("slow");
    for (uintptr_t i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, thread_of_deadlines, (void *)(i + 1)), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    sidecaml_session_destroy(session);
}

static void a_child_process_has_deadlines_of_its_own(void) {
    struct slow slow;
    int status;
    session = load("slow");
    open_slow(&slow);
    CHECK_EQ(run_slow(&slow, FOR_EVER, sidecaml_now_ns() + MS), -SIDECAML_E_TIMEOUT);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        check_works(&slow, 0);
        CHECK_EQ(run_slow(&slow, FOR_EVER, sidecaml_now_ns() + MS), -SIDECAML_E_TIMEOUT);
        check_works(&slow, sidecaml_now_ns() + 20000 * MS);
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close_slow(&slow);
    sidecaml_session_destroy(session);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(open_library)},
        {TEST(a_run_reads_and_writes_the_callers_memory)},
        {TEST(an_output_may_lie_anywhere)},
        {TEST(strings_go_through_with_every_byte)},
        {TEST(strings_without_room_are_not_copied)},
        {TEST(bad_strings_are_told_and_the_next_ones_work)},
        {TEST(places_that_no_tensor_has_are_refused)},
        {TEST(names_shapes_and_types_of_another_model_are_refused)},
        {TEST(a_run_that_fails_inside_a_kernel_says_where_and_the_next_one_works)},
        {TEST(a_run_is_cut_off_at_its_deadline_and_the_next_one_works)},
        {TEST(a_deadline_that_is_past_does_not_run)},
        {TEST(threads_with_random_deadlines_do_not_disturb_each_other)},
        {TEST(a_child_process_has_deadlines_of_its_own)},
    };
    return RUN_TESTS(tests, 60);
}
