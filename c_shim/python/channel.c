/* Channel: the client's side, the functions of sidecaml.h one to one. */
#include <stdio.h>
#include <string.h>

#include "core.h"
#include "word.h"

/* So long a wait spins with the interpreter lock held, because giving it up and getting it back may take longer. */
#define HELD_SPIN_NS 20000u

struct channel_object {
    PyObject ob_base;
    sidecaml_channel *channel; /* NULL once closed */
    const struct core_state *state;
    struct hold *hold;
    enum sidecaml_policy policy;
    bool waiting; /* a thread is inside `wait` without the interpreter lock */
};

/* After the arguments were read: reading one may run Python code (`__index__`), and that may close the channel. */
static struct channel_object *usable_channel(PyObject *object) {
    struct channel_object *self = (struct channel_object *)object;
    if (self->channel && !self->waiting) return self;
    raise_invalid(self->state, self->channel ? "another thread waits on the channel" : "the channel is closed");
    return NULL;
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

static bool read_fds(PyObject *const *objects, struct sidecaml_channel_fds *out) {
    return fd_of(objects[0], &out->segment) && fd_of(objects[1], &out->request) && fd_of(objects[2], &out->answer) &&
           fd_of(objects[3], &out->status) && fd_of(objects[4], &out->control);
}

static PyObject *channel_create(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"segment_fd", "request_fd",  "answer_fd", "status_fd",
                            "control_fd", "fingerprint", "policy",    NULL};
    struct core_state *state = PyType_GetModuleState(type);
    PyObject *objects[5], *fingerprint_object, *policy_object;
    struct sidecaml_channel_fds fds;
    uint64_t fingerprint;
    enum sidecaml_policy policy;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOOOOO:Channel", names, &objects[0], &objects[1], &objects[2],
                                     &objects[3], &objects[4], &fingerprint_object, &policy_object) ||
        !read_fds(objects, &fds) || !u64_of(fingerprint_object, &fingerprint) ||
        !policy_of(state, policy_object, &policy))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct channel_object *self = (struct channel_object *)allocate(type, 0);
    if (!self) return NULL;
    struct sidecaml_failure why;
    self->state = state;
    self->policy = policy;
    self->hold = hold_new();
    if (self->hold && sidecaml_channel_attach(&fds, fingerprint, policy, &self->channel, &why) < 0) {
        self->channel = NULL;
        raise_failure(state, &why);
    }
    if (!self->channel) Py_CLEAR(self);
    return (PyObject *)self;
}

static void destroy(struct channel_object *self) {
    PyMem_Free(self->hold);
    self->hold = NULL;
    sidecaml_channel_close(self->channel);
    self->channel = NULL;
}

static void channel_dealloc(PyObject *object) {
    destroy((struct channel_object *)object);
    free_object(object);
}

static PyObject *channel_close(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct channel_object *self = (struct channel_object *)object;
    if (!self->channel) Py_RETURN_NONE;
    if (!usable_channel(object) || !hold_may_close(self->hold)) return NULL;
    destroy(self);
    Py_RETURN_NONE;
}

sidecaml_channel *channel_lend(const struct core_state *state, PyObject *object) {
    if (!PyObject_TypeCheck(object, state->channel_type)) {
        PyErr_Format(PyExc_TypeError, "expected a Channel, got %R", object);
        return NULL;
    }
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    self->waiting = true;
    return self->channel;
}

