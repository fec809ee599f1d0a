#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include "check.h"
#include "guard.h"
#include "pair.h"

#define PAGE ((uint64_t)sysconf(_SC_PAGESIZE))
#define PAGES 8

static struct sidecaml_failure why;

/* A file of PAGES pages of ones, mapped and maybe guarded. */
struct file {
    int fd;
    volatile uint8_t *bytes;
    struct guarded *range;
};

static void map_file(struct file *file, int fd, bool guarded) {
    file->fd = fd;
    file->bytes = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK((void *)file->bytes != MAP_FAILED);
    memset((void *)file->bytes, 1, PAGES * PAGE);
    file->range = guarded ? guard_add((void *)file->bytes, PAGES * PAGE) : NULL;
    CHECK(!guarded || file->range);
}

static void open_file(struct file *file, bool guarded) {
    map_file(file, make_memfd(PAGES * PAGE), guarded);
}

static void close_file(struct file *file) {
    guard_remove(file->range);
    CHECK_EQ(munmap((void *)file->bytes, PAGES * PAGE), 0);
    close(file->fd);
}

static void shorten(const struct file *file, uint64_t pages) {
    CHECK_EQ(ftruncate(file->fd, (off_t)(pages * PAGE)), 0);
}

static void punch(const struct file *file, uint64_t page) {
    const int how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    CHECK_EQ(fallocate(file->fd, how, (off_t)(page * PAGE), (off_t)PAGE), 0);
}

static void install(void) {
    CHECK_EQ(sidecaml_guard(&why), 0);
}

static void uninstall(void) {
    signal(SIGBUS, SIG_DFL);
}

static uint64_t all_bytes(const struct file *file) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < PAGES; i++)
        sum += file->bytes[i * PAGE];
    return sum;
}

/* --- Faults inside ----------------------------------------------------------------------------------------------- */

static void pages_that_were_taken_away_read_as_zeros(void) {
    struct file file;
    open_file(&file, true);
    install();
    uint64_t before = guard_breaks_so_far();
    CHECK(!guard_is_broken(file.range));
    shorten(&file, 0);
    errno = EDOM;
    CHECK_EQ(all_bytes(&file), 0);
    CHECK_EQ(errno, EDOM);
    CHECK(guard_is_broken(file.range));
    CHECK_EQ(guard_breaks_so_far(), before + 1);
    close_file(&file);
    uninstall();
}

static void they_can_be_written_and_stay_private(void) {
    struct file file;
    open_file(&file, true);
    install();
    shorten(&file, 0);
    file.bytes[3 * PAGE] = 7;
    CHECK_EQ(file.bytes[3 * PAGE], 7);
    shorten(&file, PAGES);
    uint8_t seen = 9;
    CHECK_EQ(pread(file.fd, &seen, 1, (off_t)(3 * PAGE)), 1);
    CHECK_EQ(seen, 0);
    close_file(&file);
    uninstall();
}

static void what_lies_before_the_fault_is_left(void) {
    struct file file;
    open_file(&file, true);
    install();
    shorten(&file, PAGES / 2);
    CHECK_EQ(file.bytes[PAGES / 2 * PAGE], 0);
    CHECK_EQ(all_bytes(&file), PAGES / 2);
    close_file(&file);
    uninstall();
}

/* Or a client could have a worker fault page after page, from the last to the first. */
static void a_second_fault_gives_up_the_whole_range(void) {
    struct file file;
    open_file(&file, true);
    install();
    uint64_t before = guard_breaks_so_far();
    shorten(&file, PAGES / 2);
    CHECK_EQ(file.bytes[(PAGES - 1) * PAGE], 0);
    CHECK_EQ(file.bytes[PAGES / 2 * PAGE], 0);
    shorten(&file, PAGES);
    pwrite(file.fd, "\5", 1, 0);
    CHECK_EQ(all_bytes(&file), 0);
    CHECK_EQ(guard_breaks_so_far(), before + 1);
    close_file(&file);
    uninstall();
}

static void other_ranges_are_not_touched(void) {
    struct file files[3];
    for (int i = 0; i < 3; i++)
        open_file(&files[i], true);
    install();
    shorten(&files[1], 0);
    CHECK_EQ(all_bytes(&files[1]), 0);
    CHECK_EQ(all_bytes(&files[0]), PAGES);
    CHECK_EQ(all_bytes(&files[2]), PAGES);
    CHECK(!guard_is_broken(files[0].range) && !guard_is_broken(files[2].range));
    for (int i = 0; i < 3; i++)
        close_file(&files[i]);
    uninstall();
}

