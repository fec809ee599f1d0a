/* Two processes, as in real life: the worker in a child of its own. */
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "pair.h"
#include "stress.h"

struct parts {
    struct sidecaml_layout layout;
    struct pair_fds fds;
    int worker_control[2], client_control[2];
};

static void make_parts(struct parts *parts, uint32_t slots) {
    pair_layout(&parts->layout, slots, PAYLOAD_BYTES);
    parts->fds = (struct pair_fds){make_memfd(parts->layout.segment_bytes), make_doorbell(), make_doorbell(),
                                   make_memfd(SIDECAML_PAGE_BYTES)};
    make_sockets(parts->worker_control);
    make_sockets(parts->client_control);
}

/* Serves and ends the child; says on the client's socket when the segment is formatted, and closes it when it ends. */
static void run_worker(struct parts *parts, enum sidecaml_policy policy) {
    struct sidecaml_failure why;
    sidecaml_worker *worker;
    struct sidecaml_worker_fds fds = {parts->fds.segment, parts->fds.request, parts->fds.answer, -1};
    close(parts->worker_control[1]);
    close(parts->client_control[0]);
    if (sidecaml_worker_create(must_dup(parts->fds.status), 0, parts->worker_control[0], policy, &worker, &why) < 0 ||
        sidecaml_worker_attach(worker, &fds, &parts->layout, 0, &why) < 0)
        check_failed(__FILE__, __LINE__, "%s", why.text);
    CHECK_EQ(send(parts->client_control[1], "r", 1, 0), 1);
    stress_serve(worker);
    sidecaml_worker_destroy(worker);
    _exit(0);
}

static pid_t start_worker(struct parts *parts, enum sidecaml_policy policy, sidecaml_channel **channel,
                          enum sidecaml_policy client_policy) {
    struct sidecaml_failure why;
    char ready;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) run_worker(parts, policy);
    close(parts->worker_control[0]);
    close(parts->client_control[1]);
    CHECK_EQ(recv(parts->client_control[0], &ready, 1, 0), 1);
    struct sidecaml_channel_fds fds = {parts->fds.segment, parts->fds.request, parts->fds.answer, parts->fds.status,
                                       parts->client_control[0]};
    if (sidecaml_channel_attach(&fds, parts->layout.fingerprint, client_policy, channel, &why) < 0)
        check_failed(__FILE__, __LINE__, "%s", why.text);
    return child;
}

static void stress(enum sidecaml_policy client_policy, enum sidecaml_policy worker_policy, uint32_t slots,
                   uint64_t requests, unsigned give_up_one_in) {
    struct parts parts;
    sidecaml_channel *channel;
    int status;
    make_parts(&parts, slots);
    pid_t child = start_worker(&parts, worker_policy, &channel, client_policy);
    struct stress_client client = {
        .channel = channel, .slots = slots, .requests = requests, .give_up_one_in = give_up_one_in, .seed = 5};
    stress_call(&client);
    sidecaml_channel_close(channel);
    CHECK_EQ(send(parts.worker_control[1], "x", 1, 0), 1);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(parts.worker_control[1]);
}

static void both_spin(void) {
    stress(SIDECAML_SPIN, SIDECAML_SPIN, 4, 300000, 0);
}

static void both_adapt(void) {
    stress(SIDECAML_ADAPTIVE, SIDECAML_ADAPTIVE, 2, 100000, 0);
}

static void both_block(void) {
    stress(SIDECAML_BLOCK, SIDECAML_BLOCK, 1, 20000, 0);
    stress(SIDECAML_BLOCK, SIDECAML_BLOCK, 4, 50000, 0);
}

static void requests_are_given_up_at_random(void) {
    stress(SIDECAML_SPIN, SIDECAML_SPIN, 3, 100000, 3);
    stress(SIDECAML_ADAPTIVE, SIDECAML_BLOCK, 2, 20000, 3);
}

/* A client never outwaits a killed worker: the end of the control socket, which here the worker holds, ends the wait.
 */
static void a_killed_worker_ends_every_wait(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        struct parts parts;
        sidecaml_channel *channel;
        int result;
        make_parts(&parts, 1);
        pid_t child = start_worker(&parts, SIDECAML_BLOCK, &channel, policies[p]);
        kill(child, SIGSTOP);
        CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
        kill(child, SIGKILL);
        do
            result = sidecaml_channel_wait(channel, 0, 0);
        while (result == -SIDECAML_E_AGAIN);
        CHECK_EQ(result, -SIDECAML_E_SERVER_GONE);
        CHECK_EQ(waitpid(child, NULL, 0), child);
        sidecaml_channel_close(channel);
        close(parts.worker_control[1]);
    }
}

int main(void) {
    static const struct test tests[] = {
        {TEST(both_spin)},
        {TEST(both_adapt)},
        {TEST(both_block)},
        {TEST(requests_are_given_up_at_random)},
        {TEST(a_killed_worker_ends_every_wait)},
    };
    return RUN_TESTS(tests, 120);
}
