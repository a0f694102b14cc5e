/* Unix stream sockets with descriptor passing, and one wait over several descriptors. */
#ifndef UBI_SOCKET_H
#define UBI_SOCKET_H

#include "ubi.h"

/*
 * `path` is NUL-terminated, at most 107 bytes. The file has `mode`, and belongs to `owner` and `group` (UINT32_MAX: to
 * those that it gets by itself), before anyone can connect.
 */
int32_t ubi_socket_listen(const char *path, uint32_t mode, uint32_t owner, uint32_t group, uint32_t backlog);
/*
 * Takes over a descriptor that this process was started with: UBI_SOCKET_UNIX or UBI_SOCKET_INTERNET when it is a
 * stream socket that listens, which is then close-on-exec and non-blocking; -EINVAL for any other.
 */
#define UBI_SOCKET_UNIX 1
#define UBI_SOCKET_INTERNET 2
int32_t ubi_socket_adopt(int32_t fd);
/* The address of a Unix socket in `name`, of `length` bytes: a path, or `@name`. Returns how long it is. */
int32_t ubi_socket_path(int32_t fd, char *name, uint32_t length);
/*
 * Sends one datagram to the Unix socket at `path` (`@name` for an abstract one), which may take `wait_ms` to have
 * room: -EAGAIN when it has none.
 */
int32_t ubi_socket_tell(const char *path, const void *bytes, uint32_t length, int32_t wait_ms);
/* 0 when someone listens at `path`, -ECONNREFUSED when the socket file is an orphan. */
int32_t ubi_socket_probe(const char *path);
int32_t ubi_socket_connect(const char *path);
/* Two sockets that are connected with each other, non-blocking, and keep the borders of messages, in `fds`. */
int32_t ubi_socket_pair(int32_t *fds);
/* Non-blocking accept: a close-on-exec, non-blocking connection, or -EAGAIN. */
int32_t ubi_socket_accept(int32_t fd);

/*
 * Reads at most `length` bytes; descriptors go to `fds` (`fds_max` places), their number to `*fds_count`.
 * -EMSGSIZE when more descriptors came than fit (all are closed); 0 at the end of the stream. Neither this nor the
 * sending waits, whatever the socket is set to: a peer that passed the socket could set it otherwise. -EAGAIN instead.
 */
int32_t ubi_socket_receive(int32_t fd, void *buffer, uint32_t length, int32_t *fds, uint32_t fds_max,
                           uint32_t *fds_count);
int32_t ubi_socket_send(int32_t fd, const void *buffer, uint32_t length, const int32_t *fds, uint32_t fds_count);

/* poll(2) over `count` struct pollfd; EINTR counts as nothing ready. */
int32_t ubi_socket_wait(void *poll_fds, uint32_t count, int32_t timeout_ms);

int32_t ubi_socket_close(int32_t fd);

#endif
