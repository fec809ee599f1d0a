/* Real threads, real doorbells: for ThreadSanitizer. */
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "pair.h"
#include "stress.h"

static sidecaml_worker *worker;

static void *serve(void *unused) {
    (void)unused;
    stress_serve(worker);
    return NULL;
}

static void (*call_of_client)(struct stress_client *client) = stress_call;

static void *call(void *client) {
    call_of_client(client);
    return NULL;
}

/* One worker thread, and a thread for each of `count` channels. */
static void stress(int count, uint32_t slots, enum sidecaml_policy client_policy, enum sidecaml_policy worker_policy,
                   uint64_t requests, unsigned give_up_one_in) {
    struct sidecaml_layout layout;
    struct stress_client clients[2];
    pthread_t threads[2], server;
    int status_fd, control, supervisor, index, daemons[2];
    pair_layout(&layout, slots, PAYLOAD_BYTES);
    worker = make_worker(worker_policy, &status_fd, &control, &supervisor);
    for (int i = 0; i < count; i++)
        clients[i] = (struct stress_client){
            .channel = pair_add_channel(worker, &layout, status_fd, client_policy, &index, &daemons[i]),
            .slots = slots,
            .requests = requests,
            .give_up_one_in = give_up_one_in,
            .seed = (uint64_t)i + 1};
    CHECK_EQ(pthread_create(&server, NULL, serve, NULL), 0);
    for (int i = 0; i < count; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, call, &clients[i]), 0);
    for (int i = 0; i < count; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(send(supervisor, "x", 1, 0), 1);
    CHECK_EQ(pthread_join(server, NULL), 0);
    for (int i = 0; i < count; i++) {
        CHECK(clients[i].answered > 0);
        sidecaml_channel_close(clients[i].channel);
        close(daemons[i]);
    }
    sidecaml_worker_destroy(worker);
    close(status_fd), close(control), close(supervisor);
}

/* A spinning side waits for its peer's time slice where there are fewer cores than threads: fewer requests there. */
static void both_spin(void) {
    stress(1, 4, SIDECAML_SPIN, SIDECAML_SPIN, 100000, 0);
}

static void both_adapt(void) {
    stress(1, 2, SIDECAML_ADAPTIVE, SIDECAML_ADAPTIVE, 50000, 0);
}

static void both_block_on_one_slot(void) {
    stress(1, 1, SIDECAML_BLOCK, SIDECAML_BLOCK, 20000, 0);
}

static void both_block_on_several_slots(void) {
    stress(1, 4, SIDECAML_BLOCK, SIDECAML_BLOCK, 40000, 0);
}

static void one_blocks_and_the_other_spins(void) {
    stress(1, 2, SIDECAML_BLOCK, SIDECAML_SPIN, 20000, 0);
    stress(1, 2, SIDECAML_SPIN, SIDECAML_BLOCK, 20000, 0);
}

static void requests_are_given_up_at_random(void) {
    stress(1, 1, SIDECAML_ADAPTIVE, SIDECAML_ADAPTIVE, 20000, 3);
    stress(1, 3, SIDECAML_SPIN, SIDECAML_SPIN, 40000, 3);
    stress(1, 3, SIDECAML_BLOCK, SIDECAML_BLOCK, 20000, 3);
}

static void two_channels_share_a_worker(void) {
    stress(2, 2, SIDECAML_BLOCK, SIDECAML_BLOCK, 10000, 0);
    stress(2, 2, SIDECAML_ADAPTIVE, SIDECAML_ADAPTIVE, 10000, 4);
}

static void any_of_several_is_waited_for(void) {
    call_of_client = stress_call_any;
    stress(1, 4, SIDECAML_BLOCK, SIDECAML_BLOCK, 20000, 0);
    stress(1, 4, SIDECAML_BLOCK, SIDECAML_SPIN, 20000, 3);
    stress(1, 8, SIDECAML_ADAPTIVE, SIDECAML_ADAPTIVE, 40000, 3);
    stress(2, 3, SIDECAML_ADAPTIVE, SIDECAML_BLOCK, 10000, 5);
    call_of_client = stress_call;
}

int main(void) {
    static const struct test tests[] = {
        {TEST(both_spin)},
        {TEST(both_adapt)},
        {TEST(both_block_on_one_slot)},
        {TEST(both_block_on_several_slots)},
        {TEST(one_blocks_and_the_other_spins)},
        {TEST(requests_are_given_up_at_random)},
        {TEST(two_channels_share_a_worker)},
        {TEST(any_of_several_is_waited_for)},
    };
    return RUN_TESTS(tests, 120);
}
