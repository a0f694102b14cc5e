/* File mechanism. The descriptor is opened, shared between workers and closed by TypeScript. */
#define _GNU_SOURCE
#include "file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000U
#endif

/* The two fields of struct statx that Debian 12's headers do not name yet, at their fixed offsets. */
#define STATX_OFFSET_DIO_MEMORY_ALIGN 0x98
#define STATX_OFFSET_DIO_OFFSET_ALIGN 0x9c

static uint32_t statx_field(const struct statx *info, size_t offset) {
    uint32_t value;
    memcpy(&value, (const char *)info + offset, sizeof(value));
    return value;
}

static int32_t probe_block_device(int32_t fd, struct ubi_file_geometry *geometry) {
    uint64_t size = 0;
    int logical = 0;
    unsigned physical = 0;
    unsigned optimal = 0;
    if (ioctl(fd, BLKGETSIZE64, &size) < 0 || ioctl(fd, BLKSSZGET, &logical) < 0 ||
        ioctl(fd, BLKPBSZGET, &physical) < 0) {
        return -errno;
    }
    if (ioctl(fd, BLKIOOPT, &optimal) < 0) {
        optimal = 0;
    }
    geometry->size = (double)size;
    geometry->is_block_device = 1;
    geometry->logical_block = logical;
    geometry->physical_block = physical;
    geometry->optimal_io = optimal;
    geometry->memory_align = logical > 512 ? logical : 512;
    geometry->direct_io = 1;
    geometry->discard_unit = physical > 4096 ? physical : 4096;
    return 0;
}

int32_t ubi_file_probe(int32_t fd, struct ubi_file_geometry *geometry) {
    struct statx info;
    memset(geometry, 0, sizeof(*geometry));
    memset(&info, 0, sizeof(info));
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_DIOALIGN, &info) < 0) {
        return -errno;
    }
    if (S_ISBLK(info.stx_mode)) {
        return probe_block_device(fd, geometry);
    }
    if (!S_ISREG(info.stx_mode)) {
        return -EINVAL;
    }
    uint32_t offset_align = 512;
    uint32_t memory_align = 4096;
    geometry->direct_io = 1;
    if ((info.stx_mask & STATX_DIOALIGN) != 0) {
        offset_align = statx_field(&info, STATX_OFFSET_DIO_OFFSET_ALIGN);
        memory_align = statx_field(&info, STATX_OFFSET_DIO_MEMORY_ALIGN);
        geometry->direct_io = offset_align != 0;
    }
    geometry->size = (double)info.stx_size;
    geometry->logical_block = offset_align < 512 ? 512 : offset_align;
    geometry->physical_block = info.stx_blksize > 4096 || info.stx_blksize < 512 ? 4096 : info.stx_blksize;
    geometry->memory_align = memory_align < 4 ? 4 : memory_align;
    geometry->discard_unit = info.stx_blksize;
    return 0;
}

int32_t ubi_file_make_blocking(int32_t fd) {
    int flags = fcntl(fd, F_GETFL);
    return ubi_result(flags < 0 ? flags : fcntl(fd, F_SETFL, flags & ~O_NONBLOCK));
}

int32_t ubi_file_retire(int32_t fd) {
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0) {
        return -errno;
    }
    int32_t result = ubi_result(dup3(null, fd, O_CLOEXEC));
    close(null);
    return result < 0 ? result : 0;
}

int32_t ubi_file_lock(int32_t fd, uint32_t exclusive) {
    return ubi_result(flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB));
}

int32_t ubi_file_mark(int32_t fd, double offset) {
    struct flock mark = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = 1};
    return ubi_result(fcntl(fd, F_SETLK, &mark));
}

int32_t ubi_file_unlock(int32_t fd) { return ubi_result(flock(fd, LOCK_UN)); }

int32_t ubi_file_read(int32_t fd, double offset, void *buffer, uint32_t length) {
    uint32_t done = 0;
    while (done < length) {
        ssize_t moved = pread(fd, (char *)buffer + done, length - done, (off_t)offset + done);
        if (moved == 0) {
            return -ENODATA;
        }
        if (moved < 0 && errno != EINTR) {
            return -errno;
        }
        done += moved < 0 ? 0 : (uint32_t)moved;
    }
    return 0;
}

int32_t ubi_file_write(int32_t fd, double offset, const void *buffer, uint32_t length, uint32_t durable) {
    uint32_t done = 0;
    while (done < length) {
        struct iovec rest = {.iov_base = (char *)buffer + done, .iov_len = length - done};
        ssize_t moved = pwritev2(fd, &rest, 1, (off_t)offset + done, durable ? RWF_DSYNC : 0);
        if (moved == 0) {
            return -EIO;
        }
        if (moved < 0 && errno != EINTR) {
            return -errno;
        }
        done += moved < 0 ? 0 : (uint32_t)moved;
    }
    return 0;
}

int32_t ubi_file_read_vector(int32_t fd, double offset, const void *vector, uint32_t count) {
    ssize_t moved;
    do {
        moved = preadv(fd, vector, (int)count, (off_t)offset);
    } while (moved < 0 && errno == EINTR);
    return ubi_result(moved);
}

int32_t ubi_file_write_vector(int32_t fd, double offset, const void *vector, uint32_t count, uint32_t durable) {
    ssize_t moved;
    do {
        moved = pwritev2(fd, vector, (int)count, (off_t)offset, durable ? RWF_DSYNC : 0);
    } while (moved < 0 && errno == EINTR);
    return ubi_result(moved);
}

int32_t ubi_file_datasync(int32_t fd) {
    int result;
    do {
        result = fdatasync(fd);
    } while (result < 0 && errno == EINTR);
    return ubi_result(result);
}

int32_t ubi_file_will_need(int32_t fd, double offset, double length) {
    return -posix_fadvise(fd, (off_t)offset, (off_t)length, POSIX_FADV_WILLNEED);
}

int32_t ubi_file_forget(int32_t fd, double offset, double length) {
    return -posix_fadvise(fd, (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
}

int32_t ubi_file_begin_writeback(int32_t fd, double offset, double length) {
    return ubi_result(sync_file_range(fd, (off_t)offset, (off_t)length, SYNC_FILE_RANGE_WRITE));
}

int32_t ubi_file_sync_filesystem(int32_t fd) { return ubi_result(syncfs(fd)); }

int32_t ubi_file_read_entries(int32_t fd, void *buffer, uint32_t length) {
    return ubi_result(syscall(SYS_getdents64, fd, buffer, length));
}

int32_t ubi_file_allocate(int32_t fd, uint32_t mode, double offset, double length) {
    int result;
    do {
        result = fallocate(fd, (int)mode, (off_t)offset, (off_t)length);
    } while (result < 0 && errno == EINTR);
    return ubi_result(result);
}
