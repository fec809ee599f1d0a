#include "wait.h"

#include "atomics.h"
#include "crash_point.h"
#include "doorbell.h"

int client_park(struct sidecaml_client_block *block, const struct ring_client *ring, uint32_t slot,
                struct doorbell answer) {
    /* At most one post a park, so one taken back each time keeps the doorbell quiet. Always, not only when the worker
     * took the flag: a post that came after the previous unpark would otherwise end every sleep to come at once. */
    doorbell_drain(answer, 1);
    store32(&block->waiting, 1, seq_cst);
    CRASH_POINT("client.waiting-up");
    return ring_poll_seq_cst(ring, slot);
}

void client_unpark(struct sidecaml_client_block *block) {
    /* Relaxed: the worker only decides by it whether to post. */
    store32(&block->waiting, 0, relaxed);
}

void client_wake(struct sidecaml_client_block *block, struct doorbell answer) {
    /* Looks before it exchanges: the line stays shared between the two cores while nobody sleeps. The exchange makes
     * it one post a sleep, however many answers come. */
    if (!load32(&block->waiting, seq_cst) || !exchange32(&block->waiting, 0, seq_cst)) return;
    CRASH_POINT("worker.waiting-taken");
    doorbell_post_unless_full(answer);
    CRASH_POINT("worker.posted");
}

void worker_park(struct sidecaml_status_page *status) {
    store32(&status->parked, 1, seq_cst);
    CRASH_POINT("worker.parked-up");
}

void worker_unpark(struct sidecaml_status_page *status) {
    store32(&status->parked, 0, relaxed); /* a client that still sees 1 posts once too often */
}

void worker_wake(const struct sidecaml_status_page *status, struct doorbell request) {
    if (!load32(&status->parked, seq_cst)) return;
    CRASH_POINT("client.parked-seen");
    doorbell_post(request);
    CRASH_POINT("client.posted");
}
