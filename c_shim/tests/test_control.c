/* The client's control handshake against daemons that behave, and against those that do not. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <msgpack.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "pair.h"

/* Long enough for a loaded machine; only what is never answered lasts shorter. */
#define LONG_NS UINT64_C(30000000000)
#define SHORT_NS UINT64_C(30000000)

static struct sidecaml_failure why;

/* --- Writing messages -------------------------------------------------------------------------------------------- */

struct message {
    msgpack_sbuffer bytes;
    msgpack_packer packer;
};

static void begin(struct message *message, size_t fields) {
    msgpack_sbuffer_init(&message->bytes);
    msgpack_packer_init(&message->packer, &message->bytes, msgpack_sbuffer_write);
    msgpack_pack_map(&message->packer, fields);
}

static void text(struct message *message, const char *value) {
    msgpack_pack_str(&message->packer, strlen(value));
    msgpack_pack_str_body(&message->packer, value, strlen(value));
}

static void text_field(struct message *message, const char *key, const char *value) {
    text(message, key);
    text(message, value);
}

static void uint_field(struct message *message, const char *key, uint64_t value) {
    text(message, key);
    msgpack_pack_uint64(&message->packer, value);
}

static void bool_field(struct message *message, const char *key, bool value) {
    text(message, key);
    if (value)
        msgpack_pack_true(&message->packer);
    else
        msgpack_pack_false(&message->packer);
}

static void begin_ok(struct message *message, uint64_t id, size_t fields) {
    begin(message, 2 + fields);
    uint_field(message, "id", id);
    bool_field(message, "ok", true);
}

/* Sends bytes with descriptors; may be too many for the receiver. */
static void send_with_fds(int socket, const void *bytes, size_t count, const int *fds, size_t fd_count) {
    union {
        char bytes[CMSG_SPACE(16 * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *first = CMSG_FIRSTHDR(&header);
        first->cmsg_level = SOL_SOCKET;
        first->cmsg_type = SCM_RIGHTS;
        first->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(first), fds, fd_count * sizeof(int));
    }
    CHECK_EQ(sendmsg(socket, &header, MSG_NOSIGNAL), count);
}

static void send_message(int socket, struct message *message) {
    send_with_fds(socket, message->bytes.data, message->bytes.size, NULL, 0);
    msgpack_sbuffer_destroy(&message->bytes);
}

/* --- Connecting: a daemon in a thread, at a path of its own ------------------------------------------------------- */

static char folder[] = "/tmp/sidecaml-test-XXXXXX";
static char path[sizeof folder + 16];

/* What the daemon answers to hello: some bytes and descriptors; none of both closes the connection. */
struct answer {
    const void *bytes;
    size_t count;
    size_t fd_count;
    bool silent; /* until the client goes */
    bool at_once;
    bool refused; /* connection closed before hello is read */
};

static int listen_at(int type) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    strcpy(path, folder);
    strcat(path, "/socket");
    strcpy(address.sun_path, path);
    int listener = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQ(listen(listener, 4), 0);
    return listener;
}

static void end_listening(int listener) {
    close(listener);
    unlink(path);
    rmdir(folder);
}

static int listener;
static char heard[256]; /* the client's hello */
static ssize_t heard_bytes;

static void *answer_hello(void *argument) {
    const struct answer *answer = argument;
    int fds[16], client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(client >= 0);
    heard_bytes = answer->refused ? 0 : recv(client, heard, sizeof heard, 0);
    for (size_t i = 0; i < answer->fd_count; i++)
        fds[i] = client;
    if (answer->count) send_with_fds(client, answer->bytes, answer->count, fds, answer->fd_count);
    char byte;
    if (answer->silent || answer->count) CHECK(recv(client, &byte, 1, 0) <= 0); /* until the client goes */
    close(client);
    return NULL;
}

static int connect_and_hear(const struct answer *answer) {
    pthread_t daemon;
    listener = listen_at(SOCK_SEQPACKET);
    CHECK_EQ(pthread_create(&daemon, NULL, answer_hello, (void *)answer), 0);
    int fd = sidecaml_control_connect(path, "test", answer->silent ? SHORT_NS : LONG_NS, &why);
    if (fd >= 0) close(fd);
    CHECK_EQ(pthread_join(daemon, NULL), 0);
    end_listening(listener);
    return fd;
}

static int connect_to(struct message *reply) {
    struct answer answer = {.bytes = reply->bytes.data, .count = reply->bytes.size};
    int fd = connect_and_hear(&answer);
    msgpack_sbuffer_destroy(&reply->bytes);
    return fd;
}

static void hello_says_version_and_name_and_opens_the_connection(void) {
    struct message reply;
    begin_ok(&reply, 1, 3);
    uint_field(&reply, "abi", SIDECAML_ABI_VERSION);
    text_field(&reply, "server", "test");
    uint_field(&reply, "pid", 1);
    CHECK(connect_to(&reply) >= 0);
    msgpack_unpacked unpacked;
    msgpack_unpacked_init(&unpacked);
    CHECK_EQ(msgpack_unpack_next(&unpacked, heard, (size_t)heard_bytes, NULL), MSGPACK_UNPACK_SUCCESS);
    CHECK_EQ(unpacked.data.type, MSGPACK_OBJECT_MAP);
    const msgpack_object_kv *pairs = unpacked.data.via.map.ptr;
    CHECK_EQ(unpacked.data.via.map.size, 4);
    CHECK(memcmp(pairs[0].key.via.str.ptr, "id", 2) == 0 && pairs[0].val.via.u64 == 1);
    CHECK(memcmp(pairs[1].val.via.str.ptr, "hello", 5) == 0);
    CHECK(memcmp(pairs[2].key.via.str.ptr, "abi", 3) == 0 && pairs[2].val.via.u64 == SIDECAML_ABI_VERSION);
    CHECK(memcmp(pairs[3].val.via.str.ptr, "test", 4) == 0);
    msgpack_unpacked_destroy(&unpacked);
}

