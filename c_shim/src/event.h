/* What the daemon says on a channel's own socket. */
#ifndef SIDECAML_EVENT_H
#define SIDECAML_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether a message is to be ignored: an event other than `gone`, which this version does not know, or a reply, which
 * a daemon that was started anew may give a second time. False of what is neither. Reads nothing beyond its bytes,
 * which may be anything. */
bool event_is_unknown(const uint8_t *bytes, size_t count);

#endif
