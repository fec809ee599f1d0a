/* The caller's C functions for OCaml. Stubs marked noalloc neither allocate nor raise. */
#define CAML_NAME_SPACE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <caml/alloc.h>
#include <caml/bigarray.h>
#include <caml/fail.h>
#include <caml/memory.h>
#include <caml/mlvalues.h>

#include "caller.h"
#include "sidecaml/abi.h"

#define LINE 64

/* --- The clock and the caller's memory --------------------------------------------------------------------------- */

CAMLprim intnat bench_now_native(value unit) { /* noalloc */
    (void)unit;
    return (intnat)caller_now_ns();
}

CAMLprim value bench_now_byte(value unit) {
    return Val_long(bench_now_native(unit));
}

CAMLprim value bench_touch(value memory) { /* noalloc */
    caller_touch(Caml_ba_data_val(memory), caml_ba_byte_size(Caml_ba_array_val(memory)));
    return Val_unit;
}

/* --- Tensors ----------------------------------------------------------------------------------------------------- */

/* Of the two that callers fill; 0 for any other. */
static uint32_t dtype_of(value tensor) {
    switch (Caml_ba_array_val(tensor)->flags & CAML_BA_KIND_MASK) {
    case CAML_BA_FLOAT32:
        return SIDECAML_FLOAT32;
    case CAML_BA_INT64:
        return SIDECAML_INT64;
    default:
        return 0;
    }
}

CAMLprim value bench_fillable(value tensor) { /* noalloc */
    return Val_bool(caller_fills(dtype_of(tensor)));
}

CAMLprim value bench_fill_native(value tensor, intnat seed) { /* noalloc */
    caller_fill(Caml_ba_data_val(tensor), dtype_of(tensor), caml_ba_num_elts(Caml_ba_array_val(tensor)),
                (uint64_t)seed);
    return Val_unit;
}

CAMLprim value bench_fill_byte(value tensor, value seed) {
    return bench_fill_native(tensor, Long_val(seed));
}

CAMLprim value bench_read(value tensor) { /* noalloc */
    caller_read(Caml_ba_data_val(tensor), caml_ba_byte_size(Caml_ba_array_val(tensor)));
    return Val_unit;
}

CAMLprim value bench_address(value tensor) { /* noalloc */
    return Val_long((intnat)Caml_ba_data_val(tensor));
}

CAMLprim value bench_contents(value tensor) {
    /* The data lies outside the heap: allocating does not move it. */
    const char *data = Caml_ba_data_val(tensor);
    return caml_alloc_initialized_string(caml_ba_byte_size(Caml_ba_array_val(tensor)), data);
}

/* --- Aligned memory ---------------------------------------------------------------------------------------------- */

/* NULL when there is not so much. */
static void *zeros(uintnat bytes) {
    uintnat page = (uintnat)sysconf(_SC_PAGESIZE);
    void *data;
    if (posix_memalign(&data, bytes < page ? LINE : page, bytes ? bytes : LINE) != 0) return NULL;
    return memset(data, 0, bytes);
}

/* (kind, bytes of an element, dims) -> Bigarray; Out_of_memory. The Bigarray frees the memory, as it would its own. */
CAMLprim value bench_aligned(value kind, value element, value v_dims) {
    intnat dims[CAML_BA_MAX_NUM_DIMS];
    uintnat rank = Wosize_val(v_dims), bytes = (uintnat)Long_val(element);
    if (rank > CAML_BA_MAX_NUM_DIMS) caml_invalid_argument("a Bigarray has at most 16 dimensions");
    for (uintnat i = 0; i < rank; i++) {
        dims[i] = Long_val(Field(v_dims, i));
        if (dims[i] < 0) caml_invalid_argument("a Bigarray has no negative dimensions");
        if (__builtin_mul_overflow(bytes, (uintnat)dims[i], &bytes)) caml_raise_out_of_memory();
    }
    void *data = zeros(bytes);
    if (!data) caml_raise_out_of_memory();
    return caml_ba_alloc((int)Caml_ba_kind_val(kind) | CAML_BA_C_LAYOUT | CAML_BA_MANAGED, (int)rank, data, dims);
}
