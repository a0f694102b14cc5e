/*
 * Fuzzes ffi/folder.c and ffi/file.c. Paths of all kinds in a folder that also holds links, folders and a way out: no
 * descriptor leads out of it, and the two ways of opening agree. Reads and writes of a file against an array.
 *
 * The folder is made anew for each process in TMPDIR, and holds nothing but what this file makes.
 */
#define _GNU_SOURCE
#include "../../../ffi/file.h"
#include "../../../ffi/folder.h"
#include "fuzz.h"

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define STEPS 16
#define FILE_BYTES 65536
#define VECTORS 8

static char root[PATH_MAX];
static int folder = -1;

static void make_places(void) {
    const char *place = getenv("TMPDIR");
    snprintf(root, sizeof(root), "%s/ubiblk-fuzz-XXXXXX", place == NULL ? "/tmp" : place);
    CHECK(mkdtemp(root) != NULL);
    char inside[PATH_MAX + 8];
    snprintf(inside, sizeof(inside), "%s/in", root);
    CHECK(mkdir(inside, 0700) == 0);
    int outer = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    folder = open(inside, O_PATH | O_DIRECTORY | O_CLOEXEC);
    CHECK(outer >= 0 && folder >= 0);
    close(openat(outer, "secret", O_CREAT | O_WRONLY, 0600));
    CHECK(symlinkat("../secret", folder, "l") == 0 && symlinkat("a", folder, "m") == 0);
    CHECK(symlinkat(root, folder, "n") == 0 && symlinkat("..", folder, "o") == 0);
    CHECK(mkdirat(folder, "a", 0700) == 0 && mkdirat(folder, "a/b", 0700) == 0);
    CHECK(symlinkat("../..", folder, "a/p") == 0);
    close(openat(folder, "f", O_CREAT | O_WRONLY, 0600));
    close(outer);
}

static int forget(const char *path, const struct stat *info, int kind, struct FTW *place) {
    (void)info;
    (void)place;
    return kind == FTW_DP ? rmdir(path) : unlink(path);
}

static void forget_places(void) { CHECK(nftw(root, forget, 16, FTW_DEPTH | FTW_PHYS) == 0); }

/* Pieces of paths, or any bytes. */
static void take_path(struct input *input, char *path, size_t room) {
    static const char *const pieces[] = {"a",  "b", "/", "/",  "..", ".",    "f",  "l",    "m", "n",
                                         "o",  "p", "c", "//", "/.", "/..", "../", "secret", "", "..a"};
    size_t used = 0;
    uint8_t count = take8(input) % 12;
    for (uint8_t i = 0; i < count; i++) {
        uint8_t choice = take8(input);
        if (choice >= 240) { /* very long, or a byte of any value */
            size_t length = choice == 255 ? 5000 : choice - 239;
            for (size_t j = 0; j < length && used + 1 < room; j++) {
                path[used++] = (char)(choice == 255 ? 'x' : take8(input) | 1);
            }
            continue;
        }
        const char *piece = pieces[choice % (sizeof(pieces) / sizeof(pieces[0]))];
        size_t length = strlen(piece);
        if (used + length + 1 < room) {
            memcpy(path + used, piece, length);
            used += length;
        }
    }
    path[used] = '\0';
}

/* What a descriptor is open on lies in the folder. */
static void expect_inside(int fd) {
    char link[32];
    char target[PATH_MAX + 64];
    char inside[PATH_MAX + 8];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    snprintf(inside, sizeof(inside), "%s/in", root);
    ssize_t length = readlink(link, target, sizeof(target) - 1);
    CHECK(length > 0);
    target[length] = '\0';
    CHECK(strncmp(target, inside, strlen(inside)) == 0);
    char after = target[strlen(inside)];
    CHECK(after == '\0' || after == '/');
}

