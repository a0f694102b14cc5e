/*
 * AES-256-XTS with VAES on 512-bit registers: a sector is eight registers in flight, the tweaks of
 * eight sectors are enciphered together. Without state of its own; any thread.
 *
 * Cost: 14 rounds over 8 registers = 112 cycles a sector where one 512-bit AES round starts each cycle;
 * the tweaks of eight sectors add 28 cycles. So 4 KiB take about 1000 cycles.
 */
#include "xts_wide.h"

#include <immintrin.h>

#define VAES __attribute__((target("aes,avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,pclmul")))
#define SECTOR_REGISTERS 8 /* of 64 bytes */
#define GROUP_REGISTERS 2 /* tweaks of a group: 8 blocks */

static int32_t probe(void) {
    __builtin_cpu_init();
    int has = __builtin_cpu_supports("aes") && __builtin_cpu_supports("vaes") &&
              __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("vpclmulqdq") &&
              __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return has ? 0 : -ENOTSUP;
}

VAES static inline __m512i round_key(const uint8_t *schedule, uint32_t round) {
    /* SAFETY: schedules lie on 64-byte boundaries of a context, whose alignment `expand` checks. */
    return _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(schedule + round * 16)));
}

/* `count` is a constant at every call, so that the registers stay registers. */
VAES static inline void add_key(__m512i *blocks, int count, __m512i key) {
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
        blocks[i] = _mm512_xor_si512(blocks[i], key);
    }
}

VAES static inline void add_round(__m512i *blocks, int count, __m512i key, int is_decrypt) {
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
        blocks[i] = is_decrypt ? _mm512_aesdec_epi128(blocks[i], key) : _mm512_aesenc_epi128(blocks[i], key);
    }
}

VAES static inline void add_last_round(__m512i *blocks, int count, __m512i key, int is_decrypt) {
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
        blocks[i] =
            is_decrypt ? _mm512_aesdeclast_epi128(blocks[i], key) : _mm512_aesenclast_epi128(blocks[i], key);
    }
}

/*
 * Each 128-bit lane times x^n in GF(2^128), n given per half: `carry` holds the n bits that leave each
 * half. Those of the lower half enter the upper one; those of the upper half return times 0x87.
 */
VAES static inline __m512i fold(__m512i shifted, __m512i carry) {
    __m512i reduced = _mm512_clmulepi64_epi128(carry, _mm512_set1_epi64(0x87), 0x01);
    return _mm512_ternarylogic_epi64(shifted, reduced, _mm512_bslli_epi128(carry, 8), 0x96); /* XOR of three */
}

/* Lane i of the result is `tweak` times x^i. */
VAES static inline __m512i first_tweaks(__m128i tweak) {
    const __m512i left = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
    const __m512i right = _mm512_set_epi64(61, 61, 62, 62, 63, 63, 64, 64); /* a shift by 64 gives 0 */
    __m512i lanes = _mm512_broadcast_i32x4(tweak);
    return fold(_mm512_sllv_epi64(lanes, left), _mm512_srlv_epi64(lanes, right));
}

VAES static inline __m512i times_x4(__m512i tweaks) {
    return fold(_mm512_slli_epi64(tweaks, 4), _mm512_srli_epi64(tweaks, 60));
}

VAES static inline __m512i times_x16(__m512i tweaks) {
    return fold(_mm512_slli_epi64(tweaks, 16), _mm512_srli_epi64(tweaks, 48));
}

/* Register `i` of a sector's eight tweak registers; those before it are there. */
VAES static inline void add_tweaks(__m512i *tweaks, uint32_t i, __m128i first) {
    if (i == 0) {
        tweaks[0] = first_tweaks(first);
    } else if (i < 4) {
        tweaks[i] = times_x4(tweaks[i - 1]);
    } else {
        tweaks[i] = times_x16(tweaks[i - 4]);
    }
}

/*
 * One sector with `tweaks`, which are then replaced by those of the next sector, whose first is `next`.
 * They are computed one register a round: together they would wait for each other while no round runs.
 */
