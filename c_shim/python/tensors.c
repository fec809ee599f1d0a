/* What sidecaml says about models, for the lanes in Python: the sentences, and Tensors, a model's inputs and outputs.
 */
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "sidecaml/model.h"

struct tensors_object {
    PyObject ob_base;
    const struct core_state *state;
    uint32_t inputs;
    uint32_t count;
    struct sidecaml_session_tensor *tensors;
};

/* --- Sentences --------------------------------------------------------------------------------------------------- */

/* UTF-8 of a str, or bytes as they are; NULL with an exception set. */
static PyObject *bytes_of(PyObject *text) {
    if (PyBytes_Check(text)) {
        Py_INCREF(text);
        return text;
    }
    if (PyUnicode_Check(text)) return PyUnicode_AsEncodedString(text, "utf-8", "replace");
    PyErr_Format(PyExc_TypeError, "expected str or bytes, got %R", text);
    return NULL;
}

static PyObject *tensors_sentence(PyObject *Py_UNUSED(module), PyObject *arg) {
    char out[SIDECAML_FAILURE_BYTES];
    PyObject *bytes = bytes_of(arg);
    if (!bytes) return NULL;
    size_t length = sidecaml_sentence(PyBytes_AsString(bytes), (size_t)PyBytes_Size(bytes), out, sizeof out);
    Py_DECREF(bytes);
    return PyUnicode_DecodeUTF8(out, (Py_ssize_t)length, NULL);
}

/* Unlike PyUnicode_FSConverter it lets a NUL through, for C to refuse. */
static PyObject *path_bytes(PyObject *path) {
    PyObject *plain = PyOS_FSPath(path);
    if (!plain || PyBytes_Check(plain)) return plain;
    PyObject *bytes = PyUnicode_EncodeFSDefault(plain);
    Py_DECREF(plain);
    return bytes;
}

static PyObject *tensors_check_file(PyObject *module, PyObject *arg) {
    struct sidecaml_failure why;
    PyObject *path = path_bytes(arg);
    if (!path) return NULL;
    int status = sidecaml_model_check_file(PyBytes_AsString(path), (size_t)PyBytes_Size(path), &why);
    Py_DECREF(path);
    if (status < 0) return raise_failure(PyModule_GetState(module), &why);
    Py_RETURN_NONE;
}

