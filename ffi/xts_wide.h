/* What the kernels on wide registers share; internal to the library. */
#ifndef UBI_XTS_WIDE_H
#define UBI_XTS_WIDE_H

#include "xts_kernel.h"

#define GROUP_SECTORS 8 /* their tweaks are enciphered together */
#define PREFETCH_BYTES 2048
#define STREAM_SECTORS_MIN 32

/* A constant at every call: three loops, each without a branch. */
enum mode { MODE_ENCRYPT, MODE_ENCRYPT_STREAM, MODE_DECRYPT };

/*
 * Hides where a schedule lies. Else GCC keeps the 15 keys of a loop as 128-bit registers and widens them
 * by shuffles again and again, on a port that the AES rounds need; a broadcasting load costs none.
 */
static inline const uint8_t *reload(const uint8_t *schedule) {
    __asm__("" : "+r"(schedule));
    return schedule;
}

/*
 * What a device has just written is in no cache of this core. A prefetch beyond the end of memory is no fault; for
 * small requests it costs more than it brings.
 */
static inline void prefetch_sector(const uint8_t *sector) {
    for (uint32_t line = 0; line < UBI_XTS_SECTOR_SIZE; line += 64) {
        __builtin_prefetch(sector + line);
    }
}

/*
 * What is enciphered goes to the disk and is not read here again. Stores past the cache spare the lines of
 * the target from being fetched first, often from the core that sent the buffer's last content; for small
 * requests that does not pay.
 */
static inline int may_stream(uint32_t count, const uint8_t *source, const uint8_t *target) {
    return count >= STREAM_SECTORS_MIN && source != target && ((uintptr_t)target & 63) == 0;
}

#endif
