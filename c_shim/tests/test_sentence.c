#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "failure.h"
#include "sidecaml/model.h"

static const char *sentence(const char *text) {
    static char out[SIDECAML_FAILURE_BYTES];
    CHECK_EQ(sidecaml_sentence(text, strlen(text), out, sizeof out), strlen(out));
    return out;
}

static void check_pairs(const char *const (*pairs)[2], size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(sentence(pairs[i][0]), pairs[i][1]) != 0)
            check_failed(__FILE__, __LINE__, "\"%s\" became \"%s\", expected \"%s\"", pairs[i][0],
                         sentence(pairs[i][0]), pairs[i][1]);
}
#define CHECK_PAIRS(pairs) check_pairs((pairs), sizeof(pairs) / sizeof((pairs)[0]))

/* As ONNX Runtime 1.21 to 1.32 wrote them, over the C API and in the exceptions of its Python package. */
static void real_texts_keep_what_a_person_needs(void) {
    static const char *const pairs[][2] = {
        {"[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from /m/a b.onnx failed:Protobuf parsing failed.",
         "Protobuf parsing failed."},
        {"Load model from m.onnx failed:ModelProto does not have a graph.", "ModelProto does not have a graph."},
        {"Load model from m.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:181 "
         "onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, const "
         "onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, const "
         "onnxruntime::ModelOptions&) Unsupported model IR version: 99, max supported IR version: 11\n",
         "Unsupported model IR version: 99, max supported IR version: 11"},
        {"Non-zero status code returned while running Reshape node. Name:'' Status Message: "
         "/onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape_helper.h:45 "
         "onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, onnxruntime::TensorShapeVector&, "
         "bool) input_shape_size == size was false. The input tensor cannot be reshaped to the requested shape. Input "
         "shape:{6}, requested shape:{4,4}\n",
         "a Reshape node: input_shape_size == size was false. The input tensor cannot be reshaped to the requested "
         "shape. Input shape:{6}, requested shape:{4,4}"},
        {"[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code returned while running Gather node. "
         "Name:'pick' Status Message: indices element out of data bounds, idx=9 must be within the inclusive range "
         "[-4,3]",
         "node 'pick' (Gather): indices element out of data bounds, idx=9 must be within the inclusive range [-4,3]"},
        {"Error in execution: Non-zero status code returned while running Add node. Name:'sum' Status Message: "
         "/onnxruntime_src/a/b.cc:87 virtual OrtValue* ort::K::M(int, const S&) const x == y was false. Sizes",
         "node 'sum' (Add): x == y was false. Sizes"},
        {"Deserialize tensor w failed.tensorprotoutils.cc:2201 GetExtDataFromTensorProto External initializer: w "
         "offset: 0",
         "Deserialize tensor w failed. External initializer: w offset: 0"},
        {"[ONNXRuntimeError] : 1 : FAIL : Load model from /m.onnx failed:tensorprotoutils.cc:619 Validate Path is "
         "absolute",
         "Path is absolute"},
        {"Exiting due to terminate flag being set to true.", "Exiting due to terminate flag being set to true."},
    };
    CHECK_PAIRS(pairs);
}

static void the_first_line_that_says_something_is_taken(void) {
    static const char *const pairs[][2] = {
        {"plain words", "plain words"},
        {"\n\n  first line \nsecond", "first line"},
        {"one\rtwo", "one"},
        {"\v\fone\x1ctwo", "one"},
        {"one\xc2\x85two", "one"},
        {"one\xe2\x80\xa8two", "one"},
        {" \t\xe2\x80\xa9one\xe2\x80\xa9two", "one"},
    };
    CHECK_PAIRS(pairs);
}

static void what_is_not_quite_a_place_or_a_status_stays(void) {
    static const char *const pairs[][2] = {
        {"[ONNXRuntimeError] : x : FAIL : a", "[ONNXRuntimeError] : x : FAIL : a"},
        {"[ONNXRuntimeError] : 1 : FA IL : a", "[ONNXRuntimeError] : 1 : FA IL : a"},
        {"Load model from a failed", "Load model from a failed"},
        {"at /a.cc:1\tb", "at /a.cc:1 b"},
        {"at /a.cc: b", "at /a.cc: b"},
        {"at /.cc:1 b", "at /.cc:1 b"},
        {"at /a.c:1 b", "at /a.c:1 b"},
        {"at /a.cc:1:2 b", "at /a.cc:1:2 b"},
        {"at a/b.hpp:12 b", "at ab"},
        {"at /a.h:1 f(g(h)) b", "at f(g(h)) b"},
        {"at /a.h:1 f(g)b", "at f(g)b"},
        {"at /a.h:1 f(g) constant", "at constant"},
        {"Non-zero status code returned while running A node. Name:'b",
         "Non-zero status code returned while running A node. "
         "Name:'b"},
        {"Non-zero status code returned while running  node. Name:'b' Status Message: c",
         "Non-zero status code returned while running  node. Name:'b' Status Message: c"},
        {"a [ONNXRuntimeError] : 1 : FAIL : b", "a b"},
        {"a.cc:1 f", "a.cc:1 f"},
        {".cc:1 f g", ".cc:1 f g"},
        {"a.cc: f g", "a.cc: f g"},
        {"a.cc:1 f() g", "a.cc:1 f() g"},
    };
    CHECK_PAIRS(pairs);
}

