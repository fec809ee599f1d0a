/* What sidecaml says about a model and about the dimensions of a request: judged here, once, for the daemon's lanes and
 * for the in-process path, so that one cause has one text. Needs neither ONNX Runtime nor its header (ort.h does).
 *
 * Conventions are those of sidecaml.h. Texts are valid UTF-8 without control characters whatever a model says, and end
 * at a whole character when they are cut.
 */
#ifndef SIDECAML_MODEL_H
#define SIDECAML_MODEL_H

#include "sidecaml/sidecaml.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ONNX Runtime's `length` bytes of text made one short line: no status code, no source file, no second line. Written to
 * `out` with its NUL, cut to `room` bytes (1 or more); returns its length, never 0 where there is room. */
size_t sidecaml_sentence(const char *text, size_t length, char *out, size_t room);

/* ENGINE with ONNX Runtime's text made a sentence, cut to what a slot's message holds (SIDECAML_MESSAGE_BYTES). */
int sidecaml_engine_failed(const char *text, size_t length, struct sidecaml_failure *why);

/* --- Loading ----------------------------------------------------------------------------------------------------- */

/* MODEL_FAILED for a path that cannot be a model at all: a directory, no regular file, an empty or unreadable one, or
 * (`length` is the path's, without the NUL that ends it) one that holds a NUL. */
int sidecaml_model_check_file(const char *path, size_t length, struct sidecaml_failure *why);

/* MODEL_FAILED with "PATH could not be loaded as an ONNX model: " and ONNX Runtime's text made a sentence. */
int sidecaml_model_not_loaded(const char *path, const char *text, size_t length, struct sidecaml_failure *why);

/* An input or output as the model declares it. */
struct sidecaml_session_tensor {
    char *name;
    char *type;     /* as ONNX Runtime writes it: "tensor(float)" */
    uint32_t dtype; /* 0 for a type that a channel cannot carry */
    uint32_t rank;
    int64_t *dims;    /* -1 for a dynamic one */
    char **dim_names; /* of a dynamic one; "" where the model gives none, and for a fixed one */
};

/* Frees what it points to; fields may be NULL. */
void sidecaml_session_tensor_clear(struct sidecaml_session_tensor *tensor);

/* The element type of a type as ONNX Runtime writes it; 0 for one that a channel cannot carry. */
uint32_t sidecaml_dtype_of_type(const char *type);

/* The largest dimension that a model may declare, or a channel be opened with: products of a few stay countable. */
#define SIDECAML_LARGEST_DIM ((int64_t)1 << 40)

/* UNSUPPORTED where a channel cannot carry the model: a name that is not UTF-8, too many tensors or dimensions, an
 * element type, a dimension beyond SIDECAML_LARGEST_DIM, or more than 2^62 bytes even with every dynamic one at 1. */
int sidecaml_model_check_tensors(const struct sidecaml_session_tensor *tensors, uint32_t inputs, uint32_t count,
                                 struct sidecaml_failure *why);

/* What a dynamic dimension without a name is called: "TENSOR[AXIS]". malloc'd; NULL without memory. */
char *sidecaml_model_dim_name(const char *tensor, uint32_t axis);

/* UNSUPPORTED when an output without declared dimensions had some in a run on zeros. */
int sidecaml_model_check_rank(const struct sidecaml_session_tensor *output, uint32_t rank,
                              struct sidecaml_failure *why);

/* --- Requests ---------------------------------------------------------------------------------------------------- */

/* The dims of every tensor in one request, from those that its dynamic inputs came with.
 *
 * `dims` has a row a tensor, inputs first: the rows of dynamic inputs are read, all others written. known[i] is false
 * (and the row left alone) for an output some of whose dims no input has: only the run can tell them; inputs are always
 * known. Tensors are those of a session, so every dynamic dimension has a name. BAD_DIMS when a fixed dimension of a
 * dynamic input differs, or two inputs disagree on a name. */
int sidecaml_model_request_dims(const struct sidecaml_session_tensor *tensors, uint32_t inputs, uint32_t count,
                                uint64_t (*dims)[SIDECAML_MAX_RANK], bool *known, struct sidecaml_failure *why);

/* Whether an output that a run placed by itself may be handed out: ENGINE when its dims are not as declared (rank, or a
 * fixed one), OUTPUT_TOO_LARGE when one is beyond max_dims. */
int sidecaml_model_check_output(const struct sidecaml_session_tensor *output, const uint64_t *dims, uint32_t rank,
                                const uint64_t *max_dims, struct sidecaml_failure *why);

#ifdef __cplusplus
}
#endif

#endif
