/*
 * AES-256-XTS by the second library (ssl/xts_portable.c), for CPUs without AES instructions. The main
 * thread announces its functions once, before any context is made; that library stays loaded for life.
 */
#include "xts_portable.h"
#include "xts_kernel.h"

static struct {
    ubi_xts_portable_create *create;
    ubi_xts_portable_run *run;
    ubi_xts_portable_destroy *destroy;
} library;

int32_t ubi_xts_portable_set(void *create, void *run, void *destroy) {
    if (create == NULL || run == NULL || destroy == NULL) {
        return -EINVAL;
    }
    /* SAFETY: the caller took these addresses from the second library's table under their names. */
    library.create = (ubi_xts_portable_create *)create;
    library.run = (ubi_xts_portable_run *)run;
    library.destroy = (ubi_xts_portable_destroy *)destroy;
    return 0;
}

static int32_t probe(void) { return library.create == NULL ? -ENOENT : 0; }

static int32_t expand(struct xts_context *context, const uint8_t *key) {
    context->state = library.create(key);
    return context->state == NULL ? -ENOMEM : 0;
}

static int32_t encrypt(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                       const uint8_t *source, uint8_t *target) {
    return library.run(context->state, low, high, count, source, target, 0);
}

static int32_t decrypt(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                       const uint8_t *source, uint8_t *target) {
    return library.run(context->state, low, high, count, source, target, 1);
}

static void release(struct xts_context *context) { library.destroy(context->state); }

const struct xts_kernel xts_kernel_portable = {
    .probe = probe, .expand = expand, .encrypt = encrypt, .decrypt = decrypt, .release = release};
