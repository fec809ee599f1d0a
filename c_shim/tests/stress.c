#include "stress.h"

#include <string.h>

#include "check.h"

static uint64_t word_at(const uint8_t *bytes, size_t index) {
    uint64_t word;
    memcpy(&word, bytes + index * sizeof word, sizeof word);
    return word;
}

static void fill(uint8_t *bytes, uint64_t number) {
    for (size_t i = 0; i < PAYLOAD_BYTES / sizeof number; i++, number++)
        memcpy(bytes + i * sizeof number, &number, sizeof number);
}

static uint64_t answer_to(uint64_t question) {
    return question * 3 + 1;
}

/* A slot's request that is under way. */
struct under_way {
    bool used;
    uint64_t question;
    bool give_up; /* after a short wait, instead of waiting for the answer */
};

static void start(struct stress_client *client, struct under_way *requests, struct numbers *numbers) {
    int slot = sidecaml_channel_claim(client->channel);
    while (slot == -SIDECAML_E_BUSY) /* a request that was given up still runs there */
        slot = sidecaml_channel_claim(client->channel);
    CHECK(slot >= 0);
    struct under_way *request = &requests[slot];
    CHECK(!request->used);
    *request = (struct under_way){.used = true, .question = next_number(numbers)};
    request->give_up = client->give_up_one_in && next_number(numbers) % client->give_up_one_in == 0;
    fill(sidecaml_channel_tensor(client->channel, (uint32_t)slot, 0), request->question);
    CHECK_EQ(sidecaml_channel_submit(client->channel, 0), slot);
}

static void check_answer(struct stress_client *client, uint32_t slot, uint64_t question) {
    const uint8_t *output = sidecaml_channel_tensor(client->channel, slot, 1);
    for (size_t i = 0; i < PAYLOAD_BYTES / sizeof question; i++)
        CHECK(word_at(output, i) == answer_to(question + i));
    client->answered++;
}

static void finish(struct stress_client *client, struct under_way *request, uint32_t slot, struct numbers *numbers) {
    int result;
    uint64_t patience = next_number(numbers) % 4096;
    do
        result = sidecaml_channel_wait(client->channel, slot, request->give_up ? sidecaml_now_ns() + patience : 0);
    while (result == -SIDECAML_E_AGAIN);
    request->used = false;
    if (result == -SIDECAML_E_TIMEOUT) {
        CHECK(request->give_up);
        client->given_up++;
        return;
    }
    CHECK_EQ(result, 0);
    check_answer(client, slot, request->question);
    CHECK_EQ(sidecaml_channel_release(client->channel, slot), 0);
}

void stress_call(struct stress_client *client) {
    struct under_way requests[16] = {{0}};
    struct numbers numbers = {client->seed};
    CHECK(client->slots <= sizeof requests / sizeof requests[0]);
    for (uint64_t i = 0; i < client->requests + client->slots; i++) {
        uint32_t slot = (uint32_t)(i % client->slots);
        if (requests[slot].used) finish(client, &requests[slot], slot, &numbers);
        if (i < client->requests) start(client, requests, &numbers);
    }
    CHECK_EQ(client->answered + client->given_up, client->requests);
}

/* As many as there is room for; 0 where the slot whose turn it is holds an answer still: of two requests that end while
 * they are looked at, the newer may be told first. */
static uint64_t start_run(struct stress_client *client, struct under_way *requests, struct numbers *numbers,
                          uint64_t most) {
    int slot;
    do
        slot = sidecaml_channel_claim_wait(client->channel, 0);
    while (slot == -SIDECAML_E_AGAIN);
    if (slot == -SIDECAML_E_FULL) return 0;
    CHECK(slot >= 0);
    int count = sidecaml_channel_claim_run(client->channel, (uint32_t)most);
    CHECK(count > 0);
    for (int i = 0; i < count; i++) {
        uint32_t at = ((uint32_t)slot + (uint32_t)i) % client->slots;
        CHECK(!requests[at].used);
        requests[at] = (struct under_way){.used = true, .question = next_number(numbers)};
        fill(sidecaml_channel_tensor(client->channel, at, 0), requests[at].question);
    }
    CHECK_EQ(sidecaml_channel_submit_run(client->channel, (uint32_t)count, 0), slot);
    return (uint64_t)count;
}

static void finish_any(struct stress_client *client, struct under_way *requests, struct numbers *numbers) {
    int slot;
    do
        slot = sidecaml_channel_wait_any(client->channel, 0);
    while (slot == -SIDECAML_E_AGAIN);
    CHECK(slot >= 0 && requests[slot].used);
    CHECK_EQ(sidecaml_channel_poll(client->channel, (uint32_t)slot), 0);
    check_answer(client, (uint32_t)slot, requests[slot].question);
    requests[slot].used = false;
    CHECK_EQ(sidecaml_channel_release(client->channel, (uint32_t)slot), 0);
    /* What is given up is the newest: the next run waits for its turn, when it comes round. */
    uint32_t newest = ((uint32_t)slot + client->slots - 1) % client->slots;
    if (!client->give_up_one_in || next_number(numbers) % client->give_up_one_in || !requests[newest].used) return;
    CHECK_EQ(sidecaml_channel_abandon(client->channel, newest), 0);
    requests[newest].used = false;
    client->given_up++;
}

void stress_call_any(struct stress_client *client) {
    struct under_way requests[16] = {{0}};
    struct numbers numbers = {client->seed};
    CHECK(client->slots <= sizeof requests / sizeof requests[0]);
    uint64_t started = 0;
    while (client->answered + client->given_up < client->requests) {
        uint64_t under_way = started - client->answered - client->given_up, left = client->requests - started;
        uint64_t room = client->slots - under_way;
        uint64_t begun = 0;
        if (left && room > client->slots / 2) begun = start_run(client, requests, &numbers, left < room ? left : room);
        if (!begun) finish_any(client, requests, &numbers);
        started += begun;
    }
}

void stress_serve(sidecaml_worker *worker) {
    struct sidecaml_request request;
    for (;;) {
        int status = sidecaml_worker_next(worker, UINT64_MAX, &request);
        if (status == -SIDECAML_E_AGAIN) return;
        CHECK_EQ(status, 1);
        sidecaml_worker_started(worker, &request);
        const uint8_t *input = sidecaml_worker_tensor(worker, request.channel, request.slot, 0);
        uint8_t *output = sidecaml_worker_tensor(worker, request.channel, request.slot, 1);
        for (size_t i = 0; i < PAYLOAD_BYTES / sizeof(uint64_t); i++) {
            uint64_t answer = answer_to(word_at(input, i));
            memcpy(output + i * sizeof answer, &answer, sizeof answer);
        }
        CHECK(sidecaml_worker_complete(worker, &request, 0, NULL) >= 0);
    }
}
