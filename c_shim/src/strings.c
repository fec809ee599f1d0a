/* Tables of strings that nobody vouches for. */
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "failure.h"
#include "sidecaml/strings.h"
#include "text.h"
#include "utf8.h"

/* What is said of a request is cut to what a slot holds, on every path. */
#define MESSAGE_ROOM (SIDECAML_MESSAGE_BYTES + 1)

/* The tensor that is being read. */
struct reading {
    const char *kind, *name;
    struct sidecaml_failure *why;
};

static struct text sentence_about(const struct reading *reading, char buffer[MESSAGE_ROOM]) {
    struct text text = text_in(buffer, MESSAGE_ROOM);
    text_add(&text, "%s ", reading->kind);
    text_add_quoted(&text, reading->name, strlen(reading->name));
    text_add(&text, ": ");
    return text;
}

static int bad(const struct reading *reading, const char *sentence) {
    return fail(reading->why, SIDECAML_E_BAD_STRINGS, "%s", sentence);
}

static int begins_late(const struct reading *reading, uint64_t first) {
    char buffer[MESSAGE_ROOM];
    struct text text = sentence_about(reading, buffer);
    text_add(&text, "the first string begins at byte ");
    text_add_dim(&text, first);
    text_add(&text, " of the text: expected 0");
    return bad(reading, buffer);
}

static int steps_back(const struct reading *reading, uint64_t index, const uint64_t *offsets) {
    char buffer[MESSAGE_ROOM];
    struct text text = sentence_about(reading, buffer);
    text_add(&text, "string ");
    text_add_dim(&text, index);
    text_add(&text, " begins at byte ");
    text_add_dim(&text, offsets[index]);
    text_add(&text, " of the text and ends at ");
    text_add_dim(&text, offsets[index + 1]);
    return bad(reading, buffer);
}

static int leads_outside(const struct reading *reading, uint64_t index, uint64_t end, uint64_t text_bytes) {
    char buffer[MESSAGE_ROOM];
    struct text text = sentence_about(reading, buffer);
    text_add(&text, "string ");
    text_add_dim(&text, index);
    text_add(&text, " ends at byte ");
    text_add_dim(&text, end);
    text_add(&text, " of the text, which has room for ");
    text_add_dim(&text, text_bytes);
    return bad(reading, buffer);
}

static int not_utf8(const struct reading *reading, uint64_t index, uint64_t byte) {
    char buffer[MESSAGE_ROOM];
    struct text text = sentence_about(reading, buffer);
    text_add(&text, "string ");
    text_add_dim(&text, index);
    text_add(&text, " is not UTF-8 from its byte ");
    text_add_dim(&text, byte);
    text_add(&text, " on");
    return bad(reading, buffer);
}

static int no_memory(struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a tensor of strings");
}

static int check_table(const struct reading *reading, const uint64_t *offsets, uint64_t count, uint64_t text_bytes) {
    if (offsets[0] != 0) return begins_late(reading, offsets[0]);
    for (uint64_t i = 0; i < count; i++) {
        if (offsets[i + 1] < offsets[i]) return steps_back(reading, i, offsets);
        if (offsets[i + 1] > text_bytes) return leads_outside(reading, i, offsets[i + 1], text_bytes);
    }
    return 0;
}

/* Each by itself: a character that two strings share belongs to neither. */
static int check_text(const struct reading *reading, const struct sidecaml_strings *strings) {
    for (uint64_t i = 0; i < strings->count; i++) {
        uint64_t end = strings->offsets[i + 1];
        for (uint64_t at = strings->offsets[i], bytes; at < end; at += bytes) {
            bytes = utf8_length(strings->text + at, end - at, NULL);
            if (bytes == 0) return not_utf8(reading, i, at - strings->offsets[i]);
        }
    }
    return 0;
}

/* Both are the private copy afterwards, whatever is written to the place meanwhile. */
static int copy(const struct sidecaml_strings_place *place, const struct reading *reading,
                struct sidecaml_strings *out) {
    uint64_t count = out->count;
    out->offsets = malloc((count + 1) * sizeof out->offsets[0]);
    if (!out->offsets) return no_memory(reading->why);
    memcpy(out->offsets, place->start, (count + 1) * sizeof out->offsets[0]);
    int status = check_table(reading, out->offsets, count, place->text_bytes);
    if (status < 0) return status;
    uint64_t bytes = out->offsets[count];
    out->text = malloc(bytes + 1); /* one more: malloc(0) may be NULL */
    if (!out->text) return no_memory(reading->why);
    memcpy(out->text, sidecaml_strings_text(place), bytes);
    return check_text(reading, out);
}

int sidecaml_strings_read(const struct sidecaml_strings_place *place, uint64_t count, const char *kind,
                          const char *name, struct sidecaml_strings *out, struct sidecaml_failure *why) {
    const struct reading reading = {kind, name, why};
    *out = (struct sidecaml_strings){.count = count};
    if (count > place->most)
        return fail(why, SIDECAML_E_INVALID, "there are more strings than their place has room for");
    int status = copy(place, &reading, out);
    if (status < 0) sidecaml_strings_clear(out);
    return status;
}

void sidecaml_strings_clear(struct sidecaml_strings *strings) {
    free(strings->offsets);
    free(strings->text);
    *strings = (struct sidecaml_strings){0};
}

char *sidecaml_strings_text(const struct sidecaml_strings_place *place) {
    return (char *)place->start + (place->most + 1) * sizeof(uint64_t);
}

int sidecaml_strings_check_room(const char *output, uint64_t bytes, uint64_t text_bytes, struct sidecaml_failure *why) {
    if (bytes <= text_bytes) return 0;
    char buffer[MESSAGE_ROOM];
    struct text text = sentence_about(&(struct reading){"output", output, why}, buffer);
    text_add(&text, "its strings came out as ");
    text_add_dim(&text, bytes);
    text_add(&text, " bytes of text, and the channel has room for ");
    text_add_dim(&text, text_bytes);
    text_add(&text, ": open with larger text_bytes");
    return fail(why, SIDECAML_E_OUTPUT_TOO_LARGE, "%s", buffer);
}
