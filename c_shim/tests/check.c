#define _GNU_SOURCE
#include "check.h"

#include <dirent.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *running = "start";

void check_failed(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stdout, "FAILED %s\n  %s:%d: ", running, file, line);
    vfprintf(stdout, format, arguments);
    fputc('\n', stdout);
    va_end(arguments);
    fflush(stdout);
    _exit(1);
}

int check_contains(const char *text, const char *part) {
    return strstr(text, part) != NULL;
}

int count_fds(void) {
    DIR *folder = opendir("/proc/self/fd");
    if (!folder) check_failed(__FILE__, __LINE__, "/proc/self/fd cannot be read");
    int count = 0;
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

unsigned long long next_number(struct numbers *numbers) {
    unsigned long long value = numbers->state += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

static void on_alarm(int signal) {
    (void)signal;
    static const char message[] = "\n  the watchdog ended it: it hangs\n";
    /* Only what a signal handler may call. */
    if (write(1, "FAILED ", 7) < 0 || write(1, running, strlen(running)) < 0 ||
        write(1, message, sizeof message - 1) < 0)
        _exit(3);
    _exit(2);
}

int run_tests(const struct test *tests, size_t count, unsigned watchdog_s) {
    signal(SIGALRM, on_alarm);
    for (size_t i = 0; i < count; i++) {
        running = tests[i].name;
        int before = count_fds();
        alarm(watchdog_s);
        tests[i].run();
        alarm(0);
        CHECK_EQ(count_fds(), before);
        printf("ok %s\n", tests[i].name);
        fflush(stdout);
    }
    return 0;
}
