/* What the files of this folder share: ONNX Runtime's table of functions and its failures. */
#ifndef SIDECAML_ORT_API_H
#define SIDECAML_ORT_API_H

#include <onnxruntime_c_api.h>

#include "sidecaml/ort.h"

/* Set by sidecaml_ort_open, for the rest of the process. */
extern const OrtApi *ort_api;
extern OrtEnv *ort_env;

/* 0 for a NULL status; else takes it over, and fails with ENGINE and a sentence, */
int ort_check(OrtStatus *status, struct sidecaml_failure *why);
/* with MODEL_FAILED and a sentence about the model's file. */
int ort_check_model(OrtStatus *status, const char *path, struct sidecaml_failure *why);

/* sidecaml's number of an element type, 0 when it has none; and the reverse, UNDEFINED. */
uint32_t dtype_of_onnx(ONNXTensorElementDataType type);
ONNXTensorElementDataType onnx_of_dtype(uint32_t dtype);

struct sidecaml_session {
    OrtSession *session;
    uint32_t inputs;
    uint32_t count;
    struct sidecaml_session_tensor *tensors;
};

/* "tensor(float)", "seq(map(int64,tensor(float)))" into `text`, cut where it does not fit. */
OrtStatus *ort_type_text(const OrtTypeInfo *type, char *text, size_t room);

#endif
