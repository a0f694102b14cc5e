/*
 * Common to all subjects of the library: what is exported, how results are returned.
 *
 * Every function returns 0 or a count, or -errno; addresses and 64-bit values travel as double, which
 * holds every integer below 2^53 exactly (user-space addresses are below 2^47).
 */
#ifndef UBI_H
#define UBI_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#define UBI_API __attribute__((visibility("default")))

/* A name and an address of the library's table; the table ends with two nulls. */
struct ubi_entry {
    const char *name;
    void *function;
};

static inline void *ubi_pointer(double address) {
    /* SAFETY: addresses come from this process's own mappings, which lie below 2^47. */
    return (void *)(uintptr_t)(uint64_t)address;
}

static inline double ubi_address(const void *pointer) { return (double)(uintptr_t)pointer; }

static inline int32_t ubi_result(long result) { return result < 0 ? -errno : (int32_t)result; }

#endif
