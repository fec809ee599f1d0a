/* What the tests of c_shim/ort share. The library is the wheel's, of $VIRTUAL_ENV (tests/run); models and libraries
 * that are none are made by the Makefile. */
#ifndef SIDECAML_TESTS_ORT_H
#define SIDECAML_TESTS_ORT_H

#include "sidecaml/ort.h"

/* Paths of ort_models.py's "NAME.onnx", and of fake_onnxruntime.c's "libNAME.so", good until the next call. */
const char *model_path(const char *name);
const char *fake_path(const char *name);

/* Of the thread's last call that failed. */
extern _Thread_local struct sidecaml_failure why;

/* A model that must be fine. */
sidecaml_session *load(const char *name);

/* Binds both ways, in memory of the caller's. */
void bind_floats(sidecaml_binding *binding, const char *name, bool output, const uint64_t *dims, uint32_t rank,
                 void *address);

#endif
