/* Tensors of backends that run models in this process: their memory, and what a request's dimensions mean. */
#define CAML_NAME_SPACE
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <caml/alloc.h>
#include <caml/bigarray.h>
#include <caml/fail.h>
#include <caml/memory.h>
#include <caml/mlvalues.h>
#include <caml/signals.h>

#include "sidecaml/model.h"
#include "text.h"

/* --- Memory ------------------------------------------------------------------------------------------------------ */

/* What takes longer than a thread switch is done with the runtime lock released. */
#define LONG_BYTES (256 * 1024)

/* More than the machine has would be granted, and end the process at some later write. */
CAMLprim value sidecaml_ml_machine_has(value v_bytes) { /* noalloc */
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return Val_bool(pages <= 0 || page <= 0 || Long_val(v_bytes) / page < pages);
}

/* Bytes from the Bigarray's start to the first place aligned as in a segment: to a page for what fills one, otherwise
 * as tensors are. Results depend on alignment. */
CAMLprim value sidecaml_ml_misaligned(value v_array, value v_bytes) { /* noalloc */
    uintptr_t align = Long_val(v_bytes) >= SIDECAML_PAGE_BYTES ? SIDECAML_PAGE_BYTES : SIDECAML_TENSOR_ALIGN;
    return Val_long((align - (uintptr_t)Caml_ba_data_val(v_array) % align) % align);
}

/* The two below let go of the runtime lock around their work on large memory. */
static value with_memory(value v_array, void (*work)(void *start, size_t bytes)) {
    CAMLparam1(v_array);
    void *start = Caml_ba_data_val(v_array);
    size_t bytes = caml_ba_byte_size(Caml_ba_array_val(v_array));
    if (bytes >= LONG_BYTES) caml_enter_blocking_section_no_pending();
    work(start, bytes);
    if (bytes >= LONG_BYTES) caml_leave_blocking_section();
    CAMLreturn(Val_unit);
}

static void make_zeros(void *start, size_t bytes) {
    memset(start, 0, bytes);
}

/* Whole pages go back to the system, which gives zeros at the next access; the rest is cleared by hand. */
static void give_back(void *start, size_t bytes) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)start + page - 1) / page * page, last = ((uintptr_t)start + bytes) / page * page;
    if (first >= last || madvise((void *)first, last - first, MADV_DONTNEED) != 0) {
        make_zeros(start, bytes);
        return;
    }
    make_zeros(start, first - (uintptr_t)start);
    make_zeros((void *)last, (uintptr_t)start + bytes - last);
}

CAMLprim value sidecaml_ml_make_zeros(value v_array) {
    return with_memory(v_array, make_zeros);
}

CAMLprim value sidecaml_ml_give_back(value v_array) {
    return with_memory(v_array, give_back);
}

/* --- Dimensions of a request ---------------------------------------------------------------------------------------
 */

static void free_signature(struct sidecaml_session_tensor *tensors, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t axis = 0; axis < tensors[i].rank; axis++)
            caml_stat_free(tensors[i].dim_names[axis]);
        caml_stat_free(tensors[i].dim_names);
        caml_stat_free(tensors[i].dims);
        caml_stat_free(tensors[i].name);
    }
    caml_stat_free(tensors);
}

/* Of (name, dims with -1 for dynamic ones, their names or ""). */
static void read_tensor(value v, struct sidecaml_session_tensor *out) {
    value dims = Field(v, 1), names = Field(v, 2);
    out->rank = (uint32_t)Wosize_val(dims);
    out->name = caml_stat_strdup(String_val(Field(v, 0)));
    out->dims = caml_stat_alloc((out->rank + 1) * sizeof out->dims[0]);
    out->dim_names = caml_stat_alloc((out->rank + 1) * sizeof out->dim_names[0]);
    for (uint32_t axis = 0; axis < out->rank; axis++) {
        out->dims[axis] = Long_val(Field(dims, axis));
        out->dim_names[axis] = caml_stat_strdup(String_val(Field(names, axis)));
    }
}

static struct sidecaml_session_tensor *read_signature(value v, uint32_t count) {
    struct sidecaml_session_tensor *tensors = caml_stat_calloc_noexc(count + 1, sizeof *tensors);
    if (!tensors) caml_raise_out_of_memory();
    for (uint32_t i = 0; i < count; i++)
        read_tensor(Field(v, i), &tensors[i]);
    return tensors;
}

/* (inputs, signature, dims of every tensor, whether each is known before the run): None with dims and known written, or
 * Some sentence that says what is wrong with the dims of the dynamic inputs. Ranks are those of the signature. */
CAMLprim value sidecaml_ml_request_dims(value v_inputs, value v_signature, value v_dims, value v_known) {
    CAMLparam4(v_inputs, v_signature, v_dims, v_known);
    CAMLlocal2(some, sentence);
    uint32_t count = (uint32_t)Wosize_val(v_signature);
    struct sidecaml_failure why = {0};
    uint64_t(*dims)[SIDECAML_MAX_RANK] = caml_stat_alloc((count + 1) * sizeof dims[0]);
    bool *known = caml_stat_alloc(count + 1);
    struct sidecaml_session_tensor *tensors = read_signature(v_signature, count);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t axis = 0; axis < tensors[i].rank; axis++)
            dims[i][axis] = (uint64_t)Long_val(Field(Field(v_dims, i), axis));
    int status = sidecaml_model_request_dims(tensors, (uint32_t)Long_val(v_inputs), count, dims, known, &why);
    for (uint32_t i = 0; status == 0 && i < count; i++) {
        Store_field(v_known, i, Val_bool(known[i]));
        for (uint32_t axis = 0; axis < tensors[i].rank; axis++)
            Field(Field(v_dims, i), axis) = Val_long(dims[i][axis]); /* integers: no write barrier */
    }
    free_signature(tensors, count);
    caml_stat_free(known);
    caml_stat_free(dims);
    if (status == 0) CAMLreturn(Val_int(0)); /* None */
    sentence = caml_copy_string(why.text);
    some = caml_alloc_small(1, 0);
    Field(some, 0) = sentence;
    CAMLreturn(some);
}

/* --- Names in sentences ------------------------------------------------------------------------------------------- */

CAMLprim value sidecaml_ml_quoted(value v_name) {
    char quoted[SIDECAML_FAILURE_BYTES];
    struct text text = text_in(quoted, sizeof quoted);
    text_add_quoted(&text, String_val(v_name), caml_string_length(v_name));
    return caml_copy_string(quoted);
}

/* --- Text of strings ------------------------------------------------------------------------------------------------
 */

/* (memory, from, bytes, at, how many): the caller has checked both ends. */
CAMLprim value sidecaml_ml_text_to_bytes(value v_array, value v_from, value v_bytes, value v_at,
                                         value v_count) { /* noalloc */
    const char *from = (const char *)Caml_ba_data_val(v_array) + Long_val(v_from);
    memcpy(Bytes_val(v_bytes) + Long_val(v_at), from, (size_t)Long_val(v_count));
    return Val_unit;
}

/* (string, memory, at): the caller has checked that it fits. */
CAMLprim value sidecaml_ml_text_of_string(value v_string, value v_array, value v_at) { /* noalloc */
    memcpy((char *)Caml_ba_data_val(v_array) + Long_val(v_at), String_val(v_string), caml_string_length(v_string));
    return Val_unit;
}