void channel_give_back(PyObject *object) {
    ((struct channel_object *)object)->waiting = false;
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

static PyObject *raise_request_failure(const struct channel_object *self, int status, uint32_t slot) {
    char text[SIDECAML_MESSAGE_BYTES + 1];
    size_t length = sidecaml_channel_message(self->channel, slot, text, sizeof text);
    return raise_code(self->state, status, length ? text : NULL);
}

/* The exception of a result below 0 that concerns a slot's request. */
static PyObject *raise_result(const struct channel_object *self, int status, uint32_t slot) {
    if (status == -SIDECAML_E_INVALID) return raise_invalid(self->state, "slot %u holds no request of yours", slot);
    if (is_request_failure(status)) return raise_request_failure(self, status, slot);
    return raise_code(self->state, status, NULL);
}

static PyObject *channel_claim(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    int slot = sidecaml_channel_claim(self->channel);
    return slot < 0 ? raise_code(self->state, slot, NULL) : PyLong_FromLong(slot);
}

static PyObject *channel_submit(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t deadline = 0;
    if (!check_count("submit", count, 0, 1) || (count && !u64_of(args[0], &deadline))) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    int slot = sidecaml_channel_submit(self->channel, deadline);
    return slot < 0 ? raise_code(self->state, slot, NULL) : PyLong_FromLong(slot);
}

/* True when the request is done, False while it is under way. */
static PyObject *answer_of(const struct channel_object *self, int status, uint32_t slot) {
    if (status == 0) Py_RETURN_TRUE;
    if (status == -SIDECAML_E_PENDING) Py_RETURN_FALSE;
    return raise_result(self, status, slot);
}

static PyObject *channel_poll(PyObject *object, PyObject *arg) {
    uint32_t slot;
    if (!u32_of(arg, &slot)) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    return answer_of(self, sidecaml_channel_poll(self->channel, slot), slot);
}

static PyObject *channel_spin(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint32_t slot;
    uint64_t spin_ns;
    int status;
    if (!check_count("spin", count, 2, 2) || !u32_of(args[0], &slot) || !u64_of(args[1], &spin_ns)) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    self->waiting = true;
    Py_BEGIN_ALLOW_THREADS;
    status = sidecaml_channel_spin(self->channel, slot, spin_ns);
    Py_END_ALLOW_THREADS;
    self->waiting = false;
    return answer_of(self, status, slot);
}

static int wait_once(struct channel_object *self, uint32_t slot, uint64_t deadline_ns) {
    int status;
    self->waiting = true;
    Py_BEGIN_ALLOW_THREADS;
    status = sidecaml_channel_wait(self->channel, slot, deadline_ns);
    Py_END_ALLOW_THREADS;
    self->waiting = false;
    return status;
}

static PyObject *channel_wait(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint32_t slot;
    uint64_t deadline = 0;
    if (!check_count("wait", count, 1, 2) || !u32_of(args[0], &slot) || (count > 1 && !u64_of(args[1], &deadline)))
        return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    int status = self->policy == SIDECAML_BLOCK ? sidecaml_channel_poll(self->channel, slot)
                                                : sidecaml_channel_spin(self->channel, slot, HELD_SPIN_NS);
    while (status == -SIDECAML_E_PENDING || status == -SIDECAML_E_AGAIN) {
        status = wait_once(self, slot, deadline);
        /* A signal handler may close the channel. */
        if (status == -SIDECAML_E_AGAIN && (PyErr_CheckSignals() < 0 || !usable_channel(object))) return NULL;
    }
    if (status < 0) return raise_result(self, status, slot);
    Py_RETURN_NONE;
}

/* Waits with one of these, as long as the channel is usable, until there is a slot, whose number it gives. */
typedef int (*slot_wait)(sidecaml_channel *channel, uint64_t deadline_ns);

static int wait_for_slot_once(struct channel_object *self, slot_wait wait, uint64_t deadline_ns) {
    int slot;
    self->waiting = true;
    Py_BEGIN_ALLOW_THREADS;
    slot = wait(self->channel, deadline_ns);
    Py_END_ALLOW_THREADS;
    self->waiting = false;
    return slot;
}

static PyObject *wait_for_slot(PyObject *object, PyObject *const *args, Py_ssize_t count, const char *name,
                               slot_wait wait) {
    uint64_t deadline = 0;
    if (!check_count(name, count, 0, 1) || (count && !u64_of(args[0], &deadline))) return NULL;
    for (;;) {
        struct channel_object *self = usable_channel(object);
        if (!self) return NULL;
        int slot = wait_for_slot_once(self, wait, deadline);
        if (slot >= 0) return PyLong_FromLong(slot);
        if (slot == -SIDECAML_E_INVALID)
            return raise_invalid(self->state, "no slot holds a request whose end is not known yet: submit one");
        if (slot != -SIDECAML_E_AGAIN) return raise_code(self->state, slot, NULL);
        /* A signal handler may close the channel. */
        if (PyErr_CheckSignals() < 0) return NULL;
    }
}

static PyObject *channel_wait_any(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    return wait_for_slot(object, args, count, "wait_any", sidecaml_channel_wait_any);
}

static PyObject *channel_claim_wait(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    return wait_for_slot(object, args, count, "claim_wait", sidecaml_channel_claim_wait);
}

static PyObject *channel_claim_run(PyObject *object, PyObject *arg) {
    uint32_t most;
    if (!u32_of(arg, &most)) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    int count = sidecaml_channel_claim_run(self->channel, most);
    return count < 0 ? raise_code(self->state, count, NULL) : PyLong_FromLong(count);
}

static PyObject *channel_submit_run(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint32_t slots;
    uint64_t deadline = 0;
    if (!check_count("submit_run", count, 1, 2) || !u32_of(args[0], &slots) ||
        (count > 1 && !u64_of(args[1], &deadline)))
        return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    int slot = sidecaml_channel_submit_run(self->channel, slots, deadline);
    if (slot == -SIDECAML_E_INVALID)
        return raise_invalid(self->state, "not all of the next %u slots are free: ask claim_run how many are", slots);
    return slot < 0 ? raise_code(self->state, slot, NULL) : PyLong_FromLong(slot);
}

static PyObject *channel_release(PyObject *object, PyObject *arg) {
    uint32_t slot;
    if (!u32_of(arg, &slot)) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    if (sidecaml_channel_release(self->channel, slot) < 0)
        return raise_invalid(self->state, "slot %u holds no finished request of yours", slot);
    Py_RETURN_NONE;
}

static PyObject *channel_abandon(PyObject *object, PyObject *arg) {
    uint32_t slot;
    if (!u32_of(arg, &slot)) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    int status = sidecaml_channel_abandon(self->channel, slot);
    if (status < 0) return raise_result(self, status, slot);
    Py_RETURN_NONE;
}

/* --- Tensors ----------------------------------------------------------------------------------------------------- */

static bool place_args(const char *function, PyObject *const *args, Py_ssize_t count, Py_ssize_t wanted, uint32_t *slot,
                       uint32_t *tensor) {
    return check_count(function, count, wanted, wanted) && u32_of(args[0], slot) && u32_of(args[1], tensor);
}

static struct channel_object *usable_place(PyObject *object, uint32_t slot, uint32_t tensor) {
    struct channel_object *self = usable_channel(object);
    if (!self || sidecaml_channel_tensor(self->channel, slot, tensor)) return self;
    raise_invalid(self->state, "the channel has no slot %u or no tensor %u", slot, tensor);
    return NULL;
}

static PyObject *channel_tensor(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint32_t slot, tensor;
    if (!place_args("tensor", args, count, 2, &slot, &tensor)) return NULL;
    struct channel_object *self = usable_place(object, slot, tensor);
    if (!self) return NULL;
    return memory_new(self->state, object, self->hold, sidecaml_channel_tensor(self->channel, slot, tensor),
                      sidecaml_channel_layout(self->channel)->tensor[tensor].max_bytes);
}

static PyObject *channel_get_dims(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t dims[SIDECAML_MAX_RANK];
    uint32_t slot, tensor;
    if (!place_args("get_dims", args, count, 2, &slot, &tensor)) return NULL;
    struct channel_object *self = usable_place(object, slot, tensor);
    if (!self) return NULL;
    int rank = sidecaml_channel_get_dims(self->channel, slot, tensor, dims);
    return rank < 0 ? raise_code(self->state, rank, NULL) : tuple_of_dims(dims, (uint32_t)rank);
}

static PyObject *raise_no_need(const struct channel_object *self, uint32_t slot) {
    return raise_invalid(self->state, "slot %u holds no request that failed with OUTPUT_TOO_LARGE", slot);
}

static PyObject *channel_needed(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t dims[SIDECAML_MAX_RANK];
    uint32_t slot, tensor;
    if (!place_args("needed", args, count, 2, &slot, &tensor)) return NULL;
    struct channel_object *self = usable_place(object, slot, tensor);
    if (!self) return NULL;
    int rank = sidecaml_channel_needed(self->channel, slot, tensor, dims);
    return rank < 0 ? raise_no_need(self, slot) : tuple_of_dims(dims, (uint32_t)rank);
}

static PyObject *channel_text_needed(PyObject *object, PyObject *arg) {
    uint64_t bytes;
    uint32_t slot;
    if (!u32_of(arg, &slot)) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    if (sidecaml_channel_text_needed(self->channel, slot, &bytes) < 0) return raise_no_need(self, slot);
    return PyLong_FromUnsignedLongLong(bytes);
}

static PyObject *raise_set_dims(const struct channel_object *self, int status, uint32_t slot, uint32_t tensor) {
    const struct sidecaml_tensor_descriptor *of = &sidecaml_channel_layout(self->channel)->tensor[tensor];
    char text[256];
    if (of->flags & SIDECAML_TENSOR_OUTPUT)
        snprintf(text, sizeof text, "tensor \"%.*s\" is an output: its dimensions come with the answer",
                 SIDECAML_NAME_BYTES, (const char *)of->name);
    else if (status == -SIDECAML_E_BAD_DIMS)
        snprintf(text, sizeof text, "input \"%.*s\": dimensions beyond the largest that the channel was opened with",
                 SIDECAML_NAME_BYTES, (const char *)of->name);
    else
        snprintf(text, sizeof text,
                 "input \"%.*s\" has %u dimensions%s, or its slot %u is under way: wait for the answer first",
                 SIDECAML_NAME_BYTES, (const char *)of->name, of->rank,
                 of->flags & SIDECAML_TENSOR_DYNAMIC ? "" : ", all fixed", slot);
    return raise_code(self->state, status, text);
}

static PyObject *channel_set_dims(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t dims[SIDECAML_MAX_RANK];
    uint32_t slot, tensor, rank;
    if (!place_args("set_dims", args, count, 3, &slot, &tensor) || !dims_of(state_of(object), args[2], dims, &rank))
        return NULL;
    struct channel_object *self = usable_place(object, slot, tensor);
    if (!self) return NULL;
    int status = sidecaml_channel_set_dims(self->channel, slot, tensor, dims, rank);
    if (status < 0) return raise_set_dims(self, status, slot, tensor);
    Py_RETURN_NONE;
}

/* --- Event loops ------------------------------------------------------------------------------------------------- */

static PyObject *channel_arm(PyObject *object, PyObject *arg) {
    uint32_t slot;
    if (!u32_of(arg, &slot)) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    return PyBool_FromLong(sidecaml_channel_arm(self->channel, slot));
}

static PyObject *channel_disarm(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    sidecaml_channel_disarm(self->channel);
    Py_RETURN_NONE;
}

/* --- What happened ----------------------------------------------------------------------------------------------- */

static PyObject *channel_message(PyObject *object, PyObject *arg) {
    char text[SIDECAML_MESSAGE_BYTES + 1];
    uint32_t slot;
    if (!u32_of(arg, &slot)) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    size_t length = sidecaml_channel_message(self->channel, slot, text, sizeof text);
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)length, "replace");
}

