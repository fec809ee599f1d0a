/* The helper for OCaml. Whoever closed a helper does not use it again. Stubs marked noalloc neither allocate nor raise.
 */
#define CAML_NAME_SPACE
#include <caml/alloc.h>
#include <caml/bigarray.h>
#include <caml/fail.h>
#include <caml/memory.h>
#include <caml/mlvalues.h>

#include "helper.h"

static struct helper *helper_of(value v) {
    return *(struct helper **)Op_val(v);
}

static void check(int status, const struct sidecaml_failure *why) {
    if (status < 0) caml_failwith(why->text);
}

/* Failure with a sentence. */
CAMLprim value bench_helper_open(value v_model) {
    CAMLparam1(v_model);
    struct helper *helper;
    struct sidecaml_failure why;
    check(helper_open(String_val(v_model), &helper, &why), &why);
    value v = caml_alloc(1, Abstract_tag);
    *(struct helper **)Op_val(v) = helper;
    CAMLreturn(v);
}

/* (is_output, name, element type, dims) */
static value tensor_of(const struct sidecaml_session_tensor *tensor, bool output) {
    CAMLparam0();
    CAMLlocal2(result, item);
    result = caml_alloc_tuple(4);
    Store_field(result, 0, Val_bool(output));
    item = caml_copy_string(tensor->name);
    Store_field(result, 1, item);
    item = caml_copy_string(sidecaml_dtype_name(tensor->dtype));
    Store_field(result, 2, item);
    item = caml_alloc(tensor->rank, 0);
    Store_field(result, 3, item);
    for (uint32_t i = 0; i < tensor->rank; i++)
        Store_field(item, i, Val_long(tensor->dims[i]));
    CAMLreturn(result);
}

CAMLprim value bench_helper_tensors(value v) {
    CAMLparam1(v);
    CAMLlocal2(result, item);
    uint32_t inputs, count;
    const struct sidecaml_session_tensor *tensors = helper_tensors(helper_of(v), &inputs, &count);
    result = caml_alloc(count, 0);
    for (uint32_t i = 0; i < count; i++) {
        item = tensor_of(&tensors[i], i >= inputs);
        Store_field(result, i, item);
    }
    CAMLreturn(result);
}

CAMLprim value bench_helper_bind(value v, value v_tensor, value v_memory) {
    struct sidecaml_failure why;
    check(helper_bind(helper_of(v), (uint32_t)Long_val(v_tensor), Caml_ba_data_val(v_memory), &why), &why);
    return Val_unit;
}

CAMLprim value bench_helper_start(value v, value v_core) {
    struct sidecaml_failure why;
    check(helper_start(helper_of(v), (int)Long_val(v_core), &why), &why);
    return Val_unit;
}

CAMLprim value bench_helper_wake(value v) {
    helper_wake(helper_of(v));
    return Val_unit;
}

CAMLprim value bench_helper_rest(value v) {
    helper_rest(helper_of(v));
    return Val_unit;
}

CAMLprim intnat bench_helper_run_native(value v) { /* noalloc */
    return helper_run(helper_of(v));
}

CAMLprim value bench_helper_run_byte(value v) {
    return Val_long(bench_helper_run_native(v));
}

CAMLprim value bench_helper_problem(value v) {
    return caml_copy_string(helper_problem(helper_of(v)));
}

CAMLprim value bench_helper_close(value v) {
    helper_close(helper_of(v));
    return Val_unit;
}
