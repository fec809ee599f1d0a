/* Prints the constants of abi.h, sidecaml.h and errors.def for the other languages, so that no number is typed twice:
 *
 *   abi_constants python | ocaml-ml | ocaml-mli
 *
 * `make -C c_shim generate` writes ipc_server/abi.py and ocaml_lib/src/abi.{ml,mli} with it.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "sidecaml/sidecaml.h"

/* --- What there is: X(NAME, C expression, meaning) --------------------------------------------------------------- */

#define LIMITS(X)                                                                                                      \
    X(ABI_VERSION, SIDECAML_ABI_VERSION, "Both sides of a segment and of a control connection speak the same one.")    \
    X(MAX_RANK, SIDECAML_MAX_RANK, "Most dimensions of a tensor.")                                                     \
    X(MAX_TENSORS, SIDECAML_MAX_TENSORS, "Most inputs and outputs of a model, together.")                              \
    X(MAX_SLOTS, SIDECAML_MAX_SLOTS, "Most slots of a channel.")                                                       \
    X(NAME_BYTES, SIDECAML_NAME_BYTES, "Room for a tensor's name in its descriptor.")                                  \
    X(MESSAGE_BYTES, SIDECAML_MESSAGE_BYTES, "Room for the text of a failed request.")                                 \
    X(PAGE_BYTES, SIDECAML_PAGE_BYTES, "Segments and status pages are multiples of this.")                             \
    X(TENSOR_ALIGN, SIDECAML_TENSOR_ALIGN, "Every tensor of every slot starts on a multiple of this.")                 \
    X(CONTROL_BYTES, SIDECAML_CONTROL_BYTES, "Largest control message, both ways.")                                    \
    X(MOST_ATTEMPTS, SIDECAML_MOST_ATTEMPTS, "A journal counts the runs of one request that were started up to this.") \
    X(MOST_BATCH, SIDECAML_MOST_BATCH, "Most requests of one run.")                                                    \
    X(STARTED_BITS, SIDECAML_STARTED_BITS, "A journal's `started` is `(first ticket + 1) << STARTED_BITS | ...`.")     \
    X(COMMITTED_BITS, SIDECAML_COMMITTED_BITS,                                                                         \
      "A journal's `committed` is `(last ticket + 1) << COMMITTED_BITS | ...`.")                                       \
    X(CROWD_ENTRIES, SIDECAML_CROWD_ENTRIES, "Workers that a crowd page has entries for.")                             \
    X(MAX_INSTANCES, SIDECAML_MAX_INSTANCES, "Most instances of a model: pages of its status file.")                   \
    X(PACKED_ALIGN, SIDECAML_PACKED_ALIGN, "Slots lie close together only where their bytes are a multiple of this.")  \
    X(ALONE_NS, SIDECAML_ALONE_NS, "For so long a channel's requests run alone, when they are to.")

#define WORD_AND_FLAGS(X)                                                                                              \
    X(STATE_BITS, SIDECAML_STATE_BITS, "A slot's word is `ticket << STATE_BITS | state`.")                             \
    X(STATE_MASK, SIDECAML_STATE_MASK, "The state's bits of a slot's word.")                                           \
    X(TENSOR_OUTPUT, SIDECAML_TENSOR_OUTPUT, "Descriptor flag: an output.")                                            \
    X(TENSOR_DYNAMIC, SIDECAML_TENSOR_DYNAMIC, "Descriptor flag: each request has dims of its own.")                   \
    X(TENSOR_PACKED, SIDECAML_TENSOR_PACKED, "Descriptor flag: slots lie close together, as parts of one tensor.")     \
    X(SLOT_STAMPS, SIDECAML_SLOT_STAMPS, "Slot flag: all four stamps are wanted.")                                     \
    X(SLOT_RESET, SIDECAML_SLOT_RESET, "Slot flag: carried state starts anew with this request.")

#define POLICIES(X)                                                                                                    \
    X(SPIN, SIDECAML_SPIN, "never sleep")                                                                              \
    X(ADAPTIVE, SIDECAML_ADAPTIVE, "spin for a while, then sleep")                                                     \
    X(BLOCK, SIDECAML_BLOCK, "sleep at once")

