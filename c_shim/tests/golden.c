/* Writes the golden vectors: segments and a status page as the core makes them (NAME.hex), and what stands in them as
 * read through abi.h (NAME.json).
 *
 *   golden FOLDER
 *
 * tests/unit/test_decode.py holds the independent decoder against them; `make -C c_shim check-golden` fails when the
 * core no longer makes these bytes, and `make -C c_shim golden` writes them again.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "pair.h"
#include "word.h"

static const char *folder;

/* In place of the core's clock: the same stamps every time, however often the core reads it. */
static uint64_t now = 1000000000;

uint64_t sidecaml_now_ns(void) {
    return now;
}

uint64_t coarse_now_ns(void) {
    return sidecaml_now_ns();
}

static void tick(void) {
    now += 1000;
}

/* --- Writing files ----------------------------------------------------------------------------------------------- */

static FILE *create(const char *name, const char *suffix) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.%s", folder, name, suffix);
    FILE *file = fopen(path, "w");
    if (!file) check_failed(__FILE__, __LINE__, "%s cannot be written", path);
    return file;
}

static void finish(FILE *file) {
    CHECK(!ferror(file));
    CHECK_EQ(fclose(file), 0);
}

/* 32 bytes a line; lines of zeros are left out. */
static void write_hex(const char *name, const uint8_t *bytes, uint64_t count) {
    static const uint8_t zeros[32];
    FILE *file = create(name, "hex");
    fprintf(file, "size %" PRIu64 "\n", count);
    for (uint64_t at = 0; at < count; at += sizeof zeros) {
        if (memcmp(bytes + at, zeros, sizeof zeros) == 0) continue;
        fprintf(file, "%06" PRIx64 " ", at);
        for (size_t i = 0; i < sizeof zeros; i++)
            fprintf(file, "%02x", bytes[at + i]);
        fputc('\n', file);
    }
    finish(file);
}

/* Bytes that are not UTF-8 (of a name cut within a character) are left to the reader: \xNN is no JSON, so the text is
 * given in hex. */
static void write_text(FILE *file, const char *key, const uint8_t *text, size_t length) {
    fprintf(file, "\"%s\": \"", key);
    for (size_t i = 0; i < length; i++)
        fprintf(file, "%02x", text[i]);
    fputs("\"", file);
}

static void write_numbers(FILE *file, const char *key, const uint64_t *numbers, uint32_t count) {
    fprintf(file, "\"%s\": [", key);
    for (uint32_t i = 0; i < count; i++)
        fprintf(file, "%s%" PRIu64, i ? ", " : "", numbers[i]);
    fputs("]", file);
}

static void write_tensor(FILE *file, const struct sidecaml_tensor_descriptor *tensor) {
    fprintf(file, "  {\"dtype\": \"%s\", \"output\": %s, \"dynamic\": %s, \"packed\": %s, ",
            sidecaml_dtype_name(tensor->dtype), tensor->flags & SIDECAML_TENSOR_OUTPUT ? "true" : "false",
            tensor->flags & SIDECAML_TENSOR_DYNAMIC ? "true" : "false",
            tensor->flags & SIDECAML_TENSOR_PACKED ? "true" : "false");
    write_text(file, "name_hex", tensor->name, strnlen((const char *)tensor->name, sizeof tensor->name));
    fputs(", ", file);
    write_numbers(file, "max_dims", tensor->max_dims, tensor->rank);
    fprintf(file, ", \"text_bytes\": %" PRIu64, tensor->text_bytes);
    fprintf(file, ", \"max_bytes\": %" PRIu64 ", \"array_offset\": %" PRIu64 ", \"slot_stride\": %" PRIu64 "}",
            tensor->max_bytes, tensor->array_offset, tensor->slot_stride);
}

static const char *state_name(uint64_t word) {
    switch (word_state(word)) {
#define STATE_NAME(NAME, code)                                                                                         \
    case SIDECAML_STATE_##NAME:                                                                                        \
        return #NAME;
        SIDECAML_STATES(STATE_NAME)
#undef STATE_NAME
    }
    check_failed(__FILE__, __LINE__, "word %" PRIx64 " has no state", word);
}

