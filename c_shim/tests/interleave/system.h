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
/* In a story that begins with this, workers run two requests of a channel of two slots as one; NULL for none. The
 * context of `alone` is its slot's number. */
void system_expect_batches(sidecaml_runner alone, sidecaml_runner together);
/* In a story of one channel, which begins with `system_expect_deaths`: makes a new worker that goes on with it. */
void system_expect_deaths(int most);
void system_take_over(void);
/* Whether a worker is taking over just now. */
bool system_resumes(void);

/* What the core remembers in private memory, as a number. */
uint64_t system_hash(void);

/* What lies in shared memory at the end of a schedule. */
uint64_t slot_word(uint32_t channel, uint32_t slot);
const struct sidecaml_status_page *status_page(void);

#endif
