/*
 * io_uring, mechanism only: a ring is created by the worker that uses it (SINGLE_ISSUER), lives as long
 * as its descriptor and is closed by that worker after its last completion.
 */
#define _GNU_SOURCE
#include "uring.h"

#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(struct io_uring_params) == 120, "io_uring_params changed its size");
_Static_assert(sizeof(struct io_uring_sqe) == 64, "io_uring_sqe changed its size");
_Static_assert(sizeof(struct io_uring_cqe) == 16, "io_uring_cqe changed its size");

int32_t ubi_uring_setup(uint32_t entries, void *params) {
    return ubi_result(syscall(__NR_io_uring_setup, entries, params));
}

int32_t ubi_uring_enter(int32_t fd, uint32_t submit, uint32_t complete_min, uint32_t flags) {
    return ubi_result(syscall(__NR_io_uring_enter, fd, submit, complete_min, flags, NULL, 0));
}

int32_t ubi_uring_register(int32_t fd, uint32_t opcode, void *argument, uint32_t count) {
    return ubi_result(syscall(__NR_io_uring_register, fd, opcode, argument, count));
}
