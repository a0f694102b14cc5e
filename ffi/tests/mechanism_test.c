/*
 * The library's mechanism outside the cipher, function by function, for a run under the sanitizers. Prints
 * "ok" and the number of checks, or the first check that failed.
 */
#define _GNU_SOURCE
#include "../event.h"
#include "../file.h"
#include "../memory.h"
#include "../process.h"
#include "../socket.h"
#include "../uring.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int checks;

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        checks++;                                                                                            \
        if (!(condition)) {                                                                                  \
            printf("line %d: %s\n", __LINE__, #condition);                                                   \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static void test_memory(void) {
    double address = ubi_memory_map_anonymous(8192);
    CHECK(address > 0);
    unsigned char *bytes = ubi_pointer(address);
    ubi_memory_fill(bytes, 0x5a, 4096);
    ubi_memory_copy(bytes + 1, bytes, 4096);
    CHECK(bytes[4096] == 0x5a && bytes[4097] == 0);
    ubi_memory_load16(bytes + 5001, bytes + 3);
    CHECK(memcmp(bytes + 5001, bytes + 3, 16) == 0);
    ubi_memory_store8(bytes + 7, 9);
    ubi_memory_store32(bytes + 9, 0x01020304);
    CHECK(bytes[7] == 9 && bytes[9] == 4 && bytes[12] == 1);
    ubi_memory_wipe(bytes, 8192);
    CHECK(bytes[0] == 0 && bytes[8191] == 0);
    CHECK(ubi_memory_unmap(address, 8192) == 0);
    CHECK(ubi_memory_map_anonymous(0) == -EINVAL);
}

/* A front end that cuts off its memory: zeros instead of a signal, inside guarded ranges only. */
static void test_guard(void) {
    int fd = memfd_create("cut", MFD_CLOEXEC);
    CHECK(ftruncate(fd, 16384) == 0);
    double address = ubi_memory_map_file(fd, 0, 16384, 1);
    CHECK(address > 0);
    CHECK(ubi_memory_page_size(fd) == 4096);
    CHECK(ubi_memory_guard_install() == 0);
    CHECK(ubi_memory_guard_install() == 0);
    CHECK(ubi_memory_guard_add(address, 16384, 4096) == 0);
    unsigned char *bytes = ubi_pointer(address);
    bytes[8192] = 1;
    CHECK(ftruncate(fd, 4096) == 0);
    double before = ubi_memory_guard_faults();
    CHECK(bytes[8192] == 0);
    CHECK(ubi_memory_guard_faults() == before + 1);
    CHECK(ubi_memory_guard_remove(address) == 0);
    CHECK(ubi_memory_guard_remove(address) == -ENOENT);
    CHECK(ubi_memory_unmap(address, 16384) == 0);
    close(fd);
    int sealed = ubi_memory_create_shared(8192);
    CHECK(sealed >= 0 && ubi_memory_seals(sealed) == (F_SEAL_SHRINK | F_SEAL_SEAL));
    CHECK(ftruncate(sealed, 4096) < 0);
    close(sealed);
}

static void test_guard_is_full(void) {
    int added = 0;
    while (ubi_memory_guard_add(4096.0 * (added + 1), 4096, 4096) == 0) {
        added++;
    }
    CHECK(added == 1024);
    for (int i = 0; i < added; i++) {
        CHECK(ubi_memory_guard_remove(4096.0 * (i + 1)) == 0);
    }
}

static void test_events(void) {
    int fd = ubi_event_create();
    CHECK(fd >= 0 && ubi_event_check(fd) == 1);
    CHECK(ubi_event_drain(fd) == 0);
    CHECK(ubi_event_signal(fd) == 0 && ubi_event_signal_asking(fd) == 0);
    CHECK(ubi_event_drain(fd) == 1 && ubi_event_drain(fd) == 0);
    uint64_t full = UINT64_MAX - 1;
    CHECK(write(fd, &full, sizeof(full)) == sizeof(full));
    CHECK(ubi_event_signal(fd) == -EAGAIN && ubi_event_signal_asking(fd) == -EAGAIN);
    close(fd);
    CHECK(ubi_event_check(fd) < 0);
    int file = open("/dev/null", O_RDWR);
    CHECK(ubi_event_check(file) == -EINVAL);
    close(file);
    double start = ubi_event_clock();
    CHECK(start > 0 && ubi_event_clock() >= start && ubi_event_thread_cpu() > 0);
}

static void test_sockets(const char *folder) {
    char path[128];
    snprintf(path, sizeof(path), "%s/s", folder);
    int listener = ubi_socket_listen(path, 0660, 4);
    CHECK(listener >= 0 && ubi_socket_accept(listener) == -EAGAIN);
    CHECK(ubi_socket_listen(path, 0660, 4) == -EADDRINUSE);
    CHECK(ubi_socket_probe(path) == 0);
    int probed = ubi_socket_accept(listener);
    CHECK(probed >= 0 && ubi_socket_close(probed) == 0);
    int client = ubi_socket_connect(path);
    int server = ubi_socket_accept(listener);
    CHECK(client >= 0 && server >= 0);

    char buffer[64] = "message";
    int32_t fds[64];
    uint32_t count = 77;
    CHECK(ubi_socket_receive(server, buffer, sizeof(buffer), fds, 64, &count) == -EAGAIN && count == 0);
    int32_t passed[3] = {0, 1, 2};
    CHECK(ubi_socket_send(client, "message", 8, passed, 3) == 8);
    struct pollfd wait = {.fd = server, .events = POLLIN};
    CHECK(ubi_socket_wait(&wait, 1, 1000) == 1);
    CHECK(ubi_socket_receive(server, buffer, sizeof(buffer), fds, 64, &count) == 8 && count == 3);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(close(fds[i]) == 0);
    }
    CHECK(ubi_socket_send(client, "m", 1, passed, 3) == 1);
    CHECK(ubi_socket_receive(server, buffer, sizeof(buffer), fds, 2, &count) == -EMSGSIZE && count == 0);
    CHECK(ubi_socket_send(client, "m", 1, passed, 65) == -EMSGSIZE);
    ubi_socket_close(client);
    CHECK(ubi_socket_receive(server, buffer, sizeof(buffer), fds, 64, &count) == 0);
    ubi_socket_close(server);
    ubi_socket_close(listener);
    CHECK(ubi_socket_probe(path) == -ECONNREFUSED);
    unlink(path);
    memset(path, 'x', 120);
    path[120] = '\0';
    CHECK(ubi_socket_listen(path, 0660, 4) == -ENAMETOOLONG && ubi_socket_connect("") == -ENAMETOOLONG);
}

