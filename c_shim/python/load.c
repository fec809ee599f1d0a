/* run_load: channels under load, for `sidecaml bench`. */
#include <string.h>

#include "core.h"
#include "sidecaml/load.h"

/* Buffers that are held until the load is over. */
struct held {
    Py_buffer *views;
    Py_ssize_t count;
};

/* A channel's part in a run. */
struct part {
    PyObject *channel; /* lent while `lent` is set */
    sidecaml_channel *lent;
    struct sidecaml_load load;
    struct sidecaml_load_result result;
};

/* What the loop is called with, and what it was made of. */
struct arguments {
    struct sidecaml_load load; /* of every channel, but for its seed and its share of the samples */
    PyObject *channels;        /* a tuple */
    struct part *parts;        /* one a channel */
    struct sidecaml_load_job *jobs;
    uint32_t count;
    struct held inputs, answers;
    const void **input_starts;
    uint64_t *input_bytes;
    struct sidecaml_load_answer *wanted;
    Py_buffer samples, stop;
};

struct turn {
    PyThreadState *thread; /* while the interpreter lock is not held */
    const volatile uint8_t *stop;
    bool raised;
};

/* --- Arguments --------------------------------------------------------------------------------------------------- */

static void let_go(struct held *held) {
    for (Py_ssize_t i = 0; i < held->count; i++)
        PyBuffer_Release(&held->views[i]);
    PyMem_Free(held->views);
    *held = (struct held){0};
}

static void give_all_back(struct arguments *arguments) {
    for (uint32_t i = 0; i < arguments->count; i++) {
        if (arguments->parts[i].lent) channel_give_back(arguments->parts[i].channel);
        arguments->parts[i].lent = NULL;
    }
}

static void forget(struct arguments *arguments) {
    Py_XDECREF(arguments->channels);
    PyMem_Free(arguments->parts);
    PyMem_Free(arguments->jobs);
    let_go(&arguments->inputs);
    let_go(&arguments->answers);
    PyMem_Free(arguments->input_starts);
    PyMem_Free(arguments->input_bytes);
    PyMem_Free(arguments->wanted);
    PyBuffer_Release(&arguments->samples);
    PyBuffer_Release(&arguments->stop);
}

static bool make_parts(struct arguments *out) {
    Py_ssize_t count = PyTuple_Size(out->channels);
    out->parts = PyMem_Calloc((size_t)count + 1, sizeof out->parts[0]);
    out->jobs = PyMem_Calloc((size_t)count + 1, sizeof out->jobs[0]);
    if (!out->parts || !out->jobs) {
        PyErr_NoMemory();
        return false;
    }
    out->count = (uint32_t)count;
    for (uint32_t i = 0; i < out->count; i++)
        out->parts[i].channel = PyTuple_GetItem(out->channels, i);
    return true;
}

static bool read_seeds(const struct core_state *state, PyObject *object, struct arguments *out) {
    PyObject *seeds = PySequence_Tuple(object);
    if (!seeds) return false;
    bool fits = PyTuple_Size(seeds) == (Py_ssize_t)out->count && out->count > 0;
    if (!fits) raise_invalid(state, "%zd seeds for %u channels: expected one each", PyTuple_Size(seeds), out->count);
    for (uint32_t i = 0; fits && i < out->count; i++) {
        out->parts[i].load.seed = PyLong_AsUnsignedLongLong(PyTuple_GetItem(seeds, i));
        fits = !PyErr_Occurred();
    }
    Py_DECREF(seeds);
    return fits;
}

static bool read_channels(const struct core_state *state, PyObject *channels, PyObject *seeds, struct arguments *out) {
    out->channels = PySequence_Tuple(channels);
    return out->channels && make_parts(out) && read_seeds(state, seeds, out);
}

