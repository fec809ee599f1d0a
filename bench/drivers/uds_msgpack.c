/* uds-msgpack: what one would write in an afternoon. The client packs its inputs as a map of bytes, a Python server
 * runs them with ONNX Runtime, and a map of bytes comes back over the same Unix stream socket. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "child.h"
#include "describe.h"
#include "failure.h"
#include "memory.h"
#include "path.h"

#define RECEIVE_BYTES 65536

static struct {
    struct tensors tensors;
    void *block;
    struct child server;
    int socket;
    msgpack_sbuffer request;
    msgpack_unpacker answers;
    bool has_answers;
} client = {.socket = -1};

/* --- A call ------------------------------------------------------------------------------------------------------ */

static int no_memory(struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a message");
}

static int pack(struct sidecaml_failure *why) {
    msgpack_packer packer;
    msgpack_sbuffer_clear(&client.request);
    msgpack_packer_init(&packer, &client.request, msgpack_sbuffer_write);
    int status = msgpack_pack_map(&packer, client.tensors.inputs);
    for (uint32_t i = 0; status == 0 && i < client.tensors.inputs; i++) {
        const struct tensor *input = &client.tensors.tensor[i];
        status = msgpack_pack_str_with_body(&packer, input->name, strlen(input->name));
        if (status == 0)
            status = msgpack_pack_bin_with_body(&packer, (char *)client.block + input->offset, input->bytes);
    }
    return status < 0 ? no_memory(why) : 0;
}

/* How it ended says more than what became of the socket. */
static int fail_gone(struct sidecaml_failure *why) {
    int status = child_wait(&client.server, NULL, why);
    return status < 0 ? status : fail(why, SIDECAML_E_SERVER_GONE, "the msgpack server ended before its client");
}

static int send_request(struct sidecaml_failure *why) {
    for (size_t sent = 0; sent < client.request.size;) {
        ssize_t bytes = send(client.socket, client.request.data + sent, client.request.size - sent, MSG_NOSIGNAL);
        if (bytes < 0 && errno == EPIPE) return fail_gone(why);
        if (bytes < 0 && errno != EINTR) return fail_errno(why, "sending to the msgpack server");
        if (bytes > 0) sent += (size_t)bytes;
    }
    return 0;
}

/* One portion into the unpacker. */
static int receive(struct sidecaml_failure *why) {
    ssize_t bytes;
    if (!msgpack_unpacker_reserve_buffer(&client.answers, RECEIVE_BYTES)) return no_memory(why);
    do
        bytes = recv(client.socket, msgpack_unpacker_buffer(&client.answers),
                     msgpack_unpacker_buffer_capacity(&client.answers), 0);
    while (bytes < 0 && errno == EINTR);
    if (bytes == 0 || (bytes < 0 && errno == ECONNRESET)) return fail_gone(why);
    if (bytes < 0) return fail_errno(why, "receiving from the msgpack server");
    msgpack_unpacker_buffer_consumed(&client.answers, (size_t)bytes);
    return 0;
}

static int receive_answer(msgpack_unpacked *answer, struct sidecaml_failure *why) {
    for (;;) {
        switch (msgpack_unpacker_next(&client.answers, answer)) {
        case MSGPACK_UNPACK_SUCCESS:
            return 0;
        case MSGPACK_UNPACK_CONTINUE:
            break;
        case MSGPACK_UNPACK_NOMEM_ERROR:
            return no_memory(why);
        default:
            return fail(why, SIDECAML_E_PROTOCOL, "the msgpack server sent what is no msgpack");
        }
        int status = receive(why);
        if (status < 0) return status;
    }
}

static const msgpack_object *find(const msgpack_object_map *map, const char *name) {
    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object *key = &map->ptr[i].key;
        if (key->type == MSGPACK_OBJECT_STR && key->via.str.size == strlen(name) &&
            memcmp(key->via.str.ptr, name, key->via.str.size) == 0)
            return &map->ptr[i].val;
    }
    return NULL;
}

