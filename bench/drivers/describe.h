/* A model's tensors, for a process that does not load it: with ONNX Runtime in it, it could not fork any more. */
#ifndef SIDECAML_BENCH_DESCRIBE_H
#define SIDECAML_BENCH_DESCRIBE_H

#include "model.h"

/* Asks a process that loads the model and ends. Errors of model_load. */
int describe(const char *path, struct tensors *out, struct sidecaml_failure *why);

#endif