static void a_path_without_a_daemon_is_named(void) {
    char longer[300];
    listener = listen_at(SOCK_STREAM);
    CHECK_EQ(sidecaml_control_connect(path, "test", LONG_NS, &why), -SIDECAML_E_CONNECT); /* another type of socket */
    end_listening(listener);
    CHECK_EQ(sidecaml_control_connect(path, "test", LONG_NS, &why), -SIDECAML_E_CONNECT);
    CHECK_SAYS(why.text, path);
    CHECK_SAYS(why.text, "No such file");
    CHECK_SAYS(why.text, "sidecaml serve");
    CHECK_EQ(sidecaml_control_connect("/dev/null", "test", LONG_NS, &why), -SIDECAML_E_CONNECT);
    CHECK_EQ(sidecaml_control_connect("", "test", LONG_NS, &why), -SIDECAML_E_CONNECT);
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    CHECK_EQ(sidecaml_control_connect(longer, "test", LONG_NS, &why), -SIDECAML_E_CONNECT);
    CHECK_SAYS(why.text, "107 bytes");
}

static void a_daemon_of_another_version_is_said_to_be(void) {
    struct message reply;
    begin_ok(&reply, 1, 1);
    uint_field(&reply, "abi", SIDECAML_ABI_VERSION + 1000);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_ABI_MISMATCH);
    CHECK_SAYS(why.text, "version 1004");
    begin_ok(&reply, 1, 0);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_ABI_MISMATCH);
}

static void a_refusal_keeps_its_code_and_words(void) {
    struct message reply;
    begin(&reply, 5);
    uint_field(&reply, "id", 1);
    bool_field(&reply, "ok", false);
    uint_field(&reply, "code", SIDECAML_E_LIMIT);
    text_field(&reply, "error", "LIMIT");
    text_field(&reply, "message", "too many connections");
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_LIMIT);
    CHECK_EQ(why.code, SIDECAML_E_LIMIT);
    CHECK_SAYS(why.text, "too many connections");
    begin(&reply, 3); /* without words: the code's own */
    uint_field(&reply, "id", 1);
    bool_field(&reply, "ok", false);
    uint_field(&reply, "code", SIDECAML_E_SHUTTING_DOWN);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_SHUTTING_DOWN);
    CHECK_SAYS(why.text, "shutting down");
}

static void a_refusal_before_the_question_is_heard(void) {
    for (int unread = 0; unread < 2; unread++) {
        int sockets[2];
        struct message message;
        make_sockets(sockets);
        if (unread) CHECK_EQ(send(sockets[0], "x", 1, 0), 1);
        begin(&message, 3);
        bool_field(&message, "ok", false);
        uint_field(&message, "code", SIDECAML_E_LIMIT);
        text_field(&message, "message", "too many clients");
        send_message(sockets[1], &message);
        close(sockets[1]);
        CHECK_EQ(sidecaml_control_ping(sockets[0], LONG_NS, &why), -SIDECAML_E_LIMIT);
        CHECK_SAYS(why.text, "too many clients");
        CHECK_EQ(sidecaml_control_ping(sockets[0], LONG_NS, &why), -SIDECAML_E_SERVER_GONE);
        close(sockets[0]);
    }
}

static void a_long_refusal_is_cut(void) {
    struct message reply;
    char *words = malloc(50000);
    CHECK(words != NULL);
    memset(words, 'w', 50000);
    words[49999] = '\0';
    begin(&reply, 4);
    uint_field(&reply, "id", 1);
    bool_field(&reply, "ok", false);
    uint_field(&reply, "code", SIDECAML_E_DENIED);
    text_field(&reply, "message", words);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_DENIED);
    CHECK_EQ(strlen(why.text), sizeof why.text - 1);
    free(words);
}

static void check_no_protocol(const void *bytes, size_t count) {
    struct answer answer = {.bytes = bytes, .count = count};
    CHECK_EQ(connect_and_hear(&answer), -SIDECAML_E_PROTOCOL);
}

static void bytes_that_are_no_message_are_refused(void) {
    check_no_protocol("\xc1", 1);                           /* never used in msgpack */
    check_no_protocol("garbage", 7);                        /* a small integer, and more */
    check_no_protocol("\x90", 1);                           /* an array */
    check_no_protocol("\x82\xa2id\x01", 5);                 /* ends in the middle */
    check_no_protocol("\xdf\xff\xff\xff\xff", 5);           /* a map of four milliards of entries */
    check_no_protocol("\xdd\xff\xff\xff\xff", 5);           /* an array likewise */
    check_no_protocol("\x81\xa2ok\xc6\xff\xff\xff\xff", 9); /* bytes likewise */
    char *large = calloc(1, SIDECAML_CONTROL_BYTES + 1);
    CHECK(large != NULL);
    large[0] = (char)0x80;
    check_no_protocol(large, SIDECAML_CONTROL_BYTES + 1);
    memset(large, (int)0x91, SIDECAML_CONTROL_BYTES); /* arrays in arrays in arrays */
    check_no_protocol(large, SIDECAML_CONTROL_BYTES);
    memset(large, (int)0x81, SIDECAML_CONTROL_BYTES);
    check_no_protocol(large, SIDECAML_CONTROL_BYTES);
    free(large);
}