static void write_slot(FILE *file, const struct sidecaml_slot *slot) {
    fprintf(file, "  {\"ticket\": %" PRIu64 ", \"state\": \"%s\", ", word_ticket(slot->word), state_name(slot->word));
    fprintf(file, "\"deadline_ns\": %" PRIu64 ", \"submitted_ns\": %" PRIu64 ", \"seen_ns\": %" PRIu64 ", ",
            slot->deadline_ns, slot->submitted_ns, slot->seen_ns);
    fprintf(file, "\"started_ns\": %" PRIu64 ", \"finished_ns\": %" PRIu64 ", \"status\": %d, \"all_stamps\": %s, ",
            slot->started_ns, slot->finished_ns, slot->status, slot->flags & SIDECAML_SLOT_STAMPS ? "true" : "false");
    fprintf(file, "\"reset\": %s, \"text_needed\": %" PRIu64 ", ", slot->flags & SIDECAML_SLOT_RESET ? "true" : "false",
            slot->text_needed);
    write_text(file, "message_hex", slot->message, slot->message_bytes);
}

static void write_dims(FILE *file, const uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot) {
    const struct sidecaml_dims *dims = (const void *)(base + layout->dims_offset);
    uint32_t tensors = layout->input_count + layout->output_count;
    fputs(", \"dims\": [", file);
    for (uint32_t t = 0; t < tensors; t++) {
        const struct sidecaml_tensor_descriptor *tensor = &layout->tensor[t];
        if (t) fputs(", ", file);
        if (!(tensor->flags & SIDECAML_TENSOR_DYNAMIC)) {
            fputs("null", file);
            continue;
        }
        fputs("[", file);
        for (uint32_t i = 0; i < tensor->rank; i++)
            fprintf(file, "%s%" PRIu64, i ? ", " : "", dims[slot * tensors + t].dim[i]);
        fputs("]", file);
    }
    fputs("]}", file);
}

static void write_json(const char *name, const uint8_t *base, const struct sidecaml_layout *layout) {
    FILE *file = create(name, "json");
    fprintf(file, "{\"header\": {\"abi_version\": %u, \"segment_bytes\": %" PRIu64 ", \"fingerprint\": %" PRIu64 ", ",
            SIDECAML_ABI_VERSION, layout->segment_bytes, layout->fingerprint);
    fprintf(file, "\"slot_count\": %u, \"input_count\": %u, \"output_count\": %u, ", layout->slot_count,
            layout->input_count, layout->output_count);
    fprintf(file, "\"tensors_offset\": %" PRIu64 ", \"client_offset\": %" PRIu64 ", \"worker_offset\": %" PRIu64 ", ",
            layout->tensors_offset, layout->client_offset, layout->worker_offset);
    fprintf(file, "\"slots_offset\": %" PRIu64 ", ", layout->slots_offset);
    fprintf(file, "\"dims_offset\": %" PRIu64 ", \"arrays_offset\": %" PRIu64 "},\n \"tensors\": [",
            layout->dims_offset, layout->arrays_offset);
    for (uint32_t i = 0; i < layout->input_count + layout->output_count; i++) {
        fputs(i ? ",\n" : "\n", file);
        write_tensor(file, &layout->tensor[i]);
    }
    const struct sidecaml_client_block *block = (const void *)(base + layout->client_offset);
    fprintf(file, "],\n \"client\": {\"waiting\": %s, \"core\": ", block->waiting ? "true" : "false");
    if (block->core)
        fprintf(file, "%u", block->core - 1);
    else
        fputs("null", file);
    fprintf(file, ", \"thread\": %u", block->thread);
    const struct sidecaml_worker_block *served = (const void *)(base + layout->worker_offset);
    fprintf(file, "},\n \"served\": {\"page\": %u},\n \"slots\": [", served->page);
    for (uint32_t slot = 0; slot < layout->slot_count; slot++) {
        fputs(slot ? ",\n" : "\n", file);
        write_slot(file, (const struct sidecaml_slot *)(base + layout->slots_offset) + slot);
        write_dims(file, base, layout, slot);
    }
    fputs("]}\n", file);
    finish(file);
}

