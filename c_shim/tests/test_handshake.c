/* A question to a daemon that goes away in the middle of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <msgpack.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "pair.h"

/* Long enough for a loaded machine; only what never comes back lasts shorter. */
#define LONG_NS UINT64_C(30000000000)
#define SHORT_NS UINT64_C(3000000000)

static struct sidecaml_failure why;

/* --- A daemon that does so much on each connection ---------------------------------------------------------------- */

enum step {
    ENDS_AT_ONCE,       /* closes what it accepted */
    ENDS_UNREAD,        /* closes with the hello unread, which is a reset */
    ENDS_AFTER_HELLO,   /* reads it and closes */
    ENDS_IN_THE_ASKING, /* answers hello, and closes */
    ENDS_ASKED,         /* closes when it has read the question */
    ENDS_ITS_SOCKET,    /* as before, and nobody listens for a while */
    SHUTS_DOWN,
    TALKS_NONSENSE,
    REFUSES,
    ANSWERS,
};

struct daemon {
    const enum step *steps;
    int count;
    int served; /* connections */
};

static char folder[32];
static char path[sizeof folder + 16];
static int listener = -1;

static void listen_again(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQ(listen(listener, 4), 0);
}

static void make_folder(void) {
    strcpy(folder, "/tmp/sidecaml-test-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    strcpy(path, folder);
    strcat(path, "/socket");
}

static void end_listening(void) {
    if (listener >= 0) close(listener);
    listener = -1;
    unlink(path);
}

static void say(int client, const msgpack_sbuffer *bytes) {
    CHECK_EQ(send(client, bytes->data, bytes->size, MSG_NOSIGNAL), bytes->size);
}

static void text(msgpack_packer *packer, const char *value) {
    msgpack_pack_str(packer, strlen(value));
    msgpack_pack_str_body(packer, value, strlen(value));
}

/* The good answers to hello (id 1) and to describe (id 2), or a refusal. */
static void reply(int client, uint64_t id, int code) {
    msgpack_sbuffer bytes;
    msgpack_packer packer;
    msgpack_sbuffer_init(&bytes);
    msgpack_packer_init(&packer, &bytes, msgpack_sbuffer_write);
    msgpack_pack_map(&packer, 4);
    text(&packer, "id"), msgpack_pack_uint64(&packer, id);
    text(&packer, "ok"), code ? msgpack_pack_false(&packer) : msgpack_pack_true(&packer);
    if (code)
        text(&packer, "code"), msgpack_pack_int(&packer, code);
    else
        text(&packer, "abi"), msgpack_pack_uint64(&packer, SIDECAML_ABI_VERSION);
    text(&packer, "models"), msgpack_pack_array(&packer, 0);
    say(client, &bytes);
    msgpack_sbuffer_destroy(&bytes);
}

static void hear(int client) {
    char request[4096];
    CHECK(recv(client, request, sizeof request, 0) > 0);
}

static void wait_for_the_hello(int client) {
    char byte;
    CHECK_EQ(recv(client, &byte, 1, MSG_PEEK), 1);
}

static void be_asked(int client) {
    hear(client);
    reply(client, 1, 0);
    hear(client);
}

static void take(int client, enum step step) {
    switch (step) {
    case ENDS_AT_ONCE:
        break;
    case ENDS_UNREAD:
        wait_for_the_hello(client);
        break;
    case ENDS_AFTER_HELLO:
        hear(client);
        break;
    case ENDS_IN_THE_ASKING:
        hear(client), reply(client, 1, 0);
        break;
    case ENDS_ASKED:
        be_asked(client);
        break;
    case ENDS_ITS_SOCKET:
        be_asked(client), end_listening();
        break;
    case SHUTS_DOWN:
        be_asked(client), reply(client, 2, SIDECAML_E_SHUTTING_DOWN);
        break;
    case TALKS_NONSENSE:
        be_asked(client), reply(client, 9, 0);
        break;
    case REFUSES:
        be_asked(client), reply(client, 2, SIDECAML_E_SERVER_GONE);
        break;
    case ANSWERS:
        be_asked(client), reply(client, 2, 0);
        break;
    }
}

static void *serve(void *argument) {
    struct daemon *daemon = argument;
    for (; daemon->served < daemon->count; daemon->served++) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(client >= 0);
        enum step step = daemon->steps[daemon->served];
        take(client, step);
        char byte;
        if (step == REFUSES) CHECK_EQ(recv(client, &byte, 1, 0), 0); /* it is the client that ends it */
        close(client);
        if (listener < 0) {
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
            if (daemon->served + 1 < daemon->count) listen_again();
        }
    }
    return NULL;
}

