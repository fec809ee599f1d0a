/* The client's side of the control socket: docs/protocol.md section 4. */
#define _GNU_SOURCE
#include <errno.h>
#include <msgpack.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backoff.h"
#include "channel.h"
#include "crash_point.h"
#include "failure.h"
#include "packed.h"

#define OPEN_FDS 4

/* --- Reading msgpack --------------------------------------------------------------------------------------------- */

static bool unpack(msgpack_unpacked *out, const char *bytes, size_t count, size_t *end) {
    return packed_is_whole((const uint8_t *)bytes, count) &&
           msgpack_unpack_next(out, bytes, count, end) == MSGPACK_UNPACK_SUCCESS;
}

static const msgpack_object *find(const msgpack_object *map, const char *key) {
    if (!map || map->type != MSGPACK_OBJECT_MAP) return NULL;
    size_t length = strlen(key);
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object *name = &map->via.map.ptr[i].key;
        if (name->type == MSGPACK_OBJECT_STR && name->via.str.size == length &&
            memcmp(name->via.str.ptr, key, length) == 0)
            return &map->via.map.ptr[i].val;
    }
    return NULL;
}

static bool read_uint(const msgpack_object *map, const char *key, uint64_t *out) {
    const msgpack_object *value = find(map, key);
    if (!value || value->type != MSGPACK_OBJECT_POSITIVE_INTEGER) return false;
    *out = value->via.u64;
    return true;
}

static bool read_bool(const msgpack_object *map, const char *key, bool *out) {
    const msgpack_object *value = find(map, key);
    if (!value || value->type != MSGPACK_OBJECT_BOOLEAN) return false;
    *out = value->via.boolean;
    return true;
}

/* NULL when it is no string or memory is short. */
static char *copy_string(const msgpack_object *value) {
    if (!value || value->type != MSGPACK_OBJECT_STR) return NULL;
    return strndup(value->via.str.ptr, value->via.str.size);
}

/* --- Messages ---------------------------------------------------------------------------------------------------- */

struct reply {
    msgpack_unpacked unpacked;
    int fds[OPEN_FDS];
    int fd_count;
    char bytes[SIDECAML_CONTROL_BYTES];
};

static void close_fds(struct reply *reply) {
    for (int i = 0; i < reply->fd_count; i++)
        close(reply->fds[i]);
    reply->fd_count = 0;
}

static void free_reply(struct reply *reply) {
    if (!reply) return;
    close_fds(reply);
    msgpack_unpacked_destroy(&reply->unpacked);
    free(reply);
}

static int wait_ready(int fd, short events, uint64_t deadline_ns, struct sidecaml_failure *why) {
    for (;;) {
        uint64_t now = sidecaml_now_ns();
        uint64_t left_ms = now < deadline_ns ? (deadline_ns - now + 999999) / 1000000 : 0;
        struct pollfd poller = {.fd = fd, .events = events};
        int ready = poll(&poller, 1, left_ms > 1000000 ? 1000000 : (int)left_ms);
        if (ready > 0) return 0;
        if (ready < 0 && errno != EINTR) return fail_errno(why, "waiting for the daemon");
        /* As of before this look: what came while a signal's handler ran past the deadline came in time. */
        if (now >= deadline_ns)
            return fail(why, SIDECAML_E_TIMEOUT, "the daemon did not answer on its control socket in time");
    }
}

static int gone(struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_SERVER_GONE, "the daemon closed the control connection: is it still running?");
}

static int send_packed(int fd, const msgpack_sbuffer *packed, uint64_t deadline_ns, struct sidecaml_failure *why) {
    if (packed->size > SIDECAML_CONTROL_BYTES)
        return fail(why, SIDECAML_E_INVALID, "a request of %zu bytes is larger than a control message may be (%d)",
                    packed->size, SIDECAML_CONTROL_BYTES);
    for (;;) {
        ssize_t sent = send(fd, packed->data, packed->size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) return 0;
        /* A daemon that refuses a client says why and closes, perhaps before it is asked: that is still to be read. */
        if (errno == EPIPE || errno == ECONNRESET) return 0;
        if (errno != EAGAIN && errno != EINTR) return fail_errno(why, "sending to the daemon");
        int status = wait_ready(fd, POLLOUT, deadline_ns, why);
        if (status < 0) return status;
    }
}

