/* Finding and opening the library. It is opened once for a process, so each attempt is this program anew. */
#define _GNU_SOURCE
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "ort.h"

/* --- Attempts ---------------------------------------------------------------------------------------------------- */

/* What a process says that opens each of its arguments in turn: "ok VERSION PATH", or the error's name and sentence. */
static int attempt(char **paths) {
    for (; *paths; paths++) {
        if (sidecaml_ort_open(**paths ? *paths : NULL, &why) < 0)
            printf("%s %s\n", sidecaml_error_name(why.code), why.text);
        else
            printf("ok %s %s\n", sidecaml_ort_version(), sidecaml_ort_path());
    }
    return 0;
}

/* What the next attempts have in their environment; NULL: not set. */
static const char *virtual_env, *chosen, *library_path;

static void set(const char *name, const char *value) {
    if (value)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

static void read_all(int fd, char *out, size_t room) {
    size_t used = 0;
    for (ssize_t got; (got = read(fd, out + used, room - 1 - used)) > 0;)
        used += (size_t)got;
    out[used] = '\0';
}

/* The lines of one process that opens two paths, "" for none. */
static const char *attempts(const char *first, const char *second) {
    static char said[4 * SIDECAML_FAILURE_BYTES];
    int pipes[2], status;
    CHECK_EQ(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        set("VIRTUAL_ENV", virtual_env), set("SIDECAML_ONNXRUNTIME", chosen), set("LD_LIBRARY_PATH", library_path);
        dup2(pipes[1], 1), dup2(pipes[1], 2);
        execl("/proc/self/exe", "attempt", "attempt", first, second, NULL);
        _exit(9);
    }
    close(pipes[1]);
    read_all(pipes[0], said, sizeof said);
    close(pipes[0]);
    CHECK_EQ(waitpid(child, &status, 0), child);
    if (status != 0) check_failed(__FILE__, __LINE__, "an attempt ended with %x: %s", status, said);
    return said;
}

static const char *opened(const char *path) {
    return attempts(path, NULL);
}

static bool begins(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

/* --- Libraries --------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/sidecaml-ort-XXXXXX";
static char real[512], other[512], environment[512], no_environment[512], system_folder[512];

static void make_folder(char *path) {
    char part[512];
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        mkdir(part, 0700);
    }
    mkdir(path, 0700);
}

/* Folders that hold the real library in the place of an environment's and of the system's; and none. */
static void find_libraries(void) {
    char pattern[512], path[512], link[600];
    glob_t found;
    CHECK(getenv("VIRTUAL_ENV"));
    snprintf(pattern, sizeof pattern, "%s/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.[0-9]*",
             getenv("VIRTUAL_ENV"));
    CHECK_EQ(glob(pattern, 0, NULL, &found), 0);
    snprintf(real, sizeof real, "%s", found.gl_pathv[0]);
    globfree(&found);
    snprintf(other, sizeof other, "%s", fake_path("other"));
    CHECK(mkdtemp(folder));
    snprintf(environment, sizeof environment, "%s/venv", folder);
    snprintf(path, sizeof path, "%.400s/lib/python3.99/site-packages/onnxruntime/capi", environment);
    make_folder(path);
    snprintf(link, sizeof link, "%s/libonnxruntime.so.1.99", path);
    CHECK_EQ(symlink(other, link), 0);
    snprintf(no_environment, sizeof no_environment, "%s/nothing", folder);
    snprintf(system_folder, sizeof system_folder, "%s/system", folder);
    make_folder(system_folder);
    snprintf(link, sizeof link, "%s/libonnxruntime.so.1", system_folder);
    CHECK_EQ(symlink(real, link), 0);
}

static void remove_libraries(void) {
    char command[600];
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_EQ(system(command), 0);
}

/* --- Tests ------------------------------------------------------------------------------------------------------- */

static void libraries_are_looked_for_in_order(void) {
    /* A path that is given; */
    virtual_env = environment, chosen = other, library_path = system_folder;
    CHECK(begins(opened(real), "ok 1."));
    CHECK_SAYS(opened(real), real);
    /* the environment's variable; */
    virtual_env = environment, chosen = real;
    CHECK_SAYS(opened(""), real);
    chosen = other, virtual_env = NULL;
    CHECK_SAYS(opened(""), other);
    /* the wheel; an empty variable is none; */
    chosen = "", virtual_env = environment;
    CHECK_SAYS(opened(""), "libonnxruntime.so.1.99 is not ONNX Runtime");
    /* the system's. */
    chosen = NULL, virtual_env = no_environment;
    CHECK(begins(opened(""), "ok 1."));
    virtual_env = NULL;
    CHECK_SAYS(opened(""), system_folder);
}

static void no_library_at_all_says_where_it_was_looked_for(void) {
    virtual_env = no_environment, chosen = NULL, library_path = NULL;
    const char *said = opened("");
    if (begins(said, "ok ")) return; /* this system has one */
    CHECK(begins(said, "MODEL_FAILED there is no ONNX Runtime: install the Python package onnxruntime or the system's "
                       "library, or set SIDECAML_ONNXRUNTIME to the path of libonnxruntime.so (looked for: "));
    CHECK_SAYS(said, "/nothing/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.[0-9]*, "
                     "libonnxruntime.so.1, libonnxruntime.so.1.");
    virtual_env = NULL;
    CHECK_SAYS(opened(""), "(looked for: no wheel, because VIRTUAL_ENV is not set, libonnxruntime.so.1, ");
}

static void a_path_that_does_not_exist_is_named(void) {
    CHECK_SAYS(opened("/nowhere/libonnxruntime.so"),
               "MODEL_FAILED ONNX Runtime could not be opened: /nowhere/libonnxruntime.so: cannot open shared object "
               "file: No such file or directory\n");
}

static void what_is_no_onnx_runtime_is_named(void) {
    char expected[700];
    snprintf(expected, sizeof expected, "MODEL_FAILED %s is not ONNX Runtime: it has no OrtGetApiBase\n", other);
    CHECK(strcmp(opened(other), expected) == 0);
    CHECK_SAYS(opened(fake_path("empty")), "libempty.so is not ONNX Runtime: it has no C API\n");
    CHECK_SAYS(opened(__FILE__), "could not be opened");
}

static void a_library_that_is_too_old_or_lacks_the_api_says_which_there_is_and_which_is_needed(void) {
    CHECK_SAYS(opened(fake_path("old")), "libold.so is ONNX Runtime 1.2.3, and sidecaml was built for 1.");
    CHECK_SAYS(opened(fake_path("old")), ": install that or a newer one\n");
    CHECK_SAYS(opened(fake_path("different")),
               "libdifferent.so is ONNX Runtime 1.999.0, which does not offer the C API of 1.");
}

static void a_library_that_cannot_start_says_why(void) {
    CHECK_SAYS(opened(fake_path("broken")), "libbroken.so could not be started: no threads left\n");
}

static void a_failed_attempt_leaves_the_next_one_free(void) {
    static const char *const fakes[] = {"other", "empty", "old", "different", "broken"};
    for (size_t i = 0; i < sizeof fakes / sizeof fakes[0]; i++)
        CHECK_SAYS(attempts(fake_path(fakes[i]), real), "\nok 1.");
}

static void a_process_has_one_library(void) {
    chosen = real, virtual_env = NULL;
    const char *said = attempts("", other);
    CHECK(begins(said, "ok 1."));
    CHECK_SAYS(said, "\nINVALID ");
    CHECK_SAYS(said, " is in use: a process has one ONNX Runtime\n");
    CHECK_SAYS(attempts("", "/nowhere/libonnxruntime.so"), "\nINVALID /nowhere/libonnxruntime.so was asked for and ");
    /* The same one, by whatever path, is fine. */
    char link[600];
    snprintf(link, sizeof link, "%s/libonnxruntime.so.1", system_folder);
    CHECK_SAYS(attempts("", link), "\nok 1.");
    CHECK_SAYS(attempts(real, ""), "\nok 1.");
}

static void there_is_no_version_before_a_library_is_open(void) {
    CHECK(sidecaml_ort_version() == NULL);
    CHECK(sidecaml_ort_path() == NULL);
}

int main(int count, char **arguments) {
    static const struct test tests[] = {
        {TEST(find_libraries)},
        {TEST(libraries_are_looked_for_in_order)},
        {TEST(no_library_at_all_says_where_it_was_looked_for)},
        {TEST(a_path_that_does_not_exist_is_named)},
        {TEST(what_is_no_onnx_runtime_is_named)},
        {TEST(a_library_that_is_too_old_or_lacks_the_api_says_which_there_is_and_which_is_needed)},
        {TEST(a_library_that_cannot_start_says_why)},
        {TEST(a_failed_attempt_leaves_the_next_one_free)},
        {TEST(a_process_has_one_library)},
        {TEST(there_is_no_version_before_a_library_is_open)},
        {TEST(remove_libraries)},
    };
    return count > 1 && strcmp(arguments[1], "attempt") == 0 ? attempt(arguments + 2) : RUN_TESTS(tests, 60);
}
