/* The OCaml binding of the in-process path: one stub per step, nothing decided here. ocaml_lib/ffi/core.ml declares
 * them.
 *
 * Memory: sessions and bindings are custom blocks that point outside the OCaml heap. A binding holds its session. The
 * Bigarrays that it is bound to are kept alive by the OCaml record that holds them both.
 *
 * Results are 0 or the negative of an error code; the sentence is kept in the binding until its next failure.
 */
#define CAML_NAME_SPACE
#include <stdlib.h>
#include <string.h>

#include <caml/alloc.h>
#include <caml/bigarray.h>
#include <caml/custom.h>
#include <caml/fail.h>
#include <caml/memory.h>
#include <caml/mlvalues.h>
#include <caml/signals.h>

#include "sidecaml/shared_session.h"
#include "values.h"

struct bound {
    sidecaml_binding *binding;
    sidecaml_shared_session *shared;
    struct sidecaml_failure why;
    /* Of the last run, as `outputs` found them. */
    const struct sidecaml_output *outputs;
    uint32_t output_count;
};

/* --- Handles ----------------------------------------------------------------------------------------------------- */

static sidecaml_shared_session **session_of(value v) {
    return Data_custom_val(v);
}

static struct bound *bound_of(value v) {
    return *(struct bound **)Data_custom_val(v);
}

static void release_session(value v) {
    sidecaml_shared_session_release(*session_of(v));
    *session_of(v) = NULL;
}

static void release_binding(value v) {
    struct bound *bound = bound_of(v);
    if (!bound) return;
    *(struct bound **)Data_custom_val(v) = NULL;
    sidecaml_binding_destroy(bound->binding);
    sidecaml_shared_session_release(bound->shared);
    free(bound);
}

static struct custom_operations session_operations = {
    .identifier = "sidecaml.session",
    .finalize = release_session,
    .compare = custom_compare_default,
    .hash = custom_hash_default,
    .serialize = custom_serialize_default,
    .deserialize = custom_deserialize_default,
    .compare_ext = custom_compare_ext_default,
    .fixed_length = custom_fixed_length_default,
};

static struct custom_operations binding_operations = {
    .identifier = "sidecaml.binding",
    .finalize = release_binding,
    .compare = custom_compare_default,
    .hash = custom_hash_default,
    .serialize = custom_serialize_default,
    .deserialize = custom_deserialize_default,
    .compare_ext = custom_compare_ext_default,
    .fixed_length = custom_fixed_length_default,
};

/* --- The library -------------------------------------------------------------------------------------------------- */

/* (path or "") -> (version * path, int * string) result */
CAMLprim value sidecaml_ffi_open_library(value v_path) {
    CAMLparam1(v_path);
    CAMLlocal3(pair, version, path);
    struct sidecaml_failure why;
    char *wanted = caml_stat_strdup(String_val(v_path));
    caml_enter_blocking_section_no_pending();
    int status = sidecaml_ort_open(wanted, &why);
    caml_leave_blocking_section();
    caml_stat_free(wanted);
    if (status < 0) CAMLreturn(sidecaml_ml_error(&why));
    version = caml_copy_string(sidecaml_ort_version());
    path = caml_copy_string(sidecaml_ort_path());
    pair = caml_alloc_small(2, 0);
    Field(pair, 0) = version;
    Field(pair, 1) = path;
    CAMLreturn(sidecaml_ml_ok(pair));
}

/* --- Sessions ------------------------------------------------------------------------------------------------------
 */

/* (path, threads) -> (session, int * string) result */
CAMLprim value sidecaml_ffi_open(value v_path, value v_threads) {
    CAMLparam1(v_path);
    CAMLlocal1(v_session);
    struct sidecaml_failure why;
    sidecaml_shared_session *shared = NULL;
    char *path = caml_stat_strdup(String_val(v_path));
    intnat wanted = Long_val(v_threads);
    uint32_t threads = wanted < 0 || wanted > UINT32_MAX ? UINT32_MAX : (uint32_t)wanted; /* none that there is */
    v_session = caml_alloc_custom(&session_operations, sizeof shared, 0, 1);
    *session_of(v_session) = NULL;
    caml_enter_blocking_section_no_pending();
    int status = sidecaml_shared_session_acquire(path, threads, &shared, &why);
    caml_leave_blocking_section();
    caml_stat_free(path);
    if (status < 0) CAMLreturn(sidecaml_ml_error(&why));
    *session_of(v_session) = shared;
    CAMLreturn(sidecaml_ml_ok(v_session));
}

CAMLprim value sidecaml_ffi_close(value v_session) {
    CAMLparam1(v_session);
    sidecaml_shared_session *shared = *session_of(v_session);
    *session_of(v_session) = NULL;
    /* Unloading a large model takes milliseconds. */
    caml_enter_blocking_section_no_pending();
    sidecaml_shared_session_release(shared);
    caml_leave_blocking_section();
    CAMLreturn(Val_unit);
}

