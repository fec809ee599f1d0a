/* The module itself: its state, its types and constants. */
#include "core.h"
#include "crash_point.h"
#include "cores.h"
#include "guard.h"

#ifdef SIDECAML_NATIVE
#define HAS_NATIVE true
#else
#define HAS_NATIVE false
#endif

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **out) {
    *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *out ? PyModule_AddType(module, *out) : -1;
}

static int add_error(struct core_state *state) {
    PyObject *errors = PyImport_ImportModule("ipc_server.errors");
    if (!errors) return -1;
    state->error = PyObject_GetAttrString(errors, "SidecamlError");
    Py_DECREF(errors);
    return state->error ? 0 : -1;
}

static int core_exec(PyObject *module) {
    struct core_state *state = PyModule_GetState(module);
    if (add_error(state) < 0) return -1;
    if (add_type(module, &layout_spec, &state->layout_type) < 0) return -1;
    if (add_type(module, &memory_spec, &state->memory_type) < 0) return -1;
    if (add_type(module, &worker_spec, &state->worker_type) < 0) return -1;
    if (add_type(module, &channel_spec, &state->channel_type) < 0) return -1;
    if (add_type(module, &tensors_spec, &state->tensors_type) < 0) return -1;
    if (PyModule_AddFunctions(module, tensors_functions) < 0) return -1;
    if (PyModule_AddFunctions(module, strings_functions) < 0) return -1;
    if (PyModule_AddFunctions(module, load_functions) < 0) return -1;
#ifdef SIDECAML_NATIVE
    if (add_type(module, &session_spec, &state->session_type) < 0) return -1;
    if (add_type(module, &binding_spec, &state->binding_type) < 0) return -1;
    if (PyModule_AddFunctions(module, onnxruntime_methods) < 0) return -1;
#endif
    if (PyModule_AddObjectRef(module, "NATIVE", HAS_NATIVE ? Py_True : Py_False) < 0) return -1;
    if (PyModule_AddIntConstant(module, "RESUME", SIDECAML_ATTACH_RESUME) < 0) return -1;
    if (PyModule_AddIntConstant(module, "STAGED", SIDECAML_ATTACH_STAGED) < 0) return -1;
    if (PyModule_AddIntConstant(module, "HIGH", SIDECAML_ATTACH_HIGH) < 0) return -1;
    if (PyModule_AddIntConstant(module, "ALONE", SIDECAML_ATTACH_ALONE) < 0) return -1;
    if (PyModule_AddIntConstant(module, "SPIN", SIDECAML_SPIN) < 0) return -1;
    if (PyModule_AddIntConstant(module, "ADAPTIVE", SIDECAML_ADAPTIVE) < 0) return -1;
    return PyModule_AddIntConstant(module, "BLOCK", SIDECAML_BLOCK);
}

static int core_traverse(PyObject *module, visitproc visit, void *arg) {
    struct core_state *state = PyModule_GetState(module);
    Py_VISIT(state->error);
    Py_VISIT(state->layout_type);
    Py_VISIT(state->memory_type);
    Py_VISIT(state->worker_type);
    Py_VISIT(state->channel_type);
    Py_VISIT(state->tensors_type);
#ifdef SIDECAML_NATIVE
    Py_VISIT(state->session_type);
    Py_VISIT(state->binding_type);
#endif
    return 0;
}

static int core_clear(PyObject *module) {
    struct core_state *state = PyModule_GetState(module);
    Py_CLEAR(state->error);
    Py_CLEAR(state->layout_type);
    Py_CLEAR(state->memory_type);
    Py_CLEAR(state->worker_type);
    Py_CLEAR(state->channel_type);
    Py_CLEAR(state->tensors_type);
#ifdef SIDECAML_NATIVE
    Py_CLEAR(state->session_type);
    Py_CLEAR(state->binding_type);
#endif
    return 0;
}

static void core_free(void *module) {
    core_clear(module);
}

static PyObject *core_exit_with_peer(PyObject *module, PyObject *arg) {
    int fd;
    struct sidecaml_failure why;
    if (!fd_of(arg, &fd)) return NULL;
    if (sidecaml_exit_with_peer(fd, &why) < 0) return raise_failure(PyModule_GetState(module), &why);
    Py_RETURN_NONE;
}

#ifdef SIDECAML_CRASH_POINTS
static PyObject *core_crash_point(PyObject *module, PyObject *name) {
    (void)module;
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    if (!text) return NULL;
    crash_point(text);
    Py_RETURN_NONE;
}
#endif

static PyObject *core_guard(PyObject *module, PyObject *Py_UNUSED(none)) {
    struct sidecaml_failure why;
    if (sidecaml_guard(&why) < 0) return raise_failure(PyModule_GetState(module), &why);
    Py_RETURN_NONE;
}

static PyObject *core_guard_again(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    guard_again();
    Py_RETURN_NONE;
}

static PyObject *core_hold_lifeline(PyObject *module, PyObject *arg) {
    int fd;
    struct sidecaml_failure why;
    if (!fd_of(arg, &fd)) return NULL;
    if (sidecaml_lifeline_hold(fd, &why) < 0) return raise_failure(PyModule_GetState(module), &why);
    Py_RETURN_NONE;
}

static PyObject *core_wait_lifeline(PyObject *module, PyObject *args) {
    int fd, status;
    unsigned long long timeout_ns;
    struct sidecaml_failure why;
    if (!PyArg_ParseTuple(args, "iK:wait_lifeline", &fd, &timeout_ns)) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = sidecaml_lifeline_wait(fd, timeout_ns, &why);
    Py_END_ALLOW_THREADS;
    if (status < 0) return raise_failure(PyModule_GetState(module), &why);
    return PyBool_FromLong(status);
}

static PyObject *core_usable_cores(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    struct cores cores;
    cores_read(&cores, "");
    return PyLong_FromUnsignedLong(cores_usable(&cores));
}

static PyMethodDef core_methods[] = {
#ifdef SIDECAML_CRASH_POINTS
    {"crash_point", core_crash_point, METH_O, NULL},
#endif
    {"guard", core_guard, METH_NOARGS,
     PyDoc_STR("guard()\n--\n\nSurvive clients that take pages of their segments away: install the handler of SIGBUS, "
               "or see that it still is.")},
    {"guard_again", core_guard_again, METH_NOARGS,
     PyDoc_STR("guard_again()\n--\n\nThe same, in a process where guard() was called.")},
    {"hold_lifeline", core_hold_lifeline, METH_O,
     PyDoc_STR("hold_lifeline(fd, /)\n--\n\nHave this thread hold page `fd` until its end.")},
    {"wait_lifeline", core_wait_lifeline, METH_VARARGS,
     PyDoc_STR("wait_lifeline(fd, timeout_ns, /)\n--\n\nWhether the thread that holds page `fd` is over by then.")},
    {"exit_with_peer", core_exit_with_peer, METH_O,
     PyDoc_STR("exit_with_peer(fd, /)\n--\n\nEnd the process at once when the other end of socket `fd` is gone.")},
    {"usable_cores", core_usable_cores, METH_NOARGS,
     PyDoc_STR("usable_cores()\n--\n\nHow many processors this thread may use, by affinity and cgroup quota.")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
    {0, NULL},
};

static PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ipc_server._core",
    .m_doc = PyDoc_STR("The C core of sidecaml: segments, the ring of tickets, waits."),
    .m_size = sizeof(struct core_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&core_module);
}
