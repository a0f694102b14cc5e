/*
 * What the fuzz targets of the native library share. A target is one LLVMFuzzerTestOneInput: it spends the bytes of its
 * input on decisions, and ends the process where something does not hold. libFuzzer calls it (`npm run fuzz`), or
 * replay.c, which needs no clang.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bytes that are left to decide by. At the end there are only zeros. */
struct input {
    const uint8_t *data;
    size_t left;
};

static inline uint8_t take8(struct input *input) {
    if (input->left == 0) {
        return 0;
    }
    input->left -= 1;
    return *input->data++;
}

static inline uint16_t take16(struct input *input) {
    uint16_t low = take8(input);
    return (uint16_t)(low | take8(input) << 8);
}

static inline uint32_t take32(struct input *input) {
    uint32_t low = take16(input);
    return low | (uint32_t)take16(input) << 16;
}

static inline uint64_t take64(struct input *input) {
    uint64_t low = take32(input);
    return low | (uint64_t)take32(input) << 32;
}

static inline void take_bytes(struct input *input, uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        bytes[i] = take8(input);
    }
}

/* SplitMix64: much data of one number. */
static inline uint64_t spread(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static inline void fill_bytes(uint8_t *bytes, size_t length, uint64_t seed) {
    for (size_t i = 0; i < length; i++) {
        bytes[i] = (uint8_t)spread(&seed);
    }
}

#endif
