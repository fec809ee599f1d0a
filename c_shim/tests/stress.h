/* What the stress tests share: a client that calls, waits, gives up at random and checks every answer, and a worker
 * that answers. The payload is plain memory, so ThreadSanitizer sees whether the ring orders it. */
#ifndef SIDECAML_STRESS_H
#define SIDECAML_STRESS_H

#include <stdint.h>

#include "sidecaml/sidecaml.h"

#define PAYLOAD_BYTES 96

struct stress_client {
    sidecaml_channel *channel;
    uint32_t slots;
    uint64_t requests;
    unsigned give_up_one_in; /* 0: never */
    uint64_t seed;
    uint64_t answered, given_up; /* out */
};
/* Submits `requests` requests, as many at a time as the channel has slots, and checks the answers. */
void stress_call(struct stress_client *client);
/* The same, in runs of slots, and with waits for any of them and for a slot's turn. */
void stress_call_any(struct stress_client *client);

/* Answers until somebody says something on the control socket. */
void stress_serve(sidecaml_worker *worker);

#endif
