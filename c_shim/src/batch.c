#include "batch.h"

#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "served.h"

/* Copying so much takes about as long as binding a run of two tensors anew (3 us), so only beyond it is a place bound
 * that may never come again. */
#define WORTH_BINDING_BYTES 32768
/* Of tensors by their bits in a word. */
#define MOST_IN_PLACE 64
/* After binding a run was refused, which may have been for want of memory, so many requests run before it is tried
 * again. */
#define RESTS_FOR 1024
/* After so many runs of others a kind has not run for long. */
#define STALE_RUNS 1024

/* --- Opening and closing ----------------------------------------------------------------------------------------- */

static int check(const struct sidecaml_batching *model, struct sidecaml_failure *why) {
    if (model->most < 2 || model->most > SIDECAML_MOST_BATCH)
        return fail(why, SIDECAML_E_INVALID, "a run has 2 to %u requests, not %u", SIDECAML_MOST_BATCH, model->most);
    if (model->tensor_count > SIDECAML_MAX_TENSORS)
        return fail(why, SIDECAML_E_INVALID, "a model has at most %d inputs and outputs, not %u", SIDECAML_MAX_TENSORS,
                    model->tensor_count);
    for (uint32_t t = 0; t < model->tensor_count; t++)
        if (model->axes[t] < SIDECAML_SHARED || model->axes[t] >= SIDECAML_MAX_RANK)
            return fail(why, SIDECAML_E_INVALID, "tensor %u has no axis %d", t, model->axes[t]);
    return 0;
}

/* NULL without memory, or when there is nothing to copy. */
static void *copy_of(const void *from, size_t bytes) {
    void *copy = malloc(bytes);
    return copy ? memcpy(copy, from, bytes) : NULL;
}

int batcher_open(struct batcher *batcher, const struct sidecaml_batching *model, struct sidecaml_failure *why) {
    int status = check(model, why);
    if (status < 0) return status;
    uint32_t tensors = model->tensor_count ? model->tensor_count : 1; /* calloc(0) may be NULL */
    struct batcher made = {.model = *model};
    for (uint32_t t = 0; t < model->tensor_count; t++)
        made.shares |= model->axes[t] == SIDECAML_SHARED;
    made.model.axes = copy_of(model->axes, tensors * sizeof model->axes[0]);
    made.model.costs_ns = copy_of(model->costs_ns, (model->most + 1) * sizeof model->costs_ns[0]);
    made.memory = calloc(tensors, sizeof made.memory[0]);
    made.room = calloc(tensors, sizeof made.room[0]);
    if (!made.model.axes || !made.model.costs_ns || !made.memory || !made.room) {
        batcher_close(&made);
        return fail(why, SIDECAML_E_NO_MEMORY, "no memory for batches");
    }
    *batcher = made;
    return 0;
}

static void drop_gathered(const struct batcher *batcher, struct kind *kind) {
    for (uint32_t n = 0; kind->gathered && n <= batcher->model.most; n++) {
        if (kind->gathered[n]) batcher->model.drop(kind->gathered[n]);
        kind->gathered[n] = NULL;
    }
}

static void free_kind(const struct batcher *batcher, struct kind *kind) {
    if (!kind) return;
    drop_gathered(batcher, kind);
    free(kind->gathered);
    free(kind->item_bytes);
    free(kind->dims);
    free(kind);
}

void batcher_close(struct batcher *batcher) {
    while (batcher->kind_count)
        free_kind(batcher, batcher->kinds[--batcher->kind_count]);
    for (uint32_t t = 0; batcher->memory && t < batcher->model.tensor_count; t++)
        free(batcher->memory[t]);
    free(batcher->memory);
    free(batcher->room);
    free((void *)batcher->model.axes);
    free((void *)batcher->model.costs_ns);
    *batcher = (struct batcher){.model = {.most = 1}};
}

static void empty_entry(struct batch_entry *entry, const struct batcher *batcher) {
    if (entry->runner) batcher->model.drop(entry->runner);
    *entry = (struct batch_entry){0};
}