/* The core's own reader takes what the core wrote, and reads the same out of it. */
static void write_segment(const char *name, const uint8_t *base, const struct sidecaml_layout *layout) {
    struct sidecaml_layout read;
    struct sidecaml_failure why;
    if (sidecaml_layout_read(base, layout->segment_bytes, &read, &why) < 0)
        check_failed(__FILE__, __LINE__, "%s: %s", name, why.text);
    CHECK(memcmp(&read, layout, sizeof read) == 0);
    write_hex(name, base, layout->segment_bytes);
    write_json(name, base, layout);
}

static void write_fresh(const char *name, const struct sidecaml_tensor_spec *specs, uint32_t count, uint32_t slots,
                        uint64_t fingerprint) {
    struct sidecaml_layout layout;
    struct sidecaml_failure why;
    if (sidecaml_layout_compute(specs, count, slots, fingerprint, &layout, &why) < 0)
        check_failed(__FILE__, __LINE__, "%s: %s", name, why.text);
    uint8_t *base = mmap(NULL, layout.segment_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(base != MAP_FAILED);
    sidecaml_segment_format(base, &layout);
    write_segment(name, base, &layout);
    munmap(base, layout.segment_bytes);
}

/* --- The vectors ------------------------------------------------------------------------------------------------- */

static void write_scalar(void) {
    struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_FLOAT32},
        {.name = "y", .dtype = SIDECAML_FLOAT32, .output = true},
    };
    write_fresh("scalar", specs, 2, 1, 1);
}

static void write_nothing(void) {
    write_fresh("no_tensors", NULL, 0, 3, UINT64_MAX);
}

/* Every element type, every rank up to the largest, a dimension of 0, and a name too long for its place. */
static void write_every_type(void) {
    static const uint32_t types[] = {
#define CODE(NAME, text, code, bits) code,
        SIDECAML_DTYPES(CODE)
#undef CODE
    };
    enum { type_count = sizeof types / sizeof types[0], count = type_count + 4 };
    struct sidecaml_tensor_spec specs[count] = {{0}};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t dtype = i < type_count ? types[i] : SIDECAML_INT16;
        specs[i] = (struct sidecaml_tensor_spec){.name = sidecaml_dtype_name(dtype),
                                                 .dtype = dtype,
                                                 .rank = i % (SIDECAML_MAX_RANK + 1),
                                                 .output = i >= type_count};
    }
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t d = 0; d < specs[i].rank; d++)
            specs[i].max_dims[d] = d < 3 ? d + 2 : 1;
    specs[5].max_dims[2] = 0;
    /* Packed types whose last byte is not full. */
    specs[SIDECAML_INT4 - 1].max_dims[0] = 5;
    for (uint32_t d = 0; d < 3; d++)
        specs[SIDECAML_INT2 - 1].max_dims[d] = specs[SIDECAML_UINT2 - 1].max_dims[d] = d ? 1 : 5;
    specs[SIDECAML_STRING - 1].text_bytes = 100;
    specs[count - 1].dtype = SIDECAML_STRING;
    specs[count - 1].max_dims[2] = 0;
    specs[7].name = "ein Name, der für seinen Platz zu lang ist und mitten in einem Zeichen abgeschnitten: äöüäöüäöü";
    specs[8].dynamic = true;
    specs[16].dynamic = true;
    write_fresh("every_type", specs, count, 2, 0x0123456789abcdef);
}

static void take(struct pair *pair, struct sidecaml_request *request) {
    tick();
    CHECK_EQ(sidecaml_worker_next(pair->worker, 0, request), 1);
    tick();
    sidecaml_worker_started(pair->worker, request);
}

static void run_one(struct pair *pair, int status, const char *message) {
    struct sidecaml_request request;
    take(pair, &request);
    tick();
    CHECK_EQ(sidecaml_worker_complete(pair->worker, &request, status, message), 0);
}

