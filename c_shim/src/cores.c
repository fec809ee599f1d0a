#define _GNU_SOURCE
#include "cores.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

#define PATH_ROOM 4096
#define FIRST_FORM "cpu" /* the controller's name in version 1 */

/* --- Affinity ---------------------------------------------------------------------------------------------------- */

static void read_affinity(struct cores *out) {
    _Static_assert(sizeof(cpu_set_t) == sizeof out->mask, "1024 processors");
    if (sched_getaffinity(0, sizeof out->mask, (cpu_set_t *)out->mask) == 0) {
        out->allowed = (uint32_t)CPU_COUNT((cpu_set_t *)out->mask);
        return;
    }
    /* A machine with more: every processor counts as allowed. */
    memset(out->mask, 0xff, sizeof out->mask);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    out->allowed = online < 1 ? 1 : (uint32_t)online;
}

static bool is_allowed(const struct cores *cores, uint32_t processor) {
    return processor >= 64 * CORES_MASK_WORDS || cores->mask[processor / 64] >> processor % 64 & 1;
}

/* --- Files ------------------------------------------------------------------------------------------------------- */

static FILE *open_file(const char *root, const char *folder, const char *group, const char *name) {
    char path[PATH_ROOM];
    struct text text = text_in(path, sizeof path);
    text_add(&text, "%s%s%s/%s", root, folder, group, name);
    return fopen(path, "re");
}

/* Calls `look` for each line until it returns true; whether it did. */
static bool any_line(const char *root, const char *name, bool (*look)(char *line, void *context), void *context) {
    FILE *file = open_file(root, "/proc/self", "", name);
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    while (file && !found && getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        found = look(line, context);
    }
    free(line);
    if (file) fclose(file);
    return found;
}

/* Whether a word stands in a list with commas. */
static bool lists(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length) {
        bool begins = at == list || at[-1] == ',';
        if (begins && (at[length] == '\0' || at[length] == ',')) return true;
    }
    return false;
}

/* --- Control groups ---------------------------------------------------------------------------------------------- */

/* Where the processor's quotas stand, in one version of control groups. */
struct hierarchy {
    bool unified; /* version 2 */
    char mount[PATH_ROOM];
    char top[PATH_ROOM];   /* the group that is mounted there */
    char group[PATH_ROOM]; /* the process's */
};

/* "36 31 0:28 /top /mount rw - cgroup2 cgroup2 rw", or "- cgroup cgroup rw,cpu,cpuacct". */
static bool is_mount(char *line, void *context) {
    struct hierarchy *in = context;
    char type[64], options[PATH_ROOM];
    const char *rest = strstr(line, " - ");
    if (!rest || sscanf(rest, " - %63s %*s %4095s", type, options) != 2) return false;
    if (in->unified ? strcmp(type, "cgroup2") != 0 : strcmp(type, "cgroup") != 0 || !lists(options, FIRST_FORM))
        return false;
    return sscanf(line, "%*s %*s %*s %4095s %4095s", in->top, in->mount) == 2;
}

/* "0::/group", or "4:cpu,cpuacct:/group". */
static bool is_place(char *line, void *context) {
    struct hierarchy *in = context;
    char *names = strchr(line, ':');
    char *group = names ? strchr(++names, ':') : NULL;
    if (!group) return false;
    *group++ = '\0';
    if (in->unified ? *names != '\0' : !lists(names, FIRST_FORM)) return false;
    struct text text = text_in(in->group, sizeof in->group);
    text_add(&text, "%s", group);
    return true;
}

/* What is not below the mounted group cannot be seen: the top itself is looked at then. */
static char *below_top(struct hierarchy *in) {
    size_t length = strcmp(in->top, "/") == 0 ? 0 : strlen(in->top);
    char *below = in->group + length;
    bool is_below = strncmp(in->group, in->top, length) == 0 && *below == '/' && !strstr(below, "/..");
    if (!is_below) *(below = in->group) = '\0';
    return below;
}

static bool read_numbers(const char *root, const struct hierarchy *in, const char *group, const char *name, int count,
                         long long *numbers) {
    FILE *file = open_file(root, in->mount, group, name);
    int found = 0;
    while (file && found < count && fscanf(file, "%lld", &numbers[found]) == 1)
        found++;
    if (file) fclose(file);
    return found == count;
}

/* Of one group. Without a quota there stands "max" or -1. */
static uint32_t quota_of(const char *root, const struct hierarchy *in, const char *group) {
    long long use[2]; /* microseconds of processor time, in so many of time */
    bool is_known = in->unified ? read_numbers(root, in, group, "cpu.max", 2, use)
                                : read_numbers(root, in, group, "cpu.cfs_quota_us", 1, &use[0]) &&
                                      read_numbers(root, in, group, "cpu.cfs_period_us", 1, &use[1]);
    if (!is_known || use[0] <= 0 || use[1] <= 0) return CORES_NO_QUOTA;
    long long whole = use[0] / use[1];
    if (whole >= CORES_NO_QUOTA) return CORES_NO_QUOTA;
    return whole < 1 ? 1 : (uint32_t)whole;
}

/* The least of the process's group and of all above it. */
static uint32_t least_quota(const char *root, bool unified) {
    struct hierarchy in = {.unified = unified};
    if (!any_line(root, "mountinfo", is_mount, &in) || !any_line(root, "cgroup", is_place, &in)) return CORES_NO_QUOTA;
    char *group = below_top(&in);
    uint32_t least = CORES_NO_QUOTA;
    for (;;) {
        uint32_t quota = quota_of(root, &in, group);
        if (quota < least) least = quota;
        char *last = strrchr(group, '/');
        if (!last) return least;
        *last = '\0';
    }
}

/* --- Both -------------------------------------------------------------------------------------------------------- */

static uint32_t lesser(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

void cores_read(struct cores *out, const char *root) {
    read_affinity(out);
    out->quota = lesser(least_quota(root, true), least_quota(root, false));
}

uint32_t cores_usable(const struct cores *cores) {
    return lesser(cores->allowed, cores->quota);
}

uint32_t cores_together(const struct cores *cores, uint32_t theirs, uint32_t peer_core) {
    uint32_t ours = cores->allowed;
    if (peer_core && !is_allowed(cores, peer_core - 1)) ours++;
    return lesser(ours > theirs ? ours : theirs, cores->quota);
}