/* Of one kind: nothing is left. Of all: only what runs them goes, for it may have been bound to memory that moves. */
static void cache_forget(struct batch_cache *cache, const struct batcher *batcher, const struct kind *kind) {
    for (uint32_t i = 0; cache->entries && i < BATCH_CACHE; i++) {
        struct batch_entry *entry = &cache->entries[i];
        if (kind && entry->kind != kind) continue;
        struct batch_entry kept = *entry;
        empty_entry(entry, batcher);
        if (!kind) *entry = (struct batch_entry){.kind = kept.kind, .slot = kept.slot, .count = kept.count};
    }
}

void batch_cache_clear(struct batch_cache *cache, const struct batcher *batcher) {
    cache_forget(cache, batcher, NULL);
    free(cache->entries);
    cache->entries = NULL;
}

/* --- Kinds ------------------------------------------------------------------------------------------------------- */

static void all_forget(const struct batcher *batcher, const struct kind *kind, struct served_channel *const *channels,
                       uint32_t channel_count) {
    for (uint32_t i = 0; i < channel_count; i++) {
        if (!channels[i]) continue;
        cache_forget(&channels[i]->batches, batcher, kind);
        if (kind && channels[i]->kind == kind) channels[i]->kind = NULL;
    }
}

static struct kind *new_kind(const struct batcher *batcher, const uint64_t *dims, uint32_t words) {
    uint32_t most = batcher->model.most;
    struct kind *kind = calloc(1, sizeof *kind + (most + 1) * sizeof kind->costs[0]);
    if (!kind) return NULL;
    kind->words = words;
    kind->rows = 1;
    kind->most = most;
    kind->dims = calloc(words + 1, sizeof kind->dims[0]);
    if (most > 1) {
        kind->item_bytes = calloc(batcher->model.tensor_count + 1, sizeof kind->item_bytes[0]);
        kind->gathered = calloc(most + 1, sizeof kind->gathered[0]);
        for (uint32_t n = 1; n <= most; n++)
            kind->costs[n] = cost_guess(batcher->model.costs_ns[n]);
    }
    if (!kind->dims || (most > 1 && (!kind->item_bytes || !kind->gathered))) {
        free_kind(batcher, kind);
        return NULL;
    }
    memcpy(kind->dims, dims, words * sizeof dims[0]);
    return kind;
}

/* How many kinds the maker of one has made. One that others use is nobody's. */
static uint32_t count_made(const struct batcher *batcher, const struct kind *kind) {
    uint32_t made = 0;
    for (uint32_t i = 0; kind->maker && i < batcher->kind_count; i++)
        made += batcher->kinds[i]->maker == kind->maker;
    return kind->maker ? made : 1;
}

static bool is_stale(const struct batcher *batcher, const struct kind *kind) {
    return batcher->runs - kind->ran_at > STALE_RUNS;
}

/* What has not run for long; otherwise, of whoever made most of them, this one of `maker` included, the one that was
 * longest unused: a client that asks for ever new dims pushes out its own. */
static uint32_t find_superfluous(const struct batcher *batcher, const struct served_channel *maker) {
    uint32_t found = 0, most = 0;
    for (uint32_t i = batcher->kind_count; i-- > 0;) {
        const struct kind *kind = batcher->kinds[i];
        if (kind == batcher->current) continue;
        uint32_t made = is_stale(batcher, kind) ? UINT32_MAX : count_made(batcher, kind) + (kind->maker == maker);
        if (made <= most) continue;
        found = i;
        most = made;
    }
    return found;
}

/* Makes a place for one more, and tells where: behind the others, or where the one lay that is pushed out. */
static uint32_t make_place(struct batcher *batcher, const struct served_channel *maker,
                           struct served_channel *const *channels, uint32_t channel_count) {
    if (batcher->kind_count < BATCH_KINDS) return batcher->kind_count++;
    uint32_t at = find_superfluous(batcher, maker);
    all_forget(batcher, batcher->kinds[at], channels, channel_count);
    free_kind(batcher, batcher->kinds[at]);
    return at;
}

static void make_latest(struct batcher *batcher, uint32_t at, struct kind *kind) {
    memmove(&batcher->kinds[1], &batcher->kinds[0], at * sizeof batcher->kinds[0]);
    batcher->kinds[0] = kind;
}