static PyObject *channel_stamps(PyObject *object, PyObject *arg) {
    struct sidecaml_stamps stamps;
    uint32_t slot;
    if (!u32_of(arg, &slot)) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    if (sidecaml_channel_stamps(self->channel, slot, &stamps) < 0)
        return raise_invalid(self->state, "the channel has no slot %u", slot);
    return Py_BuildValue("KKKK", (unsigned long long)stamps.submitted_ns, (unsigned long long)stamps.seen_ns,
                         (unsigned long long)stamps.started_ns, (unsigned long long)stamps.finished_ns);
}

static PyObject *channel_gone_event(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    size_t bytes;
    const uint8_t *event = sidecaml_channel_gone_event(self->channel, &bytes);
    if (!event) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)event, (Py_ssize_t)bytes);
}

static PyObject *channel_set_policy(PyObject *object, PyObject *arg) {
    enum sidecaml_policy policy;
    if (!policy_of(state_of(object), arg, &policy)) return NULL;
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    self->policy = policy;
    sidecaml_channel_set_policy(self->channel, self->policy);
    Py_RETURN_NONE;
}

static PyObject *channel_set_stamps(PyObject *object, PyObject *arg) {
    int all = PyObject_IsTrue(arg);
    struct channel_object *self = all < 0 ? NULL : usable_channel(object);
    if (!self) return NULL;
    sidecaml_channel_set_stamps(self->channel, all);
    Py_RETURN_NONE;
}

