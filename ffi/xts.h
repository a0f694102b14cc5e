/*
 * AES-256-XTS over 512-byte sectors, each with its own tweak.
 *
 *   key (64 bytes)     0              32              64
 *                      | data key     | tweak key     |
 *   tweak (16 bytes)   0              8               16
 *                      | zero         | sector, LE    |     not dm-crypt's order
 *
 * A context holds the expanded keys and the kernel that uses them. It is written by `expand` and `wipe`
 * alone, so any number of threads may encrypt and decrypt with one context at a time.
 */
#ifndef UBI_XTS_H
#define UBI_XTS_H

#include "ubi.h"

#define UBI_XTS_SECTOR_SIZE 512
#define UBI_XTS_KEY_SIZE 64

enum ubi_xts_provider {
    UBI_XTS_VAES512 = 1,  /* VAES and VPCLMULQDQ on 512-bit registers */
    UBI_XTS_VAES256 = 2,  /* VAES and VPCLMULQDQ on 256-bit registers */
    UBI_XTS_AESNI = 3,    /* AES-NI on 128-bit registers */
    UBI_XTS_ISAL = 4,     /* libisal_crypto, after ubi_xts_isal_load */
    UBI_XTS_PORTABLE = 5, /* the second library, after ubi_xts_portable_set */
};

/* Bytes of a context. Its address must be a multiple of 64. */
uint32_t ubi_xts_context_size(void);

/* 0 when the provider can be used, -ENOTSUP when the CPU lacks it, -ENOENT when its library is not loaded. */
int32_t ubi_xts_probe(uint32_t provider);

/* Computes known answers both ways. 0, what `probe` says, or -EIO when an answer is wrong. */
int32_t ubi_xts_self_test(uint32_t provider);

/* Fills a context from a key of 64 bytes, which is not kept. Equal halves are accepted. */
int32_t ubi_xts_expand(void *context, const void *key, uint32_t provider);

/*
 * `count` sectors from `sector` on. Source and target are the same or do not overlap, at any alignment.
 * The source is read once and only results are written to the target: both may be guest memory.
 * 0, -EINVAL, -EBADF when the context is wiped, -EIO when the provider's library failed.
 */
int32_t ubi_xts_encrypt(const void *context, double sector, uint32_t count, const void *source, void *target);
int32_t ubi_xts_decrypt(const void *context, double sector, uint32_t count, const void *source, void *target);

/* The same from a whole tweak of 16 bytes; its upper half, little endian, grows by 1 a sector. */
int32_t ubi_xts_encrypt_tweak(const void *context, const void *tweak, uint32_t count, const void *source,
                              void *target);
int32_t ubi_xts_decrypt_tweak(const void *context, const void *tweak, uint32_t count, const void *source,
                              void *target);

/* Zeroes the context. Nobody may be using it; later calls with it get -EBADF. */
void ubi_xts_wipe(void *context);

/*
 * Loads libisal_crypto: from the absolute path `path` after a check of owner and mode, or when it is empty
 * by its soname from the loader's own search path. Again does nothing. 0, or -ENOTSUP without AES-NI,
 * -EINVAL for a relative path, -ENOENT, -EPERM when it may have come from somebody else, -ENOEXEC when it
 * does not load, -ENOSYS when functions are missing from it.
 */
int32_t ubi_xts_isal_load(const char *path);

/* Announces the second library's functions (xts_portable.h). */
int32_t ubi_xts_portable_set(void *create, void *run, void *destroy);

/* `name` and `address` pairs for table.c. */
#define UBI_XTS_ENTRIES                                                                                        \
    ENTRY(ubi_xts_context_size), ENTRY(ubi_xts_probe), ENTRY(ubi_xts_self_test), ENTRY(ubi_xts_expand),        \
        ENTRY(ubi_xts_encrypt), ENTRY(ubi_xts_decrypt), ENTRY(ubi_xts_encrypt_tweak),                          \
        ENTRY(ubi_xts_decrypt_tweak), ENTRY(ubi_xts_wipe), ENTRY(ubi_xts_isal_load),                           \
        ENTRY(ubi_xts_portable_set),

#endif
