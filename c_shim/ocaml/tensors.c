/* Tensors of backends that run models in this process: their memory, and what a request's dimensions mean. */
#define CAML_NAME_SPACE
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <caml/alloc.h>
#include <caml/bigarray.h>
#include <caml/fail.h>
#include <caml/memory.h>
#include <caml/mlvalues.h>

#include "sidecaml/model.h"

/* As a segment has it: pages for what fills one, otherwise a tensor's alignment. Results depend on alignment. */
static size_t alignment_of(size_t bytes) {
    return bytes >= SIDECAML_PAGE_BYTES ? SIDECAML_PAGE_BYTES : SIDECAML_TENSOR_ALIGN;
}

/* More than the machine has would be granted, and end the process at some later write. */
static int machine_has(size_t bytes) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages <= 0 || page <= 0 || bytes / (size_t)page < (size_t)pages;
}

/* A Bigarray of one dimension that owns zeroed memory: (kind, elements, bytes). Out_of_memory when there is not so
 * much. The kind is a constant constructor whose number is the one that C uses, as Bigarray.create itself relies on. */
CAMLprim value sidecaml_ml_allocate(value v_kind, value v_elements, value v_bytes) {
    intnat elements = Long_val(v_elements), bytes = Long_val(v_bytes);
    void *memory = NULL;
    if (bytes == 0) bytes = SIDECAML_TENSOR_ALIGN;
    if (!machine_has((size_t)bytes) || posix_memalign(&memory, alignment_of((size_t)bytes), (size_t)bytes) != 0)
        caml_raise_out_of_memory();
    memset(memory, 0, (size_t)bytes);
    return caml_ba_alloc(Caml_ba_kind_val(v_kind) | CAML_BA_C_LAYOUT | CAML_BA_MANAGED, 1, memory, &elements);
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

/* (inputs, signature, dims of every tensor, whether each is known before the run): "" with dims and known written, or
 * the sentence that says what is wrong with the dims of the dynamic inputs. Ranks are those of the signature. */
CAMLprim value sidecaml_ml_request_dims(value v_inputs, value v_signature, value v_dims, value v_known) {
    CAMLparam4(v_inputs, v_signature, v_dims, v_known);
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
    CAMLreturn(caml_copy_string(status < 0 ? why.text : ""));
}
