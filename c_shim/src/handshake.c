/* A question to the daemon from the connect to the answer, and from the connect again when the daemon goes away in the
 * middle of it. That does no harm: a connection that ends without an open channel leaves nothing behind. */
#define _GNU_SOURCE
#include <sys/socket.h>
#include <unistd.h>

#include "backoff.h"
#include "sidecaml/sidecaml.h"

/* One of the questions, on a connection that has said hello. Of a good answer the connection may be a part, and is then
 * the answer's. */
struct question {
    int (*ask)(int fd, uint64_t timeout_ns, void *context, struct sidecaml_failure *why);
    void *context;
    bool keeps_connection;
};

static uint64_t left_until(uint64_t deadline_ns) {
    uint64_t now = sidecaml_now_ns();
    return now < deadline_ns ? deadline_ns - now : 0;
}

/* Whether the other end is closed; a daemon that refuses says why, and leaves the connection open. */
static bool is_lost(int fd) {
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Sets *lost when the daemon was there, and went away. */
static int attempt(const struct sidecaml_daemon *daemon, const struct question *question, uint64_t deadline_ns,
                   bool *lost, struct sidecaml_failure *why) {
    int fd = sidecaml_control_connect(daemon->path, daemon->client_name, left_until(deadline_ns), why);
    *lost = fd == -SIDECAML_E_SERVER_GONE || fd == -SIDECAML_E_SHUTTING_DOWN;
    if (fd < 0) return fd;
    int status = question->ask(fd, left_until(deadline_ns), question->context, why);
    *lost = status == -SIDECAML_E_SHUTTING_DOWN || (status == -SIDECAML_E_SERVER_GONE && is_lost(fd));
    if (status < 0 || !question->keeps_connection) close(fd);
    return status;
}

static int converse(const struct sidecaml_daemon *daemon, const struct question *question,
                    struct sidecaml_failure *why) {
    struct backoff backoff;
    uint64_t now = sidecaml_now_ns();
    uint64_t deadline_ns = daemon->timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + daemon->timeout_ns;
    bool lost, was_lost = false;
    backoff_init(&backoff);
    for (;;) {
        int status = attempt(daemon, question, deadline_ns, &lost, why);
        was_lost = was_lost || lost;
        /* Between two daemons nobody answers for a while. One that never was there is no reason to wait. */
        bool again = lost || (was_lost && status == -SIDECAML_E_CONNECT);
        if (!again || left_until(deadline_ns) == 0) return status;
        backoff_sleep(&backoff, deadline_ns);
    }
}

/* --- Describe ---------------------------------------------------------------------------------------------------- */

struct describing {
    const char *model;
    struct sidecaml_models *out;
};

static int ask_describe(int fd, uint64_t timeout_ns, void *context, struct sidecaml_failure *why) {
    const struct describing *what = context;
    return sidecaml_control_describe(fd, what->model, timeout_ns, what->out, why);
}

int sidecaml_daemon_describe(const struct sidecaml_daemon *daemon, const char *model, struct sidecaml_models *out,
                             struct sidecaml_failure *why) {
    struct describing what = {model, out};
    return converse(daemon, &(struct question){ask_describe, &what, false}, why);
}

/* --- Open -------------------------------------------------------------------------------------------------------- */

struct opening {
    const struct sidecaml_open *what;
    sidecaml_channel **out;
    struct sidecaml_models *models;
};

static int ask_open(int fd, uint64_t timeout_ns, void *context, struct sidecaml_failure *why) {
    const struct opening *opening = context;
    return sidecaml_control_open(fd, opening->what, timeout_ns, opening->out, opening->models, why);
}

int sidecaml_daemon_open(const struct sidecaml_daemon *daemon, const struct sidecaml_open *what, sidecaml_channel **out,
                         struct sidecaml_models *out_models, struct sidecaml_failure *why) {
    struct opening opening = {what, out, out_models};
    return converse(daemon, &(struct question){ask_open, &opening, true}, why);
}
