/* Reads the digits in C, in this process: in_process MODEL.onnx IMAGES.npy DIGITS.npy
 *
 * The tensors are this program's own memory, bound once; then each call is one function. */
#include <stdio.h>
#include <stdlib.h>

#include "sidecaml/abi.h"
#include "sidecaml/ort.h"
#include "sidecaml/sidecaml.h"

enum { PIXELS = 64, DIGITS = 10 };

static float image[PIXELS], scores[DIGITS];

static void fail(const char *what, const char *why) {
    fprintf(stderr, "in_process: %s: %s\n", what, why);
    exit(1);
}

/* Opens numpy's file, at its values. */
static FILE *open_npy(const char *path) {
    unsigned char head[10];
    FILE *file = fopen(path, "rb");
    if (!file) fail(path, "cannot be opened");
    if (fread(head, sizeof head, 1, file) != 1 || head[0] != 0x93 || head[6] != 1)
        fail(path, "is no npy file of version 1");
    if (fseek(file, head[8] | head[9] << 8, SEEK_CUR) != 0) fail(path, "ends early");
    return file;
}

static sidecaml_binding *bind(sidecaml_session *session) {
    const uint64_t image_dims[] = {1, PIXELS}, score_dims[] = {1, DIGITS};
    struct sidecaml_failure why;
    sidecaml_binding *binding;
    if (sidecaml_binding_create(session, &binding, &why) < 0 ||
        sidecaml_binding_input(binding, "images", SIDECAML_FLOAT32, image_dims, 2, image, &why) < 0 ||
        sidecaml_binding_output(binding, "scores", SIDECAML_FLOAT32, score_dims, 2, scores, &why) < 0)
        fail("binding", why.text);
    return binding;
}

static int best(void) {
    int found = 0;
    for (int digit = 1; digit < DIGITS; digit++)
        if (scores[digit] > scores[found]) found = digit;
    return found;
}

int main(int count, char **arguments) {
    if (count != 4) {
        fputs("in_process MODEL.onnx IMAGES.npy DIGITS.npy\n", stderr);
        return 2;
    }
    struct sidecaml_failure why;
    sidecaml_session *session;
    if (sidecaml_session_create(arguments[1], 1, &session, &why) < 0) fail("loading", why.text);
    sidecaml_binding *binding = bind(session);
    FILE *images = open_npy(arguments[2]), *digits = open_npy(arguments[3]);
    int64_t digit;
    int all = 0, right = 0;
    while (fread(image, sizeof image, 1, images) == 1 && fread(&digit, sizeof digit, 1, digits) == 1) {
        if (sidecaml_binding_run(binding, &why) < 0) fail("running", why.text);
        right += best() == digit;
        all++;
    }
    printf("%d of %d digits are right, %.1f %%\n", right, all, 100. * right / all);
    fclose(images);
    fclose(digits);
    sidecaml_binding_destroy(binding);
    sidecaml_session_destroy(session);
    return 0;
}
