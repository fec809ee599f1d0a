#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "ort.h"
#include "sidecaml/shared_session.h"

static sidecaml_shared_session *acquire(const char *path, uint32_t threads) {
    sidecaml_shared_session *shared;
    if (sidecaml_shared_session_acquire(path, threads, &shared, &why) < 0)
        check_failed(__FILE__, __LINE__, "%s", why.text);
    return shared;
}

static void one_file_is_loaded_once(void) {
    sidecaml_shared_session *first = acquire(model_path("identity"), 1), *second = acquire(model_path("identity"), 1);
    CHECK(first == second);
    CHECK(sidecaml_shared_session_get(first) == sidecaml_shared_session_get(second));
    sidecaml_shared_session *more_threads = acquire(model_path("identity"), 2);
    CHECK(more_threads != first);
    sidecaml_shared_session_release(more_threads);
    sidecaml_shared_session_release(second);
    CHECK(sidecaml_shared_session_retain(first) == first);
    sidecaml_shared_session_release(first);
    sidecaml_shared_session_release(first);
    sidecaml_shared_session_release(NULL);
}

static void copy_file(const char *from, const char *to) {
    char bytes[4096];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    CHECK(in && out);
    for (size_t count; (count = fread(bytes, 1, sizeof bytes, in)) > 0;)
        CHECK_EQ(fwrite(bytes, 1, count, out), count);
    fclose(in);
    CHECK_EQ(fclose(out), 0);
}

static void a_file_that_changed_is_another(void) {
    char path[] = "/tmp/sidecaml-shared-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    copy_file(model_path("identity"), path);
    sidecaml_shared_session *before = acquire(path, 1);
    const struct timespec touched[] = {{.tv_sec = 1}, {.tv_sec = 1}};
    CHECK_EQ(utimensat(AT_FDCWD, path, touched, 0), 0);
    sidecaml_shared_session *after = acquire(path, 1);
    CHECK(before != after);
    sidecaml_shared_session_release(before);
    sidecaml_shared_session_release(after);
    unlink(path);
}

static void what_cannot_be_loaded_is_not_kept(void) {
    sidecaml_shared_session *shared;
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(sidecaml_shared_session_acquire(model_path("missing"), 1, &shared, &why), -SIDECAML_E_MODEL_FAILED);
        CHECK_SAYS(why.text, "missing.onnx cannot be read");
        CHECK_EQ(sidecaml_shared_session_acquire(model_path("cut"), 1, &shared, &why), -SIDECAML_E_MODEL_FAILED);
    }
    sidecaml_shared_session_release(acquire(model_path("identity"), 1));
}

#define THREADS 4
static char shared_path[4096];

static void *acquire_and_release(void *session) {
    sidecaml_shared_session *shared = session;
    for (int i = 0; i < 200; i++) {
        sidecaml_shared_session *mine = acquire(shared_path, 1);
        CHECK(mine == shared);
        sidecaml_shared_session_release(sidecaml_shared_session_retain(mine));
        sidecaml_shared_session_release(mine);
    }
    return NULL;
}

static void threads_share_it(void) {
    pthread_t threads[THREADS];
    snprintf(shared_path, sizeof shared_path, "%s", model_path("identity"));
    sidecaml_shared_session *shared = acquire(shared_path, 1);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, acquire_and_release, shared), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    sidecaml_shared_session_release(shared);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(one_file_is_loaded_once)},
        {TEST(a_file_that_changed_is_another)},
        {TEST(what_cannot_be_loaded_is_not_kept)},
        {TEST(threads_share_it)},
    };
    return RUN_TESTS(tests, 60);
}