static void bytes_after_the_map_are_refused(void) {
    struct message reply;
    begin_ok(&reply, 1, 1);
    uint_field(&reply, "abi", SIDECAML_ABI_VERSION);
    msgpack_pack_nil(&reply.packer);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_PROTOCOL);
}

static void a_reply_to_something_else_is_refused(void) {
    struct message reply;
    begin_ok(&reply, 2, 1);
    uint_field(&reply, "abi", SIDECAML_ABI_VERSION);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_PROTOCOL);
    begin(&reply, 1);
    uint_field(&reply, "id", 1);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_PROTOCOL);
    begin(&reply, 2);
    uint_field(&reply, "id", 1);
    uint_field(&reply, "ok", 1);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_PROTOCOL);
    begin(&reply, 2);
    text_field(&reply, "id", "1");
    bool_field(&reply, "ok", true);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_PROTOCOL);
    begin(&reply, 0);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_PROTOCOL);
}

static void a_refusal_without_a_sensible_code_is_refused(void) {
    const uint64_t codes[] = {0, UINT64_C(1) << 31, UINT64_MAX};
    struct message reply;
    for (int i = 0; i < 3; i++) {
        begin(&reply, 3);
        uint_field(&reply, "id", 1);
        bool_field(&reply, "ok", false);
        uint_field(&reply, "code", codes[i]);
        CHECK_EQ(connect_to(&reply), -SIDECAML_E_PROTOCOL);
    }
    begin(&reply, 2);
    uint_field(&reply, "id", 1);
    bool_field(&reply, "ok", false);
    CHECK_EQ(connect_to(&reply), -SIDECAML_E_PROTOCOL);
}

static void a_message_that_announces_gigabytes_is_refused(void) {
    const struct answer answer = {.bytes = "\xdd\xff\xff\xff\xff", .count = 5};
    CHECK_EQ(connect_and_hear(&answer), -SIDECAML_E_PROTOCOL);
}

/* The harness looks at the descriptors. */
static void descriptors_beside_an_empty_message_are_closed(void) {
    int ends[2];
    make_sockets(ends);
    send_with_fds(ends[1], "", 0, ends, 2);
    CHECK_EQ(sidecaml_control_ping(ends[0], LONG_NS, &why), -SIDECAML_E_SERVER_GONE);
    close(ends[0]);
    close(ends[1]);
}

static void a_connection_that_ends_is_server_gone(void) {
    CHECK_EQ(connect_and_hear(&(struct answer){.count = 0}), -SIDECAML_E_SERVER_GONE);
    CHECK_EQ(connect_and_hear(&(struct answer){.refused = true}), -SIDECAML_E_SERVER_GONE);
}

