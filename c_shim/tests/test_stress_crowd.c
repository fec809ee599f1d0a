/* More clients than cores: they sleep for their answers, so that their worker has one. Told by how often they spun, not
 * by how long anything took. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel.h"
#include "check.h"
#include "pair.h"
#include "stress.h"

enum { CLIENTS = 8, CORES = 2, ROUNDS = 40, REQUESTS = 50 };

static sidecaml_worker *worker;
static struct stress_client clients[CLIENTS];
static uint32_t largest[CLIENTS]; /* crowd that each was told of */
static uint64_t before[CLIENTS];  /* how often each had spun when all were there */
static pthread_barrier_t all_there;
static _Atomic int count, done, calls;
static int status_fd, control, supervisor, daemons[CLIENTS];
static const struct sidecaml_status_page *page;

/* Has this process the first two cores at most; how many it has. */
static int narrow(int cores[CORES]) {
    cpu_set_t all, some;
    int count = 0;
    CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&some);
    for (int i = 0; i < CPU_SETSIZE && count < CORES; i++)
        if (CPU_ISSET(i, &all)) CPU_SET(cores[count++] = i, &some);
    CHECK_EQ(sched_setaffinity(0, sizeof some, &some), 0);
    return count;
}

static void pin(pthread_t thread, int core) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    CHECK_EQ(pthread_setaffinity_np(thread, sizeof one, &one), 0);
}

static void open_all(int wanted) {
    struct sidecaml_layout layout;
    count = wanted;
    done = calls = 0;
    pair_layout(&layout, 1, PAYLOAD_BYTES);
    worker = make_worker(SIDECAML_ADAPTIVE, &status_fd, &control, &supervisor);
    page = mmap(NULL, sizeof *page, PROT_READ, MAP_SHARED, status_fd, 0);
    CHECK((const void *)page != MAP_FAILED);
    for (int i = 0; i < count; i++) {
        int index;
        clients[i] = (struct stress_client){
            .channel = pair_add_channel(worker, &layout, status_fd, SIDECAML_ADAPTIVE, &index, &daemons[i]),
            .slots = 1,
            .requests = REQUESTS,
            .seed = (uint64_t)i + 1};
    }
}

static void close_all(void) {
    for (int i = 0; i < count; i++) {
        sidecaml_channel_close(clients[i].channel);
        close(daemons[i]);
    }
    sidecaml_worker_destroy(worker);
    munmap((void *)page, sizeof *page);
    close(status_fd), close(control), close(supervisor);
}

static void *serve(void *unused) {
    (void)unused;
    stress_serve(worker);
    return NULL;
}

static void call_some(struct stress_client *client) {
    client->answered = 0;
    stress_call(client);
}

/* From when all have begun until all have called often enough: a few alone would not be as many as they are. */
static void *call(void *argument) {
    struct stress_client *client = argument;
    uint32_t *most = &largest[client - clients];
    *most = 0;
    call_some(client);
    pthread_barrier_wait(&all_there);
    before[client - clients] = channel_spins(client->channel);
    for (int round = 1; done < count; round++) {
        call_some(client);
        calls += REQUESTS;
        if (round == ROUNDS) done++;
        uint32_t crowd = atomic_load(&page->crowd);
        if (crowd > *most) *most = crowd;
    }
    return NULL;
}

/* Has all of them call; the largest crowd that any was told of. With `cores`, the worker keeps to the one, and they to
 * the other. */
static uint32_t call_all(const int *cores) {
    pthread_t threads[CLIENTS], server;
    CHECK_EQ(pthread_barrier_init(&all_there, NULL, (unsigned)count), 0);
    CHECK_EQ(pthread_create(&server, NULL, serve, NULL), 0);
    if (cores) pin(server, cores[0]);
    for (int i = 0; i < count; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, call, &clients[i]), 0);
        if (cores) pin(threads[i], cores[1]);
    }
    uint32_t most = 0;
    for (int i = 0; i < count; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        if (largest[i] > most) most = largest[i];
    }
    CHECK_EQ(send(supervisor, "x", 1, 0), 1);
    CHECK_EQ(pthread_join(server, NULL), 0);
    pthread_barrier_destroy(&all_there);
    return most;
}

static uint64_t spins_of_all(void) {
    uint64_t spins = 0;
    for (int i = 0; i < count; i++)
        spins += channel_spins(clients[i].channel) - before[i];
    return spins;
}

/* That it can be seen at all. The kernel may have both take turns on one core, where nobody spins. */
static void one_client_spins_where_there_are_two_cores(void) {
    int cores[CORES], found = narrow(cores);
    open_all(1);
    CHECK_EQ(call_all(found == CORES ? cores : NULL), 2);
    if (found == CORES)
        CHECK(spins_of_all() > 0);
    else
        CHECK_EQ(spins_of_all(), 0);
    close_all();
}

/* But for a while after most of them have not run for a while. */
static void eight_clients_on_two_cores_leave_one_to_their_worker(void) {
    int cores[CORES];
    narrow(cores);
    open_all(CLIENTS);
    uint32_t crowd = call_all(NULL);
    CHECK(crowd > CORES && crowd <= CLIENTS + 1);
    CHECK(spins_of_all() < (uint64_t)calls / 10);
    close_all();
}

int main(void) {
    static const struct test tests[] = {
        {TEST(one_client_spins_where_there_are_two_cores)},
        {TEST(eight_clients_on_two_cores_leave_one_to_their_worker)},
    };
    return RUN_TESTS(tests, 120);
}