CAMLprim value sidecaml_ffi_tensors(value v_session) {
    CAMLparam1(v_session);
    CAMLlocal2(result, item);
    uint32_t inputs, count;
    const struct sidecaml_session_tensor *tensors =
        sidecaml_session_tensors(sidecaml_shared_session_get(*session_of(v_session)), &inputs, &count);
    result = caml_alloc(count, 0);
    for (uint32_t i = 0; i < count; i++) {
        item = sidecaml_ml_tensor_info(tensors[i].name, sidecaml_dtype_name(tensors[i].dtype), i >= inputs,
                                       tensors[i].rank, tensors[i].dims, tensors[i].dim_names);
        Store_field(result, i, item);
    }
    CAMLreturn(result);
}

/* --- Bindings ------------------------------------------------------------------------------------------------------
 */

/* session -> (binding, int * string) result */
CAMLprim value sidecaml_ffi_bind_nothing(value v_session) {
    CAMLparam1(v_session);
    CAMLlocal1(v_binding);
    struct sidecaml_failure why;
    struct bound *bound = calloc(1, sizeof *bound);
    if (!bound) caml_raise_out_of_memory();
    v_binding = caml_alloc_custom(&binding_operations, sizeof bound, 0, 1);
    *(struct bound **)Data_custom_val(v_binding) = bound;
    bound->shared = sidecaml_shared_session_retain(*session_of(v_session));
    if (sidecaml_binding_create(sidecaml_shared_session_get(bound->shared), &bound->binding, &why) < 0)
        CAMLreturn(sidecaml_ml_error(&why));
    CAMLreturn(sidecaml_ml_ok(v_binding));
}

CAMLprim value sidecaml_ffi_unbind(value v_binding) {
    release_binding(v_binding);
    return Val_unit;
}

static const struct sidecaml_session_tensor *tensor_at(const struct bound *bound, value v_index, bool *output) {
    uint32_t inputs, count;
    const struct sidecaml_session_tensor *tensors =
        sidecaml_session_tensors(sidecaml_shared_session_get(bound->shared), &inputs, &count);
    *output = Long_val(v_index) >= (intnat)inputs;
    return &tensors[Long_val(v_index)];
}

/* (binding, tensor, dims, its memory) */
CAMLprim value sidecaml_ffi_bind(value v_binding, value v_index, value v_dims, value v_array) {
    struct bound *bound = bound_of(v_binding);
    uint64_t dims[SIDECAML_MAX_RANK];
    bool output;
    const struct sidecaml_session_tensor *tensor = tensor_at(bound, v_index, &output);
    for (uint32_t i = 0; i < tensor->rank; i++)
        dims[i] = (uint64_t)Long_val(Field(v_dims, i));
    return Val_long((output ? sidecaml_binding_output : sidecaml_binding_input)(
        bound->binding, tensor->name, tensor->dtype, dims, tensor->rank, Caml_ba_data_val(v_array), &bound->why));
}

/* A slot's memory for at most so many strings, with its room for text. */
static struct sidecaml_strings_place place_of(value v_most, value v_array) {
    uint64_t most = (uint64_t)Long_val(v_most);
    return (struct sidecaml_strings_place){
        Caml_ba_data_val(v_array), most, caml_ba_byte_size(Caml_ba_array_val(v_array)) - (most + 1) * sizeof(uint64_t)};
}

/* (binding, tensor, dims, largest number of strings, its memory): reads the strings that are there now. */
CAMLprim value sidecaml_ffi_bind_strings(value v_binding, value v_index, value v_dims, value v_most, value v_array) {
    struct bound *bound = bound_of(v_binding);
    uint64_t dims[SIDECAML_MAX_RANK];
    bool output;
    const struct sidecaml_session_tensor *tensor = tensor_at(bound, v_index, &output);
    const struct sidecaml_strings_place place = place_of(v_most, v_array);
    for (uint32_t i = 0; i < tensor->rank; i++)
        dims[i] = (uint64_t)Long_val(Field(v_dims, i));
    return Val_long(
        sidecaml_binding_input_strings(bound->binding, tensor->name, dims, tensor->rank, &place, &bound->why));
}

/* (binding, output) */
CAMLprim value sidecaml_ffi_bind_anywhere(value v_binding, value v_index) {
    struct bound *bound = bound_of(v_binding);
    bool output;
    const struct sidecaml_session_tensor *tensor = tensor_at(bound, v_index, &output);
    return Val_long(sidecaml_binding_output_anywhere(bound->binding, tensor->name, &bound->why));
}

/* --- Running -------------------------------------------------------------------------------------------------------
 */

/* Keeps the runtime lock. */
CAMLprim intnat sidecaml_ffi_run_holding_native(value v_binding, intnat deadline_ns) { /* noalloc */
    struct bound *bound = bound_of(v_binding);
    return deadline_ns ? sidecaml_binding_run_until(bound->binding, (uint64_t)deadline_ns, &bound->why)
                       : sidecaml_binding_run(bound->binding, &bound->why);
}

