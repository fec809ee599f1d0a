/* Messages of the control socket, before msgpack's library believes what they say of their own size. */
#ifndef SIDECAML_PACKED_H
#define SIDECAML_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether `count` bytes are long enough for all that they announce. msgpack-c takes memory for an array or a map as
 * soon as it has read the number of its elements: five bytes have it ask for gigabytes. */
bool packed_is_whole(const uint8_t *bytes, size_t count);

#endif
