/*
 * Stream sockets: each belongs to the thread that made or accepted it, which closes it with
 * ubi_socket_close. All are close-on-exec and non-blocking.
 */
#define _GNU_SOURCE
#include "stream.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <linux/sockios.h>

#define IDLE_SECONDS 60
#define PROBE_SECONDS 15
#define PROBES 4

struct address {
    struct sockaddr_storage storage;
    socklen_t length;
};

/* Only literals: nothing here asks a name server. */
static int32_t parse_address(const char *host, uint32_t port, struct address *address) {
    char service[12];
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    snprintf(service, sizeof(service), "%u", port);
    if (port > 65535 || getaddrinfo(host, service, &hints, &found) != 0) {
        return -EINVAL;
    }
    memcpy(&address->storage, found->ai_addr, found->ai_addrlen);
    address->length = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int32_t close_with(int fd, int error) {
    close(fd);
    return -error;
}

static int32_t connect_to(const struct address *address) {
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    /* SAFETY: the storage holds an address of its family, `length` bytes of it. */
    if (connect(fd, (const struct sockaddr *)&address->storage, address->length) < 0 && errno != EINPROGRESS &&
        errno != EINTR) {
        return close_with(fd, errno);
    }
    return fd;
}

int32_t ubi_stream_connect(const char *host, uint32_t port) {
    struct address address;
    int32_t result = parse_address(host, port, &address);
    return result < 0 ? result : connect_to(&address);
}

int32_t ubi_stream_connect_path(const char *path) {
    struct address address;
    /* SAFETY: the storage is larger than any address and aligned for all. */
    struct sockaddr_un *target = (struct sockaddr_un *)&address.storage;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof(target->sun_path)) {
        return -ENAMETOOLONG;
    }
    memset(target, 0, sizeof(*target));
    target->sun_family = AF_UNIX;
    memcpy(target->sun_path, path, length + 1);
    address.length = sizeof(*target);
    return connect_to(&address);
}

int32_t ubi_stream_error(int32_t fd) {
    int error = 0;
    socklen_t length = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) {
        return -errno;
    }
    return -error;
}

int32_t ubi_stream_listen(const char *host, uint32_t port, uint32_t backlog) {
    struct address address;
    int32_t result = parse_address(host, port, &address);
    if (result < 0) {
        return result;
    }
    int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    int on = 1;
    /* SAFETY: as in connect_to. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (const struct sockaddr *)&address.storage, address.length) < 0 || listen(fd, (int)backlog) < 0) {
        return close_with(fd, errno);
    }
    return fd;
}

int32_t ubi_stream_port(int32_t fd) {
    struct sockaddr_storage storage;
    socklen_t length = sizeof(storage);
    if (getsockname(fd, (struct sockaddr *)&storage, &length) < 0) {
        return -errno;
    }
    /* SAFETY: the family says which structure the storage holds. */
    if (storage.ss_family == AF_INET) {
        return ntohs(((struct sockaddr_in *)&storage)->sin_port);
    }
    return storage.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&storage)->sin6_port) : 0;
}

static int32_t name_address(const struct address *address, char *name, uint32_t length) {
    char host[UBI_STREAM_NAME_MAX];
    char port[12];
    char whole[UBI_STREAM_NAME_MAX + 16];
    const struct sockaddr_storage *storage = &address->storage;
    if (storage->ss_family != AF_INET && storage->ss_family != AF_INET6) {
        return 0;
    }
    /* SAFETY: as in connect_to. */
    if (getnameinfo((const struct sockaddr *)storage, address->length, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return -EINVAL;
    }
    const char *form = storage->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s";
    int written = snprintf(whole, sizeof(whole), form, host, port);
    uint32_t used = (uint32_t)written < length ? (uint32_t)written : length;
    memcpy(name, whole, used);
    return (int32_t)used;
}

int32_t ubi_stream_peer(int32_t fd, char *name, uint32_t length) {
    struct address address = {.length = sizeof(address.storage)};
    if (getpeername(fd, (struct sockaddr *)&address.storage, &address.length) < 0) {
        return -errno;
    }
    return name_address(&address, name, length);
}

int32_t ubi_stream_local(int32_t fd, char *name, uint32_t length) {
    struct address address = {.length = sizeof(address.storage)};
    if (getsockname(fd, (struct sockaddr *)&address.storage, &address.length) < 0) {
        return -errno;
    }
    return name_address(&address, name, length);
}

static int set_number(int fd, int level, int option, int value) {
    return setsockopt(fd, level, option, &value, sizeof(value));
}

int32_t ubi_stream_tune(int32_t fd) {
    if (set_number(fd, IPPROTO_TCP, TCP_NODELAY, 1) < 0) {
        return errno == EOPNOTSUPP || errno == ENOPROTOOPT ? 0 : -errno; /* not TCP */
    }
    if (set_number(fd, SOL_SOCKET, SO_KEEPALIVE, 1) < 0 ||
        set_number(fd, IPPROTO_TCP, TCP_KEEPIDLE, IDLE_SECONDS) < 0 ||
        set_number(fd, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_SECONDS) < 0 ||
        set_number(fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES) < 0) {
        return -errno;
    }
    return 0;
}

int32_t ubi_stream_untaken(int32_t fd) {
    int untaken = 0;
    return ioctl(fd, SIOCOUTQ, &untaken) < 0 ? -errno : untaken;
}

int32_t ubi_stream_read(int32_t fd, void *buffer, uint32_t length) {
    ssize_t moved;
    do {
        moved = recv(fd, buffer, length, 0);
    } while (moved < 0 && errno == EINTR);
    return ubi_result(moved);
}

int32_t ubi_stream_write(int32_t fd, const void *buffer, uint32_t length) {
    ssize_t moved;
    do {
        moved = send(fd, buffer, length, MSG_NOSIGNAL);
    } while (moved < 0 && errno == EINTR);
    return ubi_result(moved);
}
