#define _GNU_SOURCE
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "failure.h"

/* --- Cores ------------------------------------------------------------------------------------------------------- */

int pin(int core, struct sidecaml_failure *why) {
    cpu_set_t cores;
    if (core < 0 || core >= CPU_SETSIZE) return fail(why, SIDECAML_E_INVALID, "there is no core %d", core);
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    if (sched_setaffinity(0, sizeof cores, &cores) == 0) return 0;
    char what[64];
    snprintf(what, sizeof what, "a process could not be pinned to core %d", core);
    return fail_errno(why, what);
}

/* --- Starting ---------------------------------------------------------------------------------------------------- */

/* stdin and stdout carry the driver's lines. */
static void take_streams(void) {
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) _exit(1);
}

static void end_with(pid_t parent) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent) _exit(1);
}

static int fork_into(int (*body)(void *), void *argument, struct child *out, struct sidecaml_failure *why) {
    pid_t parent = getpid();
    fflush(NULL); /* or the child would have the same lines to write */
    pid_t pid = fork();
    if (pid < 0) return fail_errno(why, "fork");
    if (pid == 0) {
        end_with(parent);
        take_streams();
        _exit(body(argument));
    }
    out->pid = pid;
    return 0;
}

int child_start(const char *what, int core, int (*body)(void *), void *argument, struct child *out,
                struct sidecaml_failure *why) {
    cpu_set_t ours;
    *out = (struct child){.what = what};
    if (core == ANY_CORE) return fork_into(body, argument, out, why);
    /* The parent goes there and comes back: so the child is there from its first instruction on, with all its threads,
     * and a core that is not there is the parent's to report. */
    if (sched_getaffinity(0, sizeof ours, &ours) < 0) return fail_errno(why, "sched_getaffinity");
    int status = pin(core, why);
    if (status < 0) return status;
    status = fork_into(body, argument, out, why);
    if (sched_setaffinity(0, sizeof ours, &ours) < 0 && status == 0) status = fail_errno(why, "sched_setaffinity");
    if (status < 0) child_stop(out);
    return status;
}

/* --- Ending ------------------------------------------------------------------------------------------------------ */

static void reap(struct child *child, int *ended) {
    while (waitpid(child->pid, ended, 0) < 0 && errno == EINTR) {
    }
    child->pid = 0;
}

int child_wait(struct child *child, const struct sidecaml_failure *told, struct sidecaml_failure *why) {
    int ended = 0;
    reap(child, &ended);
    if (WIFEXITED(ended) && WEXITSTATUS(ended) == 0) return 0;
    if (told && told->code) return fail(why, told->code, "%s", told->text);
    if (WIFSIGNALED(ended))
        return fail(why, SIDECAML_E_SERVER_GONE, "%s was ended by signal %d (%s)", child->what, WTERMSIG(ended),
                    strsignal(WTERMSIG(ended)));
    return fail(why, SIDECAML_E_SERVER_GONE, "%s exited with %d; what it said stands on stderr", child->what,
                WEXITSTATUS(ended));
}

/* For the handler. */
static struct {
    const char *what;
    const struct sidecaml_failure *told;
} guarded;

static size_t append(char *line, size_t used, size_t room, const char *text) {
    for (; *text && used < room; text++)
        line[used++] = *text == '\n' ? ' ' : *text;
    return used;
}

/* Only what a signal handler may call. */
static void give_up(int signal_number) {
    char line[SIDECAML_FAILURE_BYTES + 128];
    size_t room = sizeof line - 1;
    size_t used = append(line, 0, room, "error ");
    (void)signal_number;
    if (guarded.told && guarded.told->code) {
        used = append(line, used, room, guarded.told->text);
    } else {
        used = append(line, used, room, guarded.what);
        used = append(line, used, room, " ended by itself; what it said stands on stderr");
    }
    line[used++] = '\n';
    ssize_t written = write(STDOUT_FILENO, line, used);
    _exit(written < 0 ? 2 : 1);
}

int child_guard(const struct child *child, const struct sidecaml_failure *told, struct sidecaml_failure *why) {
    /* Being stopped is no end. */
    struct sigaction action = {.sa_handler = give_up, .sa_flags = SA_NOCLDSTOP};
    siginfo_t ended = {0};
    guarded.what = child->what;
    guarded.told = told;
    if (sigaction(SIGCHLD, &action, NULL) < 0) return fail_errno(why, "sigaction");
    /* It may have ended before. */
    if (waitid(P_PID, (id_t)child->pid, &ended, WEXITED | WNOHANG | WNOWAIT) < 0) return fail_errno(why, "waitid");
    if (ended.si_pid) give_up(SIGCHLD);
    return 0;
}

void child_stop(struct child *child) {
    int ended;
    if (!child->pid) return;
    signal(SIGCHLD, SIG_DFL);
    kill(child->pid, SIGKILL);
    reap(child, &ended);
}
