/* Characters in texts that nobody vouches for. */
#ifndef SIDECAML_UTF8_H
#define SIDECAML_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character that a lead byte begins; 0 for a byte that begins none. */
static inline size_t utf8_announced(unsigned char lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xc2) return 0; /* a continuation, or an overlong form */
    if (lead < 0xe0) return 2;
    if (lead < 0xf0) return 3;
    return lead < 0xf5 ? 4 : 0;
}

/* Least and greatest second byte: no overlong forms, no surrogates, nothing beyond U+10FFFF. */
static inline bool utf8_second_fits(unsigned char lead, unsigned char second) {
    unsigned char least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned char most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    return second >= least && second <= most;
}

/* Bytes of the whole character at `at`, of which `left` (1 or more) may be read; 0 when there is none. Where `cut` is
 * not NULL it tells whether one begins there that the end cuts. */
static inline size_t utf8_length(const char *at, size_t left, bool *cut) {
    unsigned char lead = (unsigned char)at[0];
    size_t wanted = utf8_announced(lead);
    size_t seen = 1;
    while (seen < wanted && seen < left) {
        unsigned char byte = (unsigned char)at[seen];
        if (seen == 1 ? !utf8_second_fits(lead, byte) : (byte & 0xc0) != 0x80) break;
        seen++;
    }
    if (cut) *cut = wanted > left && seen == left;
    return seen == wanted ? wanted : 0;
}

#endif
