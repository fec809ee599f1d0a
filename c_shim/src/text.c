#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

struct text text_in(char *buffer, size_t room) {
    buffer[0] = '\0';
    return (struct text){.start = buffer, .room = room};
}

void text_add(struct text *text, const char *format, ...) {
    size_t left = text->room - text->used;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text->start + text->used, left, format, arguments);
    va_end(arguments);
    if (length > 0) text->used += (size_t)length < left ? (size_t)length : left - 1;
}

void text_add_bytes(struct text *text, const char *bytes, size_t length) {
    size_t left = text->room - text->used - 1;
    if (length > left) length = left;
    memcpy(text->start + text->used, bytes, length);
    text->used += length;
    text->start[text->used] = '\0';
}

static void add_escaped(struct text *text, const char *byte, char quote, bool ascii) {
    unsigned char c = (unsigned char)*byte;
    if (c == (unsigned char)quote || c == '\\')
        text_add(text, "\\%c", c);
    else if (c == '\n')
        text_add(text, "\\n");
    else if (c == '\r')
        text_add(text, "\\r");
    else if (c == '\t')
        text_add(text, "\\t");
    else if (c < ' ' || c == 0x7f || (ascii && c > 0x7f))
        text_add(text, "\\x%02x", c);
    else
        text_add_bytes(text, byte, 1);
}

static void add_quoted(struct text *text, const char *bytes, size_t length, bool ascii) {
    char quote = memchr(bytes, '\'', length) && !memchr(bytes, '"', length) ? '"' : '\'';
    text_add_bytes(text, &quote, 1);
    for (size_t i = 0; i < length; i++)
        add_escaped(text, bytes + i, quote, ascii);
    text_add_bytes(text, &quote, 1);
}

void text_add_quoted(struct text *text, const char *bytes, size_t length) {
    add_quoted(text, bytes, length, false);
}

void text_add_quoted_bytes(struct text *text, const char *bytes, size_t length) {
    add_quoted(text, bytes, length, true);
}

void text_add_dim(struct text *text, uint64_t dim) {
    text_add(text, "%" PRIu64, dim);
}

void text_add_dims(struct text *text, const uint64_t *dims, uint32_t rank) {
    text_add(text, "[");
    for (uint32_t i = 0; i < rank; i++) {
        if (i) text_add(text, ", ");
        text_add_dim(text, dims[i]);
    }
    text_add(text, "]");
}
