/*
 * Known answers for a kernel at start-up. They were computed with libcrypto: key 00 01 .. 3f, plaintext
 * byte i = (7 i + 3) mod 256, 19 sectors (two full groups of eight and a rest) from `sector` on.
 */
#include "xts_kernel.h"

#include <string.h>

#define RUN_SECTORS 19
#define RUN_SIZE (RUN_SECTORS * UBI_XTS_SECTOR_SIZE)

struct answer {
    uint64_t sector;
    uint8_t first[16]; /* ciphertext */
    uint64_t hash;     /* FNV-1a over all ciphertext */
};

static const struct answer answers[] = {
    {0,
     {0x3f, 0x1f, 0x18, 0x7c, 0x64, 0xe5, 0xcc, 0x3f, 0x3e, 0xe9, 0x10, 0x69, 0x21, 0x9b, 0x12, 0x38},
     0x8725427e738dc201},
    {0xfffffff8, /* the number crosses 32 bits within the run */
     {0xb1, 0xc8, 0xdb, 0x8e, 0xbe, 0xa9, 0xfc, 0xc2, 0x49, 0xb9, 0xc4, 0x7f, 0x87, 0x75, 0xf7, 0x93},
     0xee4a7966b45251a5},
    {0x0123456789abcdef,
     {0xa0, 0xf1, 0xa8, 0xad, 0xc8, 0x0b, 0xc0, 0x9d, 0xa7, 0xb2, 0x49, 0x28, 0x43, 0xb4, 0x4c, 0xee},
     0xea6321a05f146e8c},
};

static uint64_t hash_of(const uint8_t *bytes, size_t length) {
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3;
    }
    return hash;
}

static int is_right(const struct answer *answer, const uint8_t *ciphertext) {
    return memcmp(ciphertext, answer->first, sizeof(answer->first)) == 0 &&
           hash_of(ciphertext, RUN_SIZE) == answer->hash;
}

static int32_t check_answer(const struct xts_context *context, const struct answer *answer) {
    uint8_t plaintext[RUN_SIZE];
    uint8_t target[RUN_SIZE + 1];
    for (size_t i = 0; i < RUN_SIZE; i++) {
        plaintext[i] = (uint8_t)(7 * i + 3);
    }
    const struct xts_kernel *kernel = context->kernel;
    /* Apart, to an odd address, and back in place. */
    uint8_t *odd = target + 1;
    if (kernel->encrypt(context, 0, answer->sector, RUN_SECTORS, plaintext, odd) < 0 || !is_right(answer, odd)) {
        return -EIO;
    }
    if (kernel->decrypt(context, 0, answer->sector, RUN_SECTORS, odd, odd) < 0) {
        return -EIO;
    }
    return memcmp(odd, plaintext, RUN_SIZE) == 0 ? 0 : -EIO;
}

int32_t ubi_xts_self_test(uint32_t provider) {
    struct xts_context context;
    uint8_t key[UBI_XTS_KEY_SIZE];
    for (uint32_t i = 0; i < UBI_XTS_KEY_SIZE; i++) {
        key[i] = (uint8_t)i;
    }
    int32_t result = ubi_xts_expand(&context, key, provider);
    if (result < 0) {
        return result;
    }
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]) && result == 0; i++) {
        result = check_answer(&context, &answers[i]);
    }
    ubi_xts_wipe(&context);
    return result;
}
