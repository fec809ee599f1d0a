/* The OCaml binding: one stub per step, nothing decided here. ocaml_lib/src/core.ml declares them.
 *
 * Memory: a handle is a custom block that points to a `struct handle` outside the OCaml heap, because a minor
 * collection of another domain may move the block while a wait runs without the runtime lock.
 *
 * Threads: a channel belongs to one thread at a time. A caller that forgets must get an error, not a channel that is
 * unmapped under its feet, so every stub enters the handle, and may find it taken, or closed.
 *
 * Signals: entering a blocking section may run a handler that raises. A wait wants that; whoever holds what an
 * exception would leak enters with `_no_pending`, and the handler runs afterwards.
 *
 * Results are those of sidecaml.h. Stubs marked noalloc neither allocate, nor raise, nor run for more than a few us.
 */
#define CAML_NAME_SPACE
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <caml/alloc.h>
#include <caml/bigarray.h>
#include <caml/custom.h>
#include <caml/fail.h>
#include <caml/memory.h>
#include <caml/mlvalues.h>
#include <caml/signals.h>

#include "sidecaml/sidecaml.h"
#include "values.h"

/* Results beside those of sidecaml.h. */
enum { CLOSED = -1000, TAKEN = -1001 };

struct handle {
    sidecaml_channel *channel; /* NULL: not open */
    atomic_bool taken;
};

/* --- Handles ----------------------------------------------------------------------------------------------------- */

static struct handle *handle_of(value v) {
    return *(struct handle **)Data_custom_val(v);
}

static bool take(struct handle *handle) {
    return !atomic_exchange_explicit(&handle->taken, true, memory_order_acquire);
}

static void leave(struct handle *handle) {
    atomic_store_explicit(&handle->taken, false, memory_order_release);
}

/* 0 with the channel, to be left again; otherwise CLOSED or TAKEN. */
static int enter(struct handle *handle, sidecaml_channel **channel) {
    if (!take(handle)) return TAKEN;
    *channel = handle->channel;
    if (*channel) return 0;
    leave(handle);
    return CLOSED;
}

/* A net, for channels that nobody closed. Views may still be in use: their pages stay. */
static void handle_finalize(value v) {
    sidecaml_channel_drop(handle_of(v)->channel);
    free(handle_of(v));
}

static struct custom_operations handle_operations = {
    .identifier = "sidecaml.channel",
    .finalize = handle_finalize,
    .compare = custom_compare_default,
    .hash = custom_hash_default,
    .serialize = custom_serialize_default,
    .deserialize = custom_deserialize_default,
    .compare_ext = custom_compare_ext_default,
    .fixed_length = custom_fixed_length_default,
};

static value alloc_handle(void) {
    struct handle *handle = calloc(1, sizeof *handle);
    if (!handle) caml_raise_out_of_memory();
    /* A hundred forgotten channels are worth a collection: each holds descriptors and shared memory. */
    value v = caml_alloc_custom(&handle_operations, sizeof handle, 1, 100);
    *(struct handle **)Data_custom_val(v) = handle;
    return v;
}

/* --- Values of OCaml --------------------------------------------------------------------------------------------- */

static value tensor_info_of(const struct sidecaml_tensor_info *tensor) {
    return sidecaml_ml_tensor_info(tensor->name, tensor->dtype_name, tensor->output, tensor->rank, tensor->dims,
                                   tensor->dim_names);
}

static value tensor_infos_of(const struct sidecaml_model_info *info) {
    CAMLparam0();
    CAMLlocal2(result, item);
    result = caml_alloc(info->tensor_count, 0);
    for (uint32_t i = 0; i < info->tensor_count; i++) {
        item = tensor_info_of(&info->tensors[i]);
        Store_field(result, i, item);
    }
    CAMLreturn(result);
}

/* Of each pair (output, input). */
static value carried_infos_of(const struct sidecaml_model_info *info) {
    CAMLparam0();
    CAMLlocal3(result, pair, item);
    result = caml_alloc(info->carried_count, 0);
    for (uint32_t i = 0; i < info->carried_count; i++) {
        pair = caml_alloc_tuple(2);
        item = caml_copy_string(info->carried[i].output);
        Store_field(pair, 0, item);
        item = tensor_info_of(&info->carried[i].input);
        Store_field(pair, 1, item);
        Store_field(result, i, pair);
    }
    CAMLreturn(result);
}