/* Asks a daemon that goes through these steps; all of them must have happened. */
static int ask(const enum step *steps, int count, uint64_t timeout_ns) {
    struct daemon daemon = {steps, count, 0};
    struct sidecaml_daemon where = {path, "test", timeout_ns};
    struct sidecaml_models models = {0};
    pthread_t thread;
    int before = count_fds();
    make_folder();
    listen_again();
    CHECK_EQ(pthread_create(&thread, NULL, serve, &daemon), 0);
    int status = sidecaml_daemon_describe(&where, NULL, &models, &why);
    if (status == 0) sidecaml_models_free(&models);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(daemon.served, count);
    end_listening();
    rmdir(folder);
    CHECK_EQ(count_fds(), before);
    return status;
}

#define ASK(...) ask((enum step[]){__VA_ARGS__}, sizeof((enum step[]){__VA_ARGS__}) / sizeof(enum step), LONG_NS)

/* --- Tests -------------------------------------------------------------------------------------------------------- */

static void a_daemon_that_goes_away_anywhere_is_asked_again(void) {
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR); /* which would end the test */
    CHECK_EQ(ASK(ANSWERS), 0);
    CHECK_EQ(ASK(ENDS_AT_ONCE, ANSWERS), 0);
    CHECK_EQ(ASK(ENDS_UNREAD, ANSWERS), 0);
    CHECK_EQ(ASK(ENDS_AFTER_HELLO, ANSWERS), 0);
    CHECK_EQ(ASK(ENDS_IN_THE_ASKING, ANSWERS), 0);
    CHECK_EQ(ASK(ENDS_ASKED, ANSWERS), 0);
    CHECK_EQ(ASK(ENDS_AT_ONCE, ENDS_UNREAD, ENDS_AFTER_HELLO, ENDS_IN_THE_ASKING, ENDS_ASKED, ANSWERS), 0);
}

static void between_two_daemons_nobody_need_listen(void) {
    CHECK_EQ(ASK(ENDS_ITS_SOCKET, ANSWERS), 0);
    CHECK_EQ(ASK(ENDS_ITS_SOCKET, ENDS_AT_ONCE, ENDS_ITS_SOCKET, ANSWERS), 0);
}

static void a_daemon_that_shuts_down_is_waited_for(void) {
    CHECK_EQ(ASK(SHUTS_DOWN, SHUTS_DOWN, ENDS_ITS_SOCKET, ANSWERS), 0);
}

static void one_that_does_not_come_back_is_told_in_time(void) {
    const enum step steps[] = {ENDS_ITS_SOCKET};
    CHECK_EQ(ask(steps, 1, SHORT_NS), -SIDECAML_E_CONNECT);
    CHECK_SAYS(why.text, path);
}

static void what_is_wrong_with_an_answer_is_not_asked_again(void) {
    CHECK_EQ(ASK(TALKS_NONSENSE), -SIDECAML_E_PROTOCOL);
    CHECK_EQ(ASK(REFUSES), -SIDECAML_E_SERVER_GONE); /* of a model, say: the daemon is there */
}

