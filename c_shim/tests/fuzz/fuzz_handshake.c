/* The client's side of the control socket against a daemon that says anything, descriptors included.
 *
 * The source itself is included, for the steps that connect() takes before there is a name to call them by. */
#define _GNU_SOURCE
#include <fcntl.h>

#include "../../src/control.c"
#include "fuzz.h"

#define MESSAGES_MOST 6
#define FDS_MOST 6

/* Things that a descriptor may be. Made once; sent, they are copies. */
enum kind { SEGMENT, DOORBELL, STATUS, NOTHING, EMPTY, PIPE, KINDS };
static int things[KINDS];

static void make_things(void) {
    if (things[SEGMENT]) return;
    static struct sidecaml_layout layout;
    const struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_FLOAT32, .rank = 2, .dynamic = true, .max_dims = {4, 8}},
        {.name = "y", .dtype = SIDECAML_INT64, .rank = 1, .output = true, .max_dims = {4}},
    };
    HOLDS(sidecaml_layout_compute(specs, 2, 2, 77, &layout, NULL) == 0);
    things[SEGMENT] = fresh_memory(layout.segment_bytes);
    sidecaml_segment_format(map(things[SEGMENT], layout.segment_bytes), &layout);
    things[DOORBELL] = fresh_doorbell();
    things[STATUS] = fresh_memory(SIDECAML_PAGE_BYTES);
    struct sidecaml_status_page *page = (void *)map(things[STATUS], SIDECAML_PAGE_BYTES);
    memcpy(page->magic, SIDECAML_STATUS_MAGIC, sizeof page->magic);
    page->abi_version = SIDECAML_ABI_VERSION;
    things[NOTHING] = open("/dev/null", O_RDWR | O_CLOEXEC);
    things[EMPTY] = fresh_memory(0);
    int ends[2];
    HOLDS(pipe2(ends, O_CLOEXEC) == 0);
    things[PIPE] = ends[0];
}

/* A length of two bytes, a number of descriptors and what they are, the bytes. */
static void say(int daemon, struct input *input) {
    size_t length = take_byte(input);
    length |= (size_t)take_byte(input) << 8;
    union {
        char bytes[CMSG_SPACE(FDS_MOST * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    int fds[FDS_MOST];
    uint32_t count = take_number(input, FDS_MOST);
    for (uint32_t i = 0; i < count; i++)
        fds[i] = things[take_number(input, KINDS - 1)];
    if (length > input->left) length = input->left;
    struct iovec part = {.iov_base = (void *)input->at, .iov_len = length};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (count) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *first = CMSG_FIRSTHDR(&header);
        *first = (struct cmsghdr){CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(first), fds, count * sizeof(int));
    }
    sendmsg(daemon, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    input->at += length;
    input->left -= length;
}

static void check_failure(int status, const struct sidecaml_failure *why) {
    HOLDS(status < 0 && why->code == -status);
    HOLDS(memchr(why->text, '\0', sizeof why->text));
}

static void check_models(const struct sidecaml_models *models) {
    for (uint32_t i = 0; i < models->count; i++) {
        const struct sidecaml_model_info *model = &models->models[i];
        HOLDS(model->name && model->engine && model->state && model->problem);
        for (uint32_t t = 0; t < model->tensor_count; t++) {
            HOLDS(model->tensors[t].name && model->tensors[t].dtype_name);
            HOLDS(model->tensors[t].rank <= SIDECAML_MAX_RANK);
            for (uint32_t d = 0; d < model->tensors[t].rank; d++)
                HOLDS(model->tensors[t].dims[d] >= 0 || model->tensors[t].dim_names[d]);
        }
    }
}

static void try_open(int *control) {
    struct sidecaml_failure why;
    struct sidecaml_models models;
    sidecaml_channel *channel;
    const struct sidecaml_dim_binding dims[] = {{"N", 4}};
    const struct sidecaml_open what = {"m", 2, dims, 1, 64, SIDECAML_BLOCK, true};
    int status = sidecaml_control_open(*control, &what, 0, &channel, &models, &why);
    if (status < 0) {
        check_failure(status, &why);
        HOLDS(models.count == 0);
        return;
    }
    HOLDS(models.count == 1);
    check_models(&models);
    sidecaml_models_free(&models);
    for (uint32_t slot = 0; slot < 2; slot++)
        if (sidecaml_channel_submit(channel, 0) >= 0) sidecaml_channel_wait(channel, slot, sidecaml_now_ns() + 1000);
    sidecaml_control_gone(channel, &why);
    HOLDS(why.code > 0);
    /* Not close, which would give back pages that the next input is to find as they were. */
    for (uint32_t slot = 0; slot < 2; slot++)
        sidecaml_channel_abandon(channel, slot);
    sidecaml_channel_drop(channel);
    *control = -1;
}

static void converse(int *control, uint8_t what) {
    struct sidecaml_failure why;
    struct sidecaml_models models;
    int status = 0;
    switch (what % 4) {
    case 0:
        status = hello(*control, "fuzz", 0, &why);
        break;
    case 1:
        status = sidecaml_control_describe(*control, what & 4 ? "m" : NULL, 0, &models, &why);
        if (status < 0) break;
        check_models(&models);
        sidecaml_models_free(&models);
        break;
    case 2:
        try_open(control);
        break;
    default:
        status = sidecaml_control_ping(*control, 0, &why);
        break;
    }
    if (status < 0) check_failure(status, &why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, size};
    int ends[2];
    make_things();
    fresh_sockets(ends);
    uint8_t script = take_byte(&input);
    for (int i = 0; i < MESSAGES_MOST && input.left; i++)
        say(ends[1], &input);
    if (script & 1) shutdown(ends[1], SHUT_WR);
    for (int i = 0; i < 3 && ends[0] >= 0; i++, script >>= 2)
        converse(&ends[0], script >> 1);
    if (ends[0] >= 0) close(ends[0]);
    close(ends[1]);
    check_descriptors();
    return 0;
}
