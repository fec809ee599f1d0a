/* Between Python's objects and C's numbers, and from C's errors to exceptions. */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core.h"

struct core_state *state_of(PyObject *self) {
    return PyType_GetModuleState(Py_TYPE(self));
}

void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* --- Errors ------------------------------------------------------------------------------------------------------ */

PyObject *raise_code(const struct core_state *state, int code, const char *text) {
    if (code < 0) code = -code;
    if (!text) text = sidecaml_error_text(code);
    /* The text may hold a name that somebody else wrote. */
    PyObject *sentence = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    PyObject *error = sentence ? PyObject_CallFunction(state->error, "iO", code, sentence) : NULL;
    if (error) PyErr_SetObject(state->error, error);
    Py_XDECREF(error);
    Py_XDECREF(sentence);
    return NULL;
}

PyObject *raise_failure(const struct core_state *state, const struct sidecaml_failure *why) {
    return raise_code(state, why->code, why->text);
}

PyObject *raise_invalid(const struct core_state *state, const char *format, ...) {
    char text[SIDECAML_FAILURE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return raise_code(state, SIDECAML_E_INVALID, text);
}

/* --- Arguments --------------------------------------------------------------------------------------------------- */

bool check_count(const char *function, Py_ssize_t given, Py_ssize_t least, Py_ssize_t most) {
    if (given >= least && given <= most) return true;
    if (least == most)
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments (%zd given)", function, least, given);
    else
        PyErr_Format(PyExc_TypeError, "%s() takes %zd to %zd arguments (%zd given)", function, least, most, given);
    return false;
}

bool u64_of(PyObject *object, uint64_t *out) {
    PyObject *index = PyNumber_Index(object);
    if (!index) return false;
    unsigned long long value = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (value == ULLONG_MAX && PyErr_Occurred()) return false;
    *out = value;
    return true;
}

bool u32_of(PyObject *object, uint32_t *out) {
    uint64_t value;
    if (!u64_of(object, &value)) return false;
    if (value > UINT32_MAX) {
        PyErr_Format(PyExc_OverflowError, "expected a number below 2**32, got %R", object);
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

bool fd_of(PyObject *object, int *out) {
    uint32_t value;
    if (!u32_of(object, &value)) return false;
    if (value > INT_MAX) {
        PyErr_Format(PyExc_OverflowError, "expected a file descriptor, got %R", object);
        return false;
    }
    *out = (int)value;
    return true;
}

bool policy_of(const struct core_state *state, PyObject *object, enum sidecaml_policy *out) {
    uint32_t value;
    if (!u32_of(object, &value)) return false;
    if (value > SIDECAML_BLOCK) {
        raise_invalid(state, "a policy is SPIN, ADAPTIVE or BLOCK, not %u", value);
        return false;
    }
    *out = (enum sidecaml_policy)value;
    return true;
}

static bool read_dims(PyObject *tuple, uint64_t *dims, uint32_t rank) {
    for (uint32_t i = 0; i < rank; i++)
        if (!u64_of(PyTuple_GetItem(tuple, i), &dims[i])) return false;
    return true;
}

bool dims_of(const struct core_state *state, PyObject *object, uint64_t dims[SIDECAML_MAX_RANK], uint32_t *rank) {
    PyObject *tuple = PySequence_Tuple(object);
    if (!tuple) return false;
    Py_ssize_t count = PyTuple_Size(tuple);
    bool fits = count <= SIDECAML_MAX_RANK;
    if (!fits) raise_invalid(state, "a tensor has at most %d dimensions, not %zd", SIDECAML_MAX_RANK, count);
    *rank = fits ? (uint32_t)count : 0;
    bool read = fits && read_dims(tuple, dims, *rank);
    Py_DECREF(tuple);
    return read;
}

bool strings_place_of(PyObject *const *objects, struct sidecaml_strings_place *out) {
    out->start = PyLong_AsVoidPtr(objects[0]);
    if (!out->start && PyErr_Occurred()) return false;
    return u64_of(objects[1], &out->most) && u64_of(objects[2], &out->text_bytes);
}

PyObject *tuple_of_dims(const uint64_t *dims, uint32_t rank) {
    PyObject *tuple = PyTuple_New(rank);
    for (uint32_t i = 0; tuple && i < rank; i++) {
        PyObject *dim = PyLong_FromUnsignedLongLong(dims[i]);
        if (!dim || PyTuple_SetItem(tuple, i, dim) < 0) Py_CLEAR(tuple);
    }
    return tuple;
}