static void take_fds(struct reply *reply, struct msghdr *header) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        int count = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        /* The control buffer has room for OPEN_FDS; what does not fit, the kernel closes and says MSG_CTRUNC. */
        for (int i = 0; i < count && reply->fd_count < OPEN_FDS; i++)
            memcpy(&reply->fds[reply->fd_count++], CMSG_DATA(part) + (size_t)i * sizeof(int), sizeof(int));
    }
}

static int receive(int fd, struct reply *reply, uint64_t deadline_ns, struct sidecaml_failure *why) {
    union {
        char bytes[CMSG_SPACE(OPEN_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = reply->bytes, .iov_len = sizeof reply->bytes};
    struct msghdr header;
    ssize_t bytes;
    do {
        int status = wait_ready(fd, POLLIN, deadline_ns, why);
        if (status < 0) return status;
        header = (struct msghdr){
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        bytes = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        /* ECONNRESET is told once, when the daemon closed without reading all; what it said before comes after. */
    } while (bytes < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET));
    if (bytes < 0) return fail_errno(why, "receiving from the daemon");
    take_fds(reply, &header); /* an empty message can bring some too */
    if (bytes == 0) return gone(why);
    if (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return fail(why, SIDECAML_E_PROTOCOL, "the daemon sent a message larger than the protocol allows");
    size_t end = 0;
    if (!unpack(&reply->unpacked, reply->bytes, (size_t)bytes, &end) || end != (size_t)bytes ||
        reply->unpacked.data.type != MSGPACK_OBJECT_MAP)
        return fail(why, SIDECAML_E_PROTOCOL, "the daemon sent %zd bytes that are not a msgpack map", bytes);
    return 0;
}

static int failure_in(const msgpack_object *body, struct sidecaml_failure *why) {
    uint64_t code = 0;
    if (!read_uint(body, "code", &code) || code == 0 || code > INT32_MAX)
        return fail(why, SIDECAML_E_PROTOCOL, "the daemon sent a failure without an error code");
    char *text = copy_string(find(body, "message"));
    fail(why, (int)code, "%s", text && *text ? text : sidecaml_error_text((int)code));
    free(text);
    return -(int)code;
}

/* The reply to a request. Events that come in between end the wait: on a connection that opens its channel, one can
 * only mean that the daemon gives the connection up. */
static int hear(int fd, uint64_t id, uint64_t deadline_ns, struct reply **out, struct sidecaml_failure *why) {
    struct reply *reply = calloc(1, sizeof *reply);
    if (!reply) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a control message");
    msgpack_unpacked_init(&reply->unpacked);
    int status = receive(fd, reply, deadline_ns, why);
    if (status == 0) {
        const msgpack_object *body = &reply->unpacked.data;
        uint64_t replied = 0;
        bool ok = false;
        bool answers = read_uint(body, "id", &replied) && replied == id;
        if (read_bool(body, "ok", &ok) && !ok)
            status = failure_in(body, why); /* with another id too: the daemon could not read ours */
        else if (!answers || !ok)
            status = fail(why, SIDECAML_E_PROTOCOL, "the daemon answered something else than what was asked");
    }
    if (status < 0) {
        free_reply(reply);
        return status;
    }
    *out = reply;
    return 0;
}

static int call(int fd, uint64_t id, const msgpack_sbuffer *packed, uint64_t deadline_ns, struct reply **out,
                struct sidecaml_failure *why) {
    int status = send_packed(fd, packed, deadline_ns, why);
    return status < 0 ? status : hear(fd, id, deadline_ns, out, why);
}

static void pack_text(msgpack_packer *packer, const char *text) {
    size_t length = strlen(text);
    msgpack_pack_str(packer, length);
    msgpack_pack_str_body(packer, text, length);
}

/* Begins a request of `fields` entries besides id and op. */
static void pack_request(msgpack_packer *packer, uint64_t id, const char *op, size_t fields) {
    msgpack_pack_map(packer, 2 + fields);
    pack_text(packer, "id");
    msgpack_pack_uint64(packer, id);
    pack_text(packer, "op");
    pack_text(packer, op);
}

/* --- Connect ----------------------------------------------------------------------------------------------------- */

/* A Unix socket connects at once, or says EAGAIN while the daemon's queue is full; there is nothing to poll for then.
 */
static int connect_until(int fd, const struct sockaddr_un *address, uint64_t deadline_ns) {
    struct backoff backoff;
    backoff_init(&backoff);
    while (connect(fd, (const struct sockaddr *)address, sizeof *address) < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN || sidecaml_now_ns() >= deadline_ns) return -errno;
        backoff_sleep(&backoff, deadline_ns);
    }
    return 0;
}

static int dial(const char *path, uint64_t deadline_ns, struct sidecaml_failure *why) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address.sun_path)
        return fail(why, SIDECAML_E_CONNECT, "a socket path has 1 to %zu bytes; this one has %zu: %.200s",
                    sizeof address.sun_path - 1, length, path);
    memcpy(address.sun_path, path, length);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno(why, "socket");
    int status = connect_until(fd, &address, deadline_ns);
    if (status == 0) return fd;
    close(fd);
    char text[128];
    if (status == -EAGAIN)
        return fail(why, SIDECAML_E_TIMEOUT, "the daemon at %s did not take the connection in time: its queue is full",
                    path);
    return fail(why, SIDECAML_E_CONNECT,
                "no sidecaml daemon answers at %s (%s): start one with `sidecaml serve`, or "
                "name its socket ($SIDECAML_SOCKET)",
                path, strerror_r(-status, text, sizeof text));
}

