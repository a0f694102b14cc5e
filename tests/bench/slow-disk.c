/*
 * A file system that passes a folder through and is slow in a known way: flushes take their time and never
 * overlap, also those of different files; reads take theirs and may overlap. For measuring what waits for a disk.
 *
 *   slow-disk FOLDER MOUNT FLUSH_MS READ_MS
 *
 * runs in the foreground until SIGTERM, then unmounts. Only what a disk's files need is there; what is missing
 * fails with ENOSYS. Needs /dev/fuse and the right to mount; uses libfuse 3.12 or later.
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* As many requests may wait at once as a front end has in flight, and some. */
#define THREADS_MAX 256

static int folder;
static long flush_ms;
static long read_ms;
static pthread_mutex_t flush_lock = PTHREAD_MUTEX_INITIALIZER;

static int outcome(int result) { return result < 0 ? -errno : 0; }

/* "/a" -> "a", "/" -> "." */
static const char *inside(const char *path) { return path[1] == '\0' ? "." : path + 1; }

static void pause_ms(long ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (ms > 0 && clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
    }
}

static void *set_up(struct fuse_conn_info *connection, struct fuse_config *config)
{
    connection->max_background = THREADS_MAX;
    connection->congestion_threshold = THREADS_MAX;
    config->use_ino = 1;
    config->attr_timeout = 0;
    return NULL;
}

static int slow_getattr(const char *path, struct stat *info, struct fuse_file_info *file)
{
    if (file != NULL)
        return outcome(fstat((int)file->fh, info));
    return outcome(fstatat(folder, inside(path), info, AT_SYMLINK_NOFOLLOW));
}

static int slow_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                        struct fuse_file_info *file, enum fuse_readdir_flags flags)
{
    (void)offset, (void)file, (void)flags;
    int fd = openat(folder, inside(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (entries == NULL) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return -error;
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        fill(buffer, entry->d_name, NULL, 0, 0);
    closedir(entries);
    return 0;
}

/* Direct I/O ends here: the folder may be where there is none. */
static int open_file(const char *path, int flags, mode_t mode, struct fuse_file_info *file)
{
    int fd = openat(folder, inside(path), (flags & ~O_DIRECT) | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    file->fh = (uint64_t)fd;
    return 0;
}

static int slow_create(const char *path, mode_t mode, struct fuse_file_info *file)
{
    return open_file(path, file->flags | O_CREAT, mode, file);
}

static int slow_open(const char *path, struct fuse_file_info *file)
{
    return open_file(path, file->flags, 0, file);
}

static int slow_release(const char *path, struct fuse_file_info *file)
{
    (void)path;
    return outcome(close((int)file->fh));
}

static int slow_read(const char *path, char *buffer, size_t length, off_t offset,
                     struct fuse_file_info *file)
{
    (void)path;
    pause_ms(read_ms);
    ssize_t moved = pread((int)file->fh, buffer, length, offset);
    return moved < 0 ? -errno : (int)moved;
}

static int slow_write(const char *path, const char *buffer, size_t length, off_t offset,
                      struct fuse_file_info *file)
{
    (void)path;
    ssize_t moved = pwrite((int)file->fh, buffer, length, offset);
    return moved < 0 ? -errno : (int)moved;
}

static int slow_fsync(const char *path, int is_data_only, struct fuse_file_info *file)
{
    (void)path, (void)is_data_only;
    pthread_mutex_lock(&flush_lock);
    pause_ms(flush_ms);
    int result = outcome(fdatasync((int)file->fh));
    pthread_mutex_unlock(&flush_lock);
    return result;
}

static int slow_fallocate(const char *path, int mode, off_t offset, off_t length,
                          struct fuse_file_info *file)
{
    (void)path;
    return outcome(fallocate((int)file->fh, mode, offset, length));
}

static int slow_truncate(const char *path, off_t length, struct fuse_file_info *file)
{
    if (file != NULL)
        return outcome(ftruncate((int)file->fh, length));
    int fd = openat(folder, inside(path), O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = outcome(ftruncate(fd, length));
    close(fd);
    return result;
}

static int slow_chmod(const char *path, mode_t mode, struct fuse_file_info *file)
{
    (void)file;
    return outcome(fchmodat(folder, inside(path), mode, 0));
}

static int slow_unlink(const char *path) { return outcome(unlinkat(folder, inside(path), 0)); }

static const struct fuse_operations operations = {
    .init = set_up,
    .getattr = slow_getattr,
    .readdir = slow_readdir,
    .create = slow_create,
    .open = slow_open,
    .release = slow_release,
    .read = slow_read,
    .write = slow_write,
    .fsync = slow_fsync,
    .fallocate = slow_fallocate,
    .truncate = slow_truncate,
    .chmod = slow_chmod,
    .unlink = slow_unlink,
};

static int serve(struct fuse *fuse)
{
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    if (config == NULL)
        return 1;
    fuse_loop_cfg_set_max_threads(config, THREADS_MAX);
    fuse_loop_cfg_set_idle_threads(config, THREADS_MAX);
    int result = fuse_set_signal_handlers(fuse_get_session(fuse));
    if (result == 0)
        result = fuse_loop_mt(fuse, config);
    fuse_loop_cfg_destroy(config);
    return result > 0 ? 0 : result; /* the number of the signal that ended it */
}

int main(int count, char **words)
{
    if (count != 5) {
        fprintf(stderr, "usage: slow-disk FOLDER MOUNT FLUSH_MS READ_MS\n");
        return 2;
    }
    folder = open(words[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    flush_ms = atol(words[3]);
    read_ms = atol(words[4]);
    if (folder < 0) {
        fprintf(stderr, "slow-disk: %s: %s\n", words[1], strerror(errno));
        return 1;
    }
    char *options[] = {words[0], "-ofsname=slow-disk", NULL};
    struct fuse_args arguments = FUSE_ARGS_INIT(2, options);
    struct fuse *fuse = fuse_new(&arguments, &operations, sizeof operations, NULL);
    if (fuse == NULL || fuse_mount(fuse, words[2]) != 0)
        return 1; /* libfuse said why */
    int result = serve(fuse);
    fuse_unmount(fuse);
    fuse_destroy(fuse);
    return result == 0 ? 0 : 1;
}