/* X(PREFIX, struct, field) */
#define FIELDS(X)                                                                                                      \
    X(SEGMENT_HEADER, sidecaml_segment_header, magic)                                                                  \
    X(SEGMENT_HEADER, sidecaml_segment_header, abi_version)                                                            \
    X(SEGMENT_HEADER, sidecaml_segment_header, header_bytes)                                                           \
    X(SEGMENT_HEADER, sidecaml_segment_header, segment_bytes)                                                          \
    X(SEGMENT_HEADER, sidecaml_segment_header, fingerprint)                                                            \
    X(SEGMENT_HEADER, sidecaml_segment_header, slot_count)                                                             \
    X(SEGMENT_HEADER, sidecaml_segment_header, input_count)                                                            \
    X(SEGMENT_HEADER, sidecaml_segment_header, output_count)                                                           \
    X(SEGMENT_HEADER, sidecaml_segment_header, tensors_offset)                                                         \
    X(SEGMENT_HEADER, sidecaml_segment_header, client_offset)                                                          \
    X(SEGMENT_HEADER, sidecaml_segment_header, slots_offset)                                                           \
    X(SEGMENT_HEADER, sidecaml_segment_header, dims_offset)                                                            \
    X(SEGMENT_HEADER, sidecaml_segment_header, arrays_offset)                                                          \
    X(TENSOR, sidecaml_tensor_descriptor, dtype)                                                                       \
    X(TENSOR, sidecaml_tensor_descriptor, rank)                                                                        \
    X(TENSOR, sidecaml_tensor_descriptor, flags)                                                                       \
    X(TENSOR, sidecaml_tensor_descriptor, array_offset)                                                                \
    X(TENSOR, sidecaml_tensor_descriptor, slot_stride)                                                                 \
    X(TENSOR, sidecaml_tensor_descriptor, max_bytes)                                                                   \
    X(TENSOR, sidecaml_tensor_descriptor, max_dims)                                                                    \
    X(TENSOR, sidecaml_tensor_descriptor, text_bytes)                                                                  \
    X(TENSOR, sidecaml_tensor_descriptor, name)                                                                        \
    X(CLIENT, sidecaml_client_block, waiting)                                                                          \
    X(CLIENT, sidecaml_client_block, core)                                                                             \
    X(CLIENT, sidecaml_client_block, thread)                                                                           \
    X(WORKER, sidecaml_worker_block, page)                                                                             \
    X(SLOT, sidecaml_slot, word)                                                                                       \
    X(SLOT, sidecaml_slot, deadline_ns)                                                                                \
    X(SLOT, sidecaml_slot, submitted_ns)                                                                               \
    X(SLOT, sidecaml_slot, seen_ns)                                                                                    \
    X(SLOT, sidecaml_slot, started_ns)                                                                                 \
    X(SLOT, sidecaml_slot, finished_ns)                                                                                \
    X(SLOT, sidecaml_slot, status)                                                                                     \
    X(SLOT, sidecaml_slot, flags)                                                                                      \
    X(SLOT, sidecaml_slot, text_needed)                                                                                \
    X(SLOT, sidecaml_slot, message_bytes)                                                                              \
    X(SLOT, sidecaml_slot, message)                                                                                    \
    X(STATUS, sidecaml_status_page, magic)                                                                             \
    X(STATUS, sidecaml_status_page, abi_version)                                                                       \
    X(STATUS, sidecaml_status_page, pid)                                                                               \
    X(STATUS, sidecaml_status_page, started_ns)                                                                        \
    X(STATUS, sidecaml_status_page, parked)                                                                            \
    X(STATUS, sidecaml_status_page, core)                                                                              \
    X(STATUS, sidecaml_status_page, crowd)                                                                             \
    X(STATUS, sidecaml_status_page, cores)                                                                             \
    X(STATUS, sidecaml_status_page, heartbeat_ns)                                                                      \
    X(STATUS, sidecaml_status_page, served)                                                                            \
    X(STATUS, sidecaml_status_page, failed)                                                                            \
    X(STATUS, sidecaml_status_page, abandoned)                                                                         \
    X(STATUS, sidecaml_status_page, parks)                                                                             \
    X(STATUS, sidecaml_status_page, channels)                                                                          \
    X(STATUS, sidecaml_status_page, running_ns)                                                                        \
    X(STATUS, sidecaml_status_page, batches)                                                                           \
    X(STATUS, sidecaml_status_page, batched)                                                                           \
    X(STATUS, sidecaml_status_page, refused)                                                                           \
    X(STATUS, sidecaml_status_page, busy_ns)                                                                           \
    X(CROWD, sidecaml_crowd_page, used)                                                                                \
    X(CROWD, sidecaml_crowd_page, entries)                                                                             \
    X(JOURNAL, sidecaml_journal, started)                                                                              \
    X(JOURNAL, sidecaml_journal, committed)                                                                            \
    X(JOURNAL, sidecaml_journal, failed)