static PyObject *channel_reset(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct channel_object *self = usable_channel(object);
    if (!self) return NULL;
    sidecaml_channel_reset(self->channel);
    Py_RETURN_NONE;
}

static PyObject *get_layout(PyObject *object, void *Py_UNUSED(closure)) {
    struct channel_object *self = usable_channel(object);
    return self ? layout_new(self->state, sidecaml_channel_layout(self->channel)) : NULL;
}

static PyObject *get_gone(PyObject *object, void *Py_UNUSED(closure)) {
    struct channel_object *self = usable_channel(object);
    return self ? PyBool_FromLong(sidecaml_channel_gone(self->channel)) : NULL;
}

static PyObject *get_closed(PyObject *object, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(!((struct channel_object *)object)->channel);
}

static PyObject *get_segment_fd(PyObject *object, void *Py_UNUSED(closure)) {
    struct channel_object *self = usable_channel(object);
    return self ? PyLong_FromLong(sidecaml_channel_segment_fd(self->channel)) : NULL;
}

static PyObject *get_answer_fd(PyObject *object, void *Py_UNUSED(closure)) {
    struct channel_object *self = usable_channel(object);
    return self ? PyLong_FromLong(sidecaml_channel_answer_fd(self->channel)) : NULL;
}

static PyObject *get_control_fd(PyObject *object, void *Py_UNUSED(closure)) {
    struct channel_object *self = usable_channel(object);
    return self ? PyLong_FromLong(sidecaml_channel_control_fd(self->channel)) : NULL;
}