static value strings_of(char *const *texts, uint32_t count) {
    CAMLparam0();
    CAMLlocal2(result, item);
    result = caml_alloc(count, 0);
    for (uint32_t i = 0; i < count; i++) {
        item = caml_copy_string(texts[i]);
        Store_field(result, i, item);
    }
    CAMLreturn(result);
}

/* Of (policy, dim, why, most, gather_from, in_place, shared), or none where the daemon said nothing. */
static value batching_info_of(const struct sidecaml_batching_info *batching) {
    CAMLparam0();
    CAMLlocal3(result, all, item);
    if (!batching->policy) CAMLreturn(Val_int(0));
    all = caml_alloc_tuple(7);
    char *const texts[] = {batching->policy, batching->dim, batching->why};
    for (uint32_t i = 0; i < 3; i++) {
        item = caml_copy_string(texts[i]);
        Store_field(all, i, item);
    }
    Store_field(all, 3, Val_long(batching->most));
    Store_field(all, 4, Val_long(batching->gather_from));
    Store_field(all, 5, Val_bool(batching->in_place));
    item = strings_of(batching->shared, batching->shared_count);
    Store_field(all, 6, item);
    result = caml_alloc(1, 0);
    Store_field(result, 0, all);
    CAMLreturn(result);
}

/* (name, engine, state, problem, fingerprint, max_slots, tensors, carried, batching) */
static value model_info_of(const struct sidecaml_model_info *info) {
    CAMLparam0();
    CAMLlocal2(result, item);
    result = caml_alloc_tuple(9);
    const char *texts[] = {info->name, info->engine, info->state, info->problem};
    for (uint32_t i = 0; i < 4; i++) {
        item = caml_copy_string(texts[i]);
        Store_field(result, i, item);
    }
    item = caml_copy_int64((int64_t)info->fingerprint);
    Store_field(result, 4, item);
    Store_field(result, 5, Val_long(info->max_slots));
    item = tensor_infos_of(info);
    Store_field(result, 6, item);
    item = carried_infos_of(info);
    Store_field(result, 7, item);
    item = batching_info_of(&info->batching);
    Store_field(result, 8, item);
    CAMLreturn(result);
}

static value model_infos_of(const struct sidecaml_models *models) {
    CAMLparam0();
    CAMLlocal2(result, item);
    result = caml_alloc(models->count, 0);
    for (uint32_t i = 0; i < models->count; i++) {
        item = model_info_of(&models->models[i]);
        Store_field(result, i, item);
    }
    CAMLreturn(result);
}

/* (dynamic, array's offset, bytes from slot to slot, maximal dims, room for text) */
static value place_of(const struct sidecaml_tensor_descriptor *descriptor) {
    CAMLparam0();
    CAMLlocal2(result, dims);
    result = caml_alloc_tuple(5);
    Store_field(result, 0, Val_bool(descriptor->flags & SIDECAML_TENSOR_DYNAMIC));
    Store_field(result, 1, Val_long(descriptor->array_offset));
    Store_field(result, 2, Val_long(descriptor->slot_stride));
    dims = caml_alloc(descriptor->rank, 0);
    Store_field(result, 3, dims);
    for (uint32_t i = 0; i < descriptor->rank; i++)
        Store_field(dims, i, Val_long(descriptor->max_dims[i]));
    Store_field(result, 4, Val_long(descriptor->text_bytes));
    CAMLreturn(result);
}

/* (segment's descriptor, its bytes, slots, places) */
static value layout_of(const sidecaml_channel *channel) {
    CAMLparam0();
    CAMLlocal3(result, places, item);
    const struct sidecaml_layout *layout = sidecaml_channel_layout(channel);
    uint32_t count = layout->input_count + layout->output_count;
    result = caml_alloc_tuple(4);
    Store_field(result, 0, Val_int(sidecaml_channel_segment_fd(channel)));
    Store_field(result, 1, Val_long(layout->segment_bytes));
    Store_field(result, 2, Val_long(layout->slot_count));
    places = caml_alloc(count, 0);
    Store_field(result, 3, places);
    for (uint32_t i = 0; i < count; i++) {
        item = place_of(&layout->tensor[i]);
        Store_field(places, i, item);
    }
    CAMLreturn(result);
}

/* --- The control socket ------------------------------------------------------------------------------------------ */

