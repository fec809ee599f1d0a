/* Affinity, and the quotas of control groups under a made-up root. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "cores.h"

static char root[] = "/tmp/sidecaml-cores-XXXXXX";

/* --- A made-up root ---------------------------------------------------------------------------------------------- */

static void make_folders(char *path) {
    for (char *at = path + sizeof root; (at = strchr(at, '/')); at++) {
        *at = '\0';
        mkdir(path, 0700);
        *at = '/';
    }
}

static void put(const char *name, const char *text) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s%s", root, name);
    make_folders(path);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    CHECK(fputs(text, file) >= 0);
    fclose(file);
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where) {
    (void)info, (void)kind, (void)where;
    return remove(path);
}

static void remove_root(void) {
    nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void begin(void) {
    strcpy(root + sizeof root - sizeof "XXXXXX", "XXXXXX");
    CHECK(mkdtemp(root) != NULL);
}

static uint32_t quota(void) {
    struct cores cores;
    cores_read(&cores, root);
    return cores.quota;
}

#define MOUNT_2 "24 1 0:21 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define MOUNT_1                                                                                                        \
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"                                                       \
    "33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n"                                              \
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"                                                      \
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"

/* --- Quotas ------------------------------------------------------------------------------------------------------ */

static void a_quota_counts_in_whole_processors_and_never_less_than_one(void) {
    static const struct {
        const char *text;
        uint32_t cores;
    } cases[] = {
        {"max 100000\n", CORES_NO_QUOTA},
        {"200000 100000\n", 2},
        {"190000 100000\n", 1},
        {"399999 100000\n", 3},
        {"50000 100000\n", 1},
        {"1000 1000000\n", 1},
        {"0 100000\n", CORES_NO_QUOTA},
        {"100000 0\n", CORES_NO_QUOTA},
        {"", CORES_NO_QUOTA},
        {"9223372036854775807 1\n", CORES_NO_QUOTA},
    };
    begin();
    put("/proc/self/mountinfo", MOUNT_2);
    put("/proc/self/cgroup", "0::/app\n");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put("/sys/fs/cgroup/app/cpu.max", cases[i].text);
        CHECK_EQ(quota(), cases[i].cores);
    }
    remove_root();
}

static void the_least_quota_on_the_whole_path_holds(void) {
    begin();
    put("/proc/self/mountinfo", MOUNT_2);
    put("/proc/self/cgroup", "0::/slice/service/part\n");
    put("/sys/fs/cgroup/slice/service/part/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/slice/service/cpu.max", "800000 100000\n");
    CHECK_EQ(quota(), 8);
    put("/sys/fs/cgroup/slice/cpu.max", "300000 100000\n");
    CHECK_EQ(quota(), 3);
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n"); /* the top of a container */
    CHECK_EQ(quota(), 2);
    put("/sys/fs/cgroup/other/cpu.max", "100000 100000\n"); /* somebody else's */
    CHECK_EQ(quota(), 2);
    remove_root();
}

static void version_1_counts_as_well(void) {
    begin();
    put("/proc/self/mountinfo", MOUNT_1);
    put("/proc/self/cgroup", "3:cpuset:/wrong\n2:cpuacct:/wrong\n1:cpu:/a/b\n");
    put("/sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "100000\n");
    CHECK_EQ(quota(), CORES_NO_QUOTA);
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "250000\n");
    CHECK_EQ(quota(), CORES_NO_QUOTA); /* its period is not there */
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    CHECK_EQ(quota(), 2);
    remove_root();
}

