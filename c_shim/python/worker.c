/* Worker: the serving side. It takes one request at a time; attached channels are numbered by the C core. */
#include <stdio.h>
#include <string.h>

#include "core.h"

/* A worker that spins never sees a signal by itself: handlers get their turn this often. */
#define SPIN_TURN_NS 100000000u

struct worker_object {
    PyObject ob_base;
    sidecaml_worker *worker; /* NULL once closed */
    const struct core_state *state;
    struct sidecaml_request request;
    enum sidecaml_policy policy;
    bool running;           /* `request` was taken and is not complete */
    bool waiting;           /* a thread is inside `next` without the interpreter lock */
    PyObject *batches_with; /* the session or callable, once set_batching was called; else NULL */
#ifdef SIDECAML_NATIVE
    struct callable_batches batches;
#endif
    uint32_t served_count;
    struct served *served; /* each attached channel; without a hold where there is none */
};

struct served {
    struct hold *hold;
    uint32_t slots;
};

/* After the arguments were read: reading one may run Python code (`__index__`), and that may close the worker. */
static bool usable(const struct worker_object *self) {
    if (self->worker && !self->waiting) return true;
    raise_invalid(self->state, self->worker ? "another thread waits on the worker, or it is dropping what calls this"
                                            : "the worker is closed");
    return false;
}

static struct worker_object *usable_worker(PyObject *object) {
    struct worker_object *self = (struct worker_object *)object;
    return usable(self) ? self : NULL;
}

