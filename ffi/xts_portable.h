/* The three functions by which the second library ciphers for the first. */
#ifndef UBI_XTS_PORTABLE_H
#define UBI_XTS_PORTABLE_H

#include "ubi.h"

/* From a key of 64 bytes; NULL when memory or the algorithm is lacking. */
typedef void *ubi_xts_portable_create(const uint8_t *key);

/* Any number of threads at a time. The tweak of sector i is `low`, `high + i`, both little endian. */
typedef int32_t ubi_xts_portable_run(void *state, uint64_t low, uint64_t high, uint32_t count,
                                     const uint8_t *source, uint8_t *target, int is_decrypt);

/* Wipes the keys. Nobody may be using them. */
typedef void ubi_xts_portable_destroy(void *state);

#endif