static bool hold_row(const struct core_state *state, PyObject *row, uint32_t wanted, struct held *held) {
    PyObject *items = PySequence_Tuple(row);
    if (!items) return false;
    bool fits = PyTuple_Size(items) == (Py_ssize_t)wanted;
    if (!fits) raise_invalid(state, "a set has %zd buffers: the channel has %u tensors", PyTuple_Size(items), wanted);
    for (Py_ssize_t i = 0; fits && i < PyTuple_Size(items); i++) {
        fits = PyObject_GetBuffer(PyTuple_GetItem(items, i), &held->views[held->count], PyBUF_SIMPLE) == 0;
        held->count += fits;
    }
    Py_DECREF(items);
    return fits;
}

/* Sets of `wanted` buffers each; the number of sets, or -1 with an exception set. */
static Py_ssize_t hold_sets(const struct core_state *state, PyObject *object, uint32_t wanted, struct held *held) {
    PyObject *sets = PySequence_Tuple(object);
    if (!sets) return -1;
    Py_ssize_t count = PyTuple_Size(sets);
    bool is_held = true;
    held->views = PyMem_Calloc((size_t)count * wanted + 1, sizeof held->views[0]);
    if (!held->views) {
        PyErr_NoMemory();
        is_held = false;
    }
    for (Py_ssize_t i = 0; is_held && i < count; i++)
        is_held = hold_row(state, PyTuple_GetItem(sets, i), wanted, held);
    Py_DECREF(sets);
    return is_held ? count : -1;
}

static bool read_inputs(const struct core_state *state, const struct sidecaml_layout *layout, PyObject *object,
                        struct arguments *out) {
    uint32_t count = layout->input_count;
    Py_ssize_t sets = hold_sets(state, object, count, &out->inputs);
    if (sets < 0) return false;
    out->input_starts = PyMem_Calloc((size_t)out->inputs.count + 1, sizeof out->input_starts[0]);
    out->input_bytes = PyMem_Calloc((size_t)count + 1, sizeof out->input_bytes[0]);
    if (!out->input_starts || !out->input_bytes) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < out->inputs.count; i++) {
        const Py_buffer *view = &out->inputs.views[i];
        uint32_t input = (uint32_t)i % count;
        if (i < (Py_ssize_t)count) out->input_bytes[input] = (uint64_t)view->len;
        if ((uint64_t)view->len != out->input_bytes[input] || (uint64_t)view->len > layout->tensor[input].max_bytes) {
            raise_invalid(state, "input %u of a set: %zd bytes, where a slot has %llu and the first set %llu", input,
                          view->len, (unsigned long long)layout->tensor[input].max_bytes,
                          (unsigned long long)out->input_bytes[input]);
            return false;
        }
        out->input_starts[i] = view->buf;
    }
    out->load.sets = (uint32_t)sets;
    out->load.inputs = out->input_starts;
    out->load.input_bytes = out->input_bytes;
    return true;
}

static bool read_answers(const struct core_state *state, const struct sidecaml_layout *layout, PyObject *object,
                         struct arguments *out) {
    if (object == Py_None) return true;
    Py_ssize_t sets = hold_sets(state, object, layout->output_count, &out->answers);
    if (sets < 0) return false;
    if (sets != (Py_ssize_t)out->load.sets) {
        raise_invalid(state, "answers to %zd sets of inputs, and there are %u", sets, out->load.sets);
        return false;
    }
    out->wanted = PyMem_Calloc((size_t)out->answers.count + 1, sizeof out->wanted[0]);
    if (!out->wanted) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < out->answers.count; i++)
        out->wanted[i] = (struct sidecaml_load_answer){out->answers.views[i].buf, (uint64_t)out->answers.views[i].len};
    out->load.answers = out->wanted;
    return true;
}

static bool read_places(const struct core_state *state, PyObject *samples, PyObject *stop, struct arguments *out) {
    if (PyObject_GetBuffer(samples, &out->samples, PyBUF_WRITABLE) < 0 ||
        PyObject_GetBuffer(stop, &out->stop, PyBUF_SIMPLE) < 0)
        return false;
    if (out->stop.len < 1 || (uintptr_t)out->samples.buf % sizeof(uint64_t)) {
        raise_invalid(state, "samples need memory that is aligned to 8, and stop a byte");
        return false;
    }
    out->load.samples = out->samples.buf;
    out->load.room = (uint64_t)out->samples.len / sizeof(uint64_t);
    return true;
}