static int hello(int fd, const char *client_name, uint64_t deadline_ns, struct sidecaml_failure *why) {
    msgpack_sbuffer packed;
    msgpack_packer packer;
    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
    pack_request(&packer, 1, "hello", 2);
    pack_text(&packer, "abi");
    msgpack_pack_uint64(&packer, SIDECAML_ABI_VERSION);
    pack_text(&packer, "client");
    pack_text(&packer, client_name);
    struct reply *reply;
    int status = call(fd, 1, &packed, deadline_ns, &reply, why);
    msgpack_sbuffer_destroy(&packed);
    if (status < 0) return status;
    uint64_t abi = 0;
    if (!read_uint(&reply->unpacked.data, "abi", &abi) || abi != SIDECAML_ABI_VERSION)
        status = fail(why, SIDECAML_E_ABI_MISMATCH,
                      "the daemon speaks ABI version %llu, this library version %u: use the "
                      "same release of sidecaml on both sides",
                      (unsigned long long)abi, SIDECAML_ABI_VERSION);
    free_reply(reply);
    return status;
}

static uint64_t deadline_of(uint64_t timeout_ns) {
    uint64_t now = sidecaml_now_ns();
    return timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
}

int sidecaml_control_connect(const char *path, const char *client_name, uint64_t timeout_ns,
                             struct sidecaml_failure *why) {
    uint64_t deadline_ns = deadline_of(timeout_ns);
    int fd = dial(path, deadline_ns, why);
    if (fd < 0) return fd;
    CRASH_POINT("client.open.connected");
    int status = hello(fd, client_name, deadline_ns, why);
    if (status == 0) return fd;
    close(fd);
    return status;
}

/* --- Describe ---------------------------------------------------------------------------------------------------- */

static void clear_tensor(struct sidecaml_tensor_info *tensor) {
    free(tensor->name);
    free(tensor->dtype_name);
    for (uint32_t d = 0; d < SIDECAML_MAX_RANK; d++)
        free(tensor->dim_names[d]);
}

static void clear_batching(struct sidecaml_batching_info *batching) {
    for (uint32_t i = 0; i < batching->shared_count; i++)
        free(batching->shared[i]);
    free(batching->shared);
    free(batching->policy);
    free(batching->dim);
    free(batching->why);
}

static void free_model(struct sidecaml_model_info *model) {
    clear_batching(&model->batching);
    for (uint32_t i = 0; i < model->tensor_count; i++)
        clear_tensor(&model->tensors[i]);
    for (uint32_t i = 0; i < model->carried_count; i++) {
        clear_tensor(&model->carried[i].input);
        free(model->carried[i].output);
    }
    free(model->tensors);
    free(model->carried);
    free(model->name);
    free(model->engine);
    free(model->state);
    free(model->problem);
}

void sidecaml_models_free(struct sidecaml_models *models) {
    for (uint32_t i = 0; i < models->count; i++)
        free_model(&models->models[i]);
    free(models->models);
    *models = (struct sidecaml_models){0};
}

