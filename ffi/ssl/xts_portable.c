/*
 * AES-256-XTS on OpenSSL's AES-256 block cipher, whose code without AES instructions works in constant
 * time (vector permutations). OpenSSL's own XTS is not used: it refuses keys of two equal halves.
 *
 * A state has several sets of OpenSSL contexts, since one serves one thread at a time. A thread takes
 * any free set for a call; keys go with `destroy`, which OpenSSL does by wiping.
 */
#include "ssl.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#define SETS 8 /* threads at a time without waiting */
#define SECTOR_SIZE 512
#define BLOCK_SIZE 16
#define SECTOR_BLOCKS (SECTOR_SIZE / BLOCK_SIZE)
#define GROUP_SECTORS 8 /* a call into OpenSSL costs: its price is shared by this many sectors */

struct block {
    uint64_t low;
    uint64_t high;
};

struct set {
    atomic_flag is_taken;
    EVP_CIPHER_CTX *tweak_encrypt;
    EVP_CIPHER_CTX *data_encrypt;
    EVP_CIPHER_CTX *data_decrypt;
};

struct state {
    struct set sets[SETS];
};

/* Wiped after each call. Results are put together here, so that the target sees nothing else. */
struct work {
    struct block tweaks[GROUP_SECTORS];
    struct block masks[GROUP_SECTORS * SECTOR_BLOCKS];
    struct block blocks[GROUP_SECTORS * SECTOR_BLOCKS];
};

static EVP_CIPHER_CTX *new_context(const EVP_CIPHER *cipher, const uint8_t *key, int is_encrypt) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context == NULL || EVP_CipherInit_ex2(context, cipher, key, NULL, is_encrypt, NULL) != 1 ||
        EVP_CIPHER_CTX_set_padding(context, 0) != 1) {
        EVP_CIPHER_CTX_free(context);
        return NULL;
    }
    return context;
}

void *ubi_ssl_xts_create(const uint8_t *key) {
    struct state *state = OPENSSL_zalloc(sizeof(*state));
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
    int is_whole = state != NULL && cipher != NULL;
    for (int i = 0; is_whole && i < SETS; i++) {
        struct set *set = &state->sets[i];
        atomic_flag_clear(&set->is_taken);
        set->data_encrypt = new_context(cipher, key, 1);
        set->data_decrypt = new_context(cipher, key, 0);
        set->tweak_encrypt = new_context(cipher, key + 32, 1);
        is_whole = set->data_encrypt != NULL && set->data_decrypt != NULL && set->tweak_encrypt != NULL;
    }
    EVP_CIPHER_free(cipher);
    if (!is_whole) {
        ubi_ssl_xts_destroy(state);
        return NULL;
    }
    return state;
}

void ubi_ssl_xts_destroy(void *memory) {
    struct state *state = memory;
    for (int i = 0; state != NULL && i < SETS; i++) {
        EVP_CIPHER_CTX_free(state->sets[i].data_encrypt);
        EVP_CIPHER_CTX_free(state->sets[i].data_decrypt);
        EVP_CIPHER_CTX_free(state->sets[i].tweak_encrypt);
    }
    OPENSSL_free(state);
}

static struct set *take_set(struct state *state) {
    for (uint32_t i = 0;; i++) {
        struct set *set = &state->sets[i % SETS];
        if (!atomic_flag_test_and_set_explicit(&set->is_taken, memory_order_acquire)) {
            return set;
        }
        if (i % SETS == SETS - 1) {
            sched_yield(); /* each holder is at work on one request, and never waits for us */
        }
    }
}

static int32_t cipher_blocks(EVP_CIPHER_CTX *context, struct block *blocks, uint32_t count) {
    int length = 0;
    int wanted = (int)(count * BLOCK_SIZE);
    uint8_t *bytes = (uint8_t *)blocks;
    return EVP_CipherUpdate(context, bytes, &length, bytes, wanted) == 1 && length == wanted ? 0 : -EIO;
}

/* Times x in GF(2^128), IEEE 1619 section 5.2, without a branch on the secret tweak. */
static struct block times_x(struct block tweak) {
    uint64_t carry = tweak.high >> 63;
    return (struct block){
        .low = (tweak.low << 1) ^ (0x87 & (0 - carry)),
        .high = (tweak.high << 1) | (tweak.low >> 63),
    };
}

static int32_t run_group(struct set *set, struct work *work, uint64_t low, uint64_t high, uint32_t count,
                         const uint8_t *source, uint8_t *target, int is_decrypt) {
    uint32_t block_count = count * SECTOR_BLOCKS;
    for (uint32_t i = 0; i < count; i++) {
        work->tweaks[i] = (struct block){low, high + i};
    }
    if (cipher_blocks(set->tweak_encrypt, work->tweaks, count) < 0) {
        return -EIO;
    }
    memcpy(work->blocks, source, (size_t)count * SECTOR_SIZE);
    for (uint32_t i = 0; i < block_count; i++) {
        work->masks[i] = i % SECTOR_BLOCKS == 0 ? work->tweaks[i / SECTOR_BLOCKS] : times_x(work->masks[i - 1]);
        work->blocks[i].low ^= work->masks[i].low;
        work->blocks[i].high ^= work->masks[i].high;
    }
    EVP_CIPHER_CTX *context = is_decrypt ? set->data_decrypt : set->data_encrypt;
    if (cipher_blocks(context, work->blocks, block_count) < 0) {
        return -EIO;
    }
    for (uint32_t i = 0; i < block_count; i++) {
        work->blocks[i].low ^= work->masks[i].low;
        work->blocks[i].high ^= work->masks[i].high;
    }
    memcpy(target, work->blocks, (size_t)count * SECTOR_SIZE);
    return 0;
}

int32_t ubi_ssl_xts_run(void *memory, uint64_t low, uint64_t high, uint32_t count, const uint8_t *source,
                        uint8_t *target, int is_decrypt) {
    struct set *set = take_set(memory);
    struct work work;
    int32_t result = 0;
    while (count > 0 && result == 0) {
        uint32_t group = count < GROUP_SECTORS ? count : GROUP_SECTORS;
        result = run_group(set, &work, low, high, group, source, target, is_decrypt);
        source += (size_t)group * SECTOR_SIZE;
        target += (size_t)group * SECTOR_SIZE;
        high += group;
        count -= group;
    }
    OPENSSL_cleanse(&work, sizeof(work));
    atomic_flag_clear_explicit(&set->is_taken, memory_order_release);
    return result;
}
