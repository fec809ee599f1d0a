#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ort.h"

static void refused(const char *name, int code, const char *text) {
    sidecaml_session *session = NULL;
    CHECK_EQ(sidecaml_session_create(model_path(name), 1, &session, &why), -code);
    CHECK_EQ(why.code, code);
    CHECK(session == NULL);
    CHECK_SAYS(why.text, text);
    CHECK_EQ(sidecaml_session_create(model_path(name), 1, &session, NULL), -code);
    /* The next call works. */
    sidecaml_session_destroy(load("identity"));
}

static void files_that_are_no_model_are_named(void) {
    refused("missing", SIDECAML_E_MODEL_FAILED, "missing.onnx cannot be read: No such file or directory");
    refused("../models/empty", SIDECAML_E_MODEL_FAILED, "empty.onnx is empty: expected a model's file");
    refused("garbage", SIDECAML_E_MODEL_FAILED,
            "garbage.onnx could not be loaded as an ONNX model: Protobuf parsing failed.");
    CHECK(strncmp(why.text, model_path("garbage"), strlen(model_path("garbage"))) == 0);
    refused("cut", SIDECAML_E_MODEL_FAILED, "cut.onnx could not be loaded as an ONNX model: ");
}

static void what_no_channel_carries_is_named(void) {
    refused("sequence", SIDECAML_E_UNSUPPORTED, "output 'y' is a seq(tensor(float)): a channel");
    refused("optional", SIDECAML_E_UNSUPPORTED, "input 'x' is a optional(tensor(float)): a channel");
    refused("rank_17", SIDECAML_E_UNSUPPORTED, "input 'x' has 17 dimensions: a channel carries at most 16");
    refused("tensors_257", SIDECAML_E_UNSUPPORTED, "the model has 1 inputs and 256 outputs: a channel");
    refused("bad_tensor_name", SIDECAML_E_UNSUPPORTED, "the name '\\xffa\\xc3(' of an input");
    refused("bad_dim_name", SIDECAML_E_UNSUPPORTED, "the name '\\xffa\\xc3(' of an input");
}

static void threads_must_be_a_sensible_number(void) {
    const uint32_t numbers[] = {0, 1 << 15, UINT32_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        sidecaml_session *session;
        CHECK_EQ(sidecaml_session_create(model_path("identity"), numbers[i], &session, &why), -SIDECAML_E_INVALID);
        CHECK_SAYS(why.text, "threads");
    }
    sidecaml_session *session;
    CHECK_EQ(sidecaml_session_create(model_path("identity"), 2, &session, &why), 0);
    sidecaml_session_destroy(session);
    sidecaml_session_destroy(NULL);
}

static void tensors_are_told_as_the_model_declares_them(void) {
    uint32_t inputs, count;
    sidecaml_session *session = load("all_types");
    const struct sidecaml_session_tensor *tensors = sidecaml_session_tensors(session, &inputs, &count);
    CHECK_EQ(inputs, 17);
    CHECK_EQ(count, 34);
    for (uint32_t i = 0; i < count; i++) {
        const char *name = tensors[i].name + (i < inputs ? strlen("in_") : strlen("out_"));
        CHECK_EQ(tensors[i].dtype, sidecaml_dtype_of_name(name, strlen(name)));
        CHECK_EQ(tensors[i].rank, 2);
        CHECK_EQ(tensors[i].dims[0], -1);
        CHECK(strcmp(tensors[i].dim_names[0], "N") == 0);
        CHECK_EQ(tensors[i].dims[1], 3);
        CHECK(strcmp(tensors[i].dim_names[1], "") == 0);
    }
    sidecaml_session_destroy(session);
}

static void dynamic_dimensions_without_a_name_get_one(void) {
    uint32_t inputs, count;
    sidecaml_session *session = load("unnamed");
    const struct sidecaml_session_tensor *x = sidecaml_session_tensors(session, &inputs, &count);
    static const char *const names[] = {"x[0]", "M", "x[2]", ""};
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_EQ(x->dims[i], i < 3 ? -1 : 2);
        CHECK(strcmp(x->dim_names[i], names[i]) == 0);
    }
    sidecaml_session_destroy(session);
}

static void zeros_show_an_output_of_another_rank(void) {
    sidecaml_session *session = load("undeclared");
    CHECK_EQ(sidecaml_session_warm_up(session, 3, &why), -SIDECAML_E_UNSUPPORTED);
    CHECK_SAYS(why.text, "output 'y' is declared with 0 dimensions, or without a shape, and has 1: export the model");
    CHECK_EQ(sidecaml_session_warm_up(session, 0, &why), 0);
    sidecaml_session_destroy(session);
}

static void zeros_that_do_not_suit_a_model_are_told_as_such(void) {
    sidecaml_session *session = load("fails_inside");
    CHECK_EQ(sidecaml_session_warm_up(session, 3, &why), -SIDECAML_E_ENGINE);
    CHECK_SAYS(why.text, "a Reshape node: ");
    sidecaml_session_destroy(session);
    session = load("huge");
    CHECK_EQ(sidecaml_session_warm_up(session, 1, &why), -SIDECAML_E_NO_MEMORY);
    sidecaml_session_destroy(session);
}

static void other_models_warm_up(void) {
    static const char *const names[] = {"identity", "all_types", "dynamic_mlp", "data_dependent",
                                        "unnamed",  "slow",      "strings"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        sidecaml_session *session = load(names[i]);
        CHECK_EQ(sidecaml_session_warm_up(session, 3, &why), 0);
        sidecaml_session_destroy(session);
    }
}

static void open_the_library(void) {
    if (sidecaml_ort_open(NULL, &why) < 0) check_failed(__FILE__, __LINE__, "%s", why.text);
    CHECK(getenv("ORT_DISABLE_TELEMETRY"));
}

int main(void) {
    static const struct test tests[] = {
        {TEST(open_the_library)},
        {TEST(files_that_are_no_model_are_named)},
        {TEST(what_no_channel_carries_is_named)},
        {TEST(threads_must_be_a_sensible_number)},
        {TEST(tensors_are_told_as_the_model_declares_them)},
        {TEST(dynamic_dimensions_without_a_name_get_one)},
        {TEST(zeros_show_an_output_of_another_rank)},
        {TEST(zeros_that_do_not_suit_a_model_are_told_as_such)},
        {TEST(other_models_warm_up)},
    };
    return RUN_TESTS(tests, 60);
}
