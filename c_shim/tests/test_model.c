#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "sidecaml/model.h"

static struct sidecaml_failure why;

/* --- Files ------------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/sidecaml-model-XXXXXX";

static const char *at(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, const char *content) {
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(content, file) >= 0 && fclose(file) == 0);
}

static int check_file(const char *path) {
    return sidecaml_model_check_file(path, strlen(path), &why);
}

static void check_refused(const char *path, const char *after_path) {
    CHECK_EQ(check_file(path), -SIDECAML_E_MODEL_FAILED);
    CHECK_EQ(why.code, SIDECAML_E_MODEL_FAILED);
    CHECK(strncmp(why.text, path, strlen(path)) == 0);
    CHECK_SAYS(why.text + strlen(path), after_path);
}

static void paths_that_cannot_be_a_model_are_named(void) {
    CHECK(mkdtemp(folder));
    check_refused(folder, " is a directory: expected a model's file");
    check_refused(at("missing"), " cannot be read: No such file or directory");
    CHECK_EQ(mkfifo(at("pipe"), 0600), 0);
    check_refused(at("pipe"), " is no regular file: expected a model's file");
    CHECK_EQ(symlink("loop", at("loop")), 0);
    check_refused(at("loop"), " cannot be read: Too many levels of symbolic links");
    write_file(at("model"), "");
    check_refused(at("model"), " is empty: expected a model's file");
    check_refused(at("model/below"), " cannot be read: Not a directory");
    write_file(at("model"), "x");
    CHECK_EQ(check_file(at("model")), 0);
    CHECK_EQ(sidecaml_model_check_file("a\0b", 3, &why), -SIDECAML_E_MODEL_FAILED);
    CHECK(strcmp(why.text, "'a\\x00b' is no path: it holds a NUL") == 0);
    CHECK_EQ(sidecaml_model_check_file(folder, strlen(folder), NULL), -SIDECAML_E_MODEL_FAILED);
    CHECK_EQ(sidecaml_model_check_file("", 0, NULL), -SIDECAML_E_MODEL_FAILED);
    static const char *const names[] = {"pipe", "loop", "model"};
    for (int i = 0; i < 3; i++)
        CHECK_EQ(unlink(at(names[i])), 0);
    CHECK_EQ(rmdir(folder), 0);
}

static void a_refused_model_is_said_with_path_and_reason(void) {
    const char *text = "Load model from /m.onnx failed:Protobuf parsing failed.\nMore";
    CHECK_EQ(sidecaml_model_not_loaded("/m.onnx", text, strlen(text), &why), -SIDECAML_E_MODEL_FAILED);
    CHECK(strcmp(why.text, "/m.onnx could not be loaded as an ONNX model: Protobuf parsing failed.") == 0);
    CHECK_EQ(sidecaml_model_not_loaded("/m\n\xff.onnx", "", 0, &why), -SIDECAML_E_MODEL_FAILED);
    CHECK_SAYS(why.text, "/m ?.onnx could not");
}

/* --- Tensors ----------------------------------------------------------------------------------------------------- */

