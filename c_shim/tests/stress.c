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