static void a_daemon_that_never_answers_times_out(void) {
    CHECK_EQ(connect_and_hear(&(struct answer){.silent = true}), -SIDECAML_E_TIMEOUT);
    /* And one that does not even accept, whose queue may be full besides. */
    int clients[16];
    listener = listen_at(SOCK_SEQPACKET);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    CHECK_EQ(sidecaml_control_connect(path, "test", SHORT_NS, &why), -SIDECAML_E_TIMEOUT);
    for (int i = 0; i < 16; i++) {
        clients[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (connect(clients[i], (struct sockaddr *)&address, sizeof address) < 0) CHECK_EQ(errno, EAGAIN);
    }
    CHECK_EQ(sidecaml_control_connect(path, "test", SHORT_NS, &why), -SIDECAML_E_TIMEOUT);
    CHECK_SAYS(why.text, "queue is full");
    for (int i = 0; i < 16; i++)
        close(clients[i]);
    end_listening(listener);
}

/* run_tests counts the descriptors. */
static void descriptors_that_were_not_asked_for_are_closed(void) {
    struct message reply;
    begin_ok(&reply, 1, 1);
    uint_field(&reply, "abi", SIDECAML_ABI_VERSION);
    for (size_t fds = 1; fds <= 16; fds += 3) {
        struct answer answer = {.bytes = reply.bytes.data, .count = reply.bytes.size, .fd_count = fds};
        int fd = connect_and_hear(&answer);
        if (fds <= 4)
            CHECK(fd >= 0);
        else
            CHECK_EQ(fd, -SIDECAML_E_PROTOCOL);
    }
    msgpack_sbuffer_destroy(&reply.bytes);
}

/* --- Describing: the reply lies in the socket before the request is sent ------------------------------------------ */

/* One thing that is wrong with a model, or nothing. */
enum flaw {
    NO_FLAW,
    NAME_MISSING,
    ENGINE_MISSING,
    STATE_MISSING,
    PROBLEM_MISSING,
    FINGERPRINT_MISSING,
    MAX_SLOTS_MISSING,
    INPUTS_MISSING,
    OUTPUTS_MISSING,
    MAX_SLOTS_TOO_MANY,
    INPUTS_NO_ARRAY,
    TOO_MANY_TENSORS,
    CARRIED_NO_ARRAY,
    CARRIED_WITHOUT_OUTPUT,
    CARRIED_WITHOUT_NAME,
    BATCHING_NO_MAP,
    BATCHING_WITHOUT_POLICY,
    BATCHING_WITHOUT_DIM,
    BATCHING_WITHOUT_WHY,
    BATCHING_WITHOUT_MOST,
    BATCHING_WITHOUT_GATHER_FROM,
    BATCHING_WITHOUT_IN_PLACE,
    BATCHING_WITHOUT_SHARED,
    BATCHING_MOST_TOO_LARGE,
    BATCHING_GATHER_FROM_TOO_LARGE,
    BATCHING_SHARED_NO_STRING,
    BATCHING_SHARED_TOO_MANY,
    TENSOR_NO_MAP,
    TENSOR_WITHOUT_NAME,
    TENSOR_WITHOUT_DTYPE,
    TENSOR_WITHOUT_SHAPE,
    RANK_TOO_LARGE,
    DIMENSION_NEGATIVE,
    DIMENSION_TOO_LARGE,
    DIMENSION_NIL,
    FLAWS,
    /* Not a flaw: a daemon need not say it. */
    BATCHING_MISSING
};

static void pack_tensor(struct message *message, const char *name, const char *dtype, enum flaw flaw) {
    bool no_name = flaw == TENSOR_WITHOUT_NAME, no_dtype = flaw == TENSOR_WITHOUT_DTYPE;
    bool no_shape = flaw == TENSOR_WITHOUT_SHAPE;
    msgpack_pack_map(&message->packer, 3 - (size_t)no_name - no_dtype - no_shape);
    if (!no_name) text_field(message, "name", name);
    if (!no_dtype) text_field(message, "dtype", dtype);
    if (no_shape) return;
    text(message, "shape");
    size_t rank = flaw == RANK_TOO_LARGE ? SIDECAML_MAX_RANK + 1 : 2;
    msgpack_pack_array(&message->packer, rank);
    text(message, "batch");
    for (size_t i = 1; i < rank; i++) {
        if (flaw == DIMENSION_NEGATIVE)
            msgpack_pack_int(&message->packer, -1);
        else if (flaw == DIMENSION_TOO_LARGE)
            msgpack_pack_uint64(&message->packer, UINT64_MAX);
        else if (flaw == DIMENSION_NIL)
            msgpack_pack_nil(&message->packer);
        else
            msgpack_pack_int(&message->packer, 10);
    }
}

static void pack_inputs(struct message *message, enum flaw flaw) {
    text(message, "inputs");
    if (flaw == INPUTS_NO_ARRAY) {
        text(message, "none");
        return;
    }
    size_t count = flaw == TOO_MANY_TENSORS ? SIDECAML_MAX_TENSORS + 1 : 1;
    msgpack_pack_array(&message->packer, count);
    for (size_t i = 0; i < count; i++) {
        if (flaw == TENSOR_NO_MAP)
            msgpack_pack_nil(&message->packer);
        else
            pack_tensor(message, "x", "uint8", flaw);
    }
}

static void pack_carried(struct message *message, enum flaw flaw) {
    text(message, "carried");
    if (flaw == CARRIED_NO_ARRAY) {
        text(message, "none");
        return;
    }
    bool no_output = flaw == CARRIED_WITHOUT_OUTPUT, no_name = flaw == CARRIED_WITHOUT_NAME;
    msgpack_pack_array(&message->packer, 1);
    msgpack_pack_map(&message->packer, 4 - (size_t)no_output - no_name);
    if (!no_name) text_field(message, "name", "state");
    text_field(message, "dtype", "float32");
    text(message, "shape");
    msgpack_pack_array(&message->packer, 1);
    msgpack_pack_int(&message->packer, 3);
    if (!no_output) text_field(message, "output", "next");
}

static void pack_shared(struct message *message, enum flaw flaw) {
    size_t count = flaw == BATCHING_SHARED_TOO_MANY ? SIDECAML_MAX_TENSORS + 1 : 2;
    text(message, "shared");
    msgpack_pack_array(&message->packer, count);
    text(message, "rate");
    for (size_t i = 1; i < count; i++) {
        if (flaw == BATCHING_SHARED_NO_STRING)
            msgpack_pack_int(&message->packer, 1);
        else
            text(message, "scale");
    }
}

static void pack_batching(struct message *message, enum flaw flaw) {
    text(message, "batching");
    if (flaw == BATCHING_NO_MAP) {
        msgpack_pack_nil(&message->packer);
        return;
    }
    bool one_missing = flaw >= BATCHING_WITHOUT_POLICY && flaw <= BATCHING_WITHOUT_SHARED;
    msgpack_pack_map(&message->packer, 7 - (size_t)one_missing);
    if (flaw != BATCHING_WITHOUT_POLICY) text_field(message, "policy", "ulp 3");
    if (flaw != BATCHING_WITHOUT_DIM) text_field(message, "dim", "N");
    if (flaw != BATCHING_WITHOUT_WHY) text_field(message, "why", "2 s are over");
    if (flaw != BATCHING_WITHOUT_MOST)
        uint_field(message, "most", flaw == BATCHING_MOST_TOO_LARGE ? UINT64_C(1) << 32 : 12);
    if (flaw != BATCHING_WITHOUT_GATHER_FROM)
        uint_field(message, "gather_from", flaw == BATCHING_GATHER_FROM_TOO_LARGE ? UINT64_C(1) << 32 : 4);
    if (flaw != BATCHING_WITHOUT_IN_PLACE) bool_field(message, "in_place", true);
    if (flaw != BATCHING_WITHOUT_SHARED) pack_shared(message, flaw);
}

static void pack_model(struct message *message, const char *name, enum flaw flaw) {
    bool one_missing = (flaw >= NAME_MISSING && flaw <= OUTPUTS_MISSING) || flaw == BATCHING_MISSING;
    msgpack_pack_map(&message->packer, 10 - (size_t)one_missing);
    pack_carried(message, flaw);
    if (flaw != BATCHING_MISSING) pack_batching(message, flaw);
    if (flaw != NAME_MISSING) text_field(message, "name", name);
    if (flaw != ENGINE_MISSING) text_field(message, "engine", "onnx");
    if (flaw != STATE_MISSING) text_field(message, "state", "ready");
    if (flaw != PROBLEM_MISSING) text_field(message, "problem", "");
    if (flaw != FINGERPRINT_MISSING) uint_field(message, "fingerprint", 77);
    if (flaw != MAX_SLOTS_MISSING)
        uint_field(message, "max_slots", flaw == MAX_SLOTS_TOO_MANY ? SIDECAML_MAX_SLOTS + 1 : 8);
    if (flaw != INPUTS_MISSING) pack_inputs(message, flaw);
    if (flaw == OUTPUTS_MISSING) return;
    text(message, "outputs");
    msgpack_pack_array(&message->packer, 1);
    pack_tensor(message, "y", "a type of tomorrow", NO_FLAW);
}

static void begin_models(struct message *message, uint64_t id, size_t models, bool more) {
    begin_ok(message, id, 2);
    bool_field(message, "more", more);
    text(message, "models");
    msgpack_pack_array(&message->packer, models);
}

static int describe_from(int sockets[2], struct sidecaml_models *models) {
    return sidecaml_control_describe(sockets[0], NULL, LONG_NS, models, &why);
}

static void close_sockets(int sockets[2]) {
    close(sockets[0]), close(sockets[1]);
}

static void every_field_of_a_description_arrives(void) {
    struct message reply;
    struct sidecaml_models models;
    int sockets[2];
    make_sockets(sockets);
    begin_models(&reply, 2, 1, false);
    pack_model(&reply, "digits", NO_FLAW);
    send_message(sockets[1], &reply);
    CHECK_EQ(describe_from(sockets, &models), 0);
    CHECK_EQ(models.count, 1);
    const struct sidecaml_model_info *model = models.models;
    CHECK(strcmp(model->name, "digits") == 0 && strcmp(model->engine, "onnx") == 0);
    CHECK(strcmp(model->state, "ready") == 0 && strcmp(model->problem, "") == 0);
    CHECK(model->fingerprint == 77 && model->max_slots == 8 && model->tensor_count == 2);
    const struct sidecaml_tensor_info *x = &model->tensors[0], *y = &model->tensors[1];
    CHECK(strcmp(x->name, "x") == 0 && x->dtype == SIDECAML_UINT8 && !x->output && x->rank == 2);
    CHECK(x->dims[0] == -1 && strcmp(x->dim_names[0], "batch") == 0);
    CHECK(x->dims[1] == 10 && x->dim_names[1] == NULL);
    CHECK(y->output && y->dtype == 0 && strcmp(y->dtype_name, "a type of tomorrow") == 0);
    CHECK_EQ(model->carried_count, 1);
    const struct sidecaml_carried_info *carried = &model->carried[0];
    CHECK(strcmp(carried->output, "next") == 0 && strcmp(carried->input.name, "state") == 0);
    CHECK(carried->input.dtype == SIDECAML_FLOAT32 && carried->input.rank == 1 && carried->input.dims[0] == 3);
    const struct sidecaml_batching_info *batching = &model->batching;
    CHECK(strcmp(batching->policy, "ulp 3") == 0 && strcmp(batching->dim, "N") == 0);
    CHECK(strcmp(batching->why, "2 s are over") == 0 && batching->most == 12 && batching->gather_from == 4);
    CHECK(batching->in_place && batching->shared_count == 2);
    CHECK(strcmp(batching->shared[0], "rate") == 0 && strcmp(batching->shared[1], "scale") == 0);
    sidecaml_models_free(&models);
    CHECK_EQ(models.count, 0);
    sidecaml_models_free(&models);
    close_sockets(sockets);
}

static void a_daemon_may_say_nothing_of_batches(void) {
    struct message reply;
    struct sidecaml_models models;
    int sockets[2];
    make_sockets(sockets);
    begin_models(&reply, 2, 1, false);
    pack_model(&reply, "digits", BATCHING_MISSING);
    send_message(sockets[1], &reply);
    CHECK_EQ(describe_from(sockets, &models), 0);
    CHECK(models.count == 1 && !models.models[0].batching.policy);
    sidecaml_models_free(&models);
    close_sockets(sockets);
}

static void pages_are_put_together(void) {
    struct message reply;
    struct sidecaml_models models;
    int sockets[2];
    make_sockets(sockets);
    for (uint64_t id = 2; id < 5; id++) {
        begin_models(&reply, id, 2, id < 4);
        pack_model(&reply, "a", NO_FLAW);
        pack_model(&reply, "b", NO_FLAW);
        send_message(sockets[1], &reply);
    }
    CHECK_EQ(describe_from(sockets, &models), 0);
    CHECK_EQ(models.count, 6);
    sidecaml_models_free(&models);
    close_sockets(sockets);
}

static void a_list_without_end_is_refused(void) {
    struct message reply;
    struct sidecaml_models models;
    int sockets[2];
    make_sockets(sockets);
    begin_models(&reply, 2, 0, true);
    send_message(sockets[1], &reply);
    CHECK_EQ(describe_from(sockets, &models), -SIDECAML_E_PROTOCOL);
    CHECK_EQ(models.count, 0);
    close_sockets(sockets);
}

static void no_models_at_all_are_a_list(void) {
    struct message reply;
    struct sidecaml_models models;
    int sockets[2];
    make_sockets(sockets);
    begin_models(&reply, 2, 0, false);
    send_message(sockets[1], &reply);
    CHECK_EQ(describe_from(sockets, &models), 0);
    CHECK_EQ(models.count, 0);
    sidecaml_models_free(&models);
    close_sockets(sockets);
}

static void every_flaw_of_a_description_is_refused(void) {
    for (enum flaw flaw = NO_FLAW + 1; flaw < FLAWS; flaw++) {
        struct message reply;
        struct sidecaml_models models;
        int sockets[2];
        make_sockets(sockets);
        begin_models(&reply, 2, 2, false);
        pack_model(&reply, "good", NO_FLAW);
        pack_model(&reply, "bad", flaw);
        send_message(sockets[1], &reply);
        if (describe_from(sockets, &models) != -SIDECAML_E_PROTOCOL)
            check_failed(__FILE__, __LINE__, "flaw %d of a model is not refused", (int)flaw);
        CHECK_EQ(models.count, 0);
        close_sockets(sockets);
    }
}

static void an_unknown_model_is_the_daemons_to_name(void) {
    struct message reply;
    struct sidecaml_models models;
    int sockets[2];
    make_sockets(sockets);
    begin(&reply, 4);
    uint_field(&reply, "id", 2);
    bool_field(&reply, "ok", false);
    uint_field(&reply, "code", SIDECAML_E_UNKNOWN_MODEL);
    text_field(&reply, "message", "no model \"digit\": did you mean \"digits\"?");
    send_message(sockets[1], &reply);
    CHECK_EQ(sidecaml_control_describe(sockets[0], "digit", LONG_NS, &models, &why), -SIDECAML_E_UNKNOWN_MODEL);
    CHECK_SAYS(why.text, "did you mean");
    close_sockets(sockets);
}

/* Bytes of a good reply are changed at random: an answer or a failure, never a crash, a hang or a leak. */
static void mutated_descriptions_do_no_harm(void) {
    struct message reply;
    struct numbers numbers = {3};
    int sockets[2];
    begin_models(&reply, 2, 1, false);
    pack_model(&reply, "digits", NO_FLAW);
    char *copy = malloc(reply.bytes.size);
    CHECK(copy != NULL);
    make_sockets(sockets);
    for (int round = 0; round < 5000; round++) {
        struct sidecaml_models models;
        size_t size = reply.bytes.size;
        memcpy(copy, reply.bytes.data, size);
        for (unsigned long long i = next_number(&numbers) % 4; i > 0; i--)
            copy[next_number(&numbers) % size] = (char)next_number(&numbers);
        if (next_number(&numbers) % 4 == 0) size = next_number(&numbers) % size + 1;
        send_with_fds(sockets[1], copy, size, sockets, next_number(&numbers) % 3);
        /* What asks for more pages waits for one that never comes. */
        int status = sidecaml_control_describe(sockets[0], NULL, 1, &models, &why);
        if (status == 0)
            sidecaml_models_free(&models);
        else
            CHECK(status < 0 && why.code == -status);
        char request[4096];
        while (recv(sockets[1], request, sizeof request, MSG_DONTWAIT) > 0) {
        }
    }
    free(copy);
    msgpack_sbuffer_destroy(&reply.bytes);
    close_sockets(sockets);
}

/* --- Opening ------------------------------------------------------------------------------------------------------ */

/* What a daemon has made for a model "digits" with x: uint8[batch, 10] and y: uint8[batch, 10]. */
struct opened {
    sidecaml_worker *worker;
    int fds[5]; /* segment, request, answer, status, and one too many */
    int control, supervisor;
    int sockets[2];
};

static void make_opened(struct opened *opened, uint64_t rows, uint64_t fingerprint) {
    struct sidecaml_layout layout;
    struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_UINT8, .rank = 2, .dynamic = true, .max_dims = {4, rows}},
        {.name = "y", .dtype = SIDECAML_UINT8, .rank = 2, .output = true, .dynamic = true, .max_dims = {4, rows}},
    };
    CHECK_EQ(sidecaml_layout_compute(specs, 2, 2, fingerprint, &layout, &why), 0);
    opened->worker = make_worker(SIDECAML_BLOCK, &opened->fds[3], &opened->control, &opened->supervisor);
    opened->fds[0] = make_memfd(layout.segment_bytes);
    opened->fds[1] = make_doorbell();
    opened->fds[2] = make_doorbell();
    opened->fds[4] = make_doorbell();
    struct sidecaml_worker_fds fds = {must_dup(opened->fds[0]), must_dup(opened->fds[1]), must_dup(opened->fds[2]), -1};
    CHECK_EQ(sidecaml_worker_attach(opened->worker, &fds, &layout, 0, &why), 0);
    make_sockets(opened->sockets);
}

