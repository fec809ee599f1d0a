/* The SIGBUS handler of workers.
 *
 * In the handler only loads, stores, compare-and-exchanges and a few system calls: it may interrupt anything, malloc
 * and the interpreter included, on any thread, those of ONNX Runtime too. errno stays what it was.
 *
 * The stack. SIGBUS is a fault of data here, not an overflow of the stack (that is SIGSEGV), so the stack that the
 * thread runs on is good enough, and no thread needs one made for signals. Where a thread has one (faulthandler makes
 * one for the main thread) SA_ONSTACK uses it: threads of other languages' runtimes, and coroutines, may run on stacks
 * that are too small for the kernel's frame.
 *
 * Blocked signals. A thread that blocks SIGBUS and faults is killed by the kernel, whatever the handler. Ours that do
 * so never touch a segment (watch.c).
 *
 * System calls that are handed an address in such a range fail with EFAULT and raise no signal: nothing to guard.
 *
 * Others install handlers as well: libraries, and Python's faulthandler when user code enables it. The guard is
 * installed last and again whenever somebody may have come between (sidecaml_guard), and hands on what is not its
 * own. Those that come after it and pass on by putting the handler before theirs back and raising the signal
 * again work too: what a process raises by itself is no fault, so the guard returns; the instruction that faulted is
 * run again and faults again, into the guard this time.
 */
#define _GNU_SOURCE
#include "guard.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "failure.h"

/* What was installed before us: the latest, and some more, which a handler on another thread may still be reading. */
#define KEPT_ACTIONS 8

_Atomic uint64_t guard_breaks;

static struct guarded table[GUARD_RANGES];
static _Atomic uint32_t used; /* entries of the table that were ever in use: the handler looks no further */
static uint64_t page_bytes;
static bool is_wanted;
static struct sigaction actions[KEPT_ACTIONS];
static _Atomic uint32_t before_us;  /* in `actions` */
static _Atomic uint64_t handing_on; /* the thread that runs the action before us, plus 1; 0 when none does */

/* There are several writers, each on its own thread. */
static uint64_t add64(_Atomic uint64_t *number, uint64_t added) {
    uint64_t seen = load64(number, relaxed);
    while (!cas64(number, &seen, seen + added, seq_cst)) {
    }
    return seen;
}

/* --- The table ---------------------------------------------------------------------------------------------------
 *
 * A handler pins an entry, then reads where it starts (G1, G2); who removes it clears the start, then waits for the
 * pins to go (R1, R2), all seq_cst. Either the handler sees the entry free, or the remover sees its pin: no page is
 * ever mapped over what came after. A handler never waits, so neither does the remover for long. */

static struct guarded *free_entry(void) {
    uint32_t count = load32(&used, relaxed);
    for (uint32_t i = 0; i < count; i++)
        if (load64(&table[i].start, relaxed) == 0) return &table[i];
    if (count == GUARD_RANGES) return NULL;
    store32(&used, count + 1, release);
    return &table[count];
}

struct guarded *guard_add(void *base, uint64_t bytes) {
    struct guarded *range = free_entry();
    if (!range) return NULL;
    store32(&range->broken, 0, relaxed);
    store64(&range->end, (uint64_t)(uintptr_t)base + bytes, relaxed);
    store64(&range->start, (uint64_t)(uintptr_t)base, seq_cst); /* with what was stored before it */
    return range;
}

void guard_remove(struct guarded *range) {
    if (!range) return;
    store64(&range->start, 0, seq_cst);   /* R1 */
    while (load64(&range->pins, seq_cst)) /* R2 */
        sched_yield();
}

/* From the page that is missing to the end of the range. A second fault means that more is missing, maybe page after
 * page: then all of it, so that no client can keep a worker busy with faults. */
