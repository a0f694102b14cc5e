/*
 * Fuzzes the kernels of AES-256-XTS: every one that this machine has must say what libcrypto says, for any key, tweak,
 * length and place, in place or apart, in one call or in several; and must write nothing else.
 */
#include "../../../ffi/ssl/ssl.h"
#include "../../../ffi/xts.h"
#include "fuzz.h"

#include <openssl/evp.h>

#define SECTOR UBI_XTS_SECTOR_SIZE
#define SECTORS_MAX 70
#define MARGIN 128U
#define AREA (2 * SECTORS_MAX * SECTOR + 2 * MARGIN)

static uint8_t area[AREA];
static uint8_t before[AREA];
static uint8_t wanted[SECTORS_MAX * SECTOR];

static void reference(const uint8_t *key, const uint64_t *tweak, uint32_t count, const uint8_t *source, int is_encrypt) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    for (uint32_t i = 0; i < count; i++) {
        uint64_t halves[2] = {tweak[0], tweak[1] + i};
        uint8_t iv[16];
        int length = 0;
        memcpy(iv, halves, sizeof(iv));
        CHECK(EVP_CipherInit_ex(context, EVP_aes_256_xts(), NULL, key, iv, is_encrypt) == 1);
        CHECK(EVP_CipherUpdate(context, wanted + i * SECTOR, &length, source + i * SECTOR, SECTOR) == 1);
        CHECK(length == SECTOR);
    }
    EVP_CIPHER_CTX_free(context);
}

static int32_t cipher(const void *context, const uint64_t *tweak, uint32_t count, const uint8_t *source,
                      uint8_t *target, int is_encrypt, int by_sector) {
    if (by_sector && tweak[0] == 0 && tweak[1] < 1ULL << 52) {
        return is_encrypt ? ubi_xts_encrypt(context, (double)tweak[1], count, source, target)
                          : ubi_xts_decrypt(context, (double)tweak[1], count, source, target);
    }
    return is_encrypt ? ubi_xts_encrypt_tweak(context, tweak, count, source, target)
                      : ubi_xts_decrypt_tweak(context, tweak, count, source, target);
}

struct job {
    uint8_t key[UBI_XTS_KEY_SIZE];
    uint64_t tweak[2];
    uint32_t count;
    uint32_t first; /* sectors of the first of two calls */
    uint32_t source;
    uint32_t target;
    int is_encrypt;
    int by_sector;
};

static void run(const struct job *job, void *context, uint32_t provider) {
    if (ubi_xts_expand(context, job->key, provider) != 0) {
        return;
    }
    memcpy(area, before, AREA);
    uint32_t bytes = job->count * SECTOR;
    uint32_t apart = job->source > job->target ? job->source - job->target : job->target - job->source;
    if (apart != 0 && apart < bytes) {
        CHECK(cipher(context, job->tweak, job->count, area + job->source, area + job->target, job->is_encrypt,
                     job->by_sector) == -EINVAL);
        CHECK(memcmp(area, before, AREA) == 0);
        ubi_xts_wipe(context);
        return;
    }
    uint64_t rest[2] = {job->tweak[0], job->tweak[1] + job->first};
    uint32_t done = job->first * SECTOR;
    CHECK(cipher(context, job->tweak, job->first, area + job->source, area + job->target, job->is_encrypt,
                 job->by_sector) == 0);
    CHECK(cipher(context, rest, job->count - job->first, area + job->source + done, area + job->target + done,
                 job->is_encrypt, job->by_sector) == 0);
    CHECK(memcmp(area + job->target, wanted, bytes) == 0);
    CHECK(memcmp(area, before, job->target) == 0);
    CHECK(memcmp(area + job->target + bytes, before + job->target + bytes, AREA - job->target - bytes) == 0);
    ubi_xts_wipe(context);
    CHECK(cipher(context, job->tweak, 1, area, area, job->is_encrypt, 0) == -EBADF);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int is_started;
    static void *context;
    if (!is_started) {
        is_started = 1;
        CHECK(ubi_ssl_start() == 0);
        CHECK(ubi_xts_portable_set((void *)ubi_ssl_xts_create, (void *)ubi_ssl_xts_run,
                                   (void *)ubi_ssl_xts_destroy) == 0);
        context = aligned_alloc(64, (ubi_xts_context_size() + 63) / 64 * 64);
    }
    struct input input = {data, size};
    struct job job;
    uint8_t shape = take8(&input);
    job.is_encrypt = shape & 1;
    job.by_sector = shape & 2;
    job.count = take8(&input) % (SECTORS_MAX + 1);
    job.first = take8(&input) % (job.count + 1);
    job.source = MARGIN + take16(&input) % (SECTORS_MAX * SECTOR);
    job.target = (shape & 4) != 0 ? job.source : MARGIN + take16(&input) % (SECTORS_MAX * SECTOR);
    job.tweak[0] = (shape & 8) != 0 ? take64(&input) : 0;
    job.tweak[1] = take64(&input);
    uint64_t seed = take32(&input);
    take_bytes(&input, job.key, sizeof(job.key));
    if ((shape & 16) != 0) {
        fill_bytes(job.key, sizeof(job.key), seed + 1);
    }
    if (memcmp(job.key, job.key + 32, 32) == 0) {
        job.key[0] ^= 1; /* libcrypto refuses equal halves, and is what we compare with */
    }
    fill_bytes(before, AREA, seed);
    reference(job.key, job.tweak, job.count, before + job.source, job.is_encrypt);
    for (uint32_t provider = UBI_XTS_VAES512; provider <= UBI_XTS_PORTABLE; provider++) {
        if (ubi_xts_probe(provider) == 0) {
            run(&job, context, provider);
        }
    }
    CHECK(ubi_xts_probe(0) == -EINVAL && ubi_xts_expand(context, job.key, 6 + shape) == -EINVAL);
    CHECK(ubi_xts_encrypt(context, -1, 0, area, area) < 0);
    return 0;
}
