/*
 * Tests every kernel of AES-256-XTS that this machine has: published vectors, and random cases against
 * libcrypto. Also built with ASan and UBSan, whose findings end it.
 *
 *   xts_test SEED CASES [PATH OF LIBISAL_CRYPTO]
 *
 * Prints `provider N: CASES cases` for each kernel tested; the first mismatch ends it with code 1.
 */
#include "../ssl/ssl.h"
#include "../xts.h"
#include "xts_vectors.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR UBI_XTS_SECTOR_SIZE
#define SECTORS_MAX 40
#define MARGIN 64
#define THREADS 12 /* more than the portable kernel serves without waiting */

static uint64_t random_state;

static _Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* SplitMix64. */
static uint64_t random_number(void) {
    uint64_t z = (random_state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint32_t random_below(uint32_t limit) { return (uint32_t)(random_number() % limit); }

static void random_bytes(uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        bytes[i] = (uint8_t)random_number();
    }
}

static size_t from_hex(const char *hex, uint8_t *bytes) {
    size_t length = strlen(hex) / 2;
    for (size_t i = 0; i < length; i++) {
        unsigned value = 0;
        sscanf(hex + 2 * i, "%2x", &value);
        bytes[i] = (uint8_t)value;
    }
    return length;
}

static void *new_context(const uint8_t *key, uint32_t provider) {
    size_t size = (ubi_xts_context_size() + 63) / 64 * 64;
    void *context = aligned_alloc(64, size);
    if (context == NULL || ubi_xts_expand(context, key, provider) != 0) {
        fail("provider %u: cannot expand", provider);
    }
    return context;
}

static void free_context(void *context) {
    ubi_xts_wipe(context);
    for (uint32_t i = 0; i < ubi_xts_context_size(); i++) {
        if (((uint8_t *)context)[i] != 0) {
            fail("byte %u of a wiped context is not zero", i);
        }
    }
    uint8_t sector[SECTOR] = {0};
    if (ubi_xts_encrypt(context, 0, 1, sector, sector) != -EBADF) {
        fail("a wiped context still works");
    }
    free(context);
}

static void expect(const uint8_t *found, const uint8_t *wanted, size_t length, uint32_t provider, const char *what) {
    for (size_t i = 0; i < length; i++) {
        if (found[i] != wanted[i]) {
            fail("provider %u, %s: byte %zu is %02x, not %02x", provider, what, i, found[i], wanted[i]);
        }
    }
}

static void expect_hex(const uint8_t *found, const char *wanted, uint32_t provider, const char *what) {
    uint8_t bytes[SECTOR];
    size_t length = from_hex(wanted, bytes);
    expect(found, bytes, length, provider, what);
}

static void test_ieee_vectors(uint32_t provider) {
    uint8_t key[UBI_XTS_KEY_SIZE];
    from_hex(IEEE_KEY, key);
    void *context = new_context(key, provider);
    uint8_t plaintext[SECTOR];
    for (int i = 0; i < SECTOR; i++) {
        plaintext[i] = (uint8_t)i;
    }
    for (size_t i = 0; i < sizeof(ieee_vectors) / sizeof(ieee_vectors[0]); i++) {
        uint8_t tweak[16];
        uint8_t target[SECTOR];
        from_hex(ieee_vectors[i].tweak, tweak);
        if (ubi_xts_encrypt_tweak(context, tweak, 1, plaintext, target) != 0) {
            fail("provider %u: vector %d is refused", provider, ieee_vectors[i].number);
        }
        expect_hex(target, ieee_vectors[i].ciphertext, provider, "IEEE 1619 ciphertext");
        ubi_xts_decrypt_tweak(context, tweak, 1, target, target);
        expect(target, plaintext, SECTOR, provider, "IEEE 1619 plaintext");
    }
    free_context(context);
}

static void test_golden_vectors(uint32_t provider) {
    uint8_t key[UBI_XTS_KEY_SIZE];
    for (uint32_t i = 0; i < sizeof(key); i++) {
        key[i] = (uint8_t)i;
    }
    void *context = new_context(key, provider);
    for (size_t i = 0; i < sizeof(golden_vectors) / sizeof(golden_vectors[0]); i++) {
        const struct golden_vector *vector = &golden_vectors[i];
        uint8_t plaintext[SECTOR];
        uint8_t target[SECTOR];
        uint8_t hash[32];
        for (int j = 0; j < SECTOR; j++) {
            plaintext[j] = vector->pattern ? (uint8_t)(7 * j + 3) : 0;
        }
        uint64_t tweak[2] = {0, vector->sector};
        ubi_xts_encrypt_tweak(context, tweak, 1, plaintext, target);
        expect_hex(target, vector->first, provider, "golden first bytes");
        expect_hex(target + SECTOR - 16, vector->last, provider, "golden last bytes");
        EVP_Digest(target, SECTOR, hash, NULL, EVP_sha256(), NULL);
        expect_hex(hash, vector->sha256, provider, "golden hash");
        if (vector->sector < 1ULL << 53) {
            uint8_t again[SECTOR];
            ubi_xts_encrypt(context, (double)vector->sector, 1, plaintext, again);
            expect(again, target, SECTOR, provider, "golden vector by sector number");
        }
    }
    free_context(context);
    uint8_t sector[SECTOR] = {0};
    memset(key, 0x42, sizeof(key));
    context = new_context(key, provider);
    ubi_xts_encrypt(context, 0, 1, sector, sector);
    expect_hex(sector, EQUAL_HALVES_FIRST, provider, "equal key halves");
    ubi_xts_decrypt(context, 0, 1, sector, sector);
    expect(sector, (const uint8_t[SECTOR]){0}, SECTOR, provider, "equal key halves, back");
    free_context(context);
}

static void test_refusals(uint32_t provider) {
    uint8_t key[UBI_XTS_KEY_SIZE] = {1};
    uint8_t bytes[3 * SECTOR] = {0};
    void *context = new_context(key, provider);
    if (ubi_xts_encrypt(context, 0, 2, bytes, bytes + 1) != -EINVAL ||
        ubi_xts_decrypt(context, 0, 2, bytes + SECTOR, bytes) != -EINVAL) {
        fail("provider %u: an overlap is accepted", provider);
    }
    if (ubi_xts_encrypt(context, 0, 1, bytes, bytes + SECTOR) != 0 ||
        ubi_xts_encrypt(context, 0, 0, bytes, bytes) != 0) {
        fail("provider %u: neighbours or nothing are refused", provider);
    }
    if (ubi_xts_expand((uint8_t *)context + 8, key, provider) != -EINVAL ||
        ubi_xts_expand(context, key, 0) != -EINVAL ||
        ubi_xts_expand(context, key, UBI_XTS_PORTABLE + 1) != -EINVAL) {
        fail("provider %u: a bad context or provider is accepted", provider);
    }
    free_context(context);
}

/* libcrypto's own XTS, one call a sector. */
static void reference(const uint8_t *key, uint64_t sector, uint32_t count, const uint8_t *source, uint8_t *target,
                      int is_encrypt) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    for (uint32_t i = 0; i < count; i++) {
        uint64_t tweak[2] = {0, sector + i};
        int length = 0;
        if (EVP_CipherInit_ex(context, EVP_aes_256_xts(), NULL, key, (const uint8_t *)tweak, is_encrypt) != 1 ||
            EVP_CipherUpdate(context, target + i * SECTOR, &length, source + i * SECTOR, SECTOR) != 1) {
            fail("libcrypto refuses a case");
        }
    }
    EVP_CIPHER_CTX_free(context);
}