static void close_opened(struct opened *opened) {
    sidecaml_worker_destroy(opened->worker);
    for (int i = 0; i < 5; i++)
        close(opened->fds[i]);
    close(opened->control), close(opened->supervisor), close(opened->sockets[1]);
    if (opened->sockets[0] >= 0) close(opened->sockets[0]);
}

/* The reply to open: with `fd_count` descriptors, starting at descriptor `first`. */
static void send_opened(struct opened *opened, bool with_model, int first, size_t fd_count) {
    struct message reply;
    begin_ok(&reply, 2, 4 + with_model);
    uint_field(&reply, "channel", 1);
    uint_field(&reply, "slots", 2);
    uint_field(&reply, "segment_bytes", 1);
    uint_field(&reply, "fingerprint", 77);
    if (with_model) {
        text(&reply, "model");
        msgpack_pack_map(&reply.packer, 8);
        text_field(&reply, "name", "digits");
        text_field(&reply, "engine", "onnx");
        text_field(&reply, "state", "ready");
        text_field(&reply, "problem", "");
        uint_field(&reply, "fingerprint", 77);
        uint_field(&reply, "max_slots", 8);
        text(&reply, "inputs");
        msgpack_pack_array(&reply.packer, 1);
        pack_tensor(&reply, "x", "uint8", NO_FLAW);
        text(&reply, "outputs");
        msgpack_pack_array(&reply.packer, 1);
        pack_tensor(&reply, "y", "uint8", NO_FLAW);
    }
    send_with_fds(opened->sockets[1], reply.bytes.data, reply.bytes.size, opened->fds + first, fd_count);
    msgpack_sbuffer_destroy(&reply.bytes);
}

