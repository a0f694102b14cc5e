/*
 * Tests the mechanism of the library (sockets with descriptors, events, files, memory and its guard) from C,
 * so that the sanitizers see it. Ends with code 1 at the first thing that is not as it should be.
 *
 *   mechanism_test FOLDER       FOLDER is empty and ours
 */
#define _GNU_SOURCE
#include "../event.h"
#include "../file.h"
#include "../folder.h"
#include "../memory.h"
#include "../socket.h"

#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition);                            \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

#define PAGE 4096
#define KEPT UINT32_MAX

static char folder[256];

static const char *path_of(const char *name) {
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

/* The lowest free descriptor number: it grows when one leaks. */
static int lowest_free(void) {
    int fd = dup(0);
    close(fd);
    return fd;
}

static void send_with(int fd, int passed, uint32_t count) {
    int32_t fds[64];
    for (uint32_t i = 0; i < count; i++) {
        fds[i] = passed;
    }
    CHECK(ubi_socket_send(fd, "x", 1, fds, count) == 1);
}

static void test_descriptors(void) {
    int pair[2];
    int32_t fds[64];
    uint32_t count = 77;
    char bytes[4];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    int before = lowest_free();
    CHECK(ubi_socket_receive(pair[1], bytes, sizeof(bytes), fds, 64, &count) == -EAGAIN);
    CHECK(count == 0);

    send_with(pair[0], 0, 64);
    CHECK(ubi_socket_receive(pair[1], bytes, sizeof(bytes), fds, 64, &count) == 1);
    CHECK(count == 64);
    for (uint32_t i = 0; i < count; i++) {
        CHECK((fcntl(fds[i], F_GETFD) & FD_CLOEXEC) != 0);
        CHECK(ubi_socket_close(fds[i]) == 0);
    }

    /* More than the caller has room for: an error, and none stays open. */
    send_with(pair[0], 0, 9);
    CHECK(ubi_socket_receive(pair[1], bytes, sizeof(bytes), fds, 8, &count) == -EMSGSIZE);
    CHECK(count == 0);
    CHECK(lowest_free() == before);

    /* Bytes of two messages are not read over the descriptors between them. */
    send_with(pair[0], 0, 1);
    send_with(pair[0], 0, 2);
    CHECK(ubi_socket_receive(pair[1], bytes, sizeof(bytes), fds, 64, &count) == 1 && count == 1);
    ubi_socket_close(fds[0]);
    CHECK(ubi_socket_receive(pair[1], bytes, sizeof(bytes), fds, 64, &count) == 1 && count == 2);
    ubi_socket_close(fds[0]);
    ubi_socket_close(fds[1]);
    CHECK(ubi_socket_send(pair[0], "x", 1, fds, 65) == -EMSGSIZE);
    close(pair[0]);
    CHECK(ubi_socket_receive(pair[1], bytes, sizeof(bytes), fds, 64, &count) == 0);
    CHECK(ubi_socket_send(pair[1], "x", 1, NULL, 0) == -EPIPE);
    close(pair[1]);
}

static void test_listening(void) {
    struct stat info;
    char longest[200];
    memset(longest, 'a', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    CHECK(ubi_socket_listen(longest, 0600, KEPT, KEPT, 1) == -ENAMETOOLONG);
    CHECK(ubi_socket_listen("", 0600, KEPT, KEPT, 1) == -ENAMETOOLONG);
    const char *path = path_of("socket");
    CHECK(ubi_socket_probe(path) == -ENOENT);
    umask(0);
    int32_t fd = ubi_socket_listen(path, 0640, KEPT, KEPT, 1);
    CHECK(fd >= 0 && stat(path, &info) == 0 && (info.st_mode & 0777) == 0640);
    CHECK(ubi_socket_accept(fd) == -EAGAIN);
    CHECK(ubi_socket_probe(path) == 0);
    CHECK(ubi_socket_listen(path, 0640, KEPT, KEPT, 1) == -EADDRINUSE);
    int32_t client = ubi_socket_connect(path);
    CHECK(client >= 0);
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    CHECK(ubi_socket_wait(&wait, 1, 1000) == 1);
    int32_t served = ubi_socket_accept(fd);
    CHECK(served >= 0 && (fcntl(served, F_GETFL) & O_NONBLOCK) != 0);
    for (int i = 0; i < 2; i++) {
        ubi_socket_close(served);
        served = ubi_socket_accept(fd);
    }
    close(client);
    close(fd);
    CHECK(ubi_socket_probe(path) == -ECONNREFUSED);
}

static void test_rights(void) {
    struct stat info;
    const char *path = path_of("given");
    int32_t fd = ubi_socket_listen(path, 0606, geteuid() == 0 ? 12345 : KEPT, getegid(), 1);
    CHECK(fd >= 0 && stat(path, &info) == 0 && (info.st_mode & 0777) == 0606);
    CHECK(info.st_uid == (geteuid() == 0 ? 12345 : geteuid()) && info.st_gid == getegid());
    close(fd);
    unlink(path);
}

static void test_adoption(void) {
    char name[128];
    const char *path = path_of("adopted");
    int32_t fd = ubi_socket_listen(path, 0600, KEPT, KEPT, 1);
    CHECK(fcntl(fd, F_SETFL, 0) == 0 && fcntl(fd, F_SETFD, 0) == 0);
    CHECK(ubi_socket_adopt(fd) == UBI_SOCKET_UNIX);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(ubi_socket_path(fd, name, sizeof(name)) == (int32_t)strlen(path) && memcmp(name, path, strlen(path)) == 0);
    CHECK(ubi_socket_path(fd, name, 3) == -ENAMETOOLONG);
    int32_t client = ubi_socket_connect(path);
    CHECK(ubi_socket_adopt(client) == -EINVAL && ubi_socket_path(client, name, sizeof(name)) == 0);
    CHECK(ubi_socket_adopt(0) == -EINVAL && ubi_socket_adopt(-1) == -EINVAL);
    close(client);
    close(fd);
    unlink(path);
}

/* A datagram to a path, to an abstract name, to nobody, and to somebody who has no room. */
static void test_telling(void) {
    char bytes[64];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = path_of("told");
    CHECK(ubi_socket_tell(path, "x", 1, 0) == -ENOENT && ubi_socket_tell("", "x", 1, 0) == -ENAMETOOLONG);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    strcpy(address.sun_path, path);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(ubi_socket_tell(path, "READY=1", 7, 0) == 0);
    CHECK(recv(fd, bytes, sizeof(bytes), 0) == 7 && memcmp(bytes, "READY=1", 7) == 0);
    int32_t result = 0;
    for (int i = 0; i < 10000 && result == 0; i++) {
        result = ubi_socket_tell(path, "x", 1, 1);
    }
    CHECK(result == -EAGAIN);
    close(fd);
    CHECK(ubi_socket_tell(path, "x", 1, 0) == -ECONNREFUSED);
    unlink(path);

    char name[64];
    int length = snprintf(name, sizeof(name), "@ubiblk-mechanism-%d", (int)getpid());
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    memset(address.sun_path, 0, sizeof(address.sun_path));
    memcpy(address.sun_path + 1, name + 1, (size_t)length - 1);
    socklen_t used = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length);
    CHECK(bind(fd, (struct sockaddr *)&address, used) == 0);
    CHECK(ubi_socket_tell(name, "y", 1, 0) == 0 && recv(fd, bytes, sizeof(bytes), 0) == 1 && bytes[0] == 'y');
    close(fd);
}

static void test_events(void) {
    int32_t fd = ubi_event_create();
    CHECK(ubi_event_check(fd) == 1);
    CHECK(ubi_event_drain(fd) == 0);
    CHECK(ubi_event_signal(fd) == 0 && ubi_event_signal_asking(fd) == 0);
    CHECK(ubi_event_drain(fd) == 1 && ubi_event_drain(fd) == 0);
    uint64_t full = UINT64_MAX - 1;
    CHECK(write(fd, &full, sizeof(full)) == sizeof(full));
    CHECK(ubi_event_signal(fd) == -EAGAIN && ubi_event_signal_asking(fd) == -EAGAIN);
    fcntl(fd, F_SETFL, 0);
    CHECK(ubi_event_check(fd) == 2);
    CHECK(ubi_event_signal_asking(fd) == -EAGAIN); /* a plain write would wait for ever */
    CHECK(ubi_event_relieve(fd) == 1 && ubi_event_signal(fd) == 0 && ubi_event_relieve(fd) == 0);
    CHECK(ubi_event_drain(fd) == 1 && ubi_event_drain(fd) == 0); /* a plain read would wait for ever */
    close(fd);
    CHECK(ubi_event_check(fd) == -ENOENT);
    CHECK(ubi_event_check(0) == -EINVAL);
    CHECK(ubi_event_clock() > 0);
    int32_t timer = ubi_event_create_timer();
    struct pollfd wait = {.fd = timer, .events = POLLIN};
    CHECK(ubi_event_drain(timer) == 0);
    CHECK(ubi_event_set_timer(timer, 1e6) == 0 && poll(&wait, 1, 5000) == 1);
    CHECK(ubi_event_drain(timer) == 1 && ubi_event_drain(timer) == 0);
    CHECK(ubi_event_set_timer(timer, 5e9) == 0 && ubi_event_set_timer(timer, 0) == 0);
    CHECK(poll(&wait, 1, 10) == 0);
    close(timer);
}

static void test_files(void) {
    struct ubi_file_geometry geometry;
    char bytes[1024];
    int fd = open(path_of("file"), O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && ftruncate(fd, 1000) == 0);
    CHECK(ubi_file_probe(fd, &geometry) == 0 && geometry.size == 1000 && geometry.is_block_device == 0);
    memset(bytes, 5, sizeof(bytes));
    CHECK(ubi_file_write(fd, 0, bytes, 1000, 1) == 0);
    memset(bytes, 0, sizeof(bytes));
    CHECK(ubi_file_read(fd, 500, bytes, 500) == 0 && bytes[499] == 5 && bytes[500] == 0);
    CHECK(ubi_file_read(fd, 500, bytes, 501) == -ENODATA);
    CHECK(ubi_file_read(fd, 1000, bytes, 1) == -ENODATA);
    struct iovec parts[2] = {{bytes, 600}, {bytes + 600, 424}};
    CHECK(ubi_file_read_vector(fd, 0, parts, 2) == 1000);
    CHECK(ubi_file_write_vector(fd, 0, parts, 2, 0) == 1024);
    CHECK(ubi_file_datasync(fd) == 0);
    CHECK(ubi_file_will_need(fd, 0, 0) == 0 && ubi_file_forget(fd, 0, 0) == 0);
    int other = open(path_of("file"), O_RDWR);
    CHECK(ubi_file_lock(fd, 0) == 0 && ubi_file_lock(other, 0) == 0);
    CHECK(ubi_file_lock(other, 1) == -EAGAIN);
    close(other);
    CHECK(ubi_file_lock(fd, 1) == 0);
    close(fd);
    CHECK(ubi_file_read(fd, 0, bytes, 1) == -EBADF && ubi_file_write(fd, 0, bytes, 1, 0) == -EBADF);
    CHECK(ubi_file_datasync(fd) == -EBADF && ubi_file_probe(fd, &geometry) == -EBADF);
    int null = open("/dev/null", O_RDWR);
    CHECK(ubi_file_probe(null, &geometry) == -EINVAL);
    close(null);
}

static void test_guard(void) {
    int fd = open(path_of("cut"), O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(ftruncate(fd, 2 * PAGE) == 0);
    double mapped = ubi_memory_map_file(fd, 0, 2 * PAGE, 1);
    CHECK(mapped > 0 && ubi_memory_guard_install() == 0 && ubi_memory_guard_install() == 0);
    CHECK(ubi_memory_guard_add(mapped, 2 * PAGE, PAGE) == 0);
    volatile char *memory = ubi_pointer(mapped);
    memory[PAGE] = 3;
    CHECK(ftruncate(fd, PAGE) == 0);
    CHECK(memory[PAGE] == 0 && memory[PAGE + 1] == 0);
    CHECK(ubi_memory_guard_faults() == 1);
    ubi_memory_store32(ubi_pointer(mapped + PAGE + 7), 0x01020304);
    char snapshot[16];
    ubi_memory_load16(snapshot, ubi_pointer(mapped + PAGE + 7));
    CHECK(snapshot[0] == 4 && snapshot[3] == 1 && snapshot[4] == 0);
    CHECK(ubi_memory_guard_remove(mapped) == 0 && ubi_memory_guard_remove(mapped) == -ENOENT);
    CHECK(ubi_memory_unmap(mapped, 2 * PAGE) == 0);
    close(fd);
    CHECK(ubi_memory_map_file(fd, 0, PAGE, 1) == -EBADF);
    int32_t shared = ubi_memory_create_shared(PAGE);
    CHECK(shared >= 0 && (ubi_memory_seals(shared) & F_SEAL_SHRINK) != 0);
    CHECK(ubi_memory_page_size(shared) == PAGE);
    close(shared);
}

static void test_links_in_folders(void) {
    int32_t (*const opens[])(int32_t, const char *, uint32_t, uint32_t) = {ubi_folder_open, ubi_folder_open_by_parts};
    int before = lowest_free();
    int top = open(folder, O_RDONLY | O_DIRECTORY);
    CHECK(top >= 0);
    CHECK(ubi_folder_make(top, "inside/deep", 0700) == 0);
    CHECK(ubi_folder_make(top, "inside/deep", 0700) == 0);
    CHECK(ubi_folder_make(top, "outside", 0700) == 0);
    CHECK(symlinkat("../outside", top, "inside/link") == 0);
    CHECK(symlinkat("nowhere", top, "inside/dangling") == 0);
    int inside = openat(top, "inside", O_RDONLY | O_DIRECTORY);
    for (size_t i = 0; i < 2; i++) {
        const int created = O_WRONLY | O_CREAT | O_EXCL;
        int fd = opens[i](inside, i == 0 ? "deep/a" : "deep/b", created, 0600);
        CHECK(fd >= 0 && close(fd) == 0);
        CHECK(opens[i](inside, "deep/a", created, 0600) == -EEXIST);
        CHECK(opens[i](inside, "link/a", created, 0600) == -ELOOP);
        CHECK(opens[i](inside, "link", O_RDONLY, 0) == -ELOOP);
        CHECK(opens[i](inside, "link", O_RDONLY | O_DIRECTORY, 0) == -ELOOP);
        CHECK(opens[i](inside, "dangling", O_RDONLY, 0) == -ELOOP);
        CHECK(opens[i](inside, "deep/a/x", O_RDONLY, 0) == -ENOTDIR);
        CHECK(opens[i](inside, "deep/x", O_RDONLY, 0) == -ENOENT);
        CHECK(opens[i](inside, "../outside", O_RDONLY, 0) == -EXDEV);
        CHECK(opens[i](inside, "deep/../../outside", O_RDONLY, 0) == -EXDEV);
        CHECK(opens[i](inside, "/etc", O_RDONLY, 0) == -EXDEV);
        fd = opens[i](inside, ".", O_RDONLY | O_DIRECTORY, 0);
        CHECK(fd >= 0 && close(fd) == 0);
        fd = opens[i](inside, "link", O_PATH | O_NOFOLLOW, 0);
        struct stat info;
        CHECK(fd >= 0 && fstat(fd, &info) == 0 && S_ISLNK(info.st_mode) && close(fd) == 0);
    }
    CHECK(ubi_folder_make(inside, "link", 0700) == -ELOOP);
    CHECK(ubi_folder_make(inside, "link/more", 0700) == -ELOOP);
    CHECK(ubi_folder_rename(inside, "deep/a", "link/a") == -ELOOP);
    CHECK(ubi_folder_rename(inside, "deep/a", "../a") == -EXDEV);
    CHECK(ubi_folder_rename(inside, "deep/a", "..") == -EXDEV);
    CHECK(ubi_folder_link(inside, "deep/a", "dangling") == -EEXIST);
    CHECK(ubi_folder_link(inside, "deep/a", "deep/c") == 0);
    CHECK(ubi_folder_rename(inside, "deep/c", "link") == 0); /* replaces the link */
    CHECK(ubi_folder_unlink(inside, "link") == 0);
    CHECK(ubi_folder_unlink(inside, "dangling") == 0);
    CHECK(ubi_folder_unlink(inside, "deep/x") == -ENOENT);
    CHECK(unlinkat(top, "outside", AT_REMOVEDIR) == 0); /* nothing came there */
    close(inside);
    close(top);
    CHECK(lowest_free() == before);
}

int main(int count, char **words) {
    CHECK(count == 2);
    snprintf(folder, sizeof(folder), "%s", words[1]);
    test_descriptors();
    test_listening();
    test_rights();
    test_adoption();
    test_telling();
    test_events();
    test_files();
    test_links_in_folders();
    test_guard();
    puts("all as expected");
    return 0;
}
