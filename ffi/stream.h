/* Stream sockets that never block: TCP by literal address, and Unix sockets by path. */
#ifndef UBI_STREAM_H
#define UBI_STREAM_H

#include "ubi.h"

#define UBI_STREAM_NAME_MAX 128

/*
 * Begins a connection: a descriptor that can be written when it is established or has failed, which
 * ubi_stream_error tells. `host` is a literal IPv4 or IPv6 address (with a zone if need be), NUL-terminated.
 */
int32_t ubi_stream_connect(const char *host, uint32_t port);
/* The same to a Unix socket; `path` is NUL-terminated, at most 107 bytes. -EAGAIN when its backlog is full. */
int32_t ubi_stream_connect_path(const char *path);
/* What became of a connection: 0, or -errno. */
int32_t ubi_stream_error(int32_t fd);

/* Listens at a literal address; port 0 takes any free one. */
int32_t ubi_stream_listen(const char *host, uint32_t port, uint32_t backlog);
/* The port of a listening TCP socket, 0 for any other. */
int32_t ubi_stream_port(int32_t fd);
/* The other end as text, `length` bytes at most without a NUL: its length. Nothing for Unix sockets. */
int32_t ubi_stream_peer(int32_t fd, char *name, uint32_t length);
/* This end, as text in the same way. */
int32_t ubi_stream_local(int32_t fd, char *name, uint32_t length);
/* Small writes go at once, and a peer that vanished is noticed in about two minutes. 0 for Unix sockets too. */
int32_t ubi_stream_tune(int32_t fd);
/* Bytes that were written and that the other end has not got, as far as the system knows. */
int32_t ubi_stream_untaken(int32_t fd);

/* Bytes moved, 0 at the end of the stream, -EAGAIN or another -errno. A closed peer raises no signal. */
int32_t ubi_stream_read(int32_t fd, void *buffer, uint32_t length);
int32_t ubi_stream_write(int32_t fd, const void *buffer, uint32_t length);

#endif
