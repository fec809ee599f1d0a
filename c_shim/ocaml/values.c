#define CAML_NAME_SPACE
#include "values.h"

#include <caml/alloc.h>
#include <caml/memory.h>

value sidecaml_ml_ok(value contents) {
    CAMLparam1(contents);
    CAMLlocal1(result);
    result = caml_alloc_small(1, 0);
    Field(result, 0) = contents;
    CAMLreturn(result);
}

value sidecaml_ml_failure(const struct sidecaml_failure *why) {
    CAMLparam0();
    CAMLlocal2(pair, text);
    text = caml_copy_string(why->text);
    pair = caml_alloc_small(2, 0);
    Field(pair, 0) = Val_int(why->code);
    Field(pair, 1) = text;
    CAMLreturn(pair);
}

value sidecaml_ml_error(const struct sidecaml_failure *why) {
    CAMLparam0();
    CAMLlocal2(result, pair);
    pair = sidecaml_ml_failure(why);
    result = caml_alloc_small(1, 1);
    Field(result, 0) = pair;
    CAMLreturn(result);
}

value sidecaml_ml_tensor_info(const char *name, const char *dtype_name, bool output, uint32_t rank, const int64_t *dims,
                              char *const *dim_names) {
    CAMLparam0();
    CAMLlocal4(result, v_dims, v_names, item);
    result = caml_alloc_tuple(5);
    item = caml_copy_string(name);
    Store_field(result, 0, item);
    item = caml_copy_string(dtype_name);
    Store_field(result, 1, item);
    Store_field(result, 2, Val_bool(output));
    v_dims = caml_alloc(rank, 0);
    Store_field(result, 3, v_dims);
    v_names = caml_alloc(rank, 0);
    Store_field(result, 4, v_names);
    for (uint32_t i = 0; i < rank; i++) {
        Store_field(v_dims, i, Val_long(dims[i]));
        item = caml_copy_string(dim_names[i] ? dim_names[i] : "");
        Store_field(v_names, i, item);
    }
    CAMLreturn(result);
}
