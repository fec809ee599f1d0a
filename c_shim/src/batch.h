/* Several requests run as one: where the tensors of such a run lie, and what runs it.
 *
 * Requests of one kind (equal dims) that lie in neighbouring slots of one channel are one tensor already where slots
 * are packed, the batch is the tensor's first axis, and nobody must be kept from changing it: it is bound as it lies.
 * Every other tensor of the run is gathered into private memory before, or scattered from there after. So a run needs,
 * tensor by tensor, what it needs.
 *
 * What runs a batch is bound once for each place and length, and kept: in place, in the channel's cache; on copies
 * alone, with the kind. Both are bounded, and what is pushed out is bound again when it is wanted.
 */
#ifndef SIDECAML_BATCH_H
#define SIDECAML_BATCH_H

#include "costs.h"
#include "sidecaml/sidecaml.h"

/* Sets of dims of which a worker remembers how long runs take, and what runs them on copies: the latest used. */
#define BATCH_KINDS 16
/* Places and lengths of which a channel keeps what runs them: a power of two. */
#define BATCH_CACHE 128

struct served_channel;
struct taken;
struct kind;

struct batch_cache {
    struct batch_entry {
        const struct kind *kind; /* NULL: nothing is kept here */
        uint32_t slot, count;
        void *runner;
    } * entries; /* BATCH_CACHE, made when first used */
};

struct batcher {
    struct sidecaml_batching model; /* `most` is 1 where nothing is batched */
    bool shares;                    /* it has inputs that all requests of a run share */
    struct kind *kinds[BATCH_KINDS];
    uint32_t kind_count;
    struct kind *current; /* of the requests that are taken: not pushed out */
    uint64_t runs;        /* that were of a kind */
    /* Private memory: of each tensor, for the largest batch of the largest kind. */
    uint8_t **memory;
    uint64_t *room;
};

/* What a worker knows of requests with the same dims. */
struct kind {
    bool refused;         /* they cannot be joined: they run one by one */
    uint32_t rests;       /* so many more run one by one, for what it takes to batch them was refused */
    uint32_t rows;        /* of a request; 1 until it is known */
    uint32_t most;        /* requests of one run; of the model's until it is known how many rows they have */
    uint32_t words;       /* of `dims` */
    uint64_t *dims;       /* of dynamic inputs, then of dynamic outputs */
    uint64_t *item_bytes; /* of each tensor; NULL where nothing is batched */
    void **gathered;      /* by the number of requests: what runs them on copies alone */
    const struct served_channel *maker; /* whose request was the first; NULL when others came with the same dims */
    uint64_t ran_at;                    /* `runs`, the last time that it ran */
    uint64_t doubt_from_ns;             /* when estimates that refuse may be doubted next (schedule.c) */
    struct cost costs[];                /* by the number of requests; [0] is of no use */
};

/* Copies `model`, whose context is the caller's. */
int batcher_open(struct batcher *batcher, const struct sidecaml_batching *model, struct sidecaml_failure *why);
/* Every channel's cache is cleared before. */
void batcher_close(struct batcher *batcher);
void batch_cache_clear(struct batch_cache *cache, const struct batcher *batcher);

/* The kind of the dims that a channel's requests come with; NULL without memory. channels[count] are all of the
 * worker's, which forget a kind that is pushed out. */
struct kind *batch_kind(struct batcher *batcher, const struct served_channel *channel, const uint64_t *dims,
                        struct served_channel *const *channels, uint32_t channel_count);
/* Before a channel ends: what it made is nobody's. */
void batch_forget_maker(const struct batcher *batcher, const struct served_channel *channel);
/* It runs: the last of its maker's to be pushed out from now on. */
void batch_touch(struct batcher *batcher, struct kind *kind);
/* Whether requests of this kind can be run together at all: what its tensors take is measured. */
bool batch_can(const struct batcher *batcher, struct kind *kind, const struct served_channel *channel);
/* Whether the inputs that all requests of a run share are equal to those of `one`, bit for bit; of one kind. */
bool batch_shares(const struct batcher *batcher, const struct kind *kind, const struct taken *one,
                  const struct served_channel *channel, uint32_t slot);

/* How many of these requests, from the first on, are neighbours: they lie as one tensor wherever slots are packed. */
uint32_t batch_stretch(const struct taken *taken, uint32_t count);
/* Makes ready what runs these requests, all of one kind; inputs that do not lie as one tensor are copied. False: that
 * cannot be, or does not pay. */
struct batch_run {
    void *runner;
    uint64_t in_place; /* bit t: tensor t is bound as it lies; of tensors from 64 on none is */
};
bool batch_prepare(struct batcher *batcher, struct kind *kind, const struct taken *taken, uint32_t count,
                   struct served_channel *const *channels, uint32_t channel_count, struct batch_run *run);
/* Whether the inputs of the batch that was prepared last, of which all were copied, are those that a request has in a
 * place, whose place in the batch was that, of so many. */
struct place;
bool batch_has_copied(const struct batcher *batcher, const struct taken *one, struct place place, uint32_t at,
                      uint32_t count);
/* Copies outputs to the requests' slots, where they do not lie there already. */
void batch_give(const struct batcher *batcher, const struct kind *kind, const struct batch_run *run,
                const struct taken *taken, uint32_t count);

#endif