struct kind *batch_kind(struct batcher *batcher, const struct served_channel *channel, const uint64_t *dims,
                        struct served_channel *const *channels, uint32_t channel_count) {
    for (uint32_t i = 0; i < batcher->kind_count; i++) {
        struct kind *kind = batcher->kinds[i];
        if (memcmp(kind->dims, dims, channel->words * sizeof dims[0]) != 0) continue;
        if (kind->maker != channel) kind->maker = NULL;
        if (i) make_latest(batcher, i, kind);
        return kind;
    }
    struct kind *made = new_kind(batcher, dims, channel->words);
    if (!made) return NULL;
    made->maker = channel;
    made->ran_at = batcher->runs;
    make_latest(batcher, make_place(batcher, channel, channels, channel_count), made);
    return made;
}

void batch_forget_maker(const struct batcher *batcher, const struct served_channel *channel) {
    for (uint32_t i = 0; i < batcher->kind_count; i++)
        if (batcher->kinds[i]->maker == channel) batcher->kinds[i]->maker = NULL;
}

void batch_touch(struct batcher *batcher, struct kind *kind) {
    uint32_t at = 0;
    kind->ran_at = ++batcher->runs;
    while (batcher->kinds[at] != kind)
        at++;
    if (at) make_latest(batcher, at, kind);
}

/* --- Sizes ------------------------------------------------------------------------------------------------------- */

static void item_dims(const struct served_channel *channel, const struct kind *kind, uint32_t tensor,
                      uint64_t dims[SIDECAML_MAX_RANK]) {
    const uint64_t *row = kind->dims;
    uint32_t i = 0;
    while (i < channel->dynamic_count && channel->dynamic[i] != tensor)
        row += channel->layout.tensor[channel->dynamic[i++]].rank;
    bool is_dynamic = i < channel->dynamic_count;
    memcpy(dims, is_dynamic ? row : channel->layout.tensor[tensor].max_dims,
           channel->layout.tensor[tensor].rank * sizeof dims[0]);
}

static uint64_t before_axis(const uint64_t *dims, int32_t axis) {
    uint64_t outer = 1;
    for (int32_t i = 0; i < axis; i++)
        outer *= dims[i];
    return outer;
}

/* Whether requests can be laid side by side along the axis, byte by byte. */
static bool can_be_joined(const struct sidecaml_tensor_descriptor *tensor, const uint64_t *dims, int32_t axis,
                          uint64_t bytes) {
    if (axis == SIDECAML_SHARED) return !(tensor->flags & SIDECAML_TENSOR_OUTPUT) && tensor->dtype != SIDECAML_STRING;
    if (tensor->dtype == SIDECAML_STRING || (uint32_t)axis >= tensor->rank || bytes == 0) return false;
    uint64_t outer = before_axis(dims, axis), elements = 1;
    for (uint32_t i = 0; i < tensor->rank; i++)
        elements *= dims[i];
    return elements / outer * sidecaml_dtype_bits(tensor->dtype) % 8 == 0;
}

/* Requests of several rows: fewer of them go into one run, which takes as long as one of all their rows. */
static void count_rows(const struct batcher *batcher, struct kind *kind, uint64_t rows) {
    const struct sidecaml_batching *model = &batcher->model;
    kind->most = rows > model->most ? 1 : model->most / (uint32_t)rows;
    kind->refused |= kind->most < 2;
    if (rows == 1) return;
    if (!kind->refused) kind->rows = (uint32_t)rows;
    for (uint32_t n = 1; n <= model->most; n++)
        kind->costs[n] = cost_guess(n * rows <= model->most ? model->costs_ns[n * rows] : 0);
}

/* Fills in the bytes of a request's tensors; a kind of which some cannot be joined is refused for good. */
static bool measure(const struct batcher *batcher, struct kind *kind, const struct served_channel *channel) {
    if (kind->item_bytes[batcher->model.tensor_count]) return true;
    uint32_t tensors = tensor_count_of(&channel->layout);
    uint64_t rows = 1;
    kind->refused = tensors != batcher->model.tensor_count;
    for (uint32_t t = 0; !kind->refused && t < tensors; t++) {
        const struct sidecaml_tensor_descriptor *tensor = &channel->layout.tensor[t];
        uint64_t dims[SIDECAML_MAX_RANK];
        item_dims(channel, kind, t, dims);
        kind->refused = !sidecaml_tensor_bytes(tensor->dtype, dims, tensor->rank, &kind->item_bytes[t]) ||
                        !can_be_joined(tensor, dims, batcher->model.axes[t], kind->item_bytes[t]);
        if (!kind->refused && batcher->model.axes[t] != SIDECAML_SHARED) rows = dims[batcher->model.axes[t]];
    }
    if (!kind->refused) count_rows(batcher, kind, rows);
    kind->item_bytes[tensors] = 1; /* measured */
    return !kind->refused;
}