VAES static inline void run_sector(const uint8_t *schedule, __m512i *tweaks, __m128i next,
                                   const uint8_t *source, uint8_t *target, enum mode mode) {
    const int is_decrypt = mode == MODE_DECRYPT;
    __m512i blocks[SECTOR_REGISTERS];
    __m512i next_tweaks[SECTOR_REGISTERS];
    schedule = reload(schedule);
#pragma GCC unroll 8
    for (int i = 0; i < SECTOR_REGISTERS; i++) {
        blocks[i] = _mm512_xor_si512(_mm512_loadu_si512(source + i * 64), tweaks[i]);
    }
    add_key(blocks, SECTOR_REGISTERS, round_key(schedule, 0));
#pragma GCC unroll 16
    for (uint32_t round = 1; round < XTS_ROUND_KEYS - 1; round++) {
        add_round(blocks, SECTOR_REGISTERS, round_key(schedule, round), is_decrypt);
        if (round > 1 && round <= 1 + SECTOR_REGISTERS) {
            add_tweaks(next_tweaks, round - 2, next);
        }
    }
    add_last_round(blocks, SECTOR_REGISTERS, round_key(schedule, XTS_ROUND_KEYS - 1), is_decrypt);
#pragma GCC unroll 8
    for (int i = 0; i < SECTOR_REGISTERS; i++) {
        __m512i result = _mm512_xor_si512(blocks[i], tweaks[i]);
        if (mode == MODE_ENCRYPT_STREAM) {
            /* SAFETY: `may_stream` checked that the target lies on a multiple of 64. */
            _mm512_stream_si512((__m512i *)(target + i * 64), result);
        } else {
            _mm512_storeu_si512(target + i * 64, result);
        }
        tweaks[i] = next_tweaks[i];
    }
}

/* The enciphered tweaks of eight sectors from `high` on. */
VAES static inline void group_tweaks(const uint8_t *schedule, uint64_t low, uint64_t high, __m128i *tweaks) {
    const __m512i first = _mm512_set_epi64(3, 0, 2, 0, 1, 0, 0, 0);
    const __m512i second = _mm512_set_epi64(7, 0, 6, 0, 5, 0, 4, 0);
    __m512i base = _mm512_broadcast_i32x4(_mm_set_epi64x((long long)high, (long long)low));
    __m512i blocks[GROUP_REGISTERS] = {_mm512_add_epi64(base, first), _mm512_add_epi64(base, second)};
    add_key(blocks, GROUP_REGISTERS, round_key(schedule, 0));
#pragma GCC unroll 16
    for (uint32_t round = 1; round < XTS_ROUND_KEYS - 1; round++) {
        add_round(blocks, GROUP_REGISTERS, round_key(schedule, round), 0);
    }
    add_last_round(blocks, GROUP_REGISTERS, round_key(schedule, XTS_ROUND_KEYS - 1), 0);
    _mm512_storeu_si512(tweaks, blocks[0]);
    _mm512_storeu_si512(tweaks + 4, blocks[1]);
}

VAES static inline void run(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                            const uint8_t *source, uint8_t *target, enum mode mode, int is_large) {
    const uint8_t *schedule = mode == MODE_DECRYPT ? context->data_decrypt : context->data_encrypt;
    while (count > 0) {
        uint32_t group = count < GROUP_SECTORS ? count : GROUP_SECTORS;
        __m128i firsts[GROUP_SECTORS];
        __m512i tweaks[SECTOR_REGISTERS];
        group_tweaks(context->tweak_encrypt, low, high, firsts);
#pragma GCC unroll 8
        for (uint32_t i = 0; i < SECTOR_REGISTERS; i++) {
            add_tweaks(tweaks, i, firsts[0]);
        }
        for (uint32_t i = 0; i < group; i++) {
            if (is_large) {
                prefetch_sector(source + PREFETCH_BYTES);
                if (mode != MODE_ENCRYPT_STREAM) {
                    prefetch_sector(target + PREFETCH_BYTES);
                }
            }
            run_sector(schedule, tweaks, firsts[(i + 1) % GROUP_SECTORS], source, target, mode);
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
    if (count >= STREAM_SECTORS_MIN) {
        run(context, low, high, count, source, target, MODE_DECRYPT, 1);
    } else {
        run(context, low, high, count, source, target, MODE_DECRYPT, 0);
    }
    return 0;
}

const struct xts_kernel xts_kernel_vaes512 = {
    .probe = probe, .expand = xts_aesni_expand, .encrypt = encrypt, .decrypt = decrypt};
