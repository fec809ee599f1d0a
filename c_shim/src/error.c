#define _GNU_SOURCE /* the strerror_r that returns the text */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "failure.h"
#include "utf8.h"

/* Without its sign; unsigned, because the least int has no positive twin. */
static unsigned magnitude(int code) {
    return code < 0 ? 0u - (unsigned)code : (unsigned)code;
}

const char *sidecaml_error_name(int code) {
    switch (magnitude(code)) {
    case SIDECAML_OK:
        return "OK";
#define SIDECAML_ERROR(NAME, number, text)                                                                             \
    case (number):                                                                                                     \
        return #NAME;
#include "sidecaml/errors.def"
#undef SIDECAML_ERROR
    default:
        return "UNKNOWN";
    }
}

const char *sidecaml_error_text(int code) {
    switch (magnitude(code)) {
    case SIDECAML_OK:
        return "no error";
#define SIDECAML_ERROR(NAME, number, text)                                                                             \
    case (number):                                                                                                     \
        return text;
#include "sidecaml/errors.def"
#undef SIDECAML_ERROR
    default:
        return "an error code that this version does not know";
    }
}

/* U+0080 to U+009F: terminals take U+009B for an escape sequence. */
static bool is_c1_control(const char *bytes) {
    return (unsigned char)bytes[0] == 0xc2 && (unsigned char)bytes[1] < 0xa0;
}

size_t clean_text(char *text, size_t length) {
    for (size_t at = 0; at < length;) {
        bool cut;
        size_t bytes = utf8_length(text + at, length - at, &cut);
        if (cut) length = at;
        if (bytes == 0) text[at] = '?';
        if (bytes == 1 && ((unsigned char)text[at] < ' ' || text[at] == 0x7f)) text[at] = ' ';
        if (bytes == 2 && is_c1_control(text + at)) text[at] = text[at + 1] = ' ';
        at += bytes ? bytes : 1;
    }
    text[length] = '\0';
    return length;
}

int fail(struct sidecaml_failure *why, int code, const char *format, ...) {
    if (why) {
        why->code = code;
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(why->text, sizeof why->text, format, arguments);
        va_end(arguments);
        clean_text(why->text, strlen(why->text));
    }
    return -code;
}

int fail_errno(struct sidecaml_failure *why, const char *what) {
    int number = errno;
    char text[128];
    /* GNU strerror_r: thread-safe, and may ignore the buffer. */
    return fail(why, number == ENOMEM ? SIDECAML_E_NO_MEMORY : SIDECAML_E_SYSTEM, "%s: %s", what,
                strerror_r(number, text, sizeof text));
}
