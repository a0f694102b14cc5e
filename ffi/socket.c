/*
 * Sockets: created and used by the control worker (or a client's main thread), closed by whoever got the
 * descriptor. Received descriptors belong to the caller from the moment receive returns.
 */
#define _GNU_SOURCE
#include "socket.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define RECEIVE_FDS_MAX 64

static int32_t fill_address(struct sockaddr_un *address, const char *path) {
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof(address->sun_path)) {
        return -ENAMETOOLONG;
    }
    memcpy(address->sun_path, path, length + 1);
    return 0;
}

static int32_t close_with(int fd, int error) {
    close(fd);
    return -error;
}

int32_t ubi_socket_listen(const char *path, uint32_t mode, uint32_t backlog) {
    struct sockaddr_un address;
    int32_t result = fill_address(&address, path);
    if (result < 0) {
        return result;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    /* The socket's own mode is what bind gives the file (less the umask), so it is never too wide. */
    if (fchmod(fd, (mode_t)mode) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        return close_with(fd, errno);
    }
    if (chmod(path, (mode_t)mode) < 0 || listen(fd, (int)backlog) < 0) {
        int error = errno;
        unlink(path);
        return close_with(fd, error);
    }
    return fd;
}

static int32_t connect_to(const char *path, int flags) {
    struct sockaddr_un address;
    int32_t result = fill_address(&address, path);
    if (result < 0) {
        return result;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        return close_with(fd, errno);
    }
    return fd;
}

int32_t ubi_socket_probe(const char *path) {
    int32_t fd = connect_to(path, SOCK_NONBLOCK);
    if (fd == -EAGAIN) {
        return 0; /* its backlog is full: someone listens */
    }
    if (fd < 0) {
        return fd;
    }
    close(fd);
    return 0;
}

int32_t ubi_socket_connect(const char *path) { return connect_to(path, 0); }

int32_t ubi_socket_accept(int32_t fd) {
    return ubi_result(accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

static void close_all(const int32_t *fds, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        close(fds[i]);
    }
}

int32_t ubi_socket_receive(int32_t fd, void *buffer, uint32_t length, int32_t *fds, uint32_t fds_max,
                           uint32_t *fds_count) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int32_t) * RECEIVE_FDS_MAX)];
    } control;
    struct iovec vector = {.iov_base = buffer, .iov_len = length};
    struct msghdr message = {
        .msg_iov = &vector,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    *fds_count = 0;
    ssize_t received;
    do {
        received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (received < 0 && errno == EINTR);
    if (received < 0) {
        return -errno;
    }
    int overflow = (message.msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part != NULL; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        uint32_t count = (uint32_t)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int32_t));
        int32_t passed[RECEIVE_FDS_MAX];
        /* SAFETY: count is bounded by the control buffer, which holds RECEIVE_FDS_MAX at most. */
        memcpy(passed, CMSG_DATA(part), count * sizeof(int32_t));
        if (*fds_count + count > fds_max) {
            close_all(passed, count);
            overflow = 1;
            continue;
        }
        memcpy(fds + *fds_count, passed, count * sizeof(int32_t));
        *fds_count += count;
    }
    if (overflow) {
        close_all(fds, *fds_count);
        *fds_count = 0;
        return -EMSGSIZE;
    }
    return (int32_t)received;
}

int32_t ubi_socket_send(int32_t fd, const void *buffer, uint32_t length, const int32_t *fds, uint32_t fds_count) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int32_t) * RECEIVE_FDS_MAX)];
    } control;
    if (fds_count > RECEIVE_FDS_MAX) {
        return -EMSGSIZE;
    }
    struct iovec vector = {.iov_base = (void *)buffer, .iov_len = length};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (fds_count > 0) {
        memset(&control, 0, sizeof(control));
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int32_t) * fds_count);
        struct cmsghdr *part = CMSG_FIRSTHDR(&message);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof(int32_t) * fds_count);
        memcpy(CMSG_DATA(part), fds, sizeof(int32_t) * fds_count);
    }
    ssize_t sent;
    do {
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return ubi_result(sent);
}

int32_t ubi_socket_wait(void *poll_fds, uint32_t count, int32_t timeout_ms) {
    int ready = poll(poll_fds, count, timeout_ms);
    return ready < 0 && errno == EINTR ? 0 : ubi_result(ready);
}

int32_t ubi_socket_close(int32_t fd) { return ubi_result(close(fd)); }