/* After a first round: DONE, FAILED, RUNNING, ABANDONED, cancelled, SUBMITTED, and two that are FREE. */
static void drive_into_every_state(struct pair *pair) {
    const uint64_t deadlines[] = {0, 1500000000, 2000000000, 3000000000, 4000000000, 5000000000}; /* all to come */
    uint64_t dims[] = {3, 2};
    struct sidecaml_request request;
    for (uint32_t i = 0; i < 8; i++) {
        CHECK_EQ(sidecaml_channel_submit(pair->channel, 0), i);
        run_one(pair, 0, NULL);
        CHECK_EQ(sidecaml_channel_release(pair->channel, i), 0);
    }
    sidecaml_channel_set_stamps(pair->channel, true);
    CHECK_EQ(sidecaml_channel_set_dims(pair->channel, 1, 0, dims, 2), 0);
    for (uint32_t i = 0; i < 6; i++) {
        tick();
        CHECK_EQ(sidecaml_channel_submit(pair->channel, deadlines[i]), i);
    }
    run_one(pair, 0, NULL);
    run_one(pair, -SIDECAML_E_ENGINE, "Größe passt nicht: \x01 is no shape");
    take(pair, &request);
    take(pair, &request);
    CHECK_EQ(sidecaml_channel_abandon(pair->channel, 3), 0);
    CHECK_EQ(sidecaml_channel_abandon(pair->channel, 4), 0);
    CHECK_EQ(sidecaml_channel_arm(pair->channel, 2), 0);
}

static void write_states(void) {
    struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_INT64, .rank = 2, .dynamic = true, .max_dims = {3, 4}},
        {.name = "y", .dtype = SIDECAML_BOOL, .rank = 1, .output = true, .dynamic = true, .max_dims = {65}},
        {.name = "z", .dtype = SIDECAML_FLOAT16, .rank = 2, .output = true, .max_dims = {2, 16}},
    };
    struct sidecaml_layout layout;
    CHECK_EQ(sidecaml_layout_compute(specs, 3, 8, 42, &layout, NULL), 0);
    struct pair pair;
    int page;
    memset(&pair, 0, sizeof pair);
    pair.worker = make_worker(SIDECAML_BLOCK, &page, &pair.worker_control, &pair.supervisor);
    pair.channel = pair_add_channel(pair.worker, &layout, page, SIDECAML_BLOCK, &pair.index, &pair.daemon);
    pair.segment = must_dup(sidecaml_channel_segment_fd(pair.channel));
    drive_into_every_state(&pair);

    /* What differs from run to run gets a value of its own. */
    uint8_t *base = mmap(NULL, layout.segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, pair.segment, 0);
    struct sidecaml_status_page *status = mmap(NULL, sizeof *status, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0);
    CHECK(base != MAP_FAILED && (void *)status != MAP_FAILED);
    ((struct sidecaml_client_block *)(base + layout.client_offset))->core = 4;
    ((struct sidecaml_client_block *)(base + layout.client_offset))->thread = 2718281828;
    ((struct sidecaml_worker_block *)(base + layout.worker_offset))->page = 7;
    status->core = 0;
    status->crowd = 5;
    status->cores = 16;
    status->heartbeat_ns = now;
    status->pid = 4711;
    status->parked = 1;
    status->batches = 3;
    status->batched = 50;
    status->refused = 2;
    status->busy_ns = 123456789;
    write_segment("every_state", base, &layout);
    write_hex("status", (const uint8_t *)status, sizeof *status);
    FILE *file = create("status", "json");
    fprintf(file,
            "{\"abi_version\": %u, \"pid\": %u, \"started_ns\": %" PRIu64 ", \"parked\": true, \"core\": null,\n"
            " \"crowd\": %u, \"cores\": %u, \"heartbeat_ns\": %" PRIu64 ", \"served\": %" PRIu64
            ", \"failed\": %" PRIu64 ", \"abandoned\": %" PRIu64 ", \"parks\": %" PRIu64 ", \"channels\": %" PRIu64
            ", \"running_ns\": %" PRIu64 ",\n \"batches\": %" PRIu64 ", \"batched\": %" PRIu64 ", \"refused\": %" PRIu64
            ", \"busy_ns\": %" PRIu64 "}\n",
            status->abi_version, status->pid, status->started_ns, status->crowd, status->cores, status->heartbeat_ns,
            status->served, status->failed, status->abandoned, status->parks, status->channels, status->running_ns,
            status->batches, status->batched, status->refused, status->busy_ns);
    finish(file);
    munmap(base, layout.segment_bytes);
    munmap(status, sizeof *status);
    close(page);
    pair_close(&pair);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: golden FOLDER\n");
        return 2;
    }
    folder = argv[1];
    write_scalar();
    write_nothing();
    write_every_type();
    write_states();
    return 0;
}