/* A request that outlives the runtime lock: everything is copied out of the OCaml heap first. */
struct request {
    char *socket, *client;
    char *model; /* NULL: all of them */
    uint32_t slots;
    enum sidecaml_policy policy;
    uint64_t timeout_ns;
    struct sidecaml_dim_binding *dims;
    uint32_t dim_count;
    uint64_t text_bytes;
    bool high;
};

static void free_request(struct request *request) {
    for (uint32_t i = 0; i < request->dim_count; i++)
        caml_stat_free((char *)request->dims[i].name);
    caml_stat_free(request->dims);
    caml_stat_free(request->model);
    caml_stat_free(request->client);
    caml_stat_free(request->socket);
}

/* Of a `Core.request`. */
static void read_request(value v, struct request *out) {
    value dims = Field(v, 6);
    *out = (struct request){.slots = (uint32_t)Long_val(Field(v, 3)),
                            .policy = (enum sidecaml_policy)Long_val(Field(v, 4)),
                            .timeout_ns = (uint64_t)Long_val(Field(v, 5)),
                            .dim_count = (uint32_t)Wosize_val(dims),
                            .text_bytes = (uint64_t)Long_val(Field(v, 7)),
                            .high = Bool_val(Field(v, 8))};
    out->socket = caml_stat_strdup(String_val(Field(v, 0)));
    out->client = caml_stat_strdup(String_val(Field(v, 1)));
    if (Is_block(Field(v, 2))) out->model = caml_stat_strdup(String_val(Field(Field(v, 2), 0)));
    out->dims = caml_stat_alloc((out->dim_count + 1) * sizeof out->dims[0]);
    for (uint32_t i = 0; i < out->dim_count; i++)
        out->dims[i] = (struct sidecaml_dim_binding){caml_stat_strdup(String_val(Field(Field(dims, i), 0))),
                                                     (uint64_t)Long_val(Field(Field(dims, i), 1))};
}

static struct sidecaml_daemon daemon_of(const struct request *request) {
    return (struct sidecaml_daemon){request->socket, request->client, request->timeout_ns};
}

static int describe(const struct request *request, struct sidecaml_models *models, struct sidecaml_failure *why) {
    const struct sidecaml_daemon daemon = daemon_of(request);
    return sidecaml_daemon_describe(&daemon, request->model, models, why);
}

/* request -> (model info array, int * string) result */
CAMLprim value sidecaml_ml_describe(value v_request) {
    CAMLparam1(v_request);
    CAMLlocal1(contents);
    struct request request;
    struct sidecaml_models models = {0};
    struct sidecaml_failure why;
    read_request(v_request, &request);
    caml_enter_blocking_section_no_pending();
    int status = describe(&request, &models, &why);
    caml_leave_blocking_section();
    free_request(&request);
    if (status < 0) CAMLreturn(sidecaml_ml_error(&why));
    contents = model_infos_of(&models);
    sidecaml_models_free(&models);
    CAMLreturn(sidecaml_ml_ok(contents));
}

static int open_channel(const struct request *request, sidecaml_channel **channel, struct sidecaml_models *models,
                        struct sidecaml_failure *why) {
    const struct sidecaml_daemon daemon = daemon_of(request);
    const struct sidecaml_open what = {.model = request->model,
                                       .slots = request->slots,
                                       .dims = request->dims,
                                       .dim_count = request->dim_count,
                                       .text_bytes = request->text_bytes,
                                       .policy = request->policy,
                                       .high_priority = request->high};
    return sidecaml_daemon_open(&daemon, &what, channel, models, why);
}

/* request -> (handle * model info * layout, int * string) result */
CAMLprim value sidecaml_ml_open(value v_request) {
    CAMLparam1(v_request);
    CAMLlocal4(v_handle, info, layout, contents);
    struct request request;
    struct sidecaml_models models = {0};
    struct sidecaml_failure why;
    v_handle = alloc_handle();
    struct handle *handle = handle_of(v_handle);
    read_request(v_request, &request);
    caml_enter_blocking_section_no_pending();
    int status = open_channel(&request, &handle->channel, &models, &why);
    caml_leave_blocking_section();
    free_request(&request);
    if (status < 0) CAMLreturn(sidecaml_ml_error(&why));
    info = model_info_of(&models.models[0]);
    sidecaml_models_free(&models);
    layout = layout_of(handle->channel);
    contents = caml_alloc_small(3, 0);
    Field(contents, 0) = v_handle;
    Field(contents, 1) = info;
    Field(contents, 2) = layout;
    CAMLreturn(sidecaml_ml_ok(contents));
}

