/* A client whose worker writes anything anywhere into its segment, at any time, and says anything on its socket. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "mapping.h"
#include "sidecaml/strings.h"

#define STEPS_MOST 64

struct client {
    struct sidecaml_layout layout;
    sidecaml_channel *channel;
    uint8_t *base; /* of the segment, as the worker has it */
    struct sidecaml_status_page *page;
    int answer, daemon; /* the other side's */
};

static void open_client(struct client *client, struct input *input) {
    take_layout(input, &client->layout);
    int segment = fresh_memory(client->layout.segment_bytes), status = fresh_memory(SIDECAML_PAGE_BYTES), ends[2];
    client->base = map(segment, client->layout.segment_bytes);
    client->page = (void *)map(status, SIDECAML_PAGE_BYTES);
    memcpy(client->page->magic, SIDECAML_STATUS_MAGIC, sizeof client->page->magic);
    client->page->abi_version = SIDECAML_ABI_VERSION;
    sidecaml_segment_format(client->base, &client->layout);
    fresh_sockets(ends);
    client->daemon = ends[1];
    client->answer = fresh_doorbell();
    struct sidecaml_channel_fds fds = {segment, fresh_doorbell(), copy_of(client->answer), status, ends[0]};
    enum sidecaml_policy policy = (enum sidecaml_policy)take_number(input, SIDECAML_BLOCK);
    struct sidecaml_failure why;
    HOLDS(sidecaml_channel_attach(&fds, client->layout.fingerprint, policy, &client->channel, &why) == 0);
}

static void close_client(struct client *client) {
    sidecaml_channel_close(client->channel);
    munmap(client->base, client->layout.segment_bytes);
    munmap(client->page, SIDECAML_PAGE_BYTES);
    close(client->answer);
    close(client->daemon);
}

static void hear(struct client *client, struct input *input) {
    uint8_t words[256];
    size_t count = take_bytes(input, words, sizeof words);
    send(client->daemon, words, count, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void look_at_answer(const struct client *client, uint32_t slot, uint32_t tensor) {
    uint64_t dims[SIDECAML_MAX_RANK], text;
    const struct sidecaml_layout *layout = sidecaml_channel_layout(client->channel);
    int rank = sidecaml_channel_get_dims(client->channel, slot, tensor, dims);
    HOLDS(rank <= SIDECAML_MAX_RANK);
    for (int axis = 0; axis < rank; axis++)
        HOLDS(dims[axis] <= layout->tensor[tensor].max_dims[axis]);
    sidecaml_channel_needed(client->channel, slot, tensor, dims);
    sidecaml_channel_text_needed(client->channel, slot, &text);
    struct sidecaml_stamps stamps;
    sidecaml_channel_stamps(client->channel, slot, &stamps);
    char words[SIDECAML_MESSAGE_BYTES + 8];
    size_t length = sidecaml_channel_message(client->channel, slot, words, slot ? sizeof words : 17);
    HOLDS(length < sizeof words);
    check_text(words, length);
}

static void look_at_strings(const struct client *client, uint32_t slot, uint32_t tensor) {
    const struct sidecaml_layout *layout = sidecaml_channel_layout(client->channel);
    void *start = sidecaml_channel_tensor(client->channel, slot, tensor);
    if (!start || layout->tensor[tensor].dtype != SIDECAML_STRING) return;
    uint64_t text = layout->tensor[tensor].text_bytes, words = (layout->tensor[tensor].max_bytes - text) / 8;
    const struct sidecaml_strings_place place = {start, words - 1, text};
    struct sidecaml_strings strings;
    if (sidecaml_strings_read(&place, words - 1, "output", "y", &strings, NULL) == 0)
        HOLDS(strings.offsets[strings.count] <= text);
    sidecaml_strings_clear(&strings);
}

/* Whatever the words say, there is no other slot than those of the layout. */
static void run_slots(sidecaml_channel *channel, uint32_t slot, uint32_t count, uint32_t slots) {
    HOLDS(sidecaml_channel_claim_run(channel, count) <= (int)slots);
    HOLDS(sidecaml_channel_submit_run(channel, count, 0) < (int)slots);
    HOLDS(sidecaml_channel_ended(channel, slot, count) <= (int)count);
    HOLDS(sidecaml_channel_answered(channel, slot, count) <= (int)count);
    sidecaml_channel_release_run(channel, slot, count);
}

static void step(struct client *client, struct input *input) {
    uint8_t what = take_byte(input);
    uint32_t slot = what >> 4 & 3, tensor = what >> 6;
    sidecaml_channel *channel = client->channel;
    uint64_t dims[SIDECAML_MAX_RANK] = {0};
    switch (what & 15) {
    case 0: {
        int claimed = sidecaml_channel_claim(channel);
        HOLDS(claimed < (int)client->layout.slot_count);
        break;
    }
    case 1:
        sidecaml_channel_submit(channel, slot ? sidecaml_now_ns() + tensor : 0);
        break;
    case 2:
        sidecaml_channel_poll(channel, slot);
        break;
    case 3:
        sidecaml_channel_wait(channel, slot, sidecaml_now_ns() + 1000);
        break;
    case 4:
        sidecaml_channel_abandon(channel, slot);
        break;
    case 5:
        sidecaml_channel_release(channel, slot);
        break;
    case 6:
        look_at_answer(client, slot, tensor);
        break;
    case 7:
        look_at_strings(client, slot, tensor);
        break;
    case 8:
        for (uint32_t axis = 0; axis < 3; axis++)
            dims[axis] = take_dim(input);
        sidecaml_channel_set_dims(channel, slot, tensor, dims, take_number(input, 3));
        break;
    case 9:
        if (sidecaml_channel_arm(channel, slot) == 0) sidecaml_channel_disarm(channel);
        break;
    case 10:
        sidecaml_channel_set_stamps(channel, tensor & 1);
        sidecaml_channel_reset(channel);
        break;
    case 11:
        hear(client, input);
        break;
    case 12:
        sidecaml_channel_spin(channel, slot, 1000);
        break;
    case 13:
        run_slots(channel, slot, tensor + 1, client->layout.slot_count);
        HOLDS(sidecaml_channel_wait_any(channel, sidecaml_now_ns() + 1000) < (int)client->layout.slot_count);
        HOLDS(sidecaml_channel_spin_any(channel, 1000) < (int)client->layout.slot_count);
        HOLDS(sidecaml_channel_claim_wait(channel, sidecaml_now_ns() + 1000) < (int)client->layout.slot_count);
        break;
    default:
        scribble(input, client->base, &client->layout);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct client client;
    struct input input = {data, size};
    open_client(&client, &input);
    for (int steps = 0; steps < STEPS_MOST && input.left; steps++)
        step(&client, &input);
    struct sidecaml_failure why;
    sidecaml_control_gone(client.channel, &why);
    HOLDS(why.code > 0);
    close_client(&client);
    check_descriptors();
    return 0;
}