static int64_t some_dims[SIDECAML_MAX_RANK + 1];
static char *no_names[] = {"", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", ""};

static struct sidecaml_session_tensor tensor_of(char *name, char *type, uint32_t rank) {
    return (struct sidecaml_session_tensor){name, type, sidecaml_dtype_of_type(type), rank, some_dims, no_names};
}

static void every_type_that_a_channel_carries_is_known(void) {
    CHECK_EQ(sidecaml_dtype_of_type("tensor(float)"), SIDECAML_FLOAT32);
    CHECK_EQ(sidecaml_dtype_of_type("tensor(double)"), SIDECAML_FLOAT64);
#define CHECK_TYPE(NAME, name, code, bits)                                                                             \
    if ((code) != SIDECAML_FLOAT32 && (code) != SIDECAML_FLOAT64)                                                      \
        CHECK_EQ(sidecaml_dtype_of_type("tensor(" #name ")"), code);
    SIDECAML_DTYPES(CHECK_TYPE)
#undef CHECK_TYPE
    static const char *const others[] = {"",
                                         "tensor(",
                                         "tensor()",
                                         "tensor(float32)",
                                         "tensor(float",
                                         "float",
                                         "tensor(str)",
                                         "seq(tensor(float))",
                                         "tensor(float64)",
                                         "tensor(float))",
                                         "sparse_tensor(float)"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        CHECK_EQ(sidecaml_dtype_of_type(others[i]), 0);
}

static void check_unsupported(const struct sidecaml_session_tensor *tensors, uint32_t inputs, uint32_t count,
                              const char *text) {
    CHECK_EQ(sidecaml_model_check_tensors(tensors, inputs, count, &why), -SIDECAML_E_UNSUPPORTED);
    CHECK_SAYS(why.text, text);
}

static void what_a_channel_cannot_carry_is_named(void) {
    struct sidecaml_session_tensor tensors[] = {tensor_of("x", "tensor(float)", SIDECAML_MAX_RANK),
                                                tensor_of("y", "tensor(bool)", 0)};
    CHECK_EQ(sidecaml_model_check_tensors(tensors, 1, 2, &why), 0);
    tensors[1] = tensor_of("it's", "seq(tensor(float))", 0);
    check_unsupported(tensors, 1, 2, "output \"it's\" is a seq(tensor(float)): a channel carries tensors of float32, ");
    tensors[0].rank++;
    check_unsupported(tensors, 1, 2, "input 'x' has 17 dimensions: a channel carries at most 16");
    tensors[1].name = "caf\xe9\n";
    check_unsupported(tensors, 1, 2, "the name 'caf\\xe9\\n' of an input, output or dimension is not UTF-8: rename it");
    static char *bad_names[] = {"", "\xff"};
    tensors[1] = (struct sidecaml_session_tensor){"y", "tensor(bool)", SIDECAML_BOOL, 2, some_dims, bad_names};
    check_unsupported(tensors, 1, 2, "the name '\\xff' of an input");
}

static void absurd_shapes_are_refused_with_the_bound(void) {
    int64_t largest = SIDECAML_LARGEST_DIM;
    int64_t dims[3] = {largest, 1, -1};
    char *names[] = {"", "", "N"};
    struct sidecaml_session_tensor x = {"x", "tensor(float)", SIDECAML_FLOAT32, 3, dims, names};
    CHECK_EQ(sidecaml_model_check_tensors(&x, 1, 1, &why), 0);
    dims[0]++;
    check_unsupported(&x, 1, 1, "input 'x' is declared as [1099511627777, 1, N]: a dimension is at most 2^40");
    dims[0] = INT64_MAX;
    check_unsupported(&x, 0, 1, "output 'x' is declared as [9223372036854775807, 1, N]: a dimension is at most 2^40");
    dims[0] = largest; /* 2^40 * 2^20 * 4 bytes: the most there can be */
    dims[1] = (int64_t)1 << 20;
    CHECK_EQ(sidecaml_model_check_tensors(&x, 1, 1, &why), 0);
    dims[1]++;
    check_unsupported(&x, 1, 1,
                      "input 'x' is declared as [1099511627776, 1048577, N]: a tensor has at most 2^62 bytes");
    dims[2] = 0; /* hides nothing */
    check_unsupported(&x, 1, 1, "[1099511627776, 1048577, 0]: a tensor has at most 2^62 bytes");
}

static void too_many_tensors_are_counted(void) {
    struct sidecaml_session_tensor tensors[SIDECAML_MAX_TENSORS + 1];
    for (int i = 0; i <= SIDECAML_MAX_TENSORS; i++)
        tensors[i] = tensor_of("x", "tensor(float)", 0);
    CHECK_EQ(sidecaml_model_check_tensors(tensors, 3, SIDECAML_MAX_TENSORS, &why), 0);
    check_unsupported(tensors, 3, SIDECAML_MAX_TENSORS + 1,
                      "the model has 3 inputs and 254 outputs: a channel carries at most 256 together");
}

static void long_names_are_cut(void) {
    static char name[5000];
    memset(name, '\'', sizeof name - 1);
    struct sidecaml_session_tensor tensor = tensor_of(name, "seq(tensor(string))", 0);
    check_unsupported(&tensor, 0, 1, "output \"''''");
    memset(name, '\xff', sizeof name - 1);
    check_unsupported(&tensor, 0, 1, "is not UTF-8: rename it");
}

static void a_dimension_without_a_name_is_called_after_its_tensor(void) {
    char *name = sidecaml_model_dim_name("x", 12);
    CHECK(strcmp(name, "x[12]") == 0);
    free(name);
}

static void an_output_without_declared_dimensions_must_have_none(void) {
    struct sidecaml_session_tensor declared = tensor_of("y", "tensor(float)", 1);
    CHECK_EQ(sidecaml_model_check_rank(&declared, 2, &why), 0);
    struct sidecaml_session_tensor output = tensor_of("y", "tensor(float)", 0);
    CHECK_EQ(sidecaml_model_check_rank(&output, 0, &why), 0);
    CHECK_EQ(sidecaml_model_check_rank(&output, 2, &why), -SIDECAML_E_UNSUPPORTED);
    CHECK(strcmp(why.text, "output 'y' is declared with 0 dimensions, or without a shape, and has 2: export the model "
                           "with its shape") == 0);
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

/* q[N, 8], k[M, N], bias[4] to y[N, M, 2] and z[other]. */
static struct sidecaml_session_tensor attention[] = {
    {"q", "tensor(float)", SIDECAML_FLOAT32, 2, (int64_t[]){-1, 8}, (char *[]){"N", ""}},
    {"k", "tensor(float)", SIDECAML_FLOAT32, 2, (int64_t[]){-1, -1}, (char *[]){"M", "N"}},
    {"bias", "tensor(float)", SIDECAML_FLOAT32, 1, (int64_t[]){4}, (char *[]){""}},
    {"y", "tensor(float)", SIDECAML_FLOAT32, 3, (int64_t[]){-1, -1, 2}, (char *[]){"N", "M", ""}},
    {"z", "tensor(int64)", SIDECAML_INT64, 1, (int64_t[]){-1}, (char *[]){"other"}},
};

static int request(uint64_t q0, uint64_t q1, uint64_t k0, uint64_t k1, uint64_t (*dims)[SIDECAML_MAX_RANK],
                   bool *known) {
    dims[0][0] = q0, dims[0][1] = q1, dims[1][0] = k0, dims[1][1] = k1;
    return sidecaml_model_request_dims(attention, 3, 5, dims, known, &why);
}

static void every_tensors_dims_follow_from_the_dynamic_inputs(void) {
    uint64_t dims[5][SIDECAML_MAX_RANK] = {{0}};
    bool known[5];
    CHECK_EQ(request(3, 8, 5, 3, dims, known), 0);
    CHECK(known[0] && known[1] && known[2] && known[3] && !known[4]);
    CHECK_EQ(dims[2][0], 4);
    CHECK_EQ(dims[3][0], 3);
    CHECK_EQ(dims[3][1], 5);
    CHECK_EQ(dims[3][2], 2);
    CHECK_EQ(dims[4][0], 0);
    CHECK_EQ(request(0, 8, 0, 0, dims, known), 0);
    CHECK_EQ(dims[3][0], 0);
}

static void dims_that_disagree_are_named(void) {
    uint64_t dims[5][SIDECAML_MAX_RANK];
    bool known[5];
    CHECK_EQ(request(3, 8, 5, 4, dims, known), -SIDECAML_E_BAD_DIMS);
    CHECK(strcmp(why.text, "dimension 'N' must be one size: it is 3 in input 'q' and 4 in input 'k'") == 0);
    CHECK_EQ(request(3, 9, 5, 3, dims, known), -SIDECAML_E_BAD_DIMS);
    CHECK(strcmp(why.text, "input 'q' came as [3, 9]: the model takes [N, 8]") == 0);
    CHECK_EQ(request(UINT64_MAX, 8, 5, 3, dims, known), -SIDECAML_E_BAD_DIMS);
    CHECK_SAYS(why.text, "it is 18446744073709551615 in input 'q'");
    struct sidecaml_session_tensor square = {"x", "tensor(float)",     SIDECAML_FLOAT32,
                                             2,   (int64_t[]){-1, -1}, (char *[]){"N", "N"}};
    dims[0][0] = 1, dims[0][1] = 2;
    CHECK_EQ(sidecaml_model_request_dims(&square, 1, 1, dims, known, &why), -SIDECAML_E_BAD_DIMS);
    CHECK_SAYS(why.text, "it is 1 in input 'x' and 2 in input 'x'");
}

static void an_output_that_came_out_otherwise_is_refused(void) {
    const uint64_t dims[] = {3, 5, 2}, max_dims[] = {3, 5, 2}, small[] = {3, 4, 2}, other[] = {3, 5, 1};
    const struct sidecaml_session_tensor *y = &attention[3];
    CHECK_EQ(sidecaml_model_check_output(y, dims, 3, max_dims, &why), 0);
    CHECK_EQ(sidecaml_model_check_output(y, dims, 3, small, &why), -SIDECAML_E_OUTPUT_TOO_LARGE);
    CHECK(strcmp(why.text, "output 'y' came out as [3, 5, 2], 120 bytes, and the channel has room for [3, 4, 2]: open "
                           "with larger dims") == 0);
    CHECK_EQ(sidecaml_model_check_output(y, other, 3, max_dims, &why), -SIDECAML_E_ENGINE);
    CHECK(strcmp(why.text, "output 'y' came out as [3, 5, 1] and the model declares [N, M, 2]: export it with the true "
                           "shape") == 0);
    CHECK_EQ(sidecaml_model_check_output(y, dims, 2, max_dims, &why), -SIDECAML_E_ENGINE);
    CHECK_SAYS(why.text, "came out as [3, 5] and");
}

/* On the other path the sentence goes through a slot. */
static void what_is_said_of_a_request_fits_a_slot(void) {
    static char name[600];
    memset(name, 'n', sizeof name - 1);
    struct sidecaml_session_tensor output = attention[3];
    const uint64_t dims[] = {1};
    output.name = name;
    CHECK_EQ(sidecaml_model_check_output(&output, dims, 1, dims, &why), -SIDECAML_E_ENGINE);
    CHECK_EQ(strlen(why.text), SIDECAML_MESSAGE_BYTES);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(paths_that_cannot_be_a_model_are_named)},
        {TEST(a_refused_model_is_said_with_path_and_reason)},
        {TEST(every_type_that_a_channel_carries_is_known)},
        {TEST(what_a_channel_cannot_carry_is_named)},
        {TEST(absurd_shapes_are_refused_with_the_bound)},
        {TEST(too_many_tensors_are_counted)},
        {TEST(long_names_are_cut)},
        {TEST(a_dimension_without_a_name_is_called_after_its_tensor)},
        {TEST(an_output_without_declared_dimensions_must_have_none)},
        {TEST(every_tensors_dims_follow_from_the_dynamic_inputs)},
        {TEST(dims_that_disagree_are_named)},
        {TEST(an_output_that_came_out_otherwise_is_refused)},
        {TEST(what_is_said_of_a_request_fits_a_slot)},
    };
    return RUN_TESTS(tests, 20);
}