/* --- Running ----------------------------------------------------------------------------------------------------- */

static bool go_on(void *context) {
    struct turn *turn = context;
    PyEval_RestoreThread(turn->thread);
    turn->raised = PyErr_CheckSignals() < 0;
    turn->thread = PyEval_SaveThread();
    return !turn->raised && !*turn->stop;
}

static int run(struct arguments *arguments, struct sidecaml_failure *why, bool *raised) {
    struct turn turn = {.stop = arguments->stop.buf};
    for (uint32_t i = 0; i < arguments->count; i++) {
        arguments->parts[i].load.go_on = go_on;
        arguments->parts[i].load.context = &turn;
    }
    turn.thread = PyEval_SaveThread();
    int status = sidecaml_load_run_all(arguments->jobs, arguments->count, why);
    PyEval_RestoreThread(turn.thread);
    *raised = turn.raised;
    return status;
}

static uint64_t later(uint64_t one, uint64_t other) {
    return one > other ? one : other;
}

static void add(struct sidecaml_load_result *sum, const struct sidecaml_load_result *more) {
    for (int code = 0; code < SIDECAML_LOAD_CODES; code++)
        sum->counts[code] += more->counts[code];
    sum->sampled += more->sampled;
    sum->unsent += more->unsent;
    sum->late_by_worker += more->late_by_worker;
    sum->sent_late += more->sent_late;
    sum->no_slot += more->no_slot;
    sum->wrong += more->wrong;
    sum->ended_ns = later(sum->ended_ns, more->ended_ns);
    sum->answered_ns = later(sum->answered_ns, more->answered_ns);
    sum->cpu_ns += more->cpu_ns;
    sum->stopped |= more->stopped;
    sum->full |= more->full;
}

/* All channels together; their samples then follow one another. */
static struct sidecaml_load_result sum_up(const struct arguments *arguments) {
    struct sidecaml_load_result sum = {0};
    for (uint32_t i = 0; i < arguments->count; i++) {
        const struct part *part = &arguments->parts[i];
        memmove(arguments->load.samples + sum.sampled, part->load.samples, part->result.sampled * sizeof(uint64_t));
        add(&sum, &part->result);
    }
    return sum;
}

static PyObject *dict_of_counts(const struct sidecaml_load_result *result) {
    PyObject *counts = PyDict_New();
    for (long code = 0; counts && code < SIDECAML_LOAD_CODES; code++) {
        if (!result->counts[code]) continue;
        PyObject *key = PyLong_FromLong(code), *count = PyLong_FromUnsignedLongLong(result->counts[code]);
        if (!key || !count || PyDict_SetItem(counts, key, count) < 0) Py_CLEAR(counts);
        Py_XDECREF(key);
        Py_XDECREF(count);
    }
    return counts;
}

static PyObject *tuple_of(const struct sidecaml_load_result *result, int status) {
    PyObject *counts = dict_of_counts(result);
    if (!counts) return NULL;
    return Py_BuildValue("NKKKKKKKKNNi", counts, (unsigned long long)result->unsent, (unsigned long long)result->wrong,
                         (unsigned long long)result->late_by_worker, (unsigned long long)result->sent_late,
                         (unsigned long long)result->no_slot, (unsigned long long)result->ended_ns,
                         (unsigned long long)result->answered_ns, (unsigned long long)result->cpu_ns,
                         PyBool_FromLong(result->stopped), PyBool_FromLong(result->full), -status);
}

/* Inputs, answers and their places are those of the first, so the others must be like it. */
static bool is_like(const struct sidecaml_layout *one, const struct sidecaml_layout *other) {
    uint32_t tensors = one->input_count + one->output_count;
    return one->slot_count == other->slot_count && one->input_count == other->input_count &&
           one->output_count == other->output_count &&
           memcmp(one->tensor, other->tensor, tensors * sizeof one->tensor[0]) == 0;
}