static void test_files(const char *folder) {
    char path[128];
    snprintf(path, sizeof(path), "%s/f", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    char data[1000];
    memset(data, 'a', sizeof(data));
    CHECK(ubi_file_write(fd, 24, data, sizeof(data), 1) == 0);
    CHECK(ubi_file_read(fd, 24, data, sizeof(data)) == 0 && data[999] == 'a');
    CHECK(ubi_file_read(fd, 25, data, sizeof(data)) == -ENODATA);
    struct iovec vector[2] = {{data, 500}, {data + 500, 500}};
    CHECK(ubi_file_write_vector(fd, 0, vector, 2, 0) == 1000);
    CHECK(ubi_file_read_vector(fd, 600, vector, 2) == 424);
    CHECK(ubi_file_datasync(fd) == 0);
    CHECK(ubi_file_allocate(fd, 0xffff, 0, 512) < 0);
    struct ubi_file_geometry geometry;
    CHECK(ubi_file_probe(fd, &geometry) == 0 && geometry.size == 1024 && geometry.is_block_device == 0);
    CHECK(ubi_file_lock(fd, 1) == 0);
    int other = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(ubi_file_lock(other, 0) == -EAGAIN);
    CHECK(ubi_file_unlock(fd) == 0 && ubi_file_lock(other, 0) == 0 && ubi_file_lock(fd, 0) == 0);
    CHECK(ubi_file_write(other, 0, data, 1, 0) == -EBADF);
    close(other);
    close(fd);
    unlink(path);
    int null = open("/dev/null", O_RDWR);
    CHECK(ubi_file_probe(null, &geometry) == -EINVAL);
    close(null);
}

static void test_process(void) {
    CHECK(ubi_process_name_thread("mechanism") == 0);
    CHECK(ubi_process_may_run_on(0) == 1 || ubi_process_may_run_on(1) == 1);
    CHECK(ubi_process_may_run_on(100000) == 0 && ubi_process_pin(100000) == -EINVAL);
}

static void test_uring(void) {
    struct io_uring_params params;
    memset(&params, 0, sizeof(params));
    int fd = ubi_uring_setup(8, &params);
    if (fd < 0) {
        CHECK(fd == -ENOSYS || fd == -EPERM);
        return;
    }
    CHECK(ubi_uring_enter(fd, 0, 0, 0) == 0);
    CHECK(ubi_uring_register(fd, 9999, NULL, 0) == -EINVAL);
    close(fd);
    CHECK(ubi_uring_enter(fd, 0, 0, 0) == -EBADF);
    CHECK(ubi_uring_setup(0, &params) == -EINVAL);
}

int main(int count, char **arguments) {
    if (count != 2) {
        return 2;
    }
    test_memory();
    test_guard();
    test_guard_is_full();
    test_events();
    test_sockets(arguments[1]);
    test_files(arguments[1]);
    test_process();
    test_uring();
    printf("ok %d\n", checks);
    return 0;
}