static PyObject *tensors_not_loaded(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    struct sidecaml_failure why;
    if (!check_count("model_not_loaded", count, 2, 2)) return NULL;
    PyObject *path = path_bytes(args[0]);
    PyObject *text = path ? bytes_of(args[1]) : NULL;
    if (text) {
        sidecaml_model_not_loaded(PyBytes_AsString(path), PyBytes_AsString(text), (size_t)PyBytes_Size(text), &why);
        raise_failure(PyModule_GetState(module), &why);
    }
    Py_XDECREF(text);
    Py_XDECREF(path);
    return NULL;
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

PyMethodDef tensors_functions[] = {
    {"sentence", tensors_sentence, METH_O,
     PyDoc_STR("sentence(text, /)\n--\n\nONNX Runtime's text made one short line.")},
    {"check_model_file", tensors_check_file, METH_O,
     PyDoc_STR("check_model_file(path, /)\n--\n\nMODEL_FAILED for a path that cannot be a model at all.")},
    {"model_not_loaded", FAST(tensors_not_loaded), METH_FASTCALL,
     PyDoc_STR("model_not_loaded(path, text, /)\n--\n\nRaise MODEL_FAILED with ONNX Runtime's text made a sentence.")},
    {NULL, NULL, 0, NULL},
};

/* --- Tensors: from descriptions ---------------------------------------------------------------------------------- */

/* malloc'd; NULL with an exception set. ONNX Runtime's C API ends a name at its NUL, so no lane may go beyond. */
static char *copy_name(const struct core_state *state, PyObject *text) {
    PyObject *bytes = bytes_of(text);
    if (!bytes) return NULL;
    const char *name = PyBytes_AsString(bytes);
    char *copy = NULL;
    if (strlen(name) != (size_t)PyBytes_Size(bytes))
        raise_code(state, SIDECAML_E_UNSUPPORTED, "the name of an input, output or dimension holds a NUL: rename it");
    else if (!(copy = strdup(name)))
        PyErr_NoMemory();
    Py_DECREF(bytes);
    return copy;
}

/* A size, a name, or anything else for a dynamic one without a name. */
static bool read_dim(const struct core_state *state, PyObject *object, int64_t *dim, char **name) {
    *dim = -1;
    if (PyUnicode_Check(object)) {
        *name = copy_name(state, object);
        return *name;
    }
    if (PyLong_Check(object)) {
        long long size = PyLong_AsLongLong(object);
        if (size == -1 && PyErr_Occurred()) return false;
        if (size >= 0) *dim = size;
    }
    *name = strdup("");
    if (!*name) PyErr_NoMemory();
    return *name;
}

static bool read_shape(const struct core_state *state, PyObject *shape, struct sidecaml_session_tensor *out) {
    PyObject *dims = PySequence_Tuple(shape);
    if (!dims) return false;
    uint32_t rank = (uint32_t)PyTuple_Size(dims);
    bool read = true;
    if (rank) {
        out->dims = calloc(rank, sizeof out->dims[0]);
        out->dim_names = calloc(rank, sizeof out->dim_names[0]);
        read = out->dims && out->dim_names;
        if (read)
            out->rank = rank;
        else
            PyErr_NoMemory();
    }
    for (uint32_t i = 0; read && i < rank; i++)
        read = read_dim(state, PyTuple_GetItem(dims, i), &out->dims[i], &out->dim_names[i]);
    Py_DECREF(dims);
    return read;
}

static bool read_description(const struct core_state *state, PyObject *description,
                             struct sidecaml_session_tensor *out) {
    PyObject *name, *type, *shape;
    PyObject *tuple = PySequence_Tuple(description);
    bool read = tuple && PyArg_ParseTuple(tuple, "OOO:Tensors", &name, &type, &shape);
    read = read && (out->name = copy_name(state, name)) && (out->type = copy_name(state, type)) &&
           read_shape(state, shape, out);
    if (read) out->dtype = sidecaml_dtype_of_type(out->type);
    Py_XDECREF(tuple);
    return read;
}

static bool read_descriptions(struct tensors_object *self, PyObject *tuple, uint32_t start) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(tuple); i++)
        if (!read_description(self->state, PyTuple_GetItem(tuple, i), &self->tensors[start + i])) return false;
    return true;
}

static bool name_dims(struct sidecaml_session_tensor *tensor) {
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (tensor->dims[i] >= 0 || *tensor->dim_names[i]) continue;
        free(tensor->dim_names[i]);
        tensor->dim_names[i] = sidecaml_model_dim_name(tensor->name, i);
        if (!tensor->dim_names[i]) {
            PyErr_NoMemory();
            return false;
        }
    }
    return true;
}

/* The same judgement as a session's of the C API. */
static bool judge(struct tensors_object *self) {
    struct sidecaml_failure why;
    if (sidecaml_model_check_tensors(self->tensors, self->inputs, self->count, &why) < 0) {
        raise_failure(self->state, &why);
        return false;
    }
    for (uint32_t i = 0; i < self->count; i++)
        if (!name_dims(&self->tensors[i])) return false;
    return true;
}

static bool read_all(struct tensors_object *self, PyObject *inputs, PyObject *outputs) {
    size_t in = (size_t)PyTuple_Size(inputs), out = (size_t)PyTuple_Size(outputs);
    self->tensors = calloc(in + out + 1, sizeof self->tensors[0]); /* one more: calloc(0) may be NULL */
    if (!self->tensors) {
        PyErr_NoMemory();
        return false;
    }
    self->inputs = (uint32_t)in;
    self->count = (uint32_t)(in + out);
    return read_descriptions(self, inputs, 0) && read_descriptions(self, outputs, self->inputs) && judge(self);
}

static PyObject *tensors_create(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"inputs", "outputs", NULL};
    PyObject *inputs, *outputs;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:Tensors", names, &inputs, &outputs)) return NULL;
    inputs = PySequence_Tuple(inputs);
    outputs = inputs ? PySequence_Tuple(outputs) : NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct tensors_object *self = outputs ? (struct tensors_object *)allocate(type, 0) : NULL;
    if (self) {
        self->state = PyType_GetModuleState(type);
        if (!read_all(self, inputs, outputs)) Py_CLEAR(self);
    }
    Py_XDECREF(inputs);
    Py_XDECREF(outputs);
    return (PyObject *)self;
}

