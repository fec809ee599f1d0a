/* Strings out of slots and into them, as Python has them. */
#include <string.h>

#include "core.h"

static PyObject *list_of(const struct sidecaml_strings *strings) {
    PyObject *list = PyList_New((Py_ssize_t)strings->count);
    for (uint64_t i = 0; list && i < strings->count; i++) {
        uint64_t start = strings->offsets[i];
        PyObject *one =
            PyUnicode_DecodeUTF8(strings->text + start, (Py_ssize_t)(strings->offsets[i + 1] - start), "strict");
        if (!one || PyList_SetItem(list, (Py_ssize_t)i, one) < 0) Py_CLEAR(list);
    }
    return list;
}

/* Of memory whose size is that of table and text. */
static bool place_in(const struct core_state *state, const Py_buffer *view, PyObject *most_object,
                     struct sidecaml_strings_place *out) {
    if (!u64_of(most_object, &out->most)) return false;
    uint64_t bytes = (uint64_t)view->len;
    if (out->most >= bytes / sizeof(uint64_t) || (uintptr_t)view->buf % sizeof(uint64_t)) {
        raise_invalid(state, "%llu bytes have no room for a table of %llu strings, or are not aligned to 8",
                      (unsigned long long)bytes, (unsigned long long)out->most);
        return false;
    }
    out->start = view->buf;
    out->text_bytes = bytes - (out->most + 1) * sizeof(uint64_t);
    return true;
}

static PyObject *strings_read(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    const struct core_state *state = PyModule_GetState(module);
    struct sidecaml_strings_place place;
    struct sidecaml_strings strings;
    struct sidecaml_failure why;
    uint64_t wanted;
    Py_buffer view;
    PyObject *list = NULL;
    if (!check_count("read_strings", count, 5, 5)) return NULL;
    const char *kind = PyUnicode_AsUTF8AndSize(args[0], NULL);
    const char *name = kind ? PyUnicode_AsUTF8AndSize(args[1], NULL) : NULL;
    if (!name || !u64_of(args[4], &wanted) || PyObject_GetBuffer(args[2], &view, PyBUF_SIMPLE) < 0) return NULL;
    if (place_in(state, &view, args[3], &place)) {
        if (sidecaml_strings_read(&place, wanted, kind, name, &strings, &why) < 0) {
            raise_failure(state, &why);
        } else {
            list = list_of(&strings);
            sidecaml_strings_clear(&strings);
        }
    }
    PyBuffer_Release(&view);
    return list;
}

/* The whole text's size before a byte is written. */
static bool write_all(const struct core_state *state, PyObject *items, const struct sidecaml_strings_place *place) {
    uint64_t *offsets = place->start, end = 0;
    Py_ssize_t count = PyTuple_Size(items);
    if ((uint64_t)count > place->most) {
        raise_invalid(state, "%zd strings have no room where %llu have", count, (unsigned long long)place->most);
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GetItem(items, i);
        if (!PyBytes_Check(item)) {
            PyErr_Format(PyExc_TypeError, "expected bytes, got %R", item);
            return false;
        }
        end += (uint64_t)PyBytes_Size(item);
    }
    if (end > place->text_bytes) {
        raise_invalid(state, "%llu bytes of text have no room where %llu have", (unsigned long long)end,
                      (unsigned long long)place->text_bytes);
        return false;
    }
    offsets[0] = end = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GetItem(items, i);
        memcpy(sidecaml_strings_text(place) + end, PyBytes_AsString(item), (size_t)PyBytes_Size(item));
        offsets[i + 1] = end += (uint64_t)PyBytes_Size(item);
    }
    return true;
}

static PyObject *strings_write(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    const struct core_state *state = PyModule_GetState(module);
    struct sidecaml_strings_place place;
    Py_buffer view;
    if (!check_count("write_strings", count, 3, 3)) return NULL;
    PyObject *items = PySequence_Tuple(args[2]);
    if (!items) return NULL;
    bool written = PyObject_GetBuffer(args[0], &view, PyBUF_WRITABLE) == 0;
    if (written) {
        written = place_in(state, &view, args[1], &place) && write_all(state, items, &place);
        PyBuffer_Release(&view);
    }
    Py_DECREF(items);
    if (!written) return NULL;
    Py_RETURN_NONE;
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

PyMethodDef strings_functions[] = {
    {"read_strings", FAST(strings_read), METH_FASTCALL,
     PyDoc_STR("read_strings(kind, name, place, most, count, /)\n--\n\nThe strings of a slot's tensor.")},
    {"write_strings", FAST(strings_write), METH_FASTCALL,
     PyDoc_STR("write_strings(place, most, items, /)\n--\n\nWrite UTF-8 texts to a slot's tensor.")},
    {NULL, NULL, 0, NULL},
};