/* Idempotent: 0, or TAKEN. */
CAMLprim value sidecaml_ml_close(value v) {
    CAMLparam1(v);
    struct handle *handle = handle_of(v);
    if (!take(handle)) CAMLreturn(Val_long(TAKEN));
    sidecaml_channel *channel = handle->channel;
    handle->channel = NULL;
    leave(handle);
    /* Giving back a large segment takes milliseconds. */
    caml_enter_blocking_section_no_pending();
    sidecaml_channel_close(channel);
    caml_leave_blocking_section();
    CAMLreturn(Val_long(0));
}

/* The addresses stay mapped whatever happens: the views that lie there are in use. */
static int map_over(void *start, size_t bytes, int fd) {
    struct stat info;
    if (fstat(fd, &info) < 0 || (uint64_t)info.st_size < bytes) return -SIDECAML_E_CORRUPT;
    const int how = MAP_SHARED | MAP_FIXED, access = PROT_READ | PROT_WRITE;
    if (mmap(start, bytes, access, how, fd, 0) != MAP_FAILED) return 0;
    mmap(start, bytes, access, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
    return -SIDECAML_E_SYSTEM;
}

/* Core.mapping array, each of them boxed. */
static struct caml_ba_array *mapping_at(value v_mappings, mlsize_t i) {
    return Caml_ba_array_val(Field(Field(v_mappings, i), 0));
}

static bool is_mapping(const struct caml_ba_array *memory) {
    return (memory->flags & CAML_BA_MANAGED_MASK) == CAML_BA_MAPPED_FILE;
}

/* Maps the channel's segment where Bigarrays lie that are mappings of another one of the same size: 0 or negative. Of
 * all in one call, in which no signal's handler runs. The collector unmaps the addresses later, whatever they show. */
CAMLprim value sidecaml_ml_show(value v, value v_mappings) {
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return Val_long(result);
    mlsize_t count = Wosize_val(v_mappings);
    for (mlsize_t i = 0; result >= 0 && i < count; i++)
        if (!is_mapping(mapping_at(v_mappings, i))) result = -SIDECAML_E_INVALID;
    for (mlsize_t i = 0; result >= 0 && i < count; i++) {
        struct caml_ba_array *memory = mapping_at(v_mappings, i);
        result = map_over(memory->data, caml_ba_byte_size(memory), sidecaml_channel_segment_fd(channel));
    }
    leave(handle);
    return Val_long(result);
}

CAMLprim value sidecaml_ml_is_open(value v) { /* noalloc */
    return Val_bool(handle_of(v)->channel != NULL);
}

CAMLprim value sidecaml_ml_is_intact(value v) { /* noalloc */
    sidecaml_channel *channel;
    if (enter(handle_of(v), &channel) < 0) return Val_false;
    bool intact = sidecaml_channel_is_intact(channel);
    leave(handle_of(v));
    return Val_bool(intact);
}

CAMLprim value sidecaml_ml_closed(value unit) { /* noalloc */
    (void)unit;
    return Val_long(CLOSED);
}

CAMLprim value sidecaml_ml_taken(value unit) { /* noalloc */
    (void)unit;
    return Val_long(TAKEN);
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

CAMLprim intnat sidecaml_ml_claim_native(value v) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_claim(channel);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_claim_byte(value v) {
    return Val_long(sidecaml_ml_claim_native(v));
}

CAMLprim intnat sidecaml_ml_submit_native(value v, intnat deadline_ns) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_submit(channel, (uint64_t)deadline_ns);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_submit_byte(value v, value deadline_ns) {
    return Val_long(sidecaml_ml_submit_native(v, Long_val(deadline_ns)));
}

CAMLprim intnat sidecaml_ml_spin_native(value v, intnat slot, intnat spin_ns) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_spin(channel, (uint32_t)slot, (uint64_t)spin_ns);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_spin_byte(value v, value slot, value spin_ns) {
    return Val_long(sidecaml_ml_spin_native(v, Long_val(slot), Long_val(spin_ns)));
}

/* A whole call on a channel with one slot, up to the first sleep: releases the answer before, submits, spins. */
CAMLprim intnat sidecaml_ml_start_native(value v, intnat deadline_ns, intnat spin_ns) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    sidecaml_channel_release(channel, 0); /* refused when there is none */
    result = sidecaml_channel_submit(channel, (uint64_t)deadline_ns);
    if (result == 0) result = sidecaml_channel_spin(channel, 0, (uint64_t)spin_ns);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_start_byte(value v, value deadline_ns, value spin_ns) {
    return Val_long(sidecaml_ml_start_native(v, Long_val(deadline_ns), Long_val(spin_ns)));
}

/* Releases the runtime lock. -AGAIN lets OCaml run its signal handlers: the next blocking section does. */
CAMLprim intnat sidecaml_ml_wait_native(value v, intnat slot, intnat deadline_ns) {
    CAMLparam1(v);
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    /* Entering may run a signal handler that raises, so the channel is entered after. */
    caml_enter_blocking_section();
    int result = enter(handle, &channel);
    if (result == 0) {
        result = sidecaml_channel_wait(channel, (uint32_t)slot, (uint64_t)deadline_ns);
        leave(handle);
    }
    caml_leave_blocking_section();
    CAMLreturnT(intnat, result);
}

CAMLprim value sidecaml_ml_wait_byte(value v, value slot, value deadline_ns) {
    return Val_long(sidecaml_ml_wait_native(v, Long_val(slot), Long_val(deadline_ns)));
}

/* Keeps the runtime lock. */
CAMLprim intnat sidecaml_ml_wait_holding_native(value v, intnat slot, intnat deadline_ns) {
    CAMLparam1(v);
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result == 0) {
        result = sidecaml_channel_wait(channel, (uint32_t)slot, (uint64_t)deadline_ns);
        leave(handle);
    }
    if (result == -SIDECAML_E_AGAIN) caml_process_pending_actions();
    CAMLreturnT(intnat, result);
}

CAMLprim value sidecaml_ml_wait_holding_byte(value v, value slot, value deadline_ns) {
    return Val_long(sidecaml_ml_wait_holding_native(v, Long_val(slot), Long_val(deadline_ns)));
}

/* -PENDING, or what a wait gives; a request past its deadline is given up. */
CAMLprim intnat sidecaml_ml_poll_native(value v, intnat slot, intnat deadline_ns) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_poll(channel, (uint32_t)slot);
    if (result == -SIDECAML_E_PENDING && deadline_ns && sidecaml_now_ns() >= (uint64_t)deadline_ns)
        result = sidecaml_channel_wait(channel, (uint32_t)slot, (uint64_t)deadline_ns); /* does not wait: it is past */
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_poll_byte(value v, value slot, value deadline_ns) {
    return Val_long(sidecaml_ml_poll_native(v, Long_val(slot), Long_val(deadline_ns)));
}

CAMLprim intnat sidecaml_ml_release_native(value v, intnat slot) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_release(channel, (uint32_t)slot);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_release_byte(value v, value slot) {
    return Val_long(sidecaml_ml_release_native(v, Long_val(slot)));
}

CAMLprim intnat sidecaml_ml_abandon_native(value v, intnat slot) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_abandon(channel, (uint32_t)slot);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_abandon_byte(value v, value slot) {
    return Val_long(sidecaml_ml_abandon_native(v, Long_val(slot)));
}

/* --- Several requests at once ------------------------------------------------------------------------------------ */

CAMLprim intnat sidecaml_ml_claim_run_native(value v, intnat most) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_claim_run(channel, (uint32_t)most);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_claim_run_byte(value v, value most) {
    return Val_long(sidecaml_ml_claim_run_native(v, Long_val(most)));
}

CAMLprim intnat sidecaml_ml_submit_run_native(value v, intnat count, intnat deadline_ns) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_submit_run(channel, (uint32_t)count, (uint64_t)deadline_ns);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_submit_run_byte(value v, value count, value deadline_ns) {
    return Val_long(sidecaml_ml_submit_run_native(v, Long_val(count), Long_val(deadline_ns)));
}

CAMLprim intnat sidecaml_ml_ended_native(value v, intnat slot, intnat most) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_ended(channel, (uint32_t)slot, (uint32_t)most);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_ended_byte(value v, value slot, value most) {
    return Val_long(sidecaml_ml_ended_native(v, Long_val(slot), Long_val(most)));
}

CAMLprim intnat sidecaml_ml_answered_native(value v, intnat slot, intnat most) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_answered(channel, (uint32_t)slot, (uint32_t)most);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_answered_byte(value v, value slot, value most) {
    return Val_long(sidecaml_ml_answered_native(v, Long_val(slot), Long_val(most)));
}

CAMLprim intnat sidecaml_ml_release_run_native(value v, intnat slot, intnat count) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_release_run(channel, (uint32_t)slot, (uint32_t)count);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_release_run_byte(value v, value slot, value count) {
    return Val_long(sidecaml_ml_release_run_native(v, Long_val(slot), Long_val(count)));
}

CAMLprim intnat sidecaml_ml_spin_any_native(value v, intnat spin_ns) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return result;
    result = sidecaml_channel_spin_any(channel, (uint64_t)spin_ns);
    leave(handle);
    return result;
}