static void tensors_dealloc(PyObject *object) {
    struct tensors_object *self = (struct tensors_object *)object;
    for (uint32_t i = 0; self->tensors && i < self->count; i++)
        sidecaml_session_tensor_clear(&self->tensors[i]);
    free(self->tensors);
    free_object(object);
}

/* --- Tensors: what they are -------------------------------------------------------------------------------------- */

static PyObject *shape_object(const struct sidecaml_session_tensor *tensor) {
    PyObject *shape = PyTuple_New(tensor->rank);
    for (uint32_t i = 0; shape && i < tensor->rank; i++) {
        PyObject *dim =
            tensor->dims[i] >= 0 ? PyLong_FromLongLong(tensor->dims[i]) : PyUnicode_FromString(tensor->dim_names[i]);
        if (!dim || PyTuple_SetItem(shape, i, dim) < 0) Py_CLEAR(shape);
    }
    return shape;
}

static PyObject *tensor_objects(const struct tensors_object *self, uint32_t start, uint32_t end) {
    PyObject *all = PyTuple_New(end - start);
    for (uint32_t i = start; all && i < end; i++) {
        const struct sidecaml_session_tensor *tensor = &self->tensors[i];
        PyObject *shape = shape_object(tensor);
        PyObject *one = shape ? Py_BuildValue("sIN", tensor->name, (unsigned)tensor->dtype, shape) : NULL;
        if (!one || PyTuple_SetItem(all, i - start, one) < 0) Py_CLEAR(all);
    }
    return all;
}

static PyObject *tensors_inputs(PyObject *object, void *Py_UNUSED(closure)) {
    const struct tensors_object *self = (struct tensors_object *)object;
    return tensor_objects(self, 0, self->inputs);
}

static PyObject *tensors_outputs(PyObject *object, void *Py_UNUSED(closure)) {
    const struct tensors_object *self = (struct tensors_object *)object;
    return tensor_objects(self, self->inputs, self->count);
}

/* --- Tensors: of a request --------------------------------------------------------------------------------------- */

static bool is_dynamic(const struct sidecaml_session_tensor *tensor) {
    for (uint32_t i = 0; i < tensor->rank; i++)
        if (tensor->dims[i] < 0) return true;
    return false;
}

/* The dynamic inputs' dims into their rows. */
static bool read_given(const struct tensors_object *self, PyObject *given, uint64_t (*dims)[SIDECAML_MAX_RANK]) {
    Py_ssize_t next = 0;
    for (uint32_t i = 0; i < self->inputs; i++) {
        uint32_t rank;
        if (!is_dynamic(&self->tensors[i])) continue;
        if (next == PyTuple_Size(given)) {
            raise_invalid(self->state, "%zd dims were given, and the model has more dynamic inputs", next);
            return false;
        }
        if (!dims_of(self->state, PyTuple_GetItem(given, next++), dims[i], &rank)) return false;
        if (rank == self->tensors[i].rank) continue;
        raise_invalid(self->state, "%u dimensions were given for a tensor of %u", rank, self->tensors[i].rank);
        return false;
    }
    if (next == PyTuple_Size(given)) return true;
    raise_invalid(self->state, "%zd dims were given, and the model has %zd dynamic inputs", PyTuple_Size(given), next);
    return false;
}

static PyObject *dims_objects(const struct tensors_object *self, uint64_t (*dims)[SIDECAML_MAX_RANK],
                              const bool *known) {
    PyObject *all = PyTuple_New(self->count);
    for (uint32_t i = 0; all && i < self->count; i++) {
        PyObject *one = Py_None;
        if (known[i])
            one = tuple_of_dims(dims[i], self->tensors[i].rank);
        else
            Py_INCREF(one);
        if (!one || PyTuple_SetItem(all, i, one) < 0) Py_CLEAR(all);
    }
    return all;
}

static PyObject *tensors_request_dims(PyObject *object, PyObject *arg) {
    const struct tensors_object *self = (struct tensors_object *)object;
    uint64_t dims[SIDECAML_MAX_TENSORS][SIDECAML_MAX_RANK];
    bool known[SIDECAML_MAX_TENSORS];
    struct sidecaml_failure why;
    PyObject *given = PySequence_Tuple(arg);
    bool read = given && read_given(self, given, dims);
    Py_XDECREF(given);
    if (!read) return NULL;
    if (sidecaml_model_request_dims(self->tensors, self->inputs, self->count, dims, known, &why) < 0)
        return raise_failure(self->state, &why);
    return dims_objects(self, dims, known);
}

