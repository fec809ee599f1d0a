/* A Bigarray's bytes, whatever its elements are. */
#include <string.h>

#include <caml/alloc.h>
#include <caml/bigarray.h>
#include <caml/fail.h>
#include <caml/memory.h>
#include <caml/mlvalues.h>

value conformance_raw_fill(value array, value bytes) {
    struct caml_ba_array *held = Caml_ba_array_val(array);
    uintnat size = caml_ba_byte_size(held);
    if (size != caml_string_length(bytes)) caml_invalid_argument("Raw.fill: another number of bytes");
    if (size) memcpy(held->data, String_val(bytes), size);
    return Val_unit;
}

value conformance_raw_contents(value array) {
    CAMLparam1(array);
    uintnat size = caml_ba_byte_size(Caml_ba_array_val(array));
    value bytes = caml_alloc_string(size);
    if (size) memcpy(Bytes_val(bytes), Caml_ba_array_val(array)->data, size);
    CAMLreturn(bytes);
}