static bool read_dim(const msgpack_object *value, struct sidecaml_tensor_info *out, uint32_t index) {
    if (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER && value->via.u64 <= INT64_MAX) {
        out->dims[index] = (int64_t)value->via.u64;
        return true;
    }
    out->dims[index] = -1;
    out->dim_names[index] = copy_string(value);
    return out->dim_names[index] != NULL;
}

static bool read_tensor(const msgpack_object *value, bool output, struct sidecaml_tensor_info *out) {
    out->output = output;
    out->name = copy_string(find(value, "name"));
    out->dtype_name = copy_string(find(value, "dtype"));
    const msgpack_object *shape = find(value, "shape");
    if (!out->name || !out->dtype_name || !shape || shape->type != MSGPACK_OBJECT_ARRAY ||
        shape->via.array.size > SIDECAML_MAX_RANK)
        return false;
    out->dtype = sidecaml_dtype_of_name(out->dtype_name, strlen(out->dtype_name));
    out->rank = shape->via.array.size;
    for (uint32_t i = 0; i < out->rank; i++)
        if (!read_dim(&shape->via.array.ptr[i], out, i)) return false;
    return true;
}

static const msgpack_object *find_list(const msgpack_object *map, const char *key, uint32_t most) {
    const msgpack_object *value = find(map, key);
    return value && value->type == MSGPACK_OBJECT_ARRAY && value->via.array.size <= most ? value : NULL;
}

static bool read_carried(const msgpack_object *value, struct sidecaml_model_info *out) {
    const msgpack_object *carried = find_list(value, "carried", SIDECAML_MAX_TENSORS);
    if (!carried) return !find(value, "carried");
    uint32_t count = carried->via.array.size;
    out->carried = calloc(count + 1, sizeof out->carried[0]);
    if (!out->carried) return false;
    out->carried_count = count;
    for (uint32_t i = 0; i < count; i++) {
        const msgpack_object *pair = &carried->via.array.ptr[i];
        out->carried[i].output = copy_string(find(pair, "output"));
        if (!out->carried[i].output || !read_tensor(pair, false, &out->carried[i].input)) return false;
    }
    return true;
}

static bool read_shared(const msgpack_object *batching, struct sidecaml_batching_info *out) {
    const msgpack_object *shared = find_list(batching, "shared", SIDECAML_MAX_TENSORS);
    if (!shared) return false;
    uint32_t count = shared->via.array.size;
    out->shared = calloc(count + 1, sizeof out->shared[0]);
    if (!out->shared) return false;
    out->shared_count = count;
    for (uint32_t i = 0; i < count; i++) {
        out->shared[i] = copy_string(&shared->via.array.ptr[i]);
        if (!out->shared[i]) return false;
    }
    return true;
}

static bool read_batching(const msgpack_object *value, struct sidecaml_batching_info *out) {
    const msgpack_object *batching = find(value, "batching");
    if (!batching) return true;
    uint64_t most, gather_from;
    out->policy = copy_string(find(batching, "policy"));
    out->dim = copy_string(find(batching, "dim"));
    out->why = copy_string(find(batching, "why"));
    if (!out->policy || !out->dim || !out->why || !read_uint(batching, "most", &most) || most > UINT32_MAX ||
        !read_uint(batching, "gather_from", &gather_from) || gather_from > UINT32_MAX ||
        !read_bool(batching, "in_place", &out->in_place))
        return false;
    out->most = (uint32_t)most;
    out->gather_from = (uint32_t)gather_from;
    return read_shared(batching, out);
}

static bool read_model(const msgpack_object *value, struct sidecaml_model_info *out) {
    const msgpack_object *inputs = find_list(value, "inputs", SIDECAML_MAX_TENSORS);
    const msgpack_object *outputs = find_list(value, "outputs", SIDECAML_MAX_TENSORS);
    uint64_t max_slots;
    out->name = copy_string(find(value, "name"));
    out->engine = copy_string(find(value, "engine"));
    out->state = copy_string(find(value, "state"));
    out->problem = copy_string(find(value, "problem"));
    if (!out->name || !out->engine || !out->state || !out->problem || !inputs || !outputs ||
        !read_uint(value, "fingerprint", &out->fingerprint) || !read_uint(value, "max_slots", &max_slots) ||
        max_slots > SIDECAML_MAX_SLOTS)
        return false;
    out->max_slots = (uint32_t)max_slots;
    uint32_t input_count = inputs->via.array.size, output_count = outputs->via.array.size;
    /* calloc of 0 may give NULL: one more than needed. */
    out->tensors = calloc(input_count + output_count + 1, sizeof out->tensors[0]);
    if (!out->tensors) return false;
    out->tensor_count = input_count + output_count;
    for (uint32_t i = 0; i < out->tensor_count; i++) {
        bool output = i >= input_count;
        const msgpack_object *tensor = output ? &outputs->via.array.ptr[i - input_count] : &inputs->via.array.ptr[i];
        if (!read_tensor(tensor, output, &out->tensors[i])) return false;
    }
    return read_carried(value, out) && read_batching(value, &out->batching);
}