#define SIZES(X)                                                                                                       \
    X(SEGMENT_HEADER, sidecaml_segment_header)                                                                         \
    X(TENSOR, sidecaml_tensor_descriptor)                                                                              \
    X(CLIENT, sidecaml_client_block)                                                                                   \
    X(WORKER, sidecaml_worker_block)                                                                                   \
    X(SLOT, sidecaml_slot)                                                                                             \
    X(DIMS, sidecaml_dims)                                                                                             \
    X(STATUS, sidecaml_status_page)                                                                                    \
    X(CROWD, sidecaml_crowd_page)                                                                                      \
    X(CROWD_ENTRY, sidecaml_crowd_entry)

/* --- Printing ---------------------------------------------------------------------------------------------------- */

enum letters { UPPER, LOWER };

static void print_name(const char *name, enum letters letters) {
    for (; *name; name++)
        putchar(letters == UPPER ? toupper((unsigned char)*name) : tolower((unsigned char)*name));
}

/* The escapes of a quoted string that Python and OCaml share. */
static void print_quoted(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        putchar(*text);
    }
    putchar('"');
}

static void python_entry(const char *name, unsigned long long value) {
    printf("    ");
    print_name(name, UPPER);
    printf(" = %llu\n", value);
}

static void python_offset(const char *prefix, const char *field, size_t value) {
    printf("%s_", prefix);
    print_name(field, UPPER);
    printf("_OFFSET: Final = %zu\n", value);
}

static void python_text(const char *enumeration, const char *name, const char *text) {
    printf("    %s.%s: ", enumeration, name);
    print_quoted(text);
    printf(",\n");
}

static void python_enum(const char *name, const char *meaning) {
    printf("\n\nclass %s(enum.IntEnum):\n    \"\"\"%s\"\"\"\n\n", name, meaning);
}

static void print_python(void) {
    printf("\"\"\"The numbers of the shared memory layout and of the errors.\n\n"
           "Generated from c_shim/include/sidecaml by `make -C c_shim generate`: edit it there.\n\"\"\"\n\n"
           "from __future__ import annotations\n\nimport enum\nfrom typing import Final\n");
#define PRINT(NAME, value, meaning) printf("\n# %s\n%s: Final = %llu\n", meaning, #NAME, (unsigned long long)(value));
    LIMITS(PRINT)
    WORD_AND_FLAGS(PRINT)
#undef PRINT
    printf("\n# What a segment and a status page begin with.\nSEGMENT_MAGIC: Final = b\"%s\"\nSTATUS_MAGIC: Final = "
           "b\"%s\"\n\n# Sizes of the structures, in bytes.\n",
           SIDECAML_SEGMENT_MAGIC, SIDECAML_STATUS_MAGIC);
#define PRINT(PREFIX, type) printf("%s_BYTES: Final = %zu\n", #PREFIX, sizeof(struct type));
    SIZES(PRINT)
#undef PRINT
    printf("\n# Where their fields lie, from the structure's start.\n");
#define PRINT(PREFIX, type, field) python_offset(#PREFIX, #field, offsetof(struct type, field));
    FIELDS(PRINT)
#undef PRINT

    python_enum("Dtype", "Element types.");
#define PRINT(NAME, name, code, bits) python_entry(#NAME, code);
    SIDECAML_DTYPES(PRINT)
#undef PRINT
    python_enum("State", "States of a slot.");
#define PRINT(NAME, code) python_entry(#NAME, code);
    SIDECAML_STATES(PRINT)
#undef PRINT
    python_enum("Policy", "How a waiter waits.");
#define PRINT(NAME, value, meaning) python_entry(#NAME, value);
    POLICIES(PRINT)
#undef PRINT
    python_enum("ErrorCode", "Every error of the project.");
#define SIDECAML_ERROR(NAME, code, text) python_entry(#NAME, code);
#include "sidecaml/errors.def"
#undef SIDECAML_ERROR

    printf("\n\n# The names that control messages use.\nDTYPE_NAME: Final[dict[Dtype, str]] = {\n");
#define PRINT(NAME, name, code, bits) python_text("Dtype", #NAME, #name);
    SIDECAML_DTYPES(PRINT)
#undef PRINT
    printf("}\n\n# Bits of one element: below 8 where they are packed, 0 for strings, which have no size.\nDTYPE_BITS: "
           "Final[dict[Dtype, int]] = {\n");
#define PRINT(NAME, name, code, bits) printf("    Dtype.%s: %d,\n", #NAME, bits);
    SIDECAML_DTYPES(PRINT)
#undef PRINT
    printf("}\n\nERROR_TEXT: Final[dict[ErrorCode, str]] = {\n");
#define SIDECAML_ERROR(NAME, code, text) python_text("ErrorCode", #NAME, text);
#include "sidecaml/errors.def"
#undef SIDECAML_ERROR
    printf("}\n");
}

