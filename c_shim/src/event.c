/* Just enough of msgpack to tell an event's name: channels are also in Python's extension, which has no msgpack-c. */
#include "event.h"

#include <string.h>

struct cursor {
    const uint8_t *at;
    size_t left;
};

/* What comes behind a value's first byte: a number of so many bytes, which counts bytes or values, and fixed bytes. */
struct kind {
    uint8_t number_bytes, fixed_bytes, values_each;
};

static const struct kind kinds[32] = {
    [0x04] = {1, 0, 0},  [0x05] = {2, 0, 0}, [0x06] = {4, 0, 0},                     /* bin */
    [0x07] = {1, 1, 0},  [0x08] = {2, 1, 0}, [0x09] = {4, 1, 0},                     /* ext */
    [0x0a] = {0, 4, 0},  [0x0b] = {0, 8, 0},                                         /* float */
    [0x0c] = {0, 1, 0},  [0x0d] = {0, 2, 0}, [0x0e] = {0, 4, 0}, [0x0f] = {0, 8, 0}, /* uint */
    [0x10] = {0, 1, 0},  [0x11] = {0, 2, 0}, [0x12] = {0, 4, 0}, [0x13] = {0, 8, 0}, /* int */
    [0x14] = {0, 2, 0},  [0x15] = {0, 3, 0}, [0x16] = {0, 5, 0}, [0x17] = {0, 9, 0}, /* fixext */
    [0x18] = {0, 17, 0},                                                             /* fixext 16 */
    [0x19] = {1, 0, 0},  [0x1a] = {2, 0, 0}, [0x1b] = {4, 0, 0},                     /* str */
    [0x1c] = {2, 0, 1},  [0x1d] = {4, 0, 1},                                         /* array */
    [0x1e] = {2, 0, 2},  [0x1f] = {4, 0, 2},                                         /* map */
};

struct head {
    uint8_t type;
    uint64_t bytes;  /* that belong to it */
    uint64_t values; /* that follow it */
};

static bool read_byte(struct cursor *cursor, uint8_t *out) {
    if (cursor->left == 0) return false;
    *out = *cursor->at++;
    cursor->left--;
    return true;
}

static bool skip_bytes(struct cursor *cursor, uint64_t count) {
    if (count > cursor->left) return false;
    cursor->at += count;
    cursor->left -= (size_t)count;
    return true;
}

static bool read_long_head(struct cursor *cursor, struct head *out) {
    const struct kind *kind = &kinds[out->type - 0xc0];
    uint64_t number = 0;
    for (uint8_t i = 0; i < kind->number_bytes; i++) {
        uint8_t byte;
        if (!read_byte(cursor, &byte)) return false;
        number = number << 8 | byte;
    }
    out->bytes = kind->fixed_bytes + (kind->values_each ? 0 : number);
    out->values = kind->values_each * number;
    return out->type != 0xc1;
}

static bool read_head(struct cursor *cursor, struct head *out) {
    *out = (struct head){0};
    if (!read_byte(cursor, &out->type)) return false;
    if (out->type >= 0xc0 && out->type <= 0xdf) return read_long_head(cursor, out);
    if (out->type >= 0x80 && out->type <= 0x8f) out->values = 2 * (out->type & 0x0f);
    if (out->type >= 0x90 && out->type <= 0x9f) out->values = out->type & 0x0f;
    if (out->type >= 0xa0 && out->type <= 0xbf) out->bytes = out->type & 0x1f;
    return true;
}

static bool is_string(const struct head *head) {
    return (head->type >= 0xa0 && head->type <= 0xbf) || (head->type >= 0xd9 && head->type <= 0xdb);
}

static bool is_map(const struct head *head) {
    return (head->type >= 0x80 && head->type <= 0x8f) || head->type == 0xde || head->type == 0xdf;
}

/* The rest of a value whose head was read. Ends within the message's bytes: each value takes one at least. */
static bool skip_rest(struct cursor *cursor, const struct head *of) {
    struct head head = *of;
    uint64_t pending = head.values;
    if (!skip_bytes(cursor, head.bytes)) return false;
    while (pending > 0) {
        if (pending > cursor->left || !read_head(cursor, &head) || !skip_bytes(cursor, head.bytes)) return false;
        pending += head.values - 1;
    }
    return true;
}

static bool is_text(const struct cursor *cursor, const struct head *head, const char *text) {
    size_t length = strlen(text);
    return is_string(head) && head->bytes == length && cursor->left >= length && !memcmp(cursor->at, text, length);
}

bool event_is_unknown(const uint8_t *bytes, size_t count) {
    struct cursor cursor = {bytes, count};
    struct head map, key, value;
    if (!read_head(&cursor, &map) || !is_map(&map)) return false;
    for (uint64_t pair = 0; pair < map.values / 2; pair++) {
        if (!read_head(&cursor, &key)) return false;
        bool names_it = is_text(&cursor, &key, "event"), is_reply = is_text(&cursor, &key, "id");
        if (!skip_rest(&cursor, &key) || !read_head(&cursor, &value)) return false;
        if (is_reply) return true;
        if (names_it) return is_string(&value) && value.bytes <= cursor.left && !is_text(&cursor, &value, "gone");
        if (!skip_rest(&cursor, &value)) return false;
    }
    return false;
}