static int open_from(struct opened *opened, sidecaml_channel **channel, struct sidecaml_models *models) {
    struct sidecaml_dim_binding dims[] = {{"batch", 4}};
    struct sidecaml_open what = {.model = "digits", .slots = 2, .dims = dims, .dim_count = 1, .policy = SIDECAML_BLOCK};
    return sidecaml_control_open(opened->sockets[0], &what, LONG_NS, channel, models, &why);
}

static void an_opened_channel_works_and_owns_its_connection(void) {
    struct opened opened;
    struct sidecaml_models models;
    struct sidecaml_request request;
    sidecaml_channel *channel;
    make_opened(&opened, 10, 77);
    send_opened(&opened, true, 0, 4);
    CHECK_EQ(open_from(&opened, &channel, &models), 0);
    CHECK_EQ(models.count, 1);
    CHECK_EQ(sidecaml_channel_control_fd(channel), opened.sockets[0]);
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    CHECK_EQ(sidecaml_worker_next(opened.worker, 0, &request), 1);
    CHECK_EQ(sidecaml_worker_complete(opened.worker, &request, 0, NULL), 0);
    CHECK_EQ(sidecaml_channel_wait(channel, 0, 0), 0);
    sidecaml_models_free(&models);
    sidecaml_channel_close(channel);
    CHECK(fcntl(opened.sockets[0], F_GETFD) < 0);
    opened.sockets[0] = -1;
    close_opened(&opened);
}

