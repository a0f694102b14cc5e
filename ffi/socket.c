/*
 * Sockets: created and used by the control worker (or a client's main thread), closed by whoever got the
 * descriptor. Received descriptors belong to the caller from the moment receive returns.
 */
#define _GNU_SOURCE
#include "socket.h"

#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
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

/* Of the socket's file itself, never of what somebody put in its place. */
static int32_t set_rights(const char *path, mode_t mode, uid_t owner, gid_t group) {
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    struct stat info;
    if (fstat(fd, &info) < 0) {
        return close_with(fd, errno);
    }
    if (!S_ISSOCK(info.st_mode)) {
        return close_with(fd, EINVAL);
    }
    const uint32_t kept = UINT32_MAX;
    if ((owner != kept || group != kept) && fchownat(fd, "", owner, group, AT_EMPTY_PATH) < 0) {
        return close_with(fd, errno);
    }
    char link[32]; /* chmod has no form for such a descriptor before Linux 6.6 */
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (chmod(link, mode) < 0) {
        return close_with(fd, errno);
    }
    close(fd);
    return 0;
}

int32_t ubi_socket_listen(const char *path, uint32_t mode, uint32_t owner, uint32_t group, uint32_t backlog) {
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
    result = set_rights(path, (mode_t)mode, owner, group);
    if (result == 0 && listen(fd, (int)backlog) < 0) {
        result = -errno;
    }
    if (result < 0) {
        unlink(path);
        return close_with(fd, -result);
    }
    return fd;
}

static int option_of(int fd, int option) {
    int value = -1;
    socklen_t length = sizeof(value);
    return getsockopt(fd, SOL_SOCKET, option, &value, &length) < 0 ? -1 : value;
}

int32_t ubi_socket_adopt(int32_t fd) {
    int domain = option_of(fd, SO_DOMAIN);
    int is_internet = domain == AF_INET || domain == AF_INET6;
    if ((domain != AF_UNIX && !is_internet) || option_of(fd, SO_TYPE) != SOCK_STREAM ||
        option_of(fd, SO_ACCEPTCONN) != 1) {
        return -EINVAL;
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        return -errno;
    }
    return is_internet ? UBI_SOCKET_INTERNET : UBI_SOCKET_UNIX;
}

int32_t ubi_socket_path(int32_t fd, char *name, uint32_t length) {
    struct sockaddr_un address;
    socklen_t address_length = sizeof(address);
    memset(&address, 0, sizeof(address));
    if (getsockname(fd, (struct sockaddr *)&address, &address_length) < 0) {
        return -errno;
    }
    size_t start = offsetof(struct sockaddr_un, sun_path);
    if (address.sun_family != AF_UNIX || address_length <= start) {
        return 0; /* without a name */
    }
    size_t used = address_length - start;
    if (used > sizeof(address.sun_path)) {
        used = sizeof(address.sun_path);
    }
    if (address.sun_path[0] == '\0') {
        address.sun_path[0] = '@';
    } else {
        used = strnlen(address.sun_path, used);
    }
    if (used > length) {
        return -ENAMETOOLONG;
    }
    memcpy(name, address.sun_path, used);
    return (int32_t)used;
}

int32_t ubi_socket_tell(const char *path, const void *bytes, uint32_t length, int32_t wait_ms) {
    struct sockaddr_un address;
    int32_t result = fill_address(&address, path);
    if (result < 0) {
        return result;
    }
    if (address.sun_path[0] == '@') {
        address.sun_path[0] = '\0';
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    socklen_t address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (connect(fd, (struct sockaddr *)&address, address_length) < 0) {
        return close_with(fd, errno);
    }
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    ssize_t sent;
    int tries = 2; /* with a wait in between */
    do {
        sent = send(fd, bytes, length, MSG_NOSIGNAL);
        tries -= 1;
    } while (sent < 0 && (errno == EINTR || (errno == EAGAIN && tries > 0 && poll(&room, 1, wait_ms) == 1)));
    if (sent < 0) {
        return close_with(fd, errno == EINTR ? EAGAIN : errno);
    }
    close(fd);
    return 0;
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

int32_t ubi_socket_pair(int32_t *fds) {
    return ubi_result(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
}

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
