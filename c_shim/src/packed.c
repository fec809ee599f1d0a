#include "packed.h"

/* What a leading byte says: how many bytes of length or value follow it, and what that number counts. */
struct form {
    uint8_t width;
    enum { VALUE, BYTES, ELEMENTS, PAIRS } counts;
    uint64_t fixed; /* what it counts without a number behind it */
    uint8_t more;   /* bytes besides: the type of an ext */
};

static struct form form_of(uint8_t lead) {
    if (lead < 0x80 || lead >= 0xe0) return (struct form){0, VALUE, 0, 0};
    if (lead < 0x90) return (struct form){0, PAIRS, lead & 0x0f, 0};
    if (lead < 0xa0) return (struct form){0, ELEMENTS, lead & 0x0f, 0};
    if (lead < 0xc0) return (struct form){0, BYTES, lead & 0x1f, 0};
    switch (lead) {
    case 0xc4: /* bin */
    case 0xc5:
    case 0xc6:
        return (struct form){(uint8_t)(1u << (lead - 0xc4)), BYTES, 0, 0};
    case 0xc7: /* ext */
    case 0xc8:
    case 0xc9:
        return (struct form){(uint8_t)(1u << (lead - 0xc7)), BYTES, 0, 1};
    case 0xca:
        return (struct form){4, VALUE, 0, 0}; /* float */
    case 0xcb:
        return (struct form){8, VALUE, 0, 0};
    case 0xcc: /* uint */
    case 0xcd:
    case 0xce:
    case 0xcf:
        return (struct form){(uint8_t)(1u << (lead - 0xcc)), VALUE, 0, 0};
    case 0xd0: /* int */
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return (struct form){(uint8_t)(1u << (lead - 0xd0)), VALUE, 0, 0};
    case 0xd4: /* fixext */
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return (struct form){0, BYTES, (uint64_t)1 << (lead - 0xd4), 1};
    case 0xd9: /* str */
    case 0xda:
    case 0xdb:
        return (struct form){(uint8_t)(1u << (lead - 0xd9)), BYTES, 0, 0};
    case 0xdc: /* array */
    case 0xdd:
        return (struct form){(uint8_t)(2u << (lead - 0xdc)), ELEMENTS, 0, 0};
    case 0xde: /* map */
    case 0xdf:
        return (struct form){(uint8_t)(2u << (lead - 0xde)), PAIRS, 0, 0};
    default:
        return (struct form){0, VALUE, 0, 0}; /* nil, booleans, and what msgpack-c refuses itself */
    }
}

static uint64_t big_endian(const uint8_t *bytes, unsigned width) {
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value = value << 8 | bytes[i];
    return value;
}

bool packed_is_whole(const uint8_t *bytes, size_t count) {
    if (count == 0) return false; /* and perhaps no place at all, to which nothing may be added */
    const uint8_t *end = bytes + count;
    /* Every value yet to come takes a byte at least, so `wanted` stays below the bytes that are left. */
    for (uint64_t wanted = 1; wanted > 0; wanted--) {
        if (wanted > (uint64_t)(end - bytes)) return false;
        struct form form = form_of(*bytes++);
        if ((size_t)(end - bytes) < (size_t)form.width + form.more) return false;
        uint64_t number = form.width ? big_endian(bytes, form.width) : form.fixed;
        bytes += form.width + form.more;
        if (form.counts != VALUE && number > (uint64_t)(end - bytes)) return false;
        if (form.counts == BYTES) bytes += number;
        if (form.counts == ELEMENTS) wanted += number;
        if (form.counts == PAIRS) wanted += 2 * number;
    }
    return true;
}
