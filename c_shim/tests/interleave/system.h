/* The operating system as the core sees it in the interleaving tests: one address for each shared page, doorbells that
 * are the scheduler's, memory that can be brought back to the start. */
#ifndef SIDECAML_INTERLEAVE_SYSTEM_H
#define SIDECAML_INTERLEAVE_SYSTEM_H

#include <stdint.h>

#include "sidecaml/sidecaml.h"

#define MOST_CHANNELS 2

/* Doorbells of the scheduler. */
#define REQUEST_BELL(channel) (2 * (channel))
#define ANSWER_BELL(channel) (2 * (channel) + 1)
#define WORKER_CONTROL_BELL (2 * MOST_CHANNELS)
#define CLIENT_CONTROL_BELL (2 * MOST_CHANNELS + 1)

extern sidecaml_worker *worker;
extern sidecaml_channel *channels[MOST_CHANNELS];

/* Makes a worker and its channels, which sleep at once when there is nothing for them, and registers with the scheduler
 * what they share and what they remember. */
void system_start(uint32_t channel_count, uint32_t slots);

/* What the core remembers in private memory, as a number. */
uint64_t system_hash(void);

/* What lies in shared memory at the end of a schedule. */
uint64_t slot_word(uint32_t channel, uint32_t slot);
const struct sidecaml_status_page *status_page(void);

#endif