CAMLprim value sidecaml_ml_spin_any_byte(value v, value spin_ns) {
    return Val_long(sidecaml_ml_spin_any_native(v, Long_val(spin_ns)));
}

/* As sidecaml_ml_wait_native, and as sidecaml_ml_wait_holding_native. */
static intnat wait_on_channel(value v, bool hold, int (*wait)(sidecaml_channel *channel, uint64_t deadline_ns),
                              intnat deadline_ns) {
    CAMLparam1(v);
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    if (!hold) caml_enter_blocking_section();
    int result = enter(handle, &channel);
    if (result == 0) {
        result = wait(channel, (uint64_t)deadline_ns);
        leave(handle);
    }
    if (!hold) caml_leave_blocking_section();
    if (hold && result == -SIDECAML_E_AGAIN) caml_process_pending_actions();
    CAMLreturnT(intnat, result);
}

CAMLprim intnat sidecaml_ml_wait_any_native(value v, value hold, intnat deadline_ns) {
    return wait_on_channel(v, Bool_val(hold), sidecaml_channel_wait_any, deadline_ns);
}

CAMLprim value sidecaml_ml_wait_any_byte(value v, value hold, value deadline_ns) {
    return Val_long(sidecaml_ml_wait_any_native(v, hold, Long_val(deadline_ns)));
}

