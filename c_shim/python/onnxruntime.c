/* Session and Binding: ONNX Runtime over its C API, for the native lane. Left out where its header is missing. */
#include <string.h>

#include "core.h"
#include "sidecaml/ort.h"

struct session_object {
    PyObject ob_base;
    const struct core_state *state;
    sidecaml_session *session;
};

struct binding_object {
    PyObject ob_base;
    const struct core_state *state;
    struct session_object *owner;
    sidecaml_binding *binding;
    const bool *lane_busy; /* of the worker that the binding is lent to; NULL when there is none */
    uint32_t lent;         /* so many times */
    bool running;          /* a thread is inside `run` without the interpreter lock */
};

/* A run that ONNX Runtime refuses may be tried in another way: only what is left of that becomes sidecaml's error. */
static PyObject *raise_engine(const struct core_state *state, const struct sidecaml_failure *why) {
    if (why->code != SIDECAML_E_ENGINE) return raise_failure(state, why);
    PyObject *text = PyUnicode_DecodeUTF8(why->text, (Py_ssize_t)strlen(why->text), "replace");
    if (text) PyErr_SetObject(PyExc_RuntimeError, text);
    Py_XDECREF(text);
    return NULL;
}

/* --- The library ------------------------------------------------------------------------------------------------- */

static PyObject *onnxruntime_open(PyObject *module, PyObject *arg) {
    PyObject *path = NULL;
    struct sidecaml_failure why;
    if (arg != Py_None && !PyUnicode_FSConverter(arg, &path)) return NULL;
    int status = sidecaml_ort_open(path ? PyBytes_AsString(path) : NULL, &why);
    Py_XDECREF(path);
    if (status < 0) return raise_failure(PyModule_GetState(module), &why);
    return PyUnicode_FromString(sidecaml_ort_version());
}

PyMethodDef onnxruntime_methods[] = {
    {"open_onnxruntime", onnxruntime_open, METH_O,
     PyDoc_STR("open_onnxruntime(path, /)\n--\n\nOpen the library, once for the process; its version.")},
    {NULL, NULL, 0, NULL},
};

/* --- Session ----------------------------------------------------------------------------------------------------- */

static PyObject *session_create(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"path", "threads", NULL};
    struct core_state *state = PyType_GetModuleState(type);
    PyObject *path = NULL, *threads_object;
    uint32_t threads;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&O:Session", names, PyUnicode_FSConverter, &path,
                                     &threads_object))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct session_object *self = u32_of(threads_object, &threads) ? (struct session_object *)allocate(type, 0) : NULL;
    if (self) {
        struct sidecaml_failure why;
        int status;
        self->state = state;
        Py_BEGIN_ALLOW_THREADS;
        status = sidecaml_session_create(PyBytes_AsString(path), threads, &self->session, &why);
        Py_END_ALLOW_THREADS;
        if (status < 0) {
            raise_failure(state, &why);
            Py_CLEAR(self);
        }
    }
    Py_DECREF(path);
    return (PyObject *)self;
}

static void session_dealloc(PyObject *object) {
    sidecaml_session_destroy(((struct session_object *)object)->session);
    free_object(object);
}

/* A size, or the name of a dynamic one. */
static PyObject *dim_object(int64_t dim, const char *name) {
    return dim >= 0 ? PyLong_FromLongLong(dim) : PyUnicode_FromString(name);
}

static PyObject *shape_object(const struct sidecaml_session_tensor *tensor) {
    PyObject *shape = PyTuple_New(tensor->rank);
    for (uint32_t i = 0; shape && i < tensor->rank; i++) {
        PyObject *dim = dim_object(tensor->dims[i], tensor->dim_names[i]);
        if (!dim || PyTuple_SetItem(shape, i, dim) < 0) Py_CLEAR(shape);
    }
    return shape;
}

static PyObject *tensor_object(const struct sidecaml_session_tensor *tensor) {
    PyObject *shape = shape_object(tensor);
    return shape ? Py_BuildValue("ssN", tensor->name, tensor->type, shape) : NULL;
}