/* --- Copies ------------------------------------------------------------------------------------------------------ */

static uint8_t *slot_of(const struct taken *one, uint32_t tensor) {
    const struct served_channel *channel = one->channel;
    return tensor_at(channel->segment.base, &channel->layout, one->request.slot, tensor);
}

/* A tensor of a run whose requests are laid side by side: each has `outer` pieces of so many bytes in the joined
 * tensor, `stride` apart, and one after the other in its own. */
struct pieces {
    uint64_t outer, bytes, stride;
    uint8_t *joined;
};

static struct pieces pieces_of(const struct batcher *batcher, const struct kind *kind, const struct taken *taken,
                               uint32_t count, uint32_t tensor) {
    uint64_t dims[SIDECAML_MAX_RANK], outer = 1;
    if (batcher->model.axes[tensor] > 0) {
        item_dims(taken[0].channel, kind, tensor, dims);
        outer = before_axis(dims, batcher->model.axes[tensor]);
    }
    uint64_t bytes = kind->item_bytes[tensor] / outer;
    return (struct pieces){outer, bytes, count * bytes, batcher->memory[tensor]};
}

/* False when it is not equal in all of them any more: a client that changes it is not to change the others' answers. */
static bool copy_shared(const struct batcher *batcher, const struct kind *kind, const struct taken *taken,
                        uint32_t count, uint32_t tensor) {
    uint8_t *copy = batcher->memory[tensor];
    memcpy(copy, slot_of(&taken[0], tensor), kind->item_bytes[tensor]);
    for (uint32_t i = 1; i < count; i++)
        if (memcmp(copy, slot_of(&taken[i], tensor), kind->item_bytes[tensor]) != 0) return false;
    return true;
}

/* False: they are to be run one by one. */
static bool gather(const struct batcher *batcher, const struct kind *kind, const struct taken *taken, uint32_t count,
                   uint32_t tensor) {
    if (batcher->model.axes[tensor] == SIDECAML_SHARED) return copy_shared(batcher, kind, taken, count, tensor);
    const struct pieces pieces = pieces_of(batcher, kind, taken, count, tensor);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *own = slot_of(&taken[i], tensor);
        for (uint64_t o = 0; o < pieces.outer; o++)
            memcpy(pieces.joined + i * pieces.bytes + o * pieces.stride, own + o * pieces.bytes, pieces.bytes);
    }
    return true;
}

static bool is_copied_at(struct pieces pieces, const uint8_t *own, uint32_t at) {
    for (uint64_t o = 0; o < pieces.outer; o++)
        if (memcmp(pieces.joined + at * pieces.bytes + o * pieces.stride, own + o * pieces.bytes, pieces.bytes) != 0)
            return false;
    return true;
}

bool batch_has_copied(const struct batcher *batcher, const struct taken *one, struct place place, uint32_t at,
                      uint32_t count) {
    const struct kind *kind = batcher->current;
    for (uint32_t t = 0; t < place.layout->input_count; t++) {
        const uint8_t *own = tensor_at(place.base, place.layout, place.slot, t);
        bool is_shared = batcher->model.axes[t] == SIDECAML_SHARED;
        if (is_shared ? memcmp(batcher->memory[t], own, kind->item_bytes[t]) != 0
                      : !is_copied_at(pieces_of(batcher, kind, one, count, t), own, at))
            return false;
    }
    return true;
}

static bool is_in_place(const struct batch_run *run, uint32_t tensor) {
    return tensor < MOST_IN_PLACE && run->in_place >> tensor & 1;
}

static void scatter(const struct batcher *batcher, const struct kind *kind, const struct taken *taken, uint32_t count,
                    uint32_t tensor) {
    const struct pieces pieces = pieces_of(batcher, kind, taken, count, tensor);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *own = slot_of(&taken[i], tensor);
        for (uint64_t o = 0; o < pieces.outer; o++)
            memcpy(own + o * pieces.bytes, pieces.joined + i * pieces.bytes + o * pieces.stride, pieces.bytes);
    }
}

