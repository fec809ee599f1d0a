/* ipc_server._core: the C core for Python, in the limited API (one build for every Python from 3.11).
 *
 * The interpreter lock is dropped only where a call may sleep, and only after a try without dropping it: beside a busy
 * thread it can take 5 ms to get it back. While a call waits without the lock its object is marked, and any other use
 * of the object, closing included, is refused: the memory under it must not go away.
 */
#ifndef SIDECAML_PYTHON_CORE_H
#define SIDECAML_PYTHON_CORE_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "sidecaml/sidecaml.h"
#include "sidecaml/strings.h"

/* What module initialisation makes, reached through the type of every object. */
struct core_state {
    PyObject *error; /* ipc_server.errors.SidecamlError */
    PyTypeObject *layout_type;
    PyTypeObject *memory_type;
    PyTypeObject *worker_type;
    PyTypeObject *channel_type;
    PyTypeObject *tensors_type;
#ifdef SIDECAML_NATIVE
    PyTypeObject *session_type;
    PyTypeObject *binding_type;
#endif
};

struct core_state *state_of(PyObject *self);

/* The last step of every tp_dealloc: a heap type counts its instances. */
void free_object(PyObject *self);

/* --- Errors: set SidecamlError and return NULL ------------------------------------------------------------------- */

/* `code` of either sign; without a text, the code's own. */
PyObject *raise_code(const struct core_state *state, int code, const char *text);
PyObject *raise_failure(const struct core_state *state, const struct sidecaml_failure *why);
PyObject *raise_invalid(const struct core_state *state, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- Arguments: false with an exception set ---------------------------------------------------------------------- */

bool check_count(const char *function, Py_ssize_t given, Py_ssize_t least, Py_ssize_t most);
bool u64_of(PyObject *object, uint64_t *out);
bool u32_of(PyObject *object, uint32_t *out);
bool fd_of(PyObject *object, int *out);
bool policy_of(const struct core_state *state, PyObject *object, enum sidecaml_policy *out);
/* A sequence of at most SIDECAML_MAX_RANK sizes. */
bool dims_of(const struct core_state *state, PyObject *object, uint64_t dims[SIDECAML_MAX_RANK], uint32_t *rank);
/* Three: address, largest number of strings, bytes of text. */
bool strings_place_of(PyObject *const *objects, struct sidecaml_strings_place *out);
PyObject *tuple_of_dims(const uint64_t *dims, uint32_t rank);

/* --- Memory: a slot's place of one tensor, as a buffer ----------------------------------------------------------- */

/* How many Memory objects of one mapping are alive: it must stay while there is one. They are counted, and not their
 * buffers, because numpy.ndarray(buffer=...) keeps the object and gives the buffer back at once. */
struct hold {
    Py_ssize_t memories;
};
/* NULL with MemoryError set. */
struct hold *hold_new(void);
/* False, with BufferError set, while there are memories; NULL is free to close. */
bool hold_may_close(const struct hold *hold);

/* Keeps `owner`, which owns `hold`, alive. */
PyObject *memory_new(const struct core_state *state, PyObject *owner, struct hold *hold, void *address, uint64_t bytes);

/* --- Types ------------------------------------------------------------------------------------------------------- */

extern PyType_Spec layout_spec, memory_spec, worker_spec, channel_spec, tensors_spec;
extern PyMethodDef tensors_functions[], strings_functions[], load_functions[];

/* Lends a Channel's channel to code that runs without the interpreter lock: until it is given back every other use is
 * refused. NULL with an exception set when the object is none, is closed, or is in use. */
sidecaml_channel *channel_lend(const struct core_state *state, PyObject *object);
void channel_give_back(PyObject *object);

#ifdef SIDECAML_NATIVE

extern PyType_Spec session_spec, binding_spec;
extern PyMethodDef onnxruntime_methods[];

/* Lends a binding to the native lane, which marks its use in *busy; false with an exception set when the object is no
 * binding or is lent to another. Until it is given back as often as it was lent it cannot be changed, nor be run while
 * *busy. */
bool binding_lend(const struct core_state *state, PyObject *object, const bool *busy);
void binding_give_back(void *object);
/* Fills in what runs batches with a session, which must outlive them; false with an exception set for another object.
 */
bool session_batches(const struct core_state *state, PyObject *object, struct sidecaml_batching *out);
/* A sidecaml_runner whose context is a lent binding. */
int binding_runner(void *binding, struct sidecaml_failure *why);

/* A sidecaml_runner whose context is a callable, and what ends its use, with or without the interpreter lock. */
int callable_runner(void *context, struct sidecaml_failure *why);
void callable_drop(void *context);
/* What makes a callable for a batch, of where its tensors lie; it must outlive the batches, like `make`. */
struct callable_batches {
    PyObject *make;
    uint32_t tensors;
};
void callable_batches(struct callable_batches *batches, struct sidecaml_batching *out);

#endif

PyObject *layout_new(const struct core_state *state, const struct sidecaml_layout *layout);
/* NULL with TypeError set when the object is no Layout. */
const struct sidecaml_layout *layout_of(const struct core_state *state, PyObject *object);

#endif