static PyObject *tensor_objects(const struct sidecaml_session_tensor *tensors, uint32_t count) {
    PyObject *all = PyTuple_New(count);
    for (uint32_t i = 0; all && i < count; i++) {
        PyObject *one = tensor_object(&tensors[i]);
        if (!one || PyTuple_SetItem(all, i, one) < 0) Py_CLEAR(all);
    }
    return all;
}

static PyObject *session_inputs(PyObject *object, void *Py_UNUSED(closure)) {
    uint32_t inputs, count;
    const struct sidecaml_session_tensor *tensors =
        sidecaml_session_tensors(((struct session_object *)object)->session, &inputs, &count);
    return tensor_objects(tensors, inputs);
}

static PyObject *session_outputs(PyObject *object, void *Py_UNUSED(closure)) {
    uint32_t inputs, count;
    const struct sidecaml_session_tensor *tensors =
        sidecaml_session_tensors(((struct session_object *)object)->session, &inputs, &count);
    return tensor_objects(tensors + inputs, count - inputs);
}

static PyObject *session_bind(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct session_object *session = (struct session_object *)object;
    PyTypeObject *type = session->state->binding_type;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct binding_object *self = (struct binding_object *)allocate(type, 0);
    if (!self) return NULL;
    struct sidecaml_failure why;
    self->state = session->state;
    Py_INCREF(object);
    self->owner = session;
    if (sidecaml_binding_create(session->session, &self->binding, &why) < 0) {
        raise_engine(session->state, &why);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyMethodDef session_methods[] = {
    {"bind", session_bind, METH_NOARGS, PyDoc_STR("bind()\n--\n\nA new binding, of nothing yet.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef session_getset[] = {
    {"inputs", session_inputs, NULL, PyDoc_STR("(name, type, shape) of each input"), NULL},
    {"outputs", session_outputs, NULL, PyDoc_STR("(name, type, shape) of each output"), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot session_slots[] = {
    {Py_tp_doc, PyDoc_STR("Session(path, threads)\n--\n\nA model, loaded by ONNX Runtime.")},
    {Py_tp_new, session_create},
    {Py_tp_dealloc, session_dealloc},
    {Py_tp_methods, session_methods},
    {Py_tp_getset, session_getset},
    {0, NULL},
};

PyType_Spec session_spec = {
    .name = "ipc_server._core.Session",
    .basicsize = sizeof(struct session_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = session_slots,
};

/* --- Binding ----------------------------------------------------------------------------------------------------- */

static void binding_dealloc(PyObject *object) {
    struct binding_object *self = (struct binding_object *)object;
    sidecaml_binding_destroy(self->binding);
    Py_XDECREF((PyObject *)self->owner);
    free_object(object);
}

/* NULL with an exception set while another thread is in the binding. */
static struct binding_object *idle_binding(PyObject *object) {
    struct binding_object *self = (struct binding_object *)object;
    if (!self->running && !(self->lane_busy && *self->lane_busy)) return self;
    raise_invalid(self->state, "another thread uses the binding");
    return NULL;
}

static struct binding_object *changeable_binding(PyObject *object) {
    struct binding_object *self = idle_binding(object);
    if (!self || !self->lane_busy) return self;
    raise_invalid(self->state, "the binding serves a slot: it cannot be changed");
    return NULL;
}

static PyObject *result(const struct binding_object *self, int status, const struct sidecaml_failure *why) {
    if (status < 0) return raise_engine(self->state, why);
    Py_RETURN_NONE;
}

/* Where a tensor goes. */
struct place {
    const char *name;
    uint32_t dtype;
    uint32_t rank;
    uint64_t dims[SIDECAML_MAX_RANK];
    void *address;
};

/* Before the binding is looked at: reading an argument may run Python code, which may use the binding. */
static bool place_of(PyObject *object, PyObject *const *args, Py_ssize_t count, struct place *out) {
    if (!check_count("bind", count, 4, 4)) return false;
    out->name = PyUnicode_AsUTF8AndSize(args[0], NULL);
    if (!out->name || !u32_of(args[1], &out->dtype) || !dims_of(state_of(object), args[2], out->dims, &out->rank))
        return false;
    out->address = PyLong_AsVoidPtr(args[3]);
    return out->address || !PyErr_Occurred();
}

static PyObject *binding_bind_input(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct place at;
    struct sidecaml_failure why;
    struct binding_object *self = place_of(object, args, count, &at) ? changeable_binding(object) : NULL;
    if (!self) return NULL;
    int status = sidecaml_binding_input(self->binding, at.name, at.dtype, at.dims, at.rank, at.address, &why);
    return result(self, status, &why);
}

static PyObject *binding_bind_output(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct place at;
    struct sidecaml_failure why;
    struct binding_object *self = place_of(object, args, count, &at) ? changeable_binding(object) : NULL;
    if (!self) return NULL;
    int status = sidecaml_binding_output(self->binding, at.name, at.dtype, at.dims, at.rank, at.address, &why);
    return result(self, status, &why);
}

/* A name, dims, and where strings lie. */
static PyObject *binding_bind_strings(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct place at = {0};
    struct sidecaml_strings_place strings;
    struct sidecaml_failure why;
    if (!check_count("bind_strings", count, 5, 5)) return NULL;
    at.name = PyUnicode_AsUTF8AndSize(args[0], NULL);
    if (!at.name || !dims_of(state_of(object), args[1], at.dims, &at.rank) || !strings_place_of(args + 2, &strings))
        return NULL;
    struct binding_object *self = changeable_binding(object);
    if (!self) return NULL;
    int status = sidecaml_binding_input_strings(self->binding, at.name, at.dims, at.rank, &strings, &why);
    return result(self, status, &why);
}

static PyObject *binding_copy_strings(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct sidecaml_strings_place strings;
    struct sidecaml_failure why;
    uint32_t number;
    if (!check_count("copy_strings", count, 5, 5) || !u32_of(args[0], &number)) return NULL;
    const char *name = PyUnicode_AsUTF8AndSize(args[1], NULL);
    if (!name || !strings_place_of(args + 2, &strings)) return NULL;
    struct binding_object *self = idle_binding(object);
    if (!self) return NULL;
    return result(self, sidecaml_binding_copy_strings(self->binding, number, name, &strings, &why), &why);
}

static PyObject *binding_bind_output_anywhere(PyObject *object, PyObject *arg) {
    struct sidecaml_failure why;
    const char *name = PyUnicode_AsUTF8AndSize(arg, NULL);
    struct binding_object *self = name ? changeable_binding(object) : NULL;
    if (!self) return NULL;
    return result(self, sidecaml_binding_output_anywhere(self->binding, name, &why), &why);
}

static PyObject *binding_run(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct binding_object *self = idle_binding(object);
    if (!self) return NULL;
    struct sidecaml_failure why;
    int status;
    self->running = true;
    Py_BEGIN_ALLOW_THREADS;
    status = sidecaml_binding_run(self->binding, &why);
    Py_END_ALLOW_THREADS;
    self->running = false;
    return result(self, status, &why);
}

static PyObject *output_object(const struct sidecaml_output *output) {
    PyObject *dims = tuple_of_dims(output->dims, output->rank);
    return dims ? Py_BuildValue("NNK", dims, PyLong_FromVoidPtr(output->address), (unsigned long long)output->bytes)
                : NULL;
}

static PyObject *binding_outputs(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct binding_object *self = idle_binding(object);
    const struct sidecaml_output *outputs;
    uint32_t count;
    struct sidecaml_failure why;
    if (!self) return NULL;
    if (sidecaml_binding_outputs(self->binding, &outputs, &count, &why) < 0) return raise_engine(self->state, &why);
    PyObject *all = PyTuple_New(count);
    for (uint32_t i = 0; all && i < count; i++) {
        PyObject *one = output_object(&outputs[i]);
        if (!one || PyTuple_SetItem(all, i, one) < 0) Py_CLEAR(all);
    }
    return all;
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef binding_methods[] = {
    {"bind_input", FAST(binding_bind_input), METH_FASTCALL,
     PyDoc_STR("bind_input(name, dtype, dims, address, /)\n--\n\nRead an input from there.")},
    {"bind_output", FAST(binding_bind_output), METH_FASTCALL,
     PyDoc_STR("bind_output(name, dtype, dims, address, /)\n--\n\nWrite an output there.")},
    {"bind_strings", FAST(binding_bind_strings), METH_FASTCALL,
     PyDoc_STR("bind_strings(name, dims, address, most, text_bytes, /)\n--\n\nRead the strings that lie there now.")},
    {"copy_strings", FAST(binding_copy_strings), METH_FASTCALL,
     PyDoc_STR("copy_strings(output, name, address, most, text_bytes, /)\n--\n\nWrite an output of strings there.")},
    {"bind_output_anywhere", binding_bind_output_anywhere, METH_O,
     PyDoc_STR("bind_output_anywhere(name, /)\n--\n\nWrite an output where ONNX Runtime allocates it.")},
    {"run", binding_run, METH_NOARGS, PyDoc_STR("run()\n--\n\nRun the model on what is bound.")},
    {"outputs", binding_outputs, METH_NOARGS,
     PyDoc_STR("outputs()\n--\n\n(dims, address, bytes) of each output of the last run, until the next call.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot binding_slots[] = {
    {Py_tp_doc, PyDoc_STR("A session's tensors bound to memory that is somebody else's.")},
    {Py_tp_dealloc, binding_dealloc},
    {Py_tp_methods, binding_methods},
    {0, NULL},
};

PyType_Spec binding_spec = {
    .name = "ipc_server._core.Binding",
    .basicsize = sizeof(struct binding_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = binding_slots,
};

/* --- The native lane --------------------------------------------------------------------------------------------- */

bool binding_lend(const struct core_state *state, PyObject *object, const bool *busy) {
    if (!Py_IS_TYPE(object, state->binding_type)) {
        PyErr_Format(PyExc_TypeError, "expected a Binding or None, got %R", object);
        return false;
    }
    struct binding_object *self = idle_binding(object);
    if (self && self->lane_busy && self->lane_busy != busy) {
        raise_invalid(self->state, "the binding serves another worker");
        return false;
    }
    if (!self) return false;
    self->lane_busy = busy;
    self->lent++;
    return true;
}

void binding_give_back(void *object) {
    struct binding_object *self = object;
    if (--self->lent == 0) self->lane_busy = NULL;
}

int binding_runner(void *binding, struct sidecaml_failure *why) {
    return sidecaml_binding_run(((struct binding_object *)binding)->binding, why);
}

static int bind_batch(void *session, void *const *addresses, const uint64_t (*dims)[SIDECAML_MAX_RANK], void **runner,
                      struct sidecaml_failure *why) {
    sidecaml_binding *binding;
    int status = sidecaml_session_bind(session, addresses, dims, &binding, why);
    if (status == 0) *runner = binding;
    return status;
}

static int run_batch(void *runner, struct sidecaml_failure *why) {
    return sidecaml_binding_run(runner, why);
}

static void drop_batch(void *runner) {
    sidecaml_binding_destroy(runner);
}

bool session_batches(const struct core_state *state, PyObject *object, struct sidecaml_batching *out) {
    if (!Py_IS_TYPE(object, state->session_type)) {
        PyErr_Format(PyExc_TypeError, "expected a Session, got %R", object);
        return false;
    }
    out->context = ((struct session_object *)object)->session;
    out->bind = bind_batch;
    out->run = run_batch;
    out->drop = drop_batch;
    return true;
}