static bool map_zeros(struct guarded *range, uint64_t start, uint64_t end, uint64_t address) {
    bool first = !exchange32(&range->broken, 1, seq_cst);
    if (first) add64(&guard_breaks, 1);
    uint64_t from = first ? address & ~(page_bytes - 1) : start;
    /* Not counted as memory before it is written: what the client takes away it need not pay for again. By hand, as a
     * sanitizer would take mmap for a write to memory that other threads are using: they find either page. */
    long zeros = syscall(SYS_mmap, from, end - from, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    return zeros != -1;
}

static bool mend(struct guarded *range, uint64_t address) {
    add64(&range->pins, 1);                          /* G1 */
    uint64_t start = load64(&range->start, seq_cst); /* G2 */
    uint64_t end = load64(&range->end, relaxed);
    bool mended = start && address >= start && address < end && map_zeros(range, start, end, address);
    add64(&range->pins, UINT64_MAX);
    return mended;
}

static bool mend_any(uint64_t address) {
    uint32_t count = load32(&used, acquire);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t start = load64(&table[i].start, acquire);
        if (start && address >= start && address < load64(&table[i].end, relaxed)) return mend(&table[i], address);
    }
    return false;
}

/* --- Signals ----------------------------------------------------------------------------------------------------- */

static void on_sigbus(int number, siginfo_t *info, void *context);

/* As if nobody had installed anything: the instruction that faulted is run again, and ends the process where it is; a
 * signal that somebody sent comes again. */
static void end_by(const siginfo_t *info) {
    const struct sigaction by_default = {.sa_handler = SIG_DFL};
    sigaction(SIGBUS, &by_default, NULL);
    if (info->si_code <= 0) syscall(SYS_tgkill, getpid(), gettid(), SIGBUS);
}

static void hand_on(int number, siginfo_t *info, void *context) {
    const struct sigaction *before = &actions[load32(&before_us, acquire)];
    bool sent = info->si_code <= 0;
    if (before->sa_handler == SIG_IGN && sent) return;
    /* A handler that puts us back and raises the signal again leads here from itself: around and around, otherwise. */
    uint64_t me = (uint64_t)gettid() + 1, nobody = 0;
    if (before->sa_handler == SIG_IGN || before->sa_handler == SIG_DFL || load64(&handing_on, seq_cst) == me) {
        end_by(info);
        return;
    }
    bool ours = cas64(&handing_on, &nobody, me, seq_cst);
    if (before->sa_flags & SA_SIGINFO)
        before->sa_sigaction(number, info, context);
    else
        before->sa_handler(number);
    if (ours) store64(&handing_on, 0, seq_cst);
}

static bool raised_by_us(const siginfo_t *info) {
    return info->si_code == SI_TKILL && info->si_pid == getpid();
}

static void on_sigbus(int number, siginfo_t *info, void *context) {
    int kept = errno;
    bool again = load64(&handing_on, seq_cst) == (uint64_t)gettid() + 1;
    bool mended = info->si_code == BUS_ADRERR && mend_any((uint64_t)(uintptr_t)info->si_addr);
    if (!mended && (again || !raised_by_us(info))) hand_on(number, info, context);
    errno = kept;
}

/* A place for what is installed now; the one of last time when it is the same again. */
static void keep(const struct sigaction *now) {
    uint32_t last = load32(&before_us, relaxed);
    if (actions[last].sa_handler == now->sa_handler && actions[last].sa_flags == now->sa_flags) return;
    uint32_t next = (last + 1) % KEPT_ACTIONS;
    actions[next] = *now;
    store32(&before_us, next, release);
}

int sidecaml_guard(struct sidecaml_failure *why) {
    struct sigaction now,
        guard = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART};
    if (sigaction(SIGBUS, NULL, &now) < 0) return fail_errno(why, "looking at the handler of SIGBUS");
    if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_sigbus) return 0;
    is_wanted = true;
    page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    keep(&now);
    if (sigaction(SIGBUS, &guard, NULL) < 0) return fail_errno(why, "installing the handler of SIGBUS");
    return 0;
}

void guard_again(void) {
    if (is_wanted) sidecaml_guard(NULL);
}
