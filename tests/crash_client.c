/* A client to kill and stop while it opens: `crash_client SOCKET open` calls the model m once and prints the answer. */
#include <stdint.h>
#include <stdio.h>

#include "sidecaml/sidecaml.h"

#define PATIENCE_NS UINT64_C(60000000000)
#define LENGTH 8

static int failed(int status, const struct sidecaml_failure *why) {
    fprintf(stderr, "%d: %s\n", status, why->text);
    return 1;
}

static int call(sidecaml_channel *channel) {
    int slot = sidecaml_channel_claim(channel);
    if (slot < 0) return slot;
    float *x = sidecaml_channel_tensor(channel, (uint32_t)slot, 0);
    for (int i = 0; i < LENGTH; i++)
        x[i] = -0.2f;
    *(int64_t *)sidecaml_channel_tensor(channel, (uint32_t)slot, 1) = LENGTH;
    int status = sidecaml_channel_submit(channel, 0);
    if (status >= 0) status = sidecaml_channel_wait(channel, (uint32_t)slot, sidecaml_now_ns() + PATIENCE_NS);
    if (status < 0) return status;
    const uint8_t *y = sidecaml_channel_tensor(channel, (uint32_t)slot, 2);
    for (size_t i = 0; i < LENGTH * sizeof(float); i++)
        printf("%02x", y[i]);
    printf("\n");
    return sidecaml_channel_release(channel, (uint32_t)slot);
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    struct sidecaml_daemon daemon = {arguments[1], "crash_client", PATIENCE_NS};
    struct sidecaml_open what = {.model = "m", .slots = 2, .policy = SIDECAML_BLOCK};
    struct sidecaml_failure why = {0};
    struct sidecaml_models models;
    sidecaml_channel *channel;
    int status = sidecaml_daemon_open(&daemon, &what, &channel, &models, &why);
    if (status < 0) return failed(status, &why);
    status = call(channel);
    if (status < 0) return failed(status, &why);
    sidecaml_channel_close(channel);
    sidecaml_models_free(&models);
    printf("done\n");
    return 0;
}
