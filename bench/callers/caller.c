#include "caller.h"

#include <string.h>
#include <time.h>

#include "sidecaml/abi.h"

#define LINE 64
#define PERIOD 256

uint64_t caller_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void caller_touch(void *buffer, uint64_t bytes) {
    uint64_t *words = buffer;
    for (uint64_t i = 0; i < bytes / sizeof *words; i += LINE / sizeof *words)
        words[i]++;
}

bool caller_fills(uint32_t dtype) {
    return dtype == SIDECAML_FLOAT32 || dtype == SIDECAML_INT64;
}

/* One period is computed and then copied: arithmetic must not hide what the stores cost. */
static void fill_float32(float *x, uint64_t elements, uint64_t seed) {
    uint64_t first = elements < PERIOD ? elements : PERIOD;
    for (uint64_t i = 0; i < first; i++)
        x[i] = (float)((i + 31 * seed) % PERIOD) * (1.0f / PERIOD);
    for (uint64_t done = first; done < elements;) {
        uint64_t count = elements - done < PERIOD ? elements - done : PERIOD;
        memcpy(x + done, x, count * sizeof *x);
        done += count;
    }
}

static void fill_int64(int64_t *x, uint64_t elements) {
    for (uint64_t i = 0; i < elements; i++)
        x[i] = 16000;
}

void caller_fill(void *input, uint32_t dtype, uint64_t elements, uint64_t seed) {
    if (dtype == SIDECAML_FLOAT32) fill_float32(input, elements, seed);
    if (dtype == SIDECAML_INT64) fill_int64(input, elements);
}

void caller_read(const void *output, uint64_t bytes) {
    uint64_t sum = 0;
    for (uint64_t at = 0; at < bytes; at += LINE) {
        uint64_t word = 0, left = bytes - at;
        if (left >= sizeof word)
            memcpy(&word, (const char *)output + at, sizeof word);
        else
            memcpy(&word, (const char *)output + at, left);
        sum ^= word;
    }
    __asm__ volatile("" : : "r"(sum)); /* or the reads would be left out */
}
