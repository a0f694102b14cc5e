/*
 * AES-256-XTS with AES-NI: eight blocks in flight, the tweaks of eight sectors enciphered together.
 * Without state of its own; any thread.
 */
#include "xts_kernel.h"

#include <string.h>
#include <wmmintrin.h>

#define AESNI __attribute__((target("aes,sse2")))
#define LANES 8
#define SECTOR_BLOCKS (UBI_XTS_SECTOR_SIZE / 16)

static int32_t probe(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("aes") ? 0 : -ENOTSUP;
}

/* One step of the schedule: each word of `key` XORed with all words before it, and with `assist`. */
AESNI static inline __m128i mix(__m128i key, __m128i assist) {
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, assist);
}

/* FIPS 197, section 5.2, for 256-bit keys. The round constant is an immediate operand, hence a macro. */
#define EVEN_KEY(i, constant)                                                                                  \
    keys[i] = mix(keys[(i) - 2], _mm_shuffle_epi32(_mm_aeskeygenassist_si128(keys[(i) - 1], constant), 0xff))
#define ODD_KEY(i)                                                                                             \
    keys[i] = mix(keys[(i) - 2], _mm_shuffle_epi32(_mm_aeskeygenassist_si128(keys[(i) - 1], 0), 0xaa))

AESNI static void expand_key(const uint8_t *key, uint8_t *schedule) {
    __m128i keys[XTS_ROUND_KEYS];
    keys[0] = _mm_loadu_si128((const __m128i *)key);
    keys[1] = _mm_loadu_si128((const __m128i *)(key + 16));
    EVEN_KEY(2, 0x01);
    ODD_KEY(3);
    EVEN_KEY(4, 0x02);
    ODD_KEY(5);
    EVEN_KEY(6, 0x04);
    ODD_KEY(7);
    EVEN_KEY(8, 0x08);
    ODD_KEY(9);
    EVEN_KEY(10, 0x10);
    ODD_KEY(11);
    EVEN_KEY(12, 0x20);
    ODD_KEY(13);
    EVEN_KEY(14, 0x40);
    memcpy(schedule, keys, XTS_SCHEDULE_SIZE);
    explicit_bzero(keys, sizeof(keys));
}

/* FIPS 197, section 5.3.5: reversed, the inner keys through InvMixColumns. */
AESNI static void invert_schedule(const uint8_t *encrypt, uint8_t *decrypt) {
    for (uint32_t i = 0; i < XTS_ROUND_KEYS; i++) {
        __m128i key = _mm_loadu_si128((const __m128i *)(encrypt + (XTS_ROUND_KEYS - 1 - i) * 16));
        if (i > 0 && i < XTS_ROUND_KEYS - 1) {
            key = _mm_aesimc_si128(key);
        }
        _mm_storeu_si128((__m128i *)(decrypt + i * 16), key);
    }
}

int32_t xts_aesni_expand(struct xts_context *context, const uint8_t *key) {
    expand_key(key, context->data_encrypt);
    expand_key(key + 32, context->tweak_encrypt);
    invert_schedule(context->data_encrypt, context->data_decrypt);
    return 0;
}

AESNI static inline __m128i round_key(const uint8_t *schedule, uint32_t round) {
    /* SAFETY: schedules lie on 64-byte boundaries of a context, whose alignment `expand` checks. */
    return _mm_load_si128((const __m128i *)(schedule + round * 16));
}

AESNI static inline void cipher(__m128i blocks[LANES], const uint8_t *schedule, int is_decrypt) {
    __m128i key = round_key(schedule, 0);
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i++) {
        blocks[i] = _mm_xor_si128(blocks[i], key);
    }
#pragma GCC unroll 16
    for (uint32_t round = 1; round < XTS_ROUND_KEYS - 1; round++) {
        key = round_key(schedule, round);
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++) {
            blocks[i] = is_decrypt ? _mm_aesdec_si128(blocks[i], key) : _mm_aesenc_si128(blocks[i], key);
        }
    }
    key = round_key(schedule, XTS_ROUND_KEYS - 1);
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i++) {
        blocks[i] = is_decrypt ? _mm_aesdeclast_si128(blocks[i], key) : _mm_aesenclast_si128(blocks[i], key);
    }
}

/* Tweak times x in GF(2^128), IEEE 1619 section 5.2: the bit shifted out returns as 0x87. */
AESNI static inline __m128i times_x(__m128i tweak) {
    const __m128i carries = _mm_set_epi32(0, 1, 0, 0x87); /* into the upper half, into the lowest byte */
    /* Words 3 and 1 hold the bits that leave the halves: spread their signs to words 0 and 2. */
    __m128i signs = _mm_srai_epi32(_mm_shuffle_epi32(tweak, _MM_SHUFFLE(0, 1, 0, 3)), 31);
    return _mm_xor_si128(_mm_add_epi64(tweak, tweak), _mm_and_si128(signs, carries));
}

AESNI static inline void run_sector(const uint8_t *schedule, __m128i tweak, const uint8_t *source,
                                    uint8_t *target, int is_decrypt) {
    for (int block = 0; block < SECTOR_BLOCKS; block += LANES) {
        __m128i blocks[LANES];
        __m128i tweaks[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++) {
            tweaks[i] = tweak;
            tweak = times_x(tweak);
            __m128i input = _mm_loadu_si128((const __m128i *)(source + (block + i) * 16));
            blocks[i] = _mm_xor_si128(input, tweaks[i]);
        }
        cipher(blocks, schedule, is_decrypt);
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++) {
            __m128i output = _mm_xor_si128(blocks[i], tweaks[i]);
            _mm_storeu_si128((__m128i *)(target + (block + i) * 16), output);
        }
    }
}

AESNI static inline void run(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                             const uint8_t *source, uint8_t *target, int is_decrypt) {
    const uint8_t *schedule = is_decrypt ? context->data_decrypt : context->data_encrypt;
    while (count > 0) {
        uint32_t group = count < LANES ? count : LANES;
        __m128i tweaks[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++) {
            tweaks[i] = _mm_set_epi64x((long long)(high + (uint64_t)i), (long long)low);
        }
        cipher(tweaks, context->tweak_encrypt, 0);
        for (uint32_t i = 0; i < group; i++) {
            run_sector(schedule, tweaks[i], source, target, is_decrypt);
            source += UBI_XTS_SECTOR_SIZE;
            target += UBI_XTS_SECTOR_SIZE;
        }
        high += group;
        count -= group;
    }
}

AESNI static int32_t encrypt(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                             const uint8_t *source, uint8_t *target) {
    run(context, low, high, count, source, target, 0);
    return 0;
}

AESNI static int32_t decrypt(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                             const uint8_t *source, uint8_t *target) {
    run(context, low, high, count, source, target, 1);
    return 0;
}

const struct xts_kernel xts_kernel_aesni = {
    .probe = probe, .expand = xts_aesni_expand, .encrypt = encrypt, .decrypt = decrypt};