static struct worker_object *running_worker(PyObject *object) {
    struct worker_object *self = usable_worker(object);
    if (!self || self->running) return self;
    raise_invalid(self->state, "the worker runs no request: take one with next()");
    return NULL;
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

static PyObject *worker_create(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"status_fd", "control_fd", "policy", "page", NULL};
    struct core_state *state = PyType_GetModuleState(type);
    PyObject *status_object, *control_object, *policy_object, *page_object = NULL;
    int status_fd, control_fd;
    uint32_t page = 0;
    enum sidecaml_policy policy;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOO|O:Worker", names, &status_object, &control_object,
                                     &policy_object, &page_object) ||
        !fd_of(status_object, &status_fd) || !fd_of(control_object, &control_fd) ||
        !policy_of(state, policy_object, &policy) || (page_object && !u32_of(page_object, &page)))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct worker_object *self = (struct worker_object *)allocate(type, 0);
    if (!self) return NULL;
    struct sidecaml_failure why;
    self->state = state;
    self->policy = policy;
    if (sidecaml_worker_create(status_fd, page, control_fd, policy, &self->worker, &why) < 0) {
        self->worker = NULL;
        raise_failure(state, &why);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static bool served_init(struct served *served, uint32_t slots) {
    *served = (struct served){.hold = hold_new(), .slots = slots};
    return served->hold;
}

static void served_clear(struct served *served) {
    PyMem_Free(served->hold);
    *served = (struct served){0};
}

static void drop_served(struct worker_object *self) {
    for (uint32_t i = 0; i < self->served_count; i++)
        served_clear(&self->served[i]);
    PyMem_Free(self->served);
    self->served = NULL;
    self->served_count = 0;
}

static void destroy(struct worker_object *self) {
    self->waiting = true; /* what it drops may run Python code, which must not find it half there */
    sidecaml_worker_destroy(self->worker);
    self->worker = NULL;
    self->waiting = self->running = false;
    drop_served(self);
    Py_CLEAR(self->batches_with);
}

static void worker_dealloc(PyObject *object) {
    destroy((struct worker_object *)object);
    free_object(object);
}

static PyObject *worker_close(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct worker_object *self = (struct worker_object *)object;
    if (!self->worker) Py_RETURN_NONE;
    if (!usable(self)) return NULL;
    for (uint32_t i = 0; i < self->served_count; i++)
        if (!hold_may_close(self->served[i].hold)) return NULL;
    destroy(self);
    Py_RETURN_NONE;
}

/* --- Channels ---------------------------------------------------------------------------------------------------- */

/* Room for one more channel: the C core, too, fills a gap before it adds a place. */
static bool make_room(struct worker_object *self) {
    uint32_t channel = 0;
    while (channel < self->served_count && self->served[channel].hold)
        channel++;
    if (channel < self->served_count) return true;
    struct served *served = PyMem_Realloc(self->served, (channel + 1) * sizeof served[0]);
    if (!served) return false;
    served[channel] = (struct served){0};
    self->served = served;
    self->served_count = channel + 1;
    return true;
}

/* All of it before the worker is looked at: reading an argument may run Python code. */
static bool attached_fds_of(PyObject *const *args, Py_ssize_t count, struct sidecaml_worker_fds *fds, uint32_t *how) {
    fds->journal = -1;
    *how = 0;
    return check_count("attach", count, 4, 6) && fd_of(args[0], &fds->segment) && fd_of(args[1], &fds->request) &&
           fd_of(args[2], &fds->answer) && (count < 5 || args[4] == Py_None || fd_of(args[4], &fds->journal)) &&
           (count < 6 || u32_of(args[5], how));
}

static PyObject *worker_attach(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct sidecaml_worker_fds fds;
    uint32_t how;
    if (!attached_fds_of(args, count, &fds, &how)) return NULL;
    struct worker_object *self = usable_worker(object);
    if (!self) return NULL;
    const struct sidecaml_layout *layout = layout_of(self->state, args[3]);
    /* Before the descriptors change hands: nothing may fail afterwards. */
    struct served served;
    if (!layout || !served_init(&served, layout->slot_count)) return NULL;
    struct sidecaml_failure why;
    int channel =
        make_room(self) ? sidecaml_worker_attach(self->worker, &fds, layout, how, &why) : -SIDECAML_E_NO_MEMORY;
    if (channel < 0) {
        served_clear(&served);
        return channel == -SIDECAML_E_NO_MEMORY ? PyErr_NoMemory() : raise_failure(self->state, &why);
    }
    self->served[channel] = served;
    return PyLong_FromLong(channel);
}

static PyObject *worker_join_crowd(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    int fd;
    uint32_t entry, threads, cores;
    if (!check_count("join_crowd", count, 4, 4) || !fd_of(args[0], &fd) || !u32_of(args[1], &entry) ||
        !u32_of(args[2], &threads) || !u32_of(args[3], &cores))
        return NULL;
    struct worker_object *self = usable_worker(object);
    if (!self) return NULL;
    struct sidecaml_failure why;
    if (sidecaml_worker_join_crowd(self->worker, fd, entry, threads, cores, &why) < 0)
        return raise_failure(self->state, &why);
    Py_RETURN_NONE;
}

static PyObject *worker_broken(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct worker_object *self = usable_worker(object);
    if (!self) return NULL;
    PyObject *broken = PyList_New(0);
    int channel;
    while (broken && (channel = sidecaml_worker_broken(self->worker)) >= 0) {
        PyObject *number = PyLong_FromLong(channel);
        if (!number || PyList_Append(broken, number) < 0) Py_CLEAR(broken);
        Py_XDECREF(number);
    }
    return broken;
}

static struct hold *hold_of(const struct worker_object *self, uint32_t channel) {
    struct hold *hold = channel < self->served_count ? self->served[channel].hold : NULL;
    if (!hold) raise_invalid(self->state, "the worker has no channel %u", channel);
    return hold;
}

static PyObject *worker_detach(PyObject *object, PyObject *arg) {
    uint32_t channel;
    if (!u32_of(arg, &channel)) return NULL;
    struct worker_object *self = usable_worker(object);
    if (!self) return NULL;
    struct hold *hold = hold_of(self, channel);
    if (!hold) return NULL;
    if (self->running && self->request.channel == channel)
        return raise_invalid(self->state, "channel %u has a running request: complete it first", channel);
    if (!hold_may_close(hold)) return NULL;
    self->waiting = true; /* as in destroy */
    sidecaml_worker_detach(self->worker, channel);
    self->waiting = false;
    served_clear(&self->served[channel]);
    Py_RETURN_NONE;
}

/* Channel, slot and tensor to a place; NULL with an exception set. */
static void *place_of(PyObject *object, PyObject *const *args, Py_ssize_t count, struct hold **hold, uint64_t *bytes) {
    uint32_t channel, slot, tensor;
    if (!check_count("tensor", count, 3, 3) || !u32_of(args[0], &channel) || !u32_of(args[1], &slot) ||
        !u32_of(args[2], &tensor))
        return NULL;
    struct worker_object *self = usable_worker(object);
    if (!self) return NULL;
    *hold = hold_of(self, channel);
    if (!*hold) return NULL;
    void *place = sidecaml_worker_tensor(self->worker, channel, slot, tensor);
    if (!place)
        raise_invalid(self->state, "channel %u has no slot %u or no tensor %u", channel, slot, tensor);
    else
        *bytes = sidecaml_worker_layout(self->worker, channel)->tensor[tensor].max_bytes;
    return place;
}

static PyObject *worker_tensor(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct hold *hold;
    uint64_t bytes;
    void *place = place_of(object, args, count, &hold, &bytes);
    return place ? memory_new(state_of(object), object, hold, place, bytes) : NULL;
}

static PyObject *worker_tensor_address(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct hold *hold;
    uint64_t bytes;
    void *place = place_of(object, args, count, &hold, &bytes);
    return place ? PyLong_FromVoidPtr(place) : NULL;
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

/* Without the interpreter lock, until there is something or a signal handler should have its turn. */
static int wait_once(struct worker_object *self, uint64_t timeout_ns) {
    bool spins = self->policy == SIDECAML_SPIN && timeout_ns > SPIN_TURN_NS;
    int status;
    self->waiting = true;
    Py_BEGIN_ALLOW_THREADS;
    status = sidecaml_worker_next(self->worker, spins ? SPIN_TURN_NS : timeout_ns, &self->request);
    Py_END_ALLOW_THREADS;
    self->waiting = false;
    return status;
}

static uint64_t remaining(uint64_t end_ns) {
    if (end_ns == UINT64_MAX) return UINT64_MAX;
    uint64_t now = sidecaml_now_ns();
    return now < end_ns ? end_ns - now : 0;
}

/* 1 taken, 0 nothing, -1 with an exception set. */
static int wait_for_request(struct worker_object *self, uint64_t timeout_ns) {
    uint64_t now = sidecaml_now_ns();
    uint64_t end = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
    for (uint64_t left = timeout_ns; left; left = remaining(end)) {
        int status = wait_once(self, left);
        if (status == 1) return 1;
        /* A signal handler may close the worker. */
        if (PyErr_CheckSignals() < 0 || !usable(self)) return -1;
        if (status == -SIDECAML_E_AGAIN) return 0;
        if (status != -SIDECAML_E_TIMEOUT && status != -SIDECAML_E_PENDING) {
            raise_code(self->state, status, NULL);
            return -1;
        }
    }
    return 0;
}

static PyObject *tuple_of_request(const struct sidecaml_request *request) {
    PyObject *channel = PyLong_FromUnsignedLong(request->channel);
    PyObject *slot = PyLong_FromUnsignedLong(request->slot);
    PyObject *tuple = channel && slot ? PyTuple_Pack(2, channel, slot) : NULL;
    Py_XDECREF(channel);
    Py_XDECREF(slot);
    return tuple;
}

static PyObject *worker_next(PyObject *object, PyObject *timeout) {
    uint64_t timeout_ns = UINT64_MAX;
    if (timeout != Py_None && !u64_of(timeout, &timeout_ns)) return NULL;
    struct worker_object *self = usable_worker(object);
    if (!self) return NULL;
    if (self->running) return raise_invalid(self->state, "the worker runs a request: complete it before the next");
    int taken = sidecaml_worker_next(self->worker, 0, &self->request);
    if (taken == -SIDECAML_E_PENDING) taken = wait_for_request(self, timeout_ns);
    if (taken == -1) return NULL;
    if (taken != 1) Py_RETURN_NONE;
    self->running = true;
    return tuple_of_request(&self->request);
}

static PyObject *worker_started(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct worker_object *self = running_worker(object);
    if (!self) return NULL;
    sidecaml_worker_started(self->worker, &self->request);
    Py_RETURN_NONE;
}

static PyObject *finish(struct worker_object *self, uint32_t code, const char *message) {
    int given_up = sidecaml_worker_complete(self->worker, &self->request, -(int)code, message);
    self->running = false;
    return PyBool_FromLong(given_up);
}

static PyObject *worker_complete(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint32_t code = 0;
    if (!check_count("complete", count, 0, 2) || (count > 0 && !u32_of(args[0], &code))) return NULL;
    struct worker_object *self = running_worker(object);
    if (!self) return NULL;
    if (code > INT16_MAX) return raise_invalid(self->state, "%u is no error code", code);
    if (count < 2 || args[1] == Py_None) return finish(self, code, NULL);
    /* A message that UTF-8 cannot hold must not keep the request from completing. */
    PyObject *bytes = PyUnicode_AsEncodedString(args[1], "utf-8", "replace");
    if (!bytes) return NULL;
    PyObject *result = finish(self, code, PyBytes_AsString(bytes));
    Py_DECREF(bytes);
    return result;
}

#ifdef SIDECAML_NATIVE

/* What serve() runs no longer. */
static void take_back(void *binding) {
    binding_give_back(binding);
    Py_DECREF((PyObject *)binding);
}

/* What bind() was called with: dims of each dynamic tensor. */
struct to_bind {
    uint32_t channel, slot;
    PyObject *binding; /* borrowed; NULL for none */
    uint64_t state, next_state;
    int together;
    uint32_t count;
    uint32_t ranks[SIDECAML_MAX_TENSORS];
    uint64_t rows[SIDECAML_MAX_TENSORS][SIDECAML_MAX_RANK];
};

static bool rows_of(const struct core_state *state, PyObject *given, struct to_bind *out) {
    Py_ssize_t count = PyTuple_Size(given);
    if (count > SIDECAML_MAX_TENSORS) {
        raise_invalid(state, "a channel has at most %d tensors, and %zd dims were given", SIDECAML_MAX_TENSORS, count);
        return false;
    }
    out->count = (uint32_t)count;
    for (uint32_t i = 0; i < out->count; i++)
        if (!dims_of(state, PyTuple_GetItem(given, i), out->rows[i], &out->ranks[i])) return false;
    return true;
}

/* All of it before the worker is looked at: reading an argument may run Python code. */
static bool to_bind_of(const struct core_state *state, PyObject *const *args, Py_ssize_t count, struct to_bind *out) {
    out->state = 0;
    if (!check_count("bind", count, 3, 7) || !u32_of(args[0], &out->channel) || !u32_of(args[1], &out->slot) ||
        (count > 4 && !u64_of(args[4], &out->state)))
        return false;
    out->next_state = out->state;
    if (count > 5 && !u64_of(args[5], &out->next_state)) return false;
    out->together = count > 6 ? PyObject_IsTrue(args[6]) : 1;
    if (out->together < 0) return false;
    out->binding = args[2] == Py_None ? NULL : args[2];
    PyObject *given = count > 3 ? PySequence_Tuple(args[3]) : PyTuple_New(0);
    bool read = given && rows_of(state, given, out);
    Py_XDECREF(given);
    return read;
}

/* One row for each dynamic tensor, of its rank. */
static bool has_rows(const struct core_state *state, const struct sidecaml_layout *layout,
                     const struct to_bind *asked) {
    uint32_t dynamic = 0;
    for (uint32_t i = 0; i < layout->input_count + layout->output_count; i++) {
        const struct sidecaml_tensor_descriptor *tensor = &layout->tensor[i];
        if (!(tensor->flags & SIDECAML_TENSOR_DYNAMIC)) continue;
        if (dynamic < asked->count && asked->ranks[dynamic] != tensor->rank) {
            raise_invalid(state, "%u dimensions were given for a tensor of %u", asked->ranks[dynamic], tensor->rank);
            return false;
        }
        dynamic++;
    }
    if (asked->count == dynamic) return true;
    raise_invalid(state, "%u dims were given, and the channel has %u dynamic tensors", asked->count, dynamic);
    return false;
}

static bool is_callable(PyObject *object) {
    if (!PyCallable_Check(object))
        PyErr_Format(PyExc_TypeError, "expected a Binding, a callable or None, got %R", object);
    return PyCallable_Check(object);
}

/* As in destroy: the runner that goes may run Python code. */
static int bind_slot(struct worker_object *self, const struct to_bind *asked, const struct sidecaml_bound *bound,
                     struct sidecaml_failure *why) {
    self->waiting = true;
    int status = sidecaml_worker_bind(self->worker, asked->channel, asked->slot, bound, why);
    self->waiting = false;
    return status;
}

static PyObject *bind(struct worker_object *self, const struct to_bind *asked) {
    struct sidecaml_failure why;
    if (!hold_of(self, asked->channel)) return NULL;
    if (asked->slot >= self->served[asked->channel].slots)
        return raise_invalid(self->state, "channel %u has no slot %u", asked->channel, asked->slot);
    if (!asked->binding) {
        bind_slot(self, asked, NULL, &why);
        Py_RETURN_NONE;
    }
    bool is_binding = Py_IS_TYPE(asked->binding, self->state->binding_type);
    if (!has_rows(self->state, sidecaml_worker_layout(self->worker, asked->channel), asked) ||
        !(is_binding ? binding_lend(self->state, asked->binding, &self->waiting) : is_callable(asked->binding)))
        return NULL;
    Py_INCREF(asked->binding);
    void (*drop)(void *) = is_binding ? take_back : callable_drop;
    const struct sidecaml_bound bound = {.run = is_binding ? binding_runner : callable_runner,
                                         .context = asked->binding,
                                         .drop = drop,
                                         .state = asked->state,
                                         .next_state = asked->next_state,
                                         .alone = !asked->together,
                                         .dims = asked->rows};
    if (bind_slot(self, asked, &bound, &why) == 0) Py_RETURN_NONE;
    drop(asked->binding);
    return raise_failure(self->state, &why);
}

static PyObject *worker_bind(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct to_bind asked;
    if (!to_bind_of(state_of(object), args, count, &asked)) return NULL;
    struct worker_object *self = usable_worker(object);
    return self ? bind(self, &asked) : NULL;
}

/* So many numbers of a sequence, each at least `least`; false with an exception set. */
static bool read_numbers(PyObject *object, const char *what, Py_ssize_t count, long long least, long long *out) {
    PyObject *tuple = PySequence_Tuple(object);
    if (!tuple) return false;
    bool valid = PyTuple_Size(tuple) == count;
    if (!valid) PyErr_Format(PyExc_ValueError, "%s: expected %zd numbers, got %zd", what, count, PyTuple_Size(tuple));
    for (Py_ssize_t i = 0; valid && i < count; i++) {
        out[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
        valid = !(out[i] == -1 && PyErr_Occurred());
        if (valid && out[i] < least) {
            PyErr_Format(PyExc_ValueError, "%s: number %zd is %lld, and at least %lld is possible", what, i, out[i],
                         least);
            valid = false;
        }
    }
    Py_DECREF(tuple);
    return valid;
}

/* All that set_batching is given besides the session. */
struct asked_batching {
    uint32_t most, gather_from, rest_from;
    long long costs_ns[SIDECAML_MOST_BATCH + 1], axes[SIDECAML_MAX_TENSORS];
    Py_ssize_t tensors;
};

static bool asked_batching_of(const struct core_state *state, PyObject *const *args, Py_ssize_t count,
                              struct asked_batching *out) {
    if (!check_count("set_batching", count, 6, 6) || !u32_of(args[1], &out->most) ||
        !u32_of(args[2], &out->gather_from) || !u32_of(args[3], &out->rest_from))
        return false;
    out->tensors = PySequence_Size(args[5]);
    if (out->tensors < 0) return false;
    if (out->most > SIDECAML_MOST_BATCH || out->tensors > SIDECAML_MAX_TENSORS) {
        raise_invalid(state, "a run has at most %u requests, and a model at most %d tensors", SIDECAML_MOST_BATCH,
                      SIDECAML_MAX_TENSORS);
        return false;
    }
    return read_numbers(args[4], "costs_ns", out->most + 1, 0, out->costs_ns) &&
           read_numbers(args[5], "axes", out->tensors, SIDECAML_SHARED, out->axes);
}

static PyObject *worker_set_batching(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    const struct core_state *state = state_of(object);
    struct asked_batching asked;
    struct sidecaml_batching batching = {0};
    struct sidecaml_failure why;
    uint64_t costs_ns[SIDECAML_MOST_BATCH + 1];
    int32_t axes[SIDECAML_MAX_TENSORS];
    if (!asked_batching_of(state, args, count, &asked)) return NULL;
    bool is_callable = PyCallable_Check(args[0]);
    if (!is_callable && !session_batches(state, args[0], &batching)) return NULL;
    struct worker_object *self = usable_worker(object);
    if (!self) return NULL;
    struct callable_batches made = {args[0], (uint32_t)asked.tensors};
    if (is_callable) callable_batches(&self->batches, &batching);
    for (uint32_t i = 0; i <= asked.most; i++)
        costs_ns[i] = (uint64_t)asked.costs_ns[i];
    for (Py_ssize_t i = 0; i < asked.tensors; i++)
        axes[i] = asked.axes[i] > SIDECAML_MAX_RANK ? SIDECAML_MAX_RANK : (int32_t)asked.axes[i];
    batching.most = asked.most;
    batching.gather_from = asked.gather_from;
    batching.rest_from = asked.rest_from;
    batching.tensor_count = (uint32_t)asked.tensors;
    batching.costs_ns = costs_ns;
    batching.axes = axes;
    if (sidecaml_worker_set_batching(self->worker, &batching, &why) < 0) return raise_failure(self->state, &why);
    Py_INCREF(args[0]);
    self->batches = made;
    self->batches_with = args[0];
    Py_RETURN_NONE;
}

static int serve_once(struct worker_object *self, uint64_t timeout_ns, struct sidecaml_failure *why) {
    int status;
    self->waiting = true;
    Py_BEGIN_ALLOW_THREADS;
    status = sidecaml_worker_serve(self->worker, timeout_ns, &self->request, why);
    Py_END_ALLOW_THREADS;
    self->waiting = false;
    return status;
}

/* (channel, slot, None), or with the text of the run's failure. */
static PyObject *request_to_finish(const struct worker_object *self, const struct sidecaml_failure *why) {
    const char *text = why->code ? why->text : NULL;
    PyObject *failure = text ? PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace") : NULL;
    if (text && !failure) return NULL;
    if (!failure) {
        Py_INCREF(Py_None);
        failure = Py_None;
    }
    return Py_BuildValue("IIN", self->request.channel, self->request.slot, failure);
}

static PyObject *worker_serve(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct worker_object *self = usable_worker(object);
    if (!self) return NULL;
    if (self->running) return raise_invalid(self->state, "the worker runs a request: complete it before the next");
    uint64_t turn_ns = self->policy == SIDECAML_SPIN ? SPIN_TURN_NS : UINT64_MAX;
    struct sidecaml_failure why;
    int status;
    do {
        status = serve_once(self, turn_ns, &why);
        /* A signal handler may close the worker. */
        if (status != 1 && (PyErr_CheckSignals() < 0 || !usable(self))) return NULL;
    } while (status == -SIDECAML_E_TIMEOUT);
    if (status == -SIDECAML_E_AGAIN) Py_RETURN_NONE;
    if (status != 1) return raise_code(self->state, status, NULL);
    self->running = true;
    return request_to_finish(self, &why);
}

#endif

static const char *tensor_name(const struct worker_object *self, uint32_t tensor, char *room, size_t size) {
    const struct sidecaml_layout *layout = sidecaml_worker_layout(self->worker, self->request.channel);
    snprintf(room, size, "%.*s", SIDECAML_NAME_BYTES, (const char *)layout->tensor[tensor].name);
    return room;
}

/* For a result below 0 of get_dims and set_dims. */
static PyObject *raise_dims(const struct worker_object *self, int status, uint32_t tensor) {
    const struct sidecaml_layout *layout = sidecaml_worker_layout(self->worker, self->request.channel);
    char text[256], name[SIDECAML_NAME_BYTES + 1];
    if (tensor >= layout->input_count + layout->output_count)
        return raise_invalid(self->state, "the channel has no tensor %u", tensor);
    if (status == -SIDECAML_E_INVALID)
        return raise_invalid(self->state, "tensor \"%s\" has another number of dimensions, or fixed ones",
                             tensor_name(self, tensor, name, sizeof name));
    snprintf(text, sizeof text, "tensor \"%s\": dimensions beyond the largest that the channel was opened with",
             tensor_name(self, tensor, name, sizeof name));
    return raise_code(self->state, status, text);
}

static PyObject *worker_get_dims(PyObject *object, PyObject *arg) {
    uint64_t dims[SIDECAML_MAX_RANK];
    uint32_t tensor;
    if (!u32_of(arg, &tensor)) return NULL;
    struct worker_object *self = running_worker(object);
    if (!self) return NULL;
    int rank = sidecaml_worker_get_dims(self->worker, &self->request, tensor, dims);
    return rank < 0 ? raise_dims(self, rank, tensor) : tuple_of_dims(dims, (uint32_t)rank);
}

static PyObject *worker_set_dims(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t dims[SIDECAML_MAX_RANK];
    uint32_t tensor, rank;
    if (!check_count("set_dims", count, 2, 2) || !u32_of(args[0], &tensor) ||
        !dims_of(state_of(object), args[1], dims, &rank))
        return NULL;
    struct worker_object *self = running_worker(object);
    if (!self) return NULL;
    int status = sidecaml_worker_set_dims(self->worker, &self->request, tensor, dims, rank);
    if (status < 0) return raise_dims(self, status, tensor);
    Py_RETURN_NONE;
}

static PyObject *worker_set_needed(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t dims[SIDECAML_MAX_RANK];
    uint32_t tensor, rank;
    if (!check_count("set_needed", count, 2, 2) || !u32_of(args[0], &tensor) ||
        !dims_of(state_of(object), args[1], dims, &rank))
        return NULL;
    struct worker_object *self = running_worker(object);
    if (!self) return NULL;
    int status = sidecaml_worker_set_needed(self->worker, &self->request, tensor, dims, rank);
    if (status < 0) return raise_dims(self, status, tensor);
    Py_RETURN_NONE;
}

static PyObject *worker_set_text_needed(PyObject *object, PyObject *arg) {
    uint64_t bytes;
    if (!u64_of(arg, &bytes)) return NULL;
    struct worker_object *self = running_worker(object);
    if (!self) return NULL;
    sidecaml_worker_set_text_needed(self->worker, &self->request, bytes);
    Py_RETURN_NONE;
}

static PyObject *worker_attempts(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct worker_object *self = running_worker(object);
    return self ? PyLong_FromUnsignedLong(self->request.attempts) : NULL;
}

/* --- The journal ------------------------------------------------------------------------------------------------- */

/* The channel that a method's only argument names; NULL with an exception set. */
static struct worker_object *worker_with_channel(PyObject *object, PyObject *arg, uint32_t *channel) {
    if (!u32_of(arg, channel)) return NULL;
    struct worker_object *self = usable_worker(object);
    return self && hold_of(self, *channel) ? self : NULL;
}

static PyObject *worker_interrupted(PyObject *object, PyObject *arg) {
    uint32_t channel;
    struct worker_object *self = worker_with_channel(object, arg, &channel);
    return self ? PyLong_FromUnsignedLong(sidecaml_worker_interrupted(self->worker, channel)) : NULL;
}

static PyObject *worker_journal(PyObject *object, PyObject *arg) {
    uint32_t channel;
    struct worker_object *self = worker_with_channel(object, arg, &channel);
    if (!self) return NULL;
    uint64_t bytes;
    void *place = sidecaml_worker_journal(self->worker, channel, &bytes);
    return Py_BuildValue("NK", PyLong_FromVoidPtr(place), (unsigned long long)bytes);
}

static PyObject *worker_carried(PyObject *object, PyObject *arg) {
    uint32_t channel;
    struct worker_object *self = worker_with_channel(object, arg, &channel);
    if (!self) return NULL;
    uint32_t committed = sidecaml_worker_committed(self->worker, channel);
    return Py_BuildValue("NI", PyBool_FromLong(committed & SIDECAML_CARRIED), committed & SIDECAML_PLACE);
}

static PyObject *worker_drop_carried(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct worker_object *self = running_worker(object);
    if (!self) return NULL;
    sidecaml_worker_drop_carried(self->worker, self->request.channel);
    Py_RETURN_NONE;
}

/* --- State ---------------------------------------------------------------------------------------------------------
 */

static PyObject *worker_state(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct worker_object *self = running_worker(object);
    return self ? PyLong_FromUnsignedLongLong(sidecaml_worker_state(self->worker, self->request.channel)) : NULL;
}

static PyObject *worker_resets(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct worker_object *self = running_worker(object);
    return self ? PyBool_FromLong(self->request.resets) : NULL;
}

/* Of a channel, not of a request: what a successor begins with. */
static PyObject *worker_begin_state(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t state;
    uint32_t channel;
    if (!check_count("begin_state", count, 2, 2) || !u64_of(args[1], &state)) return NULL;
    struct worker_object *self = worker_with_channel(object, args[0], &channel);
    if (!self) return NULL;
    sidecaml_worker_set_state(self->worker, channel, state);
    Py_RETURN_NONE;
}

static PyObject *worker_set_state(PyObject *object, PyObject *arg) {
    uint64_t state;
    if (!u64_of(arg, &state)) return NULL;
    struct worker_object *self = running_worker(object);
    if (!self) return NULL;
    sidecaml_worker_set_state(self->worker, self->request.channel, state);
    Py_RETURN_NONE;
}

/* --- Type -------------------------------------------------------------------------------------------------------- */

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef worker_methods[] = {
    {"attach", FAST(worker_attach), METH_FASTCALL,
     PyDoc_STR("attach(segment_fd, request_fd, answer_fd, layout, journal_fd=None, how=0, /)\n--\n\nMap and format a "
               "segment and serve it, or go on with it; the channel's index. Takes the descriptors over.")},
    {"join_crowd", FAST(worker_join_crowd), METH_FASTCALL,
     PyDoc_STR("join_crowd(fd, entry, threads, cores, /)\n--\n\nCount among the daemon's workers, with an entry of "
               "the crowd page `fd`. Takes the descriptor over.")},
    {"broken", worker_broken, METH_NOARGS,
     PyDoc_STR("broken()\n--\n\nThe channels whose clients took pages of their segments away, each told once.")},
    {"interrupted", worker_interrupted, METH_O,
     PyDoc_STR(
         "interrupted(channel, /)\n--\n\nHow often the request that a predecessor was running had been started.")},
    {"attempts", worker_attempts, METH_NOARGS,
     PyDoc_STR("attempts()\n--\n\nHow many workers began to run the request and died.")},
    {"journal", worker_journal, METH_O,
     PyDoc_STR("journal(channel, /)\n--\n\nAddress and size of the journal's memory for carried state.")},
    {"carried", worker_carried, METH_O,
     PyDoc_STR("carried(channel, /)\n--\n\nWhether state is committed, and the place, 0 or 1, where it lies.")},
    {"drop_carried", worker_drop_carried, METH_NOARGS,
     PyDoc_STR("drop_carried()\n--\n\nFrom now on the running request's channel carries nothing.")},
    {"detach", worker_detach, METH_O,
     PyDoc_STR("detach(channel, /)\n--\n\nUnmap a channel. BufferError while views of it exist.")},
    {"tensor", FAST(worker_tensor), METH_FASTCALL,
     PyDoc_STR("tensor(channel, slot, tensor, /)\n--\n\nThe memory of one tensor in one slot.")},
    {"tensor_address", FAST(worker_tensor_address), METH_FASTCALL,
     PyDoc_STR("tensor_address(channel, slot, tensor, /)\n--\n\nWhere that memory starts.")},
    {"next", worker_next, METH_O,
     PyDoc_STR("next(timeout_ns, /)\n--\n\nTake the next request: (channel, slot), or None when the time is over, the "
               "control socket is readable, or a signal came. None waits for ever.")},
    {"started", worker_started, METH_NOARGS, PyDoc_STR("started()\n--\n\nStamp the start of the request.")},
    {"complete", FAST(worker_complete), METH_FASTCALL,
     PyDoc_STR("complete(status=0, message=None, /)\n--\n\nPublish the end of the request: an error code, or 0. True "
               "when the client had given up.")},
    {"get_dims", worker_get_dims, METH_O,
     PyDoc_STR("get_dims(tensor, /)\n--\n\nThe dimensions of the request's input.")},
    {"set_dims", FAST(worker_set_dims), METH_FASTCALL,
     PyDoc_STR("set_dims(tensor, dims, /)\n--\n\nThe dimensions of an output, before complete.")},
    {"set_needed", FAST(worker_set_needed), METH_FASTCALL,
     PyDoc_STR("set_needed(tensor, dims, /)\n--\n\nThe true dimensions of a dynamic output, before OUTPUT_TOO_LARGE.")},
    {"set_text_needed", worker_set_text_needed, METH_O,
     PyDoc_STR("set_text_needed(bytes, /)\n--\n\nThe most text that an output has, before OUTPUT_TOO_LARGE.")},
#ifdef SIDECAML_NATIVE
    {"bind", FAST(worker_bind), METH_FASTCALL,
     PyDoc_STR("bind(channel, slot, binding, dims=(), state=0, next_state=state, together=True, /)\n--\n\nHave serve() "
               "run what comes to "
               "a slot with these dims, of each dynamic tensor, in this state of the channel; None ends all of it.")},
    {"set_batching", FAST(worker_set_batching), METH_FASTCALL,
     PyDoc_STR(
         "set_batching(session, most, gather_from, rest_from, costs_ns, axes, /)\n--\n\nRun requests of bound slots "
         "together from now on.")},
    {"serve", worker_serve, METH_NOARGS,
     PyDoc_STR("serve()\n--\n\nRun the requests of bound slots until there is something else: (channel, slot, "
               "failure) of a request to finish, or None.")},
#endif
    {"state", worker_state, METH_NOARGS,
     PyDoc_STR("state()\n--\n\nThe state of the running request's channel: 0 at first.")},
    {"resets", worker_resets, METH_NOARGS,
     PyDoc_STR("resets()\n--\n\nWhether the running request wants its channel's state to start anew.")},
    {"begin_state", FAST(worker_begin_state), METH_FASTCALL,
     PyDoc_STR("begin_state(channel, state, /)\n--\n\nThe state that a channel is in before a request runs.")},
    {"set_state", worker_set_state, METH_O, PyDoc_STR("set_state(state, /)\n--\n\nIts state from now on.")},
    {"close", worker_close, METH_NOARGS, PyDoc_STR("close()\n--\n\nDetach everything. BufferError while views exist.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot worker_slots[] = {
    {Py_tp_doc, PyDoc_STR("Worker(status_fd, control_fd, policy, page=0)\n--\n\nThe serving side; formats its page of "
                          "the status file and "
                          "takes its descriptor over.")},
    {Py_tp_new, worker_create},
    {Py_tp_dealloc, worker_dealloc},
    {Py_tp_methods, worker_methods},
    {0, NULL},
};

PyType_Spec worker_spec = {
    .name = "ipc_server._core.Worker",
    .basicsize = sizeof(struct worker_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = worker_slots,
};