/* Opens and fails with `code`; the control socket stays the caller's and can be used again. */
static void check_refused(struct opened *opened, int code, const char *says) {
    struct sidecaml_models models;
    struct message pong;
    sidecaml_channel *channel;
    int before = count_fds();
    CHECK_EQ(open_from(opened, &channel, &models), -code);
    CHECK_SAYS(why.text, says);
    CHECK_EQ(models.count, 0);
    CHECK_EQ(count_fds(), before);
    begin_ok(&pong, 3, 1);
    uint_field(&pong, "time_ns", 1);
    send_message(opened->sockets[1], &pong);
    CHECK_EQ(sidecaml_control_ping(opened->sockets[0], LONG_NS, &why), 0);
    close_opened(opened);
}

static void descriptors_must_be_four(void) {
    struct opened opened;
    for (size_t count = 0; count < 4; count++) {
        make_opened(&opened, 10, 77);
        send_opened(&opened, true, 0, count);
        check_refused(&opened, SIDECAML_E_PROTOCOL, "descriptors");
    }
    make_opened(&opened, 10, 77);
    send_opened(&opened, true, 0, 5);
    check_refused(&opened, SIDECAML_E_PROTOCOL, "larger than the protocol allows");
}

static void an_open_without_its_model_is_refused(void) {
    struct opened opened;
    make_opened(&opened, 10, 77);
    send_opened(&opened, false, 0, 4);
    check_refused(&opened, SIDECAML_E_PROTOCOL, "lacks the model");
}

static void descriptors_of_something_else_are_refused(void) {
    struct opened opened;
    make_opened(&opened, 10, 77);
    send_opened(&opened, true, 1, 4); /* doorbells where segment and status page should be */
    check_refused(&opened, SIDECAML_E_CORRUPT, "segment");
}

static void a_segment_of_another_signature_is_refused(void) {
    struct opened opened;
    make_opened(&opened, 10, 78);
    send_opened(&opened, true, 0, 4);
    check_refused(&opened, SIDECAML_E_CORRUPT, "another signature");
    make_opened(&opened, 11, 77); /* the fingerprint agrees, the dims do not */
    send_opened(&opened, true, 0, 4);
    check_refused(&opened, SIDECAML_E_CORRUPT, "\"digits\"");
}

static void a_request_too_large_is_not_sent(void) {
    struct sidecaml_models models;
    sidecaml_channel *channel;
    int sockets[2];
    make_sockets(sockets);
    char *name = malloc(SIDECAML_CONTROL_BYTES + 1);
    CHECK(name != NULL);
    memset(name, 'n', SIDECAML_CONTROL_BYTES);
    name[SIDECAML_CONTROL_BYTES] = '\0';
    struct sidecaml_open what = {.model = name, .slots = 1, .policy = SIDECAML_BLOCK};
    CHECK_EQ(sidecaml_control_open(sockets[0], &what, LONG_NS, &channel, &models, &why), -SIDECAML_E_INVALID);
    CHECK_EQ(recv(sockets[1], name, 1, MSG_DONTWAIT), -1);
    free(name);
    close_sockets(sockets);
}

