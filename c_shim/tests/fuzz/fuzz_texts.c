/* What models and requests say of themselves: any names, types, dimensions and strings are judged without a crash, and
 * what is said about them is short, valid UTF-8 without control characters. */
#include <string.h>

#include "fuzz.h"
#include "sidecaml/model.h"
#include "sidecaml/strings.h"
#include "utf8.h"

#define TENSORS_MOST 4

static void check_sentence(const char *text, size_t room) {
    size_t length = strlen(text);
    HOLDS(length < room);
    check_text(text, length);
    for (size_t at = 0; at < length;) {
        size_t bytes = utf8_length(text + at, length - at, NULL);
        HOLDS(bytes > 0);
        at += bytes;
    }
}

static void check_why(int status, const struct sidecaml_failure *why) {
    HOLDS(status <= 0);
    if (status == 0) return;
    HOLDS(why->code == -status);
    check_sentence(why->text, sizeof why->text);
}

static char *take_string(struct input *input) {
    char bytes[256];
    size_t length = take_bytes(input, bytes, sizeof bytes - 1);
    char *text = malloc(length + 1);
    HOLDS(text);
    memcpy(text, bytes, length);
    text[length] = '\0';
    return text;
}

static void sentences(struct input *input) {
    char out[64];
    size_t room = take_number(input, sizeof out - 1) + 1;
    char *text = take_string(input);
    size_t length = strlen(text);
    HOLDS(sidecaml_sentence(text, length, out, room) < room);
    check_sentence(out, room);
    struct sidecaml_failure why;
    check_why(sidecaml_engine_failed(text, length, &why), &why);
    check_why(sidecaml_model_not_loaded(text, text, length, &why), &why);
    HOLDS(sidecaml_dtype_of_type(text) <= SIDECAML_UINT2);
    HOLDS(sidecaml_dtype_of_name(text, length) <= SIDECAML_UINT2);
    free(sidecaml_model_dim_name(text, take_byte(input)));
    check_why(sidecaml_strings_check_room(text, take_dim(input), take_dim(input), &why), &why);
    free(text);
}

static void take_tensor(struct input *input, struct sidecaml_session_tensor *tensor) {
    *tensor = (struct sidecaml_session_tensor){.name = take_string(input), .type = take_string(input)};
    tensor->dtype = take_number(input, SIDECAML_UINT2 + 1);
    tensor->rank = take_number(input, 19);
    tensor->dims = calloc(tensor->rank + 1, sizeof tensor->dims[0]);
    tensor->dim_names = calloc(tensor->rank + 1, sizeof tensor->dim_names[0]);
    HOLDS(tensor->dims && tensor->dim_names);
    for (uint32_t axis = 0; axis < tensor->rank; axis++) {
        uint64_t dim = take_dim(input);
        /* As a session gives them: -1 for all that is dynamic. */
        tensor->dims[axis] = dim > INT64_MAX || dim == 7 ? -1 : (int64_t)dim;
        tensor->dim_names[axis] = take_string(input);
    }
}

static void tensors(struct input *input) {
    struct sidecaml_session_tensor tensor[TENSORS_MOST];
    uint32_t count = take_number(input, TENSORS_MOST), inputs = take_number(input, count);
    for (uint32_t i = 0; i < count; i++)
        take_tensor(input, &tensor[i]);
    struct sidecaml_failure why;
    int status = sidecaml_model_check_tensors(tensor, inputs, count, &why);
    check_why(status, &why);
    for (uint32_t i = inputs; i < count; i++)
        check_why(sidecaml_model_check_rank(&tensor[i], take_number(input, 16), &why), &why);
    /* Requests come only to what could be loaded. */
    if (status == 0) {
        uint64_t dims[TENSORS_MOST][SIDECAML_MAX_RANK];
        bool known[TENSORS_MOST];
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t axis = 0; axis < SIDECAML_MAX_RANK; axis++)
                dims[i][axis] = take_dim(input);
        check_why(sidecaml_model_request_dims(tensor, inputs, count, dims, known, &why), &why);
        uint64_t most[SIDECAML_MAX_RANK] = {3, 3, 3, 3};
        for (uint32_t i = inputs; i < count; i++)
            check_why(
                sidecaml_model_check_output(&tensor[i], dims[i], take_number(input, SIDECAML_MAX_RANK), most, &why),
                &why);
    }
    for (uint32_t i = 0; i < count; i++)
        sidecaml_session_tensor_clear(&tensor[i]);
}

/* A table of offsets and its text, in a place that ends where it says. */
static void strings(struct input *input) {
    uint64_t most = take_number(input, 8), room = take_byte(input), count = take_number(input, 9);
    uint8_t *start = malloc((most + 1) * 8 + room);
    HOLDS(start);
    for (uint64_t i = 0; i <= most; i++) {
        uint64_t offset = take_byte(input);
        if (offset == UINT8_MAX) offset = take_word(input);
        memcpy(start + i * 8, &offset, sizeof offset);
    }
    memset(start + (most + 1) * 8, 'a', room);
    take_bytes(input, start + (most + 1) * 8, room);
    char *name = take_string(input);
    const struct sidecaml_strings_place place = {start, most, room};
    struct sidecaml_strings strings;
    struct sidecaml_failure why = {0};
    int status = sidecaml_strings_read(&place, count, "input", name, &strings, &why);
    check_why(status, &why);
    if (status == 0) {
        HOLDS(strings.count == count && strings.offsets[0] == 0 && strings.offsets[count] <= room);
        for (uint64_t i = 0; i < count; i++)
            HOLDS(strings.offsets[i] <= strings.offsets[i + 1]);
    }
    sidecaml_strings_clear(&strings);
    free(name);
    free(start);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, size};
    switch (take_byte(&input) % 3) {
    case 0:
        sentences(&input);
        break;
    case 1:
        tensors(&input);
        break;
    default:
        strings(&input);
        break;
    }
    return 0;
}
