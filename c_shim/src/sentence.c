/* ONNX Runtime's texts, made short enough for a person and for a slot.
 *
 * A text may be of any length and hold any bytes: names in it are the model's. Nothing is searched twice over more than
 * LINE_BYTES, so no text makes this slow.
 */
#define _GNU_SOURCE /* memmem */
#include <stdbool.h>
#include <string.h>

#include "failure.h"
#include "sidecaml/model.h"
#include "text.h"

/* What of the line is looked at. */
#define LINE_BYTES 8192

struct span {
    const char *start, *end;
};

static bool is_space(char c) {
    return (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= ' ');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_word(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_blank(struct span text) {
    return text.start == text.end;
}

/* Steps over `word` where the text begins with it. */
static bool skip(struct span *text, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(text->end - text->start) < length || memcmp(text->start, word, length) != 0) return false;
    text->start += length;
    return true;
}

/* Steps over at least one character of a kind. */
static bool skip_some(struct span *text, bool (*kind)(char)) {
    const char *start = text->start;
    while (text->start < text->end && kind(*text->start))
        text->start++;
    return text->start > start;
}

static const char *end_of_word(struct span text) {
    while (text.start < text.end && !is_space(*text.start))
        text.start++;
    return text.start;
}

static struct span stripped(struct span text) {
    while (text.start < text.end && is_space(*text.start))
        text.start++;
    while (text.end > text.start && is_space(text.end[-1]))
        text.end--;
    return text;
}

/* --- The line ---------------------------------------------------------------------------------------------------- */

/* Steps over a line break: the ASCII ones, U+0085, U+2028 and U+2029. */
static bool skip_break(struct span *text) {
    char c = *text->start;
    if ((c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e)) {
        text->start++;
        return true;
    }
    return skip(text, "\xc2\x85") || skip(text, "\xe2\x80\xa8") || skip(text, "\xe2\x80\xa9");
}

/* The first line that is not blank, stripped; empty when all are. */
static struct span first_line(struct span text) {
    struct span line = {text.start, text.start};
    while (text.start < text.end) {
        if (skip_break(&text)) {
            line = stripped(line);
            if (!is_blank(line)) return line;
            line.start = text.start;
        } else {
            text.start++;
        }
        line.end = text.start;
    }
    return stripped(line);
}

/* "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : " */
static bool skip_status(struct span *text) {
    struct span rest = *text;
    if (!skip(&rest, "[ONNXRuntimeError] : ") || !skip_some(&rest, is_digit) || !skip(&rest, " : ") ||
        !skip_some(&rest, is_word) || !skip(&rest, " : "))
        return false;
    *text = rest;
    return true;
}

/* "Load model from /a b/c.onnx failed:", and a blank */
static bool skip_load(struct span *text) {
    static const char failed[] = " failed:";
    struct span rest = *text;
    if (!skip(&rest, "Load model from ")) return false;
    rest.start = memmem(rest.start, (size_t)(rest.end - rest.start), failed, sizeof failed - 1);
    if (!rest.start) return false;
    skip(&rest, failed);
    skip(&rest, " ");
    *text = rest;
    return true;
}

/* --- Its parts --------------------------------------------------------------------------------------------------- */

/* "Non-zero status code returned while running Add node. Name:'sum' Status Message: " becomes "node 'sum' (Add): ". */
static bool rewrite_node(struct span *text, struct text *out) {
    struct span rest = *text, kind, name;
    if (!skip(&rest, "Non-zero status code returned while running ")) return false;
    kind = (struct span){rest.start, end_of_word(rest)};
    rest.start = kind.end;
    if (is_blank(kind) || !skip(&rest, " node. Name:'")) return false;
    name = (struct span){rest.start, memchr(rest.start, '\'', (size_t)(rest.end - rest.start))};
    if (!name.end) return false;
    rest.start = name.end;
    if (!skip(&rest, "' Status Message: ")) return false;
    text_add(out, is_blank(name) ? "a " : "node ");
    if (!is_blank(name)) text_add_quoted(out, name.start, (size_t)(name.end - name.start));
    text_add(out, is_blank(name) ? "" : " (");
    text_add_bytes(out, kind.start, (size_t)(kind.end - kind.start));
    text_add(out, is_blank(name) ? " node: " : "): ");
    *text = rest;
    return true;
}

/* The line in `out`, its nodes rewritten, as far as there is room. */
static void rewrite_nodes(struct span line, struct text *out) {
    while (line.start < line.end && out->used < out->room - 1)
        if (!rewrite_node(&line, out)) text_add_bytes(out, line.start++, 1);
}

/* Whether a word is a place in a source file: "/onnxruntime_src/a/b.cc:87". */
static bool is_place(struct span word) {
    static const char *const kinds[] = {".cc", ".cpp", ".h", ".hpp"};
    const char *digits = word.end;
    while (digits > word.start && is_digit(digits[-1]))
        digits--;
    if (digits == word.end || digits == word.start || digits[-1] != ':') return false;
    word.end = digits - 1;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t length = strlen(kinds[i]);
        /* The slash, and a name of at least one character. */
        if ((size_t)(word.end - word.start) >= length + 2 && memcmp(word.end - length, kinds[i], length) == 0)
            return true;
    }
    return false;
}