void batch_give(const struct batcher *batcher, const struct kind *kind, const struct batch_run *run,
                const struct taken *taken, uint32_t count) {
    const struct sidecaml_layout *layout = &taken[0].channel->layout;
    for (uint32_t t = layout->input_count; t < tensor_count_of(layout); t++)
        if (!is_in_place(run, t)) scatter(batcher, kind, taken, count, t);
}

bool batch_can(const struct batcher *batcher, struct kind *kind, const struct served_channel *channel) {
    return batcher->model.most > 1 && !kind->refused && measure(batcher, kind, channel);
}

bool batch_shares(const struct batcher *batcher, const struct kind *kind, const struct taken *one,
                  const struct served_channel *channel, uint32_t slot) {
    for (uint32_t t = 0; t < channel->layout.input_count; t++) {
        if (batcher->model.axes[t] != SIDECAML_SHARED) continue;
        const void *other = tensor_at(channel->segment.base, &channel->layout, slot, t);
        if (memcmp(slot_of(one, t), other, kind->item_bytes[t]) != 0) return false;
    }
    return true;
}

/* --- What runs a batch ------------------------------------------------------------------------------------------- */

uint32_t batch_stretch(const struct taken *taken, uint32_t count) {
    uint32_t i = 1;
    if (staging_of(taken[0].channel)) return 1;
    while (i < count && taken[i].channel == taken[0].channel && taken[i].request.slot == taken[0].request.slot + i)
        i++;
    return i;
}

/* Which tensors need no copy, and how many bytes that saves. */
static uint64_t lie_as_one(const struct batcher *batcher, const struct kind *kind, const struct taken *taken,
                           uint32_t count, uint64_t *saved) {
    const struct sidecaml_layout *layout = &taken[0].channel->layout;
    uint64_t in_place = 0, shared = 0;
    *saved = 0;
    if (batch_stretch(taken, count) < count) return 0;
    for (uint32_t t = 0; t < tensor_count_of(layout) && t < MOST_IN_PLACE; t++) {
        const struct sidecaml_tensor_descriptor *tensor = &layout->tensor[t];
        int32_t axis = batcher->model.axes[t];
        uint64_t dims[SIDECAML_MAX_RANK];
        if (axis == SIDECAML_SHARED) {
            shared |= (uint64_t)1 << t;
            continue;
        }
        item_dims(taken[0].channel, kind, t, dims);
        if (!(tensor->flags & SIDECAML_TENSOR_PACKED) || tensor->slot_stride != kind->item_bytes[t] ||
            before_axis(dims, axis) != 1)
            continue;
        in_place |= (uint64_t)1 << t;
        *saved += count * kind->item_bytes[t];
    }
    return in_place ? in_place | shared : 0;
}

/* Private memory for what is copied. A tensor's moves when it grows, and with it goes whatever was bound there. */
static bool make_room(struct batcher *batcher, const struct kind *kind, uint32_t count, uint64_t in_place,
                      struct served_channel *const *channels, uint32_t channel_count) {
    struct batch_run run = {.in_place = in_place};
    for (uint32_t t = 0; t < batcher->model.tensor_count; t++) {
        uint64_t wanted;
        if (is_in_place(&run, t)) continue;
        if (!checked_mul(kind->item_bytes[t], count, &wanted) || !checked_align(wanted + 1, 64, &wanted)) return false;
        if (wanted <= batcher->room[t]) continue;
        all_forget(batcher, NULL, channels, channel_count);
        for (uint32_t k = 0; k < batcher->kind_count; k++)
            drop_gathered(batcher, batcher->kinds[k]);
        free(batcher->memory[t]);
        uint64_t room = wanted > 2 * batcher->room[t] ? wanted : 2 * batcher->room[t];
        batcher->memory[t] = aligned_alloc(64, room);
        batcher->room[t] = batcher->memory[t] ? room : 0;
        if (!batcher->memory[t]) return false;
    }
    return true;
}

