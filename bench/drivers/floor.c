/* floor: the least that a call to another process can cost. Two processes spin on two words; nothing else. */
#include "atomics.h"
#include "server.h"

/* A pair of lines each way: neither side's store takes a line from the other that it does not wait for. */
struct meeting {
    _Alignas(SIDECAML_LINE_PAIR) _Atomic uint64_t request; /* number of the last call; the client's */
    _Alignas(SIDECAML_LINE_PAIR) _Atomic uint64_t answer;  /* number of the last call answered; the server's */
};

static struct {
    struct server server;
    struct meeting *meeting;
    uint64_t calls;
} spinning;

/* A failed run ends the process: the client's guard then tells why, and the loops below need no way out. */
static int serve(struct model *model, void *place, struct sidecaml_failure *why) {
    struct meeting *meeting = place;
    for (uint64_t call = 1;; call++) {
        /* Acquire, from the client's release below: the inputs filled for this call are read, and its outputs are
         * written after the client has read those of the call before. */
        while (load64(&meeting->request, acquire) != call)
            cpu_relax();
        int status = model_run(model, why);
        if (status < 0) return status;
        /* Release: the client's acquire finds all outputs, and fills no input that the run still reads. */
        store64(&meeting->answer, call, release);
    }
}

static int run(struct sidecaml_failure *why) {
    struct meeting *meeting = spinning.meeting;
    uint64_t call = ++spinning.calls;
    (void)why;
    store64(&meeting->request, call, release);
    while (load64(&meeting->answer, acquire) != call)
        cpu_relax();
    return 0;
}

static int open_path(const struct options *options, struct opened *out, struct sidecaml_failure *why) {
    struct server *server = &spinning.server;
    int status = server_start(options, sizeof(struct meeting), serve, server, why);
    spinning.meeting = server->meeting;
    *out = (struct opened){.tensors = &server->tensors, .block = server->block, .server = server->child.pid};
    return status;
}

static void close_path(void) {
    server_stop(&spinning.server);
}

const struct path floor_path = {.name = "floor", .open = open_path, .run = run, .close = close_path};
