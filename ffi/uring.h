/* io_uring system calls. See io_uring_setup(2), io_uring_enter(2), io_uring_register(2). */
#ifndef UBI_URING_H
#define UBI_URING_H

#include "ubi.h"

/* `params` is a struct io_uring_params (120 bytes), read and filled. Returns a descriptor. */
int32_t ubi_uring_setup(uint32_t entries, void *params);

/* Returns the number of entries taken, or -errno. */
int32_t ubi_uring_enter(int32_t fd, uint32_t submit, uint32_t complete_min, uint32_t flags);

/*
 * Like enter, but wakes after `timeout_us` at the latest (0 = no limit) and, once `wait_min_us` have
 * passed, is content with one completion (0 = off; kernel 6.12 and later).
 */
int32_t ubi_uring_enter_timed(int32_t fd, uint32_t submit, uint32_t complete_min, uint32_t flags,
                              uint32_t timeout_us, uint32_t wait_min_us);

int32_t ubi_uring_register(int32_t fd, uint32_t opcode, void *argument, uint32_t count);

#endif
