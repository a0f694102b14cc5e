/*
 * AES-256-XTS with VAES on 256-bit registers, for CPUs that have VAES without AVX-512: half a sector is eight
 * registers in flight, the tweaks of eight sectors are enciphered together. Without state of its own; any thread.
 *
 * Cost: 14 rounds over 8 registers = 56 cycles for half a sector where two 256-bit AES rounds start each cycle; the
 * tweaks of eight sectors add 28 cycles. So 4 KiB take about 930 cycles.
 */
#include "xts_wide.h"

#include <immintrin.h>

#define VAES __attribute__((target("aes,avx2,vaes,vpclmulqdq,pclmul")))
#define INLINED __attribute__((always_inline))
#define HALF_REGISTERS 8 /* of 32 bytes: half a sector */
#define HALF_BYTES (HALF_REGISTERS * 32)
#define GROUP_REGISTERS 4 /* tweaks of a group: 8 blocks */

static int32_t probe(void) {
    __builtin_cpu_init();
    int has = __builtin_cpu_supports("aes") && __builtin_cpu_supports("vaes") &&
              __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("vpclmulqdq") &&
              __builtin_cpu_supports("avx2");
    return has ? 0 : -ENOTSUP;
}

VAES static inline __m256i round_key(const uint8_t *schedule, uint32_t round) {
    /* SAFETY: schedules lie on 64-byte boundaries of a context, whose alignment `expand` checks. */
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(schedule + round * 16)));
}

/* `count` is a constant at every call, so that the registers stay registers. */
VAES static inline void add_key(__m256i *blocks, int count, __m256i key) {
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
        blocks[i] = _mm256_xor_si256(blocks[i], key);
    }
}

VAES static inline void add_round(__m256i *blocks, int count, __m256i key, int is_decrypt) {
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
        blocks[i] = is_decrypt ? _mm256_aesdec_epi128(blocks[i], key) : _mm256_aesenc_epi128(blocks[i], key);
    }
}

/*
 * Each 128-bit lane times x^n in GF(2^128), n given per half: `carry` holds the n bits that leave each
 * half. Those of the lower half enter the upper one; those of the upper half return times 0x87.
 */
VAES static inline __m256i fold(__m256i shifted, __m256i carry) {
    __m256i reduced = _mm256_clmulepi64_epi128(carry, _mm256_set1_epi64x(0x87), 0x01);
    return _mm256_xor_si256(_mm256_xor_si256(shifted, reduced), _mm256_bslli_epi128(carry, 8));
}

/* Lane i of the result is `tweak` times x^i. */
VAES static inline __m256i first_tweaks(__m128i tweak) {
    const __m256i left = _mm256_set_epi64x(1, 1, 0, 0);
    const __m256i right = _mm256_set_epi64x(63, 63, 64, 64); /* a shift by 64 gives 0 */
    __m256i lanes = _mm256_broadcastsi128_si256(tweak);
    return fold(_mm256_sllv_epi64(lanes, left), _mm256_srlv_epi64(lanes, right));
}

/* `power` is a constant at every call. */
VAES static inline __m256i times_x(__m256i tweaks, int power) {
    return fold(_mm256_slli_epi64(tweaks, power), _mm256_srli_epi64(tweaks, 64 - power));
}

/* Times x^(8 * bytes), with fewer steps: whole bytes move across the halves. `bytes` is a constant at every call. */
#define TIMES_X_BYTES(tweaks, bytes)                                                                           \
    _mm256_xor_si256(_mm256_bslli_epi128(tweaks, bytes),                                                       \
                     _mm256_clmulepi64_epi128(_mm256_bsrli_epi128(tweaks, 16 - (bytes)),                       \
                                              _mm256_set1_epi64x(0x87), 0x00))

/* Register `i` of the tweaks of a sector's first half; those before it are there. */
VAES static inline __m256i sector_tweaks(const __m256i *tweaks, uint32_t i, __m128i first) {
    if (i == 0) {
        return first_tweaks(first);
    }
    return i == 1 ? times_x(tweaks[0], 2) : i < 4 ? times_x(tweaks[i - 2], 4) : TIMES_X_BYTES(tweaks[i - 4], 1);
}

/*
 * Half a sector with `tweaks`. `next_tweaks` become those of the next half: of the same sector's second one, or where
 * `next` is given of the sector whose first tweak that is. They are computed one register a round: together they would
 * wait for each other while no round runs. As a call it would test `next` each round.
 */
VAES INLINED static inline void run_half(const uint8_t *schedule, const __m256i *tweaks, __m256i *next_tweaks,
                                         const __m128i *next, const uint8_t *source, uint8_t *target,
                                         enum mode mode) {
    const int is_decrypt = mode == MODE_DECRYPT;
    __m256i blocks[HALF_REGISTERS];
    schedule = reload(schedule);
#pragma GCC unroll 8
    for (int i = 0; i < HALF_REGISTERS; i++) {
        blocks[i] = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(source + i * 32)), tweaks[i]);
    }
    add_key(blocks, HALF_REGISTERS, round_key(schedule, 0));
