/* Folders whose content is not trusted: no path leads out of them, and no link is followed. */
#define _GNU_SOURCE
#include "folder.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Paths of ours are shorter by far. */
#define PATH_BYTES 4096

static int is_plain(const char *name) {
    return name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* One part of a path, which is no link: a descriptor or -errno. */
static int open_part(int folder, const char *name, int flags, mode_t mode) {
    int fd = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd >= 0) {
        return fd;
    }
    int error = errno;
    struct stat info; /* with O_DIRECTORY the kernel says the same of a link as of a file */
    if (error == ENOTDIR && fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode)) {
        return -ELOOP;
    }
    return -error;
}

int32_t ubi_folder_open_by_parts(int32_t folder, const char *path, uint32_t flags, uint32_t mode) {
    char parts[PATH_BYTES];
    size_t length = strlen(path);
    if (length >= sizeof(parts)) {
        return -ENAMETOOLONG;
    }
    memcpy(parts, path, length + 1);
    int current = folder;
    for (char *part = parts;;) {
        char *slash = strchr(part, '/');
        if (slash != NULL) {
            *slash = '\0';
        }
        int next = -EXDEV;
        if (slash != NULL && is_plain(part)) {
            next = open_part(current, part, O_PATH | O_DIRECTORY, 0);
        } else if (slash == NULL && (is_plain(part) || strcmp(path, ".") == 0)) {
            next = open_part(current, part, (int)flags, (mode_t)mode);
        }
        if (current != folder) {
            close(current);
        }
        if (next < 0 || slash == NULL) {
            return next;
        }
        current = next;
        part = slash + 1;
    }
}

static int open_beneath(int folder, const char *path, int flags, mode_t mode) {
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .mode = (flags & O_CREAT) != 0 ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int fd;
    do {
        fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof(how));
    } while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) {
        return fd >= 0 ? fd : -errno;
    }
    return ubi_folder_open_by_parts(folder, path, (uint32_t)flags, mode);
}

/* The folder that the last part of `path` lies in, and that part. */
static int open_parent(int folder, const char *path, const char **name) {
    const char *slash = strrchr(path, '/');
    *name = slash == NULL ? path : slash + 1;
    if (!is_plain(*name)) {
        return -EXDEV;
    }
    char parent[PATH_BYTES] = ".";
    if (slash != NULL) {
        size_t length = (size_t)(slash - path);
        if (length >= sizeof(parent)) {
            return -ENAMETOOLONG;
        }
        memcpy(parent, path, length);
        parent[length] = '\0';
    }
    return open_beneath(folder, parent, O_PATH | O_DIRECTORY, 0);
}

int32_t ubi_folder_open(int32_t folder, const char *path, uint32_t flags, uint32_t mode) {
    return open_beneath(folder, path, (int)flags, (mode_t)mode);
}

int32_t ubi_folder_make(int32_t folder, const char *path, uint32_t mode) {
    char part[PATH_BYTES];
    size_t length = strlen(path);
    if (length >= sizeof(part)) {
        return -ENAMETOOLONG;
    }
    for (size_t end = 1; end <= length; end += 1) {
        if (path[end] != '/' && path[end] != '\0') {
            continue;
        }
        memcpy(part, path, end);
        part[end] = '\0';
        const char *name;
        int parent = open_parent(folder, part, &name);
        if (parent < 0) {
            return parent;
        }
        int32_t result = ubi_result(mkdirat(parent, name, (mode_t)mode));
        close(parent);
        if (result < 0 && result != -EEXIST) {
            return result;
        }
    }
    int made = open_beneath(folder, path, O_PATH | O_DIRECTORY, 0); /* what was there may be a link or a file */
    if (made < 0) {
        return made;
    }
    close(made);
    return 0;
}

typedef int (*move)(int from_folder, const char *from, int to_folder, const char *to);

static int move_by_rename(int from_folder, const char *from, int to_folder, const char *to) {
    return renameat(from_folder, from, to_folder, to);
}

static int move_by_link(int from_folder, const char *from, int to_folder, const char *to) {
    return linkat(from_folder, from, to_folder, to, 0);
}

static int32_t between(int32_t folder, const char *from, const char *to, move how) {
    const char *from_name;
    const char *to_name;
    int from_folder = open_parent(folder, from, &from_name);
    if (from_folder < 0) {
        return from_folder;
    }
    int to_folder = open_parent(folder, to, &to_name);
    int32_t result = to_folder < 0 ? to_folder : ubi_result(how(from_folder, from_name, to_folder, to_name));
    close(from_folder);
    if (to_folder >= 0) {
        close(to_folder);
    }
    return result;
}

int32_t ubi_folder_rename(int32_t folder, const char *from, const char *to) {
    return between(folder, from, to, move_by_rename);
}

int32_t ubi_folder_link(int32_t folder, const char *from, const char *to) {
    return between(folder, from, to, move_by_link);
}

int32_t ubi_folder_unlink(int32_t folder, const char *path) {
    const char *name;
    int parent = open_parent(folder, path, &name);
    if (parent < 0) {
        return parent;
    }
    int32_t result = ubi_result(unlinkat(parent, name, 0));
    close(parent);
    return result;
}

int32_t ubi_folder_rename_new(const char *from, const char *to) {
    return ubi_result(renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE));
}