static uint64_t random_sector(void) {
    switch (random_below(4)) {
    case 0:
        return random_below(100);
    case 1:
        return 0x100000000 - random_below(SECTORS_MAX); /* crosses 32 bits */
    case 2:
        return (1ULL << 53) - SECTORS_MAX - random_below(100); /* the last ones that a double holds */
    default:
        return random_number() >> 12;
    }
}

static void test_case(uint32_t provider) {
    uint8_t key[UBI_XTS_KEY_SIZE];
    random_bytes(key, sizeof(key));
    uint32_t count = 1 + random_below(random_below(4) == 0 ? SECTORS_MAX : 9);
    uint64_t sector = random_sector();
    size_t length = (size_t)count * SECTOR;
    int is_encrypt = (int)random_below(2);
    int is_in_place = (int)random_below(2);
    size_t source_offset = random_below(MARGIN);
    size_t target_offset = random_below(MARGIN);
    /* Of the exact size behind, so that ASan sees each byte too many; before it lies a margin to compare. */
    uint8_t *source = malloc(source_offset + length);
    uint8_t *target = malloc(target_offset + length);
    uint8_t *wanted = malloc(length);
    uint8_t *before = malloc(MARGIN + length);
    random_bytes(source, source_offset + length);
    random_bytes(target, target_offset + length);
    memcpy(before, source, source_offset + length);
    reference(key, sector, count, source + source_offset, wanted, is_encrypt);
    uint8_t *output = is_in_place ? source + source_offset : target + target_offset;
    void *context = new_context(key, provider);
    int32_t result = is_encrypt
                         ? ubi_xts_encrypt(context, (double)sector, count, source + source_offset, output)
                         : ubi_xts_decrypt(context, (double)sector, count, source + source_offset, output);
    if (result != 0) {
        fail("provider %u: result %d", provider, result);
    }
    expect(output, wanted, length, provider, is_encrypt ? "random encryption" : "random decryption");
    expect(source, before, source_offset + (is_in_place ? 0 : length), provider, "untouched source");
    free_context(context);
    free(source);
    free(target);
    free(wanted);
    free(before);
}