static bool lend_all(const struct core_state *state, const struct sidecaml_layout *layout,
                     struct arguments *arguments) {
    uint64_t room = arguments->load.room / arguments->count;
    for (uint32_t i = 0; i < arguments->count; i++) {
        struct part *part = &arguments->parts[i];
        for (uint32_t before = 0; before < i; before++) {
            if (arguments->parts[before].channel != part->channel) continue;
            raise_invalid(state, "channel %u is channel %u once more: expected different ones", i, before);
            return false;
        }
        part->lent = channel_lend(state, part->channel);
        if (!part->lent) return false;
        if (!is_like(layout, sidecaml_channel_layout(part->lent))) {
            raise_invalid(state,
                          "channel %u has other slots or tensors than the first: expected the same model, "
                          "opened in the same way",
                          i);
            return false;
        }
        uint64_t seed = part->load.seed;
        part->load = arguments->load;
        part->load.seed = seed;
        part->load.samples = arguments->load.samples + i * room;
        part->load.room = room;
        arguments->jobs[i] = (struct sidecaml_load_job){part->lent, &part->load, &part->result};
    }
    return true;
}

static PyObject *run_on(const struct core_state *state, const struct sidecaml_layout *layout,
                        struct arguments *arguments) {
    struct sidecaml_failure why;
    bool raised = false, is_lent = lend_all(state, layout, arguments);
    int status = is_lent ? run(arguments, &why, &raised) : 0;
    give_all_back(arguments);
    if (!is_lent || raised) return NULL;
    if (status == -SIDECAML_E_INVALID || status == -SIDECAML_E_NO_MEMORY) return raise_failure(state, &why);
    struct sidecaml_load_result sum = sum_up(arguments);
    return tuple_of(&sum, status);
}

/* Only to read its layout: taking buffers may run Python code, which may close it. */
static bool read_layout(const struct core_state *state, PyObject *channel, struct sidecaml_layout *out) {
    sidecaml_channel *lent = channel_lend(state, channel);
    if (!lent) return false;
    *out = *sidecaml_channel_layout(lent);
    channel_give_back(channel);
    return true;
}

static PyObject *core_run_load(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"channels", "seeds",       "window", "burst",   "policy",  "rate", "start_ns", "measure_ns",
                            "end_ns",   "deadline_ns", "inputs", "answers", "samples", "stop", NULL};
    const struct core_state *state = PyModule_GetState(module);
    struct arguments arguments = {0};
    struct sidecaml_layout layout;
    PyObject *channels, *seeds, *window, *burst, *policy, *inputs, *answers, *samples, *stop, *result = NULL;
    unsigned long long start, measure, end, deadline;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOOOdKKKKOOOO:run_load", names, &channels, &seeds, &window,
                                     &burst, &policy, &arguments.load.rate, &start, &measure, &end, &deadline, &inputs,
                                     &answers, &samples, &stop) ||
        !u32_of(window, &arguments.load.window) || !u32_of(burst, &arguments.load.burst) ||
        !policy_of(state, policy, &arguments.load.policy))
        return NULL;
    arguments.load.deadline_ns = deadline;
    arguments.load.start_ns = start, arguments.load.measure_ns = measure, arguments.load.end_ns = end;
    if (read_channels(state, channels, seeds, &arguments) && read_layout(state, arguments.parts[0].channel, &layout) &&
        read_inputs(state, &layout, inputs, &arguments) && read_answers(state, &layout, answers, &arguments) &&
        read_places(state, samples, stop, &arguments))
        result = run_on(state, &layout, &arguments);
    forget(&arguments);
    return result;
}

PyMethodDef load_functions[] = {
    {"run_load", (PyCFunction)(void (*)(void))core_run_load, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("run_load(channels, seeds, window, burst, policy, rate, start_ns, measure_ns, end_ns, deadline_ns, "
               "inputs, answers, samples, stop)\n--\n\n"
               "Keep channels under load and note how long each request took.")},
    {NULL, NULL, 0, NULL},
};
