/* Who answers for a batch that failed.
 *
 * Its requests run again one by one, so an answer is missing only where a request fails alone as well. But a client all
 * of whose requests fail would cost the others every batch that it is in. So whoever fails alone then is charged with
 * the batch, and its requests run alone for a while; and so is who has changed its inputs since. Where there is no such
 * client, those keep out whose requests were not run again, for want of time, or all who had a part: a batch that fails
 * though each of its requests succeeds is not to be tried over and over.
 */
#ifndef SIDECAML_BLAME_H
#define SIDECAML_BLAME_H

#include "served.h"

/* The last batch, of taken[count], has failed and took so long; its inputs are in the batcher's memory, or were run
 * where they lie. */
void blame_begin(sidecaml_worker *worker, struct taken *taken, uint32_t count, bool is_copied, uint64_t took_ns);
/* Before a request runs alone: it has its place by now (served.h). */
void blame_compare(sidecaml_worker *worker, const struct taken *one);
/* What became of a request that ran alone: 0 for success. */
void blame_outcome(sidecaml_worker *worker, const struct taken *one, int status);
/* It was refused. */
void blame_refused(const struct taken *one);
/* All that were taken are dealt with. */
void blame_end(sidecaml_worker *worker);

#endif
