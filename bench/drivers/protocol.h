/* What a driver is asked, line by line, on stdin. */
#ifndef SIDECAML_BENCH_PROTOCOL_H
#define SIDECAML_BENCH_PROTOCOL_H

#include "calls.h"

/* Makes one call, prints `ready`, then does what the lines ask until they end. */
int protocol_serve(const struct driver *driver, struct sidecaml_failure *why);

#endif