struct thread_job {
    const void *context;
    const uint8_t *plaintext;
    const uint8_t *wanted;
    uint32_t provider;
};

static void *run_thread(void *argument) {
    const struct thread_job *job = argument;
    uint8_t target[16 * SECTOR];
    for (int i = 0; i < 50; i++) {
        ubi_xts_encrypt(job->context, 5, 16, job->plaintext, target);
        expect(target, job->wanted, sizeof(target), job->provider, "encryption by many threads");
        ubi_xts_decrypt(job->context, 5, 16, target, target);
        expect(target, job->plaintext, sizeof(target), job->provider, "decryption by many threads");
    }
    return NULL;
}

static void test_threads(uint32_t provider) {
    uint8_t key[UBI_XTS_KEY_SIZE];
    static uint8_t plaintext[16 * SECTOR];
    static uint8_t wanted[16 * SECTOR];
    random_bytes(key, sizeof(key));
    random_bytes(plaintext, sizeof(plaintext));
    reference(key, 5, 16, plaintext, wanted, 1);
    void *context = new_context(key, provider);
    struct thread_job job = {context, plaintext, wanted, provider};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, run_thread, &job);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    free_context(context);
}

int main(int count, char **arguments) {
    if (count < 3) {
        fail("usage: xts_test SEED CASES [PATH OF LIBISAL_CRYPTO]");
    }
    ubi_xts_portable_set((void *)ubi_ssl_xts_create, (void *)ubi_ssl_xts_run, (void *)ubi_ssl_xts_destroy);
    if (count > 3) {
        int32_t result = ubi_xts_isal_load(arguments[3]);
        if (result != 0 && result != -ENOTSUP) {
            fail("cannot load %s: %d", arguments[3], result);
        }
    }
    uint32_t cases = (uint32_t)strtoul(arguments[2], NULL, 10);
    for (uint32_t provider = UBI_XTS_VAES512; provider <= UBI_XTS_PORTABLE; provider++) {
        if (ubi_xts_probe(provider) != 0) {
            continue;
        }
        random_state = strtoull(arguments[1], NULL, 10);
        if (ubi_xts_self_test(provider) != 0) {
            fail("provider %u: self-test fails", provider);
        }
        test_ieee_vectors(provider);
        test_golden_vectors(provider);
        test_refusals(provider);
        for (uint32_t i = 0; i < cases; i++) {
            test_case(provider);
        }
        test_threads(provider);
        printf("provider %u: %u cases\n", provider, cases);
    }
    return 0;
}