CAMLprim value sidecaml_ffi_run_holding_byte(value v_binding, value v_deadline_ns) {
    return Val_long(sidecaml_ffi_run_holding_native(v_binding, Long_val(v_deadline_ns)));
}

/* Releases it. A signal's handler runs afterwards: a run cannot be left half-way. */
CAMLprim intnat sidecaml_ffi_run_releasing_native(value v_binding, intnat deadline_ns) {
    CAMLparam1(v_binding);
    struct bound *bound = bound_of(v_binding);
    caml_enter_blocking_section_no_pending();
    int status = deadline_ns ? sidecaml_binding_run_until(bound->binding, (uint64_t)deadline_ns, &bound->why)
                             : sidecaml_binding_run(bound->binding, &bound->why);
    caml_leave_blocking_section();
    CAMLreturnT(intnat, status);
}

CAMLprim value sidecaml_ffi_run_releasing_byte(value v_binding, value v_deadline_ns) {
    return Val_long(sidecaml_ffi_run_releasing_native(v_binding, Long_val(v_deadline_ns)));
}

CAMLprim value sidecaml_ffi_failure(value v_binding) {
    CAMLparam1(v_binding);
    CAMLreturn(sidecaml_ml_failure(&bound_of(v_binding)->why));
}

/* --- Where outputs went --------------------------------------------------------------------------------------------
 */

/* Looks; to be called before the functions below, after each run. */
CAMLprim value sidecaml_ffi_look(value v_binding) {
    struct bound *bound = bound_of(v_binding);
    bound->output_count = 0;
    return Val_long(sidecaml_binding_outputs(bound->binding, &bound->outputs, &bound->output_count, &bound->why));
}

/* (binding, number of the output, the memory it was bound to): whether it is there. */
CAMLprim value sidecaml_ffi_lies_at(value v_binding, value v_number, value v_array) { /* noalloc */
    const struct sidecaml_output *output = &bound_of(v_binding)->outputs[Long_val(v_number)];
    return Val_bool(output->address == Caml_ba_data_val(v_array) || output->bytes == 0);
}

/* (binding, number, tensor, largest dims): 0, or why the output cannot be handed out. */
CAMLprim value sidecaml_ffi_check_output(value v_binding, value v_number, value v_index, value v_max_dims) {
    struct bound *bound = bound_of(v_binding);
    const struct sidecaml_output *output = &bound->outputs[Long_val(v_number)];
    uint64_t max_dims[SIDECAML_MAX_RANK];
    bool is_output;
    const struct sidecaml_session_tensor *tensor = tensor_at(bound, v_index, &is_output);
    for (uint32_t i = 0; i < tensor->rank; i++)
        max_dims[i] = (uint64_t)Long_val(Field(v_max_dims, i));
    return Val_long(sidecaml_model_check_output(tensor, output->dims, output->rank, max_dims, &bound->why));
}

CAMLprim value sidecaml_ffi_output_dims(value v_binding, value v_number) {
    const struct sidecaml_output *output = &bound_of(v_binding)->outputs[Long_val(v_number)];
    /* Atom(0) for rank 0 is what caml_alloc gives. */
    value dims = caml_alloc(output->rank, 0);
    for (uint32_t i = 0; i < output->rank; i++)
        Field(dims, i) = Val_long(output->dims[i]);
    return dims;
}

/* (binding, number, memory with room for it) */
CAMLprim value sidecaml_ffi_copy_output(value v_binding, value v_number, value v_array) { /* noalloc */
    const struct sidecaml_output *output = &bound_of(v_binding)->outputs[Long_val(v_number)];
    if (output->bytes) memcpy(Caml_ba_data_val(v_array), output->address, output->bytes);
    return Val_unit;
}

/* (binding, number): bytes of an output's text. */
CAMLprim value sidecaml_ffi_text_bytes(value v_binding, value v_number) { /* noalloc */
    return Val_long(bound_of(v_binding)->outputs[Long_val(v_number)].bytes);
}

/* (binding, number, tensor, room for text): 0, or that it has no room. */
CAMLprim value sidecaml_ffi_check_text(value v_binding, value v_number, value v_index, value v_room) {
    struct bound *bound = bound_of(v_binding);
    bool is_output;
    const struct sidecaml_session_tensor *tensor = tensor_at(bound, v_index, &is_output);
    return Val_long(sidecaml_strings_check_room(tensor->name, bound->outputs[Long_val(v_number)].bytes,
                                                (uint64_t)Long_val(v_room), &bound->why));
}

/* (binding, number, tensor, largest number of strings, memory with room for it) */
CAMLprim value sidecaml_ffi_copy_strings(value v_binding, value v_number, value v_index, value v_most, value v_array) {
    struct bound *bound = bound_of(v_binding);
    bool is_output;
    const struct sidecaml_session_tensor *tensor = tensor_at(bound, v_index, &is_output);
    const struct sidecaml_strings_place place = place_of(v_most, v_array);
    return Val_long(
        sidecaml_binding_copy_strings(bound->binding, (uint32_t)Long_val(v_number), tensor->name, &place, &bound->why));
}
