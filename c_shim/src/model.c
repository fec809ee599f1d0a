/* What makes a model, or one request's dimensions, something that a channel does not carry. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checked.h"
#include "failure.h"
#include "sidecaml/model.h"
#include "text.h"
#include "utf8.h"

/* --- Texts ------------------------------------------------------------------------------------------------------- */

static void add_name(struct text *text, const char *name) {
    text_add_quoted(text, name, strlen(name));
}

/* "[N, 64]" */
static void add_shape(struct text *text, const struct sidecaml_session_tensor *tensor) {
    text_add(text, "[");
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (i) text_add(text, ", ");
        if (tensor->dims[i] < 0)
            text_add(text, "%s", tensor->dim_names[i]);
        else
            text_add_dim(text, (uint64_t)tensor->dims[i]);
    }
    text_add(text, "]");
}

/* --- Loading ----------------------------------------------------------------------------------------------------- */

static int unreadable(const char *path, struct sidecaml_failure *why) {
    char what[SIDECAML_FAILURE_BYTES];
    struct text text = text_in(what, sizeof what);
    text_add(&text, "%s cannot be read", path);
    fail_errno(why, what);
    if (why) why->code = SIDECAML_E_MODEL_FAILED;
    return -SIDECAML_E_MODEL_FAILED;
}