static void a_daemon_that_reads_nothing_times_out(void) {
    int sockets[2];
    make_sockets(sockets);
    while (send(sockets[0], "x", 1, MSG_DONTWAIT) == 1) {
    }
    CHECK_EQ(sidecaml_control_ping(sockets[0], SHORT_NS, &why), -SIDECAML_E_TIMEOUT);
    close(sockets[1]);
    CHECK_EQ(sidecaml_control_ping(sockets[0], LONG_NS, &why), -SIDECAML_E_SERVER_GONE);
    close(sockets[0]);
}

static int pinged;
static struct message pong;
static uint64_t handled_until_ns;

static void answer_and_stay(int signal) {
    (void)signal;
    CHECK_EQ(send(pinged, pong.bytes.data, pong.bytes.size, 0), pong.bytes.size);
    while (sidecaml_now_ns() < handled_until_ns) {
    }
}

static void what_comes_while_a_signal_is_handled_comes_in_time(void) {
    int sockets[2];
    const struct sigaction action = {.sa_handler = answer_and_stay};
    const struct itimerspec soon = {.it_value = {.tv_nsec = SHORT_NS / 3}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t timer;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets), 0);
    begin_ok(&pong, 3, 0);
    pinged = sockets[1];
    handled_until_ns = sidecaml_now_ns() + 2 * SHORT_NS;
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_EQ(timer_settime(timer, 0, &soon, NULL), 0);
    CHECK_EQ(sidecaml_control_ping(sockets[0], SHORT_NS, &why), 0);
    CHECK_EQ(timer_delete(timer), 0);
    msgpack_sbuffer_destroy(&pong.bytes);
    close(sockets[0]), close(sockets[1]);
}

/* --- The last words ------------------------------------------------------------------------------------------------
 */

static void check_last_words(const void *bytes, size_t count, int code, const char *says) {
    struct sidecaml_layout layout;
    struct pair pair;
    pair_layout(&layout, 1, 10);
    pair_open(&pair, &layout, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    if (count) CHECK_EQ(send(pair.daemon, bytes, count, 0), count);
    shutdown(pair.daemon, SHUT_RDWR);
    int status;
    do
        status = sidecaml_channel_wait(pair.channel, 0, 0);
    while (status == -SIDECAML_E_AGAIN);
    CHECK_EQ(status, -SIDECAML_E_SERVER_GONE);
    sidecaml_control_gone(pair.channel, &why);
    CHECK_EQ(why.code, code);
    CHECK_SAYS(why.text, says);
    pair_close(&pair);
}

static void a_gone_channel_says_why(void) {
    struct message event;
    begin(&event, 4);
    text_field(&event, "event", "gone");
    uint_field(&event, "channel", 1);
    uint_field(&event, "code", SIDECAML_E_WORKER_CRASHED);
    text_field(&event, "message", "the worker of \"digits\" was killed");
    check_last_words(event.bytes.data, event.bytes.size, SIDECAML_E_WORKER_CRASHED, "\"digits\" was killed");
    msgpack_sbuffer_destroy(&event.bytes);
}

static void without_sensible_last_words_the_server_is_gone(void) {
    check_last_words(NULL, 0, SIDECAML_E_SERVER_GONE, "is gone");
    check_last_words("\x91\x01", 2, SIDECAML_E_SERVER_GONE, "is gone");
    check_last_words("\x80", 1, SIDECAML_E_SERVER_GONE, "is gone");
    char large[8000];
    memset(large, (int)0x91, sizeof large);
    check_last_words(large, sizeof large, SIDECAML_E_SERVER_GONE, "is gone");
}

int main(void) {
    static const struct test tests[] = {
        {TEST(hello_says_version_and_name_and_opens_the_connection)},
        {TEST(a_path_without_a_daemon_is_named)},
        {TEST(a_daemon_of_another_version_is_said_to_be)},
        {TEST(a_refusal_keeps_its_code_and_words)},
        {TEST(a_refusal_before_the_question_is_heard)},
        {TEST(a_long_refusal_is_cut)},
        {TEST(bytes_that_are_no_message_are_refused)},
        {TEST(bytes_after_the_map_are_refused)},
        {TEST(a_reply_to_something_else_is_refused)},
        {TEST(a_refusal_without_a_sensible_code_is_refused)},
        {TEST(a_message_that_announces_gigabytes_is_refused)},
        {TEST(descriptors_beside_an_empty_message_are_closed)},
        {TEST(a_connection_that_ends_is_server_gone)},
        {TEST(a_daemon_that_never_answers_times_out)},
        {TEST(descriptors_that_were_not_asked_for_are_closed)},
        {TEST(every_field_of_a_description_arrives)},
        {TEST(a_daemon_may_say_nothing_of_batches)},
        {TEST(pages_are_put_together)},
        {TEST(a_list_without_end_is_refused)},
        {TEST(no_models_at_all_are_a_list)},
        {TEST(every_flaw_of_a_description_is_refused)},
        {TEST(an_unknown_model_is_the_daemons_to_name)},
        {TEST(mutated_descriptions_do_no_harm)},
        {TEST(an_opened_channel_works_and_owns_its_connection)},
        {TEST(descriptors_must_be_four)},
        {TEST(an_open_without_its_model_is_refused)},
        {TEST(descriptors_of_something_else_are_refused)},
        {TEST(a_segment_of_another_signature_is_refused)},
        {TEST(a_request_too_large_is_not_sent)},
        {TEST(a_daemon_that_reads_nothing_times_out)},
        {TEST(what_comes_while_a_signal_is_handled_comes_in_time)},
        {TEST(a_gone_channel_says_why)},
        {TEST(without_sensible_last_words_the_server_is_gone)},
    };
    return RUN_TESTS(tests, 60);
}