/* NULL with an exception set. */
static const struct sidecaml_session_tensor *output_of(const struct tensors_object *self, PyObject *number) {
    uint32_t index;
    if (!u32_of(number, &index)) return NULL;
    if (index >= self->inputs && index < self->count) return &self->tensors[index];
    raise_invalid(self->state, "tensor %u is no output", index);
    return NULL;
}

static PyObject *tensors_check_rank(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    const struct tensors_object *self = (struct tensors_object *)object;
    struct sidecaml_failure why;
    uint32_t rank;
    if (!check_count("check_rank", count, 2, 2)) return NULL;
    const struct sidecaml_session_tensor *output = output_of(self, args[0]);
    if (!output || !u32_of(args[1], &rank)) return NULL;
    if (sidecaml_model_check_rank(output, rank, &why) < 0) return raise_failure(self->state, &why);
    Py_RETURN_NONE;
}

static PyObject *tensors_check_output(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    const struct tensors_object *self = (struct tensors_object *)object;
    struct sidecaml_failure why;
    uint64_t dims[SIDECAML_MAX_RANK], max_dims[SIDECAML_MAX_RANK];
    uint32_t rank, max_rank;
    if (!check_count("check_output", count, 3, 3)) return NULL;
    const struct sidecaml_session_tensor *output = output_of(self, args[0]);
    if (!output || !dims_of(self->state, args[1], dims, &rank) || !dims_of(self->state, args[2], max_dims, &max_rank))
        return NULL;
    if (max_rank != output->rank)
        return raise_invalid(self->state, "%u dimensions were given for a tensor of %u", max_rank, output->rank);
    if (sidecaml_model_check_output(output, dims, rank, max_dims, &why) < 0) return raise_failure(self->state, &why);
    Py_RETURN_NONE;
}

static PyObject *tensors_check_text(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    const struct tensors_object *self = (struct tensors_object *)object;
    struct sidecaml_failure why;
    uint64_t bytes, room;
    if (!check_count("check_text", count, 3, 3)) return NULL;
    const struct sidecaml_session_tensor *output = output_of(self, args[0]);
    if (!output || !u64_of(args[1], &bytes) || !u64_of(args[2], &room)) return NULL;
    if (sidecaml_strings_check_room(output->name, bytes, room, &why) < 0) return raise_failure(self->state, &why);
    Py_RETURN_NONE;
}

static PyMethodDef tensors_methods[] = {
    {"request_dims", tensors_request_dims, METH_O,
     PyDoc_STR("request_dims(given, /)\n--\n\nDims of every tensor from those of the dynamic inputs; None where only "
               "the run can tell.")},
    {"check_rank", FAST(tensors_check_rank), METH_FASTCALL,
     PyDoc_STR("check_rank(output, rank, /)\n--\n\nUNSUPPORTED for a rank that is not declared.")},
    {"check_output", FAST(tensors_check_output), METH_FASTCALL,
     PyDoc_STR("check_output(output, dims, max_dims, /)\n--\n\nENGINE or OUTPUT_TOO_LARGE.")},
    {"check_text", FAST(tensors_check_text), METH_FASTCALL,
     PyDoc_STR("check_text(output, bytes, room, /)\n--\n\nOUTPUT_TOO_LARGE for text without room.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef tensors_getset[] = {
    {"inputs", tensors_inputs, NULL, PyDoc_STR("(name, dtype, shape) of each input"), NULL},
    {"outputs", tensors_outputs, NULL, PyDoc_STR("(name, dtype, shape) of each output"), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot tensors_slots[] = {
    {Py_tp_doc, PyDoc_STR("Tensors(inputs, outputs)\n--\n\nA model's inputs and outputs, which a channel can carry.")},
    {Py_tp_new, tensors_create},
    {Py_tp_dealloc, tensors_dealloc},
    {Py_tp_methods, tensors_methods},
    {Py_tp_getset, tensors_getset},
    {0, NULL},
};

PyType_Spec tensors_spec = {
    .name = "ipc_server._core.Tensors",
    .basicsize = sizeof(struct tensors_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tensors_slots,
};
