/* Layout: where everything lies in a segment. */
#include <string.h>

#include "core.h"

struct layout_object {
    PyObject ob_base;
    struct sidecaml_layout layout;
};

/* --- Making one -------------------------------------------------------------------------------------------------- */

/* `name` is borrowed: it lives as long as the tuple it came from. */
static bool read_spec(const struct core_state *state, PyObject *item, struct sidecaml_tensor_spec *out) {
    PyObject *dtype, *dims, *text_bytes = NULL;
    int output, dynamic, packed = 0;
    Py_ssize_t length;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError,
                        "a tensor is a tuple (name, dtype, output, dynamic, max_dims[, text_bytes[, packed]])");
        return false;
    }
    if (!PyArg_ParseTuple(item, "s#OppO|Op:Layout", &out->name, &length, &dtype, &output, &dynamic, &dims, &text_bytes,
                          &packed))
        return false;
    out->output = output;
    out->dynamic = dynamic;
    out->packed = packed;
    return u32_of(dtype, &out->dtype) && dims_of(state, dims, out->max_dims, &out->rank) &&
           (!text_bytes || u64_of(text_bytes, &out->text_bytes));
}

static bool compute(const struct core_state *state, PyObject *tensors, uint32_t slots, uint64_t fingerprint,
                    struct sidecaml_layout *out) {
    struct sidecaml_failure why;
    Py_ssize_t count = PyTuple_Size(tensors);
    if (count > SIDECAML_MAX_TENSORS) {
        raise_invalid(state, "a model has at most %d inputs and outputs, not %zd", SIDECAML_MAX_TENSORS, count);
        return false;
    }
    struct sidecaml_tensor_spec *specs = PyMem_Calloc((size_t)count + 1, sizeof *specs);
    if (!specs) {
        PyErr_NoMemory();
        return false;
    }
    bool valid = true;
    for (Py_ssize_t i = 0; valid && i < count; i++)
        valid = read_spec(state, PyTuple_GetItem(tensors, i), &specs[i]);
    if (valid && sidecaml_layout_compute(specs, (uint32_t)count, slots, fingerprint, out, &why) < 0) {
        raise_failure(state, &why);
        valid = false;
    }
    PyMem_Free(specs);
    return valid;
}

static PyObject *layout_create(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"tensors", "slots", "fingerprint", NULL};
    PyObject *tensors, *slots_object, *fingerprint_object;
    uint32_t slots;
    uint64_t fingerprint;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOO:Layout", names, &tensors, &slots_object,
                                     &fingerprint_object) ||
        !u32_of(slots_object, &slots) || !u64_of(fingerprint_object, &fingerprint))
        return NULL;
    PyObject *tuple = PySequence_Tuple(tensors);
    if (!tuple) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct layout_object *self = (struct layout_object *)allocate(type, 0);
    if (self && !compute(PyType_GetModuleState(type), tuple, slots, fingerprint, &self->layout)) Py_CLEAR(self);
    Py_DECREF(tuple);
    return (PyObject *)self;
}

PyObject *layout_new(const struct core_state *state, const struct sidecaml_layout *layout) {
    allocfunc allocate = (allocfunc)PyType_GetSlot(state->layout_type, Py_tp_alloc);
    struct layout_object *self = (struct layout_object *)allocate(state->layout_type, 0);
    if (self) self->layout = *layout;
    return (PyObject *)self;
}

static PyObject *layout_read(PyObject *type, PyObject *buffer) {
    const struct core_state *state = PyType_GetModuleState((PyTypeObject *)type);
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot((PyTypeObject *)type, Py_tp_alloc);
    struct layout_object *self = (struct layout_object *)allocate((PyTypeObject *)type, 0);
    struct sidecaml_failure why;
    if (self && sidecaml_layout_read(view.buf, (uint64_t)view.len, &self->layout, &why) < 0) {
        raise_failure(state, &why);
        Py_CLEAR(self);
    }
    PyBuffer_Release(&view);
    return (PyObject *)self;
}

