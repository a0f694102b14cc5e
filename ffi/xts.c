/*
 * AES-256-XTS: contexts and the choice of kernel. A context belongs to whoever allocated its memory (one
 * per device); the main thread expands and wipes it, the queue workers use it by address in between.
 */
#include "xts_kernel.h"

#include <string.h>

static const struct xts_kernel *kernel_of(uint32_t provider) {
    switch (provider) {
    case UBI_XTS_VAES512:
        return &xts_kernel_vaes512;
    case UBI_XTS_VAES256:
        return &xts_kernel_vaes256;
    case UBI_XTS_AESNI:
        return &xts_kernel_aesni;
    case UBI_XTS_ISAL:
        return &xts_kernel_isal;
    case UBI_XTS_PORTABLE:
        return &xts_kernel_portable;
    default:
        return NULL;
    }
}

uint32_t ubi_xts_context_size(void) { return sizeof(struct xts_context); }

int32_t ubi_xts_probe(uint32_t provider) {
    const struct xts_kernel *kernel = kernel_of(provider);
    return kernel == NULL ? -EINVAL : kernel->probe();
}

int32_t ubi_xts_expand(void *memory, const void *key, uint32_t provider) {
    struct xts_context *context = memory;
    const struct xts_kernel *kernel = kernel_of(provider);
    if (kernel == NULL || memory == NULL || (uintptr_t)memory % _Alignof(struct xts_context) != 0) {
        return -EINVAL;
    }
    int32_t result = kernel->probe();
    if (result < 0) {
        return result;
    }
    memset(context, 0, sizeof(*context));
    result = kernel->expand(context, key);
    if (result < 0) {
        explicit_bzero(context, sizeof(*context));
        return result;
    }
    context->kernel = kernel;
    return 0;
}

/* Apart or the very same: with any other overlap a target byte would be read again as source. */
static int is_overlap(const uint8_t *source, const uint8_t *target, uint32_t count) {
    uint64_t length = (uint64_t)count * UBI_XTS_SECTOR_SIZE;
    uint64_t distance = source < target ? (uint64_t)(target - source) : (uint64_t)(source - target);
    return distance != 0 && distance < length;
}

static int32_t check(const struct xts_context *context, uint32_t count, const uint8_t *source,
                     const uint8_t *target) {
    if (context->kernel == NULL) {
        return -EBADF;
    }
    return is_overlap(source, target, count) ? -EINVAL : 0;
}

/* What a double holds exactly; written so that NaN is none. */
static int is_sector(double sector) { return sector >= 0 && sector <= 9007199254740991.0; }

int32_t ubi_xts_encrypt(const void *memory, double sector, uint32_t count, const void *source, void *target) {
    const struct xts_context *context = memory;
    int32_t result = is_sector(sector) ? check(context, count, source, target) : -EINVAL;
    if (result < 0) {
        return result;
    }
    return context->kernel->encrypt(context, 0, (uint64_t)sector, count, source, target);
}

int32_t ubi_xts_decrypt(const void *memory, double sector, uint32_t count, const void *source, void *target) {
    const struct xts_context *context = memory;
    int32_t result = is_sector(sector) ? check(context, count, source, target) : -EINVAL;
    if (result < 0) {
        return result;
    }
    return context->kernel->decrypt(context, 0, (uint64_t)sector, count, source, target);
}

int32_t ubi_xts_encrypt_tweak(const void *memory, const void *tweak, uint32_t count, const void *source,
                              void *target) {
    const struct xts_context *context = memory;
    uint64_t halves[2];
    memcpy(halves, tweak, sizeof(halves));
    int32_t result = check(context, count, source, target);
    return result < 0 ? result
                      : context->kernel->encrypt(context, halves[0], halves[1], count, source, target);
}

int32_t ubi_xts_decrypt_tweak(const void *memory, const void *tweak, uint32_t count, const void *source,
                              void *target) {
    const struct xts_context *context = memory;
    uint64_t halves[2];
    memcpy(halves, tweak, sizeof(halves));
    int32_t result = check(context, count, source, target);
    return result < 0 ? result
                      : context->kernel->decrypt(context, halves[0], halves[1], count, source, target);
}

void ubi_xts_wipe(void *memory) {
    struct xts_context *context = memory;
    if (context->kernel != NULL && context->kernel->release != NULL) {
        context->kernel->release(context);
    }
    explicit_bzero(context, sizeof(*context));
}
