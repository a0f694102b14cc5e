/* The disk's file: geometry, locks, synchronous I/O. Offsets and lengths are bytes below 2^53. */
#ifndef UBI_FILE_H
#define UBI_FILE_H

#include "ubi.h"

/* What `ubi_file_probe` fills: 8 doubles. */
struct ubi_file_geometry {
    double size;            /* bytes */
    double is_block_device; /* 0 or 1 */
    double logical_block;   /* smallest unit of direct I/O: offset and length, bytes */
    double physical_block;  /* bytes */
    double optimal_io;      /* bytes, 0 = not told */
    double memory_align;    /* of direct I/O buffers, bytes */
    double direct_io;       /* 1 when O_DIRECT is supported */
    double discard_unit;    /* bytes, granularity of freeing blocks; 0 = cannot */
};

int32_t ubi_file_probe(int32_t fd, struct ubi_file_geometry *geometry);

/* Clears O_NONBLOCK. */
int32_t ubi_file_make_blocking(int32_t fd);

/* Closes the file but keeps the descriptor's number taken: what still uses it meets an empty file. */
int32_t ubi_file_retire(int32_t fd);

/* flock(2) without waiting: 0, or -EAGAIN when another description holds it. */
int32_t ubi_file_lock(int32_t fd, uint32_t exclusive);
int32_t ubi_file_unlock(int32_t fd);
/* A shared record lock on one byte, which names this process in /proc/locks until it ends, or closes the file. */
int32_t ubi_file_mark(int32_t fd, double offset);

/* Whole transfers: continue after EINTR and short ones. 0 or -errno; -ENODATA at the end of the file. */
int32_t ubi_file_read(int32_t fd, double offset, void *buffer, uint32_t length);
int32_t ubi_file_write(int32_t fd, double offset, const void *buffer, uint32_t length, uint32_t durable);

/* One preadv/pwritev over `count` struct iovec: bytes moved or -errno. */
int32_t ubi_file_read_vector(int32_t fd, double offset, const void *vector, uint32_t count);
int32_t ubi_file_write_vector(int32_t fd, double offset, const void *vector, uint32_t count, uint32_t durable);

int32_t ubi_file_datasync(int32_t fd);

/* Lets the kernel read a range into the page cache meanwhile. */
int32_t ubi_file_will_need(int32_t fd, double offset, double length);

/* Lets the page cache drop a range, what is not on disk excepted; a length of 0 reaches to the end of the file. */
int32_t ubi_file_forget(int32_t fd, double offset, double length);

/* Lets the kernel write a range to disk meanwhile; a length of 0 reaches to the end of the file. */
int32_t ubi_file_begin_writeback(int32_t fd, double offset, double length);

/* syncfs(2): everything that was written to the file system of `fd`, by anybody. */
int32_t ubi_file_sync_filesystem(int32_t fd);

/* getdents64(2): the next entries of a folder, as the kernel packs them: bytes filled, 0 at the end. */
int32_t ubi_file_read_entries(int32_t fd, void *buffer, uint32_t length);

int32_t ubi_file_allocate(int32_t fd, uint32_t mode, double offset, double length);

#endif
