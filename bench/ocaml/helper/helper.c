#define _GNU_SOURCE /* pthread_attr_setaffinity_np */
#include "helper.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "atomics.h"
#include "failure.h"

#define THREADS 1

enum mode { ASLEEP, AWAKE, ENDED };

struct helper {
    sidecaml_session *session;
    sidecaml_binding *binding;
    pthread_t thread;
    bool started;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* the mode */
    struct sidecaml_failure why;
    int status; /* of the last run */
    /* A pair of lines each way: neither side's store takes a line from the other that it does not wait for. */
    _Alignas(SIDECAML_LINE_PAIR) _Atomic uint64_t request; /* number of the last call; the caller's */
    _Atomic uint32_t mode;                                 /* the caller's, too */
    _Alignas(SIDECAML_LINE_PAIR) _Atomic uint64_t answer;  /* number of the last call answered; the helper's */
};

/* --- The helper's side ------------------------------------------------------------------------------------------- */

static void serve(struct helper *helper) {
    uint64_t answered = load64(&helper->answer, relaxed); /* nobody else writes it */
    /* Relaxed: the mode orders nothing. Should it be seen late, then only the next turn of the loop ends. */
    while (load32(&helper->mode, relaxed) == AWAKE) {
        /* Acquire, from the release in helper_run: the inputs filled for this call are read, and its outputs are
         * written after the caller has read those of the call before. */
        uint64_t request = load64(&helper->request, acquire);
        if (request == answered) {
            cpu_relax();
            continue;
        }
        helper->status = sidecaml_binding_run(helper->binding, &helper->why);
        answered = request;
        /* Release: the caller's acquire finds all outputs and the status, and fills no input that is still read. */
        store64(&helper->answer, answered, release);
    }
}

static enum mode sleep_until_changed(struct helper *helper) {
    pthread_mutex_lock(&helper->mutex);
    while (load32(&helper->mode, relaxed) == ASLEEP)
        pthread_cond_wait(&helper->changed, &helper->mutex);
    enum mode mode = load32(&helper->mode, relaxed);
    pthread_mutex_unlock(&helper->mutex);
    return mode;
}

static void *help(void *argument) {
    struct helper *helper = argument;
    while (sleep_until_changed(helper) != ENDED)
        serve(helper);
    return NULL;
}

/* --- The caller's side ------------------------------------------------------------------------------------------- */

static void set_mode(struct helper *helper, enum mode mode) {
    pthread_mutex_lock(&helper->mutex);
    store32(&helper->mode, mode, relaxed);
    pthread_cond_signal(&helper->changed);
    pthread_mutex_unlock(&helper->mutex);
}

void helper_wake(struct helper *helper) {
    set_mode(helper, AWAKE);
}

void helper_rest(struct helper *helper) {
    set_mode(helper, ASLEEP);
}

int helper_run(struct helper *helper) {
    uint64_t request = load64(&helper->request, relaxed) + 1; /* nobody else writes it */
    store64(&helper->request, request, release);
    while (load64(&helper->answer, acquire) != request)
        cpu_relax();
    return helper->status;
}

const char *helper_problem(const struct helper *helper) {
    return helper->why.text;
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

static int check_fixed(const struct sidecaml_session_tensor *tensor, struct sidecaml_failure *why) {
    for (uint32_t i = 0; i < tensor->rank; i++)
        if (tensor->dims[i] < 0)
            return fail(why, SIDECAML_E_INVALID,
                        "tensor \"%s\": dimension %u is dynamic; the benchmark takes models of fixed dimensions",
                        tensor->name, i);
    if (tensor->dtype && tensor->rank <= SIDECAML_MAX_RANK) return 0;
    return fail(why, SIDECAML_E_INVALID, "tensor \"%s\" is a %s with %u dimensions, which no channel carries",
                tensor->name, tensor->type, tensor->rank);
}

static int load(const char *model, struct helper *helper, struct sidecaml_failure *why) {
    uint32_t inputs, count = 0;
    int status = sidecaml_session_create(model, THREADS, &helper->session, why);
    if (status == 0) status = sidecaml_binding_create(helper->session, &helper->binding, why);
    if (status < 0) return status;
    const struct sidecaml_session_tensor *tensors = sidecaml_session_tensors(helper->session, &inputs, &count);
    for (uint32_t i = 0; status == 0 && i < count; i++)
        status = check_fixed(&tensors[i], why);
    return status;
}

int helper_open(const char *model, struct helper **out, struct sidecaml_failure *why) {
    struct helper *helper = aligned_alloc(_Alignof(struct helper), sizeof *helper);
    if (!helper) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a helper");
    memset(helper, 0, sizeof *helper);
    pthread_mutex_init(&helper->mutex, NULL);
    pthread_cond_init(&helper->changed, NULL);
    int status = load(model, helper, why);
    if (status < 0) {
        helper_close(helper);
        return status;
    }
    *out = helper;
    return 0;
}

const struct sidecaml_session_tensor *helper_tensors(const struct helper *helper, uint32_t *inputs, uint32_t *count) {
    return sidecaml_session_tensors(helper->session, inputs, count);
}

int helper_bind(struct helper *helper, uint32_t tensor, void *address, struct sidecaml_failure *why) {
    uint32_t inputs, count;
    const struct sidecaml_session_tensor *found = &helper_tensors(helper, &inputs, &count)[tensor];
    uint64_t dims[SIDECAML_MAX_RANK];
    for (uint32_t i = 0; i < found->rank; i++)
        dims[i] = (uint64_t)found->dims[i];
    return tensor < inputs
               ? sidecaml_binding_input(helper->binding, found->name, found->dtype, dims, found->rank, address, why)
               : sidecaml_binding_output(helper->binding, found->name, found->dtype, dims, found->rank, address, why);
}

static int start_on(struct helper *helper, pthread_attr_t *attributes, int core, struct sidecaml_failure *why) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET((size_t)core, &cores);
    int error = pthread_attr_setaffinity_np(attributes, sizeof cores, &cores);
    if (!error) error = pthread_create(&helper->thread, attributes, help, helper);
    helper->started = !error;
    return error ? fail(why, SIDECAML_E_SYSTEM, "a helper thread on core %d: %s", core, strerror(error)) : 0;
}

int helper_start(struct helper *helper, int core, struct sidecaml_failure *why) {
    pthread_attr_t attributes;
    if (core < 0 || core >= CPU_SETSIZE) return fail(why, SIDECAML_E_INVALID, "there is no core %d", core);
    pthread_attr_init(&attributes);
    int status = start_on(helper, &attributes, core, why);
    pthread_attr_destroy(&attributes);
    return status;
}

void helper_close(struct helper *helper) {
    if (!helper) return;
    if (helper->started) {
        set_mode(helper, ENDED);
        pthread_join(helper->thread, NULL);
    }
    sidecaml_binding_destroy(helper->binding);
    sidecaml_session_destroy(helper->session);
    pthread_cond_destroy(&helper->changed);
    pthread_mutex_destroy(&helper->mutex);
    free(helper);
}
