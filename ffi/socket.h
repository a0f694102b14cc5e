/* Unix stream sockets with descriptor passing, and one wait over several descriptors. */
#ifndef UBI_SOCKET_H
#define UBI_SOCKET_H

#include "ubi.h"

/* `path` is NUL-terminated, at most 107 bytes. The file gets `mode` before anyone can connect. */
int32_t ubi_socket_listen(const char *path, uint32_t mode, uint32_t backlog);
/* 0 when someone listens at `path`, -ECONNREFUSED when the socket file is an orphan. */
int32_t ubi_socket_probe(const char *path);
int32_t ubi_socket_connect(const char *path);
/* Non-blocking accept: a close-on-exec, non-blocking connection, or -EAGAIN. */
int32_t ubi_socket_accept(int32_t fd);

/*
 * Reads at most `length` bytes; descriptors go to `fds` (`fds_max` places), their number to `*fds_count`.
 * -EMSGSIZE when more descriptors came than fit (all are closed); 0 at the end of the stream.
 */
int32_t ubi_socket_receive(int32_t fd, void *buffer, uint32_t length, int32_t *fds, uint32_t fds_max,
                           uint32_t *fds_count);
int32_t ubi_socket_send(int32_t fd, const void *buffer, uint32_t length, const int32_t *fds, uint32_t fds_count);

/* poll(2) over `count` struct pollfd; EINTR counts as nothing ready. */
int32_t ubi_socket_wait(void *poll_fds, uint32_t count, int32_t timeout_ms);

int32_t ubi_socket_close(int32_t fd);

#endif