/* --- Type -------------------------------------------------------------------------------------------------------- */

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef channel_methods[] = {
    {"claim", channel_claim, METH_NOARGS,
     PyDoc_STR("claim()\n--\n\nThe slot that the next submit takes, if it may be filled now.")},
    {"submit", FAST(channel_submit), METH_FASTCALL,
     PyDoc_STR("submit(deadline_ns=0, /)\n--\n\nPublish the claimed slot's request; the slot.")},
    {"poll", channel_poll, METH_O,
     PyDoc_STR("poll(slot, /)\n--\n\nTrue when the request is done, False while it is under way; its failure raises.")},
    {"spin", FAST(channel_spin), METH_FASTCALL,
     PyDoc_STR("spin(slot, spin_ns, /)\n--\n\nLike poll, looking for at most `spin_ns`.")},
    {"wait", FAST(channel_wait), METH_FASTCALL,
     PyDoc_STR("wait(slot, deadline_ns=0, /)\n--\n\nWait until the request is done; its failure, TIMEOUT and "
               "SERVER_GONE raise.")},
    {"wait_any", FAST(channel_wait_any), METH_FASTCALL,
     PyDoc_STR("wait_any(deadline_ns=0, /)\n--\n\nWait until any request ends that nobody was told of; its slot.")},
    {"claim_wait", FAST(channel_claim_wait), METH_FASTCALL,
     PyDoc_STR("claim_wait(deadline_ns=0, /)\n--\n\nAs claim, but waits while the slot is BUSY.")},
    {"claim_run", channel_claim_run, METH_O,
     PyDoc_STR("claim_run(most, /)\n--\n\nHow many slots from the next on may be filled now.")},
    {"submit_run", FAST(channel_submit_run), METH_FASTCALL,
     PyDoc_STR("submit_run(count, deadline_ns=0, /)\n--\n\nPublish the next `count` slots' requests at once; the first "
               "slot.")},
    {"release", channel_release, METH_O, PyDoc_STR("release(slot, /)\n--\n\nGive a finished slot back.")},
    {"abandon", channel_abandon, METH_O, PyDoc_STR("abandon(slot, /)\n--\n\nGive a request up at any stage.")},
    {"tensor", FAST(channel_tensor), METH_FASTCALL,
     PyDoc_STR("tensor(slot, tensor, /)\n--\n\nThe memory of one tensor in one slot.")},
    {"get_dims", FAST(channel_get_dims), METH_FASTCALL,
     PyDoc_STR("get_dims(slot, tensor, /)\n--\n\nDimensions of an input as set, or of an output as answered.")},
    {"set_dims", FAST(channel_set_dims), METH_FASTCALL,
     PyDoc_STR("set_dims(slot, tensor, dims, /)\n--\n\nDimensions of an input for the requests to come in `slot`.")},
    {"needed", FAST(channel_needed), METH_FASTCALL,
     PyDoc_STR("needed(slot, tensor, /)\n--\n\nDimensions of a tensor in a request that failed with "
               "OUTPUT_TOO_LARGE.")},
    {"text_needed", channel_text_needed, METH_O,
     PyDoc_STR("text_needed(slot, /)\n--\n\nThe most text that one of such a request's outputs has.")},
    {"arm", channel_arm, METH_O,
     PyDoc_STR("arm(slot, /)\n--\n\nAnnounce a sleep on answer_fd; True when it must not be slept.")},
    {"disarm", channel_disarm, METH_NOARGS, PyDoc_STR("disarm()\n--\n\nAfter waking; then poll.")},
    {"message", channel_message, METH_O, PyDoc_STR("message(slot, /)\n--\n\nThe text of a failed request.")},
    {"stamps", channel_stamps, METH_O,
     PyDoc_STR("stamps(slot, /)\n--\n\n(submitted, seen, started, finished) in ns; 0 when not taken.")},
    {"gone_event", channel_gone_event, METH_NOARGS,
     PyDoc_STR("gone_event()\n--\n\nThe daemon's last message to this channel, or None.")},
    {"set_policy", channel_set_policy, METH_O, PyDoc_STR("set_policy(policy, /)\n--\n\nHow to wait.")},
    {"reset", channel_reset, METH_NOARGS,
     PyDoc_STR("reset()\n--\n\nHave carried state start anew with the next request.")},
    {"set_stamps", channel_set_stamps, METH_O,
     PyDoc_STR("set_stamps(wanted, /)\n--\n\nTake stamps from now on, or none.")},
    {"close", channel_close, METH_NOARGS,
     PyDoc_STR("close()\n--\n\nUnmap and close everything. BufferError while views exist.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef channel_getset[] = {
    {"layout", get_layout, NULL, PyDoc_STR("The layout of its segment."), NULL},
    {"gone", get_gone, NULL, PyDoc_STR("Whether its waits have seen that daemon or worker is gone."), NULL},
    {"closed", get_closed, NULL, PyDoc_STR("Whether it is closed."), NULL},
    {"segment_fd", get_segment_fd, NULL, PyDoc_STR("Descriptor of the segment."), NULL},
    {"answer_fd", get_answer_fd, NULL, PyDoc_STR("Readable when an answer has come to who armed."), NULL},
    {"control_fd", get_control_fd, NULL, PyDoc_STR("Descriptor of the control socket."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot channel_slots[] = {
    {Py_tp_doc,
     PyDoc_STR("Channel(segment_fd, request_fd, answer_fd, status_fd, control_fd, fingerprint, policy)\n--\n\n"
               "The client's side of an open model; takes the descriptors over.")},
    {Py_tp_new, channel_create},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_methods, channel_methods},
    {Py_tp_getset, channel_getset},
    {0, NULL},
};

PyType_Spec channel_spec = {
    .name = "ipc_server._core.Channel",
    .basicsize = sizeof(struct channel_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = channel_slots,
};