#pragma GCC unroll 16
    for (uint32_t round = 1; round < XTS_ROUND_KEYS - 1; round++) {
        add_round(blocks, HALF_REGISTERS, round_key(schedule, round), is_decrypt);
        if (round > 1 && round <= 1 + HALF_REGISTERS) {
            uint32_t i = round - 2;
            next_tweaks[i] = next == NULL ? TIMES_X_BYTES(tweaks[i], 2) : sector_tweaks(next_tweaks, i, *next);
        }
    }
    const __m256i last = round_key(schedule, XTS_ROUND_KEYS - 1);
#pragma GCC unroll 8
    for (int i = 0; i < HALF_REGISTERS; i++) {
        const __m256i key = _mm256_xor_si256(last, tweaks[i]); /* the last round XORs both at once */
        const __m256i result = is_decrypt ? _mm256_aesdeclast_epi128(blocks[i], key)
                                          : _mm256_aesenclast_epi128(blocks[i], key);
        if (mode == MODE_ENCRYPT_STREAM) {
            /* SAFETY: `may_stream` checked that the target lies on a multiple of 64. */
            _mm256_stream_si256((__m256i *)(target + i * 32), result);
        } else {
            _mm256_storeu_si256((__m256i *)(target + i * 32), result);
        }
    }
}

/* The enciphered tweaks of eight sectors from `high` on. */
VAES static inline void group_tweaks(const uint8_t *schedule, uint64_t low, uint64_t high, __m128i *tweaks) {
    __m256i blocks[GROUP_REGISTERS];
#pragma GCC unroll 4
    for (int i = 0; i < GROUP_REGISTERS; i++) {
        uint64_t sector = high + 2 * (uint64_t)i;
        blocks[i] = _mm256_set_epi64x((long long)(sector + 1), (long long)low, (long long)sector, (long long)low);
    }
    add_key(blocks, GROUP_REGISTERS, round_key(schedule, 0));
#pragma GCC unroll 16
    for (uint32_t round = 1; round < XTS_ROUND_KEYS - 1; round++) {
        add_round(blocks, GROUP_REGISTERS, round_key(schedule, round), 0);
    }
    const __m256i last = round_key(schedule, XTS_ROUND_KEYS - 1);
#pragma GCC unroll 4
    for (int i = 0; i < GROUP_REGISTERS; i++) {
        _mm256_storeu_si256((__m256i *)(tweaks + 2 * i), _mm256_aesenclast_epi128(blocks[i], last));
    }
}

VAES static inline void run(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                            const uint8_t *source, uint8_t *target, enum mode mode, int is_large) {
    const uint8_t *schedule = mode == MODE_DECRYPT ? context->data_decrypt : context->data_encrypt;
    while (count > 0) {
        uint32_t group = count < GROUP_SECTORS ? count : GROUP_SECTORS;
        __m128i firsts[GROUP_SECTORS];
        __m256i tweaks[HALF_REGISTERS];
        __m256i second_tweaks[HALF_REGISTERS];
        group_tweaks(context->tweak_encrypt, low, high, firsts);
#pragma GCC unroll 8
        for (uint32_t i = 0; i < HALF_REGISTERS; i++) {
            tweaks[i] = sector_tweaks(tweaks, i, firsts[0]);
        }
        for (uint32_t i = 0; i < group; i++) {
            if (is_large) {
                prefetch_sector(source + PREFETCH_BYTES);
                if (mode != MODE_ENCRYPT_STREAM) {
                    prefetch_sector(target + PREFETCH_BYTES);
                }
            }
            const __m128i *next = &firsts[(i + 1) % GROUP_SECTORS];
            run_half(schedule, tweaks, second_tweaks, NULL, source, target, mode);
            run_half(schedule, second_tweaks, tweaks, next, source + HALF_BYTES, target + HALF_BYTES, mode);
            source += UBI_XTS_SECTOR_SIZE;
            target += UBI_XTS_SECTOR_SIZE;
        }
        high += group;
        count -= group;
    }
}

VAES static int32_t encrypt(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                            const uint8_t *source, uint8_t *target) {
    if (may_stream(count, source, target)) {
        run(context, low, high, count, source, target, MODE_ENCRYPT_STREAM, 1);
        _mm_sfence(); /* streamed stores are seen by the device before its order to read them */
    } else {
        run(context, low, high, count, source, target, MODE_ENCRYPT, 0);
    }
    return 0;
}

VAES static int32_t decrypt(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                            const uint8_t *source, uint8_t *target) {
    run(context, low, high, count, source, target, MODE_DECRYPT, count >= STREAM_SECTORS_MIN);
    return 0;
}

const struct xts_kernel xts_kernel_vaes256 = {
    .probe = probe, .expand = xts_aesni_expand, .encrypt = encrypt, .decrypt = decrypt};
