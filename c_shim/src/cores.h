/* How many processors there are for a process: its affinity mask, and the quota of its control groups. */
#ifndef SIDECAML_CORES_H
#define SIDECAML_CORES_H

#include <stdint.h>

#define CORES_NO_QUOTA UINT32_MAX
#define CORES_MASK_WORDS 16

struct cores {
    uint32_t allowed;                /* processors of the affinity mask */
    uint32_t quota;                  /* that the quota pays for at a time; CORES_NO_QUOTA for any number */
    uint64_t mask[CORES_MASK_WORDS]; /* the first 1024 processors; all ones where the mask cannot be had */
};

/* Of the calling thread, as it is now. `root` is put in front of every path that is read: "" but in tests.
 *
 * A quota counts in whole processors, rounded down, because threads that spin use all of theirs: two under a quota of
 * 1.9 are stopped for some milliseconds out of every tenth of a second. It is the least of all groups from the
 * process's own up to the top, in either version of control groups, and never less than one. */
void cores_read(struct cores *out, const char *root);

/* How many the process may use at a time: 1 or more. */
uint32_t cores_usable(const struct cores *cores);

/* How many there are for a process and its peers together, who say that they have `theirs` (0 when unknown).
 * `peer_core` is the processor, plus 1, that a peer runs on, 0 when unknown: one that this process may not use adds to
 * those that it may. A quota holds for all, as if they shared it. */
uint32_t cores_together(const struct cores *cores, uint32_t theirs, uint32_t peer_core);

#endif