static int copy_output(const msgpack_object_map *map, const struct tensor *output, struct sidecaml_failure *why) {
    const msgpack_object *found = find(map, output->name);
    if (!found || found->type != MSGPACK_OBJECT_BIN || found->via.bin.size != output->bytes)
        return fail(why, SIDECAML_E_PROTOCOL, "the msgpack server's answer lacks the %llu bytes of output \"%s\"",
                    (unsigned long long)output->bytes, output->name);
    memcpy((char *)client.block + output->offset, found->via.bin.ptr, output->bytes);
    return 0;
}

/* A map of outputs, or a sentence that says what went wrong. */
static int copy_outputs(const msgpack_object *answer, struct sidecaml_failure *why) {
    if (answer->type == MSGPACK_OBJECT_STR)
        return fail(why, SIDECAML_E_ENGINE, "%.*s", (int)answer->via.str.size, answer->via.str.ptr);
    if (answer->type != MSGPACK_OBJECT_MAP)
        return fail(why, SIDECAML_E_PROTOCOL, "the msgpack server's answer is no map of outputs");
    for (uint32_t i = client.tensors.inputs; i < client.tensors.count; i++) {
        int status = copy_output(&answer->via.map, &client.tensors.tensor[i], why);
        if (status < 0) return status;
    }
    return 0;
}

static int run(struct sidecaml_failure *why) {
    msgpack_unpacked answer;
    int status = pack(why);
    if (status == 0) status = send_request(why);
    if (status < 0) return status;
    msgpack_unpacked_init(&answer);
    status = receive_answer(&answer, why);
    if (status == 0) status = copy_outputs(&answer.data, why);
    msgpack_unpacked_destroy(&answer);
    return status;
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

struct order {
    const char *model;
    int socket;
};

static int execute(void *argument) {
    const struct order *order = argument;
    const char *chosen = getenv("SIDECAML_PYTHON");
    const char *python = chosen && *chosen ? chosen : "python3";
    char socket[16];
    snprintf(socket, sizeof socket, "%d", order->socket);
    if (fcntl(order->socket, F_SETFD, 0) == 0) execlp(python, python, UDS_SERVER, order->model, socket, (char *)NULL);
    fprintf(stderr, "%s could not be started: %s\n", python, strerror(errno));
    return 1;
}

static int launch(const struct options *options, struct sidecaml_failure *why) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return fail_errno(why, "socketpair");
    client.socket = ends[0];
    struct order order = {.model = options->model, .socket = ends[1]};
    int status = child_start("the msgpack server", options->server_core, execute, &order, &client.server, why);
    close(ends[1]);
    return status;
}

static int make_buffers(struct sidecaml_failure *why) {
    msgpack_sbuffer_init(&client.request);
    /* Room for a whole answer from the start. */
    client.has_answers = msgpack_unpacker_init(&client.answers, client.tensors.bytes + 2 * RECEIVE_BYTES);
    return client.has_answers ? 0 : no_memory(why);
}

static int open_path(const struct options *options, struct opened *out, struct sidecaml_failure *why) {
    int status = describe(options->model, &client.tensors, why);
    if (status == 0) status = memory_map(client.tensors.bytes, PRIVATE, &client.block, why);
    if (status == 0) status = make_buffers(why);
    if (status == 0) status = launch(options, why);
    *out = (struct opened){.tensors = &client.tensors, .block = client.block, .server = client.server.pid};
    return status;
}

static void close_path(void) {
    child_stop(&client.server);
    if (client.socket >= 0) close(client.socket);
    if (client.has_answers) msgpack_unpacker_destroy(&client.answers);
    msgpack_sbuffer_destroy(&client.request);
    memory_unmap(client.block, client.tensors.bytes);
}

const struct path uds_msgpack_path = {.name = "uds-msgpack", .open = open_path, .run = run, .close = close_path};