static void where_nobody_was_nobody_is_waited_for(void) {
    struct sidecaml_daemon where = {path, "test", UINT64_MAX};
    struct sidecaml_models models = {0};
    sidecaml_channel *channel;
    struct sidecaml_open what = {.model = "digits", .slots = 1, .policy = SIDECAML_BLOCK};
    make_folder();
    CHECK_EQ(sidecaml_daemon_describe(&where, NULL, &models, &why), -SIDECAML_E_CONNECT);
    CHECK_EQ(sidecaml_daemon_open(&where, &what, &channel, &models, &why), -SIDECAML_E_CONNECT);
    listen_again();
    close(listener), listener = -1; /* what a daemon leaves that was killed */
    CHECK_EQ(sidecaml_daemon_describe(&where, NULL, &models, &why), -SIDECAML_E_CONNECT);
    end_listening();
    rmdir(folder);
}

static void an_open_is_asked_again_as_well(void) {
    static const enum step steps[] = {ENDS_UNREAD, ENDS_ASKED, REFUSES};
    struct daemon daemon = {steps, 3, 0};
    struct sidecaml_daemon where = {path, "test", LONG_NS};
    struct sidecaml_models models = {0};
    sidecaml_channel *channel;
    struct sidecaml_open what = {.model = "digits", .slots = 1, .policy = SIDECAML_BLOCK};
    pthread_t thread;
    int before = count_fds();
    make_folder();
    listen_again();
    CHECK_EQ(pthread_create(&thread, NULL, serve, &daemon), 0);
    CHECK_EQ(sidecaml_daemon_open(&where, &what, &channel, &models, &why), -SIDECAML_E_SERVER_GONE);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(daemon.served, 3);
    end_listening();
    rmdir(folder);
    CHECK_EQ(count_fds(), before);
}

/* --- A full queue --------------------------------------------------------------------------------------------------
 */

static int fill_queue(int *clients, int most) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    for (int i = 0; i < most; i++) {
        clients[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (connect(clients[i], (struct sockaddr *)&address, sizeof address) == 0) continue;
        CHECK_EQ(errno, EAGAIN);
        close(clients[i]);
        return i;
    }
    CHECK(!"the queue has no end");
    return 0;
}

static void *serve_all(void *argument) {
    int count = *(const int *)argument;
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    for (int i = 0; i <= count; i++) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(client >= 0);
        if (i == count) take(client, ANSWERS);
        close(client);
    }
    return NULL;
}

static void a_full_queue_is_waited_for(void) {
    struct sidecaml_daemon where = {path, "test", SHORT_NS};
    struct sidecaml_models models = {0};
    int clients[64];
    pthread_t thread;
    make_folder();
    listen_again();
    int count = fill_queue(clients, 64);
    CHECK_EQ(sidecaml_daemon_describe(&where, NULL, &models, &why), -SIDECAML_E_TIMEOUT);
    CHECK_SAYS(why.text, "queue is full");
    where.timeout_ns = LONG_NS;
    CHECK_EQ(pthread_create(&thread, NULL, serve_all, &count), 0);
    CHECK_EQ(sidecaml_daemon_describe(&where, NULL, &models, &why), 0);
    sidecaml_models_free(&models);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (int i = 0; i < count; i++)
        close(clients[i]);
    end_listening();
    rmdir(folder);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(a_daemon_that_goes_away_anywhere_is_asked_again)},
        {TEST(between_two_daemons_nobody_need_listen)},
        {TEST(a_daemon_that_shuts_down_is_waited_for)},
        {TEST(one_that_does_not_come_back_is_told_in_time)},
        {TEST(what_is_wrong_with_an_answer_is_not_asked_again)},
        {TEST(where_nobody_was_nobody_is_waited_for)},
        {TEST(an_open_is_asked_again_as_well)},
        {TEST(a_full_queue_is_waited_for)},
    };
    return RUN_TESTS(tests, 60);
}