const struct sidecaml_layout *layout_of(const struct core_state *state, PyObject *object) {
    if (!PyObject_TypeCheck(object, state->layout_type)) {
        PyErr_Format(PyExc_TypeError, "expected a Layout, got %R", (PyObject *)Py_TYPE(object));
        return NULL;
    }
    return &((struct layout_object *)object)->layout;
}

/* --- Looking at it ----------------------------------------------------------------------------------------------- */

static const struct sidecaml_layout *of(PyObject *self) {
    return &((struct layout_object *)self)->layout;
}

static PyObject *get_segment_bytes(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(of(self)->segment_bytes);
}

static PyObject *get_slots(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLong(of(self)->slot_count);
}

static PyObject *get_fingerprint(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(of(self)->fingerprint);
}

static PyObject *tuple_of_tensor(const struct sidecaml_tensor_descriptor *tensor) {
    Py_ssize_t length = (Py_ssize_t)strnlen((const char *)tensor->name, sizeof tensor->name);
    PyObject *name = PyUnicode_DecodeUTF8((const char *)tensor->name, length, "replace");
    PyObject *dims = tuple_of_dims(tensor->max_dims, tensor->rank);
    PyObject *result = NULL;
    if (name && dims)
        result =
            Py_BuildValue("OIOOOKKKK", name, tensor->dtype, tensor->flags & SIDECAML_TENSOR_OUTPUT ? Py_True : Py_False,
                          tensor->flags & SIDECAML_TENSOR_DYNAMIC ? Py_True : Py_False, dims,
                          (unsigned long long)tensor->array_offset, (unsigned long long)tensor->slot_stride,
                          (unsigned long long)tensor->max_bytes, (unsigned long long)tensor->text_bytes);
    Py_XDECREF(name);
    Py_XDECREF(dims);
    return result;
}

static PyObject *get_tensors(PyObject *self, void *Py_UNUSED(closure)) {
    uint32_t count = of(self)->input_count + of(self)->output_count;
    PyObject *tuple = PyTuple_New(count);
    for (uint32_t i = 0; tuple && i < count; i++) {
        PyObject *tensor = tuple_of_tensor(&of(self)->tensor[i]);
        if (!tensor || PyTuple_SetItem(tuple, i, tensor) < 0) Py_CLEAR(tuple);
    }
    return tuple;
}

static PyGetSetDef layout_getset[] = {
    {"segment_bytes", get_segment_bytes, NULL, PyDoc_STR("Size of the whole segment."), NULL},
    {"slots", get_slots, NULL, PyDoc_STR("Number of slots."), NULL},
    {"fingerprint", get_fingerprint, NULL, PyDoc_STR("Of the signature."), NULL},
    {"tensors", get_tensors, NULL,
     PyDoc_STR("(name, dtype, output, dynamic, max_dims, array_offset, slot_stride, max_bytes, text_bytes) of each, "
               "inputs first."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef layout_methods[] = {
    {"read", layout_read, METH_O | METH_CLASS,
     PyDoc_STR("read(buffer, /)\n--\n\nRead the layout of a segment that nobody vouches for.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot layout_slots[] = {
    {Py_tp_doc,
     PyDoc_STR("Layout(tensors, slots, fingerprint)\n--\n\nWhere everything lies in a segment. `tensors` are "
               "(name, dtype, output, dynamic, max_dims[, text_bytes[, packed]]), inputs first.")},
    {Py_tp_new, layout_create},
    {Py_tp_dealloc, free_object},
    {Py_tp_getset, layout_getset},
    {Py_tp_methods, layout_methods},
    {0, NULL},
};

PyType_Spec layout_spec = {
    .name = "ipc_server._core.Layout",
    .basicsize = sizeof(struct layout_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = layout_slots,
};
