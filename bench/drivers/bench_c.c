/* The driver of the paths in C: bench_c --path PATH --model FILE.onnx [--server-core N] */
#define _GNU_SOURCE
#include <getopt.h>
#include <string.h>

#include "arguments.h"
#include "child.h"
#include "failure.h"
#include "protocol.h"
#include "report.h"

static const struct path *const paths[] = {&floor_path, &floor_block_path, &inprocess_path, &uds_msgpack_path};

static int find_path(const char *name, const struct path **out, struct sidecaml_failure *why) {
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (strcmp(paths[i]->name, name) == 0) {
            *out = paths[i];
            return 0;
        }
    }
    return fail(why, SIDECAML_E_INVALID, "unknown path \"%s\": expected floor, floor-block, c-inprocess or uds-msgpack",
                name);
}

static int read_option(int option, char **words, const struct path **path, struct options *out,
                       struct sidecaml_failure *why) {
    switch (option) {
    case 'p':
        return find_path(optarg, path, why);
    case 'm':
        out->model = optarg;
        return 0;
    case 'c':
        return argument_core("--server-core", optarg, &out->server_core, why);
    case 'i': /* of the drivers that speak to a daemon */
        return 0;
    default:
        return argument_unknown(words[optind - 1], why);
    }
}

static int read_options(int count, char **words, const struct path **path, struct options *out,
                        struct sidecaml_failure *why) {
    static const struct option known[] = {
        {"path", required_argument, NULL, 'p'},        {"model", required_argument, NULL, 'm'},
        {"server-core", required_argument, NULL, 'c'}, {"name", required_argument, NULL, 'i'},
        {"socket", required_argument, NULL, 'i'},      {0}};
    int status = 0, option;
    opterr = 0;
    *out = (struct options){.server_core = ANY_CORE};
    while (status == 0 && (option = getopt_long(count, words, "", known, NULL)) != -1)
        status = read_option(option, words, path, out, why);
    if (status == 0 && (!*path || !out->model || optind < count))
        return fail(why, SIDECAML_E_INVALID, "usage: bench_c --path PATH --model FILE.onnx [--server-core N]");
    return status;
}

static int drive(int count, char **words, struct sidecaml_failure *why) {
    struct driver driver = {0};
    struct options options;
    int status = read_options(count, words, &driver.path, &options, why);
    if (status < 0) return status;
    status = driver.path->open(&options, &driver.opened, why);
    if (status == 0) status = protocol_serve(&driver, why);
    driver.path->close();
    return status;
}

int main(int count, char **words) {
    struct sidecaml_failure why = {0};
    return drive(count, words, &why) < 0 ? report_error(why.text) : 0;
}
