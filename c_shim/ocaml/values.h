/* OCaml values that both bindings make: the daemon's client (stubs.c) and the in-process path (ffi.c). */
#ifndef SIDECAML_OCAML_VALUES_H
#define SIDECAML_OCAML_VALUES_H

#include <stdbool.h>
#include <stdint.h>

#include <caml/mlvalues.h>

#include "sidecaml/sidecaml.h"

/* Ok contents */
value sidecaml_ml_ok(value contents);
/* (code, text) */
value sidecaml_ml_failure(const struct sidecaml_failure *why);
/* Error (code, text) */
value sidecaml_ml_error(const struct sidecaml_failure *why);

/* (name, dtype's name, is_output, dims with -1 for dynamic ones, their names or "") */
value sidecaml_ml_tensor_info(const char *name, const char *dtype_name, bool output, uint32_t rank, const int64_t *dims,
                              char *const *dim_names);

#endif
