/* What the kernels of AES-256-XTS share; internal to the library. */
#ifndef UBI_XTS_KERNEL_H
#define UBI_XTS_KERNEL_H

#include "xts.h"

#define XTS_ROUND_KEYS 15 /* AES-256: 14 rounds */
#define XTS_SCHEDULE_SIZE (XTS_ROUND_KEYS * 16)

struct xts_kernel;

struct xts_context {
    const struct xts_kernel *kernel; /* NULL in a wiped context */
    void *state;                     /* what a kernel of another library keeps */
    _Alignas(64) uint8_t tweak_encrypt[256]; /* schedules of 240 bytes, each on its own cache lines */
    _Alignas(64) uint8_t data_encrypt[256];
    _Alignas(64) uint8_t data_decrypt[256]; /* for the equivalent inverse cipher, in order of use */
};

/* The tweak of sector i of a run is the 16 bytes `low`, `high + i`, both little endian. */
typedef int32_t xts_run(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                        const uint8_t *source, uint8_t *target);

struct xts_kernel {
    int32_t (*probe)(void);
    int32_t (*expand)(struct xts_context *context, const uint8_t *key);
    xts_run *encrypt;
    xts_run *decrypt;
    void (*release)(struct xts_context *context); /* may be NULL */
};

extern const struct xts_kernel xts_kernel_vaes512;
extern const struct xts_kernel xts_kernel_vaes256;
extern const struct xts_kernel xts_kernel_aesni;
extern const struct xts_kernel xts_kernel_isal;
extern const struct xts_kernel xts_kernel_portable;

/* Schedules for the CPU's own AES instructions. */
int32_t xts_aesni_expand(struct xts_context *context, const uint8_t *key);

#endif
