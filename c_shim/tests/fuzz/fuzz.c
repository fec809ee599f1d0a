#define _GNU_SOURCE
#include "fuzz.h"

#include <dirent.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mapping.h"
#include "word.h"

/* In place of the core's clock: it goes a millisecond a reading, so that whoever spins or waits by it soon stops. */
static uint64_t now = 1000000000;

uint64_t sidecaml_now_ns(void) {
    return now += 1000000;
}

uint64_t coarse_now_ns(void) {
    return sidecaml_now_ns();
}

/* --- Input ------------------------------------------------------------------------------------------------------- */

uint8_t take_byte(struct input *input) {
    if (input->left == 0) return 0;
    input->left--;
    return *input->at++;
}

uint64_t take_word(struct input *input) {
    uint64_t word = 0;
    for (unsigned shift = 0; shift < 64; shift += 8)
        word |= (uint64_t)take_byte(input) << shift;
    return word;
}

uint32_t take_number(struct input *input, uint32_t most) {
    uint32_t number = take_byte(input);
    if (most > UINT8_MAX) number |= (uint32_t)take_byte(input) << 8;
    return number % (most + 1);
}

size_t take_bytes(struct input *input, void *out, size_t room) {
    size_t count = take_byte(input);
    if (count > room) count = room;
    if (count > input->left) count = input->left;
    if (count) memcpy(out, input->at, count);
    input->at += count;
    input->left -= count;
    return count;
}

uint64_t take_slot_word(struct input *input) {
    uint8_t kind = take_byte(input);
    if (kind == UINT8_MAX) return take_word(input);
    return word_of(kind >> SIDECAML_STATE_BITS, kind & SIDECAML_STATE_MASK);
}

uint64_t take_dim(struct input *input) {
    uint8_t dim = take_byte(input);
    return dim == UINT8_MAX ? take_word(input) : dim % 8;
}

/* --- Layouts ----------------------------------------------------------------------------------------------------- */

static const char *const NAMES[] = {"x", "state", "y", ""};

void take_layout(struct input *input, struct sidecaml_layout *layout) {
    struct sidecaml_tensor_spec specs[6] = {0};
    uint32_t slots = take_number(input, 3) + 1, inputs = take_number(input, 3), count = inputs + take_number(input, 2);
    for (uint32_t i = 0; i < count; i++) {
        struct sidecaml_tensor_spec *spec = &specs[i];
        uint8_t flags = take_byte(input);
        spec->name = NAMES[i % 4];
        spec->output = i >= inputs;
        spec->dynamic = flags & 1;
        spec->packed = flags & 16;
        spec->dtype = flags & 2 ? SIDECAML_STRING : take_number(input, SIDECAML_UINT2 - 1) + 1;
        spec->rank = flags >> 2 & 3;
        for (uint32_t axis = 0; axis < spec->rank; axis++)
            spec->max_dims[axis] = take_number(input, 7);
        if (spec->dtype == SIDECAML_STRING) spec->text_bytes = take_byte(input);
    }
    struct sidecaml_failure why;
    HOLDS(sidecaml_layout_compute(specs, count, slots, 77, layout, &why) == 0);
}

/* Where in the segment; the last 8 bytes are never begun in. */
static uint64_t take_place(struct input *input, const struct sidecaml_layout *layout) {
    uint32_t slot = take_number(input, layout->slot_count - 1), tensors = tensor_count_of(layout);
    uint8_t where = take_byte(input);
    switch (where & 7) {
    case 0:
        return take_word(input) % (layout->segment_bytes - 7);
    case 1:
        return layout->client_offset + (where >> 3) * 8; /* the worker block's bytes, too */
    case 2:
        return where >> 3;
    case 3:
        if (tensors)
            return layout->dims_offset + (slot * tensors + (where >> 3) % tensors) * sizeof(struct sidecaml_dims) +
                   take_number(input, SIDECAML_MAX_RANK - 1) * 8;
        break;
    case 4:
        if (tensors) {
            const struct sidecaml_tensor_descriptor *tensor = &layout->tensor[(where >> 3) % tensors];
            return tensor->array_offset + slot * tensor->slot_stride + take_number(input, 63) / 8 * 8;
        }
        break;
    default:
        break;
    }
    return layout->slots_offset + slot * sizeof(struct sidecaml_slot) + (where >> 3) % 18 * 8;
}

void scribble(struct input *input, uint8_t *base, const struct sidecaml_layout *layout) {
    uint64_t place = take_place(input, layout), value;
    uint8_t kind = take_byte(input);
    if (kind & 1)
        value = take_word(input);
    else if (kind & 2)
        value = take_slot_word(input);
    else
        value = take_dim(input);
    memcpy(base + place, &value, sizeof value);
}

void check_text(const char *text, size_t length) {
    HOLDS(text[length] == '\0');
    for (size_t i = 0; i < length; i++)
        HOLDS((unsigned char)text[i] >= ' ' && text[i] != 0x7f);
}

/* --- Descriptors ------------------------------------------------------------------------------------------------- */

int fresh_memory(uint64_t bytes) {
    int fd = memfd_create("sidecaml-fuzz", MFD_CLOEXEC);
    HOLDS(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    return fd;
}

int fresh_doorbell(void) {
    int fd = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    HOLDS(fd >= 0);
    return fd;
}

int copy_of(int fd) {
    int copy = dup(fd);
    HOLDS(copy >= 0);
    return copy;
}

void fresh_sockets(int ends[2]) {
    HOLDS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
}

uint8_t *map(int fd, uint64_t bytes) {
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    HOLDS(base != MAP_FAILED);
    return base;
}

void check_descriptors(void) {
    static int calls, before;
    /* Reading /proc takes longer than most inputs. */
    if (calls++ % 1024) return;
    DIR *folder = opendir("/proc/self/fd");
    HOLDS(folder);
    int count = 0;
    while (readdir(folder))
        count++;
    closedir(folder);
    if (!before) before = count;
    /* The fuzzer itself opens a file or two as it goes on. */
    HOLDS(count < before + 8);
}
