/*
 * Stands in for libisal_crypto.so.2 in tests: the same names and argument order, on libcrypto's block
 * cipher. A "schedule" here is the raw key behind a mark that tells which one it is, so that exchanged
 * keys or schedules give wrong bytes, silently, as the real library does.
 *
 * Built with OLD_NAMES: only the names before 2.25. WITHOUT_DECRYPT: a function is missing. FAILING: the
 * cipher returns an error. EXCHANGED: it expects the data key first.
 */
#include <openssl/evp.h>
#include <stdint.h>
#include <string.h>

#define API __attribute__((visibility("default")))
#define BAD_LENGTH 2009
#define BLOCK 16

enum mark { ENCRYPT = 'E', DECRYPT = 'D' };

static void ecb(const uint8_t *key, int is_encrypt, const uint8_t *input, uint8_t *output) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int length = 0;
    EVP_CipherInit_ex(context, EVP_aes_256_ecb(), NULL, key, NULL, is_encrypt);
    EVP_CIPHER_CTX_set_padding(context, 0);
    EVP_CipherUpdate(context, output, &length, input, BLOCK);
    EVP_CIPHER_CTX_free(context);
}

static int expand(const uint8_t *key, uint8_t *encrypt, uint8_t *decrypt) {
    memset(encrypt, 0, 240);
    memset(decrypt, 0, 240);
    encrypt[0] = ENCRYPT;
    decrypt[0] = DECRYPT;
    memcpy(encrypt + 1, key, 32);
    memcpy(decrypt + 1, key, 32);
    return 0;
}

static int run(const uint8_t *k2, const uint8_t *k1, const uint8_t *initial, uint64_t length, const uint8_t *input,
               uint8_t *output, enum mark mark) {
#ifdef FAILING
    return BAD_LENGTH;
#endif
#ifdef EXCHANGED
    const uint8_t *first = k2;
    k2 = k1;
    k1 = first;
#endif
    if (k2[0] != ENCRYPT || k1[0] != mark) {
        memset(output, 0xee, length);
        return 0;
    }
    uint8_t tweak[BLOCK];
    ecb(k2 + 1, 1, initial, tweak);
    for (uint64_t at = 0; at < length; at += BLOCK) {
        uint8_t block[BLOCK];
        for (int i = 0; i < BLOCK; i++) {
            block[i] = input[at + (uint64_t)i] ^ tweak[i];
        }
        ecb(k1 + 1, mark == ENCRYPT, block, block);
        uint8_t carry = 0;
        for (int i = 0; i < BLOCK; i++) {
            output[at + (uint64_t)i] = block[i] ^ tweak[i];
            uint8_t next = tweak[i] >> 7;
            tweak[i] = (uint8_t)(tweak[i] << 1 | carry);
            carry = next;
        }
        tweak[0] ^= carry != 0 ? 0x87 : 0;
    }
    return 0;
}

#ifdef OLD_NAMES
#define RESULT void
#define RETURN (void)
#define NAME(new_name, old_name) old_name
#else
#define RESULT int
#define RETURN return
#define NAME(new_name, old_name) new_name
#endif

API RESULT NAME(isal_aes_keyexp_256, aes_keyexp_256)(const uint8_t *key, uint8_t *encrypt, uint8_t *decrypt);
API RESULT NAME(isal_aes_keyexp_256, aes_keyexp_256)(const uint8_t *key, uint8_t *encrypt, uint8_t *decrypt) {
    RETURN expand(key, encrypt, decrypt);
}

#define CIPHER(name, mark)                                                                                     \
    API RESULT name(const uint8_t *k2, const uint8_t *k1, const uint8_t *tweak, uint64_t length,               \
                    const uint8_t *input, uint8_t *output);                                                    \
    API RESULT name(const uint8_t *k2, const uint8_t *k1, const uint8_t *tweak, uint64_t length,               \
                    const uint8_t *input, uint8_t *output) {                                                   \
        RETURN run(k2, k1, tweak, length, input, output, mark);                                                \
    }

CIPHER(NAME(isal_aes_xts_enc_256_expanded_key, XTS_AES_256_enc_expanded_key), ENCRYPT)
#ifndef WITHOUT_DECRYPT
CIPHER(NAME(isal_aes_xts_dec_256_expanded_key, XTS_AES_256_dec_expanded_key), DECRYPT)
#endif
