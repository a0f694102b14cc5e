/*
 * io_uring, mechanism only: a ring is created by the worker that uses it (SINGLE_ISSUER), lives as long
 * as its descriptor and is closed by that worker after its last completion.
 */
#define _GNU_SOURCE
#include "uring.h"

#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's headers predate min_wait_usec: the field took the place of `pad` in kernel 6.12. */
struct getevents_argument {
    uint64_t sigmask;
    uint32_t sigmask_size;
    uint32_t wait_min_us;
    uint64_t timespec;
};

_Static_assert(sizeof(struct getevents_argument) == sizeof(struct io_uring_getevents_arg),
               "io_uring_getevents_arg changed its size");
_Static_assert(sizeof(struct io_uring_params) == 120, "io_uring_params changed its size");
_Static_assert(sizeof(struct io_uring_sqe) == 64, "io_uring_sqe changed its size");
_Static_assert(sizeof(struct io_uring_cqe) == 16, "io_uring_cqe changed its size");

int32_t ubi_uring_setup(uint32_t entries, void *params) {
    return ubi_result(syscall(__NR_io_uring_setup, entries, params));
}

int32_t ubi_uring_enter(int32_t fd, uint32_t submit, uint32_t complete_min, uint32_t flags) {
    return ubi_result(syscall(__NR_io_uring_enter, fd, submit, complete_min, flags, NULL, 0));
}

int32_t ubi_uring_enter_timed(int32_t fd, uint32_t submit, uint32_t complete_min, uint32_t flags,
                              uint32_t timeout_us, uint32_t wait_min_us) {
    struct __kernel_timespec timeout = {
        .tv_sec = timeout_us / 1000000,
        .tv_nsec = (long long)(timeout_us % 1000000) * 1000,
    };
    struct getevents_argument argument = {
        .wait_min_us = wait_min_us,
        .timespec = timeout_us == 0 ? 0 : (uint64_t)(uintptr_t)&timeout,
    };
    return ubi_result(syscall(__NR_io_uring_enter, fd, submit, complete_min,
                              flags | IORING_ENTER_EXT_ARG, &argument, sizeof(argument)));
}

int32_t ubi_uring_register(int32_t fd, uint32_t opcode, void *argument, uint32_t count) {
    return ubi_result(syscall(__NR_io_uring_register, fd, opcode, argument, count));
}