static int bad_model(struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_PROTOCOL, "the daemon described a model in a form that the protocol does not have");
}

static int append_models(const msgpack_object *body, struct sidecaml_models *out, struct sidecaml_failure *why) {
    const msgpack_object *list = find_list(body, "models", SIDECAML_CONTROL_BYTES);
    if (!list) return bad_model(why);
    uint32_t count = list->via.array.size;
    struct sidecaml_model_info *models = realloc(out->models, (out->count + count + 1) * sizeof *models);
    if (!models) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for the list of models");
    out->models = models;
    for (uint32_t i = 0; i < count; i++) {
        models[out->count] = (struct sidecaml_model_info){0};
        /* Counted first, so that what was read in part is freed too. */
        if (!read_model(&list->via.array.ptr[i], &models[out->count++])) return bad_model(why);
    }
    return 0;
}

/* One page of the list, those after `after` (NULL: from the start). */
static int describe_page(int fd, uint64_t id, const char *model, const char *after, uint64_t deadline_ns,
                         struct sidecaml_models *out, bool *more, struct sidecaml_failure *why) {
    msgpack_sbuffer packed;
    msgpack_packer packer;
    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
    pack_request(&packer, id, "describe", (model != NULL) + (after != NULL));
    if (model) {
        pack_text(&packer, "model");
        pack_text(&packer, model);
    }
    if (after) {
        pack_text(&packer, "after");
        pack_text(&packer, after);
    }
    struct reply *reply;
    int status = call(fd, id, &packed, deadline_ns, &reply, why);
    msgpack_sbuffer_destroy(&packed);
    if (status < 0) return status;
    uint32_t before = out->count;
    status = append_models(&reply->unpacked.data, out, why);
    if (!read_bool(&reply->unpacked.data, "more", more)) *more = false;
    if (status == 0 && *more && out->count == before) status = bad_model(why); /* would go on for ever */
    free_reply(reply);
    return status;
}

int sidecaml_control_describe(int control_fd, const char *model, uint64_t timeout_ns, struct sidecaml_models *out,
                              struct sidecaml_failure *why) {
    uint64_t deadline_ns = deadline_of(timeout_ns);
    bool more = false;
    *out = (struct sidecaml_models){0};
    uint64_t id = 2;
    do {
        const char *after = out->count ? out->models[out->count - 1].name : NULL;
        int status = describe_page(control_fd, id++, model, after, deadline_ns, out, &more, why);
        if (status < 0) {
            sidecaml_models_free(out);
            return status;
        }
    } while (more);
    return 0;
}

/* --- Open -------------------------------------------------------------------------------------------------------- */

/* The type handshake: what the control socket described is what lies in the segment. */
static int compare_signature(const struct sidecaml_layout *layout, const struct sidecaml_model_info *model,
                             struct sidecaml_failure *why) {
    bool same = layout->input_count + layout->output_count == model->tensor_count;
    for (uint32_t i = 0; same && i < model->tensor_count; i++) {
        const struct sidecaml_tensor_info *said = &model->tensors[i];
        const struct sidecaml_tensor_descriptor *found = &layout->tensor[i];
        same = said->dtype == found->dtype && said->rank == found->rank && said->output == (i >= layout->input_count);
        for (uint32_t d = 0; same && d < said->rank; d++)
            same = said->dims[d] < 0 || (uint64_t)said->dims[d] == found->max_dims[d];
    }
    if (same) return 0;
    return fail(why, SIDECAML_E_CORRUPT, "model \"%s\": the segment's tensors are not those that the daemon described",
                model->name);
}