/* Punching takes no page away for good, unless the file system is full when the page is touched again. */
static void touch_punched_pages_of_a_full_file_system(const char *folder) {
    char path[64];
    snprintf(path, sizeof path, "%s/segment", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct file file;
    CHECK_EQ(ftruncate(fd, (off_t)(PAGES * PAGE)), 0);
    map_file(&file, fd, true);
    install();
    punch(&file, 2);
    CHECK_EQ(file.bytes[2 * PAGE], 0); /* there is room: a new page, and nothing has broken */
    CHECK(!guard_is_broken(file.range));
    punch(&file, 2);
    snprintf(path, sizeof path, "%s/filler", folder);
    int filler = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    static char block[1 << 12];
    while (write(filler, block, sizeof block) > 0) {
    }
    file.bytes[2 * PAGE] = 3;
    CHECK_EQ(file.bytes[2 * PAGE], 3);
    CHECK_EQ(file.bytes[PAGE], 1);
    CHECK(guard_is_broken(file.range));
}

/* Sees mounts of its own: what it mounts goes with it. */
static bool mount_small_file_system(const char *folder) {
    char size[32];
    snprintf(size, sizeof size, "size=%llu", (unsigned long long)(16 * PAGE));
    return unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)) == 0 &&
           mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("sidecaml", folder, "tmpfs", 0, size) == 0;
}

