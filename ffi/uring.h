/* io_uring system calls. See io_uring_setup(2), io_uring_enter(2), io_uring_register(2). */
#ifndef UBI_URING_H
#define UBI_URING_H

#include "ubi.h"

/* `params` is a struct io_uring_params (120 bytes), read and filled. Returns a descriptor. */
int32_t ubi_uring_setup(uint32_t entries, void *params);

/* Returns the number of entries taken, or -errno. */
int32_t ubi_uring_enter(int32_t fd, uint32_t submit, uint32_t complete_min, uint32_t flags);

int32_t ubi_uring_register(int32_t fd, uint32_t opcode, void *argument, uint32_t count);

#endif
