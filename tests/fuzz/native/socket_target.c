/*
 * Fuzzes ffi/socket.c and ffi/event.c as a peer does: bytes with any number of descriptors, in several messages and
 * with other things beside them; events that somebody else fills and empties. No descriptor may be lost or leaked.
 */
#define _GNU_SOURCE
#include "../../../ffi/event.h"
#include "../../../ffi/socket.h"
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define STEPS 24
#define BYTES_MAX 512
#define PASSED_MAX 250

static int open_descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder != NULL);
    int count = 0;
    while (readdir(folder) != NULL) {
        count += 1;
    }
    closedir(folder);
    return count;
}

/* As a hostile peer: control messages of any number and kind, straight to the kernel. */
static void send_raw(int fd, struct input *input) {
    static union {
        struct cmsghdr align;
        char bytes[2 * CMSG_SPACE(sizeof(int) * PASSED_MAX) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    uint8_t bytes[BYTES_MAX];
    size_t length = 1 + take16(input) % BYTES_MAX;
    take_bytes(input, bytes, length < 16 ? length : 16);
    uint32_t count = take8(input) % (PASSED_MAX + 1);
    int passed[PASSED_MAX];
    for (uint32_t i = 0; i < count; i++) {
        passed[i] = i % 2 == 0 ? STDOUT_FILENO : STDERR_FILENO;
    }
    struct iovec vector = {.iov_base = bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    memset(&control, 0, sizeof(control));
    char *place = control.bytes;
    if (take8(input) % 4 == 0) {
        struct ucred credentials = {.pid = getpid(), .uid = getuid(), .gid = getgid()};
        struct cmsghdr *part = (struct cmsghdr *)place;
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_CREDENTIALS;
        part->cmsg_len = CMSG_LEN(sizeof(credentials));
        memcpy(CMSG_DATA(part), &credentials, sizeof(credentials));
        place += CMSG_SPACE(sizeof(credentials));
    }
    if (count > 0) {
        struct cmsghdr *part = (struct cmsghdr *)place;
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(part), passed, sizeof(int) * count);
        place += CMSG_SPACE(sizeof(int) * count);
    }
    message.msg_control = place == control.bytes ? NULL : control.bytes;
    message.msg_controllen = (size_t)(place - control.bytes);
    (void)sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_ours(int fd, struct input *input) {
    uint8_t bytes[BYTES_MAX] = {0};
    uint32_t length = take16(input) % BYTES_MAX;
    uint32_t count = take8(input) % 70;
    int32_t fds[70] = {0};
    for (uint32_t i = 0; i < count; i++) {
        fds[i] = fd;
    }
    int32_t result = ubi_socket_send(fd, bytes, length, fds, count);
    CHECK(result >= 0 || result == -EMSGSIZE || result == -EAGAIN || result == -EPIPE);
    CHECK(count <= 64 || result == -EMSGSIZE);
}

static void receive(int fd, struct input *input) {
    uint32_t length = take16(input) % (BYTES_MAX + 1);
    uint32_t fds_max = take8(input) % 66;
    /* Blocks of their own, exactly as long as was said. */
    uint8_t *buffer = malloc(length == 0 ? 1 : length);
    int32_t *fds = malloc((fds_max == 0 ? 1 : fds_max) * sizeof(int32_t));
    uint32_t count = 77;
    int32_t result = ubi_socket_receive(fd, buffer, length, fds, fds_max, &count);
    CHECK(result <= (int32_t)length && count <= fds_max);
    CHECK(result >= 0 || count == 0);
    for (uint32_t i = 0; i < count; i++) {
        CHECK((fcntl(fds[i], F_GETFD) & FD_CLOEXEC) != 0 && ubi_socket_close(fds[i]) == 0);
    }
    free(buffer);
    free(fds);
}

/* One event, and a model of its counter. */
static void use_event(struct input *input) {
    int flags = take8(input);
    int fd = eventfd(0, EFD_CLOEXEC | ((flags & 1) != 0 ? EFD_NONBLOCK : 0));
    uint64_t model = 0;
    const uint64_t most = UINT64_MAX - 1;
    CHECK(ubi_event_check(fd) == ((flags & 1) != 0 ? 1 : 2));
    for (int step = 0; step < 12; step++) {
        switch (take8(input) % 5) {
        case 0:
            if (model < most || (flags & 1) != 0) {
                CHECK(ubi_event_signal(fd) == (model < most ? 0 : -EAGAIN));
                model += model < most ? 1 : 0;
            }
            break;
        case 1:
            CHECK(ubi_event_signal_asking(fd) == (model < most ? 0 : -EAGAIN));
            model += model < most ? 1 : 0;
            break;
        case 2:
            CHECK(ubi_event_drain(fd) == (model > 0 ? 1 : 0));
            model = 0;
            break;
        case 3: {
            int is_full = model == most;
            CHECK(ubi_event_relieve(fd) == is_full);
            model = is_full ? 0 : model;
            break;
        }
        default: {
            uint64_t more = most - model;
            CHECK(more == 0 || write(fd, &more, sizeof(more)) == sizeof(more));
            model = most;
        }
        }
    }
    close(fd);
    CHECK(ubi_event_check(fd) < 0 && ubi_event_signal(fd) == -EBADF && ubi_event_drain(fd) == -EBADF);
}

static void use_others(struct input *input) {
    char name[256];
    uint32_t length = take8(input);
    int fds[2];
    CHECK(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
    CHECK(ubi_event_check(fds[0]) == -EINVAL && ubi_socket_adopt(fds[0]) == -EINVAL);
    CHECK(ubi_socket_path(fds[0], name, length) < 0);
    uint32_t count = 0;
    int32_t none;
    CHECK(ubi_socket_receive(fds[0], name, length, &none, 1, &count) == -ENOTSOCK && count == 0);
    close(fds[0]);
    close(fds[1]);
    int timer = ubi_event_create_timer();
    CHECK(timer >= 0 && ubi_event_set_timer(timer, (double)take32(input)) == 0 && ubi_event_check(timer) < 0);
    (void)ubi_event_drain(timer);
    close(timer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, size};
    int before = open_descriptors();
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    int on = take8(&input) % 2;
    CHECK(setsockopt(fds[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0);
    for (int step = 0; step < STEPS && input.left > 0; step++) {
        switch (take8(&input) % 8) {
        case 0:
        case 1:
            send_raw(fds[0], &input);
            break;
        case 2:
            send_ours(fds[0], &input);
            break;
        case 3:
            use_event(&input);
            break;
        case 4:
            use_others(&input);
            break;
        case 5:
            shutdown(fds[0], take8(&input) % 8 == 0 ? SHUT_WR : -1);
            break;
        default:
            receive(fds[1], &input);
        }
    }
    close(fds[0]);
    close(fds[1]);
    CHECK(open_descriptors() == before);
    return 0;
}