static void nothing_left_says_so(void) {
    static const char *const pairs[][2] = {
        {"", "ONNX Runtime does not say why"},
        {" \n\t\n", "ONNX Runtime does not say why"},
        {"[ONNXRuntimeError] : 1 : FAIL : Load model from a.onnx failed:", "ONNX Runtime does not say why"},
    };
    CHECK_PAIRS(pairs);
}

/* A model names its nodes as it likes. */
static void names_are_shown_as_they_are_and_cannot_disturb(void) {
    static const char *const pairs[][2] = {
        {"Non-zero status code returned while running A node. Name:'a\\b\x1b[31m\x01' Status Message: c",
         "node 'a\\\\b\\x1b[31m\\x01' (A): c"},
        {"Non-zero status code returned while running A node. Name:'\xff\xc3\xa9' Status Message: c",
         "node '?\xc3\xa9' (A): c"},
        {"\x1b[31mred", " [31mred"},
        {"overlong \xc0\xaf surrogate \xed\xa0\x80 beyond \xf4\x90\x80\x80 stray \x80",
         "overlong ?? surrogate ??? beyond ???? stray ?"},
        {"\xe0\xa4\xa8 \xf0\x9f\x98\x80 \xc3", "\xe0\xa4\xa8 \xf0\x9f\x98\x80 "},
    };
    CHECK_PAIRS(pairs);
    char out[64];
    CHECK_EQ(sidecaml_sentence("a\0b", 3, out, sizeof out), 3);
    CHECK(strcmp(out, "a b") == 0);
}

static void a_text_is_cut_at_a_whole_character(void) {
    char out[8];
    for (size_t room = 1; room <= sizeof out; room++) {
        size_t length = sidecaml_sentence("\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac", 9, out, room);
        CHECK_EQ(length, (room - 1) / 3 * 3);
        CHECK_EQ(strlen(out), length);
    }
    struct sidecaml_failure why;
    char text[2000];
    memset(text, 'x', sizeof text);
    CHECK_EQ(sidecaml_engine_failed(text, sizeof text, &why), -SIDECAML_E_ENGINE);
    CHECK_EQ(why.code, SIDECAML_E_ENGINE);
    CHECK_EQ(strlen(why.text), SIDECAML_MESSAGE_BYTES);
}

/* Pieces that searches look for, and none that ends one: whoever wrote a model chose them. */
static void no_text_makes_it_slow(void) {
    static const char *const pieces[] = {"/",
                                         "/a.cc:1 ",
                                         "(",
                                         "a.cc:1",
                                         "Non-zero status code returned while running ",
                                         "[ONNXRuntimeError] : 1 : ",
                                         "Load model from ",
                                         "Non-zero status code returned while running A node. Name:'",
                                         "\n",
                                         " ",
                                         "\xe2",
                                         "Error in execution: "};
    enum { BYTES = 4 << 20 };
    char *text = malloc(BYTES);
    CHECK(text);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        char out[SIDECAML_FAILURE_BYTES];
        size_t length = strlen(pieces[i]);
        for (size_t at = 0; at < BYTES; at++)
            text[at] = pieces[i][at % length];
        CHECK(sidecaml_sentence(text, BYTES, out, sizeof out) < sizeof out);
    }
    free(text);
}

static void random_texts_give_clean_lines(void) {
    static const char *const pieces[] = {"Error in execution: ",
                                         "[ONNXRuntimeError] : 2 : FAIL : ",
                                         "Load model from ",
                                         " failed:",
                                         "/x.cc:1 ",
                                         "f(",
                                         ") const ",
                                         "Non-zero status code returned while running A node. Name:'",
                                         "' Status Message: ",
                                         "\n",
                                         "\xc3\xa9",
                                         "\xe2\x80",
                                         "\x80",
                                         "\x01",
                                         "word ",
                                         "\\"};
    struct numbers numbers = {1};
    for (int i = 0; i < 20000; i++) {
        char text[2048], out[SIDECAML_FAILURE_BYTES];
        size_t length = 0, room = 1 + next_number(&numbers) % sizeof out;
        for (unsigned parts = next_number(&numbers) % 16; parts; parts--) {
            const char *piece = pieces[next_number(&numbers) % (sizeof pieces / sizeof pieces[0])];
            memcpy(text + length, piece, strlen(piece));
            length += strlen(piece);
        }
        size_t found = sidecaml_sentence(text, length, out, room);
        CHECK(found < room);
        CHECK_EQ(strlen(out), found);
        for (size_t at = 0; at < found; at++)
            CHECK((unsigned char)out[at] >= ' ');
        /* Clean is clean: every byte is of a character. */
        char again[SIDECAML_FAILURE_BYTES];
        memcpy(again, out, found + 1);
        CHECK_EQ(clean_text(again, found), found);
        CHECK(strcmp(again, out) == 0);
    }
}

int main(void) {
    static const struct test tests[] = {
        {TEST(real_texts_keep_what_a_person_needs)},
        {TEST(the_first_line_that_says_something_is_taken)},
        {TEST(what_is_not_quite_a_place_or_a_status_stays)},
        {TEST(nothing_left_says_so)},
        {TEST(names_are_shown_as_they_are_and_cannot_disturb)},
        {TEST(a_text_is_cut_at_a_whole_character)},
        {TEST(no_text_makes_it_slow)},
        {TEST(random_texts_give_clean_lines)},
    };
    return RUN_TESTS(tests, 60);
}