static int attach_opened(struct reply *reply, int control_fd, enum sidecaml_policy policy, sidecaml_channel **out,
                         struct sidecaml_models *models, struct sidecaml_failure *why) {
    const msgpack_object *body = &reply->unpacked.data;
    const msgpack_object *model = find(body, "model");
    uint64_t fingerprint;
    if (!model || !read_uint(body, "fingerprint", &fingerprint) || reply->fd_count != OPEN_FDS)
        return fail(why, SIDECAML_E_PROTOCOL,
                    "the daemon's answer to open lacks the model, its fingerprint or one of its "
                    "%d descriptors",
                    OPEN_FDS);
    models->models = calloc(1, sizeof models->models[0]);
    if (!models->models) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a model's description");
    models->count = 1;
    if (!read_model(model, models->models)) return bad_model(why);
    /* Without the control socket at first: after a failure that is still the caller's. */
    struct sidecaml_channel_fds fds = {reply->fds[0], reply->fds[1], reply->fds[2], reply->fds[3], -1};
    sidecaml_channel *channel;
    int status = sidecaml_channel_attach(&fds, fingerprint, policy, &channel, why);
    if (status < 0) return status;
    CRASH_POINT("client.open.mapped");
    reply->fd_count = 0; /* the channel's now */
    status = compare_signature(sidecaml_channel_layout(channel), models->models, why);
    if (status < 0) {
        sidecaml_channel_close(channel);
        return status;
    }
    channel_adopt_control(channel, control_fd);
    *out = channel;
    return 0;
}

static void pack_open(msgpack_packer *packer, const struct sidecaml_open *what) {
    pack_request(packer, 2, "open", 3u + (what->text_bytes != 0) + what->high_priority);
    pack_text(packer, "model");
    pack_text(packer, what->model);
    pack_text(packer, "slots");
    msgpack_pack_uint64(packer, what->slots);
    pack_text(packer, "dims");
    msgpack_pack_map(packer, what->dim_count);
    for (uint32_t i = 0; i < what->dim_count; i++) {
        pack_text(packer, what->dims[i].name);
        msgpack_pack_uint64(packer, what->dims[i].max);
    }
    if (what->text_bytes) {
        pack_text(packer, "text_bytes");
        msgpack_pack_uint64(packer, what->text_bytes);
    }
    if (what->high_priority) {
        pack_text(packer, "priority");
        pack_text(packer, "high");
    }
}

int sidecaml_control_open(int control_fd, const struct sidecaml_open *what, uint64_t timeout_ns, sidecaml_channel **out,
                          struct sidecaml_models *out_models, struct sidecaml_failure *why) {
    msgpack_sbuffer packed;
    msgpack_packer packer;
    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
    pack_open(&packer, what);
    struct reply *reply;
    *out_models = (struct sidecaml_models){0};
    uint64_t deadline_ns = deadline_of(timeout_ns);
    int status = send_packed(control_fd, &packed, deadline_ns, why);
    msgpack_sbuffer_destroy(&packed);
    if (status < 0) return status;
    CRASH_POINT("client.open.asked");
    status = hear(control_fd, 2, deadline_ns, &reply, why);
    if (status < 0) return status;
    CRASH_POINT("client.open.answered");
    status = attach_opened(reply, control_fd, what->policy, out, out_models, why);
    if (status < 0) sidecaml_models_free(out_models);
    free_reply(reply);
    return status;
}

void sidecaml_control_gone(const sidecaml_channel *channel, struct sidecaml_failure *why) {
    size_t bytes;
    const uint8_t *event = sidecaml_channel_gone_event(channel, &bytes);
    msgpack_unpacked unpacked;
    msgpack_unpacked_init(&unpacked);
    if (!event || !unpack(&unpacked, (const char *)event, bytes, NULL) ||
        failure_in(&unpacked.data, why) == -SIDECAML_E_PROTOCOL)
        fail(why, SIDECAML_E_SERVER_GONE, "%s", sidecaml_error_text(SIDECAML_E_SERVER_GONE));
    msgpack_unpacked_destroy(&unpacked);
}

int sidecaml_control_ping(int control_fd, uint64_t timeout_ns, struct sidecaml_failure *why) {
    msgpack_sbuffer packed;
    msgpack_packer packer;
    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
    pack_request(&packer, 3, "ping", 0);
    struct reply *reply;
    int status = call(control_fd, 3, &packed, deadline_of(timeout_ns), &reply, why);
    msgpack_sbuffer_destroy(&packed);
    if (status == 0) free_reply(reply);
    return status;
}