static void controllers_may_share_a_mount_and_versions_a_machine(void) {
    begin();
    put("/proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                                "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    put("/proc/self/cgroup", "4:cpu,cpuacct:/old\n0::/new\n");
    put("/sys/fs/cgroup/cpu,cpuacct/old/cpu.cfs_quota_us", "500000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/old/cpu.cfs_period_us", "100000\n");
    CHECK_EQ(quota(), 5);
    put("/sys/fs/cgroup/unified/new/cpu.max", "400000 100000\n");
    CHECK_EQ(quota(), 4);
    remove_root();
}

/* In a container the mount shows a part of the tree, which the process's path may name as a whole. */
static void a_mount_may_begin_below_the_top(void) {
    begin();
    put("/proc/self/mountinfo", "24 1 0:21 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/cpu.max", "600000 100000\n");
    put("/sys/fs/cgroup/app/cpu.max", "400000 100000\n");
    put("/proc/self/cgroup", "0::/docker/abc/app\n");
    CHECK_EQ(quota(), 4);
    put("/proc/self/cgroup", "0::/docker/abc\n");
    CHECK_EQ(quota(), 6);
    put("/proc/self/cgroup", "0::/docker/abcdef/app\n"); /* another's, whose name begins alike */
    CHECK_EQ(quota(), 6);
    put("/proc/self/cgroup", "0::/../other\n");
    CHECK_EQ(quota(), 6);
    remove_root();
}

static void what_is_not_there_or_makes_no_sense_is_no_quota(void) {
    begin();
    CHECK_EQ(quota(), CORES_NO_QUOTA);
    put("/proc/self/mountinfo", "nonsense\n - \n24 1 0:21 / - cgroup2 cgroup2 rw\n" MOUNT_2);
    put("/proc/self/cgroup", "\n:\n::\n0::\n");
    CHECK_EQ(quota(), CORES_NO_QUOTA);
    put("/proc/self/cgroup", "0::/app\n");
    put("/sys/fs/cgroup/app/cpu.max", "much 100000\n");
    CHECK_EQ(quota(), CORES_NO_QUOTA);
    remove_root();
}

/* --- Affinity, and both ------------------------------------------------------------------------------------------ */

static uint32_t first_of(const cpu_set_t *set) {
    for (uint32_t i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, set)) return i;
    check_failed(__FILE__, __LINE__, "a process may run nowhere");
}

static void the_affinity_mask_counts(void) {
    cpu_set_t before, one;
    struct cores cores;
    CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    cores_read(&cores, "/nowhere");
    CHECK_EQ(cores.allowed, CPU_COUNT(&before));
    CHECK_EQ(cores_usable(&cores), CPU_COUNT(&before));
    CPU_ZERO(&one);
    CPU_SET(first_of(&before), &one);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    cores_read(&cores, "/nowhere");
    CHECK_EQ(cores_usable(&cores), 1);
    CHECK_EQ(cores_together(&cores, 0, first_of(&before) + 1), 1);
    CHECK_EQ(cores_together(&cores, 0, first_of(&before) + 2), 2);
    CHECK_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

static void peers_have_the_processors_of_both_and_the_quota_once(void) {
    struct cores cores = {.allowed = 2, .quota = CORES_NO_QUOTA, .mask = {0x3}};
    CHECK_EQ(cores_usable(&cores), 2);
    CHECK_EQ(cores_together(&cores, 0, 0), 2);
    CHECK_EQ(cores_together(&cores, 0, 2), 2);    /* processor 1 */
    CHECK_EQ(cores_together(&cores, 0, 3), 3);    /* processor 2 */
    CHECK_EQ(cores_together(&cores, 8, 3), 8);    /* their eight hold ours */
    CHECK_EQ(cores_together(&cores, 0, 5000), 2); /* beyond what the mask tells */
    cores.quota = 2;
    CHECK_EQ(cores_together(&cores, 8, 3), 2);
    cores.quota = 1;
    CHECK_EQ(cores_usable(&cores), 1);
}

static void this_machine_has_cores(void) {
    struct cores cores;
    int before = count_fds();
    cores_read(&cores, "");
    CHECK(cores_usable(&cores) >= 1);
    CHECK_EQ(count_fds(), before);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(a_quota_counts_in_whole_processors_and_never_less_than_one)},
        {TEST(the_least_quota_on_the_whole_path_holds)},
        {TEST(version_1_counts_as_well)},
        {TEST(controllers_may_share_a_mount_and_versions_a_machine)},
        {TEST(a_mount_may_begin_below_the_top)},
        {TEST(what_is_not_there_or_makes_no_sense_is_no_quota)},
        {TEST(the_affinity_mask_counts)},
        {TEST(peers_have_the_processors_of_both_and_the_quota_once)},
        {TEST(this_machine_has_cores)},
    };
    return RUN_TESTS(tests, 20);
}