CAMLprim intnat sidecaml_ml_claim_wait_native(value v, value hold, intnat deadline_ns) {
    return wait_on_channel(v, Bool_val(hold), sidecaml_channel_claim_wait, deadline_ns);
}

CAMLprim value sidecaml_ml_claim_wait_byte(value v, value hold, value deadline_ns) {
    return Val_long(sidecaml_ml_claim_wait_native(v, hold, Long_val(deadline_ns)));
}

CAMLprim intnat sidecaml_ml_wait_end_native(value v, value hold, intnat slot, intnat deadline_ns) {
    CAMLparam1(v);
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    if (!Bool_val(hold)) caml_enter_blocking_section();
    int result = enter(handle, &channel);
    if (result == 0) {
        result = sidecaml_channel_wait_end(channel, (uint32_t)slot, (uint64_t)deadline_ns);
        leave(handle);
    }
    if (!Bool_val(hold)) caml_leave_blocking_section();
    if (Bool_val(hold) && result == -SIDECAML_E_AGAIN) caml_process_pending_actions();
    CAMLreturnT(intnat, result);
}

CAMLprim value sidecaml_ml_wait_end_byte(value v, value hold, value slot, value deadline_ns) {
    return Val_long(sidecaml_ml_wait_end_native(v, hold, Long_val(slot), Long_val(deadline_ns)));
}

/* --- Dims, texts, times ------------------------------------------------------------------------------------------ */

/* (slot, tensor, dims) of an input: 0 or a negative code. */
CAMLprim value sidecaml_ml_set_dims(value v, value v_slot, value v_tensor, value v_dims) { /* noalloc */
    uint64_t dims[SIDECAML_MAX_RANK];
    struct handle *handle = handle_of(v);
    uintnat rank = Wosize_val(v_dims);
    if (rank > SIDECAML_MAX_RANK) return Val_long(-SIDECAML_E_INVALID);
    for (uintnat i = 0; i < rank; i++)
        dims[i] = (uint64_t)Long_val(Field(v_dims, i));
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return Val_long(result);
    result = sidecaml_channel_set_dims(channel, (uint32_t)Long_val(v_slot), (uint32_t)Long_val(v_tensor), dims,
                                       (uint32_t)rank);
    leave(handle);
    return Val_long(result);
}

