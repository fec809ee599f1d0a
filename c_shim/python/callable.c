/* Python functions where the native lane runs what C has: a callable without arguments for one place and set of dims.
 *
 * The lane holds no interpreter lock, so each of these takes it. A callable says by a text that the run failed; an
 * exception would be one that it did not expect, and fails the run with its own words.
 */
#include <stdio.h>
#include <string.h>

#include "core.h"

static int failed(struct sidecaml_failure *why, const char *text) {
    why->code = SIDECAML_E_ENGINE;
    snprintf(why->text, sizeof why->text, "%s", text);
    return -SIDECAML_E_ENGINE;
}

static int failed_with(struct sidecaml_failure *why, PyObject *text) {
    /* What UTF-8 cannot hold must not keep the request from being answered. */
    PyObject *bytes = text ? PyUnicode_AsEncodedString(text, "utf-8", "replace") : NULL;
    const char *words = bytes ? PyBytes_AsString(bytes) : NULL;
    int status = failed(why, words ? words : "the function failed, and what it said cannot be shown");
    Py_XDECREF(bytes);
    PyErr_Clear();
    return status;
}

static int failed_with_exception(struct sidecaml_failure *why) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *text = PyObject_Str(value ? value : type);
    int status = failed_with(why, text);
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return status;
}

int callable_runner(void *context, struct sidecaml_failure *why) {
    PyGILState_STATE lock = PyGILState_Ensure();
    PyObject *said = PyObject_CallNoArgs(context);
    int status = 0;
    if (!said)
        status = failed_with_exception(why);
    else if (said != Py_None)
        status = failed_with(why, PyUnicode_Check(said) ? said : NULL);
    Py_XDECREF(said);
    PyGILState_Release(lock);
    return status;
}

void callable_drop(void *context) {
    PyGILState_STATE lock = PyGILState_Ensure();
    Py_DECREF((PyObject *)context);
    PyGILState_Release(lock);
}

/* --- Batches ----------------------------------------------------------------------------------------------------- */

/* ((address, (dim, ...)), ...): as many dims as a tensor can have, of which the callable knows how many count. */
static PyObject *places_of(uint32_t tensors, void *const *addresses, const uint64_t (*dims)[SIDECAML_MAX_RANK]) {
    PyObject *all = PyTuple_New(tensors);
    for (uint32_t t = 0; all && t < tensors; t++) {
        PyObject *row = tuple_of_dims(dims[t], SIDECAML_MAX_RANK);
        PyObject *place = row ? Py_BuildValue("KN", (unsigned long long)(uintptr_t)addresses[t], row) : NULL;
        if (!place || PyTuple_SetItem(all, t, place) < 0) Py_CLEAR(all);
    }
    return all;
}

static int bind_batch(void *context, void *const *addresses, const uint64_t (*dims)[SIDECAML_MAX_RANK], void **runner,
                      struct sidecaml_failure *why) {
    const struct callable_batches *batches = context;
    PyGILState_STATE lock = PyGILState_Ensure();
    PyObject *places = places_of(batches->tensors, addresses, dims);
    PyObject *made = places ? PyObject_CallFunctionObjArgs(batches->make, places, NULL) : NULL;
    int status = made ? 0 : failed_with_exception(why);
    Py_XDECREF(places);
    *runner = made;
    PyGILState_Release(lock);
    return status;
}

void callable_batches(struct callable_batches *batches, struct sidecaml_batching *out) {
    out->context = batches;
    out->bind = bind_batch;
    out->run = callable_runner;
    out->drop = callable_drop;
}