static const char *next_bracket(struct span text) {
    while (text.start < text.end && *text.start != '(' && *text.start != ')')
        text.start++;
    return text.start;
}

/* "virtual OrtValue* onnxruntime::Kernel::Method(int, const Shape&) const " */
static void skip_function(struct span *text) {
    struct span rest = *text;
    rest.start = next_bracket(rest);
    if (!skip(&rest, "(")) return;
    rest.start = next_bracket(rest);
    if (!skip(&rest, ")")) return;
    if (skip(&rest, " const ") || skip(&rest, " ")) text->start = rest.start;
}

/* Steps over a place, the blank after it and its function, at a slash; *word is the word there. */
static bool skip_place(struct span *text, struct span *word) {
    *word = (struct span){text->start, end_of_word(*text)};
    struct span rest = {word->end, text->end};
    if (!is_place(*word) || !skip(&rest, " ")) return false;
    skip_function(&rest);
    *text = rest;
    return true;
}

static size_t without_places(char *text, size_t length) {
    struct span rest = {text, text + length}, word;
    char *out = text;
    while (rest.start < rest.end) {
        if (*rest.start != '/') {
            *out++ = *rest.start++;
        } else if (!skip_place(&rest, &word)) {
            /* No later slash of the word does better. */
            size_t bytes = (size_t)(word.end - word.start);
            memmove(out, word.start, bytes);
            out += bytes;
            rest.start = word.end;
        }
    }
    return (size_t)(out - text);
}

/* "tensorprotoutils.cc:619 ValidateExternalDataPath ": a place without a path, and its function. */
static bool skip_file(struct span *text) {
    struct span rest = *text;
    if (!skip_some(&rest, is_word) || !(skip(&rest, ".cc:") || skip(&rest, ".h:")) || !skip_some(&rest, is_digit) ||
        !skip(&rest, " ") || !skip_some(&rest, is_word) || !skip(&rest, " "))
        return false;
    *text = rest;
    return true;
}

/* Words only are looked at from their start: none is searched twice. */
static size_t without_files(char *text, size_t length) {
    struct span rest = {text, text + length};
    char *out = text;
    while (rest.start < rest.end) {
        bool begins = is_word(*rest.start) && (out == text || !is_word(out[-1]));
        if (!begins || !skip_file(&rest))
            *out++ = *rest.start++;
        else if (out > text && !is_space(out[-1]))
            *out++ = ' '; /* they come glued to the sentence before */
    }
    return (size_t)(out - text);
}

static size_t without_status(char *text, size_t length) {
    struct span rest = {text, text + length};
    char *out = text;
    while (rest.start < rest.end)
        if (!skip_status(&rest)) *out++ = *rest.start++;
    return (size_t)(out - text);
}

/* --- Together ---------------------------------------------------------------------------------------------------- */

size_t sidecaml_sentence(const char *text, size_t length, char *out, size_t room) {
    static const char no_reason[] = "ONNX Runtime does not say why";
    char buffer[LINE_BYTES];
    struct text line = text_in(buffer, sizeof buffer);
    struct span rest = first_line((struct span){text, text + length});
    while (skip(&rest, "Error in execution: ") || skip_status(&rest) || skip_load(&rest))
        ;
    rewrite_nodes(rest, &line);
    length = without_status(buffer, without_files(buffer, without_places(buffer, line.used)));
    rest = stripped((struct span){buffer, buffer + length});
    if (is_blank(rest)) rest = (struct span){no_reason, no_reason + sizeof no_reason - 1};
    length = (size_t)(rest.end - rest.start);
    if (length > room - 1) length = room - 1;
    memcpy(out, rest.start, length);
    return clean_text(out, length);
}

int sidecaml_engine_failed(const char *text, size_t length, struct sidecaml_failure *why) {
    char sentence[SIDECAML_MESSAGE_BYTES + 1];
    sidecaml_sentence(text, length, sentence, sizeof sentence);
    return fail(why, SIDECAML_E_ENGINE, "%s", sentence);
}