/* Writes a tensor's dims into `v_dims`, which has its rank: the rank or a negative code. */
CAMLprim value sidecaml_ml_get_dims(value v, value v_slot, value v_tensor, value v_dims) { /* noalloc */
    uint64_t dims[SIDECAML_MAX_RANK];
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int rank = enter(handle, &channel);
    if (rank < 0) return Val_long(rank);
    rank = sidecaml_channel_get_dims(channel, (uint32_t)Long_val(v_slot), (uint32_t)Long_val(v_tensor), dims);
    leave(handle);
    if (rank >= 0 && (uintnat)rank != Wosize_val(v_dims)) return Val_long(-SIDECAML_E_INVALID);
    for (int i = 0; i < rank; i++)
        Field(v_dims, i) = Val_long(dims[i]); /* integers: no write barrier */
    return Val_long(rank);
}

/* Writes what a tensor's dims would have been into `v_dims`, which has its rank: the rank or a negative code. */
CAMLprim value sidecaml_ml_needed(value v, value v_slot, value v_tensor, value v_dims) { /* noalloc */
    uint64_t dims[SIDECAML_MAX_RANK];
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int rank = enter(handle, &channel);
    if (rank < 0) return Val_long(rank);
    rank = sidecaml_channel_needed(channel, (uint32_t)Long_val(v_slot), (uint32_t)Long_val(v_tensor), dims);
    leave(handle);
    if (rank >= 0 && (uintnat)rank != Wosize_val(v_dims)) return Val_long(-SIDECAML_E_INVALID);
    for (int i = 0; i < rank; i++)
        Field(v_dims, i) = Val_long(dims[i]); /* integers: no write barrier */
    return Val_long(rank);
}

/* The bytes of text that one output needs, 0 for none; or a negative code. */
CAMLprim value sidecaml_ml_text_needed(value v, value v_slot) { /* noalloc */
    uint64_t bytes = 0;
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return Val_long(result);
    result = sidecaml_channel_text_needed(channel, (uint32_t)Long_val(v_slot), &bytes);
    leave(handle);
    return Val_long(result < 0 ? (uint64_t)(int64_t)result : bytes);
}

/* The text of a failed slot; "" when there is none. */
CAMLprim value sidecaml_ml_message(value v, value v_slot) {
    char text[SIDECAML_MESSAGE_BYTES + 1] = "";
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    if (enter(handle, &channel) == 0) {
        sidecaml_channel_message(channel, (uint32_t)Long_val(v_slot), text, sizeof text);
        leave(handle);
    }
    return caml_copy_string(text);
}

/* Why the channel is gone: (code, text), or code 0 when it is not, as far as is known. */
CAMLprim value sidecaml_ml_gone(value v) {
    CAMLparam1(v);
    struct sidecaml_failure why = {0};
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    if (enter(handle, &channel) == 0) {
        if (sidecaml_channel_gone(channel)) sidecaml_control_gone(channel, &why);
        leave(handle);
    }
    CAMLreturn(sidecaml_ml_failure(&why));
}

CAMLprim value sidecaml_ml_set_stamps(value v, value v_all) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return Val_long(result);
    sidecaml_channel_set_stamps(channel, Bool_val(v_all));
    leave(handle);
    return Val_long(0);
}

CAMLprim value sidecaml_ml_reset(value v) { /* noalloc */
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return Val_long(result);
    sidecaml_channel_reset(channel);
    leave(handle);
    return Val_long(0);
}

/* Writes submitted, seen, started, finished into an array of four. */
CAMLprim value sidecaml_ml_stamps(value v, value v_slot, value v_stamps) { /* noalloc */
    struct sidecaml_stamps stamps;
    struct handle *handle = handle_of(v);
    sidecaml_channel *channel;
    int result = enter(handle, &channel);
    if (result < 0) return Val_long(result);
    result = sidecaml_channel_stamps(channel, (uint32_t)Long_val(v_slot), &stamps);
    leave(handle);
    if (result < 0) return Val_long(result);
    Field(v_stamps, 0) = Val_long(stamps.submitted_ns);
    Field(v_stamps, 1) = Val_long(stamps.seen_ns);
    Field(v_stamps, 2) = Val_long(stamps.started_ns);
    Field(v_stamps, 3) = Val_long(stamps.finished_ns);
    return Val_long(0);
}

CAMLprim intnat sidecaml_ml_now_native(value unit) { /* noalloc */
    (void)unit;
    return (intnat)sidecaml_now_ns();
}

CAMLprim value sidecaml_ml_now_byte(value unit) {
    return Val_long(sidecaml_ml_now_native(unit));
}
