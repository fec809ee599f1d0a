/* Memory: one tensor's place in one slot, for numpy and memoryview. While one
 * is alive its mapping cannot be closed. */
#include "core.h"

struct memory_object {
    PyObject ob_base;
    PyObject *owner;
    struct hold *hold;
    void *address;
    Py_ssize_t bytes;
};

struct hold *hold_new(void) {
    struct hold *hold = PyMem_Calloc(1, sizeof *hold);
    if (!hold) PyErr_NoMemory();
    return hold;
}

bool hold_may_close(const struct hold *hold) {
    if (!hold || hold->memories == 0) return true;
    PyErr_Format(PyExc_BufferError, "cannot close the channel while views of its tensors exist: there are %zd",
                 hold->memories);
    return false;
}

PyObject *memory_new(const struct core_state *state, PyObject *owner, struct hold *hold, void *address,
                     uint64_t bytes) {
    allocfunc allocate = (allocfunc)PyType_GetSlot(state->memory_type, Py_tp_alloc);
    struct memory_object *self = (struct memory_object *)allocate(state->memory_type, 0);
    if (!self) return NULL;
    Py_INCREF(owner);
    self->owner = owner;
    hold->memories++;
    self->hold = hold;
    self->address = address;
    self->bytes = (Py_ssize_t)bytes;
    return (PyObject *)self;
}

static void memory_dealloc(PyObject *object) {
    struct memory_object *self = (struct memory_object *)object;
    self->hold->memories--;
    Py_DECREF(self->owner);
    free_object(object);
}

static int memory_getbuffer(PyObject *object, Py_buffer *view, int flags) {
    struct memory_object *self = (struct memory_object *)object;
    return PyBuffer_FillInfo(view, object, self->address, self->bytes, 0, flags);
}

static Py_ssize_t memory_length(PyObject *object) {
    return ((struct memory_object *)object)->bytes;
}

static PyType_Slot memory_slots[] = {
    {Py_tp_doc, PyDoc_STR("One tensor's place in one slot: a writable buffer of its largest size.")},
    {Py_tp_dealloc, memory_dealloc},
    {Py_bf_getbuffer, memory_getbuffer},
    {Py_sq_length, memory_length},
    {0, NULL},
};

PyType_Spec memory_spec = {
    .name = "ipc_server._core.Memory",
    .basicsize = sizeof(struct memory_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = memory_slots,
};
