/* ONNX Runtime in this process, over its C API: what the native lane and the in-process path run models with.
 *
 * The library is opened at run time and stays open; its header is needed at build time only (an older header with a
 * newer library is fine: the API is versioned). Conventions are those of sidecaml.h. A session may be used by several
 * threads at a time, a binding by one. Texts of failures are finished sentences (model.h), the same on every path.
 */
#ifndef SIDECAML_ORT_H
#define SIDECAML_ORT_H

#include "sidecaml/model.h"
#include "sidecaml/strings.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the library, once for the process: `path`, else $SIDECAML_ONNXRUNTIME, else the one inside the `onnxruntime`
 * wheel of $VIRTUAL_ENV, else the system's. Sets ORT_DISABLE_TELEMETRY beforehand. MODEL_FAILED says where it looked,
 * what is missing, too old or no ONNX Runtime at all, and what to do; the next call looks again. INVALID when another
 * library is in use already: versions are never mixed. */
int sidecaml_ort_open(const char *path, struct sidecaml_failure *why);
/* Of the open library; NULL before. */
const char *sidecaml_ort_version(void);
const char *sidecaml_ort_path(void);

typedef struct sidecaml_session sidecaml_session;

/* Loads a model on the processor with so many threads (1 or more), which never spin; opens the library where that has
 * not been done. Judges it, too: MODEL_FAILED for what is no model file and for what ONNX Runtime refuses, UNSUPPORTED
 * for what no channel carries. Follow it by sidecaml_session_warm_up. */
int sidecaml_session_create(const char *model, uint32_t threads, sidecaml_session **out, struct sidecaml_failure *why);
/* After every binding of it. NULL is allowed. */
void sidecaml_session_destroy(sidecaml_session *session);

/* Inputs, then outputs, in the model's order. All of them can be carried, and every dynamic dimension has a name. */
const struct sidecaml_session_tensor *sidecaml_session_tensors(const sidecaml_session *session, uint32_t *inputs,
                                                               uint32_t *count);

/* Runs the model `times` times on zeros in memory of its own, dynamic dimensions 1. UNSUPPORTED when an output
 * without declared dimensions has some: the model cannot be served. Any other failure (ENGINE, NO_MEMORY) only says
 * that zeros do not suit it, which need not matter. */
int sidecaml_session_warm_up(sidecaml_session *session, uint32_t times, struct sidecaml_failure *why);

typedef struct sidecaml_binding sidecaml_binding;

int sidecaml_binding_create(sidecaml_session *session, sidecaml_binding **out, struct sidecaml_failure *why);
void sidecaml_binding_destroy(sidecaml_binding *binding);

/* Binds an input to the caller's memory, which must outlive the binding or the tensor's next place. INVALID for an
 * unknown dtype or sizes that no tensor has, ENGINE when ONNX Runtime refuses. */
int sidecaml_binding_input(sidecaml_binding *binding, const char *name, uint32_t dtype, const uint64_t *dims,
                           uint32_t rank, void *address, struct sidecaml_failure *why);
/* The same for an output. */
int sidecaml_binding_output(sidecaml_binding *binding, const char *name, uint32_t dtype, const uint64_t *dims,
                            uint32_t rank, void *address, struct sidecaml_failure *why);
/* Reads strings out of the caller's place, and gives ONNX Runtime tensors of its own: again for each run. BAD_STRINGS
 * names what is wrong with them (strings.h). */
int sidecaml_binding_input_strings(sidecaml_binding *binding, const char *name, const uint64_t *dims, uint32_t rank,
                                   const struct sidecaml_strings_place *place, struct sidecaml_failure *why);
/* ONNX Runtime allocates this output in the next run: the only way for strings. */
int sidecaml_binding_output_anywhere(sidecaml_binding *binding, const char *name, struct sidecaml_failure *why);

/* Binds every tensor of the session, inputs first, to the caller's memory, with a row of dims each: what a worker runs
 * batches with (sidecaml_batching). On failure nothing is left. */
int sidecaml_session_bind(sidecaml_session *session, void *const *addresses, const uint64_t (*dims)[SIDECAML_MAX_RANK],
                          sidecaml_binding **out, struct sidecaml_failure *why);

/* Runs the model on what is bound; nothing is allocated here. ENGINE when ONNX Runtime fails. */
int sidecaml_binding_run(sidecaml_binding *binding, struct sidecaml_failure *why);

/* The same until a deadline (0: none). TIMEOUT when it is past already, without running, and when it passes during the
 * run: ONNX Runtime is then told to stop, which it does between two nodes, and this returns once it has, so nobody uses
 * the bound memory any more. Outputs are half written then. A run that ends well all the same is a success; the next
 * call works in any case. No system call, but for the first call of all (it starts a thread that watches deadlines for
 * the whole process; SYSTEM when it cannot) and for a deadline earlier than all that are being watched. */
int sidecaml_binding_run_until(sidecaml_binding *binding, uint64_t deadline_ns, struct sidecaml_failure *why);

/* An output of the last run, in the order in which outputs were bound first. */
struct sidecaml_output {
    void *address;  /* NULL for strings, which have none */
    uint64_t bytes; /* of strings: of their text */
    uint32_t rank;
    uint64_t *dims;
};
/* Valid until the next call for this binding. ENGINE when an output is no tensor of a known type. */
int sidecaml_binding_outputs(sidecaml_binding *binding, const struct sidecaml_output **out, uint32_t *count,
                             struct sidecaml_failure *why);
/* Writes an output of strings, by its number in the list above, to a place with room for it. ENGINE when one of them is
 * not UTF-8, INVALID when there is no room or these are no strings. */
int sidecaml_binding_copy_strings(sidecaml_binding *binding, uint32_t number, const char *name,
                                  const struct sidecaml_strings_place *place, struct sidecaml_failure *why);

#ifdef __cplusplus
}
#endif

#endif