static void *bind(const struct batcher *batcher, const struct kind *kind, const struct taken *taken, uint32_t count,
                  uint64_t in_place) {
    const struct batch_run run = {.in_place = in_place};
    void *addresses[SIDECAML_MAX_TENSORS], *runner;
    uint64_t dims[SIDECAML_MAX_TENSORS][SIDECAML_MAX_RANK];
    for (uint32_t t = 0; t < batcher->model.tensor_count; t++) {
        item_dims(taken[0].channel, kind, t, dims[t]);
        if (batcher->model.axes[t] != SIDECAML_SHARED) dims[t][batcher->model.axes[t]] *= count;
        addresses[t] = is_in_place(&run, t) ? slot_of(&taken[0], t) : batcher->memory[t];
    }
    struct sidecaml_failure why;
    return batcher->model.bind(batcher->model.context, addresses, dims, &runner, &why) < 0 ? NULL : runner;
}

static struct batch_entry *entry_of(struct batch_cache *cache, uint32_t slot, uint32_t count) {
    if (!cache->entries) cache->entries = calloc(BATCH_CACHE, sizeof cache->entries[0]);
    return cache->entries ? &cache->entries[(slot * 37 + count) % BATCH_CACHE] : NULL;
}

/* What runs this place in place; NULL when copying is better: for a few bytes nothing is bound before the second time
 * that the place comes up, so that places which never come again cost no binding. */
static void *find_in_place(const struct batcher *batcher, const struct kind *kind, const struct taken *taken,
                           uint32_t count, uint64_t in_place, bool bind_at_once) {
    uint32_t slot = taken[0].request.slot;
    struct batch_entry *entry = entry_of(&taken[0].channel->batches, slot, count);
    if (!entry) return NULL;
    bool is_known = entry->kind == kind && entry->slot == slot && entry->count == count;
    if (is_known && entry->runner) return entry->runner;
    if (!is_known) {
        empty_entry(entry, batcher);
        *entry = (struct batch_entry){.kind = kind, .slot = slot, .count = count};
        if (!bind_at_once) return NULL;
    }
    entry->runner = bind(batcher, kind, taken, count, in_place);
    return entry->runner;
}

/* Whether a run whose tensors lie so copies nothing. */
static bool is_all(const struct batcher *batcher, uint64_t in_place) {
    uint32_t tensors = batcher->model.tensor_count;
    return tensors && tensors <= MOST_IN_PLACE && in_place == UINT64_MAX >> (MOST_IN_PLACE - tensors);
}

static bool pays(uint32_t from, uint32_t count) {
    return from && count >= from;
}

static bool find_runner(struct batcher *batcher, struct kind *kind, const struct taken *taken, uint32_t count,
                        struct served_channel *const *channels, uint32_t channel_count, struct batch_run *run) {
    uint64_t saved, in_place = lie_as_one(batcher, kind, taken, count, &saved);
    bool may_copy_all = pays(batcher->model.gather_from, count);
    bool may_copy_rest = may_copy_all || pays(batcher->model.rest_from, count) || is_all(batcher, in_place);
    if (in_place && may_copy_rest && make_room(batcher, kind, count, in_place, channels, channel_count)) {
        bool bind_at_once = !may_copy_all || saved >= WORTH_BINDING_BYTES;
        run->runner = find_in_place(batcher, kind, taken, count, in_place, bind_at_once);
        run->in_place = run->runner ? in_place : 0;
    }
    if (run->runner || !may_copy_all) return run->runner;
    bool has_room = make_room(batcher, kind, count, 0, channels, channel_count);
    if (has_room && !kind->gathered[count]) kind->gathered[count] = bind(batcher, kind, taken, count, 0);
    run->runner = has_room ? kind->gathered[count] : NULL;
    if (!run->runner) kind->rests = RESTS_FOR;
    return run->runner;
}

bool batch_prepare(struct batcher *batcher, struct kind *kind, const struct taken *taken, uint32_t count,
                   struct served_channel *const *channels, uint32_t channel_count, struct batch_run *run) {
    if (!find_runner(batcher, kind, taken, count, channels, channel_count, run)) return false;
    for (uint32_t t = 0; t < taken[0].channel->layout.input_count; t++)
        if (!is_in_place(run, t) && !gather(batcher, kind, taken, count, t)) return false;
    return true;
}