static int check_content(const char *path, struct sidecaml_failure *why) {
    char first;
    /* Not blocking, should it have become a pipe just now. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return unreadable(path, why);
    ssize_t bytes = read(fd, &first, 1);
    int status = bytes < 0 ? unreadable(path, why) : 0;
    close(fd);
    if (bytes == 0) return fail(why, SIDECAML_E_MODEL_FAILED, "%s is empty: expected a model's file", path);
    return status;
}

int sidecaml_model_check_file(const char *path, size_t length, struct sidecaml_failure *why) {
    struct stat about;
    if (memchr(path, '\0', length)) {
        char quoted[SIDECAML_FAILURE_BYTES];
        struct text text = text_in(quoted, sizeof quoted);
        text_add_quoted(&text, path, length);
        return fail(why, SIDECAML_E_MODEL_FAILED, "%s is no path: it holds a NUL", quoted);
    }
    if (stat(path, &about) == 0) {
        if (S_ISDIR(about.st_mode))
            return fail(why, SIDECAML_E_MODEL_FAILED, "%s is a directory: expected a model's file", path);
        if (!S_ISREG(about.st_mode))
            return fail(why, SIDECAML_E_MODEL_FAILED, "%s is no regular file: expected a model's file", path);
    }
    return check_content(path, why);
}

int sidecaml_model_not_loaded(const char *path, const char *text, size_t length, struct sidecaml_failure *why) {
    char sentence[SIDECAML_FAILURE_BYTES];
    sidecaml_sentence(text, length, sentence, sizeof sentence);
    return fail(why, SIDECAML_E_MODEL_FAILED, "%s could not be loaded as an ONNX model: %s", path, sentence);
}

/* --- Tensors ----------------------------------------------------------------------------------------------------- */

/* ONNX has its own names for these two. */
static uint32_t dtype_of_element(const char *name, size_t length) {
    if (length == 5 && memcmp(name, "float", 5) == 0) return SIDECAML_FLOAT32;
    if (length == 6 && memcmp(name, "double", 6) == 0) return SIDECAML_FLOAT64;
    uint32_t dtype = sidecaml_dtype_of_name(name, length);
    return dtype == SIDECAML_FLOAT32 || dtype == SIDECAML_FLOAT64 ? 0 : dtype;
}

void sidecaml_session_tensor_clear(struct sidecaml_session_tensor *tensor) {
    for (uint32_t i = 0; tensor->dim_names && i < tensor->rank; i++)
        free(tensor->dim_names[i]);
    free(tensor->dim_names);
    free(tensor->dims);
    free(tensor->type);
    free(tensor->name);
}

uint32_t sidecaml_dtype_of_type(const char *type) {
    static const char before[] = "tensor(";
    size_t length = strlen(type), around = sizeof before; /* with the bracket that closes it */
    if (length <= around || memcmp(type, before, around - 1) != 0 || type[length - 1] != ')') return 0;
    return dtype_of_element(type + around - 1, length - around);
}

static int check_name(const char *name, struct sidecaml_failure *why) {
    for (size_t at = 0, length = strlen(name), bytes; at < length; at += bytes) {
        bytes = utf8_length(name + at, length - at, NULL);
        if (bytes) continue;
        char quoted[SIDECAML_FAILURE_BYTES / 2];
        struct text text = text_in(quoted, sizeof quoted);
        text_add_quoted_bytes(&text, name, length);
        return fail(why, SIDECAML_E_UNSUPPORTED, "the name %s of an input, output or dimension is not UTF-8: rename it",
                    quoted);
    }
    return 0;
}

static int check_names(const struct sidecaml_session_tensor *tensor, struct sidecaml_failure *why) {
    int status = check_name(tensor->name, why);
    for (uint32_t i = 0; status == 0 && i < tensor->rank; i++)
        status = check_name(tensor->dim_names[i], why);
    return status;
}

static int check_type(const struct sidecaml_session_tensor *tensor, const char *kind, struct sidecaml_failure *why) {
    char buffer[SIDECAML_FAILURE_BYTES];
    struct text text = text_in(buffer, sizeof buffer);
    text_add(&text, "%s ", kind);
    add_name(&text, tensor->name);
    if (!tensor->dtype) {
        text_add(&text, " is a %s: a channel carries tensors of ", tensor->type);
        const char *between = "";
#define ADD_DTYPE(NAME, name, code, bits)                                                                              \
    text_add(&text, "%s%s", between, #name);                                                                           \
    between = ", ";
        SIDECAML_DTYPES(ADD_DTYPE)
#undef ADD_DTYPE
        return fail(why, SIDECAML_E_UNSUPPORTED, "%s", buffer);
    }
    if (tensor->rank > SIDECAML_MAX_RANK)
        return fail(why, SIDECAML_E_UNSUPPORTED, "%s has %u dimensions: a channel carries at most %d", buffer,
                    tensor->rank, SIDECAML_MAX_RANK);
    return 0;
}

static int check_size(const struct sidecaml_session_tensor *tensor, const char *kind, struct sidecaml_failure *why) {
    uint64_t dims[SIDECAML_MAX_RANK], bytes;
    char buffer[SIDECAML_FAILURE_BYTES];
    struct text text = text_in(buffer, sizeof buffer);
    text_add(&text, "%s ", kind);
    add_name(&text, tensor->name);
    text_add(&text, " is declared as ");
    add_shape(&text, tensor);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (tensor->dims[i] > SIDECAML_LARGEST_DIM)
            return fail(why, SIDECAML_E_UNSUPPORTED, "%s: a dimension is at most 2^40", buffer);
        dims[i] = tensor->dims[i] > 0 ? (uint64_t)tensor->dims[i] : 1;
    }
    if (!sidecaml_tensor_bytes(tensor->dtype, dims, tensor->rank, &bytes))
        return fail(why, SIDECAML_E_UNSUPPORTED, "%s: a tensor has at most 2^62 bytes", buffer);
    return 0;
}

int sidecaml_model_check_tensors(const struct sidecaml_session_tensor *tensors, uint32_t inputs, uint32_t count,
                                 struct sidecaml_failure *why) {
    int status = 0;
    for (uint32_t i = 0; status == 0 && i < count; i++)
        status = check_names(&tensors[i], why);
    if (status < 0) return status;
    if (count > SIDECAML_MAX_TENSORS)
        return fail(why, SIDECAML_E_UNSUPPORTED,
                    "the model has %u inputs and %u outputs: a channel carries at most %d together", inputs,
                    count - inputs, SIDECAML_MAX_TENSORS);
    for (uint32_t i = 0; status == 0 && i < count; i++) {
        const char *kind = i < inputs ? "input" : "output";
        status = check_type(&tensors[i], kind, why);
        if (status == 0) status = check_size(&tensors[i], kind, why);
    }
    return status;
}

char *sidecaml_model_dim_name(const char *tensor, uint32_t axis) {
    size_t room = strlen(tensor) + sizeof "[4294967295]";
    char *name = malloc(room);
    if (!name) return NULL;
    struct text text = text_in(name, room);
    text_add(&text, "%s[%u]", tensor, axis);
    return name;
}

int sidecaml_model_check_rank(const struct sidecaml_session_tensor *output, uint32_t rank,
                              struct sidecaml_failure *why) {
    /* Zeros as axes, say, give another rank than a request's own values: what declares a rank is held to it then. */
    if (output->rank || !rank) return 0;
    char buffer[SIDECAML_FAILURE_BYTES];
    struct text text = text_in(buffer, sizeof buffer);
    text_add(&text, "output ");
    add_name(&text, output->name);
    /* ONNX Runtime shows an output without a declared shape as if it were a scalar. */
    text_add(&text, " is declared with 0 dimensions, or without a shape, and has %u: export the model with its shape",
             rank);
    return fail(why, SIDECAML_E_UNSUPPORTED, "%s", buffer);
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

/* What is said of a request is cut to what a slot holds, on every path. */
#define MESSAGE_ROOM (SIDECAML_MESSAGE_BYTES + 1)

static bool is_dynamic(const struct sidecaml_session_tensor *tensor) {
    for (uint32_t i = 0; i < tensor->rank; i++)
        if (tensor->dims[i] < 0) return true;
    return false;
}

/* A model's tensors and the dims of one request. */
struct request {
    const struct sidecaml_session_tensor *tensors;
    uint32_t inputs;
    uint64_t (*dims)[SIDECAML_MAX_RANK];
};

/* The first of the dynamic inputs' dims of a name, up to and without (tensor, axis): its size, and which input's. */
static const struct sidecaml_session_tensor *find_dim(const struct request *request, const char *name, uint32_t tensor,
                                                      uint32_t axis, uint64_t *size) {
    for (uint32_t i = 0; i < request->inputs && i <= tensor; i++) {
        const struct sidecaml_session_tensor *input = &request->tensors[i];
        for (uint32_t j = 0; j < input->rank && (i < tensor || j < axis); j++) {
            if (input->dims[j] >= 0 || strcmp(input->dim_names[j], name) != 0) continue;
            *size = request->dims[i][j];
            return input;
        }
    }
    return NULL;
}

static int other_than_declared(const struct sidecaml_session_tensor *input, const uint64_t *dims,
                               struct sidecaml_failure *why) {
    char buffer[MESSAGE_ROOM];
    struct text text = text_in(buffer, sizeof buffer);
    text_add(&text, "input ");
    add_name(&text, input->name);
    text_add(&text, " came as ");
    text_add_dims(&text, dims, input->rank);
    text_add(&text, ": the model takes ");
    add_shape(&text, input);
    return fail(why, SIDECAML_E_BAD_DIMS, "%s", buffer);
}

static int two_sizes(const char *name, const struct sidecaml_session_tensor *first, uint64_t first_size,
                     const struct sidecaml_session_tensor *second, uint64_t second_size, struct sidecaml_failure *why) {
    char buffer[MESSAGE_ROOM];
    struct text text = text_in(buffer, sizeof buffer);
    text_add(&text, "dimension ");
    add_name(&text, name);
    text_add(&text, " must be one size: it is ");
    text_add_dim(&text, first_size);
    text_add(&text, " in input ");
    add_name(&text, first->name);
    text_add(&text, " and ");
    text_add_dim(&text, second_size);
    text_add(&text, " in input ");
    add_name(&text, second->name);
    return fail(why, SIDECAML_E_BAD_DIMS, "%s", buffer);
}

static int check_input(const struct request *request, uint32_t tensor, struct sidecaml_failure *why) {
    const struct sidecaml_session_tensor *input = &request->tensors[tensor];
    const uint64_t *dims = request->dims[tensor];
    for (uint32_t i = 0; i < input->rank; i++) {
        uint64_t size;
        if (input->dims[i] >= 0) {
            if (dims[i] != (uint64_t)input->dims[i]) return other_than_declared(input, dims, why);
            continue;
        }
        const struct sidecaml_session_tensor *first = find_dim(request, input->dim_names[i], tensor, i, &size);
        if (first && size != dims[i]) return two_sizes(input->dim_names[i], first, size, input, dims[i], why);
    }
    return 0;
}

/* False when some dimension is not known. */
static bool find_dims(const struct request *request, const struct sidecaml_session_tensor *output, uint64_t *dims) {
    uint64_t found[SIDECAML_MAX_RANK] = {0};
    for (uint32_t i = 0; i < output->rank; i++) {
        if (output->dims[i] >= 0)
            found[i] = (uint64_t)output->dims[i];
        else if (!find_dim(request, output->dim_names[i], request->inputs, 0, &found[i]))
            return false;
    }
    memcpy(dims, found, output->rank * sizeof found[0]);
    return true;
}

int sidecaml_model_request_dims(const struct sidecaml_session_tensor *tensors, uint32_t inputs, uint32_t count,
                                uint64_t (*dims)[SIDECAML_MAX_RANK], bool *known, struct sidecaml_failure *why) {
    const struct request request = {.tensors = tensors, .inputs = inputs, .dims = dims};
    for (uint32_t i = 0; i < inputs; i++) {
        known[i] = true;
        int status = 0;
        if (is_dynamic(&tensors[i]))
            status = check_input(&request, i, why);
        else
            find_dims(&request, &tensors[i], dims[i]);
        if (status < 0) return status;
    }
    for (uint32_t i = inputs; i < count; i++)
        known[i] = find_dims(&request, &tensors[i], dims[i]);
    return 0;
}

/* --- Outputs ----------------------------------------------------------------------------------------------------- */

static bool is_as_declared(const struct sidecaml_session_tensor *output, const uint64_t *dims, uint32_t rank) {
    if (rank != output->rank) return false;
    for (uint32_t i = 0; i < rank; i++)
        if (output->dims[i] >= 0 && dims[i] != (uint64_t)output->dims[i]) return false;
    return true;
}

static bool is_within(const uint64_t *dims, const uint64_t *max_dims, uint32_t rank) {
    for (uint32_t i = 0; i < rank; i++)
        if (dims[i] > max_dims[i]) return false;
    return true;
}

static uint64_t bytes_of(const struct sidecaml_session_tensor *output, const uint64_t *dims) {
    uint64_t bytes;
    return sidecaml_tensor_bytes(output->dtype, dims, output->rank, &bytes) ? bytes : UINT64_MAX;
}

int sidecaml_model_check_output(const struct sidecaml_session_tensor *output, const uint64_t *dims, uint32_t rank,
                                const uint64_t *max_dims, struct sidecaml_failure *why) {
    char buffer[MESSAGE_ROOM];
    struct text text = text_in(buffer, sizeof buffer);
    bool declared = is_as_declared(output, dims, rank);
    if (declared && is_within(dims, max_dims, rank)) return 0;
    text_add(&text, "output ");
    add_name(&text, output->name);
    text_add(&text, " came out as ");
    text_add_dims(&text, dims, rank);
    if (!declared) {
        text_add(&text, " and the model declares ");
        add_shape(&text, output);
        text_add(&text, ": export it with the true shape");
        return fail(why, SIDECAML_E_ENGINE, "%s", buffer);
    }
    text_add(&text, ", ");
    text_add_dim(&text, bytes_of(output, dims));
    text_add(&text, " bytes, and the channel has room for ");
    text_add_dims(&text, max_dims, rank);
    text_add(&text, ": open with larger dims");
    return fail(why, SIDECAML_E_OUTPUT_TOO_LARGE, "%s", buffer);
}