static void ocaml_value(const char *prefix, const char *name, unsigned long long value, const char *meaning) {
    printf("let %s", prefix);
    print_name(name, LOWER);
    printf(" = %llu", value);
    if (meaning) printf(" (* %s *)", meaning);
    printf("\n");
}

static void ocaml_error(const char *name, int code, const char *text) {
    printf("    (%d, \"%s\", ", code, name);
    print_quoted(text);
    printf(");\n");
}

#define OCAML_BANNER "(* Generated from c_shim/include/sidecaml by `make -C c_shim generate`: edit it there. *)\n\n"

static void print_ocaml_ml(void) {
    printf(OCAML_BANNER);
#define PRINT(NAME, value, meaning) ocaml_value("", #NAME, (unsigned long long)(value), NULL);
    LIMITS(PRINT)
#undef PRINT
    printf("\n");
#define PRINT(NAME, value, meaning) ocaml_value("policy_", #NAME, (unsigned long long)(value), meaning);
    POLICIES(PRINT)
#undef PRINT
    printf("\n");
#define PRINT(NAME, name, code, bits) ocaml_value("dtype_", #name, code, NULL);
    SIDECAML_DTYPES(PRINT)
#undef PRINT
    printf("\nlet dtypes =\n  [\n");
#define PRINT(NAME, name, code, bits) printf("    (%d, \"%s\", %d);\n", code, #name, bits);
    SIDECAML_DTYPES(PRINT)
#undef PRINT
    printf("  ]\n\n");
#define SIDECAML_ERROR(NAME, code, text) ocaml_value("error_", #NAME, code, NULL);
#include "sidecaml/errors.def"
#undef SIDECAML_ERROR
    printf("\nlet errors =\n  [\n");
#define SIDECAML_ERROR(NAME, code, text) ocaml_error(#NAME, code, text);
#include "sidecaml/errors.def"
#undef SIDECAML_ERROR
    printf("  ]\n");
}

static void ocaml_int(const char *prefix, const char *name, const char *meaning) {
    printf("val %s", prefix);
    print_name(name, LOWER);
    printf(" : int\n(** %s *)\n\n", meaning);
}

static void print_ocaml_mli(void) {
    printf(OCAML_BANNER "(** The numbers that OCaml shares with the C core. *)\n\n(** {1 Limits} *)\n\n");
#define PRINT(NAME, value, meaning) ocaml_int("", #NAME, meaning);
    LIMITS(PRINT)
#undef PRINT
    printf("(** {1 Wait policies} *)\n\n");
#define PRINT(NAME, value, meaning) ocaml_int("policy_", #NAME, "Code of the policy: " meaning ".");
    POLICIES(PRINT)
#undef PRINT
    printf("(** {1 Element types} *)\n\n");
#define PRINT(NAME, name, code, bits) ocaml_int("dtype_", #name, "Code of [" #name "].");
    SIDECAML_DTYPES(PRINT)
#undef PRINT
    printf("val dtypes : (int * string * int) list\n(** Code, name, bits of one element: below 8 where they are "
           "packed, 0 for strings. *)\n\n(** {1 Errors} *)\n\n");
#define SIDECAML_ERROR(NAME, code, text) ocaml_int("error_", #NAME, text);
#include "sidecaml/errors.def"
#undef SIDECAML_ERROR
    printf("val errors : (int * string * string) list\n(** Code (positive), name, meaning. *)\n");
}

int main(int argc, char **argv) {
    const char *language = argc == 2 ? argv[1] : "";
    if (strcmp(language, "python") == 0)
        print_python();
    else if (strcmp(language, "ocaml-ml") == 0)
        print_ocaml_ml();
    else if (strcmp(language, "ocaml-mli") == 0)
        print_ocaml_mli();
    else {
        fprintf(stderr, "usage: abi_constants python | ocaml-ml | ocaml-mli\n");
        return 2;
    }
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