static void open_both(struct input *input) {
    static const uint32_t kinds[] = {O_RDONLY, O_PATH, O_PATH | O_DIRECTORY, O_RDWR, O_RDONLY | O_DIRECTORY};
    char path[6000];
    take_path(input, path, sizeof(path));
    uint32_t flags = kinds[take8(input) % 5] | O_NOFOLLOW;
    int32_t one = ubi_folder_open(folder, path, flags, 0600);
    int32_t other = ubi_folder_open_by_parts(folder, path, flags, 0600);
    CHECK(one >= 0 || one > -4096);
    if (one >= 0) {
        expect_inside(one);
    }
    if (other >= 0) {
        expect_inside(other);
        CHECK(one >= 0); /* by parts is the stricter one: no double slashes, no dots */
        struct stat first;
        struct stat second;
        CHECK(fstat(one, &first) == 0 && fstat(other, &second) == 0 && first.st_ino == second.st_ino);
        close(other);
    }
    if (one >= 0) {
        close(one);
    }
}

static void change(struct input *input) {
    char from[6000];
    char to[6000];
    take_path(input, from, sizeof(from));
    take_path(input, to, sizeof(to));
    int32_t fd;
    switch (take8(input) % 5) {
    case 0:
        CHECK(ubi_folder_make(folder, from, 0700) <= 0);
        break;
    case 1:
        CHECK(ubi_folder_rename(folder, from, to) <= 0);
        break;
    case 2:
        CHECK(ubi_folder_link(folder, from, to) <= 0);
        break;
    case 3:
        CHECK(ubi_folder_unlink(folder, from) <= 0);
        break;
    default:
        fd = ubi_folder_open(folder, from, O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (fd >= 0) {
            expect_inside(fd);
            close(fd);
        }
    }
    struct stat info;
    char secret[PATH_MAX + 16];
    snprintf(secret, sizeof(secret), "%s/secret", root);
    CHECK(stat(secret, &info) == 0 && info.st_nlink == 1 && info.st_size == 0);
}

/* One file in memory and what it must hold. */
static void read_and_write(struct input *input) {
    static uint8_t model[2 * FILE_BYTES];
    static uint8_t bytes[FILE_BYTES];
    uint32_t size = take16(input);
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, size) == 0);
    memset(model, 0, sizeof(model));
    for (int step = 0; step < 8 && input->left > 0; step++) {
        uint32_t offset = take16(input);
        uint32_t length = take16(input);
        uint8_t kind = take8(input);
        struct iovec vectors[VECTORS];
        uint32_t count = 1 + kind / 16 % VECTORS;
        for (uint32_t i = 0; i < count; i++) {
            vectors[i].iov_base = bytes + i * (length / count);
            vectors[i].iov_len = length / count;
        }
        uint32_t whole = length / count * count;
        uint32_t end = offset + (kind % 4 < 2 ? length : whole);
        if (kind % 2 == 0) {
            fill_bytes(bytes, FILE_BYTES, offset + 3 * length);
            int32_t result = kind % 4 == 0 ? ubi_file_write(fd, offset, bytes, length, 0)
                                           : ubi_file_write_vector(fd, offset, vectors, count, 0);
            CHECK(result == (kind % 4 == 0 ? 0 : (int32_t)whole));
            memcpy(model + offset, bytes, end - offset);
            size = end > offset && end > size ? end : size;
            continue;
        }
        int32_t result = kind % 4 == 1 ? ubi_file_read(fd, offset, bytes, length)
                                       : ubi_file_read_vector(fd, offset, vectors, count);
        if (kind % 4 == 1) {
            CHECK(result == (end <= size || length == 0 ? 0 : -ENODATA));
            CHECK(result != 0 || memcmp(bytes, model + offset, length) == 0);
        } else {
            uint32_t most = offset >= size ? 0 : size - offset;
            uint32_t moved = whole < most ? whole : most;
            CHECK(result == (int32_t)moved && memcmp(bytes, model + offset, moved) == 0);
        }
    }
    struct ubi_file_geometry geometry;
    CHECK(ubi_file_probe(fd, &geometry) == 0 && geometry.size == size && geometry.is_block_device == 0);
    CHECK(ubi_file_probe(folder, &geometry) == -EINVAL);
    CHECK(ubi_file_retire(fd) == 0 && ubi_file_read(fd, 0, bytes, 1) == -ENODATA);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, size};
    make_places();
    for (int step = 0; step < STEPS && input.left > 0; step++) {
        switch (take8(&input) % 4) {
        case 0:
            change(&input);
            break;
        case 1:
            read_and_write(&input);
            break;
        default:
            open_both(&input);
        }
    }
    close(folder);
    forget_places();
    return 0;
}