static void punched_pages_of_a_full_file_system_are_mended(void) {
    char folder[] = "/tmp/sidecaml-guard-XXXXXX";
    CHECK(mkdtemp(folder));
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (!mount_small_file_system(folder)) _exit(77);
        touch_punched_pages_of_a_full_file_system(folder);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(rmdir(folder), 0);
    CHECK(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        printf("left out: this user may mount no file system here\n");
    else
        CHECK_EQ(WEXITSTATUS(status), 0);
}

/* --- Faults elsewhere, and other handlers ------------------------------------------------------------------------ */

/* Runs in a child; the signal that ended it, or 0. */
static int ended_by(void (*run)(void)) {
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        signal(SIGBUS, SIG_DFL);
        alarm(20);
        run();
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void touch_what_is_gone(bool guarded) {
    struct file file;
    open_file(&file, guarded);
    shorten(&file, 0);
    CHECK_EQ(all_bytes(&file), 0);
}

static void fault_elsewhere(void) {
    install();
    touch_what_is_gone(true);
    touch_what_is_gone(false);
}

static void fault_where_a_range_was(void) {
    struct file file;
    install();
    open_file(&file, true);
    guard_remove(file.range);
    shorten(&file, 0);
    all_bytes(&file);
}

static void signal_from_elsewhere(void) {
    install();
    pid_t me = getpid();
    if (fork() == 0) {
        kill(me, SIGBUS);
        _exit(0);
    }
    pause();
}

static void a_fault_elsewhere_kills_as_before(void) {
    CHECK_EQ(ended_by(fault_elsewhere), SIGBUS);
    CHECK_EQ(ended_by(fault_where_a_range_was), SIGBUS);
    CHECK_EQ(ended_by(signal_from_elsewhere), SIGBUS);
}

static volatile sig_atomic_t seen;
static void *volatile seen_at;
static struct file other;

static void give_pages_back(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    seen++;
    seen_at = info->si_addr;
    if (ftruncate(other.fd, (off_t)(PAGES * PAGE)) < 0) _exit(4);
}

static void install_action(void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
}

static void the_handler_before_ours_gets_what_is_not_ours(void) {
    struct file guarded;
    open_file(&guarded, true);
    open_file(&other, false);
    install_action(give_pages_back);
    install();
    seen = 0;
    for (int i = 1; i <= 3; i++) {
        shorten(&other, 0);
        CHECK_EQ(other.bytes[5 * PAGE + 3], 0);
        CHECK_EQ(seen, i);
        CHECK(seen_at == &other.bytes[5 * PAGE + 3]);
    }
    shorten(&guarded, 0);
    CHECK_EQ(all_bytes(&guarded), 0);
    CHECK_EQ(seen, 3);
    close_file(&guarded), close_file(&other);
    uninstall();
}

/* As Python's faulthandler: what was there before is put back, and the signal raised again. */
static struct sigaction before_faulthandler;
static void as_faulthandler(int number, siginfo_t *info, void *context) {
    (void)info, (void)context;
    seen++;
    sigaction(SIGBUS, &before_faulthandler, NULL);
    raise(number);
}

static void enable_faulthandler(void) {
    struct sigaction action = {.sa_sigaction = as_faulthandler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &action, &before_faulthandler);
}

static void faulthandler_before_ours(void) {
    enable_faulthandler();
    fault_elsewhere();
}

static void faulthandler_between_ours(void) {
    install();
    enable_faulthandler();
    install();
    touch_what_is_gone(true);
    CHECK_EQ(seen, 0);
    touch_what_is_gone(false);
}

static void faulthandler_after_ours(void) {
    install();
    enable_faulthandler();
    touch_what_is_gone(true);
    CHECK_EQ(seen, 1);
}

static void faulthandler_after_ours_and_a_fault_elsewhere(void) {
    install();
    enable_faulthandler();
    touch_what_is_gone(false);
}

static void handlers_that_raise_again_lead_to_no_loop(void) {
    seen = 0;
    CHECK_EQ(ended_by(faulthandler_before_ours), SIGBUS);
    CHECK_EQ(ended_by(faulthandler_between_ours), SIGBUS);
    CHECK_EQ(ended_by(faulthandler_after_ours), 0);
    CHECK_EQ(ended_by(faulthandler_after_ours_and_a_fault_elsewhere), SIGBUS);
}

static void many_installations(void) {
    for (int i = 0; i < 1000; i++) {
        struct sigaction action = {.sa_handler = i % 2 ? SIG_DFL : SIG_IGN};
        sigaction(SIGBUS, &action, NULL);
        install();
        install();
        touch_what_is_gone(true);
    }
    touch_what_is_gone(false);
}

static void it_can_be_installed_at_any_time_again(void) {
    CHECK_EQ(ended_by(many_installations), SIGBUS);
}

static void ignored_signals(void) {
    signal(SIGBUS, SIG_IGN);
    install();
    raise(SIGBUS);
    pid_t me = getpid();
    pid_t child = fork();
    if (child == 0) {
        kill(me, SIGBUS);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    touch_what_is_gone(true);
}

static void a_signal_that_was_ignored_still_is(void) {
    CHECK_EQ(ended_by(ignored_signals), 0);
}

/* --- The table --------------------------------------------------------------------------------------------------- */

static void a_full_table_says_so(void) {
    static struct guarded *ranges[GUARD_RANGES];
    for (uint64_t i = 0; i < GUARD_RANGES; i++)
        CHECK((ranges[i] = guard_add((void *)((i + 1) << 32), PAGE)) != NULL);
    CHECK(guard_add((void *)PAGE, PAGE) == NULL);
    guard_remove(ranges[77]);
    CHECK(guard_add((void *)PAGE, PAGE) == ranges[77]);
    for (int i = 0; i < GUARD_RANGES; i++)
        guard_remove(ranges[i]);
    guard_remove(NULL);
}

static void an_entry_that_is_used_again_is_whole(void) {
    struct file file;
    install();
    for (int i = 0; i < 3; i++) {
        open_file(&file, true);
        CHECK(!guard_is_broken(file.range));
        shorten(&file, 0);
        CHECK_EQ(all_bytes(&file), 0);
        CHECK(guard_is_broken(file.range));
        close_file(&file);
    }
    uninstall();
}

int main(void) {
    static const struct test tests[] = {
        {TEST(pages_that_were_taken_away_read_as_zeros)},
        {TEST(they_can_be_written_and_stay_private)},
        {TEST(what_lies_before_the_fault_is_left)},
        {TEST(a_second_fault_gives_up_the_whole_range)},
        {TEST(other_ranges_are_not_touched)},
        {TEST(punched_pages_of_a_full_file_system_are_mended)},
        {TEST(a_fault_elsewhere_kills_as_before)},
        {TEST(the_handler_before_ours_gets_what_is_not_ours)},
        {TEST(handlers_that_raise_again_lead_to_no_loop)},
        {TEST(it_can_be_installed_at_any_time_again)},
        {TEST(a_signal_that_was_ignored_still_is)},
        {TEST(a_full_table_says_so)},
        {TEST(an_entry_that_is_used_again_is_whole)},
    };
    return RUN_TESTS(tests, 60);
}
